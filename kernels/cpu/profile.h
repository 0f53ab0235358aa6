// Times the work of CPU ops, piece by piece, between Device::StartProfile and Device::StopProfile.
#pragma once

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "kernels/base/device.h"

namespace deeper {

class CpuProfile {
 public:
  using Clock = std::chrono::steady_clock;

  // The running profile of the calling thread, or nullptr.
  static CpuProfile*& Current() {
    static thread_local CpuProfile* current = nullptr;
    return current;
  }

  void Annotate(const std::string& name) { scope_ = name; }
  void Add(const Launch& launch, Clock::time_point begin, Clock::time_point end) {
    const auto ms = [](Clock::duration d) { return std::chrono::duration<double, std::milli>(d).count(); };
    if (launches_.empty()) first_ = begin;
    launches_.push_back({scope_, launch, ms(begin - first_), ms(end - begin)});
  }
  std::vector<ProfiledLaunch> Take() { return std::exchange(launches_, {}); }

 private:
  std::string scope_;
  Clock::time_point first_;
  std::vector<ProfiledLaunch> launches_;
};

// Runs `work`, a piece that contains no other, and adds it to the running profile, if any.
template <class Work>
void Timed(const Launch& launch, const Work& work) {
  CpuProfile* const profile = CpuProfile::Current();
  if (profile == nullptr) return work();
  const auto begin = CpuProfile::Clock::now();
  work();
  profile->Add(launch, begin, CpuProfile::Clock::now());
}

}  // namespace deeper
