#include <algorithm>
#include <bit>
#include <chrono>
#include <cstdio>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "comm/agree.h"
#include "comm/mpi/mpi_baseline.h"
#include "comm/nccl/device_communicator.h"
#include "kernels/base/status.h"
#include "launch/cli/command.h"
#include "launch/cli/placement.h"
#include "nlohmann/json.hpp"
#include "trainer/scaling/statistics.h"

namespace deeper {
namespace {

constexpr CommandText kText = {
    .name = "bench comm",
    .summary = "times collectives between ranks by size, next to MPI's own",
    .operands = "",
    .details =
        "All-reduce (also as in elastic runs, and as with --wire=bf16), reduce-scatter and all-gather of\n"
        "floats in memory, from --min_bytes to --max_bytes; on MPI, in turns with MPI's blocking calls.\n"
        "With --device=cuda the floats are in the memory of GPUs, and --comm says which way they go.\n"
        "Checks each result before it is timed. Times are medians over the repeats, each that of the "
        "slowest\n"
        "rank. Bus bandwidth is bytes / time, times 2 (n - 1) / n for an all-reduce and (n - 1) / n for the\n"
        "others: what the busiest link must carry, whatever the algorithm (the formula of NVIDIA's\n"
        "nccl-tests, doc/PERFORMANCE.md). bytes is the size of the whole buffer of floats: the input of a\n"
        "reduce-scatter, the output of an all-gather. Prints a table on standard error and JSON on standard\n"
        "output.",
    .examples =
        "mpirun -n 2 --bind-to core deeper bench comm\n"
        "mpirun -n 4 deeper bench comm --min_bytes=1048576 --repeats=50\n"
        "mpirun -n 8 deeper bench comm --device=cuda --comm=nccl --max_bytes=268435456",
    .distributed = true,
};

// Floats in the memory of a device.
class DeviceFloats {
 public:
  DeviceFloats(size_t count, Device& device)
      : device_(device), count_(count), memory_(device.Allocate(count * sizeof(float))) {}

  bool allocated() const { return memory_.data() != nullptr; }
  float* data() const { return memory_.as<float>(); }
  size_t size() const { return count_; }
  void Fill(float value) {
    const std::vector<float> values(count_, value);
    device_.Copy(data(), values.data(), count_ * sizeof(float));
    device_.Synchronize();
  }
  std::vector<float> Read() const {
    std::vector<float> values(count_);
    device_.Copy(values.data(), data(), count_ * sizeof(float));
    device_.Synchronize();
    return values;
  }

 private:
  Device& device_;
  const size_t count_;
  const Buffer memory_;
};

// What collectives work on: whole [count], shard [count / ranks]; residual [count] is the host's.
struct Buffers {
  Buffers(size_t elements, int ranks, Device& device)
      : whole(elements, device), shard(elements / static_cast<size_t>(ranks), device), residual(elements) {}
  bool allocated() const { return whole.allocated() && shard.allocated(); }
  DeviceFloats whole, shard;
  std::vector<float> residual;
};

struct Collective {
  const char* name;
  double bus_factor;  // of bytes / time
  std::function<Request(Buffers&)> start;
  std::function<void(MpiBaseline&, Buffers&)> baseline;
  std::function<void(Buffers&)> fill;         // with this rank's input
  std::function<bool(const Buffers&)> right;  // the output
};

// On `stream`, which is the device's.
std::vector<Collective> Collectives(Communicator& comm, Stream stream) {
  const auto ranks = static_cast<float>(comm.size()), rank = static_cast<float>(comm.rank());
  const double share = (comm.size() - 1.0) / comm.size();
  const auto fill = [rank](Buffers& b) {
    b.whole.Fill(rank + 1);
    b.shard.Fill(rank + 1);
    std::fill(b.residual.begin(), b.residual.end(), 0.0f);
  };
  const auto is_sum = [ranks](const std::vector<float>& values) {
    return std::all_of(values.begin(), values.end(), [&](float x) { return x == ranks * (ranks + 1) / 2; });
  };
  const auto all_reduce = [&](const char* name, ReduceOp op) {
    return Collective{
        .name = name,
        .bus_factor = 2 * share,
        .start =
            [&comm, op, stream](Buffers& b) {
              return comm.AllReduce(b.whole.data(), b.whole.size(), CommType::kF32, op, stream);
            },
        .baseline = [](MpiBaseline& mpi, Buffers& b) { mpi.AllReduce(b.whole.data(), b.whole.size()); },
        .fill = fill,
        .right = [=](const Buffers& b) { return is_sum(b.whole.Read()); }};
  };
  std::vector<Collective> all = {all_reduce("all_reduce", ReduceOp::kSum)};
  if (comm.name() != "nccl") {  // which has neither
    if (std::has_single_bit(static_cast<unsigned>(comm.size())))
      all.push_back(all_reduce("all_reduce_tree", ReduceOp::kTreeSum));
    all.push_back(all.front());
    all.back().name = "all_reduce_bf16";
    all.back().start = [&comm, stream](Buffers& b) {
      return comm.SumInBf16(b.whole.data(), b.residual.data(), b.whole.size(), stream);
    };
  }
  all.push_back(
      {.name = "reduce_scatter",
       .bus_factor = share,
       .start =
           [&comm, stream](Buffers& b) {
             return comm.ReduceScatter(b.whole.data(), b.shard.data(), b.shard.size(), stream);
           },
       .baseline = [](MpiBaseline& mpi,
                      Buffers& b) { mpi.ReduceScatter(b.whole.data(), b.shard.data(), b.shard.size()); },
       .fill = fill,
       .right = [=](const Buffers& b) { return is_sum(b.shard.Read()); }});
  all.push_back({.name = "all_gather",
                 .bus_factor = share,
                 .start =
                     [&comm, stream](Buffers& b) {
                       return comm.AllGather(b.shard.data(), b.whole.data(), b.shard.size() * sizeof(float),
                                             stream);
                     },
                 .baseline =
                     [](MpiBaseline& mpi, Buffers& b) {
                       mpi.AllGather(b.shard.data(), b.whole.data(), b.shard.size() * sizeof(float));
                     },
                 .fill = fill,
                 .right =
                     [](const Buffers& b) {
                       const std::vector<float> whole = b.whole.Read();
                       for (size_t i = 0; i < whole.size(); ++i)
                         if (whole[i] != static_cast<float>(i / b.shard.size() + 1)) return false;
                       return true;
                     }});
  return all;
}

class BenchCommCommand final : public Command {
 public:
  BenchCommCommand() : Command(kText) {}

  std::vector<FlagGroup> Flags() override {
    return {{"Measuring",
             {{"collective", &collective_, "all | one of the names in the table"},
              {"min_bytes", &min_bytes_, "the smallest buffer"},
              {"max_bytes", &max_bytes_, "the largest; each size is 4 times the one before"},
              {"warmup", &warmup_, "rounds before the first that is timed"},
              {"repeats", &repeats_, "rounds that are timed"}}},
            {"Machine",
             {{"device", &config_.device, "cpu | cuda: where the floats are"},
              {"comm", &config_.comm, "cuda: auto | nccl | mpi, as for `train`"}}}};
  }

  absl::Status Run(const Invocation& call) override {
    Communicator& comm = call.comm;
    if (comm.size() < 2)
      return absl::InvalidArgumentError("there is nothing to time on one rank: use mpirun");
    if (min_bytes_ < 4 * comm.size() || max_bytes_ < min_bytes_ || max_bytes_ > int64_t{1} << 30)
      return absl::InvalidArgumentError(
          "--min_bytes must hold a float a rank, and --max_bytes be no less and at most 1 GiB");
    if (warmup_ < 1 || repeats_ < 1)
      return absl::InvalidArgumentError("--warmup and --repeats must be at least 1");
    config_.synthetic = true;  // no data are asked for
    RETURN_IF_ERROR(Validate(config_));
    ASSIGN_OR_RETURN(device_, MakeDeviceFor(config_, comm));
    ASSIGN_OR_RETURN(const DeviceCommunicator made, MakeDeviceCommunicator(comm, *device_, config_.comm));
    Communicator& measured = made.comm == nullptr ? comm : *made.comm;
    if (comm.name() == "mpi" && made.comm == nullptr) baseline_.emplace();
    if (call.is_root()) PrintHeader();
    nlohmann::ordered_json results = nlohmann::ordered_json::array();
    for (const Collective& collective : Collectives(measured, device_->stream())) {
      if (collective_ != "all" && collective_ != collective.name) continue;
      for (int64_t bytes = min_bytes_; bytes <= max_bytes_; bytes *= 4) {
        ASSIGN_OR_RETURN(nlohmann::ordered_json result, Measure(collective, bytes, comm));
        if (call.is_root()) PrintRow(result);
        results.push_back(std::move(result));
      }
    }
    if (results.empty())
      return absl::InvalidArgumentError(
          absl::StrCat("--collective=", collective_, ": there is no such one here"));
    if (call.is_root()) PrintJson(measured, made.description, results);
    return absl::OkStatus();
  }

 private:
  absl::StatusOr<nlohmann::ordered_json> Measure(const Collective& collective, int64_t bytes,
                                                 Communicator& comm) {
    const auto ranks = static_cast<size_t>(comm.size());
    const size_t elements = static_cast<size_t>(bytes) / sizeof(float) / ranks * ranks;
    Buffers buffers(elements, comm.size(), *device_);
    const absl::Status room =
        buffers.allocated() ? absl::OkStatus() : absl::ResourceExhaustedError("no memory: lower --max_bytes");
    RETURN_IF_ERROR(Agree(comm, room));
    const auto ours = [&] {
      collective.start(buffers).Wait();
      device_->Synchronize();
    };
    const auto theirs = [&] { collective.baseline(*baseline_, buffers); };
    bool right = IsRight(collective, buffers, ours);
    if (baseline_) right = IsRight(collective, buffers, theirs) && right;
    const absl::Status mine =
        right ? absl::OkStatus() : absl::InternalError(absl::StrCat(collective.name, ": wrong result"));
    RETURN_IF_ERROR(Agree(comm, mine));

    buffers.whole.Fill(0);                 // sums of sums stay finite
    std::vector<double> our_ms, their_ms;  // [repeat]
    for (int round = -warmup_; round < repeats_; ++round) {
      const double ms = Milliseconds(comm, ours);
      if (round >= 0) our_ms.push_back(ms);
      if (!baseline_) continue;
      const double baseline_ms = Milliseconds(comm, theirs);
      if (round >= 0) their_ms.push_back(baseline_ms);
    }
    for (std::vector<double>* times : {&our_ms, &their_ms})
      comm.AllReduce(times->data(), times->size(), CommType::kF64, ReduceOp::kMax, {}).Wait();
    return ResultOf(collective, elements * sizeof(float), our_ms, their_ms);
  }

  static bool IsRight(const Collective& collective, Buffers& buffers, const std::function<void()>& run) {
    collective.fill(buffers);
    run();
    return collective.right(buffers);
  }

  static double Milliseconds(Communicator& comm, const std::function<void()>& run) {
    comm.Barrier();
    const auto start = std::chrono::steady_clock::now();
    run();
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  }

  static nlohmann::ordered_json ResultOf(const Collective& collective, size_t bytes,
                                         const std::vector<double>& our_ms,
                                         const std::vector<double>& their_ms) {
    const auto bus_gb_per_s = [&](double ms) {
      return collective.bus_factor * static_cast<double>(bytes) / ms / 1e6;
    };
    const double ms = Median(our_ms);
    nlohmann::ordered_json result = {
        {"collective", collective.name}, {"bytes", bytes}, {"ms", ms}, {"bus_gb_per_s", bus_gb_per_s(ms)}};
    if (their_ms.empty()) return result;
    const double mpi_ms = Median(their_ms);
    std::vector<double> ratios;
    for (size_t i = 0; i < our_ms.size(); ++i) ratios.push_back(our_ms[i] / their_ms[i]);
    result["mpi_ms"] = mpi_ms;
    result["mpi_bus_gb_per_s"] = bus_gb_per_s(mpi_ms);
    result["time_of_mpi"] = Median(ratios);
    return result;
  }

  static void PrintHeader() {
    std::fprintf(stderr, "%-16s %10s %10s %10s %10s %10s %14s\n", "collective", "bytes", "ms", "bus GB/s",
                 "MPI ms", "bus GB/s", "time / MPI's");
  }

  static void PrintRow(const nlohmann::ordered_json& r) {
    std::fprintf(stderr, "%-16s %10lld %10.3f %10.2f", r["collective"].get<std::string>().c_str(),
                 r["bytes"].get<long long>(), r["ms"].get<double>(), r["bus_gb_per_s"].get<double>());
    if (r.contains("mpi_ms")) {
      std::fprintf(stderr, " %10.3f %10.2f %14.2f", r["mpi_ms"].get<double>(),
                   r["mpi_bus_gb_per_s"].get<double>(), r["time_of_mpi"].get<double>());
    }
    std::fputc('\n', stderr);
  }

  void PrintJson(const Communicator& comm, const std::string& description,
                 const nlohmann::ordered_json& results) const {
    const nlohmann::ordered_json json = {
        {"benchmark", "comm"},
        {"results", results},
        {"settings",
         {{"comm", comm.name()},
          {"over", description},
          {"ranks", comm.size()},
          {"ranks_on_this_machine", comm.local_size()},
          {"warmup", warmup_},
          {"repeats", repeats_}}},
        {"hardware", device_->Describe()},
        {"versions", {{"deeper", DEEPER_VERSION}, {"compiler", __VERSION__}}}};
    std::printf("%s\n", json.dump(2).c_str());
  }

  std::string collective_ = "all";
  int64_t min_bytes_ = 4096, max_bytes_ = int64_t{64} << 20;
  int warmup_ = 3, repeats_ = 20;
  RunConfig config_;  // of which only the machine is asked for
  std::unique_ptr<Device> device_;
  std::optional<MpiBaseline> baseline_;
};

}  // namespace

std::unique_ptr<Command> MakeBenchComm() {
  return std::make_unique<BenchCommCommand>();
}

}  // namespace deeper
