#include "trainer/engine/network.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/base/bf16.h"
#include "kernels/base/check.h"
#include "kernels/base/status.h"
#include "kernels/ops/images.h"

namespace deeper {
namespace {

// [node]; whether all readers of its output accept slices of channels.
std::vector<bool> OutputsThatMayBeSlices(const Model& model) {
  std::vector<bool> may_be(model.nodes.size(), true);
  for (const Node& node : model.nodes) {
    if (node.input != kImages && !TakesSlices(node.op)) may_be[static_cast<size_t>(node.input)] = false;
  }
  for (const Head& head : model.heads) may_be[static_cast<size_t>(head.logits)] = false;
  return may_be;
}

// [node]; whether its op may compute the max pool that follows, too (Conv2dParams::max_pool): the pool is the
// only reader of a ReLU after a convolution of images.
std::vector<bool> MayComputePool(const Model& model) {
  std::vector<int> readers(model.nodes.size());
  for (const Node& node : model.nodes) {
    if (node.input != kImages) ++readers[static_cast<size_t>(node.input)];
  }
  for (const Head& head : model.heads) ++readers[static_cast<size_t>(head.logits)];
  std::vector<bool> may(model.nodes.size());
  for (size_t i = 0; i + 1 < model.nodes.size(); ++i) {
    const auto* const conv = std::get_if<Conv2dParams>(&model.nodes[i].op);
    const auto* const pool = std::get_if<PoolParams>(&model.nodes[i + 1].op);
    if (conv == nullptr || pool == nullptr || model.nodes[i + 1].input != static_cast<int>(i)) continue;
    may[i] = model.nodes[i].input == kImages && readers[i] == 1 && conv->relu && !conv->batch_norm &&
             pool->kind == PoolParams::Kind::kMax && pool->kernel == 3 && pool->stride == 2 &&
             pool->pad == 1 && !pool->ceil && !pool->clamp;
  }
  for (const Head& head : model.heads) {
    if (head.logits > 0) may[static_cast<size_t>(head.logits) - 1] = false;
  }
  return may;
}

// Some kernels for GPUs, and some engines of cuDNN, index the elements of a tensor with 32 bits. Each output
// is the input of another node, or small.
absl::Status CheckTensorSizes(const Model& model, const TensorDesc& images) {
  ASSIGN_OR_RETURN(const std::vector<NodeShape> shapes, InferShapes(model, images.shape.n));
  int64_t largest = images.stored_elements();
  for (const NodeShape& shape : shapes) largest = std::max(largest, shape.x.elements());
  if (largest <= std::numeric_limits<int32_t>::max()) return absl::OkStatus();
  return ResourceExhausted(model.name, " with ", images.shape.n, " rows per forward pass has a tensor of ",
                           largest,
                           " elements; on a GPU, they must be less than 2^31: use a smaller "
                           "--micro_batch (in other commands: --batch), or more --elastic_slices");
}

}  // namespace

absl::StatusOr<std::unique_ptr<Network>> Network::Prepare(const Model& model, const NetworkOptions& options,
                                                          Device& device) {
  std::unique_ptr<Network> network(new Network(model, options, device));
  RETURN_IF_ERROR(network->PrepareOps());
  network->PlanBuffers();
  return network;
}

size_t Network::LeastArenaBytes(const Model& model, int64_t rows, DType precision) {
  const absl::StatusOr<std::vector<NodeShape>> shapes = InferShapes(model, rows);
  DEEPER_CHECK(shapes.ok(), std::string(shapes.status().message()));
  std::set<int> inputs;
  int64_t elements = 0;
  for (size_t node = 0; node < model.nodes.size(); ++node) {
    const NodeShape& shape = (*shapes)[node];
    if (!shape.op.params.empty() && inputs.insert(model.nodes[node].input).second)
      elements += shape.x.elements();
  }
  return static_cast<size_t>(elements) * SizeOf(precision);
}

absl::Status Network::PrepareOps() {
  images_desc_ = options_.input.value_or(device_.Images(
      {options_.rows, model_.channels, model_.image_size, model_.image_size}, options_.precision));
  if (device_.type() == DeviceType::kCuda) RETURN_IF_ERROR(CheckTensorSizes(model_, images_desc_));
  const std::vector<bool> may_be_slice = OutputsThatMayBeSlices(model_), may_pool = MayComputePool(model_);
  bool pools = false;  // the op of the node before
  for (int node = 0; node < static_cast<int>(model_.nodes.size()); ++node) {
    const OpParams& params = model_.nodes[static_cast<size_t>(node)].op;
    computed_by_.push_back(pools ? node - 1 : node);
    if (std::exchange(pools, false)) {
      ops_.push_back(nullptr);
      specs_.emplace_back();
      continue;
    }
    OpOptions options;
    options.training = options_.training;
    options.sum_over_ranks = options_.sum_statistics;
    options.fuse = options_.fusion && may_be_slice[static_cast<size_t>(node)];
    absl::StatusOr<std::unique_ptr<Op>> op = Unimplemented("no pool");
    if (options_.fusion && may_pool[static_cast<size_t>(node)] && device_.type() == DeviceType::kCuda) {
      Conv2dParams with_pool = std::get<Conv2dParams>(params);
      with_pool.max_pool = true;
      op = PrepareOp(node, with_pool, options);
      pools = op.ok();
    }
    if (absl::IsUnimplemented(op.status())) op = PrepareOp(node, params, options);
    if (!op.ok()) {
      return absl::Status(op.status().code(),
                          absl::StrCat(model_.name, ", layer ", model_.nodes[static_cast<size_t>(node)].name,
                                       ": ", op.status().message()));
    }
    ops_.push_back(*std::move(op));
  }
  return absl::OkStatus();
}

int Network::InputOf(int node) const {
  const int input = model_.nodes[static_cast<size_t>(node)].input;
  return input == kImages ? kImages : computed_by_[static_cast<size_t>(input)];
}

// Appends to specs_ on success.
absl::StatusOr<std::unique_ptr<Op>> Network::PrepareOp(int node, const OpParams& params, OpOptions options) {
  const int from = InputOf(node);
  const OpNeeds* const input = from == kImages ? nullptr : &ops_[static_cast<size_t>(from)]->needs();
  const TensorDesc& x = input == nullptr ? images_desc_ : input->y;
  ASSIGN_OR_RETURN(OpShape shape, InferOp(params, x.shape));
  options.name = model_.nodes[static_cast<size_t>(node)].name;
  options.want_dx = from != kImages || options_.input.has_value();
  options.x_takes_pooled_gradients = input != nullptr && input->takes_pooled_gradients;
  ASSIGN_OR_RETURN(std::unique_ptr<Op> op, MakeOp(params, x, options, device_));
  specs_.push_back(std::move(shape.params));
  return op;
}

std::vector<Param> Network::Params() const {
  std::vector<Param> params;
  int run = 0;
  for (size_t node = 0; node < ops_.size(); ++node) {
    if (ops_[node] == nullptr) continue;
    const OpNeeds& needs = ops_[node]->needs();
    const size_t first = params.size();
    for (size_t i = 0; i < specs_[node].size(); ++i) {
      params.push_back({.name = absl::StrCat(model_.nodes[node].name, ".", specs_[node][i].name),
                        .spec = specs_[node][i],
                        .layout = needs.params[i],
                        .node = static_cast<int>(node)});
    }
    for (const std::vector<size_t>& adjacent : needs.adjacent_params) {
      for (size_t place = 0; place < adjacent.size(); ++place) {
        params[first + adjacent[place]].run = run;
        params[first + adjacent[place]].place = static_cast<int>(place);
      }
      ++run;
    }
  }
  return params;
}

// Time runs 0..T-1 forward, T the losses, T+1..2T backward, where node i runs at 2T - i.
void Network::PlanBuffers() {
  const int nodes = static_cast<int>(ops_.size());
  const auto backward_of = [&](int node) { return 2 * nodes - node; };
  std::vector<Lifetime> lifetimes;
  const auto add = [&](size_t bytes, int first, int last) {
    lifetimes.push_back(model_.heads.empty() ? Lifetime{bytes, 0, 2 * nodes} : Lifetime{bytes, first, last});
    return static_cast<int>(lifetimes.size()) - 1;
  };
  const auto extend = [&](int buffer, int time) {
    int& last = lifetimes[static_cast<size_t>(buffer)].last;
    last = std::max(last, time);
  };

  const bool two = has_two_image_buffers();
  images_[0] = add(images_desc_.bytes(), 0, two ? 2 * nodes : 0);
  images_[1] = two ? add(images_desc_.bytes(), 0, 2 * nodes) : images_[0];
  buffers_.resize(ops_.size());
  size_t workspace_bytes = 0;
  for (int node = 0; node < nodes; ++node) {
    if (ops_[static_cast<size_t>(node)] == nullptr) continue;
    const OpNeeds& needs = ops_[static_cast<size_t>(node)]->needs();
    NodeBuffers& own = buffers_[static_cast<size_t>(node)];
    const int input = InputOf(node);
    const int x = input == kImages ? images_[0] : buffers_[static_cast<size_t>(input)].y;
    own.y = add(needs.y.bytes(), node, node);
    extend(x, node);
    workspace_bytes = std::max(workspace_bytes, needs.workspace_bytes);
    if (needs.saved_bytes != 0)
      own.saved = add(needs.saved_bytes, node, options_.training ? backward_of(node) : node);
    if (!options_.training) continue;
    DEEPER_CHECK(input != kImages || options_.input.has_value() || needs.dx_parts.empty(),
                 model_.nodes[static_cast<size_t>(node)].name);
    if (needs.backward_reads_x) extend(x, backward_of(node));
    if (needs.backward_reads_y) extend(own.y, backward_of(node));
    for (const TensorDesc& part : needs.dx_parts) {
      own.dx.push_back(add(part.bytes(), backward_of(node), backward_of(input)));
      if (input != kImages) buffers_[static_cast<size_t>(input)].dy.push_back(own.dx.back());
    }
    if (needs.pooled_dx.has_value()) {
      own.pooled_dx = add(needs.pooled_dx->desc.bytes(), backward_of(node), backward_of(input));
      extend(own.saved, backward_of(input));  // the argmax
      buffers_[static_cast<size_t>(input)].pooled_dy.push_back(node);
    }
  }
  for (const Head& head : model_.heads) {
    NodeBuffers& node = buffers_[static_cast<size_t>(head.logits)];
    extend(node.y,
           options_.training ? nodes : 2 * nodes);  // in inference the caller reads the logits later
    dlogits_.push_back(-1);
    workspace_bytes =
        std::max(workspace_bytes,
                 SoftmaxLossWorkspaceBytes(device_, ops_[static_cast<size_t>(head.logits)]->needs().y));
    if (!options_.training) continue;
    dlogits_.back() = add(lifetimes[static_cast<size_t>(node.y)].bytes, nodes, backward_of(head.logits));
    node.dy.push_back(dlogits_.back());
  }
  if (model_.heads.empty())
    buffers_[last()].dy = {add(ops_[last()]->needs().y.Dense().bytes(), nodes, backward_of(nodes - 1))};
  workspace_ = add(workspace_bytes, 0, 2 * nodes);
  plan_ = PlanMemory(lifetimes);
}

absl::Status Network::Bind(ParamStore& params) {
  DEEPER_CHECK(arena_.data() == nullptr, "Bind is called once");
  arena_ = device_.Allocate(plan_.bytes);
  if (arena_.data() == nullptr) {
    return ResourceExhausted(
        model_.name, " with ", options_.rows, " rows per forward pass needs ", plan_.bytes >> 20,
        " MiB for activations, and ", device_.AvailableBytes() >> 20,
        " MiB are available: use a smaller --micro_batch (in `bench`: --batch) or, on a CPU, a "
        "higher `ulimit -v`");
  }
  const size_t control_bytes =
      sizeof(StepContext) + model_.heads.size() * sizeof(HeadResult) +
      static_cast<size_t>(options_.rows) * (sizeof(uint64_t) + 2 * sizeof(int32_t) + sizeof(float));
  control_ = device_.Allocate(control_bytes);
  staged_control_ = device_.AllocateStaging(control_bytes);
  if (control_.data() == nullptr || staged_control_.data() == nullptr)
    return ResourceExhausted("no memory for a batch's labels");
  params.KeepInPlace();
  BindOps(params);
  return absl::OkStatus();
}

void Network::BindOps(ParamStore& params) {
  std::unordered_map<std::string, const Param*> by_name;
  for (const Param& param : params.trained()) by_name[param.name] = &param;
  for (const Param& param : params.statistics()) by_name[param.name] = &param;
  std::vector<OpBinding> bindings(ops_.size());
  std::vector<GradientPiece> piece_of_node(ops_.size());
  for (const Param& own : Params()) {
    const auto found = by_name.find(own.name);
    DEEPER_CHECK(found != by_name.end() && found->second->layout == own.layout, own.name);
    const size_t node = static_cast<size_t>(own.node), offset = static_cast<size_t>(found->second->offset);
    OpBinding& binding = bindings[node];
    const bool trained = !IsStatistic(own.spec.role);
    binding.params.push_back((trained ? params.values() : params.statistic_values()) + offset);
    binding.grads.push_back(trained && options_.training ? params.grads() + offset : nullptr);
    auto* const narrow = static_cast<uint16_t*>(params.narrow_values());
    binding.narrow_params.push_back(trained && narrow != nullptr ? narrow + offset : nullptr);
    if (!trained) continue;
    GradientPiece& piece = piece_of_node[node];  // a node's trained parameters are adjacent in the arena
    const size_t first = piece.count == 0 ? offset : std::min(piece.offset, offset);
    const size_t end =
        std::max(piece.offset + piece.count, offset + static_cast<size_t>(own.layout.stored_elements));
    piece = {first, end - first};
  }
  for (size_t node = 0; node < ops_.size(); ++node) {
    if (ops_[node] == nullptr) continue;
    OpBinding& binding = bindings[node];
    const int input = InputOf(static_cast<int>(node));
    binding.x = At(input == kImages ? images_[0] : buffers_[static_cast<size_t>(input)].y);
    binding.y = At(buffers_[node].y);
    for (const int part : buffers_[node].dy) binding.dy.push_back(At(part));
    for (const int part : buffers_[node].dx) binding.dx.push_back(At(part));
    for (const int consumer : buffers_[node].pooled_dy) {
      const NodeBuffers& from = buffers_[static_cast<size_t>(consumer)];
      binding.pooled_dy.push_back({*ops_[static_cast<size_t>(consumer)]->needs().pooled_dx,
                                   At(from.pooled_dx), static_cast<const uint8_t*>(At(from.saved))});
    }
    binding.pooled_dx = At(buffers_[node].pooled_dx);
    binding.saved = At(buffers_[node].saved);
    binding.workspace = At(workspace_);
    binding.step = ControlAt(control_).step;
    ops_[node]->Bind(binding);
    if (input == kImages && has_two_image_buffers()) image_readers_.push_back({ops_[node].get(), binding});
  }
  piece_of_node_.assign(ops_.size(), -1);
  for (size_t node = ops_.size(); node-- > 0;) {
    if (piece_of_node[node].count == 0) continue;
    piece_of_node_[node] = static_cast<int>(gradient_pieces_.size());
    gradient_pieces_.push_back(piece_of_node[node]);
  }
}

// In memory, ordered from the strictest alignment to the weakest.
Network::Control Network::ControlAt(const Buffer& memory) const {
  Control control;
  control.step = memory.as<StepContext>();
  control.results = reinterpret_cast<HeadResult*>(control.step + 1);
  control.samples = reinterpret_cast<uint64_t*>(control.results + model_.heads.size());
  control.labels = reinterpret_cast<int32_t*>(control.samples + options_.rows);
  control.partner_labels = control.labels + options_.rows;
  control.partner_weights = reinterpret_cast<float*>(control.partner_labels + options_.rows);
  return control;
}

void Network::Configure(LoaderOptions& options) const {
  options.image_size = static_cast<int>(model_.image_size);
  options.channels = static_cast<int>(model_.channels);
  options.rows = options_.rows;
  options.packed = device_.type() == DeviceType::kCuda;
  options.allocate = [this](size_t bytes) { return device_.AllocateStaging(bytes); };
}

absl::Status Network::ReserveUploads(size_t bytes) {
  if (device_.type() == DeviceType::kCpu || incoming_.bytes() >= bytes) return absl::OkStatus();
  incoming_ = {};
  incoming_ = device_.Allocate(bytes);
  if (incoming_.data() != nullptr) return absl::OkStatus();
  return ResourceExhausted("no memory for ", bytes >> 20,
                           " MiB of incoming images: use a smaller --micro_batch "
                           "(in other commands: --batch)");
}

void Network::Stage(const Batch& batch) {
  DEEPER_CHECK(!staged_, "one batch at a time");
  staged_ = true;
  if (device_.type() == DeviceType::kCpu) return;
  const size_t bytes = batch.packed != nullptr
                           ? batch.packed_bytes
                           : static_cast<size_t>(images_desc_.shape.elements()) * sizeof(float);
  const absl::Status room = ReserveUploads(bytes);
  DEEPER_CHECK(room.ok(), std::string(room.message()));
  if (batch.packed == nullptr) {
    device_.Upload(incoming_.data(), batch.images, bytes);
  } else {
    for (const auto& [begin, end] : UsedParts(batch))
      device_.Upload(incoming_.data() + begin, batch.packed + begin, end - begin);
  }
  void* const images = At(images_[!image_buffer_]);
  device_.RunAfterUploads([&] {
    if (batch.packed != nullptr) {
      SampleImages(device_, incoming_.data(), batch.scales, images_desc_, images);
    } else {
      PlaceImages(device_, incoming_.as<float>(), images_desc_, images);
    }
  });
}

void Network::Load(const Batch& batch, uint64_t seed) {
  if (!staged_) Stage(batch);
  staged_ = false;
  image_buffer_ = !image_buffer_;
  device_.JoinUploads();
  for (ImageReader& reader : image_readers_) {
    reader.binding.x = At(images_[image_buffer_]);
    reader.op->Bind(reader.binding);
  }
  if (device_.type() == DeviceType::kCpu) PlaceImages(device_, batch.images, images_desc_, At(images_[0]));
  LoadLabels(batch, seed);
}

void Network::LoadLabels(const Batch& batch, uint64_t seed) {
  const auto rows = static_cast<size_t>(options_.rows);
  const Control staged = ControlAt(staged_control_);
  *staged.step = {.seed = seed,
                  .samples = ControlAt(control_).samples,
                  .rows = batch.rows,
                  .epoch = batch.epoch,
                  .loss_scale = 1.0f / static_cast<float>(batch.global_rows)};
  std::memcpy(staged.samples, batch.samples, rows * sizeof(uint64_t));
  std::memcpy(staged.labels, batch.labels, rows * sizeof(int32_t));
  std::memcpy(staged.partner_labels, batch.partner_labels, rows * sizeof(int32_t));
  std::memcpy(staged.partner_weights, batch.partner_weights, rows * sizeof(float));
  device_.Copy(control_.data(), staged_control_.data(), control_.bytes());
}

void Network::Forward() {
  for (size_t node = 0; node < ops_.size(); ++node) {
    if (ops_[node] == nullptr) continue;
    device_.Annotate(model_.nodes[node].name);
    ops_[node]->Forward();
  }
  if (model_.heads.empty()) return;
  device_.Annotate("loss");
  const Control control = ControlAt(control_);
  for (size_t i = 0; i < model_.heads.size(); ++i) {
    const Head& head = model_.heads[i];
    const auto node = static_cast<size_t>(head.logits);
    SoftmaxLoss(device_, {.logits = {At(buffers_[node].y), ops_[node]->needs().y},
                          .labels = control.labels,
                          .partner_labels = control.partner_labels,
                          .partner_weights = control.partner_weights,
                          .smoothing = options_.label_smoothing,
                          .weight = head.weight,
                          .step = control.step,
                          .dlogits = At(dlogits_[i]),
                          .result = &control.results[i],
                          .workspace = At(workspace_)});
  }
  device_.Copy(ControlAt(staged_control_).results, control.results, model_.heads.size() * sizeof(HeadResult));
}

std::span<const HeadResult> Network::results() const {
  return {ControlAt(staged_control_).results, model_.heads.size()};
}

void Network::Backward(const std::function<void(size_t)>& on_ready) {
  for (size_t node = ops_.size(); node-- > 0;) {
    if (ops_[node] == nullptr) continue;
    device_.Annotate(model_.nodes[node].name);
    ops_[node]->Backward();
    if (piece_of_node_[node] >= 0) on_ready(static_cast<size_t>(piece_of_node_[node]));
  }
}

void Network::ReadLogits(float* logits) const {
  const size_t node = static_cast<size_t>(model_.heads.front().logits);
  const TensorDesc& desc = ops_[node]->needs().y;
  const size_t elements = static_cast<size_t>(desc.stored_elements());
  if (desc.dtype == DType::kF32) {
    device_.Copy(logits, At(buffers_[node].y), elements * sizeof(float));
    device_.Synchronize();
  } else {
    std::vector<bf16> host(elements);
    device_.Copy(host.data(), At(buffers_[node].y), elements * sizeof(bf16));
    device_.Synchronize();
    std::transform(host.begin(), host.end(), logits, [](bf16 x) { return ToFloat(x); });
  }
}

}  // namespace deeper
