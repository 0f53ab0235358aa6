#include "comm/watchdog/lateness.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <span>
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

// Ranks of GPUs wait for their device and for their peers in one call, so that they tie if one GPU hangs.
std::string DescribeDeadlock(const Verdict& verdict, const std::string& limit) {
  const std::string where = Describe(verdict.status.mark);
  const std::string time = absl::StrFormat("for %.1f s %s", verdict.status.standing, limit);
  if (verdict.others == 0)
    return absl::StrCat("the only rank has waited ", time, ": ", where, ". Its device may hang");
  const std::string all = absl::StrCat("all ranks have waited for each other ", time, "; ");
  constexpr char kAdvice[] = ". A GPU may hang, or the network between the ranks may be down";
  if (verdict.tied) return absl::StrCat(all, "none is behind the others: ", where, kAdvice);
  const size_t named = std::min<size_t>(verdict.behind.size(), 8), more = verdict.behind.size() - named;
  std::string behind;
  if (named > 0) {
    behind = absl::StrCat(named == 1 ? "rank " : "ranks ",
                          absl::StrJoin(std::span(verdict.behind).first(named), ", "),
                          more > 0 ? absl::StrCat(" and ", more, " more") : "", named == 1 ? " is" : " are",
                          " behind step ", verdict.latest_step, " of the others; ");
  }
  return absl::StrCat(all, behind, "rank ", verdict.rank, " made the least progress: ", where, kAdvice);
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
  std::optional<Verdict> verdict = Worst(
      Kind::kDeadlock, ranks, [](const auto&) { return true; },
      [](const RankStatus& rank) { return -rank.mark.marks; });
  verdict->tied = true;
  for (const RankStatus& rank : ranks) {
    verdict->tied = verdict->tied && rank.mark.marks == ranks.front().mark.marks;
    verdict->latest_step = std::max(verdict->latest_step, rank.mark.step);
  }
  for (size_t i = 0; i < ranks.size(); ++i)
    if (ranks[i].mark.step < verdict->latest_step) verdict->behind.push_back(static_cast<int>(i));
  return verdict;
}

double ReportDelay(int rank, int elsewhere) {
  return rank <= 1 ? 0 : rank == 2 || rank == elsewhere ? 0.5 : 5;
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
      return DescribeDeadlock(verdict, limit);
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
