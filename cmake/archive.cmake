# The binary archive: `cmake --install BUILD --prefix DIR`, or `cpack` in BUILD for tarballs. The build machine needs no GPU. The archive
# runs from any path on a machine with a GPU, its driver, and the build machine's glibc or a later one: docs/guides/gpus.md.
#
#   bin/   deeper, the tests that need a GPU, Open MPI's launcher, run, gpu-check
#   lib/   every shared library that these load, except glibc's
#   tests/ recipes/ docs/ share/
#
# Component `cuda-libraries` contains NVIDIA's libraries, which are most of the bytes. Component `deeper` is the rest.
get_filename_component(mpi_bin ${MPIEXEC_EXECUTABLE} DIRECTORY)
find_program(DEEPER_OMPI_INFO ompi_info HINTS ${mpi_bin})
if(NOT DEEPER_OMPI_INFO)
  message(STATUS "No install rules: the archive needs Open MPI")
  return()
endif()

set(programs deeper)
if(DEEPER_TESTS)
  list(APPEND programs kernels_tests trainer_tests comm_mpi_tests)
endif()
install(TARGETS ${programs} RUNTIME DESTINATION bin COMPONENT deeper)
install(PROGRAMS cmake/archive-run DESTINATION bin COMPONENT deeper RENAME run)
install(PROGRAMS launch/gpu-check launch/deeper-run launch/deeper-sweep DESTINATION bin COMPONENT deeper)
install(PROGRAMS python/deeper/track.py RENAME deeper-track DESTINATION bin COMPONENT deeper)
install(FILES launch/mpirun_line.py DESTINATION bin COMPONENT deeper)  # imported by deeper-run
install(DIRECTORY docs recipes DESTINATION . COMPONENT deeper)
install(DIRECTORY tests/parity tests/kernels/cuda/devices DESTINATION tests COMPONENT deeper FILES_MATCHING PATTERN *.json)
install(DIRECTORY tests/benchmarks DESTINATION tests COMPONENT deeper USE_SOURCE_PERMISSIONS FILES_MATCHING PATTERN *.py)
install(FILES README.md LICENSE DESTINATION . COMPONENT deeper)

# The tests that gpu-check runs on the GPU, one "EXECUTABLE FILTER" per line. "own": those of deeper's own kernels.
get_property(gpu_tests GLOBAL PROPERTY DEEPER_GPU_TESTS)
list(JOIN gpu_tests "\n" gpu_tests)
file(CONFIGURE OUTPUT gpu-tests.txt CONTENT "own *ConvolutionOnGpu*:*PooledOnGpu*\n${gpu_tests}\n")
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/gpu-tests.txt DESTINATION tests COMPONENT deeper)

# Open MPI loads its plugins at run time and, without mpirun, starts orted.
foreach(name pkglibdir pkgdatadir)
  execute_process(COMMAND ${DEEPER_OMPI_INFO} --path ${name} --parsable OUTPUT_VARIABLE path OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX REPLACE ".*:" "" mpi_${name} "${path}")
endforeach()
file(REAL_PATH ${MPIEXEC_EXECUTABLE} mpirun)
install(PROGRAMS ${mpirun} DESTINATION bin COMPONENT deeper RENAME mpirun)
install(PROGRAMS ${mpi_bin}/orted DESTINATION bin COMPONENT deeper)
install(DIRECTORY ${mpi_pkgdatadir}/ DESTINATION share/openmpi COMPONENT deeper FILES_MATCHING PATTERN *.txt)
# Excludes plugins for networks and schedulers, which need more libraries: an archive is for one machine.
file(GLOB plugins ${mpi_pkglibdir}/mca_*.so)
list(FILTER plugins EXCLUDE REGEX "_(ucx|ofi|openib|psm2?|slurm|flux|gridengine|jsm|monitoring|netlink)\\.so$|/mca_(atomic|memheap|scoll|spml|sshmem)_")

# cuDNN loads its sublibraries at run time, and these load NVRTC. Excludes cudnn_ops, _cnn and _adv: only cuDNN's older interface uses them,
# and deeper does not call it.
set(cuda_libraries)
if(DEEPER_CUDA)
  get_filename_component(cudnn_directory ${CUDNN_LIBRARY} DIRECTORY)
  foreach(part graph heuristic engines_precompiled engines_runtime_compiled)
    list(APPEND cuda_libraries ${cudnn_directory}/libcudnn_${part}.so.9)
  endforeach()
  file(GLOB nvrtc ${CUDAToolkit_LIBRARY_DIR}/libnvrtc.so.${CUDAToolkit_VERSION_MAJOR}
       ${CUDAToolkit_LIBRARY_DIR}/libnvrtc-builtins.so.${CUDAToolkit_VERSION_MAJOR}.${CUDAToolkit_VERSION_MINOR})
  list(APPEND cuda_libraries ${nvrtc})
  if(NCCL_LIBRARY)  # loaded at run time for several ranks
    list(APPEND cuda_libraries ${NCCL_LIBRARY})
  endif()
endif()

find_program(DEEPER_PATCHELF patchelf)
list(TRANSFORM programs REPLACE "(.+)" "$<TARGET_FILE:\\1>" OUTPUT_VARIABLE files)
foreach(component deeper cuda-libraries)
  install(CODE "set(component ${component})
set(patchelf \"${DEEPER_PATCHELF}\")
set(programs \"${files};${mpirun};${mpi_bin}/orted\")
set(plugins \"${plugins}\")
set(cuda_libraries \"${cuda_libraries}\")"
          COMPONENT ${component})
  install(SCRIPT cmake/install_libraries.cmake COMPONENT ${component})
endforeach()

set(CPACK_GENERATOR TGZ)
set(CPACK_ARCHIVE_COMPONENT_INSTALL ON)
set(CPACK_COMPONENT_INCLUDE_TOPLEVEL_DIRECTORY ON)
set(CPACK_COMPONENTS_ALL deeper)
set(CPACK_PACKAGE_FILE_NAME deeper-${PROJECT_VERSION}-${CMAKE_SYSTEM_PROCESSOR})
set(CPACK_ARCHIVE_DEEPER_FILE_NAME ${CPACK_PACKAGE_FILE_NAME})
if(DEEPER_CUDA)
  list(APPEND CPACK_COMPONENTS_ALL cuda-libraries)
  set(CPACK_ARCHIVE_CUDA-LIBRARIES_FILE_NAME ${CPACK_PACKAGE_FILE_NAME}-cuda-libraries)
endif()
include(CPack)

if(DEEPER_TESTS)
  set(name archive/cpu)
  set(cuda_path)
  if(DEEPER_CUDA)
    set(name archive/cuda)
    set(cuda_path ${CUDAToolkit_LIBRARY_DIR}:${cudnn_directory})
  endif()
  add_test(NAME ${name} COMMAND tests/archive_test.sh ${CMAKE_BINARY_DIR} ${cuda_path} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(${name} PROPERTIES LABELS e2e TIMEOUT 300 PROCESSORS 2)
endif()
