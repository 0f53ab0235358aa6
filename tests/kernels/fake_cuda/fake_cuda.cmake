# Whatever is linked with these objects runs the real GPU device on the fake CUDA (fake_cuda.h). Their symbols come before
# those of the CUDA run time and of deeper_kernels, whose members are then left out of the link. The CUDA files of the ops
# are compiled once more, as C++, with launches that are closures.
set(fake ${CMAKE_CURRENT_SOURCE_DIR}/kernels/fake_cuda)
file(GLOB_RECURSE op_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/ops/*.cu ${PROJECT_SOURCE_DIR}/kernels/cuda/plans/*.cu)
set_source_files_properties(${op_sources} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS -O3)
add_library(fake_cuda OBJECT ${fake}/api.cpp ${fake}/capture.cpp ${fake}/cublaslt.cpp ${fake}/cudnn.cpp ${fake}/errors.cpp ${fake}/libraries.cpp ${fake}/memory.cpp ${fake}/runtime.cpp ${op_sources})
target_include_directories(fake_cuda BEFORE PRIVATE ${fake}/include)
target_link_libraries(fake_cuda PRIVATE deeper_kernels CUDA::cublasLt cudnn nlohmann_json::nlohmann_json)

file(GLOB fake_tests CONFIGURE_DEPENDS ${fake}/*_test.cpp)
add_executable(fake_cuda_tests ${fake_tests} ${fake}/narrow_models.cpp $<TARGET_OBJECTS:fake_cuda>)
target_link_libraries(fake_cuda_tests PRIVATE test_device deeper_trainer threads_communicator nlohmann_json::nlohmann_json GTest::gmock)
set(narrow_models LINKER:--wrap=_ZN6deeper9MakeModelESt17basic_string_viewIcSt11char_traitsIcEERKNS_12ModelOptionsE)
target_link_options(fake_cuda_tests PRIVATE ${narrow_models})
gtest_discover_tests(fake_cuda_tests TEST_PREFIX "fake-cuda/" NO_PRETTY_VALUES PROPERTIES LABELS cuda TIMEOUT 300 DISCOVERY_TIMEOUT 60)

# The tests of ops and of training that run on a GPU, where there is one.
function(deeper_fake_cuda_tests folder filter)
  add_executable(${folder}_tests_on_fake_cuda $<FILTER:$<TARGET_OBJECTS:${folder}_tests>,EXCLUDE,/cuda/> $<TARGET_OBJECTS:fake_cuda>)
  target_link_libraries(${folder}_tests_on_fake_cuda PRIVATE ${ARGN} GTest::gmock)
  gtest_discover_tests(${folder}_tests_on_fake_cuda TEST_PREFIX "fake-cuda/${folder}/" NO_PRETTY_VALUES TEST_FILTER ${filter} TEST_LIST ${folder}_fake_cuda DISCOVERY_TIMEOUT 60
                       PROPERTIES LABELS cuda TIMEOUT 600 ENVIRONMENT DEEPER_TEST_DEVICE=cuda)
endfunction()
deeper_fake_cuda_tests(kernels *Arrays*:*Conv2d*:*Dropout*:*Finite*:*Flatten*:*Images*:*Inception*:*Linear*:*Lrn*:*Ops*:*Pool*:*Sgd*:*Softmax*-*OnGpu*:*DeathTest*
                       test_device nlohmann_json::nlohmann_json)
target_sources(kernels_tests_on_fake_cuda PRIVATE kernels/cuda/plans/device_gpu_test.cpp kernels/cuda/tensor_core/conv_gpu_test.cpp)  # for gpu-check
deeper_fake_cuda_tests(trainer *DeviceImages*:*DeviceTraining*-*OnGpu* deeper_trainer threads_communicator test_device PkgConfig::HDF5 nlohmann_json::nlohmann_json)

# The program itself: what it says, and how it ends, when a call fails or hangs.
add_executable(deeper_on_fake_cuda ${fake}/narrow_models.cpp $<TARGET_OBJECTS:deeper> $<TARGET_OBJECTS:fake_cuda>)
target_link_options(deeper_on_fake_cuda PRIVATE ${narrow_models})
target_link_libraries(deeper_on_fake_cuda PRIVATE test_device deeper_trainer absl::str_format PkgConfig::HDF5 JPEG::JPEG nlohmann_json::nlohmann_json)
add_test(NAME fake-cuda/failures COMMAND /usr/bin/python3 ${fake}/failures_test.py $<TARGET_FILE:deeper_on_fake_cuda> -v)
set_tests_properties(fake-cuda/failures PROPERTIES LABELS cuda TIMEOUT 900)

add_test(NAME fake-cuda/mutants COMMAND /usr/bin/python3 ${fake}/mutants.py --check)
set_tests_properties(fake-cuda/mutants PROPERTIES LABELS cuda TIMEOUT 60)
add_test(NAME fake-cuda/gpu-check COMMAND /usr/bin/python3 ${CMAKE_CURRENT_SOURCE_DIR}/launch/gpu_check_test.py ${PROJECT_SOURCE_DIR}/launch/gpu-check
         $<TARGET_FILE:deeper_on_fake_cuda> $<TARGET_FILE:kernels_tests_on_fake_cuda> $<TARGET_FILE:trainer_tests_on_fake_cuda> -v)
set_tests_properties(fake-cuda/gpu-check PROPERTIES LABELS cuda TIMEOUT 900)

# cuDNN itself on a fake driver: `DEEPER_ENGINES=all .../engines_tests` tries all proposals for all GPUs.
add_library(fake_libcuda SHARED ${fake}/driver/libcuda.cpp)
target_include_directories(fake_libcuda SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
target_link_libraries(fake_libcuda PRIVATE ${CMAKE_DL_LIBS})
set_target_properties(fake_libcuda PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/fake_libcuda PREFIX "" OUTPUT_NAME libcuda SUFFIX .so.1)
add_executable(engines_tests ${fake}/driver/engines_test.cpp)
target_compile_definitions(engines_tests PRIVATE DEEPER_FAKE_LIBCUDA="$<TARGET_FILE:fake_libcuda>")
target_link_libraries(engines_tests PRIVATE deeper_trainer GTest::gtest ${CMAKE_DL_LIBS})
add_dependencies(engines_tests fake_libcuda)
add_test(NAME fake-cuda/engines COMMAND engines_tests)
set_tests_properties(fake-cuda/engines PROPERTIES LABELS cuda TIMEOUT 300)
