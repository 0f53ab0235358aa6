// The stored channels of a feature map as groups that loops over pixels process together.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/base/tensor.h"

namespace deeper {

// kBlocked: a group is a block. kNhwc: it is up to 16 neighbouring channels of a pixel. In both, the group of
// a pixel is contiguous, and begins at TensorDesc::Offset of its first channel.
struct ChannelGroups {
  static constexpr int64_t kMax = 16;

  explicit ChannelGroups(const TensorDesc& map)
      : channels(map.padded_channels()),
        size(map.block > 1 ? map.block : kMax),
        count((channels + size - 1) / size),
        pitch(map.block > 1 ? map.block : map.pixel_pitch()) {}

  int64_t SizeOf(int64_t group) const { return std::min(size, channels - group * size); }

  int64_t channels;  // stored
  int64_t size;      // of every group but the last
  int64_t count;
  int64_t pitch;  // elements from pixel to pixel
};

}  // namespace deeper
