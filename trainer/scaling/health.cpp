#include "trainer/scaling/health.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "kernels/base/status.h"
#include "trainer/scaling/statistics.h"

namespace deeper {
namespace {

constexpr size_t kEnoughForDeviations = 4;  // figures

// costs: larger is worse. Finds the slow ones and the median; of two costs, the smaller is the median.
struct Outliers {
  double median = 0;
  std::vector<size_t> slow;
};

Outliers FindSlow(const std::vector<double>& costs, double factor) {
  Outliers found;
  if (costs.empty()) return found;
  found.median = LowerMedian(costs);
  std::vector<double> distances;
  for (const double cost : costs) distances.push_back(std::abs(cost - found.median));
  const double deviation = costs.size() < kEnoughForDeviations ? 0 : 1.4826 * LowerMedian(distances);
  for (size_t i = 0; i < costs.size(); ++i)
    if (costs[i] > factor * found.median && costs[i] > found.median + 3 * deviation) found.slow.push_back(i);
  return found;
}

std::string Name(const std::vector<RankHealth>& ranks, size_t rank) {
  return absl::StrCat("rank ", rank, " (", ranks[rank].host, ")");
}

size_t Before(const std::vector<RankHealth>& ranks, size_t rank) {
  return (rank + ranks.size() - 1) % ranks.size();
}

bool CrossesHosts(const std::vector<RankHealth>& ranks, size_t rank) {
  return std::strcmp(ranks[rank].host, ranks[Before(ranks, rank)].host) != 0;
}

std::string LinkName(const std::vector<RankHealth>& ranks, size_t rank) {
  return absl::StrFormat("the link from %s to %s gives %.1f MB/s at %.0f us",
                         Name(ranks, Before(ranks, rank)), Name(ranks, rank),
                         ranks[rank].link_bytes_per_second / 1e6, ranks[rank].link_latency_us);
}

// "8 TCP connections at once give 1170.0 MB/s"
std::string StreamsText(const RankHealth& rank) {
  return absl::StrFormat("%d TCP connections at once give %.1f MB/s", kStreams,
                         rank.streams_bytes_per_second / 1e6);
}

// Compares links with the nominal speed of their interfaces, and with other links of the same kind.
void ExamineLinks(const std::vector<RankHealth>& ranks, bool across, std::vector<Finding>& findings) {
  std::vector<size_t> links;
  std::vector<double> costs;
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    if (ranks[rank].link_bytes_per_second == 0 || CrossesHosts(ranks, rank) != across) continue;
    links.push_back(rank);
    costs.push_back(1 / ranks[rank].link_bytes_per_second);
  }
  const Outliers found = FindSlow(costs, kSlowerLink);
  for (size_t i = 0; i < links.size(); ++i) {
    const RankHealth &to = ranks[links[i]], &from = ranks[Before(ranks, links[i])];
    const RankHealth& slower = to.nominal_bytes_per_second < from.nominal_bytes_per_second ? to : from;
    const double nominal = across ? slower.nominal_bytes_per_second : 0;
    const double streams = across ? to.streams_bytes_per_second : 0;
    const double link = to.link_bytes_per_second, least = kLeastOfNominal * nominal;
    // If TCP is slower than the link, MPI uses something else, such as InfiniBand.
    if (link < std::min(least, kMostOfOneStream) || (streams > link && streams < least)) {
      const char* const advice = streams < least ? "look for a throttled, shared or wrong interface, and "
                                                   "select one with --mca btl_tcp_if_include"
                                                 : "let MPI use several connections (--mca btl_tcp_links 4), "
                                                   "and keep other programs off the cores";
      findings.push_back(
          {false, ExitCode::kCommunication,
           absl::StrFormat("%s, %.1f %% of the %.0f MB/s that %s of %s reports%s: %s",
                           LinkName(ranks, links[i]), 100 * link / nominal, nominal / 1e6, slower.network,
                           slower.host, streams > 0 ? absl::StrCat("; ", StreamsText(to)) : "", advice)});
    } else if (std::find(found.slow.begin(), found.slow.end(), i) != found.slow.end()) {
      findings.push_back({false, ExitCode::kCommunication,
                          absl::StrFormat("%s, while the median link gives %.1f MB/s: exclude that host, or "
                                          "look for a bad cable or port",
                                          LinkName(ranks, links[i]), 1e-6 / found.median)});
    }
  }
}

// Only about the slowest link: all links usually have the same transport.
void ExamineStreams(const std::vector<RankHealth>& ranks, std::vector<Finding>& findings) {
  size_t worst = ranks.size();
  double most = kWorthwhileStreams;
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    const RankHealth& to = ranks[rank];
    if (to.link_bytes_per_second == 0 || !CrossesHosts(ranks, rank)) continue;
    const double gain = to.streams_bytes_per_second / to.link_bytes_per_second;
    if (gain > most) most = gain, worst = rank;
  }
  if (worst == ranks.size()) return;
  findings.push_back(
      {true, ExitCode::kDone,
       absl::StrFormat("%s, but %s: let MPI use several connections (--mca btl_tcp_links 4), and NCCL "
                       "(NCCL_SOCKET_NTHREADS=4, NCCL_NSOCKS_PERTHREAD=2) if it uses TCP",
                       LinkName(ranks, worst), StreamsText(ranks[worst]))});
}

// cost(rank): larger is worse; 0: not known; ignored up to `bearable`. text(rank, median cost).
void ExamineRanks(const std::vector<RankHealth>& ranks, ExitCode code, double bearable,
                  const std::function<double(const RankHealth&)>& cost,
                  const std::function<std::string(size_t, double)>& text, std::vector<Finding>& findings) {
  std::vector<double> costs;
  for (const RankHealth& rank : ranks) costs.push_back(cost(rank));
  if (std::find(costs.begin(), costs.end(), 0.0) != costs.end()) return;
  const Outliers found = FindSlow(costs, kSlower);
  for (const size_t rank : found.slow)
    if (costs[rank] > bearable) findings.push_back({false, code, text(rank, found.median)});
}

void ExamineCheckpoints(const std::vector<RankHealth>& ranks, double bytes, std::vector<Finding>& findings) {
  if (bytes == 0) return;
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    if (!ranks[rank].sees_lock) {
      findings.push_back({false, ExitCode::kCheckpoint,
                          absl::StrCat(Name(ranks, rank),
                                       " got the lock on the checkpoint directory although rank 0 holds it: "
                                       "the rank sees another directory, or a file system without locks, and "
                                       "two jobs could write to it at the same time")});
    }
    if (ranks[rank].free_bytes < bytes) {
      findings.push_back(
          {false, ExitCode::kCheckpoint,
           absl::StrFormat(
               "%s: %.1f GB are free for checkpoints, which need %.1f GB: free space or lower --keep",
               Name(ranks, rank), ranks[rank].free_bytes / 1e9, bytes / 1e9)});
    }
  }
}

// One finding for each host with several ranks and little of it.
void ExamineSharedMemory(const std::vector<RankHealth>& ranks, std::vector<Finding>& findings) {
  for (size_t rank = 1; rank < ranks.size(); ++rank) {
    const RankHealth& mine = ranks[rank];
    const auto is_here = [&](const RankHealth& other) { return std::strcmp(other.host, mine.host) == 0; };
    const auto before = std::count_if(ranks.begin(), ranks.begin() + static_cast<ptrdiff_t>(rank), is_here);
    if (before != 1 || mine.shared_memory_bytes == 0 || mine.shared_memory_bytes >= kLeastSharedMemory)
      continue;
    findings.push_back(
        {true, ExitCode::kDone,
         absl::StrFormat("/dev/shm of %s has only %.0f MB, and ranks of one host exchange data in it: "
                         "enlarge it, for a container with --shm-size=1g",
                         mine.host, mine.shared_memory_bytes / 1e6)});
  }
}

void ExamineClocks(const std::vector<RankHealth>& ranks, std::vector<Finding>& findings) {
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    if (std::abs(ranks[rank].clock_skew_seconds) <= kMostSkewSeconds) continue;
    findings.push_back(
        {true, ExitCode::kDone,
         absl::StrFormat("the clock of %s is off by %+.1f s: synchronise it, or times in logs are misleading",
                         Name(ranks, rank), ranks[rank].clock_skew_seconds)});
  }
}

}  // namespace

std::vector<Finding> Examine(const std::vector<RankHealth>& ranks, const JobWants& wants) {
  std::vector<Finding> findings;
  for (const bool across : {true, false}) ExamineLinks(ranks, across, findings);
  const bool links_are_fit = findings.empty();
  ExamineRanks(
      ranks, ExitCode::kCommunication, /*bearable=*/0, [](const RankHealth& rank) { return rank.compute_ms; },
      [&](size_t rank, double median) {
        return absl::StrFormat(
            "%s is slow: %.1f ms of computing per step, %.2f times the median; look for other programs on "
            "its cores, a low clock or wrong binding, or exclude it",
            Name(ranks, rank), ranks[rank].compute_ms, ranks[rank].compute_ms / median);
      },
      findings);
  ExamineRanks(
      ranks, ExitCode::kData, wants.images_per_second > 0 ? 1 / wants.images_per_second : 0,
      [](const RankHealth& rank) {
        return rank.data_images_per_second > 0 ? 1 / rank.data_images_per_second : 0;
      },
      [&](size_t rank, double median) {
        return absl::StrFormat(
            "%s loads %.1f images/s, the median rank %.1f: check its disk, mount and cores",
            Name(ranks, rank), ranks[rank].data_images_per_second, 1 / median);
      },
      findings);
  ExamineCheckpoints(ranks, wants.checkpoint_bytes, findings);
  if (links_are_fit) ExamineStreams(ranks, findings);
  ExamineSharedMemory(ranks, findings);
  ExamineClocks(ranks, findings);
  return findings;
}

absl::Status VerdictOf(const std::vector<Finding>& findings) {
  std::vector<std::string> texts;
  ExitCode code = ExitCode::kDone;
  for (const Finding& finding : findings) {
    if (finding.fit) continue;
    if (texts.empty()) code = finding.code;
    texts.push_back(finding.text);
  }
  if (texts.empty()) return absl::OkStatus();
  return WithExitCode(FailedPrecondition("not fit to train on: ", absl::StrJoin(texts, "; ")), code);
}

std::string Bottleneck(const Prediction& prediction) {
  const std::pair<double, const char*> waits[] = {{prediction.comm_exposed_ms, "communication"},
                                                  {prediction.data_wait_ms, "data"},
                                                  {prediction.peer_wait_ms, "slower ranks"}};
  const auto worst = *std::ranges::max_element(waits);
  return worst.first > 0.05 * prediction.step_ms ? worst.second : "computing";
}

std::string Advice(const RankStep& step, const Cluster& cluster, const Exchange& exchange,
                   const Prediction& prediction) {
  const std::string bottleneck = Bottleneck(prediction);
  const int ranks = prediction.ranks;
  if (bottleneck == "data") return "more --workers, smaller images (`pack --resize`), or a faster disk";
  if (bottleneck == "slower ranks")
    return "bind each rank to its own cores (mpirun --bind-to core), and keep other programs off them";
  if (bottleneck == "computing") return "more ranks, or a faster device: computing hides the rest";
  Exchange halved = exchange;
  halved.wire = 0.5;
  const int64_t batch = SmallestBatch(step, cluster, exchange, ranks, 0.9);
  return absl::StrFormat(
      "--wire=bf16 (%.1f images/s at most), --bucket_mib=%d, or a faster network; %s",
      Predict(step, cluster, halved, ranks).images_per_second,
      BestBuckets(step, cluster, exchange, ranks).bucket_bytes >> 20,
      batch > 0 ? absl::StrFormat("--global_batch=%d gives an efficiency of 90 %%", batch * ranks)
                : "no --global_batch gives an efficiency of 90 %");
}

}  // namespace deeper
