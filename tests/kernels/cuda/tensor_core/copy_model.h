// A check of the pipeline of conv_pipeline.h for sm_80. All threads execute the same operations, and
// Synchronize() separates them into epochs. Operations of different threads in an epoch have no order.
// cp.async lands as late as the waits allow.
#pragma once

#include <array>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/tensor_core/conv_pipeline.h"

namespace deeper::conv {

// The machine of CopyAndMultiply and SpreadAndMultiply, which checks the operations as they come. A step is
// multiplied in kParts parts.
template <int kStages, int kParts>
class CopyModel {
 public:
  void Copy(int step, int stage) {
    if (!Exists(stage)) return;
    const Stage& old = stages_[static_cast<size_t>(stage)];
    const std::string what = N("stage ", stage) + N(" is filled with step ", step);
    if (old.step >= 0 && old.landed == kNever) Fail(what + " while earlier copies may still arrive");
    if (old.step >= multiplied_ / kParts) Fail(what + N(" before step ", old.step) + " is read");
    if (old.read >= epoch_) Fail(what + " while a thread may still read it");
    stages_[static_cast<size_t>(stage)] = {step};
    open_.push_back(stage);
  }
  void CommitCopies() { groups_.push_back(std::exchange(open_, {})); }
  template <int kPending>
  void WaitForCopies() {
    for (; groups_.size() > kPending; groups_.pop_front()) {
      for (const int stage : groups_.front()) stages_[static_cast<size_t>(stage)].landed = epoch_;
    }
  }
  void Synchronize() { ++epoch_; }
  void Spread(int step, int stage, int part) {
    if (!Exists(stage)) return;
    Stage& to = stages_[static_cast<size_t>(stage)];
    if (to.step != step)
      Fail(N("step ", step) + N(" is spread to stage ", stage) + N(", which has step ", to.step));
    if (part != to.spread++) Fail(N("a part out of order: spread of step ", step));
    to.written = epoch_;
  }
  void Multiply(int step, int stage, int part = 0) {
    if (!Exists(stage)) return;
    Stage& from = stages_[static_cast<size_t>(stage)];
    const std::string what = N("step ", step) + N(" multiplies stage ", stage);
    if (from.step != step) Fail(what + N(", which has step ", from.step));
    if (from.landed == kNever) Fail(what + " before its copies have arrived");
    if (from.landed >= epoch_) Fail(what + " before the copies of all threads have arrived");
    if (kParts > 1 && from.spread < kParts) Fail(what + " before all of it is spread");
    if (from.written >= epoch_) Fail(what + " before all threads have spread it");
    if (step * kParts + part != multiplied_++) Fail(N("a product out of order: step ", step));
    from.read = epoch_;
  }

  // After the loop.
  std::string FindFault(int steps) {
    for (const auto& group : groups_) {
      if (!group.empty()) Fail("the loop ends while copies are under way");
    }
    if (multiplied_ != steps * kParts) Fail(N("", multiplied_) + N(" products instead of ", steps * kParts));
    return fault_;
  }

 private:
  static constexpr int kNever = 1 << 30;
  struct Stage {
    int step = -1;
    int landed = kNever, written = -1, read = -1;  // epochs
    int spread = 0;                                // parts
  };

  static std::string N(const char* name, int number) { return name + std::to_string(number); }
  void Fail(const std::string& fault) {
    if (fault_.empty()) fault_ = fault;
  }
  bool Exists(int stage) {
    if (stage >= 0 && stage < kStages) return true;
    Fail("an access outside the stages");
    return false;
  }

  std::array<Stage, kStages> stages_ = {};
  std::vector<int> open_;                // stages of the open group
  std::deque<std::vector<int>> groups_;  // those that may be under way
  int epoch_ = 0, multiplied_ = 0;       // parts
  std::string fault_;
};

inline std::string FaultOfCopies(int steps) {
  CopyModel<kCopyStages, 1> model;
  CopyAndMultiply<kCopyStages>(steps, model);
  return model.FindFault(steps);
}

inline std::string FaultOfBands(int bands) {
  CopyModel<kBandStages, 2> model;
  SpreadAndMultiply(bands, model);
  return model.FindFault(bands);
}

}  // namespace deeper::conv
