// Of repeated measurements.
#pragma once

#include <vector>

#include "kernels/base/clock.h"

namespace deeper {

// How long `work` takes.
template <class Work>
double SecondsOf(const Work& work) {
  const double start = Seconds();
  work();
  return Seconds() - start;
}

// values: at least one. Of two in the middle, their mean, or the lower one.
double Median(std::vector<double> values);
double LowerMedian(std::vector<double> values);
// The median of over[i] / under[i]. Both are as long as the other.
double MedianRatio(const std::vector<double>& over, const std::vector<double>& under);

struct Interval {
  double low = 0, high = 0;
};
// Of the mean, with a confidence of 95 %, of at least two normal and independent values (Student 1908).
Interval MeanInterval(const std::vector<double>& values);

}  // namespace deeper
