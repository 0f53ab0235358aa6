#include <cstdio>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "kernels/base/status.h"
#include "kernels/cuda/planning_device.h"
#include "launch/bench/harness.h"
#include "launch/cli/command.h"
#include "launch/cli/run_config.h"
#include "nlohmann/json.hpp"
#include "trainer/engine/op_chain.h"
#include "trainer/run/inputs.h"
#include "trainer/scaling/gpu_spec.h"

namespace deeper {
namespace {

constexpr CommandText kText = {
    .name = "bench op",
    .summary = "times single modules, the stem and the head, fused and separate",
    .operands = "",
    .details =
        R"(Runs a layer, or the chain of layers called stem or head, forward and backward on random data. On
CUDA it compares fused with separate kernels, whose results must agree before it times them. The floor is a
lower bound of the time: for each launch the larger of bytes / bandwidth and operations / peak. Prints a table
on standard error and JSON on standard output.)",
    .examples = R"(deeper bench op --op=inception4e --device=cuda --precision=bf16 --batch=256
deeper bench op --op=all --device=cuda --precision=bf16 --batch=256
deeper bench op --op=stem --batch=32)",
};

// Cost of one way to compute a chain, in microseconds.
struct Cost {
  double forward = 0, backward = 0;  // medians
  // Only for known GPUs:
  int64_t launches = 0, bytes = 0, macs = 0;
  double floor = 0;

  double total() const { return forward + backward; }
};

struct Row {
  std::string name;
  Cost separate;
  std::optional<Cost> fused;
  double difference = 0;  // largest relative difference between results of the two
};

class BenchOpCommand final : public Command {
 public:
  BenchOpCommand() : Command(kText) {
    config_.num_classes = 1000;
    config_.synthetic = true;
  }

  std::vector<FlagGroup> Flags() override {
    return {With(ModelFlags(config_), {{"aux", &config_.aux, "auxiliary classifiers of the GoogLeNets"}}),
            MachineFlags(config_),
            {"Measurements",
             {{"op", &op_, "all, stem, head, or the name of a layer"},
              {"batch", &batch_, "images per run", Range(1, 1e6)},
              {"warmup", &warmup_, "untimed runs at the start", Range(2)},
              {"repeats", &repeats_, "measurements, of which the median is reported", Range(1)},
              {"runs", &runs_, "runs per measurement, which includes one launch from the host and one wait",
               Range(0, 1e6, "20 with --device=cuda, else 1")},
              {"seed", &config_.seed, "seed of parameters and data"}}}};
  }

  absl::Status Run(const Invocation& call) override {
    RETURN_IF_ERROR(Validate(config_));
    if (runs_ == 0) runs_ = config_.device == DeviceType::kCuda ? 20 : 1;
    DatasetInfo images;
    images.channels = 3;
    ASSIGN_OR_RETURN(const Model model, ModelFor(config_, images, /*training=*/true));
    std::vector<NodeRange> ranges = BenchmarkedRanges(model);
    if (op_ != "all") {
      ASSIGN_OR_RETURN(const NodeRange range, FindRange(model, op_));
      ranges = {range};
    }
    ASSIGN_OR_RETURN(const std::unique_ptr<Device> device, MakeDeviceFor(config_, call.comm));
    gpu_ = GpuOf(device->Describe());
    std::vector<Row> rows;
    for (const NodeRange& range : ranges) {
      ASSIGN_OR_RETURN(const Row row, Measure(model, range, *device));
      rows.push_back(row);
    }
    std::fputs(Table(rows).c_str(), stderr);
    Print(rows, model, *device);
    return absl::OkStatus();
  }

 private:
  // Only CUDA has fused kernels.
  bool compares() const { return config_.device == DeviceType::kCuda && FusionOf(config_); }

  absl::StatusOr<Row> Measure(const Model& model, const NodeRange& range, Device& device) const {
    Row row;
    row.name = range.name;
    std::vector<std::vector<float>> expected, actual;
    ASSIGN_OR_RETURN(row.separate, Measure(model, range, /*fusion=*/false, device, expected));
    if (!compares()) return row;
    ASSIGN_OR_RETURN(row.fused, Measure(model, range, /*fusion=*/true, device, actual));
    row.difference = Difference(actual, expected);
    // For rounding between layers, which may also change the outcome of ReLUs and maxima.
    const double tolerance = config_.precision == DType::kF32 ? 1e-3 : 5e-2;
    if (row.difference <= tolerance) return row;
    return Internal(range.name, ": fused and separate layers differ by ", row.difference, " (", tolerance,
                    " is allowed): do not trust --fusion=auto here");
  }

  absl::StatusOr<Cost> Measure(const Model& model, const NodeRange& range, bool fusion, Device& device,
                               std::vector<std::vector<float>>& results) const {
    const NetworkOptions options = {batch_, config_.precision, /*training=*/true, fusion};
    ASSIGN_OR_RETURN(const std::unique_ptr<OpChain> chain, OpChain::Make(model, range, options, device));
    chain->Fill(config_.seed);
    chain->Forward();
    chain->Backward();
    results = chain->Results();
    Cost cost;
    cost.forward = Time(device, [&] { chain->Forward(); });
    cost.backward = Time(device, [&] { chain->Backward(); });
    if (gpu_ != nullptr) {
      RETURN_IF_ERROR(AddFloor(model, range, options, cost));
    }
    return cost;
  }

  // The median time of a run, in microseconds.
  template <class Work>
  double Time(Device& device, const Work& work) const {
    const std::unique_ptr<Recording> recording = device.MakeRecording();
    const auto measure = [&](int runs) {
      for (int i = 0; i < runs; ++i) recording->Run(work);
      device.Synchronize();
    };
    measure(warmup_);
    std::vector<double> times(static_cast<size_t>(repeats_));
    for (double& us : times) us = 1e6 * SecondsOf([&] { measure(runs_); }) / runs_;
    return Median(std::move(times));
  }

  absl::Status AddFloor(const Model& model, const NodeRange& range, const NetworkOptions& options,
                        Cost& cost) const {
    ASSIGN_OR_RETURN(const std::unique_ptr<PlanningDevice> device,
                     MakePlanningDevice(DevicePropertiesJson(*gpu_)));
    ASSIGN_OR_RETURN(const std::unique_ptr<OpChain> chain, OpChain::Make(model, range, options, *device));
    device->Clear();
    chain->Forward();
    chain->Backward();
    for (const auto& [scope, launch, work] : device->launches()) {
      ++cost.launches;
      cost.bytes += launch.bytes;
      cost.macs += launch.macs;
      cost.floor += FloorMicroseconds(launch, *gpu_, options.precision);
    }
    return absl::OkStatus();
  }

  std::string Table(const std::vector<Row>& rows) const {
    std::string table = absl::StrFormat("%s, batch %d, %s\n\n%-14s %12s %12s", config_.model, batch_,
                                        NameOf(config_.precision), "op", "forward us", "backward us");
    if (compares()) absl::StrAppendFormat(&table, " %12s %12s %8s", "fused fwd", "fused bwd", "ratio");
    if (gpu_ != nullptr) absl::StrAppendFormat(&table, " %10s %10s %8s", "MB", "floor us", "of floor");
    table += "\n";
    for (const Row& row : rows) {
      absl::StrAppendFormat(&table, "%-14s %12.1f %12.1f", row.name, row.separate.forward,
                            row.separate.backward);
      const Cost& best = row.fused.has_value() ? *row.fused : row.separate;
      if (row.fused.has_value()) {
        absl::StrAppendFormat(&table, " %12.1f %12.1f %8.2f", best.forward, best.backward,
                              row.separate.total() / best.total());
      }
      if (gpu_ != nullptr) {
        absl::StrAppendFormat(&table, " %10.1f %10.1f %7.0f%%", static_cast<double>(best.bytes) / 1e6,
                              best.floor, 100 * best.floor / best.total());
      }
      table += "\n";
    }
    return table;
  }

  nlohmann::ordered_json ToJson(const Cost& cost) const {
    nlohmann::ordered_json json = {{"forward_us", cost.forward}, {"backward_us", cost.backward}};
    if (gpu_ == nullptr) return json;
    json["launches"] = cost.launches;
    json["bytes"] = cost.bytes;
    json["macs"] = cost.macs;
    json["floor_us"] = cost.floor;
    return json;
  }

  void Print(const std::vector<Row>& rows, const Model& model, const Device& device) const {
    nlohmann::ordered_json json = {{"benchmark", "op"}};
    for (const Row& row : rows) {
      nlohmann::ordered_json op = {{"name", row.name}, {"separate", ToJson(row.separate)}};
      if (row.fused.has_value()) {
        op["fused"] = ToJson(*row.fused);
        op["difference"] = row.difference;
      }
      json["ops"].push_back(std::move(op));
    }
    PrintBenchmark(std::move(json),
                   {{"model", model.name},
                    {"image_size", model.image_size},
                    {"batch", batch_},
                    {"device", NameOf(config_.device)},
                    {"precision", NameOf(config_.precision)},
                    {"fusion", NameOf(config_.fusion)},
                    {"warmup", warmup_},
                    {"repeats", repeats_},
                    {"runs", runs_}},
                   device.Describe());
  }

  RunConfig config_;
  const GpuSpec* gpu_ = nullptr;
  std::string op_ = "all";
  int warmup_ = 3, repeats_ = 10, runs_ = 0;
  int64_t batch_ = 32;
};

}  // namespace

std::unique_ptr<Command> MakeBenchOp() {
  return std::make_unique<BenchOpCommand>();
}

}  // namespace deeper
