// Randomly changed WebDataset archives and CSV files, from the corpus of the fuzz targets. Reading them must
// fail, or give what ReadWebArchive and ParseCsv promise. $DEEPER_MUTATIONS: tests/mutate.h.
#include "tests/mutate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "tests/data/scratch.h"
#include "tests/fuzz/csv.h"
#include "tests/fuzz/tar_checksums.h"
#include "tests/fuzz/webdataset.h"

namespace deeper {
namespace {

// read(bytes, random): whether the changed file could be read.
void MutateAll(const char* folder, const auto& read) {
  std::vector<Bytes> seeds;
  for (const auto& file : std::filesystem::directory_iterator(std::string(DEEPER_FUZZ_CORPUS) + "/" + folder))
    seeds.push_back(ReadBytes(file.path()));
  std::ranges::sort(seeds);  // file systems list a folder in different orders
  ASSERT_FALSE(seeds.empty());
  int64_t accepted = 0;
  for (int64_t i = 0; i < Mutations(); ++i) {
    Random random(i);
    accepted += read(Mutate(seeds[random.Below(seeds.size())], &random), &random) ? 1 : 0;
  }
  EXPECT_GT(accepted, 0);
  EXPECT_LT(accepted, Mutations());
  std::printf("%s: %ld refused, %ld read\n", folder, Mutations() - accepted, accepted);
}

TEST(MutatedInputs, WebDatasetArchives) {
  MutateAll("webdataset", [](Bytes bytes, Random* random) {
    if (!bytes.empty()) bytes.erase(bytes.begin());  // the fuzz target's choice
    if (random->Below(2) == 0) PutChecksumsRight(&bytes);
    return CheckWebArchive(bytes);
  });
}

TEST(MutatedInputs, CsvFiles) {
  MutateAll("csv", [](const Bytes& bytes, Random*) {
    return CheckCsv({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  });
}

}  // namespace
}  // namespace deeper
