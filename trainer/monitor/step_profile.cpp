#include "trainer/monitor/step_profile.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <utility>

#include "absl/strings/str_format.h"
#include "nlohmann/json.hpp"

namespace deeper {
namespace {

struct Spent {
  int64_t launches = 0;
  double ms = 0, floor_ms = 0;

  Spent& operator+=(const Spent& other) {
    launches += other.launches;
    ms += other.ms;
    floor_ms += other.floor_ms;
    return *this;
  }
};

using Groups = std::map<std::string, Spent>;

std::string Row(const std::string& name, const Spent& spent, const Spent& total) {
  const double floor_share = spent.ms > 0 ? 100 * spent.floor_ms / spent.ms : 0;
  return absl::StrFormat("%-40s %9d %10.3f %8.1f", name, spent.launches, spent.ms,
                         total.ms > 0 ? 100 * spent.ms / total.ms : 0) +
         (total.floor_ms > 0 ? absl::StrFormat(" %10.3f %8.1f\n", spent.floor_ms, floor_share) : "\n");
}

std::string Table(const char* title, const Groups& groups) {
  Spent total;
  for (const auto& [name, spent] : groups) total += spent;
  std::vector<std::pair<std::string, Spent>> rows(groups.begin(), groups.end());
  std::stable_sort(rows.begin(), rows.end(),
                   [](const auto& a, const auto& b) { return a.second.ms > b.second.ms; });
  std::string text = absl::StrFormat("%-40s %9s %10s %8s", title, "launches", "ms", "% of all") +
                     (total.floor_ms > 0 ? absl::StrFormat(" %10s %8s\n", "floor ms", "% of ms") : "\n");
  for (const auto& [name, spent] : rows) text += Row(name, spent, total);
  return text + Row("total", total, total);
}

}  // namespace

std::string TraceJson(const std::vector<ProfiledLaunch>& profile) {
  auto events = nlohmann::ordered_json::array();
  for (const auto& [scope, launch, start_ms, duration_ms] : profile) {
    events.push_back({{"name", launch.name},
                      {"ph", "X"},  // a complete event; times in microseconds
                      {"ts", 1000 * start_ms},
                      {"dur", 1000 * duration_ms},
                      {"pid", 0},
                      {"tid", 0},
                      {"args", {{"scope", scope}, {"bytes", launch.bytes}, {"macs", launch.macs}}}});
  }
  return nlohmann::ordered_json{{"traceEvents", std::move(events)}, {"displayTimeUnit", "ms"}}.dump() + "\n";
}

std::string ProfileText(const std::vector<ProfiledLaunch>& profile, const std::optional<PeakRates>& peak,
                        DType precision) {
  Groups by_name, by_scope;
  for (const ProfiledLaunch& ran : profile) {
    const double floor_us = peak.has_value() ? FloorMicroseconds(ran.launch, *peak, precision) : 0;
    const Spent spent = {1, ran.duration_ms, floor_us / 1000};
    by_name[ran.launch.name] += spent;
    by_scope[ran.scope] += spent;
  }
  return Table("launch", by_name) + "\n" + Table("module", by_scope);
}

}  // namespace deeper
