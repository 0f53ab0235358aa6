#include "trainer/engine/params.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <string>

namespace deeper {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;

Param MakeParam(const std::string& name, std::vector<int64_t> shape, Init init, int64_t block = 1,
                ParamRole role = ParamRole::kWeight) {
  Param param;
  param.name = name;
  param.spec = {name, std::move(shape), role, init};
  param.layout = MakeParamLayout(param.spec, block);
  return param;
}

std::unique_ptr<ParamStore> MakeStore(std::vector<Param> params, bool training = true) {
  static const std::unique_ptr<Device> device = MakeCpuDevice();
  auto store = ParamStore::Create(std::move(params), *device, training, /*narrow=*/false, {{"momentum"}});
  EXPECT_TRUE(store.ok()) << store.status();
  return *std::move(store);
}

std::vector<float> ReadValues(const ParamStore& store, const Param& param, const float* arena) {
  std::vector<float> values(static_cast<size_t>(param.spec.elements()));
  store.Read(param, arena, values.data());
  return values;
}

std::vector<float> Initial(const std::string& name, Init init, uint64_t seed, int64_t block = 1,
                           std::vector<int64_t> shape = {40, 20, 3, 3}) {
  const auto store = MakeStore({MakeParam(name, std::move(shape), init, block)});
  store->Initialize(seed);
  return ReadValues(*store, store->trained()[0], store->values());
}

TEST(ParamStore, KeepsTrainedParametersAndStatisticsApart) {
  const auto store = MakeStore({MakeParam("weight", {5, 3, 1, 1}, Init::kHe),
                                MakeParam("mean", {5}, Init::kZero, 1, ParamRole::kRunningMean),
                                MakeParam("shift", {5}, Init::kZero, 1, ParamRole::kShift),
                                MakeParam("var", {5}, Init::kOne, 1, ParamRole::kRunningVar)});
  ASSERT_EQ(store->trained().size(), 2);
  EXPECT_EQ(store->trained()[0].name, "weight");
  EXPECT_EQ(store->trained()[0].offset, 0);
  EXPECT_EQ(store->trained()[1].name, "shift");
  EXPECT_EQ(store->trained()[1].offset, 16);  // on the next 64-byte boundary
  EXPECT_EQ(store->trained_elements(), 32);
  ASSERT_EQ(store->statistics().size(), 2);
  EXPECT_EQ(store->statistics()[1].name, "var");
  EXPECT_EQ(store->statistics()[1].offset, 16);
  EXPECT_EQ(store->statistics_elements(), 32);

  store->Initialize(1);
  EXPECT_THAT(ReadValues(*store, store->statistics()[1], store->statistic_values()), Each(1.0f));
}

TEST(ParamStore, FindsTheParameterOfAnElement) {
  std::vector<Param> params = {MakeParam("a", {5}, Init::kZero), MakeParam("b", {3}, Init::kZero),
                               MakeParam("c", {4}, Init::kZero)};
  params[0].run = params[1].run = 0;
  params[0].place = 1;  // b comes before a in memory
  const auto store = MakeStore(std::move(params));
  std::string owners;
  for (int64_t i = 0; i < store->trained_elements(); ++i) {
    const Param* const owner = store->TrainedAt(i);
    owners += owner == nullptr ? "-" : owner->name;
  }
  EXPECT_EQ(owners, "bbbaaaaa--------cccc------------");
}

TEST(ParamStore, HasNoGradientsForInference) {
  const auto store = MakeStore({MakeParam("weight", {5, 3}, Init::kHe)}, /*training=*/false);
  EXPECT_NE(store->values(), nullptr);
  EXPECT_EQ(store->grads(), nullptr);
  EXPECT_EQ(store->bytes(), 16 * sizeof(float));
}

TEST(ParamStore, InitialValuesHaveTheVarianceOfTheirRule) {
  const std::vector<int64_t> shape = {64, 32, 3, 3};
  const double fan_in = 32 * 9, fan_out = 64 * 9, count = 64 * fan_in;
  const auto mean = [&](const std::vector<float>& v) {
    return std::accumulate(v.begin(), v.end(), 0.0) / count;
  };
  const auto variance = [&](const std::vector<float>& v) {
    return std::inner_product(v.begin(), v.end(), v.begin(), 0.0) / count;
  };
  const std::vector<float> he = Initial("w", Init::kHe, 1, 1, shape);
  EXPECT_NEAR(mean(he), 0, 3 * std::sqrt(2 / fan_in / count));
  EXPECT_NEAR(variance(he), 2 / fan_in, 0.05 * 2 / fan_in);
  const double within_one_deviation =
      static_cast<double>(std::count_if(he.begin(), he.end(), [&](float v) { return v * v < 2 / fan_in; })) /
      count;
  EXPECT_NEAR(within_one_deviation, 0.6827, 0.01);  // a normal distribution

  const std::vector<float> xavier = Initial("w", Init::kXavier, 1, 1, shape);
  const double bound = std::sqrt(6 / (fan_in + fan_out));
  EXPECT_NEAR(mean(xavier), 0, 3 * bound / std::sqrt(3 * count));
  EXPECT_NEAR(variance(xavier), bound * bound / 3, 0.05 * bound * bound / 3);
  const auto [low, high] = std::minmax_element(xavier.begin(), xavier.end());
  EXPECT_GE(*low, -bound);
  EXPECT_LE(*high, bound);
}

TEST(ParamStore, InitialValuesDependOnSeedAndNameOnly) {
  for (const Init init : {Init::kHe, Init::kXavier}) {
    const std::vector<float> values = Initial("a", init, 7);
    EXPECT_EQ(Initial("a", init, 7, 16), values);  // another layout, with padding on both axes
    EXPECT_NE(Initial("a", init, 8), values);
    EXPECT_NE(Initial("b", init, 7), values);
  }
}

TEST(ParamStore, WritesAndReadsCanonicalValuesAndKeepsPaddingZero) {
  const auto store =
      MakeStore({MakeParam("first", {3}, Init::kZero), MakeParam("w", {9, 5, 2, 2}, Init::kZero, 8),
                 MakeParam("last", {3}, Init::kZero)});
  const Param& param = store->trained()[1];
  std::vector<float> values(9 * 5 * 4);
  std::iota(values.begin(), values.end(), 1.0f);
  store->Write(param, values.data(), store->state(0));
  EXPECT_EQ(ReadValues(*store, param, store->state(0)), values);
  const double stored = std::accumulate(store->state(0), store->state(0) + store->trained_elements(), 0.0);
  EXPECT_EQ(stored, 180 * 181 / 2);  // only the values; the padding and the neighbours are 0
  EXPECT_THAT(ReadValues(*store, param, store->values()), Each(0.0f));
}

TEST(ParamStore, KeepsASliceOfEveryStateArena) {
  const std::vector<Param> params = {MakeParam("w", {25, 4}, Init::kZero), MakeParam("b", {5}, Init::kZero)};
  const auto device = MakeCpuDevice();
  for (int rank = 0; rank < 3; ++rank) {
    const auto store = *ParamStore::Create(params, *device, /*training=*/true, /*narrow=*/false,
                                           {{"m", "v"}, {.index = rank, .count = 3}});
    EXPECT_EQ(store->trained()[1].offset, 112);
    EXPECT_EQ(store->trained_elements(), 144);  // 8 decay groups become 9, for slices of 3
    EXPECT_EQ(store->state_elements(), 48);
    EXPECT_EQ(store->state_first(), 48 * rank);
    EXPECT_EQ(store->bytes(), (2 * 144 + 2 * 48) * sizeof(float));
    EXPECT_FALSE(store->IsSharded(store->values()));
    for (const size_t arena : {0, 1}) {  // of "w", the first slice has 48 elements, the last 4
      EXPECT_TRUE(store->IsSharded(store->state(arena)));
      std::vector<float> values(100);
      std::iota(values.begin(), values.end(), 1000.0f * static_cast<float>(arena));
      store->Write(store->trained()[0], values.data(), store->state(arena));
      for (int64_t i = 0; i < 48; ++i) {
        const int64_t at = 48 * rank + i;
        ASSERT_EQ(store->state(arena)[i], at < 100 ? values[static_cast<size_t>(at)] : 0) << at;
      }
    }
  }
}

TEST(ParamStore, SwapsItsMemoryWithAnEmptyOne) {
  const auto device = MakeCpuDevice();
  const auto store = *ParamStore::Create(
      {MakeParam("w", {25, 4}, Init::kHe), MakeParam("mean", {5}, Init::kOne, 1, ParamRole::kRunningMean)},
      *device, /*training=*/true, /*narrow=*/true);
  store->Initialize(3);
  const auto other = *store->MakeEmpty();
  EXPECT_EQ(other->bytes(), store->bytes());
  const Param &weight = store->trained()[0], &mean = store->statistics()[0];
  const std::vector<float> values = ReadValues(*store, weight, store->values());
  const float* const memory = store->values();
  const void* const narrow = store->narrow_values();
  store->Swap(*other);
  EXPECT_EQ(other->values(), memory);
  EXPECT_EQ(other->narrow_values(), narrow);
  EXPECT_EQ(ReadValues(*other, weight, other->values()), values);
  EXPECT_THAT(ReadValues(*other, mean, other->statistic_values()), Each(1.0f));
  EXPECT_THAT(ReadValues(*store, weight, store->values()), Each(0.0f));
  EXPECT_THAT(ReadValues(*store, mean, store->statistic_values()), Each(0.0f));
}

TEST(ParamStoreDeathTest, IsNotSwappedOnceThereArePointersIntoIt) {
  const auto store = MakeStore({MakeParam("w", {25, 4}, Init::kHe)});
  const auto other = *store->MakeEmpty();
  store->KeepInPlace();
  EXPECT_DEATH(other->Swap(*store), "pointers into these parameters");
}

// A device of a given size.
class SmallDevice final : public Device {
 public:
  explicit SmallDevice(size_t bytes) : available_(bytes) {}
  DeviceType type() const override { return DeviceType::kCpu; }
  std::string Describe() const override { return "small"; }
  int64_t channel_block(DType) const override { return 8; }
  Buffer Allocate(size_t bytes) override {
    if (bytes > available_) return {};
    available_ -= bytes;
    return AllocateHost(bytes);
  }
  size_t AvailableBytes() const override { return available_; }
  Stream stream() const override { return {}; }
  void Synchronize() override {}
  void Copy(void* to, const void* from, size_t bytes) override { std::memcpy(to, from, bytes); }

 private:
  size_t available_;
};

TEST(ParamStore, SaysHowMuchMemoryIsMissing) {
  const std::vector<Param> params = {MakeParam("w", {10, 10}, Init::kZero)};  // 448 bytes per arena
  SmallDevice device(1000);
  const absl::Status status =
      ParamStore::Create(params, device, /*training=*/true, /*narrow=*/false, {{"momentum"}}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("448 more bytes are needed, the device has 104 left"));
  SmallDevice enough(448);
  EXPECT_TRUE(ParamStore::Create(params, enough, /*training=*/false).ok());
}

}  // namespace
}  // namespace deeper
