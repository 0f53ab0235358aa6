// The cost of a model, layer by layer, before anything is allocated: shapes, parameters,
// multiply-accumulates, and the bytes of float32 activations that training keeps. Totals are for training
// (all heads) and for inference (the main head). The comparisons of the GoogLeNet paper follow: the cost of a
// 5x5 branch, and other networks.
#pragma once

#include <cstdint>
#include <string>

#include "trainer/models/model.h"

namespace deeper {

// `model` as MakeModel returned it; MACs and activations are of one forward pass over `batch` images.
std::string DescribeText(const Model& model, int64_t batch);
std::string DescribeJson(const Model& model, int64_t batch);

}  // namespace deeper
