# NcclCommunicator on a fake NCCL (fake_nccl.h), over the fake CUDA.
set(fake_nccl ${CMAKE_CURRENT_SOURCE_DIR}/comm/fake_nccl)
add_executable(fake_nccl_tests ${fake_nccl}/backends_test.cpp ${fake_nccl}/fake_nccl.cpp ${fake_nccl}/nccl_test.cpp ${fake_nccl}/training_test.cpp
               ${fake}/narrow_models.cpp comm/communicator_test.cpp comm/gradient_reducer_test.cpp $<TARGET_OBJECTS:fake_cuda>)
target_include_directories(fake_nccl_tests SYSTEM PRIVATE ${NCCL_INCLUDE_DIR})
target_link_libraries(fake_nccl_tests PRIVATE test_device deeper_trainer threads_communicator nlohmann_json::nlohmann_json GTest::gmock)
target_link_options(fake_nccl_tests PRIVATE ${narrow_models})
# On the fake, a thousand collectives in progress or 64 MB each take minutes.
gtest_discover_tests(fake_nccl_tests TEST_PREFIX "fake-nccl/" NO_PRETTY_VALUES TEST_FILTER -*ManyInFlight*:*SixtyFour* PROPERTIES LABELS cuda TIMEOUT 300 DISCOVERY_TIMEOUT 60)
