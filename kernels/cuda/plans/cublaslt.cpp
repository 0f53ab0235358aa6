#include "kernels/cuda/plans/cublaslt.h"

#include <cublasLt.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "kernels/base/status.h"

namespace deeper::cublaslt {
namespace {

constexpr int kMaxProposals = 16;
constexpr uint32_t kAlignment = 16;  // minimum alignment of all operands

absl::Status StatusOf(cublasStatus_t status) {
  if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  const std::string message =
      absl::StrCat("cuBLASLt: ", cublasLtGetStatusName(status), ": ", cublasLtGetStatusString(status));
  if (status == CUBLAS_STATUS_NOT_SUPPORTED) return Unimplemented(message);
  return Internal(message);
}

cudaDataType_t TypeOf(DType dtype) {
  return dtype == DType::kBf16 ? CUDA_R_16BF : CUDA_R_32F;
}

struct Destroy {
  void operator()(cublasLtMatmulDescOpaque_t* d) const { cublasLtMatmulDescDestroy(d); }
  void operator()(cublasLtMatrixLayoutOpaque_t* d) const { cublasLtMatrixLayoutDestroy(d); }
  void operator()(cublasLtMatmulPreferenceOpaque_t* d) const { cublasLtMatmulPreferenceDestroy(d); }
};
template <class T>
using Owned = std::unique_ptr<T, Destroy>;

struct TargetImpl final : Target {
  ~TargetImpl() override {
    if (handle != nullptr) cublasLtDestroy(handle);
  }

  cublasLtHandle_t handle = nullptr;
};

// A problem in cuBLASLt's terms. cuBLASLt is column-major, and a row-major matrix is the transpose of a
// column-major one. The call therefore computes the transpose of d, op(b)^T op(a)^T, with b as first and a as
// second operand. Its rows are our columns, one per element of the bias.
struct Description {
  template <class T>
  absl::Status Set(cublasLtMatmulDescAttributes_t name, const T& value) const {
    return StatusOf(cublasLtMatmulDescSetAttribute(operation.get(), name, &value, sizeof value));
  }
  // Before the run, only the pointer's alignment matters.
  absl::Status SetBias(const void* bias) const { return Set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias); }

  Owned<cublasLtMatmulDescOpaque_t> operation;
  Owned<cublasLtMatrixLayoutOpaque_t> a, b, d;
};

absl::StatusOr<std::shared_ptr<const Description>> Describe(const MatmulProblem& p) {
  for (const DType dtype : {p.in, p.out}) {
    if (dtype != DType::kBf16 && dtype != DType::kF32) {
      return Named(Unimplemented("element type ", NameOf(dtype)), p);
    }
  }
  auto made = std::make_shared<Description>();
  cublasLtMatmulDesc_t operation = nullptr;
  absl::Status status = StatusOf(cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  made->operation.reset(operation);
  if (!status.ok()) return Named(status, p);
  status.Update(made->Set(CUBLASLT_MATMUL_DESC_TRANSA, p.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N));
  status.Update(made->Set(CUBLASLT_MATMUL_DESC_TRANSB, p.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N));
  cublasLtEpilogue_t epilogue = p.relu ? CUBLASLT_EPILOGUE_RELU : CUBLASLT_EPILOGUE_DEFAULT;
  if (p.bias) epilogue = p.relu ? CUBLASLT_EPILOGUE_RELU_BIAS : CUBLASLT_EPILOGUE_BIAS;
  status.Update(made->Set(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue));
  if (p.bias) {
    status.Update(made->Set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, TypeOf(p.out)));
    status.Update(made->SetBias(reinterpret_cast<const void*>(uintptr_t{kAlignment})));
  }
  const auto layout = [&status](DType dtype, int64_t rows, int64_t columns, int64_t stride) {
    cublasLtMatrixLayout_t raw = nullptr;
    status.Update(StatusOf(cublasLtMatrixLayoutCreate(&raw, TypeOf(dtype), static_cast<uint64_t>(columns),
                                                      static_cast<uint64_t>(rows), stride)));
    return Owned<cublasLtMatrixLayoutOpaque_t>(raw);
  };
  made->a = layout(p.in, p.transpose_a ? p.k : p.m, p.transpose_a ? p.m : p.k, p.a_stride);
  made->b = layout(p.in, p.transpose_b ? p.n : p.k, p.transpose_b ? p.k : p.n, p.b_stride);
  made->d = layout(p.out, p.m, p.n, p.d_stride);
  if (!status.ok()) return Named(status, p);
  return made;
}

class MatmulAlgorithm final : public Algorithm {
 public:
  MatmulAlgorithm(const TargetImpl& target, const MatmulProblem& problem,
                  std::shared_ptr<const Description> description,
                  const cublasLtMatmulHeuristicResult_t& proposal)
      : target_(target), bias_(problem.bias), description_(std::move(description)), algo_(proposal.algo) {
    workspace_bytes_ = proposal.workspaceSize;
  }

  // The library guarantees this only for the version that created the algorithm.
  absl::StatusOr<std::string> Serialize() const override {
    return absl::BytesToHexString({reinterpret_cast<const char*>(&algo_), sizeof algo_});
  }

  absl::Status Enqueue(const PlanOperands& o, Stream stream) override {
    if (bias_) RETURN_IF_ERROR(description_->SetBias(o.bias));
    const float one = 1, zero = 0;
    return StatusOf(cublasLtMatmul(target_.handle, description_->operation.get(), &one, o.b,
                                   description_->b.get(), o.a, description_->a.get(), &zero, o.d,
                                   description_->d.get(), o.d, description_->d.get(), &algo_, o.workspace,
                                   workspace_bytes_, static_cast<cudaStream_t>(stream.native)));
  }

 private:
  const TargetImpl& target_;
  const bool bias_;
  const std::shared_ptr<const Description> description_;
  const cublasLtMatmulAlgo_t algo_;
};

class MatmulChoice final : public AlgorithmChoice {
 public:
  MatmulChoice(const TargetImpl& target, const MatmulProblem& problem,
               std::shared_ptr<const Description> description)
      : target_(target), problem_(problem), description_(std::move(description)) {}

  absl::Status Ask() override {
    cublasLtMatmulPreference_t raw = nullptr;
    absl::Status status = StatusOf(cublasLtMatmulPreferenceCreate(&raw));
    const Owned<cublasLtMatmulPreferenceOpaque_t> preference(raw);
    const auto set = [&](cublasLtMatmulPreferenceAttributes_t name, auto value) {
      if (status.ok())
        status = StatusOf(cublasLtMatmulPreferenceSetAttribute(raw, name, &value, sizeof value));
    };
    set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kMaxWorkspaceBytes);
    // Adds partial sums in fp32, not in the type of the output.
    set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
        static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
    for (const auto operand :
         {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
      set(operand, kAlignment);
    }
    std::vector<cublasLtMatmulHeuristicResult_t> results(kMaxProposals);
    int found = 0;
    if (status.ok()) {
      status = StatusOf(cublasLtMatmulAlgoGetHeuristic(
          target_.handle, description_->operation.get(), description_->b.get(), description_->a.get(),
          description_->d.get(), description_->d.get(), raw, kMaxProposals, results.data(), &found));
    }
    if (!status.ok()) return Named(status, problem_);
    results.resize(static_cast<size_t>(found));
    std::erase_if(results, [](const auto& result) { return result.state != CUBLAS_STATUS_SUCCESS; });
    proposals_ = std::move(results);
    if (!proposals_.empty()) return absl::OkStatus();
    return Named(Unimplemented("cuBLASLt has no algorithm for this problem"), problem_);
  }

  size_t size() const override { return proposals_.size(); }

  absl::StatusOr<std::unique_ptr<Algorithm>> Build(size_t index) const override {
    return Make(proposals_[index]);
  }

  absl::StatusOr<std::unique_ptr<Algorithm>> Load(const std::string& serialized) const override {
    cublasLtMatmulHeuristicResult_t result = {};
    const auto is_hex = [](unsigned char c) { return std::isxdigit(c) != 0; };
    if (serialized.size() != 2 * sizeof result.algo ||
        !std::all_of(serialized.begin(), serialized.end(), is_hex)) {
      return InvalidArgument("not an algorithm of cuBLASLt");
    }
    const std::string bytes = absl::HexStringToBytes(serialized);
    cublasLtMatmulAlgo_t algo;
    std::memcpy(&algo, bytes.data(), sizeof algo);
    const absl::Status status = StatusOf(cublasLtMatmulAlgoCheck(
        target_.handle, description_->operation.get(), description_->b.get(), description_->a.get(),
        description_->d.get(), description_->d.get(), &algo, &result));
    if (!status.ok()) return Named(status, problem_);
    result.algo = algo;
    if (result.workspaceSize > kMaxWorkspaceBytes) {
      return Named(ResourceExhausted("cuBLASLt: the algorithm needs too much workspace"), problem_);
    }
    return Make(result);
  }

 private:
  std::unique_ptr<Algorithm> Make(const cublasLtMatmulHeuristicResult_t& proposal) const {
    return std::make_unique<MatmulAlgorithm>(target_, problem_, description_, proposal);
  }

  const TargetImpl& target_;
  const MatmulProblem problem_;
  const std::shared_ptr<const Description> description_;
  std::vector<cublasLtMatmulHeuristicResult_t> proposals_;
};

}  // namespace

std::string Version() {
  const size_t version = cublasLtGetVersion();  // 130100
  return absl::StrCat(version / 10000, ".", version / 100 % 100, ".", version % 100);
}

absl::StatusOr<std::unique_ptr<Target>> MakeTarget() {
  auto target = std::make_unique<TargetImpl>();
  RETURN_IF_ERROR(StatusOf(cublasLtCreate(&target->handle)));
  return target;
}

absl::StatusOr<std::unique_ptr<AlgorithmChoice>> Choose(const Target& target, const MatmulProblem& problem) {
  ASSIGN_OR_RETURN(auto description, Describe(problem));
  return std::make_unique<MatmulChoice>(static_cast<const TargetImpl&>(target), problem,
                                        std::move(description));
}

}  // namespace deeper::cublaslt
