#include "trainer/models/model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>

namespace deeper {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsSupersetOf;

Model Make(const std::string& name, const ModelOptions& options = {}) {
  absl::StatusOr<Model> model = MakeModel(name, options);
  EXPECT_TRUE(model.ok()) << model.status();
  return *std::move(model);
}

std::string ErrorOf(const std::string& name, const ModelOptions& options) {
  const absl::Status status = MakeModel(name, options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  return std::string(status.message());
}

// Full parameter name -> elements.
std::map<std::string, int64_t> Parameters(const Model& model) {
  const auto shapes = *InferShapes(model, 1);
  std::map<std::string, int64_t> parameters;
  for (size_t i = 0; i < shapes.size(); ++i) {
    for (const ParamSpec& spec : shapes[i].op.params) {
      const auto [_, is_new] = parameters.emplace(model.nodes[i].name + "." + spec.name, spec.elements());
      EXPECT_TRUE(is_new) << model.nodes[i].name << "." << spec.name;
    }
  }
  return parameters;
}

int64_t CountTrained(const Model& model) {
  int64_t count = 0;
  const auto shapes = *InferShapes(model, 1);
  for (const NodeShape& shape : shapes) {
    for (const ParamSpec& spec : shape.op.params) count += IsStatistic(spec.role) ? 0 : spec.elements();
  }
  return count;
}

size_t IndexOf(const Model& model, const std::string& node) {
  const auto found =
      std::find_if(model.nodes.begin(), model.nodes.end(), [&](const Node& n) { return n.name == node; });
  EXPECT_NE(found, model.nodes.end()) << node;
  return static_cast<size_t>(found - model.nodes.begin());
}

bool HasNode(const Model& model, const std::string& node) {
  return std::any_of(model.nodes.begin(), model.nodes.end(), [&](const Node& n) { return n.name == node; });
}

Shape OutputOf(const Model& model, const std::string& node) {
  return (*InferShapes(model, 2))[IndexOf(model, node)].op.y;
}

TEST(Models, HaveAsManyParametersAsPublished) {
  const ModelOptions inference = {.aux = false};
  EXPECT_EQ(CountTrained(Make("googlenet", inference)), 6'998'552);
  EXPECT_EQ(CountTrained(Make("googlenet-torchvision", inference)), 6'624'904);
  EXPECT_EQ(CountTrained(Make("googlenet-torchvision")), 13'004'888);
  EXPECT_EQ(CountTrained(Make("googlenet-bvlc", inference)), 6'998'552);
  EXPECT_EQ(CountTrained(Make("alexnet")), 61'100'840);
  EXPECT_EQ(CountTrained(Make("vgg16")), 138'357'544);
  EXPECT_EQ(CountTrained(Make("nin")), 7'595'176);
  EXPECT_EQ(CountTrained(Make("nin-cifar", {.num_classes = 10})), 966'986);
}

TEST(Models, BatchNormReplacesEachBiasByScaleAndShift) {
  for (const std::string name : {"googlenet", "nin", "nin-cifar"}) {
    const Model plain = Make(name), norm = Make(name + "-bn");
    int64_t biases = 0;
    for (const auto& [parameter, elements] : Parameters(plain)) {
      if (parameter.ends_with(".conv.bias")) biases += elements;
    }
    EXPECT_GT(biases, 0);
    EXPECT_EQ(CountTrained(norm), CountTrained(plain) + biases) << name;
  }
}

TEST(Models, GoogLeNetHasTheShapesOfThePaper) {
  const Model model = Make("googlenet");
  EXPECT_EQ(OutputOf(model, "conv1"), (Shape{2, 64, 112, 112}));
  EXPECT_EQ(OutputOf(model, "maxpool1"), (Shape{2, 64, 56, 56}));
  EXPECT_EQ(OutputOf(model, "conv3"), (Shape{2, 192, 56, 56}));
  EXPECT_EQ(OutputOf(model, "inception3a"), (Shape{2, 256, 28, 28}));
  EXPECT_EQ(OutputOf(model, "inception3b"), (Shape{2, 480, 28, 28}));
  EXPECT_EQ(OutputOf(model, "inception4e"), (Shape{2, 832, 14, 14}));
  EXPECT_EQ(OutputOf(model, "aux1.pool"), (Shape{2, 512, 4, 4}));
  EXPECT_EQ(OutputOf(model, "aux2.pool"), (Shape{2, 528, 4, 4}));
  EXPECT_EQ(OutputOf(model, "inception5b"), (Shape{2, 1024, 7, 7}));
  EXPECT_EQ(OutputOf(model, "fc"), (Shape{2, 1000}));
}

TEST(Models, TorchvisionsVariantHasTheSameMapsWithPoolsThatRoundUp) {
  const Model model = Make("googlenet-torchvision");
  EXPECT_EQ(OutputOf(model, "maxpool1"), (Shape{2, 64, 56, 56}));
  EXPECT_EQ(OutputOf(model, "maxpool2"), (Shape{2, 192, 28, 28}));
  EXPECT_EQ(OutputOf(model, "inception5b"), (Shape{2, 1024, 7, 7}));
  const auto parameters = Parameters(model);
  EXPECT_EQ(parameters.at("inception3a.branch3.1.conv.weight"), 32 * 16 * 3 * 3);
  EXPECT_EQ(parameters.at("aux1.fc1.weight"), 1024 * 2048);
}

TEST(Models, NameParametersAsTorchvisionDoes) {
  std::vector<std::string> names;
  for (const auto& [name, _] : Parameters(Make("googlenet-torchvision"))) names.push_back(name);
  EXPECT_THAT(names,
              IsSupersetOf({"conv1.conv.weight", "conv1.bn.weight", "conv1.bn.bias", "conv1.bn.running_mean",
                            "conv1.bn.running_var", "inception3a.branch1.conv.weight",
                            "inception3a.branch2.0.conv.weight", "inception3a.branch2.1.bn.running_var",
                            "inception5b.branch3.1.conv.weight", "inception5b.branch4.1.conv.weight",
                            "aux1.conv.conv.weight", "aux1.conv.bn.bias", "aux1.fc1.weight", "aux1.fc1.bias",
                            "aux2.fc2.weight", "fc.weight", "fc.bias"}));
  EXPECT_EQ(names.size(), 59 * 5 + 5 * 2);  // BasicConv2d's five tensors, two of each linear layer
}

TEST(Models, AuxHeadsReadInception4aAnd4d) {
  const Model model = Make("googlenet", {.aux_weight = 0.25f});
  ASSERT_EQ(model.heads.size(), 3);
  EXPECT_EQ(model.heads[0].name, "main");
  EXPECT_EQ(model.heads[0].weight, 1.0f);
  for (const auto& [head, aux, module] :
       {std::tuple{1, "aux1", "inception4a"}, std::tuple{2, "aux2", "inception4d"}}) {
    EXPECT_EQ(model.heads[head].name, aux);
    EXPECT_EQ(model.heads[head].weight, 0.25f);
    EXPECT_EQ(model.nodes[model.heads[head].logits].name, std::string(aux) + ".fc2");
    const Node& pool = model.nodes[IndexOf(model, std::string(aux) + ".pool")];
    EXPECT_EQ(model.nodes[static_cast<size_t>(pool.input)].name, module);
  }
  const Model inference = Make("googlenet", {.aux = false});
  EXPECT_EQ(inference.heads.size(), 1);
  EXPECT_FALSE(HasNode(inference, "aux1.pool"));
}

TEST(Models, AuxPoolIsCutToASmallMap) {
  const Model model = Make("googlenet", {.image_size = 48});
  EXPECT_EQ(OutputOf(model, "inception4a"), (Shape{2, 512, 3, 3}));
  EXPECT_EQ(OutputOf(model, "aux1.pool"), (Shape{2, 512, 1, 1}));
}

TEST(Models, DropoutIsAnOption) {
  for (const std::string& name : ModelNames()) {
    const auto count = [&](bool dropout) {
      const Model model = Make(name, {.dropout = dropout});
      return std::count_if(model.nodes.begin(), model.nodes.end(),
                           [](const Node& n) { return std::holds_alternative<DropoutParams>(n.op); });
    };
    EXPECT_GE(count(true), 1) << name;
    EXPECT_EQ(count(false), 0) << name;
  }
}

TEST(Models, DropoutRateLeavesAuxiliaryHeadsAlone) {
  const auto rates = [](const ModelOptions& options) {
    const Model model = Make("googlenet", options);
    std::map<std::string, float> found;
    for (const Node& node : model.nodes)
      if (const auto* dropout = std::get_if<DropoutParams>(&node.op)) found[node.name] = dropout->p;
    return found;
  };
  using Rates = std::map<std::string, float>;
  EXPECT_EQ(rates({}), (Rates{{"aux1.dropout", 0.7f}, {"aux2.dropout", 0.7f}, {"dropout", 0.4f}}));
  EXPECT_EQ(rates({.dropout_rate = 0.2f}),
            (Rates{{"aux1.dropout", 0.7f}, {"aux2.dropout", 0.7f}, {"dropout", 0.2f}}));
  EXPECT_EQ(rates({.dropout_rate = 0}).at("dropout"), 0);
}

TEST(Models, PoolsMaskTheReluThatTheyAloneRead) {
  const auto masked = [](const std::string& name) {
    const Model model = Make(name);
    std::vector<std::string> producers;
    for (const Node& node : model.nodes) {
      const auto* pool = std::get_if<PoolParams>(&node.op);
      if (pool == nullptr || !pool->mask_dx) continue;
      EXPECT_EQ(pool->kind, PoolParams::Kind::kMax);
      const Node& producer = model.nodes[static_cast<size_t>(node.input)];
      const auto* conv = std::get_if<Conv2dParams>(&producer.op);
      EXPECT_TRUE(conv ? conv->dy_is_masked : std::get<InceptionParams>(producer.op).dy_is_masked)
          << producer.name;
      producers.push_back(producer.name);
    }
    const auto flagged = std::count_if(model.nodes.begin(), model.nodes.end(), [](const Node& n) {
      const auto* conv = std::get_if<Conv2dParams>(&n.op);
      const auto* module = std::get_if<InceptionParams>(&n.op);
      return (conv && conv->dy_is_masked) || (module && module->dy_is_masked);
    });
    EXPECT_EQ(static_cast<size_t>(flagged), producers.size()) << name;
    return producers;
  };
  EXPECT_THAT(masked("googlenet"), ElementsAre("conv1", "conv3", "inception3b", "inception4e"));
  EXPECT_THAT(masked("googlenet-naive"), ElementsAre("conv1", "conv3"));  // its modules end in a pool, too
  EXPECT_THAT(masked("nin-cifar"), ElementsAre("mlpconv1.2"));            // pool2 is an average
  EXPECT_THAT(masked("alexnet"), ElementsAre("conv5"));                   // norm1 and norm2 are in between
}

TEST(Models, SmallStemKeepsTheMapsOfSmallImagesLarge) {
  const Model model = Make("googlenet", {.stem = Stem::kSmall});
  EXPECT_EQ(model.image_size, 32);
  EXPECT_FALSE(HasNode(model, "maxpool1"));
  EXPECT_EQ(OutputOf(model, "conv1"), (Shape{2, 64, 32, 32}));
  EXPECT_EQ(OutputOf(model, "inception3a"), (Shape{2, 256, 16, 16}));
  EXPECT_EQ(OutputOf(model, "aux1.pool"), (Shape{2, 512, 2, 2}));
  EXPECT_EQ(OutputOf(model, "inception5b"), (Shape{2, 1024, 4, 4}));
  EXPECT_THAT(ErrorOf("vgg16", {.stem = Stem::kSmall}), HasSubstr("vgg16 has one stem"));
}

TEST(Models, MediumStemOmitsThePool) {
  const Model model = Make("googlenet-bn", {.image_size = 28, .stem = Stem::kMedium});
  EXPECT_FALSE(HasNode(model, "maxpool1"));
  EXPECT_EQ(OutputOf(model, "conv1"), (Shape{2, 64, 14, 14}));
  EXPECT_EQ(OutputOf(model, "inception3a"), (Shape{2, 256, 7, 7}));
  EXPECT_EQ(OutputOf(model, "inception5b"), (Shape{2, 1024, 2, 2}));
  EXPECT_THAT(ErrorOf("nin", {.stem = Stem::kMedium}), HasSubstr("nin has one stem"));
}

TEST(Models, BlurPoolsHaveTheShapesOfPools) {
  for (const char* name : {"googlenet", "googlenet-naive", "googlenet-bn"}) {
    for (const Stem stem : {Stem::kDefault, Stem::kMedium, Stem::kSmall}) {
      for (const int64_t size : {28, 31, 32, 64, 224}) {
        const Model plain = Make(name, {.image_size = size, .stem = stem});
        const Model blurred = Make(name, {.image_size = size, .stem = stem, .blur_pool = true});
        EXPECT_EQ(HasNode(blurred, "maxpool1.blur2"), stem == Stem::kDefault);
        for (const auto& [pool, before] : std::map<std::string, std::string>{
                 {"maxpool2", "conv3"}, {"maxpool3", "inception3b"}, {"maxpool4", "inception4e"}}) {
          EXPECT_EQ(OutputOf(blurred, pool + ".blur2"), OutputOf(plain, pool)) << size;
          EXPECT_EQ(OutputOf(blurred, pool).h, OutputOf(plain, before).h);
        }
        EXPECT_EQ(Parameters(blurred), Parameters(plain));
      }
    }
  }
  for (const char* name : {"googlenet-torchvision", "googlenet-bvlc", "nin", "vgg16"})
    EXPECT_THAT(ErrorOf(name, {.blur_pool = true}), HasSubstr("has no --blur_pool: use googlenet"));
}

TEST(Models, TakeAnySizeOfImagesThatFits) {
  for (const auto& [name, smallest] : std::map<std::string, int64_t>{{"googlenet", 1},
                                                                     {"googlenet-torchvision", 31},
                                                                     {"googlenet-bvlc", 47},
                                                                     {"nin", 67},
                                                                     {"nin-bn", 67},
                                                                     {"nin-cifar", 7},
                                                                     {"alexnet", 63},
                                                                     {"vgg16", 32}}) {
    EXPECT_EQ(Make(name, {.image_size = smallest}).image_size, smallest);
    if (smallest == 1) continue;
    EXPECT_THAT(
        ErrorOf(name, {.image_size = smallest - 1}),
        AllOf(HasSubstr(name + " on images of " + std::to_string(smallest - 1) + " px, layer "),
              HasSubstr("pool"),
              HasSubstr("the smallest --image_size for " + name + " is " + std::to_string(smallest))));
  }
}

TEST(Models, RejectWhatMakesNoNetwork) {
  EXPECT_THAT(ErrorOf("googlenet-v3", {}),
              AllOf(HasSubstr("\"googlenet-v3\""), HasSubstr("googlenet-bn"), HasSubstr("vgg16")));
  EXPECT_THAT(ErrorOf("nin", {.num_classes = 0}), HasSubstr("--num_classes 0"));
  EXPECT_THAT(ErrorOf("nin", {.channels = 0}), HasSubstr("0 channels"));
  EXPECT_THAT(ErrorOf("nin", {.image_size = -1}), HasSubstr("--image_size -1"));
}

TEST(Models, ReadGreyImagesToo) {
  EXPECT_EQ(Parameters(Make("googlenet", {.channels = 1})).at("conv1.conv.weight"), 64 * 7 * 7);
}

}  // namespace
}  // namespace deeper
