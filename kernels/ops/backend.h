// The one place where ops choose their backend: DEEPER_ON(device, MakePool)(arguments...) calls MakePoolCpu
// or MakePoolCuda.
#pragma once

#include "kernels/base/device.h"

#ifdef DEEPER_CUDA
#define DEEPER_ON(device, function) \
  ((device).type() == ::deeper::DeviceType::kCuda ? &function##Cuda : &function##Cpu)
#else
#define DEEPER_ON(device, function) (static_cast<void>(device), function##Cpu)
#endif
