#include "comm/watchdog/lateness.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace deeper {
namespace {

bool StandsStill(const RankStatus& rank, double deadline) {
  return rank.standing > deadline * (rank.mark.unhurried ? kUnhurriedFactor : 1);
}

// The watched rank that `fits` with the greatest `badness`, and the number of others that fit.
template <class Fits, class Badness>
std::optional<Verdict> Worst(Verdict::Kind kind, std::span<const RankStatus> ranks, const Fits& fits,
                             const Badness& badness) {
  std::optional<Verdict> worst;
  for (size_t i = 0; i < ranks.size(); ++i) {
    const RankStatus& rank = ranks[i];
    if (rank.left || !fits(rank)) continue;
    const int others = worst.has_value() ? worst->others + 1 : 0;
    if (!worst.has_value() || badness(rank) > badness(worst->status))
      worst = Verdict{kind, static_cast<int>(i), rank, others};
    worst->others = others;
  }
  return worst;
}

std::string AndOthers(int others) {
  return others == 0 ? "" : absl::StrCat(" (and ", others, others == 1 ? " more rank)" : " more ranks)");
}

std::string CauseOf(const RankStatus& gone) {
  if (gone.error == 0) return "its process ended (its output or the launcher's gives the reason)";
  return absl::StrCat("its connection failed: ", std::strerror(gone.error));
}

// "0, 2-7" for ascending numbers.
std::string Ranges(const std::vector<int>& ranks) {
  std::vector<std::string> ranges;
  for (size_t first = 0, next = 0; first < ranks.size(); first = next) {
    for (next = first + 1; next < ranks.size() && ranks[next] == ranks[next - 1] + 1;) ++next;
    ranges.push_back(absl::StrCat(ranks[first], next - first > 1 ? absl::StrCat("-", ranks[next - 1]) : ""));
  }
  return absl::StrJoin(ranges, ", ");
}

}  // namespace

std::optional<Verdict> Judge(std::span<const RankStatus> ranks, double deadline) {
  using Kind = Verdict::Kind;
  const auto silence = [](const RankStatus& rank) { return rank.silent; };
  const auto standing = [](const RankStatus& rank) { return rank.standing; };
  if (auto gone = Worst(
          Kind::kGone, ranks, [](const auto& rank) { return rank.gone; }, silence))
    return gone;
  if (auto silent = Worst(
          Kind::kSilent, ranks, [&](const auto& rank) { return rank.silent > deadline; }, silence))
    return silent;
  if (auto late = Worst(
          Kind::kLate, ranks,
          [&](const auto& rank) { return !rank.mark.waiting && StandsStill(rank, deadline); }, standing))
    return late;
  const bool deadlock = std::all_of(ranks.begin(), ranks.end(), [&](const RankStatus& rank) {
    return !rank.left && rank.mark.waiting && StandsStill(rank, deadline);
  });
  if (!deadlock) return std::nullopt;
  return Worst(
      Kind::kDeadlock, ranks, [](const auto&) { return true; },
      [](const RankStatus& rank) { return -rank.mark.marks; });
}

std::string Describe(const Verdict& verdict, double deadline) {
  const RankStatus& status = verdict.status;
  const std::string who = absl::StrCat("rank ", verdict.rank, AndOthers(verdict.others));
  const std::string where = Describe(status.mark);
  const std::string limit = absl::StrFormat("(--watchdog_seconds=%g)", deadline);
  switch (verdict.kind) {
    case Verdict::Kind::kGone:
      return absl::StrFormat("%s was lost: %s; last seen %.1f s ago, in %s", who, CauseOf(status),
                             status.silent, where);
    case Verdict::Kind::kSilent:
      return absl::StrFormat(
          "%s has sent no heartbeat for %.1f s %s; last seen in %s. Its process is stopped, or its machine "
          "or the network is down",
          who, status.silent, limit, where);
    case Verdict::Kind::kLate:
      return absl::StrFormat("%s has made no progress for %.1f s: %s %s", who, status.standing, where, limit);
    case Verdict::Kind::kDeadlock:
      return absl::StrFormat(
          "all ranks have waited for each other for %.1f s %s; rank %d made the least progress: %s. The "
          "network between them may be down",
          status.standing, limit, verdict.rank, where);
  }
  return "";
}

std::string DescribeAll(std::span<const RankStatus> ranks, size_t groups) {
  std::map<std::string, std::vector<int>> by_place;
  for (size_t i = 0; i < ranks.size(); ++i)
    if (!ranks[i].left) by_place[Describe(ranks[i].mark)].push_back(static_cast<int>(i));
  std::vector<std::pair<std::string, std::vector<int>>> places(by_place.begin(), by_place.end());
  std::ranges::stable_sort(places, std::ranges::greater(),
                           [](const auto& place) { return place.second.size(); });
  std::vector<std::string> parts;
  for (const auto& [place, there] : places) {
    if (parts.size() == groups) {
      parts.push_back(absl::StrCat(places.size() - groups, " more places"));
      break;
    }
    parts.push_back(absl::StrCat(there.size() == 1 ? "rank " : "ranks ", Ranges(there), ": ", place));
  }
  return absl::StrJoin(parts, "; ");
}

}  // namespace deeper
