// The page of `deeper report`, but its data. Made by CMake of what is in launch/report/ and of dygraphs.
#pragma once

namespace deeper {

extern const char kReportPage[];

}  // namespace deeper
