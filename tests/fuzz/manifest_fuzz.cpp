// The text of a manifest.json, unchanged and with a corrected checksum, which mutations would not find.
#include <nlohmann/json.hpp>
#include <string>

#include "data/io/checksum.h"
#include "data/shards/manifest.h"
#include "tests/fuzz/fuzz.h"

namespace {

std::string WithChecksum(const uint8_t* data, size_t size) {
  using nlohmann::json;
  json document = json::parse(data, data + size, nullptr, /*allow_exceptions=*/false);
  if (!document.is_object()) return "";
  document.erase("checksum");
  const auto dump = [&] { return document.dump(-1, ' ', false, json::error_handler_t::replace); };
  const std::string text = dump();
  document["checksum"] = deeper::Xxh3(text.data(), text.size()).Hex();
  return dump();
}

void Check(std::span<const uint8_t> text) {
  const auto manifest = deeper::ParseManifest(text, "manifest.json");
  if (!manifest.ok()) return;
  for (const auto& [name, split] : manifest->splits) {
    const auto channels = static_cast<size_t>(split.channels);
    FUZZ_CHECK(channels == 1 || channels == 3);
    FUZZ_CHECK(split.stats.mean.size() == channels && split.stats.stddev.size() == channels);
    FUZZ_CHECK(split.height >= 0 && split.width >= 0 && split.samples > 0);
    __int128 samples = 0;
    for (const deeper::ShardEntry& shard : split.shards) samples += shard.samples;
    FUZZ_CHECK(samples == split.samples);
  }
}

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Check({data, size});
  const std::string text = WithChecksum(data, size);
  Check({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
  return 0;
}
