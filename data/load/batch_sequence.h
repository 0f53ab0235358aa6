// The batches of one rank, in order, as the loader's options have them: which rows of which global batch.
#pragma once

#include <cstdint>

#include "data/load/loader.h"
#include "data/load/sample_order.h"

namespace deeper {

// A batch before anything is read.
struct BatchPlan {
  Batch batch;           // all but the pointers and wait_ms
  int64_t first = 0;     // position, in the epoch's order, of row 0
  int64_t distinct = 0;  // rows to read; row i beyond them repeats row i % distinct
};

class BatchSequence {
 public:
  // Of an epoch of so many samples. `options` as MakeLoader checked them.
  BatchSequence(int64_t samples, const LoaderOptions& options);

  bool done() const { return options_.epochs != 0 && epoch_ >= options_.epochs; }
  BatchPlan Next();

 private:
  Slice Rows() const;
  int64_t GlobalRows() const;
  void StartBatch();

  const int64_t samples_;
  const LoaderOptions options_;
  uint32_t epoch_;
  int64_t batch_;
  int micro_ = 0, micros_ = 1;
};

}  // namespace deeper
