// Small data sets, packed and unpacked.
#pragma once

#include <string>

#include "data/pack/pack.h"
#include "tests/data/test_images.h"

namespace deeper {

inline void AppendWord(uint32_t word, Bytes* bytes) {
  for (int shift = 24; shift >= 0; shift -= 8) bytes->push_back(static_cast<uint8_t>(word >> shift));
}

inline Bytes IdxImages(uint32_t samples, uint32_t height, uint32_t width) {
  Bytes file;
  for (const uint32_t word : {0x803u, samples, height, width}) AppendWord(word, &file);
  for (uint32_t i = 0; i < samples; ++i) {
    const Image image = MakeImage(static_cast<int>(height), static_cast<int>(width), 1, static_cast<int>(i));
    file.insert(file.end(), image.pixels.begin(), image.pixels.end());
  }
  return file;
}

inline Bytes IdxLabels(const Bytes& labels) {
  Bytes file;
  AppendWord(0x801, &file);
  AppendWord(static_cast<uint32_t>(labels.size()), &file);
  file.insert(file.end(), labels.begin(), labels.end());
  return file;
}

// Sample i is MakeImage(7, 9, 1, i) with label i % 10.
inline void WriteIdx(const std::string& dir, const std::string& prefix, uint32_t samples) {
  Bytes labels;
  for (uint32_t i = 0; i < samples; ++i) labels.push_back(static_cast<uint8_t>(i % 10));
  WriteBytes(dir + "/" + prefix + "-images-idx3-ubyte", IdxImages(samples, 7, 9));
  WriteBytes(dir + "/" + prefix + "-labels-idx1-ubyte", IdxLabels(labels));
}

// 24 IDX samples in 3 shards of 8.
inline PackOptions SmallIdx(const ScratchDir& dir) {
  WriteIdx(dir / "idx", "train", 24);
  PackOptions options;
  options.format = "idx";
  options.input = dir / "idx";
  options.output = dir / "out";
  options.shard_size = 8 * 64;
  options.jobs = 2;
  return options;
}

}  // namespace deeper
