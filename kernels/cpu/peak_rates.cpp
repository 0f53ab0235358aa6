#include "kernels/cpu/peak_rates.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <limits>

#include "kernels/base/parallel.h"
#include "kernels/base/status.h"
#include "kernels/cpu/onednn.h"

namespace deeper {
namespace {

constexpr int kRepeats = 8;

template <class Work>
double FastestSeconds(const Work& work) {
  using Clock = std::chrono::steady_clock;
  double fastest = std::numeric_limits<double>::infinity();
  for (int i = 0; i < kRepeats; ++i) {
    const auto begin = Clock::now();
    work();
    fastest = std::min(fastest, std::chrono::duration<double>(Clock::now() - begin).count());
  }
  return fastest;
}

absl::StatusOr<double> MeasureFlops(Device& device, DType dtype) {
  constexpr int64_t kSide = 2048;
  const onednn::Desc x = onednn::DescOf({{kSide, kSide}, dtype}).reshape({kSide, kSide});
  const onednn::Desc any = onednn::AnyFormat(x, dtype);
  ASSIGN_OR_RETURN(onednn::Weighted product,
                   onednn::MakeInnerProduct({any, any, any, {}, any}, {.training = false, .dx = false}));
  onednn::Primitive& forward = product.forward;
  bool fits = true;
  const auto allocate = [&](int arg) {
    Buffer buffer = device.Allocate(std::max<size_t>(1, forward.ArgBytes(arg)));
    fits = fits && buffer.data() != nullptr;
    return buffer;
  };
  const Buffer a = allocate(DNNL_ARG_SRC), b = allocate(DNNL_ARG_WEIGHTS), c = allocate(DNNL_ARG_DST),
               scratch = allocate(DNNL_ARG_SCRATCHPAD);
  if (!fits) return ResourceExhausted("no memory to measure matrix products");
  forward.Bind({{DNNL_ARG_SRC, a.data()}, {DNNL_ARG_WEIGHTS, b.data()}, {DNNL_ARG_DST, c.data()}},
               scratch.data());
  return 2.0 * kSide * kSide * kSide / FastestSeconds([&] { forward.Run(); });
}

}  // namespace

absl::StatusOr<PeakRates> MeasureCpuPeak(Device& device) {
  constexpr size_t kBytes = size_t{256} << 20;
  const Buffer from = device.Allocate(kBytes), to = device.Allocate(kBytes);
  if (from.data() == nullptr || to.data() == nullptr)
    return ResourceExhausted("no memory to measure the memory bandwidth");
  const double copy = FastestSeconds([&] {
    ParallelFor(kBytes, 4096, [&](int64_t begin, int64_t end) {
      std::memcpy(to.data() + begin, from.data() + begin, static_cast<size_t>(end - begin));
    });
  });
  PeakRates peak = {.bytes_per_second = 2.0 * kBytes / copy};
  ASSIGN_OR_RETURN(peak.fp32_flops, MeasureFlops(device, DType::kF32));
  if (device.bf16_support() != Bf16Support::kNone) {
    ASSIGN_OR_RETURN(peak.bf16_flops, MeasureFlops(device, DType::kBf16));
  }
  return peak;
}

}  // namespace deeper
