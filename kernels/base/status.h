// How errors leave a function.
//   RETURN_IF_ERROR(expression);              an absl::Status: returned from the function if it is not OK
//   ASSIGN_OR_RETURN(variable, expression);   an absl::StatusOr: its status is returned if it is not OK;
//   otherwise its value moves to
//                                             `variable`, which may be declared there: ASSIGN_OR_RETURN(const
//                                             File file, File::Open(path)); a type with a comma in it needs
//                                             auto.
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define RETURN_IF_ERROR(...)                                                                   \
  do {                                                                                         \
    if (absl::Status deeper_status = (__VA_ARGS__); !deeper_status.ok()) return deeper_status; \
  } while (false)

#define ASSIGN_OR_RETURN(variable, ...) \
  DEEPER_ASSIGN_OR_RETURN(DEEPER_CONCATENATE(deeper_result_, __LINE__), variable, (__VA_ARGS__))
#define DEEPER_ASSIGN_OR_RETURN(result, variable, expression) \
  auto result = expression;                                   \
  if (!result.ok()) return std::move(result).status();        \
  variable = *std::move(result)  // NOLINT(bugprone-macro-parentheses): a declaration
#define DEEPER_CONCATENATE(a, b) DEEPER_CONCATENATE_EXPANDED(a, b)
#define DEEPER_CONCATENATE_EXPANDED(a, b) a##b
