#include "trainer/engine/params.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <numbers>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "kernels/base/check.h"
#include "kernels/base/parallel.h"
#include "kernels/base/rng.h"
#include "kernels/base/status.h"
#include "kernels/ops/arrays/arrays.h"
#include "kernels/ops/arrays/update.h"

namespace deeper {
namespace {

constexpr int64_t kAlignment = 64 / sizeof(float);
static_assert(kAlignment % kDecayGroup == 0, "a decay group holds parameters of one role only");

// Assigns the offsets of one arena and returns its size.
int64_t Place(std::vector<Param>& table) {
  int64_t elements = 0;
  std::set<int> placed;  // runs
  for (Param& first : table) {
    const bool alone = first.run < 0;
    if (!alone && !placed.insert(first.run).second) continue;
    std::vector<Param*> run;
    for (Param& param : table) {
      if (alone ? &param == &first : param.run == first.run) run.push_back(&param);
    }
    std::ranges::sort(run, {}, &Param::place);
    for (Param* param : run) {
      param->offset = elements;
      elements += param->layout.stored_elements;
    }
    elements = RoundUp(elements, kAlignment);
  }
  return elements;
}

absl::Status Allocate(Device& device, int64_t elements, Buffer& buffer, DType dtype = DType::kF32) {
  const size_t bytes = static_cast<size_t>(elements) * SizeOf(dtype);
  buffer = device.Allocate(bytes);
  if (bytes == 0 || buffer.data() != nullptr) return absl::OkStatus();
  return ResourceExhausted(
      "no memory for the parameters: ", bytes, " more bytes are needed, the device has ",
      device.AvailableBytes(),
      " left; use a smaller model, a device with more memory or, on a CPU, a higher `ulimit -v`");
}

// Two normal deviates from two uniform words (Box and Muller 1958). 1 - u is in (0, 1]: its log is finite.
void BoxMuller(uint32_t a, uint32_t b, float out[2]) {
  const double radius = std::sqrt(-2 * std::log(1 - double{UnitFloat(a)}));
  const double angle = 2 * std::numbers::pi * double{UnitFloat(b)};
  out[0] = static_cast<float>(radius * std::cos(angle));
  out[1] = static_cast<float>(radius * std::sin(angle));
}

// Calls draw(words of block i, 4 floats to fill) for each 4 elements of `values`.
template <class Draw>
void FillRandom(const Rng& rng, std::vector<float>& values, const Draw& draw) {
  const auto count = static_cast<int64_t>(values.size());
  ParallelFor((count + 3) / 4, 1024, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      float four[4];
      draw(rng.Block(static_cast<uint32_t>(i)), four);
      std::copy_n(four, std::min<int64_t>(4, count - 4 * i), values.begin() + 4 * i);
    }
  });
}

std::vector<float> InitialValues(const Param& param, uint64_t seed) {
  const ParamSpec& spec = param.spec;
  std::vector<float> values(static_cast<size_t>(spec.elements()), spec.init == Init::kOne ? 1.0f : 0.0f);
  const Rng rng(seed, RandomStream(param.name), 0, 0);
  if (spec.init == Init::kHe) {
    const float deviation = std::sqrt(2.0f / static_cast<float>(spec.fan_in()));
    FillRandom(rng, values, [&](const Random4& words, float* four) {
      BoxMuller(words.v[0], words.v[1], four);
      BoxMuller(words.v[2], words.v[3], four + 2);
      for (int j = 0; j < 4; ++j) four[j] *= deviation;
    });
  } else if (spec.init == Init::kXavier) {
    const float bound = std::sqrt(6.0f / static_cast<float>(spec.fan_in() + spec.fan_out()));
    FillRandom(rng, values, [&](const Random4& words, float* four) {
      for (int j = 0; j < 4; ++j) four[j] = (2 * UnitFloat(words.v[j]) - 1) * bound;
    });
  }
  return values;
}

}  // namespace

ParamStore::ParamStore(std::vector<Param> params, Device& device, StateArenas states)
    : state_arenas_(std::move(states)), device_(device) {
  for (Param& param : params)
    (IsStatistic(param.spec.role) ? statistics_ : trained_).push_back(std::move(param));
  trained_elements_ = RoundUp(Place(trained_), kAlignment * state_arenas_.slice.count);
  statistics_elements_ = Place(statistics_);
}

absl::StatusOr<std::unique_ptr<ParamStore>> ParamStore::Create(std::vector<Param> params, Device& device,
                                                               bool training, bool narrow,
                                                               StateArenas states) {
  std::unique_ptr<ParamStore> store(new ParamStore(std::move(params), device, std::move(states)));
  absl::Status status = Allocate(device, store->trained_elements_, store->values_);
  status.Update(Allocate(device, store->statistics_elements_, store->statistic_values_));
  if (training) {
    status.Update(Allocate(device, store->trained_elements_, store->grads_));
    store->states_.resize(store->state_names().size());
    for (Buffer& state : store->states_) status.Update(Allocate(device, store->state_elements(), state));
    if (store->state_arenas_.averages) {
      status.Update(Allocate(device, store->trained_elements_, store->averages_));
      status.Update(Allocate(device, store->statistics_elements_, store->statistic_averages_));
    }
  }
  if (narrow) status.Update(Allocate(device, store->trained_elements_, store->narrow_values_, DType::kBf16));
  if (!status.ok()) return status;
  return store;
}

absl::StatusOr<std::unique_ptr<ParamStore>> ParamStore::MakeEmpty() const {
  std::vector<Param> params = trained_;
  params.insert(params.end(), statistics_.begin(), statistics_.end());
  return Create(std::move(params), device_, grads() != nullptr, narrow_values() != nullptr, state_arenas_);
}

void ParamStore::Swap(ParamStore& other) {
  DEEPER_CHECK(!in_place_ && !other.in_place_, "there are pointers into these parameters");
  std::swap(values_, other.values_);
  std::swap(grads_, other.grads_);
  std::swap(statistic_values_, other.statistic_values_);
  std::swap(narrow_values_, other.narrow_values_);
  std::swap(averages_, other.averages_);
  std::swap(statistic_averages_, other.statistic_averages_);
  std::swap(states_, other.states_);
}

void ParamStore::StartAverages() {
  device_.Copy(averages(), values(), averages_.bytes());
  device_.Copy(statistic_averages(), statistic_values(), statistic_averages_.bytes());
  device_.Synchronize();
}

void ParamStore::ExchangeAverages() {
  const auto exchange = [&](Buffer& one, Buffer& other) {
    DEEPER_CHECK(one.bytes() <= grads_.bytes() && one.bytes() == other.bytes());
    device_.Copy(grads(), one.data(), one.bytes());
    device_.Copy(one.data(), other.data(), one.bytes());
    device_.Copy(other.data(), grads(), one.bytes());
  };
  exchange(statistic_values_, statistic_averages_);
  exchange(values_, averages_);  // last: it leaves zeros in the gaps of the gradients
  if (narrow_values() != nullptr) Narrow(device_, values(), narrow_values(), trained_elements_);
  device_.Synchronize();
}

const Param* ParamStore::TrainedAt(int64_t element) const {
  // Offsets do not ascend: the parameters of a run have an order of their own.
  const auto owner = std::find_if(trained_.begin(), trained_.end(), [&](const Param& param) {
    return param.offset <= element && element < param.offset + param.layout.stored_elements;
  });
  return owner == trained_.end() ? nullptr : &*owner;
}

size_t ParamStore::bytes() const {
  size_t bytes = values_.bytes() + grads_.bytes() + statistic_values_.bytes() + narrow_values_.bytes() +
                 averages_.bytes() + statistic_averages_.bytes();
  for (const Buffer& state : states_) bytes += state.bytes();
  return bytes;
}

bool ParamStore::IsSharded(const float* arena) const {
  return state_is_sharded() && std::any_of(states_.begin(), states_.end(),
                                           [&](const Buffer& state) { return state.as<float>() == arena; });
}

void ParamStore::Initialize(uint64_t seed) {
  for (const Param& param : trained_) Write(param, InitialValues(param, seed).data(), values());
  for (const Param& param : statistics_) Write(param, InitialValues(param, seed).data(), statistic_values());
}

void ParamStore::Read(const Param& param, const float* arena, float* canonical) const {
  DEEPER_CHECK(!IsSharded(arena), param.name);
  std::vector<float> stored(static_cast<size_t>(param.layout.stored_elements));
  device_.Copy(stored.data(), arena + param.offset, stored.size() * sizeof(float));
  device_.Synchronize();
  UnpackParam(param.spec, param.layout, stored.data(), canonical);
}

void ParamStore::Write(const Param& param, const float* canonical, float* arena) {
  const int64_t elements = param.layout.stored_elements;
  int64_t begin = param.offset, end = begin + elements, first = 0;  // `arena` points to element `first`
  if (IsSharded(arena)) {
    first = state_first();
    begin = std::max(begin, first);
    end = std::min(end, first + state_elements());
    if (begin >= end) return;
  }
  float* const place = arena + (begin - first);
  std::unique_ptr<float[]> staged;  // for a part, or a device whose memory the host cannot access
  if (device_.type() == DeviceType::kCpu && end - begin == elements) {
    PackParam(param.spec, param.layout, canonical, place);
  } else {
    staged = std::make_unique_for_overwrite<float[]>(static_cast<size_t>(elements));
    PackParam(param.spec, param.layout, canonical, staged.get());
    device_.Copy(place, staged.get() + (begin - param.offset),
                 static_cast<size_t>(end - begin) * sizeof(float));
  }
  if (arena == values() && narrow_values() != nullptr) {
    Narrow(device_, place, narrow_values_.as<uint16_t>() + param.offset, elements);
  }
  device_.Synchronize();
}

}  // namespace deeper
