#include "trainer/engine/train_step.h"

#include <bit>
#include <utility>

#include "comm/phase.h"
#include "data/io/checksum.h"
#include "kernels/base/clock.h"
#include "kernels/base/status.h"
#include "kernels/ops/arrays/arrays.h"

namespace deeper {
namespace {

// A sum, which does not depend on the number of ranks, of 40-bit hashes, so that it does not overflow.
int64_t HashOf(const Batch& batch) {
  int64_t sum = 0;
  for (int64_t i = 0; i < batch.rows; ++i) {
    const uint64_t sample[] = {batch.epoch, static_cast<uint64_t>(batch.batch), batch.samples[i]};
    sum += static_cast<int64_t>(Xxh3(sample, sizeof sample).low >> 24);
  }
  return sum;
}

void Count(const Batch& batch, std::span<const HeadResult> results, StepReport& report) {
  report.epoch = batch.epoch;
  report.batch = batch.batch;
  report.last_in_epoch = batch.last_in_epoch;
  report.global_rows = batch.global_rows;
  report.heads.resize(results.size());
  for (size_t i = 0; i < results.size(); ++i) report.heads[i] += results[i];
  for (const HeadResult& result : results) report.micro_losses.push_back(result.loss_sum);
}

}  // namespace

TrainStep::TrainStep(Loader& loader, Network& net, GradientAccumulator& accumulator, GradientReducer& reducer,
                     FiniteGuard& guard, Optimizer& optimizer, Device& device, uint64_t seed,
                     StatisticsSum* statistics)
    : loader_(loader),
      net_(net),
      accumulator_(accumulator),
      reducer_(reducer),
      guard_(guard),
      optimizer_(optimizer),
      device_(device),
      seed_(seed),
      statistics_(statistics),
      idle_(device.MakeIdleTimer()) {
  // What makes sums over ranks is not recorded if they pass through the host.
  const bool records_sums = reducer.recordable();
  const bool sums_statistics = net.options().sum_statistics != nullptr;
  for (auto& by_first : recordings_) {
    for (const bool first : {false, true}) {
      const bool same_work = first || accumulator.repeats();
      const bool records = same_work && (records_sums || !sums_statistics);
      by_first[first][false] = records ? device.MakeRecording() : MakePlainRecording();
      by_first[first][true] = records_sums ? device.MakeRecording() : MakePlainRecording();
    }
  }
}

absl::StatusOr<StepReport> TrainStep::Run(float lr) {
  const double start = Milliseconds();
  const Stream stream = device_.stream();
  StepReport report;
  optimizer_.BeginStep(lr);
  guard_.BeginStep();
  for (bool last = false; !last;) {
    EnterPhase(Phase::kLoader);
    const absl::StatusOr<Batch> batch = NextBatch();  // shard -> host ring -> device, decoded and augmented
    if (!batch.ok()) return batch.status();
    last = batch->micro + 1 == batch->micros;
    report.samples += HashOf(*batch);  // the next one may take the batch's memory
    report.data_wait_ms += batch->wait_ms;
    EnterPhase(Phase::kCompute, batch->micro);
    net_.Load(*batch, seed_);
    recordings_[net_.image_buffer()][batch->micro == 0][last]->Run([&] {
      net_.Forward();  // main loss + 0.3 aux1 + 0.3 aux2
      guard_.InspectLosses(net_.device_results(), batch->micro == 0);
      EnterPhase(Phase::kBackward);
      net_.Backward([&](size_t piece) {
        EnterPhase(Phase::kBackward, static_cast<int64_t>(piece));
        accumulator_.Add(net_.gradient_pieces()[piece], batch->micro, batch->micros);
        if (!last) return;
        guard_.InspectPiece(piece);
        reducer_.Ready(piece, stream);  // buckets leave while backward still runs
      });
      if (!last) return;
      reducer_.Finish(stream);  // mean gradient visible on the compute stream
      guard_.InspectSums();
      EnterPhase(Phase::kUpdate);
      optimizer_.Step(guard_.verdict());  // changes nothing if they are not finite
    });
    Prefetch(report);
    AwaitDevice(batch->micro, last || net_.options().sum_statistics != nullptr);
    Count(*batch, net_.results(), report);
    if (next_.has_value()) report.data_wait_ms += idle_->Milliseconds();
  }
  report.finite = guard_.EndStep();
  if (!report.finite) reducer_.ForgetErrors();
  report.comm_wait_ms = reducer_.TakeWaitMs() + optimizer_.TakeWaitMs();
  if (statistics_ != nullptr) report.comm_wait_ms += statistics_->TakeWaitMs();
  report.compute_ms = Milliseconds() - start - report.data_wait_ms - report.comm_wait_ms;
  return report;
}

// A recorded step waits for the peers' gradients here, where the host waits for the device.
void TrainStep::AwaitDevice(int micro, bool sums) {
  if (device_.type() == DeviceType::kCpu) return device_.Synchronize();
  if (!sums) {
    EnterPhase(Phase::kCompute, micro);
    return device_.Synchronize();
  }
  EnterPhase(Phase::kGradients);
  const WaitingForPeers waiting;
  device_.Synchronize();
}

absl::StatusOr<Batch> TrainStep::NextBatch() {
  if (!next_.has_value()) return loader_.Next();
  return *std::exchange(next_, std::nullopt);
}

// Copies the next batch to the device while it computes. The step of that batch reports a failure.
void TrainStep::Prefetch(StepReport& report) {
  if (device_.type() == DeviceType::kCpu) return;
  EnterPhase(Phase::kLoader);
  const double start = Milliseconds();
  device_.WaitForUploads();  // of the batch in use: Next returns its memory to the loader
  report.upload_wait_ms += Milliseconds() - start;
  idle_->Start();
  next_ = loader_.Next();
  idle_->Stop();
  if (!next_->ok()) return;
  (*next_)->wait_ms = 0;  // its step does not wait
  net_.Stage(**next_);
}

absl::Status GradientAccumulator::Reserve(int micros) {
  const int sums = micros == 1                     ? 0
                   : order_ == Accumulation::kTree ? std::countr_zero(static_cast<unsigned>(micros))
                                                   : 1;
  for (int i = 0; i < sums; ++i) {
    sums_.push_back(device_.Allocate(static_cast<size_t>(params_.trained_elements()) * sizeof(float)));
    if (sums_.back().data() == nullptr) {
      return ResourceExhausted(
          "no memory for the sums of gradients over micro-batches: use a larger --micro_batch or fewer "
          "ranks");
    }
  }
  return absl::OkStatus();
}

// In a tree, sums_[k] is the sum of 2^k micro-batches, like the bits of a binary counter. A running sum is
// sums_[0], of all earlier micro-batches.
void GradientAccumulator::Add(const GradientPiece& piece, int micro, int micros) {
  if (micros == 1) return;
  float* const grads = params_.grads() + piece.offset;
  const auto kept = [&](size_t i) { return sums_[i].as<float>() + piece.offset; };
  const auto count = static_cast<int64_t>(piece.count);
  const bool last = micro + 1 == micros;
  if (order_ == Accumulation::kTree) {
    size_t level = 0;
    for (; micro >> level & 1; ++level) Accumulate(device_, kept(level), grads, count);
    if (!last) device_.Copy(kept(level), grads, piece.count * sizeof(float));
  } else if (last) {
    Accumulate(device_, kept(0), grads, count);
  } else if (micro == 0) {
    device_.Copy(kept(0), grads, piece.count * sizeof(float));
  } else {
    Accumulate(device_, grads, kept(0), count);
  }
}

}  // namespace deeper
