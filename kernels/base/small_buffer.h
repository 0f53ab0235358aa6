// Memory that is small and that nothing works without: a failed check where there is not enough.
#pragma once

#include <cstddef>

#include "absl/strings/str_cat.h"
#include "kernels/base/check.h"
#include "kernels/base/device.h"

namespace deeper {

inline Buffer Checked(Buffer buffer, size_t bytes, const char* where) {
  DEEPER_CHECK(bytes == 0 || buffer.data() != nullptr,
               absl::StrCat("no ", where, " memory for ", bytes, " bytes: use a smaller --micro_batch"));
  return buffer;
}

// As Device::Allocate and Device::AllocateStaging.
inline Buffer AllocateSmall(Device& device, size_t bytes) {
  return Checked(device.Allocate(bytes), bytes, "device");
}
inline Buffer AllocateSmallStaging(Device& device, size_t bytes) {
  return Checked(device.AllocateStaging(bytes), bytes, "pinned host");
}

}  // namespace deeper
