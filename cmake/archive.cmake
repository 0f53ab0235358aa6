# The binary archive: `cmake --install BUILD --prefix DIR`, or `cpack` in BUILD for tarballs. The build machine needs no GPU. The archive
# runs from any path (docs/start/install.md).
#
#   bin/   deeper, run, deeper-run; the tests that need a GPU, gpu-check
#   lib/   every shared library that these load, except MPI's, and those of the C and C++ run time, which are the machine's
#   licenses/ tests/ recipes/ docs/
#
# Component `deeper` is this. Built on Debian 12 it needs glibc 2.34 and the libstdc++ of GCC 11 (tests/packages/floor_test.py).
# Component `openmpi` adds this machine's Open MPI 4 for machines without MPI. It needs this machine's glibc or a later one.
# Component `cuda-libraries` contains NVIDIA's libraries, which are most of the bytes.
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

# Open MPI 4 loads its plugins at run time and, without mpirun, starts orted. Open MPI 5 has no orted: its programs are not copied.
set(components deeper)
if(EXISTS ${mpi_bin}/orted)
  list(APPEND components openmpi)
  foreach(name pkglibdir pkgdatadir)
    execute_process(COMMAND ${DEEPER_OMPI_INFO} --path ${name} --parsable OUTPUT_VARIABLE path OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
    string(REGEX REPLACE ".*:" "" mpi_${name} "${path}")
  endforeach()
  file(REAL_PATH ${MPIEXEC_EXECUTABLE} mpirun)
  set(mpi_programs ${mpirun} ${mpi_bin}/orted)
  install(PROGRAMS ${mpirun} DESTINATION bin COMPONENT openmpi RENAME mpirun)
  install(PROGRAMS ${mpi_bin}/orted DESTINATION bin COMPONENT openmpi)
  install(DIRECTORY ${mpi_pkgdatadir}/ DESTINATION share/openmpi COMPONENT openmpi FILES_MATCHING PATTERN *.txt)
  # Excludes plugins for networks and schedulers, which need more libraries: this Open MPI is for one machine.
  file(GLOB plugins ${mpi_pkglibdir}/mca_*.so)
  list(FILTER plugins EXCLUDE REGEX "_(ucx|ofi|openib|psm2?|slurm|flux|gridengine|jsm|monitoring|netlink)\\.so$|/mca_(atomic|memheap|scoll|spml|sshmem)_")
endif()

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

if(DEEPER_CUDA)
  list(APPEND components cuda-libraries)
endif()
find_program(DEEPER_PATCHELF patchelf)
list(TRANSFORM programs REPLACE "(.+)" "$<TARGET_FILE:\\1>" OUTPUT_VARIABLE files)
foreach(component ${components})
  install(CODE "set(component ${component})
set(source ${PROJECT_SOURCE_DIR})
set(patchelf \"${DEEPER_PATCHELF}\")
set(programs \"${files}\")
set(mpi_programs \"${mpi_programs}\")
set(plugins \"${plugins}\")
set(cuda_libraries \"${cuda_libraries}\")"
          COMPONENT ${component})
  install(SCRIPT cmake/install_libraries.cmake COMPONENT ${component})
endforeach()

set(CPACK_GENERATOR TGZ)
set(CPACK_ARCHIVE_COMPONENT_INSTALL ON)
set(CPACK_COMPONENT_INCLUDE_TOPLEVEL_DIRECTORY ON)
set(CPACK_COMPONENTS_ALL ${components})
set(CPACK_PACKAGE_FILE_NAME deeper-${PROJECT_VERSION}-${CMAKE_SYSTEM_PROCESSOR})
set(CPACK_ARCHIVE_DEEPER_FILE_NAME ${CPACK_PACKAGE_FILE_NAME})
set(CPACK_ARCHIVE_OPENMPI_FILE_NAME ${CPACK_PACKAGE_FILE_NAME}-openmpi)
set(CPACK_ARCHIVE_CUDA-LIBRARIES_FILE_NAME ${CPACK_PACKAGE_FILE_NAME}-cuda-libraries)
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
  foreach(script floor wheel)
    add_test(NAME packages/${script} COMMAND /usr/bin/python3 ${PROJECT_SOURCE_DIR}/tests/packages/${script}_test.py ${CMAKE_BINARY_DIR})
    set_tests_properties(packages/${script} PROPERTIES LABELS e2e TIMEOUT 300 PROCESSORS 2 SKIP_RETURN_CODE 77 SKIP_REGULAR_EXPRESSION "OK \\(.*skipped=")
  endforeach()
endif()
