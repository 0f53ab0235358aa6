#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "kernels/base/exit_code.h"
#include "tests/trainer/monitor/watched.h"

namespace deeper {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Two ranks find bad samples: 3 on both, 5 and 7 on one each.
TEST(BadSamples, CountsThoseOfAllRanksOnceAndEndsTheRunOnAllAlike) {
  auto comms = MakeThreadCommunicators(2);
  std::vector<std::thread> threads;
  for (const auto& comm : comms) {
    threads.emplace_back([&comm] {
      const Model model;
      FakeLoader loader;
      Watched watched{WatchBadSamples({.model = model, .comm = *comm, .loader = loader, .allow_bad = 2})};
      EXPECT_EQ(watched.Observe({}, true), absl::OkStatus());
      EXPECT_EQ(watched.monitor->Summary(), "");
      loader.bad = {{3, "sample 3: bad\tJPEG"}};
      if (comm->rank() == 1) loader.bad[5] = "sample 5: empty";
      EXPECT_EQ(watched.Observe({}, false), absl::OkStatus());
      EXPECT_THAT(watched.events, IsEmpty());
      EXPECT_EQ(watched.Observe({}, true), absl::OkStatus());
      EXPECT_THAT(watched.Texts(),
                  ElementsAre("warning: replaced sample 3: bad\tJPEG", "warning: replaced sample 5: empty"));
      EXPECT_EQ(watched.events[1].fields.dump(), R"({"step":3,"what":"sample 5: empty"})");
      EXPECT_EQ(watched.monitor->Summary(),
                "warning: 2 samples could not be read and were replaced by others");
      if (comm->rank() == 0) loader.bad[7] = "sample 7: cut off";
      const absl::Status status = watched.Observe({}, true);
      EXPECT_EQ(ExitCodeOf(status), ExitCode::kData);
      EXPECT_THAT(std::string(status.message()),
                  HasSubstr("3 samples cannot be read, --allow_bad=2 allows fewer; the last one: sample 7"));
      EXPECT_EQ(watched.events.size(), 2u);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace deeper
