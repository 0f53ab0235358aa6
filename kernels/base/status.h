// Macros and functions that return errors from a function.
//
// RETURN_IF_ERROR(expression) takes an absl::Status and returns it from the function unless it is OK.
// ASSIGN_OR_RETURN(variable, expression) takes an absl::StatusOr. It returns the status unless that is OK;
// otherwise it moves the value to `variable`, which may be declared in place:
//   ASSIGN_OR_RETURN(const File file, File::Open(path, O_RDONLY));
// A type with a comma in it does not fit into a macro's argument: use auto.
// InvalidArgument("batch ", batch, ": ...") and its siblings create a status and join the words of its
// message, as absl::StrCat does.
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

#define RETURN_IF_ERROR(...)                                                                   \
  do {                                                                                         \
    if (absl::Status deeper_status = (__VA_ARGS__); !deeper_status.ok()) return deeper_status; \
  } while (false)

#define ASSIGN_OR_RETURN(variable, ...) \
  DEEPER_ASSIGN_OR_RETURN(DEEPER_CONCATENATE(deeper_result_, __LINE__), variable, (__VA_ARGS__))
// NOLINTBEGIN(bugprone-macro-parentheses): `variable` may be a declaration, `result` is one.
#define DEEPER_ASSIGN_OR_RETURN(result, variable, expression) \
  auto result = expression;                                   \
  if (!result.ok()) return std::move(result).status();        \
  variable = *std::move(result)
// NOLINTEND(bugprone-macro-parentheses)
#define DEEPER_CONCATENATE(a, b) DEEPER_CONCATENATE_EXPANDED(a, b)
#define DEEPER_CONCATENATE_EXPANDED(a, b) a##b

namespace deeper {

#define DEEPER_ERROR(Kind)                            \
  template <typename... Words>                        \
  absl::Status Kind(const Words&... words) {          \
    return absl::Kind##Error(absl::StrCat(words...)); \
  }
DEEPER_ERROR(DataLoss)
DEEPER_ERROR(FailedPrecondition)
DEEPER_ERROR(Internal)
DEEPER_ERROR(InvalidArgument)
DEEPER_ERROR(NotFound)
DEEPER_ERROR(OutOfRange)
DEEPER_ERROR(ResourceExhausted)
DEEPER_ERROR(Unavailable)
DEEPER_ERROR(Unimplemented)
#undef DEEPER_ERROR

}  // namespace deeper
