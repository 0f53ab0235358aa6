// A loop over independent pieces of file work on a number of threads.
#pragma once

#include <cstdint>
#include <functional>

#include "absl/status/status.h"

namespace deeper {

// Calls work(i) once for each i in [0, count), on `jobs` threads (0: one a core), in no order. After an error
// no more pieces begin; of several errors the one of the smallest i is returned.
absl::Status RunJobs(int jobs, int64_t count, const std::function<absl::Status(int64_t)>& work);

}  // namespace deeper
