// Measures the CPU time per training image: decoded whole or in part, and resized.
//
//   image_benchmark PHOTOGRAPH.jpg... [--benchmark_...]
//
// The photographs' centres are encoded as 500x375 JPEG of quality 96 with chroma at half the size, similar to
// ImageNet. Every iteration is one image, at the windows of --augment=inception for 224 px.
#include <benchmark/benchmark.h>

#include <cstdio>

#include "data/image/augment.h"
#include "data/image/image_codec.h"
#include "data/image/resize.h"
#include "data/io/file.h"
#include "tests/data/test_images.h"

namespace deeper {
namespace {

constexpr int kHeight = 375, kWidth = 500, kSize = 224;

std::vector<Bytes>& Files() {
  static std::vector<Bytes> files;
  return files;
}

bool AddPhotograph(const char* path) {
  const absl::StatusOr<std::vector<uint8_t>> file = ReadFile(path);
  Image photograph;
  if (!file.ok() || !DecodeImage(*file, 3, &photograph).ok()) return false;
  const float scale = std::min(static_cast<float>(photograph.width) / kWidth,
                               static_cast<float>(photograph.height) / kHeight);
  Window middle{0, 0, scale * kWidth, scale * kHeight};
  middle.x = (static_cast<float>(photograph.width) - middle.width) / 2;
  middle.y = (static_cast<float>(photograph.height) - middle.height) / 2;
  Files().push_back(
      JpegFile(ResizeWindow(photograph, middle, Filter::kAntialias, kHeight, kWidth), {2, 2}, 96));
  return true;
}

Window WindowOf(int64_t image) {
  return DrawWindow(Augment::kInception, kSize, kHeight, kWidth,
                    Rng(1, RandomStream("benchmark"), 0, static_cast<uint64_t>(image)));
}

PixelRect PartOf(const Window& window) {
  return PixelsOf(window, Filter::kBilinear, kSize, kSize, {kHeight, kWidth});
}

const Bytes& FileOf(int64_t image) {
  return Files()[static_cast<size_t>(image) % Files().size()];
}

void Decode(int64_t i, bool whole, Image* image) {
  const absl::Status status = whole
                                  ? DecodeImage(FileOf(i), 3, image)
                                  : DecodePart(
                                        FileOf(i), 3, [i](ImageSize) { return PartOf(WindowOf(i)); }, image);
  if (!status.ok()) std::abort();
}

void Sample(int64_t i, const Image& image, bool recolor, std::vector<float>* out) {
  constexpr PixelScale kScales[] = {{0.017f, -2.1f}, {0.017f, -2.0f}, {0.017f, -1.8f}};
  Sampling sampling{WindowOf(i)};
  sampling.window.x -= static_cast<float>(image.x);
  sampling.window.y -= static_cast<float>(image.y);
  if (recolor) sampling.color = DrawColor(0.5, 110, Rng(1, 2, 3, static_cast<uint64_t>(i)));
  out->resize(size_t{3} * kSize * kSize);
  SampleImage(image, sampling, kScales, 3, kSize, kSize, out->data());
}

void BM_Decode(benchmark::State& state, bool whole) {
  Image image;
  int64_t i = 0;
  for (auto _ : state) Decode(i++, whole, &image);
  state.SetItemsProcessed(i);
}

void BM_Sample(benchmark::State& state, bool recolor) {
  Image image;
  Decode(0, true, &image);
  std::vector<float> out;
  int64_t i = 0;
  for (auto _ : state) Sample(i++, image, recolor, &out);
  state.SetItemsProcessed(i);
}

void BM_DecodeAndSample(benchmark::State& state, bool whole) {
  Image image;
  std::vector<float> out;
  int64_t i = 0;
  for (auto _ : state) {
    Decode(i, whole, &image);
    Sample(i++, image, true, &out);
  }
  state.SetItemsProcessed(i);
}

BENCHMARK_CAPTURE(BM_Decode, whole, true);
BENCHMARK_CAPTURE(BM_Decode, part, false);
BENCHMARK_CAPTURE(BM_Sample, plain, false);
BENCHMARK_CAPTURE(BM_Sample, recoloured, true);
BENCHMARK_CAPTURE(BM_DecodeAndSample, whole, true);
BENCHMARK_CAPTURE(BM_DecodeAndSample, part, false);

}  // namespace
}  // namespace deeper

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  for (int i = 1; i < argc; ++i) {
    if (deeper::AddPhotograph(argv[i])) continue;
    std::fprintf(stderr, "%s: not an image\n", argv[i]);
    return 2;
  }
  if (deeper::Files().empty()) {
    std::fprintf(stderr, "image_benchmark PHOTOGRAPH.jpg... [--benchmark_...]\n");
    return 2;
  }
  benchmark::RunSpecifiedBenchmarks();
}
