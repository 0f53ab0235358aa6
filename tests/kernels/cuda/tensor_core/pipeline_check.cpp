// Prints the first fault of the pipelines, for pipeline_mutants.py, which compiles it with other versions of
// conv_pipeline.h. Exit status 1: there is one.
#include <cstdio>
#include <string>

#include "tests/kernels/cuda/tensor_core/copy_model.h"
#include "tests/kernels/cuda/tensor_core/pipeline_model.h"

namespace deeper::conv {
namespace {

std::string FirstFault() {
  std::string fault = FaultOfCopies(8);
  if (fault.empty()) fault = FaultOfBands(8);
  const Gemm one_tap = {.height = 8, .width = 8, .depth = 8 * kStepDepth, .columns = 128};
  const Gemm rows = {.height = 8, .width = 8, .depth = 4 * kStepDepth, .columns = 64, .kernel = 3};
  if (fault.empty()) fault = FaultOfBarriers<false, 128, 1>(one_tap);
  if (fault.empty()) fault = FaultOfBarriers<true, 128, 1>(one_tap);
  if (fault.empty()) fault = FaultOfBarriers<false, 64, 3>(rows);
  if (fault.empty()) fault = FaultOfDwBarriers<128>(8);
  return fault;
}

}  // namespace
}  // namespace deeper::conv

int main() {
  const std::string fault = deeper::conv::FirstFault();
  std::puts(fault.empty() ? "no fault" : fault.c_str());
  return fault.empty() ? 0 : 1;
}
