// Predicts the time of launches on a GPU that need not be present, from their bytes, their products and, for
// our own kernels, their instructions.
#pragma once

#include "kernels/base/device.h"
#include "kernels/base/tensor.h"
#include "kernels/cuda/base/kernel_cost.h"
#include "trainer/scaling/gpu_spec.h"

namespace deeper {

// All assumptions about GPUs besides GpuSpec's. None is a measurement of ours: correct them as soon as a GPU
// is at hand.
struct KernelModel {
  double clock = 0.9;               // under load, of the highest clock
  double schedulers = 4;            // of a multiprocessor
  double matrix_efficiency = 0.65;  // of products, libraries' and ours, against their peak
  double l2_bytes_per_clock = 32;   // of a multiprocessor
  double load_us = 0.6;             // from a load from memory to the first use
  double launch_us = 1.4;           // from kernel to kernel of a recorded step
  double early_us = 0.7;  // the same, where the second one starts early (kernels/cuda/base/early_start.h)
};

struct LaunchTime {
  double bytes_us = 0;     // to move the bytes to and from memory
  double products_us = 0;  // of matrices, with those that fill tiles, or to read their operands from L2
  // Of our kernels: to issue the instructions, or to wait for loads. 0: not known.
  double instructions_us = 0;
  double sums_us = 0;  // of our kernels: to write partial sums and to read them again

  double us() const;  // the largest of the first three, and then the sums
};

// Between the kernels before and in a launch.
double LatencyOf(const KernelWork& work, const KernelModel& model = {});

LaunchTime TimeOf(const Launch& launch, const KernelWork& work, const GpuSpec& gpu, DType precision,
                  const KernelModel& model = {});

}  // namespace deeper
