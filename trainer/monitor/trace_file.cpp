#include "trainer/monitor/trace_file.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <limits>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "comm/agree.h"
#include "data/io/atomic_file.h"
#include "kernels/base/status.h"
#include "nlohmann/json.hpp"

namespace deeper {
namespace {

using Json = nlohmann::ordered_json;

// From the top; other lanes follow.
constexpr std::array<const char*, 4> kLanes = {"compute", "communication", "data", "checkpoint"};

struct Offset {
  double ns = 0;              // this rank's clock minus rank 0's
  double uncertainty_ns = 0;  // plus or minus
};

// In each round, rank 0 left the barrier after this rank had entered it, and vice versa.
Offset ClockOffset(Communicator& comm) {
  constexpr int kRounds = 30;
  struct Round {
    int64_t entered, left;
  };
  std::vector<Round> mine(kRounds), all(static_cast<size_t>(comm.size()) * kRounds);
  for (Round& round : mine) {
    round.entered = TraceClock();
    comm.Barrier();
    round.left = TraceClock();
  }
  comm.AllGather(mine.data(), all.data(), kRounds * sizeof(Round), {}).Wait();
  if (comm.rank() == 0) return {};
  double low = -std::numeric_limits<double>::infinity(), high = -low;
  for (size_t i = 0; i < kRounds; ++i) {
    low = std::max(low, static_cast<double>(mine[i].entered - all[i].left));
    high = std::min(high, static_cast<double>(mine[i].left - all[i].entered));
  }
  return {(low + high) / 2, (high - low) / 2};
}

// Gives each event without a row the first row that is free at its start, so that events do not overlap.
void GiveRows(std::vector<TraceEvent>& events) {
  std::stable_sort(events.begin(), events.end(),
                   [](const TraceEvent& a, const TraceEvent& b) { return a.start_ns < b.start_ns; });
  std::map<std::string, std::vector<int64_t>> busy_until;  // [lane][row]
  for (TraceEvent& event : events) {
    if (event.row >= 0) continue;
    std::vector<int64_t>& rows = busy_until[event.lane];
    auto row = std::find_if(rows.begin(), rows.end(), [&](int64_t end) { return end <= event.start_ns; });
    if (row == rows.end()) row = rows.insert(row, 0);
    *row = event.end_ns;
    event.row = row - rows.begin();
  }
}

Json Metadata(const char* name, int rank, int64_t thread, const char* key, const Json& value) {
  return {{"name", name}, {"ph", "M"}, {"pid", rank}, {"tid", thread}, {"args", {{key, value}}}};
}

// The events and lane names of this rank as JSON, separated by commas. Times count from `origin_ns`.
std::string RankJson(std::vector<TraceEvent> events, int rank, double origin_ns) {
  GiveRows(events);
  std::map<std::pair<int64_t, int64_t>, std::pair<std::string, std::vector<const TraceEvent*>>> lanes;
  for (const TraceEvent& event : events) {
    const int64_t place = std::find(kLanes.begin(), kLanes.end(), event.lane) - kLanes.begin();
    auto& lane = lanes[{place, event.row}];
    lane.first = event.lane;
    lane.second.push_back(&event);
  }
  char host[256] = "";
  gethostname(host, sizeof host - 1);
  std::vector<std::string> lines = {
      Metadata("process_name", rank, 0, "name", absl::StrCat("rank ", rank, " on ", host)).dump(),
      Metadata("process_sort_index", rank, 0, "sort_index", rank).dump()};
  int64_t thread = 0;
  std::map<std::string, int> numbers;
  for (const auto& [key, lane] : lanes) {
    const auto& [name, its_events] = lane;
    ++thread;
    const int number = ++numbers[name];
    lines.push_back(
        Metadata("thread_name", rank, thread, "name", number == 1 ? name : absl::StrCat(name, " ", number))
            .dump());
    lines.push_back(Metadata("thread_sort_index", rank, thread, "sort_index", thread).dump());
    for (const TraceEvent* event : its_events) {
      lines.push_back(Json({{"name", event->name},
                            {"cat", event->lane},
                            {"ph", "X"},  // a complete event; times in microseconds
                            {"ts", (static_cast<double>(event->start_ns) - origin_ns) / 1e3},
                            {"dur", static_cast<double>(event->end_ns - event->start_ns) / 1e3},
                            {"pid", rank},
                            {"tid", thread}})
                          .dump());
    }
  }
  return absl::StrJoin(lines, ",\n");
}

// [rank] on rank 0; empty texts elsewhere.
std::vector<std::string> Gather(const std::string& mine, Communicator& comm) {
  std::vector<std::string> all(static_cast<size_t>(comm.size()));
  for (int rank = 0; rank < comm.size(); ++rank) {
    std::string text = rank == comm.rank() ? mine : "";
    Broadcast(comm, rank, &text);
    if (comm.rank() == 0) all[static_cast<size_t>(rank)] = std::move(text);
  }
  return all;
}

}  // namespace

absl::Status WriteTrace(const std::string& path, std::vector<TraceEvent> events, Communicator& comm) {
  const Offset offset = ClockOffset(comm);
  double origin_ns = std::numeric_limits<double>::infinity();  // of all ranks' events, on rank 0's clock
  for (const TraceEvent& event : events)
    origin_ns = std::min(origin_ns, static_cast<double>(event.start_ns) - offset.ns);
  comm.AllReduce(&origin_ns, 1, CommType::kF64, ReduceOp::kMin, {}).Wait();
  std::vector<double> uncertainties(static_cast<size_t>(comm.size()));
  const double uncertainty_us = offset.uncertainty_ns / 1e3;
  comm.AllGather(&uncertainty_us, uncertainties.data(), sizeof(double), {}).Wait();
  const std::vector<std::string> ranks =
      Gather(RankJson(std::move(events), comm.rank(), origin_ns + offset.ns), comm);
  absl::Status written;
  if (comm.rank() == 0) {
    const Json other = {{"clock", "rank 0's; the others' offsets were measured over barriers"},
                        {"clock_uncertainty_us", uncertainties}};
    written = CreateParentDirectory(path);
    if (written.ok())
      written = WriteFileAtomically(
          path, absl::StrCat("{\"traceEvents\": [\n", absl::StrJoin(ranks, ",\n"),
                             "\n],\n\"displayTimeUnit\": \"ms\",\n\"otherData\": ", other.dump(), "}\n"));
  }
  return Agree(comm, written);
}

void StepTrace::BeginStep(int64_t step) {
  if (path_.empty() || started_ || step < first_) return;
  first_ = step;
  started_ = true;
  StartTrace();
}

absl::StatusOr<bool> StepTrace::EndStep(int64_t step, bool last) {
  if (!started_ || written_ || (step + 1 < first_ + steps_ && !last)) return false;
  written_ = true;
  RETURN_IF_ERROR(WriteTrace(path_, StopTrace(), comm_));
  return true;
}

}  // namespace deeper
