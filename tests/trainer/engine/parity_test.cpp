// Whole networks against PyTorch: tests/parity/torch_reference.py computes the same step on the same weights
// and images. Losses, logits, gradients and new BN statistics agree within a fraction of a tensor's norm.
#include <gtest/gtest.h>
#include <hdf5.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "kernels/base/rng.h"
#include "nlohmann/json.hpp"
#include "tests/data_directory.h"
#include "tests/kernels/test_device.h"
#include "trainer/engine/network.h"
#include "trainer/engine/params.h"
#include "trainer/models/model.h"

namespace deeper {
namespace {

using Json = nlohmann::json;
using Values = std::vector<float>;

constexpr uint64_t kSeed = 1;

float Symmetric(uint32_t bits) {
  return 2 * UnitFloat(bits) - 1;
}

Values Draw(const std::string& name, int64_t count, uint64_t seed = kSeed) {
  Rng rng(seed, RandomStream(name), 0, 0);
  Values values(static_cast<size_t>(count));
  for (float& v : values) v = Symmetric(rng.Next());
  return values;
}

Values InitialValue(const Param& param) {
  Values values = Draw(param.name, param.spec.elements());
  const auto bound = static_cast<float>(std::sqrt(6.0 / static_cast<double>(param.spec.fan_in())));
  const ParamRole role = param.spec.role;
  for (float& v : values) {
    if (role == ParamRole::kWeight) {
      v *= bound;
    } else if (role == ParamRole::kScale || role == ParamRole::kRunningVar) {
      v = 1 + v / 2;
    } else {
      v /= 8;
    }
  }
  return values;
}

// The step's images, of unit variance, and labels.
struct Sample {
  explicit Sample(const Json& expected)
      : rows(expected["batch"]),
        images(Draw("images", rows * 3 * Size(expected) * Size(expected), expected["image_seed"])) {
    for (float& v : images) v *= static_cast<float>(std::sqrt(3.0));
    const Rng rng(kSeed, RandomStream("labels"), 0, 0);
    for (int64_t i = 0; i < rows; ++i) {
      labels.push_back(static_cast<int32_t>(rng.Block(static_cast<uint32_t>(i)).v[0] %
                                            expected["classes"].get<uint32_t>()));
      samples.push_back(static_cast<uint64_t>(i));
    }
  }
  static int64_t Size(const Json& expected) { return expected["image_size"]; }

  Batch batch() const {
    Batch b;
    b.images = images.data();
    b.labels = b.partner_labels = labels.data();
    b.partner_weights = unmixed.data();
    b.samples = samples.data();
    b.rows = b.global_rows = rows;
    return b;
  }

  int64_t rows;
  Values images;
  std::vector<int32_t> labels;
  std::vector<uint64_t> samples;
  std::vector<float> unmixed = std::vector<float>(static_cast<size_t>(rows));
};

Stem StemOf(const std::string& name) {
  return name == "small" ? Stem::kSmall : name == "medium" ? Stem::kMedium : Stem::kDefault;
}

// The network of `expected` after one forward and backward pass.
struct Step {
  explicit Step(const Json& expected) {
    const ModelOptions options = {.num_classes = expected["classes"],
                                  .image_size = expected["image_size"],
                                  .stem = StemOf(expected["stem"]),
                                  .aux = expected["aux"],
                                  .dropout = false,
                                  .blur_pool = expected["blur_pool"]};
    const Sample sample(expected);
    network = *Network::Prepare(*MakeModel(expected["model"].get<std::string>(), options),
                                {.rows = sample.rows}, *device);
    params = *ParamStore::Create(network->Params(), *device, /*training=*/true);
    for (const Param& param : params->trained())
      params->Write(param, InitialValue(param).data(), params->values());
    for (const Param& param : params->statistics()) {
      params->Write(param, InitialValue(param).data(), params->statistic_values());
    }
    EXPECT_TRUE(network->Bind(*params).ok());
    network->Load(sample.batch(), kSeed);
    network->Forward();
    device->Synchronize();
    logits.resize(static_cast<size_t>(sample.rows * options.num_classes));
    network->ReadLogits(logits.data());
    network->Backward([](size_t) {});
    device->Synchronize();
  }

  // Gradients and new BN statistics, in canonical form.
  std::map<std::string, Values> Tensors() const {
    std::map<std::string, Values> tensors;
    const auto read = [&](const std::vector<Param>& table, const float* arena) {
      for (const Param& param : table) {
        Values& values = tensors[param.name];
        values.resize(static_cast<size_t>(param.spec.elements()));
        params->Read(param, arena, values.data());
      }
    };
    read(params->trained(), params->grads());
    read(params->statistics(), params->statistic_values());
    return tensors;
  }

  Device* device = &testing::TestDevice();
  std::unique_ptr<ParamStore> params;
  std::unique_ptr<Network> network;
  Values logits;
};

double Norm(const Values& values) {
  double squares = 0;
  for (const double v : values) squares += v * v;
  return std::sqrt(squares);
}

// |actual - expected|, estimated from products with random vectors of variance 1/3: the mean square of a
// product is a third of the square of the norm.
double EstimateError(const std::string& name, const Values& actual, const std::vector<double>& fingerprint) {
  const Rng rng(kSeed, RandomStream(name + "/projection"), 0, 0);
  double products[4] = {};
  for (size_t i = 0; i < actual.size(); ++i) {
    const Random4 words = rng.Block(static_cast<uint32_t>(i));
    for (int j = 0; j < 4; ++j) products[j] += double{actual[i]} * double{Symmetric(words.v[j])};
  }
  double squares = 0;
  for (size_t j = 0; j < 4; ++j) squares += std::pow(products[j] - fingerprint[j + 1], 2);
  return std::sqrt(3 * squares / 4);
}

double ToleranceOf(const std::string& tensor, const Json& expected) {
  return expected[tensor.find(".running_") == std::string::npos ? "gradient_tolerance" : "tolerance"];
}

double Distance(const Values& actual, const Values& expected) {
  double squares = 0;
  for (size_t i = 0; i < actual.size(); ++i) squares += std::pow(double{actual[i]} - double{expected[i]}, 2);
  return std::sqrt(squares);
}

Values ReadDataset(hid_t file, const std::string& name, size_t elements) {
  Values values(elements);
  const hid_t dataset = H5Dopen2(file, name.c_str(), H5P_DEFAULT);
  const hid_t space = H5Dget_space(dataset);
  EXPECT_EQ(H5Sget_simple_extent_npoints(space), static_cast<hssize_t>(elements)) << name;
  EXPECT_GE(H5Dread(dataset, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), 0) << name;
  H5Sclose(space);
  H5Dclose(dataset);
  return values;
}

class Parity : public ::testing::TestWithParam<const char*> {
 protected:
  // Each element of each tensor, against a fresh run of PyTorch (tests/parity/compare_full.sh).
  void CompareInFull(const std::string& directory, const std::map<std::string, Values>& tensors,
                     const Json& expected) {
    const std::string path = directory + "/" + GetParam() + ".h5";
    const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
    ASSERT_GE(file, 0) << path;
    for (const auto& [tensor, actual] : tensors) {
      const Values full = ReadDataset(file, tensor, actual.size());
      EXPECT_LE(Distance(actual, full), ToleranceOf(tensor, expected) * Norm(full)) << tensor;
    }
    H5Fclose(file);
  }
};

TEST_P(Parity, WithPyTorch) {
  const std::string name = GetParam();
  const auto path = testing::DataDirectory(DEEPER_PARITY_DIR, "tests/parity") / (name + ".json");
  std::ifstream in(path);
  const Json expected = Json::parse(in);
  const double tolerance = expected["tolerance"];
  const Step step(expected);

  const auto& heads = step.network->model().heads;
  ASSERT_EQ(expected["losses"].size(), heads.size());
  for (size_t i = 0; i < heads.size(); ++i) {
    const HeadResult& result = step.network->results()[i];
    const double loss = expected["losses"][heads[i].name];
    EXPECT_NEAR(result.loss_sum / static_cast<double>(result.rows), loss, tolerance * loss) << heads[i].name;
  }
  const Values logits = expected["logits"];
  ASSERT_EQ(step.logits.size(), logits.size());
  EXPECT_LE(Distance(step.logits, logits), tolerance * Norm(logits));

  const std::map<std::string, Values> tensors = step.Tensors();
  ASSERT_EQ(expected["tensors"].size(), tensors.size());
  for (const auto& [tensor, actual] : tensors) {
    ASSERT_TRUE(expected["tensors"].contains(tensor)) << tensor;
    const std::vector<double> fingerprint = expected["tensors"][tensor];
    const double allowed = ToleranceOf(tensor, expected) * fingerprint[0];
    EXPECT_NEAR(Norm(actual), fingerprint[0], allowed) << tensor;
    EXPECT_LE(EstimateError(tensor, actual, fingerprint), allowed) << tensor;
  }
  if (const char* directory = std::getenv("DEEPER_PARITY_DIR")) CompareInFull(directory, tensors, expected);
}

INSTANTIATE_TEST_SUITE_P(, Parity,
                         ::testing::Values("googlenet", "googlenet-small-stem", "googlenet-blurred",
                                           "googlenet-bn", "googlenet-torchvision", "nin", "nin-bn",
                                           "nin-cifar", "nin-cifar-bn"),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace deeper
