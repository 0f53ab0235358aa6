# Refuses lists of architectures with which GPUs later than the listed ones would run PTX of 8.x beside code that starts kernels early:
# that PTX has no instruction to wait for the previous kernel (kernels/cuda/base/kernel_launch.h).
set(later "(^|;)(9|1[0-9])[0-9]")
if(CMAKE_CUDA_ARCHITECTURES MATCHES "(^|;)[78][0-9](-virtual)?(;|$)" AND CMAKE_CUDA_ARCHITECTURES MATCHES "${later}"
   AND NOT CMAKE_CUDA_ARCHITECTURES MATCHES "${later}(-virtual)?(;|$)")
  message(FATAL_ERROR "CMAKE_CUDA_ARCHITECTURES=${CMAKE_CUDA_ARCHITECTURES}: on later GPUs, kernels of the PTX of 8.x would not wait for "
    "each other. Add 90-virtual, or write -real after each architecture of 8.x.")
endif()
