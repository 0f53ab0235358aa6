# The CUDA toolchain, with warnings as errors, and cuDNN and NCCL, which have no CMake packages. Builds native code for the listed
# architectures, and PTX of the last one for later GPUs.
if(NOT CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 80-real 90)
endif()
include(cmake/cuda_architectures.cmake)
if(DEEPER_CCACHE AND NOT CMAKE_CUDA_COMPILER_LAUNCHER)
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CMAKE_CXX_COMPILER_LAUNCHER})
endif()
enable_language(CUDA)
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_EXTENSIONS OFF)
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 does not know that nvcc supports C++20
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
endif()
set(CMAKE_CUDA_FLAGS_RELEASE "-O3 -DNDEBUG")
# --expt-relaxed-constexpr allows std::min, std::bit_cast and the shape arithmetic of tensor.h in device code.
add_compile_options("$<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr;-Werror=all-warnings;-Xcompiler=-Wall,-Wextra,-Werror,-fopenmp>")

find_package(CUDAToolkit 12.8 REQUIRED)
find_path(CUDNN_INCLUDE_DIR cudnn.h HINTS ${CUDAToolkit_INCLUDE_DIRS} REQUIRED)
find_library(CUDNN_LIBRARY cudnn HINTS ${CUDAToolkit_LIBRARY_DIR} ${CUDAToolkit_LIBRARY_ROOT}/lib REQUIRED)
file(READ ${CUDNN_INCLUDE_DIR}/cudnn_version.h version)
string(REGEX REPLACE ".*#define CUDNN_MAJOR ([0-9]+).*#define CUDNN_MINOR ([0-9]+).*" "\\1.\\2" version "${version}")
if(version VERSION_LESS 9.8)
  message(FATAL_ERROR "cuDNN 9.8 or later is needed, but ${CUDNN_INCLUDE_DIR} has ${version}")
endif()
add_library(cudnn SHARED IMPORTED)
set_target_properties(cudnn PROPERTIES IMPORTED_LOCATION ${CUDNN_LIBRARY} INTERFACE_INCLUDE_DIRECTORIES ${CUDNN_INCLUDE_DIR})

# NCCL is loaded at run time. A build needs only its header, the archive also the library.
find_path(NCCL_INCLUDE_DIR nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
find_library(NCCL_LIBRARY NAMES libnccl.so.2 HINTS ${CUDAToolkit_LIBRARY_DIR} ${CUDAToolkit_LIBRARY_ROOT}/lib)
if(NOT NCCL_INCLUDE_DIR)
  message(STATUS "No nccl.h: ranks on GPUs exchange gradients through host memory")
endif()
