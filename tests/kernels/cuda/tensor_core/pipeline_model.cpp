#include "tests/kernels/cuda/tensor_core/pipeline_model.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <iterator>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <unordered_set>
#include <utility>
#include <vector>

namespace deeper::conv {
namespace {

class PipelineModel {
 public:
  explicit PipelineModel(const Recording& recording) : r_(recording) {}

  // Returns the first fault, or "".
  std::string FindFault() {
    CreateBarriers();
    const auto loader = Translated(r_.loader), warp = Translated(r_.warpgroups[0]);
    CompareThreads(warp);
    CheckBytes(loader);
    if (fault_.empty()) loader_ = SegmentsOf(loader);
    if (fault_.empty()) warp_ = SegmentsOf(warp);
    if (fault_.empty()) Explore();
    return fault_;
  }
  int64_t states() const { return states_; }

 private:
  static constexpr int kMostStages = 5, kMostBarriers = 2 * kMostStages;
  static constexpr int kMostBytes = (1 << 20) - 1;  // PTX ISA, "Tracking asynchronous operations"

  struct Access {
    enum Kind { kWait, kArrive, kExpect, kFill, kMultiply, kWaitForMultiply };
    Kind kind;
    int barrier = 0;          // kWait, kArrive, kExpect, kFill
    int number = 0;           // parity, bytes, groups that may run
    int stage = 0, step = 0;  // kFill; kMultiply: its stage
    int boxes[2] = {};        // kFill: copies of pixels, of weights
    friend bool operator==(const Access&, const Access&) = default;
  };
  // What a thread does at once: a wait or an arrival, and what nobody can observe before or after it.
  struct Segment {
    std::optional<Access> sync;
    std::vector<Access> local;  // kExpect, kFill, kMultiply
    // After the segment:
    unsigned reading = 0;                       // stages that the thread's products read, one bit each
    std::array<int, kMostStages> content = {};  // steps that the thread has filled in, by stage, or -1
    int multiplied = 0;                         // steps
  };
  struct State {
    std::array<int32_t, kMostBarriers> bytes = {};   // that a phase expects; less than 0 if they came before
    std::array<int8_t, kMostBarriers> left = {};     // arrivals until a phase completes
    std::array<uint8_t, kMultiplyWarps> warps = {};  // segments executed, sorted
    uint8_t pending[kMostStages][2] = {};            // copies under way of pixels, of weights
    uint8_t loader = 0;
    uint8_t unused = 0;
    uint16_t parities = 0;
    friend bool operator==(const State&, const State&) = default;
  };
  static_assert(std::has_unique_object_representations_v<State>);  // for the hash
  struct Hash {
    size_t operator()(const State& state) const {
      return std::hash<std::string_view>()({reinterpret_cast<const char*>(&state), sizeof state});
    }
  };
  using States = std::unordered_set<State, Hash>;

  void Fail(const std::string& fault) {
    if (fault_.empty()) fault_ = fault;
  }
  static std::string N(const char* name, int number) { return name + std::to_string(number); }
  std::string NameOf(int barrier) const {
    return N(barrier % 2 == 0 ? "\"full\" of stage " : "\"empty\" of stage ", barrier / 2);
  }

  // ---- The recorded operations

  // Barriers are numbered in the order of their creation.
  void CreateBarriers() {
    bool published = false;
    for (const Operation& o : r_.barriers) {
      published = o.kind == Operation::kPublishBarriers;
      if (published) continue;
      const uint32_t end = r_.base + static_cast<uint32_t>(r_.stages * r_.stage_bytes);
      if (o.barrier < end || o.barrier + 8 > r_.end || o.barrier % 8 != 0)
        Fail("a barrier is in other memory");
      if (!barrier_at_.emplace(o.barrier, static_cast<int>(arrivals_.size())).second)
        Fail("two barriers overlap");
      arrivals_.push_back(o.number);
    }
    if (!published) Fail("TMA does not see the barriers: they are not published");
    if (r_.stages > kMostStages || arrivals_.size() > kMostBarriers) Fail("too many stages for the model");
  }
  int BarrierAt(uint32_t address) {
    const auto found = barrier_at_.find(address);
    if (found == barrier_at_.end()) Fail("an operation on what is no barrier");
    return found == barrier_at_.end() ? 0 : found->second;
  }

  // The stage of `bytes` bytes at an address.
  int StageAt(uint32_t address, int bytes) {
    const auto offset = static_cast<int64_t>(address) - r_.base;
    const int64_t stage = offset < 0 ? -1 : offset / r_.stage_bytes;
    if (stage < 0 || stage >= r_.stages) {
      Fail("an access outside the stages");
      return 0;
    }
    if (offset % r_.stage_bytes + bytes > r_.stage_bytes) Fail("an access across the end of a stage");
    return static_cast<int>(stage);
  }

  // Copies of the same step become one access, and products of a group become one.
  std::vector<Access> Translated(const std::vector<Operation>& operations) {
    std::vector<Access> accesses;
    std::vector<std::pair<uint32_t, uint32_t>> copies;  // of the step: from, to
    constexpr int kNone = -2, kEmpty = -1;
    int group = kNone;  // the stage of the open group of products
    for (const Operation& o : operations) {
      switch (o.kind) {
        case Operation::kWait:
          accesses.push_back({Access::kWait, BarrierAt(o.barrier), o.number});
          break;
        case Operation::kArrive:
          accesses.push_back({Access::kArrive, BarrierAt(o.barrier)});
          break;
        case Operation::kExpect:
          accesses.push_back({Access::kExpect, BarrierAt(o.barrier), o.number});
          break;
        case Operation::kLoadPixels:
        case Operation::kLoadWeights: {
          const int bytes = r_.BytesOf(o), stage = StageAt(o.to, bytes), step = r_.step_of(o);
          const int barrier = BarrierAt(o.barrier);
          if (o.to % kSwizzleBytes != 0) Fail("a copy to where no pattern of the swizzle starts");
          const bool same = !accesses.empty() && accesses.back().kind == Access::kFill &&
                            accesses.back().stage == stage && accesses.back().step == step &&
                            accesses.back().barrier == barrier;
          if (!same) {
            accesses.push_back({Access::kFill, barrier, 0, stage, step});
            copies.clear();
          }
          accesses.back().number += bytes;
          ++accesses.back().boxes[o.kind == Operation::kLoadWeights];
          const uint32_t end = o.to + static_cast<uint32_t>(bytes);
          for (const auto& [from, to] : copies) {
            if (o.to < to && from < end) Fail(N("copies overlap in step ", step));
          }
          copies.emplace_back(o.to, end);
          break;
        }
        case Operation::kBeginMultiply:
          if (group != kNone) Fail("a group of products is not committed");
          group = kEmpty;
          break;
        case Operation::kMultiply: {
          if (group == kNone) {
            Fail("a product without a fence before it");
            break;
          }
          const int a = StageAt(AddressIn(o.a), 1), b = StageAt(AddressIn(o.b), 1);
          if (a != b || (group >= 0 && group != a)) Fail("a group of products reads several stages");
          group = a;
          break;
        }
        case Operation::kCommitMultiply:
          if (group < 0) {
            Fail("a group has no products");
            break;
          }
          accesses.push_back({Access::kMultiply, 0, 0, group});
          group = kNone;
          break;
        case Operation::kWaitForMultiply:
          accesses.push_back({Access::kWaitForMultiply, 0, o.number});
          break;
        default:
          Fail("an operation that this thread may not execute");
      }
    }
    return accesses;
  }
  static uint32_t AddressIn(uint64_t descriptor) { return static_cast<uint32_t>(descriptor & 0x3FFF) << 4; }

  // Only one lane of a warp arrives, and the warpgroups do the same.
  void CompareThreads(const std::vector<Access>& warp) {
    if (Translated(r_.warpgroups[1]) != warp) Fail("the warpgroups do different things");
    for (const Operation& o : r_.others) {
      if (o.kind == Operation::kArrive || o.kind == Operation::kExpect)
        Fail("more than one lane of a warp arrives");
    }
  }

  // What a barrier expects is what the copies bring, phase by phase.
  void CheckBytes(const std::vector<Access>& loader) {
    std::map<int, std::vector<int>> expected, brought;  // by barrier
    for (const Access& access : loader) {
      if (access.kind == Access::kExpect) expected[access.barrier].push_back(access.number);
      if (access.kind == Access::kFill) brought[access.barrier].push_back(access.number);
      if (access.number > kMostBytes) Fail("more bytes than a barrier can count");
    }
    for (auto& [barrier, bytes] : brought) {
      std::vector<int>& of = expected[barrier];
      const size_t phases = std::max(of.size(), bytes.size());
      of.resize(phases);
      bytes.resize(phases);
      const auto [some, others] = std::mismatch(of.begin(), of.end(), bytes.begin());
      if (some == of.end()) continue;
      Fail(NameOf(barrier) + N(" expects ", *some) + N(" bytes, but its copies bring ", *others));
    }
    if (expected.size() != brought.size()) Fail("a barrier expects bytes that no copy brings");
  }

  std::vector<Segment> SegmentsOf(const std::vector<Access>& accesses) {
    std::vector<Segment> segments(1);
    segments[0].content.fill(-1);
    std::deque<int> groups;  // the stages that products read
    bool started = false;    // the last segment has waited for products, but done nothing else
    const auto start = [&](bool waits_for_products) {
      if (!started) {
        segments.push_back(segments.back());
        segments.back().sync.reset();
        segments.back().local.clear();
      }
      started = waits_for_products;
    };
    for (const Access& access : accesses) {
      if (access.kind == Access::kWaitForMultiply) {
        start(true);
        while (static_cast<int>(groups.size()) > access.number) groups.pop_front();
      } else if (access.kind == Access::kWait || access.kind == Access::kArrive) {
        start(false);
        segments.back().sync = access;
      } else {
        started = false;
        segments.back().local.push_back(access);
        if (access.kind == Access::kFill) segments.back().content[access.stage] = access.step;
        if (access.kind == Access::kMultiply) {
          groups.push_back(access.stage);
          ++segments.back().multiplied;
        }
      }
      segments.back().reading = 0;
      for (const int stage : groups) segments.back().reading |= 1u << stage;
    }
    if (!groups.empty()) Fail("a thread ends while its products run");
    if (segments.size() > 255) Fail("too many steps for the model");
    return segments;
  }

  // ---- The search

  // A transition moves one thread by a segment or lands one copy. All ways to a state therefore
  // have the same length, and a state needs to be compared only with those at the same distance.
  void Explore() {
    State first;
    for (size_t i = 0; i < arrivals_.size(); ++i) first.left[i] = static_cast<int8_t>(arrivals_[i]);
    if (RunLocal(loader_[0], first)) {
      for (int i = 0; i < kMultiplyWarps; ++i) RunLocal(warp_[0], first);
    }
    States states = {first}, next;
    while (fault_.empty() && !states.empty()) {
      states_ += static_cast<int64_t>(states.size());
      next.clear();
      for (const State& state : states) {
        if (!Advance(state, next)) CheckEnd(state);
        if (!fault_.empty()) return;
      }
      states.swap(next);
    }
  }

  // Adds all states that can follow. Returns whether there are any.
  bool Advance(const State& state, States& next) {
    bool moved = false;
    const auto add = [&](State& to) {
      moved = true;
      std::sort(to.warps.begin(), to.warps.end());
      next.insert(to);
    };
    if (AreCopiesUnderWay(state) && state.loader + 1u == loader_.size() &&
        state.warps[0] + 1u == warp_.size()) {
      Fail("the block ends while copies are under way");
    }
    if (state.loader + 1u < loader_.size()) {
      State to = state;
      ++to.loader;
      if (Run(loader_[to.loader], to)) add(to);
    }
    for (int i = 0; i < kMultiplyWarps && fault_.empty(); ++i) {
      if (i > 0 && state.warps[i] == state.warps[i - 1]) continue;  // the same
      if (state.warps[i] + 1u >= warp_.size()) continue;
      State to = state;
      ++to.warps[i];
      if (Run(warp_[to.warps[i]], to)) add(to);
    }
    for (int stage = 0; stage < r_.stages; ++stage) {
      for (const bool weights : {false, true}) {
        if (state.pending[stage][weights] == 0) continue;
        State to = state;
        --to.pending[stage][weights];
        Land(stage, weights, to);
        add(to);
      }
    }
    return moved;
  }

  static bool IsUnderWay(const uint8_t (&copies)[2]) { return copies[0] != 0 || copies[1] != 0; }
  static bool AreCopiesUnderWay(const State& state) {
    return std::any_of(std::begin(state.pending), std::end(state.pending), IsUnderWay);
  }

  // Returns whether the thread can move.
  bool Run(const Segment& segment, State& state) {
    if (segment.sync.has_value()) {
      const int barrier = segment.sync->barrier;
      if (segment.sync->kind == Access::kArrive) {
        Arrive(barrier, state);
      } else if (static_cast<int>(state.parities >> barrier & 1) == segment.sync->number) {
        return false;  // the phase of that parity is the current one
      }
    }
    return RunLocal(segment, state);
  }

  bool RunLocal(const Segment& segment, State& state) {
    int multiplied = segment.multiplied;
    for (const Access& access : segment.local) multiplied -= access.kind == Access::kMultiply;
    for (const Access& access : segment.local) {
      if (access.kind == Access::kExpect) {
        state.bytes[access.barrier] += access.number;
        Arrive(access.barrier, state);
      } else if (access.kind == Access::kFill) {
        Fill(access, state);
      } else {
        Multiply(access.stage, multiplied++, state);
      }
    }
    return fault_.empty();
  }

  void Arrive(int barrier, State& state) {
    if (state.left[barrier] == 0) Fail("more arrivals at " + NameOf(barrier) + " than its phase has");
    --state.left[barrier];
    CompletePhase(barrier, state);
  }

  void CompletePhase(int barrier, State& state) const {
    if (state.left[barrier] != 0 || state.bytes[barrier] != 0) return;
    state.parities = static_cast<uint16_t>(state.parities ^ 1u << barrier);
    state.left[barrier] = static_cast<int8_t>(arrivals_[static_cast<size_t>(barrier)]);
  }

  void Fill(const Access& fill, State& state) {
    const unsigned bit = 1u << fill.stage;
    const std::string what = N("stage ", fill.stage) + N(" is filled with step ", fill.step);
    if (IsUnderWay(state.pending[fill.stage])) Fail(what + " while earlier copies may still arrive");
    const int content = state.loader == 0 ? -1 : loader_[state.loader - 1u].content[fill.stage];  // so far
    for (const uint8_t warp : state.warps) {
      if ((warp_[warp].reading & bit) != 0) Fail(what + " while a warp may still read it");
      if (content >= warp_[warp].multiplied) Fail(what + N(" before all warps have read step ", content));
    }
    for (int i = 0; i < 2; ++i) state.pending[fill.stage][i] = static_cast<uint8_t>(fill.boxes[i]);
  }

  void Land(int stage, bool weights, State& state) {
    const int bytes = r_.BytesOf({.kind = weights ? Operation::kLoadWeights : Operation::kLoadPixels});
    // The barrier of the copies: that of the last ones that were started.
    for (size_t i = state.loader + 1u; i-- > 0;) {
      for (const Access& access : loader_[i].local) {
        if (access.kind != Access::kFill || access.stage != stage) continue;
        state.bytes[access.barrier] -= bytes;
        CompletePhase(access.barrier, state);
        return;
      }
    }
  }

  void Multiply(int stage, int step, const State& state) {
    const int content = loader_[state.loader].content[stage];
    const std::string what = N("step ", step) + N(" multiplies stage ", stage);
    if (content < 0) Fail(what + " before it is filled");
    if (content >= 0 && content != step) Fail(what + N(", which has step ", content));
    if (IsUnderWay(state.pending[stage])) Fail(what + " before its bytes have arrived");
  }

  // Nothing can move any more.
  void CheckEnd(const State& state) {
    if (state.loader + 1u < loader_.size()) {
      Fail("deadlock: the lane that loads waits for " + NameOf(loader_[state.loader + 1u].sync->barrier));
    }
    if (state.warps[0] + 1u < warp_.size()) {
      Fail("deadlock: a warp waits for " + NameOf(warp_[state.warps[0] + 1u].sync->barrier));
    }
    if (warp_.back().multiplied != r_.steps) {
      Fail(N("", warp_.back().multiplied) + N(" steps are multiplied instead of ", r_.steps));
    }
    for (size_t i = 0; i < arrivals_.size(); ++i) {
      if (state.bytes[i] != 0) Fail(NameOf(static_cast<int>(i)) + " still expects bytes at the end");
    }
  }

  const Recording& r_;
  std::map<uint32_t, int> barrier_at_;  // by address
  std::vector<int> arrivals_;           // of a phase, by barrier
  std::vector<Segment> loader_, warp_;  // the first one is empty: before the first wait
  std::string fault_;
  int64_t states_ = 0;
};

}  // namespace

std::string FaultOf(const Recording& recording, int64_t* states) {
  PipelineModel model(recording);
  std::string fault = model.FindFault();
  if (states != nullptr) *states += model.states();
  return fault;
}

}  // namespace deeper::conv
