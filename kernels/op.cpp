#include "kernels/op.h"

#include <algorithm>
#include <cstring>

#include "kernels/check.h"

namespace deeper {
namespace {

int64_t RoundUp(int64_t n, int64_t to) {
  return (n + to - 1) / to * to;
}

// Calls visit(canonical index, stored index) for every element of an [O, I, ...] parameter.
template <class Visit>
void ForEachElement(const ParamSpec& spec, const ParamLayout& layout, const Visit& visit) {
  const int64_t outputs = spec.shape[0], inputs = spec.shape[1], taps = spec.elements() / (outputs * inputs);
  const int64_t block = layout.block, padded = RoundUp(inputs, block);
  const bool blocked = layout.order == ParamLayout::Order::kBlocked;
  for (int64_t o = 0; o < outputs; ++o) {
    const int64_t row = o / block * (padded / block), in_block = o % block;
    for (int64_t first = 0; first < inputs;
         first += block) {  // no division within: checkpoints wait for this
      const int64_t tile = (row + first / block) * taps;
      for (int64_t i = first; i < std::min(first + block, inputs); ++i) {
        for (int64_t t = 0; t < taps; ++t) {
          visit((o * inputs + i) * taps + t,
                blocked ? ((tile + t) * block + i - first) * block + in_block : (o * taps + t) * padded + i);
        }
      }
    }
  }
}

}  // namespace

ParamLayout MakeParamLayout(const ParamSpec& spec, int64_t block) {
  using Order = ParamLayout::Order;
  if (block == 1) return {Order::kPlain, 1, spec.elements()};
  DEEPER_CHECK(spec.shape.size() >= 2, spec.name);
  const int64_t taps = spec.elements() / (spec.shape[0] * spec.shape[1]);
  return {Order::kBlocked, block, RoundUp(spec.shape[0], block) * RoundUp(spec.shape[1], block) * taps};
}

ParamLayout MakeChannelsLastLayout(const ParamSpec& spec, int64_t block) {
  DEEPER_CHECK(spec.shape.size() >= 2, spec.name);
  return {ParamLayout::Order::kChannelsLast, block,
          spec.elements() / spec.shape[1] * RoundUp(spec.shape[1], block)};
}

void PackParam(const ParamSpec& spec, const ParamLayout& layout, const float* canonical, float* stored) {
  if (layout.order == ParamLayout::Order::kPlain) {
    std::memcpy(stored, canonical, sizeof(float) * static_cast<size_t>(spec.elements()));
    return;
  }
  std::fill_n(stored, layout.stored_elements, 0.0f);
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
