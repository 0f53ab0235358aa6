#include "kernels/ops/join.h"

#include <algorithm>
#include <cstring>

#include "kernels/base/bf16.h"
#include "kernels/base/check.h"
#include "kernels/base/parallel.h"

namespace deeper {
namespace {

// `sum` fits into the L1 cache and allows `out` to be one of the parts.
template <class T>
DEEPER_SIMD void JoinSpan(const std::vector<void*>& parts, int64_t at, const T* y, T* out, int64_t count) {
  constexpr int64_t kChunk = 1024;
  alignas(64) float sum[kChunk];
  for (int64_t begin = 0; begin < count; begin += kChunk) {
    const int64_t n = std::min(kChunk, count - begin);
    const T* first = static_cast<const T*>(parts[0]) + at + begin;
    for (int64_t i = 0; i < n; ++i) sum[i] = ToFloat(first[i]);
    for (size_t p = 1; p < parts.size(); ++p) {
      const T* part = static_cast<const T*>(parts[p]) + at + begin;
      for (int64_t i = 0; i < n; ++i) sum[i] += ToFloat(part[i]);
    }
    if (y != nullptr) {
      const T* mask = y + at + begin;
      for (int64_t i = 0; i < n; ++i) sum[i] = ToFloat(mask[i]) > 0 ? sum[i] : 0.0f;
    }
    for (int64_t i = 0; i < n; ++i) out[begin + i] = FromFloat<T>(sum[i]);
  }
}

// Whether the channels [first, first + part.c) of `whole` are contiguous in memory per image, as in a
// separate tensor.
bool IsRun(const TensorDesc& part, int64_t first, const TensorDesc& whole) {
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
void Join(const std::vector<void*>& parts, const T* y, const TensorDesc& from, int64_t first,
          const Tensor& out) {
  if (IsRun(out.desc, first, from)) {
    ForEachRun(out.desc, first, from, [&](int64_t to, int64_t at, int64_t count) {
      JoinSpan(parts, at, y, out.as<T>() + to, count);
    });
    return;
  }
  ForEachPlane(out.desc, out.desc.padded_channels(), [&](int64_t n, int64_t c) {
    for (int64_t s = 0; s < out.desc.shape.spatial(); ++s) {
      T& to = out.as<T>()[out.desc.Offset(n, c, 0, s)];
      to = T{};
      if (c < out.desc.shape.c) JoinSpan(parts, from.Offset(n, first + c, 0, s), y, &to, 1);
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
  DEEPER_CHECK(!parts.empty() && out.desc.dtype == from.dtype);
  WithFloatType(from.dtype,
                [&]<class T>() { Join(parts, static_cast<const T*>(y), from, first_channel, out); });
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
  WithFloatType(from.desc.dtype, [&]<class T>() { Paste<T>(from, first_channel, to); });
}

}  // namespace deeper
