#include "trainer/checkpoint/checkpoint_snapshot.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"

namespace deeper {

absl::StatusOr<Snapshot> Snapshot::Create(std::vector<StateTensor> tensors, StateRange range,
                                          Device& device) {
  std::erase_if(tensors, [&](const StateTensor& tensor) {
    return tensor.entry.first >= range.end || tensor.entry.first + tensor.entry.count <= range.begin;
  });
  Snapshot snapshot;
  for (const auto& [entry, param, arena] : tensors) {
    std::vector<Block>& blocks = snapshot.blocks_;
    const int64_t begin = param->offset, end = begin + param->layout.stored_elements;
    if (blocks.empty() || blocks.back().arena != arena) blocks.push_back({arena, begin, end});
    blocks.back().begin = std::min(blocks.back().begin, begin);
    blocks.back().end = std::max(blocks.back().end, end);
  }
  int64_t elements = 0;
  for (Block& block : snapshot.blocks_) {
    block.copy = elements;
    elements += block.end - block.begin;
  }
  const size_t bytes = static_cast<size_t>(elements) * sizeof(float);
  snapshot.tensors_ = std::move(tensors);
  snapshot.range_ = range;
  snapshot.buffer_ = device.AllocateStaging(bytes);
  if (bytes > 0 && snapshot.buffer_.data() == nullptr) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "no ", bytes >> 20, " MiB of host memory for a copy of the state, which checkpoints are made from"));
  }
  return snapshot;
}

void Snapshot::Take(Device& device) {
  std::vector<std::unique_ptr<Download>> downloads;
  for (const Block& block : blocks_) {
    downloads.push_back(device.StartDownload(buffer_.as<float>() + block.copy, block.arena + block.begin,
                                             static_cast<size_t>(block.end - block.begin) * sizeof(float)));
  }
  for (const auto& download : downloads) download->Wait();
}

void Snapshot::Visit(const std::function<void(const float* values, int64_t count)>& visit) const {
  std::vector<float> whole;
  auto block = blocks_.begin();
  for (const auto& [entry, param, arena] : tensors_) {
    while (block->arena != arena) ++block;
    whole.resize(static_cast<size_t>(entry.count));
    UnpackParam(param->spec, param->layout, buffer_.as<float>() + block->copy + param->offset - block->begin,
                whole.data());
    const int64_t begin = std::max(range_.begin, entry.first);
    const int64_t end = std::min(range_.end, entry.first + entry.count);
    visit(whole.data() + (begin - entry.first), end - begin);
  }
}

}  // namespace deeper
