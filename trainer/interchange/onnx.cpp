#include "trainer/interchange/onnx.h"

#include <algorithm>
#include <initializer_list>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "data/io/atomic_file.h"
#include "data/io/protobuf.h"
#include "kernels/base/check.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

// Field numbers and values of onnx.proto.
enum ElementType { kFloatType = 1, kUint8Type = 2, kInt64Type = 7 };
enum AttributeType { kFloatAttribute = 1, kIntAttribute = 2, kIntsAttribute = 7 };

using Ints = std::vector<int64_t>;

std::string Attribute(const char* name, float value) {
  return BytesField(1, name) + FloatField(2, value) + IntField(20, kFloatAttribute);
}
std::string Attribute(const char* name, int64_t value) {
  return BytesField(1, name) + IntField(3, value) + IntField(20, kIntAttribute);
}
std::string Attribute(const char* name, const Ints& values) {
  std::string bytes = BytesField(1, name);
  for (const int64_t value : values) bytes += IntField(8, value);
  return bytes + IntField(20, kIntsAttribute);
}

// A ValueInfoProto. The batch has no fixed size.
std::string Value(const char* name, ElementType type, const Ints& sizes_after_batch) {
  std::string shape = BytesField(1, BytesField(2, "N"));
  for (const int64_t size : sizes_after_batch) shape += BytesField(1, IntField(1, size));
  return BytesField(1, name) + BytesField(2, BytesField(1, IntField(1, type) + BytesField(2, shape)));
}

class GraphWriter {
 public:
  GraphWriter(const Model& model, const Weights& weights) : model_(model), weights_(weights) {}

  absl::StatusOr<std::string> Write(const OnnxOptions& options) {
    ASSIGN_OR_RETURN(const std::vector<NodeShape> shapes, InferShapes(model_, 1));
    const std::string images = Images(options);
    const auto main = static_cast<size_t>(model_.heads.front().logits);
    std::vector<std::string> outputs;
    for (size_t i = 0; i <= main; ++i) {
      const Node& node = model_.nodes[i];
      name_ = node.name;
      const std::string x = node.input == kImages ? images : outputs[static_cast<size_t>(node.input)];
      outputs.push_back(std::visit([&](const auto& op) { return Add(op, x, shapes[i].x); }, node.op));
    }
    Operation("Identity", {outputs[main]}, {}, "logits");
    return std::move(graph_) + BytesField(2, model_.name) +
           BytesField(12, Value("logits", kFloatType, {model_.num_classes}));
  }

 private:
  // Appends a node, and returns its output.
  std::string Operation(const char* op, const std::vector<std::string>& inputs,
                        const std::vector<std::string>& attributes = {}, std::string output = {}) {
    if (output.empty()) output = absl::StrCat(name_, "/", op, "_", ++operations_);
    std::string node;
    for (const std::string& input : inputs) node += BytesField(1, input);
    node += BytesField(2, output) + BytesField(3, output) + BytesField(4, op);
    for (const std::string& attribute : attributes) node += BytesField(5, attribute);
    graph_ += BytesField(1, node);
    return output;
  }

  // Appends a TensorProto.
  std::string Constant(const std::string& name, ElementType type, const Ints& shape, const void* data,
                       size_t bytes) {
    std::string head;
    for (const int64_t size : shape) head += IntField(1, size);
    head += IntField(2, type) + BytesField(8, name) + LengthKey(9, bytes);
    graph_ += LengthKey(5, head.size() + bytes) + head;
    graph_.append(static_cast<const char*>(data), bytes);
    return name;
  }

  // The parameter of the current node with this name.
  std::string Parameter(const std::string& suffix, const Ints& shape) {
    const std::string name = absl::StrCat(name_, ".", suffix);
    const auto found = std::ranges::find(weights_.tensors, name, &TensorEntry::name);
    DEEPER_CHECK(found != weights_.tensors.end() && found->shape == shape, name);  // CheckFits
    return Constant(name, kFloatType, shape, weights_.values.data() + found->first,
                    static_cast<size_t>(found->count) * sizeof(float));
  }

  std::string PerChannel(const char* name, const std::vector<float>& values) {
    return Constant(name, kFloatType, {1, std::ssize(values), 1, 1}, values.data(),
                    values.size() * sizeof(float));
  }

  // The input and, for pixels, their normalisation.
  std::string Images(const OnnxOptions& options) {
    const int64_t channels = model_.channels, size = model_.image_size;
    if (options.input == OnnxInput::kFloat) {
      graph_ += BytesField(11, Value("images", kFloatType, {channels, size, size}));
      return "images";
    }
    graph_ += BytesField(11, Value("images", kUint8Type, {size, size, channels}));
    name_ = "pixels";
    std::string x = Operation("Cast", {"images"}, {Attribute("to", int64_t{kFloatType})});
    x = Operation("Transpose", {x}, {Attribute("perm", Ints{0, 3, 1, 2})});
    if (options.bgr) {
      const int64_t order[] = {2, 1, 0};
      x = Operation("Gather", {x, Constant("bgr", kInt64Type, {3}, order, sizeof order)},
                    {Attribute("axis", int64_t{1})});
    }
    std::vector<float> mean = options.stats.mean, scale = options.stats.stddev;
    for (float& value : mean) value *= 255;
    for (float& value : scale) value = 1 / (255 * value);
    x = Operation("Sub", {x, PerChannel("mean", mean)});
    return Operation("Mul", {x, PerChannel("scale", scale)});
  }

  std::string Add(const Conv2dParams& p, const std::string& x, const Shape& in) {
    return Convolution("", p, x, in.c);
  }

  std::string Convolution(const std::string& prefix, const Conv2dParams& p, const std::string& x,
                          int64_t in_channels) {
    const Ints per_channel = {p.out_channels};
    std::vector<std::string> inputs = {
        x, Parameter(prefix + "conv.weight", {p.out_channels, in_channels, p.kernel, p.kernel})};
    if (!p.batch_norm) inputs.push_back(Parameter(prefix + "conv.bias", per_channel));
    std::string y = Operation(
        "Conv", inputs,
        {Attribute("kernel_shape", Ints{p.kernel, p.kernel}), Attribute("strides", Ints{p.stride, p.stride}),
         Attribute("pads", Ints{p.pad, p.pad, p.pad, p.pad})});
    if (p.batch_norm) {
      y = Operation(
          "BatchNormalization",
          {y, Parameter(prefix + "bn.weight", per_channel), Parameter(prefix + "bn.bias", per_channel),
           Parameter(prefix + "bn.running_mean", per_channel),
           Parameter(prefix + "bn.running_var", per_channel)},
          {Attribute("epsilon", p.norm.eps)});
    }
    return p.relu ? Operation("Relu", {y}) : y;
  }

  std::string Add(const InceptionParams& p, const std::string& x, const Shape& in) {
    std::vector<std::string> outputs;
    for (const InceptionBranch& branch : InceptionBranches(p)) {
      std::string y = branch.pool ? Add(kInceptionPool, x, in) : x;
      int64_t channels = in.c;
      for (const auto& [prefix, params] : branch.convolutions) {
        y = Convolution(prefix, params, y, channels);
        channels = params.out_channels;
      }
      outputs.push_back(y);
    }
    return Operation("Concat", outputs, {Attribute("axis", int64_t{1})});
  }

  std::string Add(const PoolParams& p, const std::string& x, const Shape& in) {
    const Shape out = Infer(p, in)->y;  // InferShapes has checked it
    // The padding that the last window reaches. A negative one would cut off pixels that no window reads.
    const auto end = [&](int64_t size, int64_t windows) {
      return std::max<int64_t>(0, (windows - 1) * p.stride + p.window(size) - size - p.pad);
    };
    return Operation(p.kind == PoolParams::Kind::kMax ? "MaxPool" : "AveragePool", {x},
                     {Attribute("kernel_shape", Ints{p.window(in.h), p.window(in.w)}),
                      Attribute("strides", Ints{p.stride, p.stride}),
                      Attribute("pads", Ints{p.pad, p.pad, end(in.h, out.h), end(in.w, out.w)})});
  }

  std::string Add(const GlobalAvgPoolParams&, const std::string& x, const Shape& in) {
    return Add(FlattenParams{}, Operation("GlobalAveragePool", {x}), in);
  }

  std::string Add(const LrnParams& p, const std::string& x, const Shape&) {
    return Operation("LRN", {x},
                     {Attribute("size", p.size), Attribute("alpha", p.alpha), Attribute("beta", p.beta),
                      Attribute("bias", p.k)});
  }

  std::string Add(const DropoutParams&, const std::string& x, const Shape&) { return x; }

  std::string Add(const FlattenParams&, const std::string& x, const Shape&) {
    return Operation("Flatten", {x}, {Attribute("axis", int64_t{1})});
  }

  std::string Add(const LinearParams& p, const std::string& x, const Shape& in) {
    const std::string y = Operation(
        "Gemm", {x, Parameter("weight", {p.out_features, in.c}), Parameter("bias", {p.out_features})},
        {Attribute("transB", int64_t{1})});
    return p.relu ? Operation("Relu", {y}) : y;
  }

  const Model& model_;
  const Weights& weights_;
  std::string graph_, name_;
  int operations_ = 0;
};

std::string Metadata(const nlohmann::json& config) {
  std::string bytes;
  for (const auto& [key, value] : config.items()) {
    const std::string text = value.is_string() ? value.get<std::string>() : value.dump();
    bytes += BytesField(14, BytesField(1, key) + BytesField(2, text));
  }
  return bytes;
}

}  // namespace

absl::Status WriteOnnx(const Model& model, const OnnxOptions& options, const Weights& weights,
                       const std::string& path) {
  RETURN_IF_ERROR(CheckFits(weights, model));
  ASSIGN_OR_RETURN(const std::string graph, GraphWriter(model, weights).Write(options));
  constexpr int64_t kIrVersion = 7, kOpset = 13;
  nlohmann::json config = weights.config;
  if (model.channels == 3) config["channel_order"] = options.bgr ? "BGR" : "RGB";
  const std::string head = IntField(1, kIrVersion) + BytesField(2, "deeper") +
                           BytesField(8, BytesField(1, "") + IntField(2, kOpset)) + Metadata(config);
  return WriteFileAtomically(path, absl::StrCat(head, LengthKey(7, graph.size()), graph));
}

}  // namespace deeper
