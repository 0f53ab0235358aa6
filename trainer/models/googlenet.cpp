// GoogLeNet: Szegedy et al., "Going Deeper with Convolutions" (CVPR 2015), without LRN. googlenet-bvlc is
// that of Caffe (models/bvlc_googlenet of github.com/BVLC/caffe): with LRN, and pools without padding.
#include <string>

#include "trainer/models/architectures.h"

namespace deeper {
namespace {

struct Module {
  const char* name;
  int64_t c1, c2_reduce, c2, c3_reduce, c3, c4;
};

// Table 1 of the paper.
constexpr Module kModules[] = {
    {"inception3a", 64, 96, 128, 16, 32, 32},     {"inception3b", 128, 128, 192, 32, 96, 64},
    {"inception4a", 192, 96, 208, 16, 48, 64},    {"inception4b", 160, 112, 224, 24, 64, 64},
    {"inception4c", 128, 128, 256, 24, 64, 64},   {"inception4d", 112, 144, 288, 32, 64, 64},
    {"inception4e", 256, 160, 320, 32, 128, 128}, {"inception5a", 256, 160, 320, 32, 128, 128},
    {"inception5b", 384, 192, 384, 48, 128, 128},
};

class Builder {
 public:
  Builder(const ModelOptions& options, Model& model)
      : options_(options), model_(model), trunk_(model, options) {}

  void Build() {
    Stem();
    for (const Module& module : kModules) {
      const std::string name = module.name;
      trunk_.Add(name, Inception(module));
      if (name == "inception3b") AddMaxPool("maxpool3");
      if (name == "inception4a") AuxHead("aux1");
      if (name == "inception4d") AuxHead("aux2");
      if (name == "inception4e") AddMaxPool("maxpool4", torchvision() ? 2 : 3);
    }
    trunk_.Add("avgpool", GlobalAvgPoolParams{});
    trunk_.AddDropout("dropout", torchvision() ? 0.2f : 0.4f);
    trunk_.Add("fc", LinearParams{.out_features = model_.num_classes});
    // The main head comes first, whatever the order of the nodes.
    model_.heads.insert(model_.heads.begin(), {"main", trunk_.last(), 1.0f});
  }

 private:
  bool caffe() const { return model_.name == "googlenet-bvlc"; }
  bool torchvision() const { return model_.name == "googlenet-torchvision"; }
  bool batch_norm() const { return model_.name == "googlenet-bn" || torchvision(); }

  void Stem() {
    trunk_.Add("conv1", options_.stem == Stem::kSmall ? Conv(64, 3) : Conv(64, 7, 2));
    if (options_.stem == Stem::kDefault) AddMaxPool("maxpool1");
    if (caffe()) trunk_.Add("norm1", LrnParams{});
    trunk_.Add("conv2", Conv(64, 1));
    trunk_.Add("conv3", Conv(192, 3));
    if (caffe()) trunk_.Add("norm2", LrnParams{});
    AddMaxPool("maxpool2");
  }

  void AuxHead(const std::string& name) {
    if (!options_.aux) return;
    ModelOptions options = options_;
    options.dropout_rate = -1;
    NodeChain branch(model_, options, trunk_.last());
    branch.Add(name + ".pool",
               PoolParams{.kind = PoolParams::Kind::kAverage, .kernel = 5, .stride = 3, .clamp = true});
    branch.Add(name + ".conv", Conv(128, 1));
    branch.Add(name + ".flatten", FlattenParams{});
    branch.Add(name + ".fc1", LinearParams{.out_features = 1024, .relu = true});
    branch.AddDropout(name + ".dropout", 0.7f);
    branch.Add(name + ".fc2", LinearParams{.out_features = model_.num_classes});
    branch.AddHead(name, options_.aux_weight);
  }

  Conv2dParams Conv(int64_t out_channels, int64_t kernel, int64_t stride = 1) const {
    return {.out_channels = out_channels,
            .kernel = kernel,
            .stride = stride,
            .pad = kernel / 2,
            .batch_norm = batch_norm()};
  }

  InceptionParams Inception(const Module& m) const {
    if (model_.name == "googlenet-naive") return {.c1 = m.c1, .c2 = m.c2, .c3 = m.c3};
    return {.c1 = m.c1,
            .c2_reduce = m.c2_reduce,
            .c2 = m.c2,
            .c3_reduce = m.c3_reduce,
            .c3 = m.c3,
            .c4 = m.c4,
            .branch3_kernel = torchvision() ? 3 : 5,
            .batch_norm = batch_norm()};
  }

  void AddMaxPool(const std::string& name, int64_t kernel = 3) {
    PoolParams pool = {.kernel = kernel, .stride = 2, .pad = 1};
    if (torchvision() || caffe()) pool = {.kernel = kernel, .stride = 2, .ceil = true};
    if (options_.blur_pool) pool.stride = 1;
    trunk_.Add(name, pool);
    if (!options_.blur_pool) return;
    // The weights 1 2 1 over 3 pixels, each way, in steps of 2: a mean of 2 pixels of a mean of 2 pixels.
    // Padding does not count, so the pixels at the borders are repeated.
    constexpr auto kMean = PoolParams::Kind::kAverage;
    trunk_.Add(name + ".blur1", PoolParams{.kind = kMean, .kernel = 2, .stride = 1, .pad = 1});
    trunk_.Add(name + ".blur2", PoolParams{.kind = kMean, .kernel = 2, .stride = 2});
  }

  const ModelOptions& options_;
  Model& model_;
  NodeChain trunk_;
};

}  // namespace

// The model's name selects the variant.
void BuildGoogLeNet(const ModelOptions& options, Model& model) {
  Builder(options, model).Build();
}

}  // namespace deeper
