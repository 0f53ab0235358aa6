// Notices a classifier that has not learned anything: a mean loss that sits at ln(classes), the loss of
// guessing. GoogLeNets trained from scratch do this (BVLC/caffe #1598, #6256), and nothing else in a log
// shows it early.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "trainer/models/model.h"

namespace deeper {

class StuckHeads {
 public:
  // Looks at the mean over each `window` steps.
  StuckHeads(const Model& model, int64_t window);

  // Mean losses of the heads at one step, unweighted, in the order of Model::heads. A warning for every head
  // that was stuck for the whole window that ends here, once a head; usually empty.
  std::vector<std::string> Observe(int64_t step, const std::vector<double>& losses);

 private:
  struct State {
    std::string name;
    double sum = 0;
    bool warned = false;
  };
  std::vector<State> heads_;
  double chance_;  // ln(classes)
  int64_t classes_, window_, seen_ = 0;
};

}  // namespace deeper
