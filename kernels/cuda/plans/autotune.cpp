#include "kernels/cuda/plans/autotune.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <chrono>
#include <iostream>
#include <limits>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "kernels/base/bf16.h"
#include "kernels/base/check.h"
#include "kernels/base/cuda_check.h"
#include "kernels/base/jobs.h"
#include "kernels/base/status.h"
#include "kernels/base/trial.h"

namespace deeper {
namespace {

constexpr int kRepetitions = 3;
// Launches per measurement, back to back: the host enqueues while the GPU works, as in a step.
constexpr int kLaunches = 5;
// Launches in turn use copies of the operands that together have this many bytes, so that they find none in
// the L2 cache (50 MB on an H100): in a step, the work in between displaces them.
constexpr size_t kRotatedBytes = size_t{256} << 20;
constexpr double kHopeless = 2;  // relative to the best time: a slower algorithm is timed once
// Time limit per problem. An algorithm that needs compilation takes about a second and is rarely the best.
constexpr std::chrono::seconds kPatience(5);
constexpr double kNever = std::numeric_limits<double>::infinity();
// Proposals that are built at a time, each in a thread: cuDNN compiles some, for up to 0.7 s. Nothing is
// timed meanwhile, because loading code disturbs the GPU.
constexpr size_t kBuilds = 8;

using BuiltAlgorithm = absl::StatusOr<std::unique_ptr<Algorithm>>;

// Builds the proposals [first, last).
std::vector<BuiltAlgorithm> BuildAll(const AlgorithmChoice& choice, size_t first, size_t last) {
  int gpu = 0;
  DEEPER_CUDA_CHECK(cudaGetDevice(&gpu));  // a new thread starts with GPU 0
  std::vector<BuiltAlgorithm> built(last - first);
  const absl::Status done = RunJobs(kBuilds, std::ssize(built), [&](int64_t i) {
    DEEPER_CUDA_CHECK(cudaSetDevice(gpu));
    built[i] = choice.Build(first + i);
    return absl::OkStatus();  // the others may work
  });
  DEEPER_CHECK(done.ok(), done.message());
  return built;
}

// Numbers in [-1, 1). Zeros would reduce the GPU's power draw and so the measured time.
void FillRandomly(DType dtype, const Buffer& buffer, Device& device) {
  if (buffer.bytes() == 0) return;
  WithFloatType(dtype, [&]<class T>() {
    static const std::vector<T> numbers = [] {
      std::vector<T> drawn(size_t{1} << 18);
      std::minstd_rand generator;
      std::uniform_real_distribution<float> uniform(-1, 1);
      for (T& number : drawn) number = FromFloat<T>(uniform(generator));
      return drawn;
    }();
    size_t done = std::min(numbers.size() * sizeof(T), buffer.bytes());
    device.Copy(buffer.data(), numbers.data(), done);
    while (done < buffer.bytes()) {
      const size_t more = std::min(done, buffer.bytes() - done);
      device.Copy(buffer.data() + done, buffer.data(), more);
      done += more;
    }
  });
}

class Stopwatch {
 public:
  explicit Stopwatch(Device& device)
      : device_(device), stream_(static_cast<cudaStream_t>(device.stream().native)) {}

  absl::Status Allocate(const OperandSizes& sizes, bool rotate) {
    for (const auto& [buffer, wanted] :
         {std::pair(&bias_, sizes.bias), std::pair(&sums_, sizes.sums), std::pair(&argmax_, sizes.argmax)}) {
      RETURN_IF_ERROR(Allocate(wanted, *buffer));
    }
    // Two random bf16 numbers of the bias also form one fp32 number in the same range.
    FillRandomly(sizes.in, bias_, device_);
    RETURN_IF_ERROR(AddCopy(sizes));
    const size_t bytes = sizes.a + sizes.b + sizes.d + sizes.mask;
    const auto wanted = rotate && bytes > 0 ? (kRotatedBytes + bytes - 1) / bytes : 1;
    // Fewer copies make times less exact, and nothing else.
    while (copies_.size() < std::min<size_t>(wanted, kLaunches) && AddCopy(sizes).ok()) {
    }
    device_.Synchronize();
    return absl::OkStatus();
  }

  absl::StatusOr<double> Try(const AlgorithmTrial& trial, Algorithm& algorithm,
                             const std::function<double()>& time) {
    absl::StatusOr<double> result = trial(algorithm, Operands(), time);
    cudaGetLastError();  // clears the error of a launch that failed
    return result;
  }

  // Returns the milliseconds of one run, less exact if far above `best`; 0 if it has no rival. Returns kNever
  // if it fails.
  double Time(Algorithm& algorithm, double best, bool has_rivals) {
    if (algorithm.workspace_bytes() > workspace_.bytes()) {
      workspace_ = {};
      workspace_ = device_.Allocate(algorithm.workspace_bytes());
      if (workspace_.data() == nullptr) return kNever;
    }
    const double first = TimeOnce(algorithm, 1);  // loads its code: not representative
    if (first == kNever || !has_rivals) return first == kNever ? kNever : 0;
    std::vector<double> times = {TimeOnce(algorithm, kLaunches)};
    if (times[0] > kHopeless * best) return times[0];
    while (times.size() < kRepetitions) times.push_back(TimeOnce(algorithm, kLaunches));
    std::nth_element(times.begin(), times.begin() + kRepetitions / 2, times.end());
    return times[kRepetitions / 2];
  }

 private:
  struct Copy {
    Buffer a, b, d, mask;
  };

  absl::Status Allocate(size_t wanted, Buffer& buffer) {
    buffer = device_.Allocate(wanted);
    if (wanted == 0 || buffer.data() != nullptr) return absl::OkStatus();
    return ResourceExhausted("not enough GPU memory to tune: it needs ", wanted, " bytes, and ",
                             device_.AvailableBytes(), " are free: use a smaller batch");
  }
  absl::Status AddCopy(const OperandSizes& sizes) {
    Copy copy;
    for (const auto& [buffer, wanted] : {std::pair(&copy.a, sizes.a), std::pair(&copy.b, sizes.b),
                                         std::pair(&copy.d, sizes.d), std::pair(&copy.mask, sizes.mask)}) {
      RETURN_IF_ERROR(Allocate(wanted, *buffer));
    }
    for (const Buffer* buffer : {&copy.a, &copy.b, &copy.mask}) FillRandomly(sizes.in, *buffer, device_);
    copies_.push_back(std::move(copy));
    return absl::OkStatus();
  }

  PlanOperands Operands(size_t launch = 0) const {
    const Copy& copy = copies_[launch % copies_.size()];
    return {.a = copy.a.data(),
            .b = copy.b.data(),
            .d = copy.d.data(),
            .workspace = workspace_.data(),
            .bias = bias_.data(),
            .mask = copy.mask.data(),
            .sums = sums_.as<float>(),
            .argmax = argmax_.as<uint8_t>()};
  }

  double TimeOnce(Algorithm& algorithm, int launches) {
    DEEPER_CUDA_CHECK(cudaEventRecord(start_.get(), stream_));
    absl::Status status;
    for (int i = 0; i < launches; ++i)
      status.Update(algorithm.Enqueue(Operands(launched_++), device_.stream()));
    DEEPER_CUDA_CHECK(cudaEventRecord(stop_.get(), stream_));
    DEEPER_CUDA_CHECK(cudaEventSynchronize(stop_.get()));
    float milliseconds = 0;
    DEEPER_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, start_.get(), stop_.get()));
    if (status.ok()) return milliseconds / static_cast<float>(launches);
    cudaGetLastError();  // clears the error of a launch that failed
    return kNever;
  }

  Device& device_;
  const cudaStream_t stream_;
  std::vector<Copy> copies_;
  size_t launched_ = 0;
  Buffer bias_, sums_, argmax_, workspace_;
  const CudaEvent start_ = MakeCudaEvent(cudaEventDefault), stop_ = MakeCudaEvent(cudaEventDefault);
};

}  // namespace

absl::StatusOr<std::unique_ptr<Algorithm>> ChooseFirst(AlgorithmChoice& choice) {
  RETURN_IF_ERROR(choice.Ask());
  absl::Status status;
  for (size_t i = 0; i < choice.size(); ++i) {
    BuiltAlgorithm built = choice.Build(i);
    if (built.ok()) return built;
    status.Update(built.status());
  }
  return Unimplemented(status.message());  // error of the most promising one
}

absl::StatusOr<std::unique_ptr<Algorithm>> ChooseFastest(AlgorithmChoice& choice, const std::string& name,
                                                         const OperandSizes& sizes, Device& device,
                                                         const Contest& contest,
                                                         const AlgorithmTrial& trial) {
  RETURN_IF_ERROR(choice.Ask());
  absl::Status status;
  Stopwatch stopwatch(device);
  RETURN_IF_ERROR(stopwatch.Allocate(sizes, /*rotate=*/contest.contenders > 1));
  std::unique_ptr<Algorithm> best;
  double best_time = kNever;
  std::set<std::string> seen;
  const bool may_have_rivals = contest.contenders > 1;
  int contenders = contest.contenders;
  auto deadline = std::chrono::steady_clock::now() + kPatience;
  std::vector<BuiltAlgorithm> wave;
  for (size_t i = 0; i < choice.size() && contenders > 0; ++i) {
    if (best != nullptr && std::chrono::steady_clock::now() > deadline) break;
    const size_t builds = may_have_rivals ? kBuilds : 1;
    if (i % builds == 0) wave = BuildAll(choice, i, std::min(i + builds, choice.size()));
    BuiltAlgorithm& built = wave[i % builds];
    if (!built.ok()) {
      status.Update(built.status());
      continue;
    }
    // Several heuristics may propose the same algorithm.
    const absl::StatusOr<std::string> text = (*built)->Serialize();
    if (text.ok() && !seen.insert(*text).second) continue;
    const bool is_own = (*built)->needs_check();
    const auto measure = [&] {
      const Trial limit((*built)->NameOfTrial(name), contest.trial_limit);
      return stopwatch.Time(**built, best_time, may_have_rivals);
    };
    const auto began = std::chrono::steady_clock::now();
    const absl::StatusOr<double> time = is_own ? stopwatch.Try(trial, **built, measure) : measure();
    if (is_own) deadline += std::chrono::steady_clock::now() - began;  // the limit excludes checks
    if (!time.ok()) {
      std::cerr << name << ": " << *text << " is excluded: " << time.status().message() << std::endl;
      status.Update(time.status());
      continue;
    }
    if (*time < kNever) --contenders;
    if (*time < best_time) {
      best_time = *time;
      best = *std::move(built);
    }
  }
  if (best != nullptr) return best;
  status.Update(Unimplemented("none of the proposed algorithms runs"));
  return Unimplemented(status.message());
}

}  // namespace deeper
