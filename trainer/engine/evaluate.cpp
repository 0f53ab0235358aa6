#include "trainer/engine/evaluate.h"

#include <memory>
#include <vector>

#include "comm/agree.h"
#include "comm/phase.h"
#include "kernels/base/exit_code.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

using BatchCallback = std::function<void(const Batch&, const float* logits)>;

absl::Status EvaluateMine(Network& net, Device& device, Loader& loader, const BatchCallback& on_batch,
                          HeadResult& sum) {
  std::vector<float> logits;
  if (on_batch) logits.resize(static_cast<size_t>(net.options().rows * net.model().num_classes));
  std::unique_ptr<Recording> forward[Network::kImageBuffers];
  for (auto& recording : forward) recording = device.MakeRecording();
  absl::StatusOr<Batch> batch = loader.Next();
  for (int64_t number = 0;; ++number) {
    EnterPhase(Phase::kEvaluation, number);
    if (absl::IsOutOfRange(batch.status())) return absl::OkStatus();
    if (!batch.ok()) return WithExitCode(batch.status(), ExitCode::kData);
    net.Load(*batch, /*seed=*/0);
    forward[net.image_buffer()]->Run([&] { net.Forward(); });
    if (!on_batch) {  // which reads the batch, whose memory Next returns to the loader
      device.WaitForUploads();
      batch = loader.Next();
      if (batch.ok()) net.Stage(*batch);
    }
    device.Synchronize();
    sum += net.results().front();
    if (!on_batch) continue;
    net.ReadLogits(logits.data());
    on_batch(*batch, logits.data());
    batch = loader.Next();
  }
}

}  // namespace

absl::StatusOr<EvalResult> Evaluate(Network& net, Device& device, const Dataset& dataset,
                                    LoaderOptions preset, Communicator& comm, const BatchCallback& on_batch) {
  preset.order = OrderKind::kSequential;
  preset.allow_bad = 0;  // a replacement would count twice
  net.Configure(preset);
  preset.global_batch = preset.rows * comm.size();
  preset.rank = comm.rank();
  preset.world = comm.size();
  preset.first_epoch = 0;
  preset.first_batch = 0;
  preset.epochs = 1;
  absl::StatusOr<std::unique_ptr<Loader>> loader = MakeLoader(dataset, preset);
  HeadResult sum;
  absl::Status mine = loader.status();
  if (mine.ok()) mine = net.ReserveUploads(PackedBatchBytes(dataset.info(), preset));
  if (mine.ok()) mine = EvaluateMine(net, device, **loader, on_batch, sum);
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
