// A loop over independent pieces of file work, on several threads.
#pragma once

#include <cstdint>
#include <functional>

#include "absl/status/status.h"

namespace deeper {

// Calls work(i) once for each i in [0, count), on `jobs` threads (0: one per core), in any order. After an
// error no new pieces start. Of several errors it returns that of the smallest i.
absl::Status RunJobs(int jobs, int64_t count, const std::function<absl::Status(int64_t)>& work);

}  // namespace deeper
