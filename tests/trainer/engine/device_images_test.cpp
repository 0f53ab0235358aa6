// Compares batches that a device finishes with those of the loader's threads.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "data/load/loader.h"
#include "kernels/base/bf16.h"
#include "kernels/ops/images.h"
#include "tests/kernels/test_device.h"

namespace deeper {
namespace {

using testing::DeviceArray;
using testing::TestDevice;

// Images of many sizes and shapes, one channel or three.
class OddImages final : public Dataset {
 public:
  explicit OddImages(int channels, int side) : side_(side) {
    info_.samples = 23;
    info_.channels = channels;
    info_.classes = {"a", "b"};
    for (int c = 0; c < channels; ++c) {
      info_.stats.mean.push_back(0.4f + 0.1f * static_cast<float>(c));
      info_.stats.stddev.push_back(0.2f + 0.05f * static_cast<float>(c));
    }
  }
  const DatasetInfo& info() const override { return info_; }
  int32_t label(int64_t index) const override { return static_cast<int32_t>(index % 2); }
  std::string Describe(int64_t index) const override { return std::to_string(index); }
  absl::Status Read(int64_t index, Image* image) const override {
    const int i = static_cast<int>(index);
    *image = {side_ / 2 + i, side_ / 2 + (7 * i) % 31, info_.channels, {}};
    const int count = image->height * image->width * image->channels;
    for (int p = 0; p < count; ++p)
      image->pixels.push_back(static_cast<uint8_t>((p * 37 + p / 5 + 11 * i) % 256));
    return absl::OkStatus();
  }

 private:
  int side_;
  DatasetInfo info_;
};

LoaderOptions Options(Augment augment) {
  LoaderOptions options;
  options.image_size = 24;
  options.augment = augment;
  options.global_batch = options.rows = 9;  // the last batch of 23 samples is padded
  options.epochs = 1;
  return options;
}

template <class T>
std::vector<float> Finish(const Batch& batch, const TensorDesc& desc) {
  Device& device = TestDevice();
  std::vector<std::byte> used(batch.packed_bytes, std::byte{0xA5});
  for (const auto& [begin, end] : UsedParts(batch))
    std::copy(batch.packed + begin, batch.packed + end, used.data() + begin);
  const DeviceArray<std::byte> packed(used, device);
  const DeviceArray<T> images(std::vector<T>(static_cast<size_t>(desc.stored_elements()), FromFloat<T>(-99)),
                              device);
  SampleImages(device, packed.data(), batch.scales, desc, images.data());
  const std::vector<T> stored = images.Read();
  std::vector<float> values;
  for (int64_t n = 0; n < desc.shape.n; ++n) {
    for (int64_t c = 0; c < desc.block; ++c) {
      for (int64_t p = 0; p < desc.shape.spatial(); ++p) {
        const float value =
            ToFloat(stored[static_cast<size_t>((n * desc.shape.spatial() + p) * desc.block + c)]);
        if (c < desc.shape.c) {
          values.push_back(value);
        } else {
          EXPECT_EQ(value, 0) << "padding channel";
        }
      }
    }
  }
  return values;
}

void Compare(const Dataset& dataset, LoaderOptions options, DType dtype, double tolerance) {
  auto plain = *MakeLoader(dataset, options);
  options.packed = true;
  auto packed = *MakeLoader(dataset, options);
  const Shape shape = {options.rows, options.channels, options.image_size, options.image_size};
  const TensorDesc desc = TestDevice().Images(shape, dtype);
  for (int i = 0; i < 3; ++i) {
    const Batch expected = *plain->Next(), batch = *packed->Next();
    ASSERT_EQ(batch.images, nullptr);
    ASSERT_LE(batch.packed_bytes, PackedBatchBytes(dataset.info(), options));
    EXPECT_EQ(batch.rows, expected.rows);
    EXPECT_TRUE(std::equal(batch.labels, batch.labels + options.rows, expected.labels));
    EXPECT_TRUE(std::equal(batch.samples, batch.samples + options.rows, expected.samples));
    EXPECT_TRUE(
        std::equal(batch.partner_labels, batch.partner_labels + options.rows, expected.partner_labels));
    EXPECT_TRUE(
        std::equal(batch.partner_weights, batch.partner_weights + options.rows, expected.partner_weights));
    const std::vector<float> actual =
        dtype == DType::kBf16 ? Finish<bf16>(batch, desc) : Finish<float>(batch, desc);
    int reported = 0;
    for (size_t j = 0; j < actual.size() && reported < 5; ++j) {
      if (std::abs(actual[j] - expected.images[j]) <= tolerance * (1 + std::abs(expected.images[j])))
        continue;
      ADD_FAILURE() << "batch " << i << ", element " << j << ": " << actual[j] << ", not "
                    << expected.images[j];
      ++reported;
    }
  }
}

class DeviceImages : public ::testing::TestWithParam<DType> {
 protected:
  void SetUp() override {
    if (TestDevice().type() == DeviceType::kCpu)
      GTEST_SKIP() << "the CPU's loader finishes its batches itself";
  }
  double tolerance() const { return GetParam() == DType::kF32 ? 2e-5 : 5e-3; }
};

TEST_P(DeviceImages, SameAsTheLoaders) {
  for (const Augment augment : {Augment::kNone, Augment::kFlip, Augment::kCrop, Augment::kInception,
                                Augment::kTorchvision, Augment::kBvlc}) {
    SCOPED_TRACE(static_cast<int>(augment));
    Compare(OddImages(3, 40), Options(augment), GetParam(), tolerance());
    Compare(OddImages(3, 16), Options(augment), GetParam(), tolerance());  // smaller than the network's input
    Compare(OddImages(1, 30), Options(augment), GetParam(), tolerance());  // grey, repeated
  }
}

// Most images are smaller than the space for the largest.
TEST_P(DeviceImages, NeedOnlyTheBytesInUse) {
  const OddImages dataset(3, 16);
  LoaderOptions options = Options(Augment::kNone);
  options.packed = true;
  const auto loader = *MakeLoader(dataset, options);
  const Batch batch = *loader->Next();
  size_t used = 0;
  for (const auto& [begin, end] : UsedParts(batch)) used += end - begin;
  EXPECT_LT(used, batch.packed_bytes);
}

// Batches split pairs: partners come from before the first row and after the last.
TEST_P(DeviceImages, DistortedAndMixedAsTheLoaders) {
  for (const auto& [mixup, cutmix] : {std::pair{0.8, 0.0}, {0.0, 1.0}, {0.4, 1.0}}) {
    LoaderOptions options = Options(Augment::kInception);
    options.color_jitter = 0.5;
    options.random_erasing = 0.5;
    options.mixup = mixup;
    options.cutmix = cutmix;
    options.global_batch = 7;
    options.rows = 4;
    Compare(OddImages(3, 40), options, GetParam(), tolerance());
    Compare(OddImages(1, 30), options, GetParam(), tolerance());
    options.bgr = true;
    options.pca_noise = 0.5;
    Compare(OddImages(3, 40), options, GetParam(), tolerance());
    options.trivial_augment = true;
    Compare(OddImages(3, 40), options, GetParam(), tolerance());
  }
}

TEST_P(DeviceImages, LargeOnesAreRoundedOnTheWay) {
  const double half_a_step = 0.5 / 255 / 0.2;
  for (const Augment augment : {Augment::kNone, Augment::kInception})
    Compare(OddImages(3, 150), Options(augment), GetParam(), half_a_step + tolerance());
}

TEST_P(DeviceImages, NormalisedOnesArePlaced) {
  const OddImages dataset(3, 40);
  auto loader = *MakeLoader(dataset, Options(Augment::kNone));
  const Batch batch = *loader->Next();
  const TensorDesc desc = TestDevice().Images({9, 3, 24, 24}, DType::kF32);
  const std::vector<float> values(batch.images, batch.images + desc.shape.elements());
  const DeviceArray<float> normalised(values, TestDevice());
  const DeviceArray<float> images(static_cast<size_t>(desc.stored_elements()), TestDevice());
  PlaceImages(TestDevice(), normalised.data(), desc, images.data());
  const std::vector<float> stored = images.Read();
  for (int64_t i = 0; i < desc.shape.elements(); ++i) {
    const int64_t pixel = i % (24 * 24), c = i / (24 * 24) % 3, n = i / (3 * 24 * 24);
    ASSERT_EQ(stored[static_cast<size_t>((n * 24 * 24 + pixel) * desc.block + c)],
              values[static_cast<size_t>(i)]);
  }
}

INSTANTIATE_TEST_SUITE_P(, DeviceImages, ::testing::Values(DType::kF32, DType::kBf16),
                         [](const auto& test) { return NameOf(test.param); });

}  // namespace
}  // namespace deeper
