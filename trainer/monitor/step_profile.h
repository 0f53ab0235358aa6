// The measured launches of a step, as tables and for trace viewers.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "kernels/base/device.h"
#include "trainer/scaling/gpu_spec.h"

namespace deeper {

// In the trace event format, which Perfetto (ui.perfetto.dev) and Chrome read.
std::string TraceJson(const std::vector<ProfiledLaunch>& profile);

// Two tables of times, by launch name and by scope, longest first, with the share of the time that the device
// needs at least (FloorMicroseconds). nullopt: that minimum is not known.
std::string ProfileText(const std::vector<ProfiledLaunch>& profile, const std::optional<PeakRates>& peak,
                        DType precision);

}  // namespace deeper
