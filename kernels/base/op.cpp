#include "kernels/base/op.h"

#include <algorithm>
#include <cstring>

namespace deeper {
namespace {

// Calls visit(canonical index, stored index) for every element of an [O, I, ...] parameter. Checkpoints wait
// for this function. It avoids divisions and finishes one tile, which fits into cache, before the next. It
// uses one thread, because it overlaps with disk reads: more threads would take cores from the reader.
template <class Visit>
void ForEachElement(const ParamSpec& spec, const ParamLayout& layout, const Visit& visit) {
  const int64_t outputs = spec.shape[0], inputs = spec.shape[1], taps = spec.elements() / (outputs * inputs);
  const int64_t block = layout.block, padded = RoundUp(inputs, block);
  if (layout.order == ParamLayout::Order::kChannelsLast) {
    for (int64_t o = 0; o < outputs; ++o)
      for (int64_t t = 0; t < taps; ++t)
        for (int64_t i = 0; i < inputs; ++i) visit((o * inputs + i) * taps + t, (o * taps + t) * padded + i);
    return;
  }
  for (int64_t o0 = 0; o0 < outputs; o0 += block) {
    for (int64_t i0 = 0; i0 < inputs; i0 += block) {
      const int64_t tile = (o0 * padded + i0 * block) * taps;  // [taps, block, block]
      const int64_t o1 = std::min(o0 + block, outputs), i1 = std::min(i0 + block, inputs);
      for (int64_t o = o0; o < o1; ++o)
        for (int64_t t = 0; t < taps; ++t)
          for (int64_t i = i0; i < i1; ++i)
            visit((o * inputs + i) * taps + t, tile + (t * block + i - i0) * block + o - o0);
    }
  }
}

}  // namespace

ParamLayout MakeParamLayout(const ParamSpec& spec, int64_t block) {
  using Order = ParamLayout::Order;
  if (block == 1 || spec.shape.size() < 2) return {Order::kPlain, 1, spec.elements()};
  const int64_t taps = spec.elements() / (spec.shape[0] * spec.shape[1]);
  return {Order::kBlocked, block, RoundUp(spec.shape[0], block) * RoundUp(spec.shape[1], block) * taps};
}

ParamLayout MakeChannelsLastLayout(const ParamSpec& spec, int64_t block) {
  if (spec.shape.size() < 2) return MakeParamLayout(spec, 1);
  return {ParamLayout::Order::kChannelsLast, block,
          spec.elements() / spec.shape[1] * RoundUp(spec.shape[1], block)};
}

void PackParam(const ParamSpec& spec, const ParamLayout& layout, const float* canonical, float* stored) {
  if (layout.order == ParamLayout::Order::kPlain) {
    std::memcpy(stored, canonical, sizeof(float) * static_cast<size_t>(spec.elements()));
    return;
  }
  if (layout.stored_elements != spec.elements()) std::fill_n(stored, layout.stored_elements, 0.0f);
  ForEachElement(spec, layout, [&](int64_t c, int64_t s) { stored[s] = canonical[c]; });
}

void UnpackParam(const ParamSpec& spec, const ParamLayout& layout, const float* stored, float* canonical) {
  if (layout.order == ParamLayout::Order::kPlain) {
    std::memcpy(canonical, stored, sizeof(float) * static_cast<size_t>(spec.elements()));
    return;
  }
  ForEachElement(spec, layout, [&](int64_t c, int64_t s) { canonical[c] = stored[s]; });
}

}  // namespace deeper
