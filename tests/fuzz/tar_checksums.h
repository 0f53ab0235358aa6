// Corrects the checksums of tar headers, which mutations would not achieve.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

namespace deeper {

// Takes every block that is not zero for a header.
inline void PutChecksumsRight(std::vector<uint8_t>* bytes) {
  for (size_t at = 0; at + 512 <= bytes->size(); at += 512) {
    uint8_t* block = &(*bytes)[at];
    if (std::all_of(block, block + 512, [](uint8_t byte) { return byte == 0; })) continue;
    std::memset(block + 148, ' ', 8);
    unsigned sum = 0;
    for (size_t i = 0; i < 512; ++i) sum += block[i];
    std::snprintf(reinterpret_cast<char*>(block + 148), 8, "%06o", sum);
  }
}

}  // namespace deeper
