#include "trainer/engine/evaluate.h"

#include <memory>
#include <vector>

#include "comm/agree.h"
#include "comm/phase.h"
#include "kernels/base/exit_code.h"
#include "kernels/base/status.h"
#include "kernels/ops/softmax_loss.h"

namespace deeper {
namespace {

using BatchCallback = std::function<void(const Batch&, const float* logits)>;

// The result of a batch from its logits [rows, classes] in host memory.
HeadResult ResultOf(const Batch& batch, std::vector<float>& logits, int64_t rows, Device& device) {
  const int64_t classes = std::ssize(logits) / rows;
  HeadResult result;
  const StepContext step;
  SoftmaxLossCpu(device, {.logits = {logits.data(), {.shape = {rows, classes}}},
                          .labels = batch.labels,
                          .step = &step,
                          .result = &result});
  return result;
}

// `mirrored`: the same batches with mirrored images; or nullptr.
absl::Status EvaluateMine(Network& net, Device& device, Loader& loader, Loader* mirrored,
                          const BatchCallback& on_batch, HeadResult& sum) {
  const int64_t rows = net.options().rows;
  std::vector<float> logits, others;
  if (on_batch || mirrored != nullptr) logits.resize(static_cast<size_t>(rows * net.model().num_classes));
  if (mirrored != nullptr) others.resize(logits.size());
  std::unique_ptr<Recording> recordings[Network::kImageBuffers];
  for (auto& recording : recordings) recording = device.MakeRecording();
  const auto forward = [&](const Batch& batch) {
    net.Load(batch, /*seed=*/0);
    recordings[net.image_buffer()]->Run([&] { net.Forward(); });
  };
  const bool reads_later = on_batch != nullptr || mirrored != nullptr;
  absl::StatusOr<Batch> batch = loader.Next();
  for (int64_t number = 0;; ++number) {
    EnterPhase(Phase::kEvaluation, number);
    if (absl::IsOutOfRange(batch.status())) return absl::OkStatus();
    if (!batch.ok()) return WithExitCode(batch.status(), ExitCode::kData);
    if (mirrored != nullptr) {
      const absl::StatusOr<Batch> mirror = mirrored->Next();
      if (!mirror.ok()) return WithExitCode(mirror.status(), ExitCode::kData);
      forward(*mirror);
      net.ReadLogits(others.data());
    }
    forward(*batch);
    if (!reads_later) {  // Next returns the batch's memory to the loader
      device.WaitForUploads();
      batch = loader.Next();
      if (batch.ok()) net.Stage(*batch);
    }
    device.Synchronize();
    if (!logits.empty()) net.ReadLogits(logits.data());
    for (size_t i = 0; i < others.size(); ++i) logits[i] = (logits[i] + others[i]) / 2;
    sum += mirrored == nullptr ? net.results().front() : ResultOf(*batch, logits, rows, device);
    if (on_batch) on_batch(*batch, logits.data());
    if (reads_later) batch = loader.Next();
  }
}

}  // namespace

absl::StatusOr<EvalResult> Evaluate(Network& net, Device& device, const Dataset& dataset,
                                    LoaderOptions preset, Communicator& comm, Tta tta,
                                    const BatchCallback& on_batch) {
  preset.order = OrderKind::kSequential;
  preset.allow_bad = 0;  // a replacement would count twice
  net.Configure(preset);
  preset.global_batch = preset.rows * comm.size();
  preset.rank = comm.rank();
  preset.world = comm.size();
  preset.first_epoch = 0;
  preset.first_batch = 0;
  preset.epochs = 1;
  absl::StatusOr<std::unique_ptr<Loader>> loader = MakeLoader(dataset, preset), mirrored = nullptr;
  preset.mirror = !preset.mirror;
  if (tta == Tta::kFlip) mirrored = MakeLoader(dataset, preset);
  HeadResult sum;
  absl::Status mine = loader.status();
  mine.Update(mirrored.status());
  if (absl::IsInvalidArgument(mine)) mine = WithExitCode(mine, ExitCode::kData);  // not data for this network
  if (mine.ok()) mine = net.ReserveUploads(PackedBatchBytes(dataset.info(), preset));
  if (mine.ok()) mine = EvaluateMine(net, device, **loader, mirrored->get(), on_batch, sum);
  RETURN_IF_ERROR(Agree(comm, mine));

  int64_t counts[] = {sum.rows, sum.top1, sum.top5};
  Request counted = comm.AllReduce(counts, 3, CommType::kI64, ReduceOp::kSum, {});
  comm.AllReduce(&sum.loss_sum, 1, CommType::kF64, ReduceOp::kSum, {}).Wait();
  counted.Wait();
  if (counts[0] != dataset.info().samples) {
    return WithExitCode(
        DataLoss("the evaluation counted ", counts[0], " samples, but split ", dataset.info().split, " has ",
                 dataset.info().samples, ": this is a bug in deeper, or the shards changed meanwhile"),
        ExitCode::kData);
  }
  return EvalResult{counts[0], sum.loss_sum / static_cast<double>(counts[0]), counts[1], counts[2]};
}

}  // namespace deeper
