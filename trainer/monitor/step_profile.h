// The launches of a step as they ran, for people and for trace viewers.
#pragma once

#include <string>
#include <vector>

#include "kernels/base/device.h"
#include "trainer/scaling/gpu_spec.h"

namespace deeper {

// In the trace event format, which Perfetto (ui.perfetto.dev) and Chrome read.
std::string TraceJson(const std::vector<ProfiledLaunch>& profile);

// Two tables, by the launches' names and by their scopes, the longest first: where the time went, and which
// part of it the GPU needs at the least (FloorMicroseconds). gpu == nullptr: its floor is not known.
std::string ProfileText(const std::vector<ProfiledLaunch>& profile, const GpuSpec* gpu, DType precision);

}  // namespace deeper
