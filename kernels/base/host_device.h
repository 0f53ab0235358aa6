// For functions that run on the host and on the GPU: what CI checks on the one is what the other computes.
#pragma once

#ifdef __CUDACC__
#define DEEPER_HD __host__ __device__
#else
#define DEEPER_HD
#endif
