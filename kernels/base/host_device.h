// Marks functions that run on the host and on the GPU, so that CI can check on the CPU what the GPU computes.
#pragma once

#ifdef __CUDACC__
#define DEEPER_HD __host__ __device__
#else
#define DEEPER_HD
#endif
