#include "kernels/cuda/plans/plan_cache.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

using Json = nlohmann::json;

constexpr int kFormat = 1;
constexpr char kPlans[] = "plans";

// The file's plans by environment. An empty object if the file is not a plan cache.
Json ReadPlans(const std::string& file) {
  std::ifstream in(file);
  const Json read = Json::parse(in, nullptr, /*allow_exceptions=*/false);
  if (!read.is_object() || !read.contains(kPlans) || !read[kPlans].is_object()) return Json::object();
  if (const auto format = read.find("format"); format == read.end() || *format != kFormat)
    return Json::object();
  return read[kPlans];
}

absl::Status Failed(const std::string& file) {
  return FailedPrecondition("cannot write the plan cache ", file, ": ", std::strerror(errno));
}

// Writes to a new file `pattern`, whose last six letters, XXXXXX, are replaced.
absl::Status WriteNew(std::string& pattern, const std::string& text) {
  std::error_code ignored;  // mkstemp reports the error
  std::filesystem::create_directories(std::filesystem::path(pattern).parent_path(), ignored);
  const int fd = mkstemp(pattern.data());
  if (fd < 0) return Failed(pattern);
  fchmod(fd, 0644);  // mkstemp's files are readable by their owner only
  std::FILE* out = fdopen(fd, "w");
  const bool written = std::fwrite(text.data(), 1, text.size(), out) == text.size();
  const bool closed = std::fclose(out) == 0;
  if (written && closed) return absl::OkStatus();
  const absl::Status status = Failed(pattern);
  unlink(pattern.c_str());
  return status;
}

absl::Status WriteAtomically(const std::string& file, const std::string& text) {
  std::string temporary = file + ".XXXXXX";  // unique for every rank
  if (!WriteNew(temporary, text).ok()) return Failed(file);
  if (std::rename(temporary.c_str(), file.c_str()) == 0) return absl::OkStatus();
  const absl::Status status = Failed(file);
  unlink(temporary.c_str());
  return status;
}

constexpr char kTrial[] = ".trial.";
constexpr std::chrono::minutes kOld(1);  // by then a trial has ended, well or not

std::string Host() {
  char host[256] = "";
  gethostname(host, sizeof host - 1);
  return host;
}

// When a process started, in ticks since the machine did (field 22 of /proc/PID/stat); 0: there is none. A
// container that is started again has the same host name, and its processes the same numbers.
int64_t StartOf(int64_t pid) {
  std::ifstream in(absl::StrCat("/proc/", pid, "/stat"));
  std::string stat;
  std::getline(in, stat);
  const size_t name_end = stat.rfind(')');  // names may contain spaces
  if (name_end == std::string::npos) return 0;
  std::istringstream fields(stat.substr(name_end + 1));
  std::string field;
  for (int i = 3; i <= 22; ++i) fields >> field;
  int64_t start = 0;
  return absl::SimpleAtoi(field, &start) ? start : 0;
}

bool HasEnded(const Json& record, const std::filesystem::path& file) {
  if (record["host"] == Host())
    return !record.contains("started") || record["started"] != StartOf(record["pid"].get<int64_t>());
  std::error_code failed;
  const auto written = std::filesystem::last_write_time(file, failed);
  return !failed && decltype(written)::clock::now() - written > kOld;
}

}  // namespace

PlanCache::PlanCache(std::string file, std::string environment)
    : file_(std::move(file)), environment_(std::move(environment)) {
  if (file_.empty()) return;
  const Json plans = ReadPlans(file_);
  const auto ours = plans.find(environment_);
  if (ours == plans.end() || !ours->is_object()) return;
  for (const auto& [problem, plan] : ours->items()) {
    if (plan.is_string()) plans_[problem] = plan.get<std::string>();
  }
}

std::optional<std::string> PlanCache::Find(const std::string& problem) const {
  const auto found = plans_.find(problem);
  if (found == plans_.end()) return std::nullopt;
  return found->second;
}

absl::Status PlanCache::Put(const std::string& problem, const std::string& plan) {
  plans_[problem] = plan;
  if (file_.empty()) return absl::OkStatus();
  Json plans = ReadPlans(file_);
  // The file already contains our older entries, unless a concurrent write of another process dropped them.
  Json& ours = plans[environment_];
  if (!ours.is_object()) ours = Json::object();
  for (const auto& [known, text] : plans_) {
    if (known == problem || !ours.contains(known)) ours[known] = text;
  }
  const Json content = {{"format", kFormat}, {kPlans, std::move(plans)}};
  return WriteAtomically(file_, content.dump(1, ' ', false, Json::error_handler_t::replace) + "\n");
}

absl::Status PlanCache::OnTrial(const std::string& algorithm, const std::string& problem,
                                const std::function<void()>& work) const {
  if (file_.empty()) {
    work();
    return absl::OkStatus();
  }
  const Json record = {{"environment", environment_},
                       {"algorithm", algorithm},
                       {"problem", problem},
                       {"host", Host()},
                       {"pid", getpid()},
                       {"started", StartOf(getpid())}};
  std::string file = absl::StrCat(file_, kTrial, "XXXXXX");
  RETURN_IF_ERROR(WriteNew(file, record.dump(1, ' ', false, Json::error_handler_t::replace) + "\n"));
  work();
  unlink(file.c_str());
  return absl::OkStatus();
}

std::vector<PlanCache::FailedTrial> PlanCache::FailedTrials() const {
  std::vector<FailedTrial> failed;
  if (file_.empty()) return failed;
  const std::filesystem::path cache(file_);
  const std::filesystem::path directory = cache.parent_path().empty() ? "." : cache.parent_path();
  std::error_code ignored;  // without the directory there are none
  for (const auto& entry : std::filesystem::directory_iterator(directory, ignored)) {
    if (!entry.path().filename().string().starts_with(cache.filename().string() + kTrial)) continue;
    std::ifstream in(entry.path());
    const Json record = Json::parse(in, nullptr, /*allow_exceptions=*/false);
    const auto is_text = [&](const char* name) { return record.contains(name) && record[name].is_string(); };
    if (!record.is_object() || !is_text("environment") || !is_text("algorithm") || !is_text("problem") ||
        !is_text("host") || !record.contains("pid") || !record["pid"].is_number_integer()) {
      continue;
    }
    if (record["environment"] != environment_ || !HasEnded(record, entry.path())) continue;
    failed.push_back({record["algorithm"], record["problem"], entry.path()});
  }
  return failed;
}

}  // namespace deeper
