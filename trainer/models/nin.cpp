// Lin, Chen, Yan, "Network In Network" (ICLR 2014): the authors' networks for ImageNet and CIFAR-10. Here the
// pools round the size of a map down, and those of Caffe, which the authors used, round it up.
#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "trainer/models/architectures.h"

namespace deeper {
namespace {

struct MlpConv {
  int64_t kernel, stride, pad;
  int64_t channels[3];
};

// A convolution, then a two-layer perceptron over the channels of each position: two 1x1 convolutions.
// The -bn models have batch normalisation before every ReLU.
void AddMlpConv(NodeChain& chain, const Model& model, const std::string& name, const MlpConv& m) {
  const bool batch_norm = model.name.ends_with("-bn");
  chain.Add(absl::StrCat(name, ".0"), Conv2dParams{.out_channels = m.channels[0],
                                                   .kernel = m.kernel,
                                                   .stride = m.stride,
                                                   .pad = m.pad,
                                                   .batch_norm = batch_norm});
  for (const int i : {1, 2})
    chain.Add(absl::StrCat(name, ".", i),
              Conv2dParams{.out_channels = m.channels[i], .batch_norm = batch_norm});
}

}  // namespace

void BuildNin(const ModelOptions& options, Model& model) {
  NodeChain chain(model, options);
  AddMlpConv(chain, model, "mlpconv1", {11, 4, 0, {96, 96, 96}});
  chain.Add("pool1", PoolParams{});
  AddMlpConv(chain, model, "mlpconv2", {5, 1, 2, {256, 256, 256}});
  chain.Add("pool2", PoolParams{});
  AddMlpConv(chain, model, "mlpconv3", {3, 1, 1, {384, 384, 384}});
  chain.Add("pool3", PoolParams{});
  chain.AddDropout("dropout", 0.5f);
  AddMlpConv(chain, model, "mlpconv4", {3, 1, 1, {1024, 1024, model.num_classes}});
  chain.Add("avgpool", GlobalAvgPoolParams{});
  chain.AddHead("main");
}

void BuildNinCifar(const ModelOptions& options, Model& model) {
  NodeChain chain(model, options);
  AddMlpConv(chain, model, "mlpconv1", {5, 1, 2, {192, 160, 96}});
  chain.Add("pool1", PoolParams{});
  chain.AddDropout("dropout1", 0.5f);
  AddMlpConv(chain, model, "mlpconv2", {5, 1, 2, {192, 192, 192}});
  chain.Add("pool2", PoolParams{.kind = PoolParams::Kind::kAverage});
  chain.AddDropout("dropout2", 0.5f);
  AddMlpConv(chain, model, "mlpconv3", {3, 1, 1, {192, 192, model.num_classes}});
  chain.Add("avgpool", GlobalAvgPoolParams{});
  chain.AddHead("main");
}

}  // namespace deeper
