// Of repeated measurements.
#pragma once

#include <vector>

namespace deeper {

// values: at least one. Of two in the middle, their mean, or the lower one.
double Median(std::vector<double> values);
double LowerMedian(std::vector<double> values);

struct Interval {
  double low = 0, high = 0;
};
// In which the mean lies with a confidence of 95 %, if the values are normal and independent (Student 1908).
// values: at least two.
Interval MeanInterval(const std::vector<double>& values);

}  // namespace deeper
