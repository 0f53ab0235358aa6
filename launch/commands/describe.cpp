#include "trainer/models/describe.h"

#include <algorithm>
#include <cstdio>
#include <string>

#include "absl/strings/str_format.h"
#include "kernels/base/status.h"
#include "launch/cli/command.h"
#include "launch/cli/run_config.h"
#include "nlohmann/json.hpp"
#include "trainer/run/inputs.h"
#include "trainer/scaling/cuda_plan.h"

namespace deeper {
namespace {

constexpr CommandText kText = {
    .name = "describe",
    .summary = "prints a network's layers: shapes, parameters, multiply-accumulates, memory",
    .operands = "",
    .details =
        R"(Prints a table of a network's layers and their costs. Then it prints two comparisons of the GoogLeNet
paper: the cost of a 5x5 convolution with and without a 1x1 convolution before it, and the costs of other
networks. With --device=cuda, it prints the plan of a training step on a GPU, which need not be present: the
launches of each module, the least number of bytes and multiplications, a lower bound of the time ("floor") and
a predicted time. The bound of a launch is the larger of bytes / bandwidth and operations / peak. The prediction
also has the instructions of deeper's own kernels, the products that fill tiles, and the time between launches.
Nothing of it was measured. The step begins with the images in the GPU's memory.)",
    .examples = R"(deeper describe --model=googlenet
deeper describe --model=googlenet --stem=small --image_size=28 --channels=1 --num_classes=10 --json
deeper describe --model=googlenet --device=cuda --gpu=h200 --precision=bf16 --batch=256)",
};

constexpr double kEfficiencies[] = {1.0, 0.6};  // of matrix products, against their peak

double MB(int64_t bytes) {
  return static_cast<double>(bytes) / 1e6;
}

double GMac(int64_t macs) {
  return static_cast<double>(macs) / 1e9;
}

int64_t BytesPerImage(const StepPlan& plan) {
  return TotalCost(plan).bytes / plan.batch;
}

// Of each module, and of all.
std::vector<PlanCost> Costs(const StepPlan& plan) {
  std::vector<PlanCost> costs = ModuleCosts(plan);
  costs.push_back(TotalCost(plan));
  return costs;
}

// `separate`: the plan without fusion, or nullptr.
std::string Table(const StepPlan& plan, const StepPlan* separate) {
  std::string text = absl::StrFormat("%-17s %8s %8s %8s %10s %9s %9s %9s", "module", "launches", "forward",
                                     "backward", "MB", "GMAC", "floor us", "predicted");
  if (separate != nullptr)
    absl::StrAppendFormat(&text, "  | %8s %10s %9s %9s", "unfused", "MB", "floor us", "predicted");
  text += "\n";
  const std::vector<PlanCost> others = separate == nullptr ? std::vector<PlanCost>() : Costs(*separate);
  for (const PlanCost& cost : Costs(plan)) {
    absl::StrAppendFormat(&text, "%-17s %8d %8d %8d %10.1f %9.2f %9.1f %9.1f", cost.module, cost.launches,
                          cost.forward, cost.backward, MB(cost.bytes), GMac(cost.macs), cost.floor_us,
                          cost.predicted_us);
    if (const auto other = std::ranges::find(others, cost.module, &PlanCost::module); other != others.end())
      absl::StrAppendFormat(&text, "  | %8d %10.1f %9.1f %9.1f", other->launches, MB(other->bytes),
                            other->floor_us, other->predicted_us);
    text += "\n";
  }
  return text;
}

std::string PlanText(const Model& model, const StepPlan& plan, const StepPlan* separate, bool launches) {
  std::string text =
      absl::StrFormat("%s, a training step: batch %d, %s, fusion %s\n%s\n\n", model.name, plan.batch,
                      NameOf(plan.precision), plan.fusion ? "auto" : "off", plan.device);
  text += Table(plan, separate);
  absl::StrAppendFormat(
      &text,
      "\nbytes moved        %.1f MB per image%s\n"
      "memory             %.1f MB activations and workspace, %.1f MB parameters\n",
      MB(BytesPerImage(plan)),
      separate == nullptr ? "" : absl::StrFormat(", and %.1f without fusion", MB(BytesPerImage(*separate))),
      MB(static_cast<int64_t>(plan.arena_bytes)), MB(static_cast<int64_t>(plan.parameter_bytes)));
  for (const double efficiency : kEfficiencies) {
    absl::StrAppendFormat(&text,
                          "images/s           at most %.0f, with matrix products at %.0f %% of their peak\n",
                          MostImagesPerSecond(plan, efficiency), 100 * efficiency);
  }
  absl::StrAppendFormat(&text, "                   predicted %.0f, not measured\n",
                        PredictedImagesPerSecond(plan));
  if (!launches) return text;
  absl::StrAppendFormat(
      &text,
      "\nTimes in us: of the bytes, of the products, of the instructions, and the largest, with that of "
      "partial sums.\n");
  absl::StrAppendFormat(&text, "%-17s %-40s %10s %9s %9s %9s %9s %9s\n", "module", "launch", "MB", "GMAC",
                        "bytes", "products", "instr.", "largest");
  for (const auto& [phase, module, launch, work] : plan.launches) {
    const LaunchTime time = TimeOf(launch, work, plan.gpu, plan.precision);
    absl::StrAppendFormat(&text, "%-17s %-40s %10.1f %9.2f %9.1f %9.1f %9s %9.1f\n", module, launch.name,
                          MB(launch.bytes), GMac(launch.macs), time.bytes_us, time.products_us,
                          work.warps == 0 ? "-" : absl::StrFormat("%.1f", time.instructions_us), time.us());
  }
  return text;
}

constexpr const char* kPhaseNames[] = {"forward", "backward", "update"};  // by StepPlan::Phase

nlohmann::ordered_json CostJson(const PlanCost& cost) {
  return {{"launches", cost.launches},
          {"forward_launches", cost.forward},
          {"backward_launches", cost.backward},
          {"bytes", cost.bytes},
          {"macs", cost.macs},
          {"floor_us", cost.floor_us},
          {"predicted_us", cost.predicted_us}};
}

std::string PlanJson(const Model& model, const StepPlan& plan) {
  nlohmann::ordered_json json = {{"model", model.name},
                                 {"image_size", model.image_size},
                                 {"channels", model.channels},
                                 {"num_classes", model.num_classes},
                                 {"batch", plan.batch},
                                 {"precision", NameOf(plan.precision)},
                                 {"fusion", plan.fusion ? "auto" : "off"},
                                 {"device", plan.device},
                                 {"gpu",
                                  {{"name", plan.gpu.flag},
                                   {"bytes_per_second", plan.gpu.bytes_per_second},
                                   {"bf16_flops", plan.gpu.bf16_flops},
                                   {"fp32_flops", plan.gpu.fp32_flops}}}};
  for (const PlanCost& cost : ModuleCosts(plan)) {
    nlohmann::ordered_json row = {{"name", cost.module}};
    row.update(CostJson(cost));
    json["modules"].push_back(std::move(row));
  }
  json["total"] = CostJson(TotalCost(plan));
  json["bytes_per_image"] = BytesPerImage(plan);
  json["arena_bytes"] = plan.arena_bytes;
  json["parameter_bytes"] = plan.parameter_bytes;
  for (const double efficiency : kEfficiencies) {
    json["most_images_per_second"].push_back(
        {{"matrix_efficiency", efficiency}, {"images_per_second", MostImagesPerSecond(plan, efficiency)}});
  }
  json["predicted_images_per_second"] = PredictedImagesPerSecond(plan);
  for (const auto& [phase, module, launch, work] : plan.launches) {
    const LaunchTime time = TimeOf(launch, work, plan.gpu, plan.precision);
    json["launches"].push_back({{"phase", kPhaseNames[static_cast<size_t>(phase)]},
                                {"module", module},
                                {"name", launch.name},
                                {"bytes", launch.bytes},
                                {"macs", launch.macs},
                                {"floor_us", FloorMicroseconds(launch, plan.gpu, plan.precision)},
                                {"bytes_us", time.bytes_us},
                                {"products_us", time.products_us},
                                {"instructions_us", time.instructions_us},
                                {"sums_us", time.sums_us},
                                {"latency_us", LatencyOf(work)},
                                {"warps", work.warps},
                                {"cycles_per_warp", work.cycles},
                                {"waits_per_warp", work.waits}});
  }
  return json.dump(2) + "\n";
}

class DescribeCommand final : public Command {
 public:
  DescribeCommand() : Command(kText) {
    config_.num_classes = 1000;
    config_.synthetic = true;  // so that --data may be empty
  }

  std::vector<FlagGroup> Flags() override {
    return {With(Pick(config_, "Network", {"model", "num_classes", "image_size", "stem", "blur_pool", "aux"}),
                 {{"channels", &channels_, "channels of the images: 1 or 3", Range(1, 3)}}),
            With({"Plan of a training step",
                  {{"device", &config_.device, "cpu: the table of layers; cuda: the plan of a step"},
                   {"gpu", OneOf(&gpu_, GpuNames()), "GPU to plan for"},
                   {"launches", &launches_, "list every launch; --json always does"},
                   {"fusion", &config_.fusion, "auto: compare with the costs without fusion"}}},
                 Pick(config_, "", {"precision"}).flags),
            {"Output",
             {{"batch", &batch_, "images per forward pass", Range(1, 1e6)},
              {"json", &json_, "print JSON in place of a table"}}}};
  }

  absl::Status Run(const Invocation&) override {
    RETURN_IF_ERROR(Validate(config_));
    if (channels_ == 2) return InvalidArgument("--channels=2: must be 1 or 3");
    DatasetInfo images;
    images.channels = channels_;
    ASSIGN_OR_RETURN(const Model model, ModelFor(config_, images, /*training=*/true));
    if (config_.device == DeviceType::kCuda) return Plan(model);
    std::fputs((json_ ? DescribeJson(model, batch_) : DescribeText(model, batch_)).c_str(), stdout);
    return absl::OkStatus();
  }

 private:
  absl::Status Plan(const Model& model) {
    ASSIGN_OR_RETURN(const GpuSpec gpu, FindGpu(gpu_));
    const bool fusion = FusionOf(config_);
    if (config_.precision == kAutoPrecision)  // auto
      config_.precision = gpu.compute_capability >= 800 ? DType::kBf16 : DType::kF32;
    ASSIGN_OR_RETURN(const StepPlan plan, PlanStep(model, batch_, config_.precision, fusion, gpu));
    StepPlan separate;
    if (fusion && !json_) {
      ASSIGN_OR_RETURN(separate, PlanStep(model, batch_, config_.precision, /*fusion=*/false, gpu));
    }
    const std::string table =
        json_ ? PlanJson(model, plan) : PlanText(model, plan, fusion ? &separate : nullptr, launches_);
    std::fputs(table.c_str(), stdout);
    return absl::OkStatus();
  }

  RunConfig config_;
  int channels_ = 3;
  int64_t batch_ = 1;
  std::string gpu_ = "h200";
  bool json_ = false, launches_ = false;
};

}  // namespace

std::unique_ptr<Command> MakeDescribe() {
  return std::make_unique<DescribeCommand>();
}

}  // namespace deeper
