#include <algorithm>
#include <array>
#include <bit>
#include <cstdio>
#include <fstream>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "comm/agree.h"
#include "comm/mpi/mpi_communicator.h"
#include "comm/nccl/device_communicator.h"
#include "kernels/base/bf16.h"
#include "kernels/base/small_buffer.h"
#include "kernels/base/status.h"
#include "launch/bench/harness.h"
#include "launch/cli/command.h"
#include "launch/cli/run_config.h"
#include "nlohmann/json.hpp"

namespace deeper {
namespace {

using nlohmann::ordered_json;

constexpr CommandText kText = {
    .name = "bench comm",
    .summary = "times collectives between ranks by size, and compares with MPI",
    .operands = "",
    .details =
        R"(Times all-reduce (plain, as in elastic runs, and as with --wire=bf16), reduce-scatter and all-gather
of floats, from --min_bytes to --max_bytes. Over MPI it alternates with MPI's blocking calls. With
--device=cuda the floats are in the memory of GPUs, and --comm selects the transport. It checks each result
before it times it. Times are medians over the repeats, of the slowest rank in each. Algorithm bandwidth is bytes /
time. Bus bandwidth is this times 2 (n - 1) / n for an all-reduce and (n - 1) / n for the others. This is what the busiest link must
carry with any algorithm (the formula of NVIDIA's nccl-tests, doc/PERFORMANCE.md). bytes is the size of the
whole buffer: the input of a reduce-scatter, the output of an all-gather. Prints a table on standard error and
JSON on standard output.)",
    .examples = R"(mpirun -n 2 --bind-to core deeper bench comm
mpirun -n 4 deeper bench comm --min_bytes=1048576 --repeats=50
mpirun -n 8 deeper bench comm --device=cuda --comm=nccl --max_bytes=268435456)",
    .distributed = true,
};

// Floats in the memory of a device.
struct DeviceFloats {
  DeviceFloats(size_t floats, Device& owner)
      : device(owner), size(floats), memory(AllocateSmall(owner, floats * sizeof(float))) {}

  float* data() const { return memory.as<float>(); }
  void Fill(float value) {
    const std::vector<float> values(size, value);
    device.Copy(data(), values.data(), size * sizeof(float));
    device.Synchronize();
  }
  std::vector<float> Read() const {
    std::vector<float> values(size);
    device.Copy(values.data(), data(), size * sizeof(float));
    device.Synchronize();
    return values;
  }

  Device& device;
  const size_t size;
  const Buffer memory;
};

// Buffers of the collectives: whole [count], shard [count / ranks]; residual [count], in host memory.
struct Buffers {
  Buffers(size_t elements, int ranks, Device& device)
      : whole(elements, device), shard(elements / static_cast<size_t>(ranks), device), residual(elements) {}
  bool allocated() const { return whole.data() != nullptr && shard.data() != nullptr; }
  DeviceFloats whole, shard;
  std::vector<float> residual;
};

struct Collective {
  const char* name;
  double bus_factor;  // times bytes / time: the bus bandwidth
  std::function<Request(Buffers&)> start;
  std::function<void(MpiBaseline&, Buffers&)> baseline;
  std::function<bool(const Buffers&)> right;  // for an input of the rank's number, from 1
};

// Collective. The most ranks on one machine. Those in other containers count too: they share its cores.
int64_t MostRanksOfAMachine(Communicator& comm) {
  std::array<char, 37> mine = {};  // the UUID of a boot, and a 0
  std::ifstream("/proc/sys/kernel/random/boot_id").read(mine.data(), mine.size() - 1);
  std::vector<std::array<char, 37>> all(static_cast<size_t>(comm.size()));
  comm.AllGather(mine.data(), all.data(), sizeof mine, {}).Wait();
  int64_t most = std::ranges::count(all, mine);
  comm.AllReduce(&most, 1, CommType::kI64, ReduceOp::kMax, {}).Wait();
  return most;
}

// `stream` is that of the device.
std::vector<Collective> Collectives(Communicator& comm, Stream stream) {
  const double share = (comm.size() - 1.0) / comm.size();
  // In bf16, the inputs and their sum are rounded (comm/bf16_sum.h). MPI's sum beside it is exact.
  float exact = 0, rounded = 0;
  for (int rank = 1; rank <= comm.size(); ++rank) {
    exact += static_cast<float>(rank);
    rounded += ToFloat(ToBf16(static_cast<float>(rank)));
  }
  rounded = ToFloat(ToBf16(rounded));
  const auto is_sum = [exact](const DeviceFloats& floats, float other) {
    return std::ranges::all_of(floats.Read(), [&](float x) { return x == exact || x == other; });
  };
  const auto all_reduce = [&](const char* name, const std::function<Request(Buffers&)>& start,
                              float other) -> Collective {
    return {name, 2 * share, start,
            [](MpiBaseline& mpi, Buffers& b) { mpi.AllReduce(b.whole.data(), b.whole.size); },
            [=](const Buffers& b) { return is_sum(b.whole, other); }};
  };
  const auto reduce_by = [&comm, stream](ReduceOp op) {
    return [&comm, stream, op](Buffers& b) {
      return comm.AllReduce(b.whole.data(), b.whole.size, CommType::kF32, op, stream);
    };
  };
  std::vector<Collective> all = {all_reduce("all_reduce", reduce_by(ReduceOp::kSum), exact)};
  if (comm.name() != "nccl") {  // NCCL has neither of these
    if (std::has_single_bit(static_cast<unsigned>(comm.size())))
      all.push_back(all_reduce("all_reduce_tree", reduce_by(ReduceOp::kTreeSum), exact));
    all.push_back(all_reduce(
        "all_reduce_bf16",
        [&comm, stream](Buffers& b) {
          return comm.SumInBf16(b.whole.data(), b.residual.data(), b.whole.size, stream);
        },
        rounded));
  }
  all.push_back(
      {"reduce_scatter", share,
       [&comm, stream](Buffers& b) {
         return comm.ReduceScatter(b.whole.data(), b.shard.data(), b.shard.size, stream);
       },
       [](MpiBaseline& mpi, Buffers& b) { mpi.ReduceScatter(b.whole.data(), b.shard.data(), b.shard.size); },
       [=](const Buffers& b) { return is_sum(b.shard, exact); }});
  all.push_back({"all_gather", share,
                 [&comm, stream](Buffers& b) {
                   return comm.AllGather(b.shard.data(), b.whole.data(), b.shard.size * sizeof(float),
                                         stream);
                 },
                 [](MpiBaseline& mpi, Buffers& b) {
                   mpi.AllGather(b.shard.data(), b.whole.data(), b.shard.size * sizeof(float));
                 },
                 [](const Buffers& b) {
                   const std::vector<float> whole = b.whole.Read();
                   for (size_t i = 0; i < whole.size(); ++i) {
                     const size_t rank = i / b.shard.size;
                     if (whole[i] != static_cast<float>(rank + 1)) return false;
                   }
                   return true;
                 }});
  return all;
}

class BenchCommCommand final : public Command {
 public:
  BenchCommCommand() : Command(kText) {}

  std::vector<FlagGroup> Flags() override {
    return {{"Measuring",
             {{"collective", &collective_, "all, or a name in the table"},
              {"min_bytes", &min_bytes_, "size of the smallest buffer", Range(4, 1 << 30), "bytes"},
              {"max_bytes", &max_bytes_, "size of the largest buffer; each size is 4 times the previous one",
               Range(4, 1 << 30), "bytes"},
              {"warmup", &warmup_, "untimed rounds at the start", Range(1)},
              {"repeats", &repeats_, "timed rounds", Range(1)}}},
            {"Machine",
             {{"device", &config_.device, "device whose memory has the floats"},
              {"comm", &config_.comm, "cuda: transport between GPUs, as for `train`"}}}};
  }

  absl::Status Run(const Invocation& call) override {
    Communicator& comm = call.comm;
    if (comm.size() < 2) return InvalidArgument("needs at least two ranks: use mpirun");
    if (min_bytes_ < 4 * comm.size() || max_bytes_ < min_bytes_ || max_bytes_ > int64_t{1} << 30)
      return InvalidArgument(
          "--min_bytes must hold one float per rank; --max_bytes must be at least --min_bytes and at most 1 "
          "GiB");
    config_.synthetic = true;  // so that --data may be empty
    RETURN_IF_ERROR(Validate(config_));
    ASSIGN_OR_RETURN(device_, MakeDeviceFor(config_, comm));
    ASSIGN_OR_RETURN(const DeviceCommunicator made, MakeDeviceCommunicator(comm, *device_, config_.comm));
    Communicator& measured = made.comm == nullptr ? comm : *made.comm;
    if (comm.name() == "mpi" && made.comm == nullptr) baseline_.emplace();
    if (call.is_root())
      std::fputs(
          "collective            bytes         ms   alg GB/s   bus GB/s     MPI ms   alg GB/s   bus GB/s   "
          "time / MPI's\n",
          stderr);
    const int64_t most = MostRanksOfAMachine(comm);
    ordered_json results = ordered_json::array();
    for (const Collective& collective : Collectives(measured, device_->stream())) {
      if (collective_ != "all" && collective_ != collective.name) continue;
      for (int64_t bytes = min_bytes_; bytes <= max_bytes_; bytes *= 4) {
        ASSIGN_OR_RETURN(ordered_json result, Measure(collective, bytes, comm));
        if (call.is_root()) PrintRow(result);
        results.push_back(std::move(result));
      }
    }
    if (results.empty()) return InvalidArgument("--collective=", collective_, ": not available here");
    if (!call.is_root()) return absl::OkStatus();
    PrintBenchmark({{"benchmark", "comm"}, {"results", results}},
                   {{"comm", measured.name()},
                    {"over", made.description},
                    {"ranks", measured.size()},
                    {"ranks_on_this_machine", measured.local_size()},
                    {"most_ranks_of_a_machine", most},
                    {"warmup", warmup_},
                    {"repeats", repeats_}},
                   device_->Describe());
    return absl::OkStatus();
  }

 private:
  absl::StatusOr<ordered_json> Measure(const Collective& collective, int64_t bytes, Communicator& comm) {
    const auto ranks = static_cast<size_t>(comm.size());
    const size_t elements = static_cast<size_t>(bytes) / sizeof(float) / ranks * ranks;
    Buffers buffers(elements, comm.size(), *device_);
    RETURN_IF_ERROR(Agree(
        comm, buffers.allocated() ? absl::OkStatus() : ResourceExhausted("no memory: lower --max_bytes")));
    const auto ours = [&] {
      collective.start(buffers).Wait();
      device_->Synchronize();
    };
    const auto theirs = [&] { collective.baseline(*baseline_, buffers); };
    const auto is_right = [&](const auto& run) {
      for (DeviceFloats* input : {&buffers.whole, &buffers.shard})
        input->Fill(static_cast<float>(comm.rank() + 1));
      std::fill(buffers.residual.begin(), buffers.residual.end(), 0.0f);
      run();
      return collective.right(buffers);
    };
    bool right = is_right(ours);
    if (baseline_) right = is_right(theirs) && right;  // not short-circuited, because it is collective
    RETURN_IF_ERROR(Agree(comm, right ? absl::OkStatus() : Internal(collective.name, ": wrong result")));

    buffers.whole.Fill(0);                 // sums of sums stay finite
    std::vector<double> our_ms, their_ms;  // [repeat]
    for (int round = -warmup_; round < repeats_; ++round) {
      const double ms = MillisecondsTogether(comm, ours);
      const double baseline_ms = baseline_ ? MillisecondsTogether(comm, theirs) : 0;
      if (round < 0) continue;
      our_ms.push_back(ms);
      if (baseline_) their_ms.push_back(baseline_ms);
    }
    for (std::vector<double>* times : {&our_ms, &their_ms})
      comm.AllReduce(times->data(), times->size(), CommType::kF64, ReduceOp::kMax, {}).Wait();
    const size_t whole_bytes = elements * sizeof(float);
    const auto gb_per_s = [&](double ms) { return static_cast<double>(whole_bytes) / ms / 1e6; };
    const double ms = Median(our_ms);
    ordered_json result = {{"collective", collective.name},
                           {"bytes", whole_bytes},
                           {"ms", ms},
                           {"alg_gb_per_s", gb_per_s(ms)},
                           {"bus_gb_per_s", collective.bus_factor * gb_per_s(ms)}};
    if (their_ms.empty()) return result;
    const double mpi_ms = Median(their_ms);
    result["mpi_ms"] = mpi_ms;
    result["mpi_alg_gb_per_s"] = gb_per_s(mpi_ms);
    result["mpi_bus_gb_per_s"] = collective.bus_factor * gb_per_s(mpi_ms);
    result["time_of_mpi"] = MedianRatio(our_ms, their_ms);
    return result;
  }

  static void PrintRow(const ordered_json& r) {
    const auto number = [&](const char* name) { return r[name].get<double>(); };
    absl::FPrintF(stderr, "%-16s %10d %10.3f %10.2f %10.2f", r["collective"].get<std::string>(),
                  r["bytes"].get<int64_t>(), number("ms"), number("alg_gb_per_s"), number("bus_gb_per_s"));
    if (r.contains("mpi_ms"))
      absl::FPrintF(stderr, " %10.3f %10.2f %10.2f %14.2f", number("mpi_ms"), number("mpi_alg_gb_per_s"),
                    number("mpi_bus_gb_per_s"), number("time_of_mpi"));
    std::fputc('\n', stderr);
  }

  std::string collective_ = "all";
  int64_t min_bytes_ = 4096, max_bytes_ = int64_t{64} << 20;
  int warmup_ = 3, repeats_ = 20;
  RunConfig config_;  // only the flags of the machine are used
  std::unique_ptr<Device> device_;
  std::optional<MpiBaseline> baseline_;
};

}  // namespace

std::unique_ptr<Command> MakeBenchComm() {
  return std::make_unique<BenchCommCommand>();
}

}  // namespace deeper
