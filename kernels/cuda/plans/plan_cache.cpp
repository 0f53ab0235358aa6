#include "kernels/cuda/plans/plan_cache.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

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

absl::Status WriteAtomically(const std::string& file, const std::string& text) {
  std::error_code ignored;  // mkstemp reports the error
  std::filesystem::create_directories(std::filesystem::path(file).parent_path(), ignored);
  std::string temporary = file + ".XXXXXX";  // unique for every rank
  const int fd = mkstemp(temporary.data());
  if (fd < 0) return Failed(file);
  fchmod(fd, 0644);  // mkstemp's files are readable by their owner only
  std::FILE* out = fdopen(fd, "w");
  const bool written = std::fwrite(text.data(), 1, text.size(), out) == text.size();
  const bool closed = std::fclose(out) == 0;
  if (written && closed && std::rename(temporary.c_str(), file.c_str()) == 0) return absl::OkStatus();
  const absl::Status status = Failed(file);
  unlink(temporary.c_str());
  return status;
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

}  // namespace deeper
