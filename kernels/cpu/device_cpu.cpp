// The CPU as a device. All work is done when a call returns; memory is host memory.
#include <omp.h>
#include <sched.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "kernels/base/device.h"
#include "kernels/base/trace.h"
#include "kernels/cpu/profile.h"
#include "oneapi/dnnl/dnnl.hpp"

namespace deeper {
namespace {

constexpr size_t kUnlimited = std::numeric_limits<size_t>::max();

// Returns the rest of the line after `key` and its separator, in a file such as /proc/cpuinfo; empty if
// absent.
std::string FindField(const std::filesystem::path& file, const std::string& key) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with(key)) continue;
    const size_t value = line.find_first_not_of(" \t:", key.size());
    if (value != key.size() && value != std::string::npos) return line.substr(value);
  }
  return {};
}

// Reads a file of one number, such as memory.max; unlimited if it contains "max" or does not exist.
size_t ReadLimit(const std::filesystem::path& file) {
  size_t value = kUnlimited;
  std::ifstream in(file);
  return in >> value ? value : kUnlimited;
}

size_t ParseBytes(const std::string& text) {
  return text.empty() ? 0 : std::stoull(text);
}

// The files of one version of the control groups' memory controller.
struct CgroupMemory {
  const char* root;
  const char* line;  // precedes the path in our line of /proc/self/cgroup
  const char* limit;
  const char* usage;
  const char* stat_prefix;
};
constexpr CgroupMemory kCgroups[] = {
    {"/sys/fs/cgroup", "0::", "memory.max", "memory.current", ""},
    {"/sys/fs/cgroup/memory", ":memory:", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"},
};

// The smallest amount of memory that our group and its ancestors leave. Cached files count as free, since the
// kernel evicts them first.
size_t CgroupAvailable(const CgroupMemory& v) {
  size_t available = kUnlimited;
  std::ifstream in("/proc/self/cgroup");
  for (std::string line; std::getline(in, line);) {
    const size_t at = line.find(v.line);
    if (at == std::string::npos) continue;
    // In a container the path may be that of the host. Directories that do not exist here set no limit.
    std::filesystem::path group = line.substr(at + std::strlen(v.line));
    for (bool more = true; more; group = group.parent_path()) {
      more = group.has_relative_path();
      const std::filesystem::path dir = v.root / group.relative_path();
      const size_t limit = ReadLimit(dir / v.limit), usage = ReadLimit(dir / v.usage);
      if (limit == kUnlimited || usage == kUnlimited) continue;
      const std::string prefix = v.stat_prefix;
      const size_t cache = ParseBytes(FindField(dir / "memory.stat", prefix + "active_file")) +
                           ParseBytes(FindField(dir / "memory.stat", prefix + "inactive_file"));
      const size_t held = usage - std::min(usage, cache);
      available = std::min(available, limit - std::min(limit, held));
    }
  }
  return available;
}

// The values of dnnl::cpu_isa are bit sets. An extension contains the bits of its base instruction set.
bool Has(dnnl::cpu_isa wanted) {
  const auto bits = static_cast<unsigned>(wanted);
  return (static_cast<unsigned>(dnnl::get_effective_cpu_isa()) & bits) == bits;
}

// The first of these that the processor has. Later versions of oneDNN know more instruction sets.
const char* NameOfIsa() {
  using Isa = dnnl::cpu_isa;
  constexpr std::pair<Isa, const char*> kNames[] = {
      {Isa::avx512_core_amx, "AVX-512 with AMX"},
      {Isa::avx512_core_bf16, "AVX-512 with bf16"},
      {Isa::avx512_core_vnni, "AVX-512 with VNNI"},
      {Isa::avx512_core, "AVX-512"},
      {Isa::avx2_vnni, "AVX2 with VNNI"},
      {Isa::avx2, "AVX2"},
      {Isa::avx, "AVX"},
      {Isa::sse41, "SSE4.1"},
  };
  for (const auto& [known, name] : kNames) {
    if (Has(known)) return name;
  }
  return "unknown instruction set";
}

class CpuDevice final : public Device {
 public:
  CpuDevice(int threads, CpuLayout layout)
      : threads_(threads > 0 ? threads : AvailableCores()), layout_(layout) {
    omp_set_num_threads(threads_);
  }

  DeviceType type() const override { return DeviceType::kCpu; }
  std::string Describe() const override {
    const std::string model = FindField("/proc/cpuinfo", "model name");
    return (model.empty() ? "CPU" : model) + ", " + std::to_string(threads_) +
           (threads_ == 1 ? " thread, " : " threads, ") + NameOfIsa();
  }
  int64_t channel_block(DType dtype) const override {
    const bool nhwc = layout_ == CpuLayout::kAuto
                          ? dtype == DType::kBf16 && Has(dnnl::cpu_isa::avx512_core_amx)
                          : layout_ == CpuLayout::kNhwc;
    if (nhwc) return 1;
    return Has(dnnl::cpu_isa::avx512_core) ? 16 : 8;
  }
  Bf16Support bf16_support() const override {
    if (Has(dnnl::cpu_isa::avx512_core_bf16)) return Bf16Support::kNative;
    return Has(dnnl::cpu_isa::avx512_core) ? Bf16Support::kEmulated : Bf16Support::kNone;
  }
  Buffer Allocate(size_t bytes) override { return AllocateHost(bytes); }
  size_t AvailableBytes() const override {
    size_t available = ParseBytes(FindField("/proc/meminfo", "MemAvailable")) * 1024;
    for (const CgroupMemory& version : kCgroups) available = std::min(available, CgroupAvailable(version));
    return available;
  }
  Stream stream() const override { return {}; }
  void Synchronize() override {}
  void Annotate(const std::string& name) override {
    TraceBegin(TraceLevel::kDetail, name);
    if (CpuProfile::Current() == &profile_) profile_.Annotate(name);
  }
  void StartProfile() override { CpuProfile::Current() = &profile_; }
  std::vector<ProfiledLaunch> StopProfile() override {
    CpuProfile::Current() = nullptr;
    return profile_.Take();
  }
  void Copy(void* to, const void* from, size_t bytes) override {
    if (bytes > 0) std::memcpy(to, from, bytes);
  }

 private:
  int threads_;
  CpuLayout layout_;
  CpuProfile profile_;
};

}  // namespace

int AvailableCores() {
  cpu_set_t mask;
  if (sched_getaffinity(0, sizeof mask, &mask) != 0) return omp_get_num_procs();
  std::set<std::string> cores;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &mask)) continue;
    std::string siblings;
    std::ifstream("/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list") >>
        siblings;
    cores.insert(siblings.empty() ? std::to_string(cpu) : siblings);
  }
  return static_cast<int>(cores.size());
}

std::string OneDnnVersion() {
  const dnnl_version_t& v = *dnnl_version();
  return std::to_string(v.major) + "." + std::to_string(v.minor) + "." + std::to_string(v.patch);
}

std::unique_ptr<Device> MakeCpuDevice(int threads, CpuLayout layout) {
  return std::make_unique<CpuDevice>(threads, layout);
}

}  // namespace deeper
