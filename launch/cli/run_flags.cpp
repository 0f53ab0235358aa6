#include "launch/cli/run_flags.h"

#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace deeper {

FlagGroup ModelFlags(RunConfig& c) {
  return {"Network",
          {{"model", &c.model, absl::StrJoin(ModelNames(), " | ")},
           {"num_classes", &c.num_classes, "0: as many as the data set or checkpoint has"},
           {"image_size", &c.image_size, "height and width that the network sees; 0: its own"},
           {"stem", &c.stem, "default | small: the first layers of a GoogLeNet for images of 28 to 64 px"}}};
}

FlagGroup InputFlags(RunConfig& c) {
  return {
      "Input",
      {{"mean", &c.mean, "a number a channel, of pixels scaled to 0..1, with commas; empty: the data set's"},
       {"std", &c.stddev, "likewise; the network sees (x / 255 - mean) / std"},
       {"val_preset", &c.val_preset,
        "how images are prepared to evaluate. none: the whole image at the network's size, two taps an axis "
        "| torchvision: the "
        "short side at 8/7 of that, antialiased, and the middle | bvlc: the whole image at 8/7, the middle; "
        "BGR less 104, 117, 123, in training too"},
       {"workers", &c.workers,
        "threads of a rank that read, decode and augment; 0: one more whenever it waits, up to its cores"},
       {"stage_dir", &c.stage_dir,
        "directory on a local disk: each machine copies the shards there once, while it reads the originals; "
        "empty: no copies"},
       {"direct_io", &c.direct_io,
        "reads shards past the page cache (O_DIRECT): for data sets larger than memory on fast disks"}}};
}

FlagGroup MachineFlags(RunConfig& c) {
  return {
      "Machine",
      {{"device", &c.device, "cpu | cuda"},
       {"precision", &c.precision, "fp32 | bf16: of activations and of the weights they meet; sums are fp32"},
       {"fusion", &c.fusion,
        "cuda: auto: fused kernels wherever they fit | off: every layer by itself, to compare with"},
       {"cuda_graph", &c.cuda_graph,
        "cuda: a step is recorded once and replayed; false: the same work, call by call"},
       {"plan_cache", &c.plan_cache,
        "cuda: file of tuned library calls; default: ~/.cache/deeper/plans.json; empty: tuned anew every "
        "time"},
       {"threads", &c.threads, "cpu: of a rank, for computing; 0: its fair share of the cores it may use"}}};
}

Flag WatchdogFlag(RunConfig& c) {
  return {"watchdog_seconds", &c.watchdog_seconds,
          "a rank that stands still or silent for longer is named, and the job ends with exit code 5; 0: it "
          "may hang"};
}

FlagGroup With(FlagGroup group, std::vector<Flag> more) {
  std::move(more.begin(), more.end(), std::back_inserter(group.flags));
  return group;
}

}  // namespace deeper
