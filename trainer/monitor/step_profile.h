// The measured launches of a step, as tables and for trace viewers.
#pragma once

#include <string>
#include <vector>

#include "kernels/base/device.h"
#include "trainer/scaling/gpu_spec.h"

namespace deeper {

// In the trace event format, which Perfetto (ui.perfetto.dev) and Chrome read.
std::string TraceJson(const std::vector<ProfiledLaunch>& profile);

// Two tables of times, by launch name and by scope, longest first, with the share of the time that the GPU
// needs at least (FloorMicroseconds). gpu == nullptr: that minimum is not known.
std::string ProfileText(const std::vector<ProfiledLaunch>& profile, const GpuSpec* gpu, DType precision);

}  // namespace deeper
