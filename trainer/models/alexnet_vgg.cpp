// The networks GoogLeNet is compared with. Layers are named as in the papers' tables.
#include "absl/strings/str_cat.h"
#include "trainer/models/architectures.h"

namespace deeper {
namespace {

void AddConv(NodeChain& chain, const std::string& name, int64_t out_channels, int64_t kernel,
             int64_t stride = 1) {
  // conv1's padding of 2 makes 224 px give the 55 x 55 map of the paper.
  const int64_t pad = kernel == 11 ? 2 : kernel / 2;
  chain.Add(name, Conv2dParams{.out_channels = out_channels, .kernel = kernel, .stride = stride, .pad = pad});
}

}  // namespace

// Krizhevsky, Sutskever, Hinton 2012, with the widths of the single-tower network of Krizhevsky, "One weird
// trick for parallelizing convolutional neural networks" (2014).
void BuildAlexNet(const ModelOptions& options, Model& model) {
  // The paper's k = 2, alpha = 1e-4, beta = 0.75; LrnParams::alpha is divided by the window's size.
  const LrnParams lrn = {.size = 5, .alpha = 5e-4f, .beta = 0.75f, .k = 2.0f};
  NodeChain chain(model, options);
  AddConv(chain, "conv1", 64, 11, 4);
  chain.Add("norm1", lrn);
  chain.Add("pool1", PoolParams{});
  AddConv(chain, "conv2", 192, 5);
  chain.Add("norm2", lrn);
  chain.Add("pool2", PoolParams{});
  AddConv(chain, "conv3", 384, 3);
  AddConv(chain, "conv4", 256, 3);
  AddConv(chain, "conv5", 256, 3);
  chain.Add("pool5", PoolParams{});
  chain.Add("flatten", FlattenParams{});
  chain.AddDropout("drop6", 0.5f);
  chain.Add("fc6", LinearParams{.out_features = 4096, .relu = true});
  chain.AddDropout("drop7", 0.5f);
  chain.Add("fc7", LinearParams{.out_features = 4096, .relu = true});
  chain.Add("fc8", LinearParams{.out_features = model.num_classes});
  chain.AddHead("main");
}

// Simonyan and Zisserman, "Very Deep Convolutional Networks" (ICLR 2015), configuration D.
void BuildVgg16(const ModelOptions& options, Model& model) {
  struct Stage {
    int convolutions;
    int64_t channels;
  };
  constexpr Stage kStages[] = {{2, 64}, {2, 128}, {3, 256}, {3, 512}, {3, 512}};
  NodeChain chain(model, options);
  int stage = 0;
  for (const Stage& s : kStages) {
    ++stage;
    for (int i = 1; i <= s.convolutions; ++i)
      AddConv(chain, absl::StrCat("conv", stage, "_", i), s.channels, 3);
    chain.Add(absl::StrCat("pool", stage), PoolParams{.kernel = 2});
  }
  chain.Add("flatten", FlattenParams{});
  for (const char* layer : {"6", "7"}) {
    chain.Add(absl::StrCat("fc", layer), LinearParams{.out_features = 4096, .relu = true});
    chain.AddDropout(absl::StrCat("drop", layer), 0.5f);
  }
  chain.Add("fc8", LinearParams{.out_features = model.num_classes});
  chain.AddHead("main");
}

}  // namespace deeper
