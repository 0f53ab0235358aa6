#include "kernels/ops/join.h"

#include <algorithm>
#include <cstring>

#include "kernels/base/bf16.h"
#include "kernels/base/check.h"
#include "kernels/base/parallel.h"
#include "kernels/cpu/avx512.h"
#include "kernels/cpu/profile.h"

namespace deeper {
namespace {

constexpr int64_t kChunk = 1024;  // whose sums fit into the L1 cache

// n <= kChunk elements of one row: out = sum of the parts, and 0 where y is not positive. `out` may be one of
// the parts.
template <class T>
inline __attribute__((always_inline)) void JoinChunk(const T* const* parts, size_t count, int64_t at,
                                                     const T* y, int64_t n, T* out) {
  alignas(64) float sum[kChunk];
  for (int64_t i = 0; i < n; ++i) sum[i] = ToFloat(parts[0][at + i]);
  for (size_t p = 1; p < count; ++p) {
    const T* part = parts[p] + at;
    for (int64_t i = 0; i < n; ++i) sum[i] += ToFloat(part[i]);
  }
  if (y != nullptr) {
    for (int64_t i = 0; i < n; ++i) sum[i] = ToFloat(y[at + i]) > 0 ? sum[i] : 0.0f;
  }
  for (int64_t i = 0; i < n; ++i) out[i] = FromFloat<T>(sum[i]);
}

// Rows of `channels` elements. The rows of the parts and of y begin at `at` and are `pitch` elements apart;
// those of `out` are dense.
struct Rows {
  int64_t at = 0, pitch = 0, channels = 0, count = 1;
};

#if defined(__x86_64__)

// The sums of kVectors vectors stay in registers.
template <int kVectors, class T>
DEEPER_AVX512_INLINE void JoinVectors(const T* const* parts, size_t count, int64_t at, const T* y,
                                      __mmask16 lanes, T* out) {
  __m512 sum[kVectors];
  for (int v = 0; v < kVectors; ++v) sum[v] = avx512::Load(parts[0] + at + v * avx512::kLanes, lanes);
  for (size_t p = 1; p < count; ++p) {
    for (int v = 0; v < kVectors; ++v)
      sum[v] = _mm512_add_ps(sum[v], avx512::Load(parts[p] + at + v * avx512::kLanes, lanes));
  }
  if (y != nullptr) {
    for (int v = 0; v < kVectors; ++v) {
      const __m512 mask = avx512::Load(y + at + v * avx512::kLanes, lanes);
      sum[v] = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(mask, _mm512_setzero_ps(), _CMP_GT_OQ), sum[v]);
    }
  }
  for (int v = 0; v < kVectors; ++v) avx512::Store(out + v * avx512::kLanes, lanes, sum[v]);
}

template <class T>
DEEPER_AVX512 void JoinRowsAvx512(const T* const* parts, size_t count, const T* y, const Rows& rows, T* out) {
  constexpr __mmask16 kAll = 0xFFFF;
  for (int64_t row = 0; row < rows.count; ++row) {
    const int64_t at = rows.at + row * rows.pitch;
    T* const to = out + row * rows.channels;
    int64_t c = 0;
    for (; c + 4 * avx512::kLanes <= rows.channels; c += 4 * avx512::kLanes)
      JoinVectors<4>(parts, count, at + c, y, kAll, to + c);
    for (; c + 2 * avx512::kLanes <= rows.channels; c += 2 * avx512::kLanes)
      JoinVectors<2>(parts, count, at + c, y, kAll, to + c);
    for (; c < rows.channels; c += avx512::kLanes)
      JoinVectors<1>(parts, count, at + c, y, avx512::First(rows.channels - c), to + c);
  }
}

#endif

template <class T>
DEEPER_SIMD void JoinRowsPlain(const T* const* parts, size_t count, const T* y, const Rows& rows, T* out) {
  for (int64_t row = 0; row < rows.count; ++row) {
    const int64_t at = rows.at + row * rows.pitch;
    T* const to = out + row * rows.channels;
    for (int64_t c = 0; c < rows.channels; c += kChunk)
      JoinChunk(parts, count, at + c, y, std::min(kChunk, rows.channels - c), to + c);
  }
}

template <class T>
void JoinRows(const T* const* parts, size_t count, const T* y, const Rows& rows, T* out) {
#if defined(__x86_64__)
  if (avx512::Supported()) return JoinRowsAvx512(parts, count, y, rows, out);
#endif
  JoinRowsPlain(parts, count, y, rows, out);
}

// Whether the channels [first, first + part.c) of `whole` are contiguous in memory per image, as in a
// separate tensor.
bool IsRun(const TensorDesc& part, int64_t first, const TensorDesc& whole) {
  if (whole.layout == Layout::kNhwc) return part.shape.c == whole.shape.c || whole.shape.spatial() == 1;
  const bool ends_block = part.shape.c % part.block == 0 || first + part.shape.c == whole.shape.c;
  return first % whole.block == 0 && ends_block;
}

// Calls body(offset in part, offset in whole, count) on contiguous runs of memory, in parallel.
template <class Body>
void ForEachRun(const TensorDesc& part, int64_t first, const TensorDesc& whole, const Body& body) {
  const int64_t run = part.stored_elements() / part.shape.n;
  ParallelFor(part.stored_elements(), 1024, [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t count = std::min(end - begin, run - begin % run);
      body(begin, whole.Offset(begin / run, first, 0, 0) + begin % run, count);
      begin += count;
    }
  });
}

// Calls body(n, channel of the part), including padding channels, in parallel.
template <class Body>
void ForEachPlane(const TensorDesc& part, int64_t channels, const Body& body) {
  ParallelFor(part.shape.n * channels, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(i / channels, i % channels);
  });
}

template <class T>
void Join(const T* const* parts, size_t count, const T* y, const TensorDesc& from, int64_t first,
          const Tensor& out) {
  T* const to = out.as<T>();
  if (IsRun(out.desc, first, from)) {
    ForEachRun(out.desc, first, from, [&](int64_t begin, int64_t at, int64_t elements) {
      JoinRows(parts, count, y, {.at = at, .channels = elements}, to + begin);
    });
    return;
  }
  const int64_t channels = out.desc.shape.c;
  if (from.layout == Layout::kNhwc) {
    ParallelFor(from.shape.n * from.shape.spatial(), 16, [&](int64_t begin, int64_t end) {
      JoinRows(parts, count, y, {begin * from.shape.c + first, from.shape.c, channels, end - begin},
               to + begin * channels);
    });
    return;
  }
  ForEachPlane(out.desc, out.desc.padded_channels(), [&](int64_t n, int64_t c) {
    for (int64_t s = 0; s < out.desc.shape.spatial(); ++s) {
      T& element = to[out.desc.Offset(n, c, 0, s)];
      element = T{};
      if (c < channels)
        JoinRows(parts, count, y, {.at = from.Offset(n, first + c, 0, s), .channels = 1}, &element);
    }
  });
}

template <class T>
void Paste(const Tensor& from, int64_t first, const Tensor& to) {
  if (IsRun(from.desc, first, to.desc)) {
    ForEachRun(from.desc, first, to.desc, [&](int64_t at, int64_t into, int64_t count) {
      std::memcpy(to.as<T>() + into, from.as<T>() + at, static_cast<size_t>(count) * sizeof(T));
    });
    return;
  }
  if (to.desc.layout == Layout::kNhwc) {
    const int64_t own = from.desc.shape.c, all = to.desc.shape.c;
    ParallelFor(from.desc.shape.n * from.desc.shape.spatial(), 16, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row)
        std::memcpy(to.as<T>() + row * all + first, from.as<T>() + row * own,
                    static_cast<size_t>(own) * sizeof(T));
    });
    return;
  }
  const bool last = first + from.desc.shape.c == to.desc.shape.c;
  const int64_t channels = last ? to.desc.padded_channels() - first : from.desc.shape.c;
  ForEachPlane(from.desc, channels, [&](int64_t n, int64_t c) {
    for (int64_t s = 0; s < from.desc.shape.spatial(); ++s) {
      const bool padding = c >= from.desc.shape.c;
      to.as<T>()[to.desc.Offset(n, first + c, 0, s)] =
          padding ? T{} : from.as<T>()[from.desc.Offset(n, c, 0, s)];
    }
  });
}

void JoinAnyType(const std::vector<void*>& parts, const void* y, const TensorDesc& from,
                 int64_t first_channel, const Tensor& out) {
  DEEPER_CHECK(!parts.empty() && parts.size() <= kMaxGradientParts && out.desc.dtype == from.dtype);
  WithFloatType(from.dtype, [&]<class T>() {
    const T* typed[kMaxGradientParts];
    for (size_t i = 0; i < parts.size(); ++i) typed[i] = static_cast<const T*>(parts[i]);
    const auto bytes = static_cast<int64_t>(out.desc.bytes() * (parts.size() + 1 + (y != nullptr ? 1 : 0)));
    Timed({"gradient join", bytes},
          [&] { Join(typed, parts.size(), static_cast<const T*>(y), from, first_channel, out); });
  });
}

}  // namespace

void JoinChannelsCpu(Device&, const std::vector<void*>& parts, const void* y, const TensorDesc& from,
                     int64_t first_channel, const Tensor& out) {
  JoinAnyType(parts, y, from, first_channel, out);
}

void JoinGradientsCpu(const std::vector<void*>& parts, const void* y, const TensorDesc& desc, void* out) {
  if (parts.size() == 1 && parts[0] == out && y == nullptr) return;
  JoinAnyType(parts, y, desc, 0, {out, desc});
}

void PasteChannelsCpu(Device&, const Tensor& from, int64_t first_channel, const Tensor& to) {
  DEEPER_CHECK(from.desc.dtype == to.desc.dtype);
  Timed({"concat", static_cast<int64_t>(2 * from.desc.bytes())},
        [&] { WithFloatType(from.desc.dtype, [&]<class T>() { Paste<T>(from, first_channel, to); }); });
}

}  // namespace deeper
