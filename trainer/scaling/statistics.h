// Statistics of repeated measurements.
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

// values: at least one. If there are two in the middle, Median is their mean, LowerMedian the lower.
double Median(std::vector<double> values);
double LowerMedian(std::vector<double> values);
// The median of over[i] / under[i]. Both have the same length.
double MedianRatio(const std::vector<double>& over, const std::vector<double>& under);

struct Interval {
  double low = 0, high = 0;
};
// The 95 % confidence interval of the mean of at least two normal, independent values (Student 1908).
Interval MeanInterval(const std::vector<double>& values);

}  // namespace deeper
