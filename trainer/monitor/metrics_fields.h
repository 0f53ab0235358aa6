// What --metrics_out contains: one row per field of every event. docs/reference/metrics.md is generated from
// these rows; tests compare them with the files of runs.
#pragma once

namespace deeper {

struct MetricField {
  const char* event;
  const char* name;
  const char* unit;  // "": none
  const char* meaning;
};

struct MetricEvent {
  const char* name;
  const char* when;
};

inline constexpr MetricEvent kMetricEvents[] = {
    {"start", "Once, when a run starts from step 0."},
    {"resume",
     "Once, when a run continues from a checkpoint. It replaces the events of later steps that an earlier "
     "process logged."},
    {"step", "Every --log_every steps. Times are means per step since the previous step event, on rank 0."},
    {"eval", "After every evaluation, also by `deeper eval --metrics_out`."},
    {"diagnosis",
     "With every evaluation, of the gradients of the step before it. STAGE: conv1, inception4, fc, ..."},
    {"checkpoint", "When a checkpoint was committed."},
    {"checkpoint_failed", "When a checkpoint could not be saved. Earlier checkpoints are unchanged."},
    {"nonfinite", "When the loss or a gradient was NaN or infinite. The step did not change the weights."},
    {"straggler", "When a rank is repeatedly slower than the others."},
    {"stuck_head", "Once for each head whose loss stays that of guessing."},
    {"bottleneck", "Once, when training waits for input for a large part of the time."},
    {"bad_sample", "When a sample could not be read and --allow_bad replaced it."},
    {"restart", "Written by deeper-run before it starts the job again."},
    {"failure", "Written by deeper-run when it stops restarting the job."},
    {"done", "At the end of a run, or of the part of it that --stop_at asks for, unless it was interrupted."},
};

inline constexpr MetricField kMetricFields[] = {
    {"start", "config", "", "Network and training settings, as stored in checkpoints."},
    {"start", "run", "",
     "Settings of this run: ranks, device, precision, data, samples, eval_samples, global_batch, "
     "total_steps, epoch_steps, parameters, gradient_sum, optimizer, lr, lr_schedule, seed; and flags: all "
     "flags whose values are not their defaults."},
    {"resume", "step", "steps", "Steps that the checkpoint contains."},
    {"resume", "path", "", "Directory of the checkpoints."},
    {"resume", "config", "", "As in start."},
    {"resume", "run", "", "As in start."},
    {"step", "step", "steps", "Steps done."},
    {"step", "epoch", "epochs", "Epoch of the step, counted from 0."},
    {"step", "loss", "",
     "Weighted sum of the losses of all heads, over the images of this step on all ranks."},
    {"step", "loss_HEAD", "", "Loss of one head: loss_main, loss_aux1, loss_aux2."},
    {"step", "lr", "", "Learning rate."},
    {"step", "images_per_second", "images/s", "Throughput of all ranks within steps, as the fields in ms."},
    {"step", "data_wait_ms", "ms", "Waiting for the loader; on GPUs, only while the GPU has no work."},
    {"step", "compute_ms", "ms", "Forward, backward and optimizer."},
    {"step", "read_ms", "ms", "Loader threads reading, summed over the threads."},
    {"step", "decode_ms", "ms", "Loader threads decoding, summed over the threads."},
    {"step", "augment_ms", "ms", "Loader threads augmenting, summed over the threads."},
    {"step", "comm_exposed_ms", "ms",
     "Communication that backward did not hide: the shortest wait of any rank."},
    {"step", "peer_wait_ms", "ms",
     "Time that rank 0 waited for slower ranks: the rest of the wait for the gradients."},
    {"step", "step_ms", "ms",
     "From step to step by the clock: waiting for data, compute, communication, waiting for slower ranks, "
     "and what happens between steps: control messages, logs, evaluations, waiting for saves."},
    {"step", "compute_jitter", "fraction",
     "Standard deviation of compute_ms from step to step, over its mean, on the average rank."},
    {"step", "compute_spread", "fraction",
     "Standard deviation of compute_ms between ranks, over its mean, beyond what the jitter explains."},
    {"step", "samples", "",
     "Checksum of the sample numbers since the previous step event: 16 hexadecimal digits."},
    {"step", "nonfinite_steps", "steps",
     "Steps skipped since this process started, because they were not finite."},
    {"eval", "step", "steps", "Steps that the evaluated weights were trained for."},
    {"eval", "top1", "fraction", "Share of the samples whose best class is right."},
    {"eval", "top5", "fraction", "Share of the samples whose right class is among the best five."},
    {"eval", "loss", "", "Mean loss of the main head."},
    {"eval", "count", "samples", "Samples evaluated."},
    {"eval", "split", "", "Split of the samples."},
    {"eval", "tta", "", "Test-time augmentation: none or flip."},
    {"diagnosis", "step", "steps", "Steps done."},
    {"diagnosis", "gradient_STAGE", "",
     "Norm of the gradients of the weights of a stage over the norm of these weights."},
    {"diagnosis", "dead_STAGE", "fraction",
     "Share of the channels with a ReLU that got no gradient from any image of the step."},
    {"diagnosis", "what", "", "Stages and classes that hardly learn; empty if there are none."},
    {"checkpoint", "step", "steps", "Steps that the checkpoint contains."},
    {"checkpoint", "path", "", "Directory of this checkpoint."},
    {"checkpoint", "seconds", "s", "From the start of the save to the commit on disk."},
    {"checkpoint", "stall_ms", "ms", "Time that training waited for this save, on rank 0."},
    {"checkpoint", "wait_ms", "ms", "Part of stall_ms: waiting for an earlier save to end."},
    {"checkpoint_failed", "step", "steps", "Step of the checkpoint."},
    {"checkpoint_failed", "reason", "", "What failed."},
    {"nonfinite", "step", "steps", "The step."},
    {"nonfinite", "reason", "", "The first rank and tensor that were not finite."},
    {"straggler", "step", "steps", "When it was found."},
    {"straggler", "what", "", "The rank, its host, and how much slower it is."},
    {"stuck_head", "step", "steps", "When it was found."},
    {"stuck_head", "what", "", "The head and its mean loss over the last steps."},
    {"bottleneck", "step", "steps", "When it was found."},
    {"bottleneck", "stage", "", "The slowest stage: read, decode, augment or upload."},
    {"bottleneck", "what", "", "The share of the time, and what would help."},
    {"bad_sample", "step", "steps", "When it was found."},
    {"bad_sample", "what", "", "The sample and the error."},
    {"restart", "exit_code", "", "Exit code of the job that failed."},
    {"restart", "restart", "", "Number of this restart, counted from 1."},
    {"failure", "exit_code", "", "Exit code of the job that failed."},
    {"done", "step", "steps", "Steps done."},
    {"done", "seconds", "s", "Duration of this process's part of the run."},
};

}  // namespace deeper
