// The algorithms for a problem, from a library or from our own kernels.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "kernels/base/check.h"
#include "kernels/cuda/plans/cuda_problem.h"

namespace deeper {

// Returns the status with the problem prepended to its message.
template <class Problem>
absl::Status Named(const absl::Status& status, const Problem& problem) {
  return status.ok() ? status
                     : absl::Status(status.code(), absl::StrCat(ToString(problem), ": ", status.message()));
}

// One algorithm, ready to run.
class Algorithm {
 public:
  virtual ~Algorithm() = default;
  size_t workspace_bytes() const { return workspace_bytes_; }
  // Whether its results must be compared with a library's before use. Serialize then returns its name.
  virtual bool needs_check() const { return false; }
  // The form from which AlgorithmChoice::Load recreates it.
  virtual absl::StatusOr<std::string> Serialize() const = 0;
  virtual absl::Status Enqueue(const PlanOperands& operands, Stream stream) = 0;
  // What it executes; not known for libraries.
  virtual KernelWork ExpectedWork() const { return {}; }

  // What it does while it is on trial for a problem (kernels/base/trial.h).
  std::string NameOfTrial(const std::string& problem) const {
    const std::string name =
        needs_check() ? Serialize().value_or("a kernel of deeper") : "a library algorithm";
    return absl::StrCat("on trial: ", name, " for ", problem);
  }

 protected:
  size_t workspace_bytes_ = 0;
};

// All algorithms that the library proposes for one problem, the most promising first.
class AlgorithmChoice {
 public:
  virtual ~AlgorithmChoice() = default;
  // Requests the library's proposals; call it before size and Build. Unimplemented if there are none; the
  // message contains the problem.
  virtual absl::Status Ask() = 0;
  virtual size_t size() const = 0;
  // Fails if the proposal turns out not to work: the library does not guarantee its proposals. Several
  // threads may call it at a time; their current GPU is that of the choice.
  virtual absl::StatusOr<std::unique_ptr<Algorithm>> Build(size_t index) const = 0;
  virtual absl::StatusOr<std::unique_ptr<Algorithm>> Load(const std::string& serialized) const = 0;
};

// Joins the proposals of two choices.
class BothChoices final : public AlgorithmChoice {
 public:
  BothChoices(std::unique_ptr<AlgorithmChoice> first, std::unique_ptr<AlgorithmChoice> second)
      : first_(std::move(first)), second_(std::move(second)) {}

  absl::Status Ask() override {
    const absl::Status first = first_->Ask(), second = second_->Ask();
    return size() > 0 ? absl::OkStatus() : first.ok() ? second : first;
  }
  size_t size() const override { return first_->size() + second_->size(); }
  absl::StatusOr<std::unique_ptr<Algorithm>> Build(size_t index) const override {
    return index < first_->size() ? first_->Build(index) : second_->Build(index - first_->size());
  }
  absl::StatusOr<std::unique_ptr<Algorithm>> Load(const std::string& serialized) const override {
    absl::StatusOr<std::unique_ptr<Algorithm>> loaded = first_->Load(serialized);
    return loaded.ok() ? std::move(loaded) : second_->Load(serialized);
  }

 private:
  const std::unique_ptr<AlgorithmChoice> first_, second_;
};

// An algorithm as ops use it.
class AlgorithmPlan final : public CudaPlan {
 public:
  AlgorithmPlan(CudaDevice& device, const Launch& launch, std::unique_ptr<Algorithm> algorithm,
                size_t workspace_bytes)
      : device_(device), launch_(launch), algorithm_(std::move(algorithm)) {
    workspace_bytes_ = workspace_bytes;
  }

  void Run(const PlanOperands& operands) override {
    if (!device_.Begin(launch_)) return;
    const absl::Status status = algorithm_->Enqueue(operands, device_.stream());
    DEEPER_CHECK(status.ok(), absl::StrCat(launch_.name, ": ", status.message()));
    device_.End();
  }

 private:
  CudaDevice& device_;
  const Launch launch_;
  const std::unique_ptr<Algorithm> algorithm_;
};

}  // namespace deeper
