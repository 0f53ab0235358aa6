// A small parameter store with every role and both layouts, for tests of saving and loading.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels/base/device.h"
#include "kernels/base/rng.h"
#include "trainer/checkpoint/checkpoint_manifest.h"
#include "trainer/engine/params.h"

namespace deeper {

class ExampleParams {
 public:
  struct Options {
    int64_t classes = 10;
    bool aux = true;
    bool training = true;
    StateArenas states = {{"momentum"}};
  };

  ExampleParams() : ExampleParams(Options{}) {}
  explicit ExampleParams(const Options& options) : device_(MakeCpuDevice(1)) {
    std::vector<Param> params;
    const auto add = [&](const std::string& name, std::vector<int64_t> shape, ParamRole role, int64_t block) {
      ParamSpec spec{name, std::move(shape), role, Init::kZero};
      params.push_back({name, spec, MakeParamLayout(spec, block), 0, 0});
    };
    add("conv1.conv.weight", {12, 5, 3, 3}, ParamRole::kWeight, 8);
    add("conv1.bn.weight", {12}, ParamRole::kScale, 1);
    add("conv1.bn.running_mean", {12}, ParamRole::kRunningMean, 1);
    if (options.aux) add("aux1.fc2.weight", {options.classes, 7}, ParamRole::kWeight, 1);
    add("fc.weight", {options.classes, 12}, ParamRole::kWeight, 1);
    add("fc.bias", {options.classes}, ParamRole::kBias, 1);
    store_ =
        *ParamStore::Create(std::move(params), *device_, options.training, /*narrow=*/false, options.states);
    with_optimizer_ = options.training ? WithOptimizer::kYes : WithOptimizer::kNo;
  }

  ParamStore& store() { return *store_; }

  static constexpr uint32_t kFinite = 0xBFFFFFFF;  // without the exponent's highest bit

  // Values of arbitrary bits, NaNs among them, or of those in `mask`.
  void Fill(uint64_t seed, uint32_t mask = 0xFFFFFFFF) {
    Rng rng(seed, RandomStream("example"), 0, 0);
    for (const auto& [entry, param, arena] : StateTensors(*store_, with_optimizer_)) {
      std::vector<float> values(static_cast<size_t>(entry.count));
      for (float& value : values) {
        const uint32_t bits = rng.Next() & mask;
        std::memcpy(&value, &bits, sizeof value);
      }
      store_->Write(*param, values.data(), arena);
    }
  }

  // The whole state, bit for bit.
  std::vector<uint32_t> Bits() const {
    std::vector<uint32_t> all;
    for (const auto& [entry, param, arena] : StateTensors(*store_, with_optimizer_)) {
      const std::vector<uint32_t> bits = BitsOf(*param, arena);
      all.insert(all.end(), bits.begin(), bits.end());
    }
    return all;
  }

  // One weight or statistic.
  std::vector<uint32_t> Bits(const std::string& name) const {
    for (const auto& [entry, param, arena] : StateTensors(*store_, WithOptimizer::kNo)) {
      if (entry.name == name) return BitsOf(*param, arena);
    }
    return {};
  }

 private:
  std::vector<uint32_t> BitsOf(const Param& param, const float* arena) const {
    std::vector<float> values(static_cast<size_t>(param.spec.elements()));
    store_->Read(param, arena, values.data());
    std::vector<uint32_t> bits(values.size());
    std::memcpy(bits.data(), values.data(), values.size() * sizeof(float));
    return bits;
  }

  std::unique_ptr<Device> device_;
  std::unique_ptr<ParamStore> store_;
  WithOptimizer with_optimizer_ = WithOptimizer::kYes;
};

}  // namespace deeper
