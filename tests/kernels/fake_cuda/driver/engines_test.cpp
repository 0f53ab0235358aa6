// cuDNN's engines for every convolution of the fused network, on described GPUs and a libcuda that loads
// everything (libcuda.cpp): here the engines that compile at run time are finalised, too, which most slices
// of modules need.
//
// $DEEPER_ENGINES=all finalises every proposal, not the first two only, for all GPUs and types: some minutes.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "kernels/base/jobs.h"
#include "kernels/cuda/plans/cuda_algorithm.h"
#include "kernels/cuda/plans/cuda_problem.h"
#include "kernels/cuda/plans/cudnn.h"
#include "kernels/cuda/plans/widened.h"
#include "trainer/engine/network.h"
#include "trainer/models/model.h"
#include "trainer/scaling/gpu_spec.h"

namespace deeper {
namespace {

// Has memory and streams of no kind, and notes the problems that it is asked to plan.
class NotingDevice final : public CudaDevice {
 public:
  NotingDevice() : CudaDevice(Mode::kPlan) {}
  std::string Describe() const override { return "notes problems"; }
  Buffer Allocate(size_t) override { return {}; }
  size_t AvailableBytes() const override { return size_t{1} << 40; }
  Stream stream() const override { return {}; }
  void Synchronize() override {}
  void Copy(void*, const void*, size_t) override {}
  bool Begin(const Launch&) override { return false; }
  void End() override {}
  absl::StatusOr<std::unique_ptr<CudaPlan>> Plan(const ConvolutionProblem& problem) override {
    const ConvolutionProblem narrow = NarrowProblem(problem);
    if (!problem.mask_dx && !problem.pool_x && !problem.pool_y) problems.insert({ToString(narrow), narrow});
    return std::make_unique<AlgorithmPlan>(*this, LaunchOf(problem), nullptr, 0);
  }
  absl::StatusOr<std::unique_ptr<CudaPlan>> Plan(const MatmulProblem& problem) override {
    return std::make_unique<AlgorithmPlan>(*this, LaunchOf(problem), nullptr, 0);
  }

  std::map<std::string, ConvolutionProblem> problems;  // that are cuDNN's
};

// Of the fused network, and layer by layer.
std::map<std::string, ConvolutionProblem> ProblemsOfGoogLeNet(DType precision) {
  NotingDevice device;
  const Model model = MakeModel("googlenet", {}).value();
  for (const bool fusion : {true, false}) {
    const auto net = Network::Prepare(
        model, {.rows = 256, .precision = precision, .training = true, .fusion = fusion}, device);
    EXPECT_TRUE(net.ok()) << net.status();
  }
  return device.problems;
}

// What cuDNN proposes for a problem.
struct Found {
  size_t first_workspace = 0;        // of the first plan, in bytes
  std::set<std::string> plans = {};  // their texts
  std::vector<std::string> refusals = {};
};

// Builds several at a time, as the tuner does.
Found Finalise(const cudnn::Target& target, const ConvolutionProblem& problem, bool all) {
  Found found;
  const auto choice = cudnn::Choose(target, problem, /*deterministic=*/false);
  EXPECT_TRUE(choice.ok()) << choice.status();
  const absl::Status asked = (*choice)->Ask();
  EXPECT_TRUE(asked.ok()) << asked;
  std::vector<absl::StatusOr<std::unique_ptr<Algorithm>>> plans(all ? (*choice)->size()
                                                                    : std::min<size_t>((*choice)->size(), 2));
  const absl::Status built = RunJobs(8, std::ssize(plans), [&](int64_t i) {
    plans[i] = (*choice)->Build(i);
    return absl::OkStatus();
  });
  EXPECT_TRUE(built.ok());
  for (const auto& plan : plans) {
    if (!plan.ok()) {
      found.refusals.emplace_back(plan.status().message());
      continue;
    }
    if (found.plans.empty()) found.first_workspace = (*plan)->workspace_bytes();
    EXPECT_TRUE(found.plans.insert((*plan)->Serialize().value()).second) << "proposed twice";
  }
  return found;
}

// Whether the workspace is large enough for a copy of x, which the list of launches does not show.
bool Copies(const ConvolutionProblem& p, const Found& found) {
  return found.first_workspace >= static_cast<size_t>(p.n * p.h * p.w * p.c) * SizeOf(p.dtype) / 2;
}

// Where that is known and accepted. fp32 is not for speed.
bool MayCopy(const ConvolutionProblem& p) {
  using Pass = ConvolutionProblem::Pass;
  if (p.dtype == DType::kF32 || p.pass == Pass::kBackwardWeights) return true;
  return p.pass == Pass::kBackwardData && p.kernel == 5 && p.c == 32 && p.k == 128;
}

TEST(CompiledEngines, EveryProblem) {
  const bool all = std::getenv("DEEPER_ENGINES") != nullptr;
  const auto gpus = all ? std::vector<std::string>{"a100", "h100", "h200"} : std::vector<std::string>{"h100"};
  for (const std::string& gpu : gpus) {
    const auto target = cudnn::MakeDevicelessTarget(DevicePropertiesJson(FindGpu(gpu).value()));
    ASSERT_TRUE(target.ok()) << target.status();
    for (const DType precision :
         all ? std::vector<DType>{DType::kBf16, DType::kF32} : std::vector<DType>{DType::kBf16}) {
      size_t plans = 0, refused = 0, copying = 0;
      const auto problems = ProblemsOfGoogLeNet(precision);
      for (const auto& [name, problem] : problems) {
        SCOPED_TRACE(gpu + ": " + name);
        const Found found = Finalise(**target, problem, all);
        EXPECT_FALSE(found.plans.empty()) << "no engine";
        for (const std::string& refusal : found.refusals)
          EXPECT_TRUE(absl::StrContains(refusal, "bytes of workspace")) << refusal;
        const bool copies = Copies(problem, found);
        EXPECT_TRUE(!copies || MayCopy(problem)) << "a workspace of " << found.first_workspace;
        copying += copies;
        plans += found.plans.size();
        refused += found.refusals.size();
      }
      std::cout << gpu << ' ' << NameOf(precision) << ": " << problems.size() << " problems, " << plans
                << " plans, " << refused << " with too much workspace, " << copying
                << " whose first plan copies x" << std::endl;
    }
  }
}

}  // namespace
}  // namespace deeper

int main(int argc, char** argv) {
  // cuDNN then finds it under its name, libcuda.so.1.
  if (dlopen(DEEPER_FAKE_LIBCUDA, RTLD_NOW | RTLD_GLOBAL) == nullptr) {
    std::cerr << dlerror() << std::endl;
    return 1;
  }
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
