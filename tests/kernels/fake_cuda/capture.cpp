// Captures: what may go into them, and how they end.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "tests/kernels/fake_cuda/runtime.h"

namespace deeper::fake_cuda {
namespace {

// The nodes that come before what is last in the captured stream, and those themselves.
std::vector<bool> JoinedNodes(const Graph& graph, std::vector<size_t> open) {
  std::vector<bool> joined(graph.size());
  while (!open.empty()) {
    const size_t node = open.back();
    open.pop_back();
    if (joined[node]) continue;
    joined[node] = true;
    open.insert(open.end(), graph[node].after.begin(), graph[node].after.end());
  }
  return joined;
}

}  // namespace

cudaError_t Runtime::Forbidden(const char* call) {
  for (const auto& [handle, stream] : streams) {
    const std::shared_ptr<Capture>& capture = stream->capture;
    if (capture == nullptr || capture->mode == cudaStreamCaptureModeRelaxed) continue;
    if (capture->mode == cudaStreamCaptureModeThreadLocal && capture->thread != std::this_thread::get_id())
      continue;
    capture->invalid = true;
    return Error(cudaErrorStreamCaptureUnsupported, absl::StrCat(call, " in a capture"));
  }
  return cudaSuccess;
}

cudaError_t Runtime::AddKernel(Stream& stream, Node node, bool early) {
  const bool first = loaded.insert(absl::StrCat(stream.device, " ", node.name)).second;
  if (first && stream.capture != nullptr) {
    stream.capture->invalid = true;
    return Error(cudaErrorStreamCaptureUnsupported,
                 absl::StrCat("the first launch of ", node.name, " in a capture"));
  }
  if (early) {
    ++calls["early start"];
    if (stream.capture == nullptr || stream.tail.size() != 1)
      Fail(node.name + " starts early, but not after one node of a capture");
    const Node& previous = stream.capture->graph[stream.tail[0]];
    if (!previous.own)
      Fail(absl::StrCat(node.name, " starts early, after ", previous.name, ", which is no kernel of deeper"));
  }
  return Add(stream, std::move(node));
}

cudaError_t Runtime::BeginCapture(Stream& stream, cudaStreamCaptureMode mode) {
  if (stream.capture != nullptr) return Error(cudaErrorIllegalState, "the stream is captured already");
  stream.capture = std::make_shared<Capture>();
  *stream.capture = {
      .origin = &stream, .mode = mode, .thread = std::this_thread::get_id(), .streams = {&stream}};
  stream.tail.clear();
  return cudaSuccess;
}

cudaError_t Runtime::EndCapture(Stream& stream, std::shared_ptr<const Graph>& graph) {
  const std::shared_ptr<Capture> capture = stream.capture;
  if (capture == nullptr) return Error(cudaErrorIllegalState, "the stream is not captured");
  if (capture->origin != &stream)
    return Error(cudaErrorStreamCaptureUnmatched, "a capture ends in a forked stream");
  if (capture->mode != cudaStreamCaptureModeRelaxed && capture->thread != std::this_thread::get_id())
    return Error(cudaErrorStreamCaptureWrongThread, "a capture ends on another thread than it began on");
  const std::vector<bool> joined = JoinedNodes(capture->graph, stream.tail);
  bool unjoined = false;
  for (Stream* const part : capture->streams) {
    unjoined |= std::any_of(part->tail.begin(), part->tail.end(), [&](size_t node) { return !joined[node]; });
    part->capture = nullptr;
    part->tail.clear();
  }
  capture->ended = true;
  if (capture->invalid)
    return Error(cudaErrorStreamCaptureInvalidated, "the capture is invalid since an earlier call");
  if (unjoined)
    return Error(cudaErrorStreamCaptureUnjoined, "a capture ends with a fork that was not joined");
  graph = std::make_shared<Graph>(std::move(capture->graph));
  return cudaSuccess;
}

}  // namespace deeper::fake_cuda
