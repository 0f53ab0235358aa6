#include "trainer/monitor/step_meter.h"

#include <gtest/gtest.h>

#include <cmath>
#include <thread>
#include <vector>

#include "kernels/base/clock.h"
#include "tests/comm/threads_communicator.h"

namespace deeper {
namespace {

Model TwoHeads() {
  Model model;
  model.heads = {{"main", 0, 1.0f}, {"aux1", 0, 0.5f}};
  return model;
}

StepReport ExampleReport() {
  StepReport report;
  report.epoch = 1;
  report.global_rows = 4;
  report.samples = 0x600DC0DE;
  report.heads.resize(2);
  report.micro_losses = {6, 8, 2, 2};  // two micro-batches
  report.data_wait_ms = 1;
  report.compute_ms = 99;
  report.comm_wait_ms = 25;
  return report;
}

TEST(StepMeter, WritesTheDocumentedFields) {
  const Model model = TwoHeads();
  const auto comm = MakeSingleCommunicator();
  StepMeter meter(model, *comm);
  StepReport skipped = ExampleReport();
  skipped.finite = false;
  skipped.data_wait_ms = 26;
  meter.Add(skipped);
  meter.Add(ExampleReport());
  const double start = Milliseconds();
  while (Milliseconds() < start + 2) {
  }
  Event event = meter.Read(20, 0.125f, {0, 16, 128, 64});
  EXPECT_GE(event.fields.at("step_ms"), 1.0);  // of two steps, by the clock
  event.fields.erase("step_ms");
  EXPECT_EQ(event.name, "step");
  EXPECT_EQ(
      event.fields.dump(),
      R"({"step":20,"epoch":1,"loss":3.25,"loss_main":2.0,"loss_aux1":2.5,"lr":0.125,)"
      R"("images_per_second":29.09090909090909,"data_wait_ms":13.5,"compute_ms":99.0,"read_ms":8.0,)"
      R"("decode_ms":64.0,"augment_ms":32.0,"comm_exposed_ms":25.0,"peer_wait_ms":0.0,"compute_jitter":0.0,)"
      R"("compute_spread":0.0,)"
      R"("samples":"00000000c01b81bc","nonfinite_steps":1})");

  meter.Add(ExampleReport());  // since then
  const Event next = meter.Read(21, 0.125f, {0, 17, 128, 64});
  EXPECT_EQ(next.fields.at("images_per_second"), 32);
  EXPECT_EQ(next.fields.at("read_ms"), 1);
  EXPECT_EQ(next.fields.at("samples"), "00000000600dc0de");
  EXPECT_EQ(next.fields.at("nonfinite_steps"), 1);
}

// The sum is one of numbers modulo 2^64: a sanitizer finds an overflow.
TEST(StepMeter, SamplesOfVeryManySteps) {
  const Model model = TwoHeads();
  const auto comm = MakeSingleCommunicator();
  StepMeter meter(model, *comm);
  StepReport report = ExampleReport();
  report.samples = int64_t{1} << 62;
  for (int i = 0; i < 5; ++i) meter.Add(report);
  EXPECT_EQ(meter.Read(5, 0.125f, {}).fields.at("samples"), "4000000000000000");
}

TEST(StepMeter, DistinguishesJitterFromSlowRanks) {
  const Model model = TwoHeads();
  const auto comms = MakeThreadCommunicators(2);
  std::vector<Event> events(comms.size());
  std::vector<std::thread> ranks;
  for (size_t rank = 0; rank < comms.size(); ++rank) {
    ranks.emplace_back([&, rank] {
      StepMeter meter(model, *comms[rank]);
      for (const double compute_ms : {90, 110}) {
        StepReport report = ExampleReport();
        report.compute_ms = compute_ms + 100 * static_cast<double>(rank);
        meter.Add(report);
      }
      events[rank] = meter.Read(2, 0.1f, {});
    });
  }
  for (std::thread& rank : ranks) rank.join();
  for (const Event& event : events) {
    EXPECT_NEAR(event.fields.at("compute_jitter"), std::sqrt(200) / 150, 1e-9);
    EXPECT_NEAR(event.fields.at("compute_spread"), std::sqrt(5000 - 200 / 2) / 150, 1e-9);
  }
}

}  // namespace
}  // namespace deeper
