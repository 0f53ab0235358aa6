#include "data/shards/verify_shards.h"

#include <cstdio>

#include "kernels/base/exit_code.h"
#include "kernels/base/status.h"
#include "launch/cli/command.h"
#include "trainer/checkpoint/checkpoint_directory.h"

namespace deeper {
namespace {

constexpr CommandText kText = {
    .name = "verify",
    .summary = "checks every checksum of packed data or checkpoints",
    .operands = "",
    .details =
        R"(Reads all files of a packed data set or of checkpoints, and compares them with their checksums.
Prints every problem with its place. Exit code 3: the data are damaged. Exit code 4: a checkpoint is
damaged.)",
    .examples = R"(deeper verify --data=datasets/fashion-mnist
deeper verify --checkpoint=runs/fashion-mnist)",
};

class VerifyCommand final : public Command {
 public:
  VerifyCommand() : Command(kText) {}

  std::vector<FlagGroup> Flags() override {
    return {
        {"Input",
         {{"data", &data_, "directory that `pack` wrote"},
          {"checkpoint", &checkpoint_, "a checkpoint, or a directory of checkpoints, which are all checked"},
          {"jobs", &jobs_, "shards to read at the same time", Range(0, Range::kAny, "one per core")}}}};
  }

  absl::Status Run(const Invocation&) override {
    if (data_.empty() && checkpoint_.empty()) return InvalidArgument("needs --data=DIR or --checkpoint=DIR");
    const absl::Status data = data_.empty() ? absl::OkStatus() : CheckData();
    const absl::Status checkpoint = checkpoint_.empty() ? absl::OkStatus() : CheckCheckpoint();
    return data.ok() ? checkpoint : data;
  }

 private:
  static absl::Status Damaged(const std::string& what, size_t problems, ExitCode code) {
    return WithExitCode(DataLoss(what, ": ", problems, problems == 1 ? " problem" : " problems"), code);
  }

  absl::Status CheckData() const {
    ASSIGN_OR_RETURN(const VerifyReport report, WithExitCode(VerifyShards(data_, jobs_), ExitCode::kData));
    for (const std::string& problem : report.problems) std::printf("%s\n", problem.c_str());
    if (!report.problems.empty()) return Damaged(data_, report.problems.size(), ExitCode::kData);
    std::printf("%s: %ld shards, %ld samples, %.1f MB: all sound\n", data_.c_str(), report.shards,
                report.samples, static_cast<double>(report.bytes) / 1e6);
    return absl::OkStatus();
  }

  absl::Status CheckCheckpoint() const {
    ASSIGN_OR_RETURN(const std::vector<CheckpointInfo> checkpoints,
                     WithExitCode(ListCheckpoints(checkpoint_), ExitCode::kCheckpoint));
    size_t problems = 0, shards = 0;
    uint64_t bytes = 0;
    for (const CheckpointInfo& info : checkpoints) {
      for (const std::string& problem : info.problems) std::printf("%s\n", problem.c_str());
      problems += info.problems.size();
      shards += info.shards;
      bytes += info.bytes;
    }
    if (problems > 0) return Damaged(checkpoint_, problems, ExitCode::kCheckpoint);
    std::printf("%s: %zu checkpoints, %zu shards, %.1f MB: all sound\n", checkpoint_.c_str(),
                checkpoints.size(), shards, static_cast<double>(bytes) / 1e6);
    return absl::OkStatus();
  }

  std::string data_, checkpoint_;
  int jobs_ = 0;
};

}  // namespace

std::unique_ptr<Command> MakeVerify() {
  return std::make_unique<VerifyCommand>();
}

}  // namespace deeper
