// Marks functions that run on the host and on the GPU, so that CI can check on the CPU what the GPU computes.
#pragma once

#ifdef __CUDACC__
#define DEEPER_HD __host__ __device__
// For templates that the .cu files compile for the GPU only, and the tests for the host.
#define DEEPER_DEVICE __device__
#else
#define DEEPER_HD
#define DEEPER_DEVICE
#endif
