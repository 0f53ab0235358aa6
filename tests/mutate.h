// Random changes to files, for tests of readers. $DEEPER_MUTATIONS is the number of each kind, 300 by
// default.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

namespace deeper {

inline int64_t Mutations() {
  const char* asked = std::getenv("DEEPER_MUTATIONS");
  return asked == nullptr ? 300 : std::atoll(asked);
}

class Random {
 public:
  explicit Random(int64_t seed) : engine_(static_cast<uint64_t>(seed)) {}
  size_t Below(size_t limit) { return static_cast<size_t>(engine_() % std::max<size_t>(1, limit)); }
  // A value that makes sums overflow, lies on either side of a limit, or is another of `size` offsets.
  uint64_t Crafted(size_t size) {
    const std::array<uint64_t, 8> numbers = {
        0, 1, size, size - 1, 1u << 31, 1ull << 32, 1ull << 63, std::numeric_limits<uint64_t>::max()};
    const size_t choice = Below(2 * numbers.size());
    return choice < numbers.size() ? numbers[choice] - Below(3) : Below(size);
  }

 private:
  std::mt19937_64 engine_;
};

// One to four changes of the kinds that disks, transfers and attackers make.
inline std::vector<uint8_t> Mutate(std::vector<uint8_t> bytes, Random* random) {
  for (size_t change = random->Below(4) + 1; change > 0 && !bytes.empty(); --change) {
    const size_t at = random->Below(bytes.size());
    const size_t count = std::min(bytes.size() - at, random->Below(64) + 1);
    const auto begin = bytes.begin() + static_cast<ptrdiff_t>(at);
    switch (random->Below(7)) {
      case 0:
        bytes[at] ^= static_cast<uint8_t>(1 << random->Below(8));
        break;
      case 1:
        bytes[at] = static_cast<uint8_t>(random->Below(256));
        break;
      case 2:
        std::fill_n(begin, count, random->Below(2) == 0 ? uint8_t{0} : uint8_t{0xff});
        break;
      case 3:
        std::copy_n(bytes.begin() + static_cast<ptrdiff_t>(random->Below(bytes.size() - count + 1)), count,
                    begin);
        break;
      case 4:
        bytes.erase(begin, begin + static_cast<ptrdiff_t>(count));
        break;
      case 5: {
        const uint64_t number = random->Crafted(bytes.size());
        std::memcpy(&bytes[at], &number, std::min(count, random->Below(2) == 0 ? size_t{4} : size_t{8}));
        break;
      }
      default:
        bytes.resize(at);
    }
  }
  return bytes;
}

}  // namespace deeper
