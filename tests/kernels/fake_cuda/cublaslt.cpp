// cuBLASLt, as far as deeper calls it, in naive loops.
#include <cublasLt.h>

#include <cstring>
#include <map>
#include <memory>
#include <vector>

#include "kernels/cuda/plans/cuda_problem.h"
#include "tests/kernels/fake_cuda/naive_launch.h"
#include "tests/kernels/host_plans.h"

using deeper::DType;
using deeper::fake_cuda::Fail;

namespace {

constexpr int kAlgorithms = 2;

struct Description : cublasLtMatmulDescOpaque_t {
  cublasComputeType_t compute;
  std::map<cublasLtMatmulDescAttributes_t, std::vector<std::byte>> attributes;

  template <class T>
  T Get(cublasLtMatmulDescAttributes_t name, T otherwise) const {
    const auto found = attributes.find(name);
    if (found == attributes.end()) return otherwise;
    if (found->second.size() != sizeof(T)) Fail("cuBLASLt: an attribute of another size");
    std::memcpy(&otherwise, found->second.data(), sizeof(T));
    return otherwise;
  }
};

struct Layout : cublasLtMatrixLayoutOpaque_t {
  cudaDataType type;
  int64_t rows, columns, stride;
};

struct Preference : cublasLtMatmulPreferenceOpaque_t {
  uint64_t workspace_bytes = 0;
};

DType TypeOf(cudaDataType type) {
  if (type != CUDA_R_16BF && type != CUDA_R_32F) Fail("cuBLASLt: an unknown element type");
  return type == CUDA_R_16BF ? DType::kBf16 : DType::kF32;
}

// A column-major product, as the row-major one that it is: its first operand is our second.
deeper::MatmulProblem ProblemOf(cublasLtMatmulDesc_t operation, cublasLtMatrixLayout_t first,
                                cublasLtMatrixLayout_t second, cublasLtMatrixLayout_t result) {
  const auto& description = *static_cast<const Description*>(operation);
  const auto &b = *static_cast<const Layout*>(first), &a = *static_cast<const Layout*>(second),
             &d = *static_cast<const Layout*>(result);
  if (description.compute != CUBLAS_COMPUTE_32F) Fail("cuBLASLt: sums that are not in fp32");
  if (a.type != b.type) Fail("cuBLASLt: operands of two types");
  deeper::MatmulProblem p = {.in = TypeOf(a.type), .out = TypeOf(d.type)};
  p.transpose_b = description.Get(CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_N) == CUBLAS_OP_T;
  p.transpose_a = description.Get(CUBLASLT_MATMUL_DESC_TRANSB, CUBLAS_OP_N) == CUBLAS_OP_T;
  p.m = d.columns;
  p.n = d.rows;
  p.k = p.transpose_a ? a.columns : a.rows;
  const auto fits = [](const Layout& x, int64_t rows, int64_t columns) {
    return x.rows == rows && x.columns == columns && x.stride >= rows;
  };
  if (!fits(a, p.transpose_a ? p.m : p.k, p.transpose_a ? p.k : p.m) ||
      !fits(b, p.transpose_b ? p.k : p.n, p.transpose_b ? p.n : p.k) || d.stride < d.rows)
    Fail("cuBLASLt: matrices whose sizes do not match");
  p.a_stride = a.stride;
  p.b_stride = b.stride;
  p.d_stride = d.stride;
  const auto epilogue = description.Get(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_DEFAULT);
  p.relu = epilogue == CUBLASLT_EPILOGUE_RELU || epilogue == CUBLASLT_EPILOGUE_RELU_BIAS;
  p.bias = epilogue == CUBLASLT_EPILOGUE_BIAS || epilogue == CUBLASLT_EPILOGUE_RELU_BIAS;
  if (p.bias && TypeOf(description.Get(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, CUDA_R_8I)) != p.out)
    Fail("cuBLASLt: a bias of another type than the output");
  return p;
}

}  // namespace

extern "C" {

size_t cublasLtGetVersion() {
  return 120000;
}
const char* cublasLtGetStatusName(cublasStatus_t status) {
  return status == CUBLAS_STATUS_NOT_SUPPORTED ? "CUBLAS_STATUS_NOT_SUPPORTED" : "CUBLAS_STATUS_OF_THE_FAKE";
}
const char* cublasLtGetStatusString(cublasStatus_t) {
  return "as a script says";
}
cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  if (deeper::fake_cuda::Fails("cublasLtCreate")) return CUBLAS_STATUS_NOT_INITIALIZED;
  *handle = reinterpret_cast<cublasLtHandle_t>(new int);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  delete reinterpret_cast<int*>(handle);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* made, cublasComputeType_t compute,
                                        cudaDataType_t) {
  if (deeper::fake_cuda::Fails("cublasLtMatmulDescCreate")) return CUBLAS_STATUS_INVALID_VALUE;
  auto* const description = new Description;
  description->compute = compute;
  *made = description;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t description) {
  delete static_cast<Description*>(description);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t description,
                                              cublasLtMatmulDescAttributes_t name, const void* value,
                                              size_t bytes) {
  if (deeper::fake_cuda::Fails("cublasLtMatmulDescSetAttribute")) return CUBLAS_STATUS_INVALID_VALUE;
  const auto* const begin = static_cast<const std::byte*>(value);
  static_cast<Description*>(description)->attributes[name].assign(begin, begin + bytes);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* made, cudaDataType type, uint64_t rows,
                                          uint64_t columns, int64_t stride) {
  if (deeper::fake_cuda::Fails("cublasLtMatrixLayoutCreate")) return CUBLAS_STATUS_INVALID_VALUE;
  auto* const layout = new Layout;
  layout->type = type;
  layout->rows = static_cast<int64_t>(rows);
  layout->columns = static_cast<int64_t>(columns);
  layout->stride = stride;
  *made = layout;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete static_cast<Layout*>(layout);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* made) {
  if (deeper::fake_cuda::Fails("cublasLtMatmulPreferenceCreate")) return CUBLAS_STATUS_INVALID_VALUE;
  *made = new Preference;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  delete static_cast<Preference*>(preference);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t name,
                                                    const void* value, size_t bytes) {
  if (deeper::fake_cuda::Fails("cublasLtMatmulPreferenceSetAttribute")) return CUBLAS_STATUS_INVALID_VALUE;
  if (name == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES)
    std::memcpy(&static_cast<Preference*>(preference)->workspace_bytes, value, bytes);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t operation,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t* results, int* found) {
  if (deeper::fake_cuda::Fails("cublasLtMatmulAlgoGetHeuristic")) return CUBLAS_STATUS_INVALID_VALUE;
  ProblemOf(operation, a, b, d);
  if (static_cast<Preference*>(preference)->workspace_bytes < deeper::fake_cuda::kNaiveWorkspaceBytes)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  for (*found = 0; *found < kAlgorithms && *found < wanted; ++*found) {
    results[*found] = {};
    results[*found].algo.data[0] = static_cast<uint64_t>(*found + 1);
    results[*found].workspaceSize = deeper::fake_cuda::kNaiveWorkspaceBytes;
  }
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t, cublasLtMatmulDesc_t operation,
                                       cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                       cublasLtMatrixLayout_t, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t* algorithm,
                                       cublasLtMatmulHeuristicResult_t* result) {
  if (deeper::fake_cuda::Fails("cublasLtMatmulAlgoCheck")) return CUBLAS_STATUS_INVALID_VALUE;
  ProblemOf(operation, a, b, d);
  if (algorithm->data[0] == 0 || algorithm->data[0] > kAlgorithms) return CUBLAS_STATUS_NOT_SUPPORTED;
  result->workspaceSize = deeper::fake_cuda::kNaiveWorkspaceBytes;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t operation, const void* alpha,
                              const void* a, cublasLtMatrixLayout_t a_layout, const void* b,
                              cublasLtMatrixLayout_t b_layout, const void* beta, const void*,
                              cublasLtMatrixLayout_t, void* d, cublasLtMatrixLayout_t d_layout,
                              const cublasLtMatmulAlgo_t* algorithm, void* workspace, size_t workspace_bytes,
                              cudaStream_t stream) {
  if (deeper::fake_cuda::Fails("cublasLtMatmul")) return CUBLAS_STATUS_EXECUTION_FAILED;
  if (*static_cast<const float*>(alpha) != 1 || *static_cast<const float*>(beta) != 0)
    Fail("cuBLASLt: factors other than 1 and 0");
  if (algorithm->data[0] == 0 || workspace_bytes < deeper::fake_cuda::kNaiveWorkspaceBytes)
    return CUBLAS_STATUS_INVALID_VALUE;
  const deeper::MatmulProblem problem = ProblemOf(operation, a_layout, b_layout, d_layout);
  const auto* const bias =
      static_cast<Description*>(operation)->Get<const void*>(CUBLASLT_MATMUL_DESC_BIAS_POINTER, nullptr);
  const std::shared_ptr<deeper::CudaPlan> plan = deeper::testing::MakeHostPlan(problem);
  const cudaError_t error = deeper::fake_cuda::LaunchNaive(
      deeper::ToString(problem), plan,
      {.a = b, .b = a, .d = d, .workspace = workspace, .bias = problem.bias ? bias : nullptr}, stream);
  return error == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

}  // extern "C"
