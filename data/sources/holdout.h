// Divides a source into two parts, so that a recipe can be tuned on images that are neither trained on nor
// the test set.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "data/sources/source.h"

namespace deeper {

enum class SourcePart { kRest, kHoldout };

// A part of `source`, in its order. The hold-out is a random sample of `holdout` samples, which only `seed`
// and the labels determine. Each class has its share, rounded down or up. InvalidArgument: there are no more
// samples than that.
absl::StatusOr<std::unique_ptr<ImageSource>> TakePart(std::unique_ptr<ImageSource> source, SourcePart part,
                                                      int64_t holdout, uint64_t seed);

}  // namespace deeper
