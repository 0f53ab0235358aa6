#include "kernels/cuda/base/kernel_cost.h"

#include <cxxabi.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <typeindex>

#include "absl/strings/str_replace.h"

namespace deeper {
namespace {

// Written by sass_test.py --write, which also checks it.
constexpr KernelCost kKernelCosts[] = {
#include "kernels/cuda/base/kernel_costs.inc"
};

}  // namespace

const KernelCost* FindKernelCost(std::string_view name) {
  const auto* const found = std::ranges::find(kKernelCosts, name, &KernelCost::name);
  return found == std::end(kKernelCosts) ? nullptr : found;
}

KernelWork WorkOf(std::string_view name, int64_t threads, double iterations, int loads) {
  const KernelCost* const cost = FindKernelCost(name);
  if (cost == nullptr) return {};
  if (loads > 0 && cost->loop_loads > 0) iterations *= static_cast<double>(loads) / cost->loop_loads;
  constexpr int kLanes = 32;
  return {.warps = (threads + kLanes - 1) / kLanes,
          .cycles = cost->cycles + iterations * cost->loop_cycles,
          .waits = cost->waits + iterations * cost->loop_waits,
          .warps_on_sm = cost->warps_on_sm};
}

std::string_view KernelNameOf(const std::type_info& type) {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  static auto& names = *new std::map<std::type_index, std::string>;
  std::string& name = names[type];
  if (name.empty()) {
    const std::unique_ptr<char, decltype(&std::free)> readable(
        abi::__cxa_demangle(type.name(), nullptr, nullptr, nullptr), &std::free);
    name = absl::StrReplaceAll(readable == nullptr ? type.name() : readable.get(),
                               {{"(anonymous namespace)::", ""}, {"deeper::", ""}, {" >", ">"}});
  }
  return name;
}

}  // namespace deeper
