#include "tests/comm/fake_nccl/fake_nccl.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "comm/nccl/nccl_library.h"
#include "kernels/base/status.h"
#include "tests/kernels/fake_cuda/runtime.h"

namespace fake = deeper::fake_cuda;
using fake::Fail;
using fake::Runtime;

namespace {

// What ranks must agree on, and this rank's memory.
struct Call {
  std::string name;
  size_t count;  // of elements that go in; of all-gather and reduce-scatter those of one rank
  ncclDataType_t type;
  int op_or_root;
  const void* in;
  void* out;

  std::string ToString() const {
    return absl::StrCat(name, " of ", count, " elements of type ", type, " with ", op_or_root);
  }
};

struct Round {
  std::map<int, const Call*> calls;  // by rank
  bool ran = false;
  int left = 0;  // ranks that went on
};

struct Clique {
  int size = 0, finalized = 0;
  std::map<int, ncclComm*> ranks;
  std::map<std::string, std::set<int>> connected;  // by the kind of collective: who has called one
  std::map<size_t, Round> rounds;
};

size_t SizeOf(ncclDataType_t type) {
  return type == ncclFloat32 ? 4 : type == ncclUint8 ? 1 : 8;
}

std::map<uint64_t, std::shared_ptr<Clique>>& Cliques() {
  static auto& cliques = *new std::map<uint64_t, std::shared_ptr<Clique>>;
  return cliques;
}

std::atomic<int> g_slow_milliseconds = 0;
std::atomic<bool> g_peer_is_lost = false;

template <class T>
void Reduce(const std::vector<const Call*>& calls, size_t first, size_t count, T* out) {
  std::vector<T> sum(static_cast<const T*>(calls[0]->in) + first,
                     static_cast<const T*>(calls[0]->in) + first + count);
  for (size_t rank = 1; rank < calls.size(); ++rank) {
    const T* const in = static_cast<const T*>(calls[rank]->in) + first;
    for (size_t i = 0; i < count; ++i) {
      sum[i] = calls[0]->op_or_root == ncclSum   ? static_cast<T>(sum[i] + in[i])
               : calls[0]->op_or_root == ncclMax ? std::max(sum[i], in[i])
                                                 : std::min(sum[i], in[i]);
    }
  }
  std::copy(sum.begin(), sum.end(), out);
}

template <class T>
void Run(const std::vector<const Call*>& calls) {
  const Call& first = *calls[0];
  const size_t count = first.count;
  std::vector<T> result(
      first.name == "ncclAllGather" || first.name == "ncclReduceScatter" ? count * calls.size() : count);
  if (first.name == "ncclBroadcast") {
    const auto* const in = static_cast<const T*>(calls[static_cast<size_t>(first.op_or_root)]->in);
    result.assign(in, in + count);
  } else if (first.name == "ncclAllGather") {
    for (size_t rank = 0; rank < calls.size(); ++rank)
      std::copy_n(static_cast<const T*>(calls[rank]->in), count, result.data() + rank * count);
  } else {
    Reduce<T>(calls, 0, result.size(), result.data());
  }
  for (size_t rank = 0; rank < calls.size(); ++rank) {
    const bool scatters = first.name == "ncclReduceScatter";
    std::copy_n(result.data() + (scatters ? rank * count : 0), scatters ? count : result.size(),
                static_cast<T*>(calls[rank]->out));
  }
}

}  // namespace

struct ncclComm {
  std::shared_ptr<Clique> clique;
  int rank = 0;
  size_t enqueued = 0, executed = 0;
  std::atomic<bool> in_use = false;
  // What happens once NCCL's own thread has done its part of a call.
  struct Pending {
    size_t polls;
    std::function<bool()> can_complete;
    std::function<void()> complete;
  };
  std::optional<Pending> pending;
  std::map<void*, size_t> registrations;
  bool finalized = false;
  int calls = 0;
};

namespace {

class Collective final : public fake::Collective {
 public:
  Collective(ncclComm& comm, Call call) : comm_(comm), call_(std::move(call)) {}

  size_t Enqueue() override { return comm_.enqueued++; }
  bool Ready(size_t number) override {
    if (number != comm_.executed) return false;  // NCCL keeps the order of one communicator
    Round& round = comm_.clique->rounds[number];
    round.calls[comm_.rank] = &call_;
    return round.ran || static_cast<int>(round.calls.size()) == comm_.clique->size;
  }
  void Run(size_t number) override {
    Round& round = comm_.clique->rounds.at(number);
    if (!round.ran) RunAll(round);
    ++comm_.executed;
    if (++round.left == comm_.clique->size) comm_.clique->rounds.erase(number);
  }
  std::string Missing(size_t number) const override {
    std::string missing;
    const Round& round = comm_.clique->rounds[number];
    for (int rank = 0; rank < comm_.clique->size; ++rank)
      if (!round.calls.contains(rank)) absl::StrAppend(&missing, " ", rank);
    return absl::StrCat("NCCL: ", call_.ToString(), " of rank ", comm_.rank, " waits for ranks", missing);
  }

 private:
  static void RunAll(Round& round) {
    std::vector<const Call*> calls;
    for (const auto& [rank, call] : round.calls) {
      calls.push_back(call);
      if (call->ToString() != calls[0]->ToString()) {
        Fail(absl::StrCat("NCCL: rank 0 calls ", calls[0]->ToString(), " where rank ", rank, " calls ",
                          call->ToString()));
      }
    }
    switch (calls[0]->type) {
      case ncclFloat32:
        ::Run<float>(calls);
        break;
      case ncclFloat64:
        ::Run<double>(calls);
        break;
      case ncclInt64:
        ::Run<int64_t>(calls);
        break;
      default:
        ::Run<uint8_t>(calls);
    }
    round.ran = true;
  }

  ncclComm& comm_;
  const Call call_;
};

// Runs body(runtime) unless a script has the call fail; one thread at a time.
template <class Body>
ncclResult_t Enter(ncclComm* comm, const char* name, const Body& body) {
  if (comm != nullptr && comm->in_use.exchange(true))
    Fail(absl::StrCat("NCCL: ", name, " while another thread is in this communicator"));
  if (comm != nullptr && g_slow_milliseconds > 0 && ++comm->calls % 8 == 0)
    std::this_thread::sleep_for(std::chrono::milliseconds(g_slow_milliseconds));
  Runtime& runtime = Runtime::Get();
  std::unique_lock lock(runtime.mutex);
  const cudaError_t scripted = runtime.Enter(lock, name);
  const ncclResult_t result = scripted != cudaSuccess ? static_cast<ncclResult_t>(scripted) : body(runtime);
  if (comm != nullptr) comm->in_use = false;
  return result;
}

ncclResult_t Start(ncclComm_t comm, cudaStream_t stream, size_t in_count, size_t out_count, Call call) {
  return Enter(comm, call.name.c_str(), [&](Runtime& runtime) {
    if (comm->pending.has_value())
      Fail(absl::StrCat("NCCL: ", call.name, " while an earlier call is in progress"));
    fake::Stream* const queue = runtime.Find(stream);
    if (queue == nullptr) return ncclInvalidArgument;
    for (const auto& [data, count] :
         {std::pair<const void*, size_t>(call.in, in_count), {call.out, out_count}}) {
      if (runtime.memory.PlaceOf(data, count * SizeOf(call.type), queue->device) != fake::Place::kDevice)
        Fail(absl::StrCat("NCCL: ", call.name, " of memory of the host"));
    }
    std::set<int>& connected = comm->clique->connected[call.name];
    const bool first = connected.insert(comm->rank).second;
    const auto add = [&runtime, queue, comm, call] {
      runtime.Add(
          *queue,
          {.name = call.name, .run = nullptr, .collective = std::make_shared<Collective>(*comm, call)});
    };
    if (!first && runtime.Draw(2) == 0) {
      add();
      return ncclSuccess;
    }
    comm->pending = {runtime.Draw(4),
                     [&connected, comm] { return static_cast<int>(connected.size()) == comm->clique->size; },
                     add};
    return ncclInProgress;
  });
}

ncclResult_t GetVersion(int* version) {
  *version = 22809;
  return ncclSuccess;
}
const char* GetErrorString(ncclResult_t result) {
  return result == ncclRemoteError ? "remote process exited or there was a network error"
                                   : "an error of the fake";
}
const char* GetLastError(ncclComm_t) {
  return "none of the fake";
}
ncclResult_t GetUniqueId(ncclUniqueId* id) {
  return Enter(nullptr, "ncclGetUniqueId", [&](Runtime&) {
    static uint64_t last = 0;
    ++last;
    std::memset(id, 0, sizeof *id);
    std::memcpy(id, &last, sizeof last);
    return ncclSuccess;
  });
}
ncclResult_t CommInitRankConfig(ncclComm_t* made, int size, ncclUniqueId id, int rank, ncclConfig_t* config) {
  return Enter(nullptr, "ncclCommInitRankConfig", [&](Runtime& runtime) {
    if (config->blocking != 0) Fail("NCCL: a communicator whose calls block");
    uint64_t number = 0;
    std::memcpy(&number, &id, sizeof number);
    auto& clique = Cliques()[number];
    if (clique == nullptr) clique = std::make_shared<Clique>();
    clique->size = size;
    auto* const comm = new ncclComm;
    comm->clique = clique;
    comm->rank = rank;
    if (!clique->ranks.insert({rank, comm}).second) Fail(absl::StrCat("NCCL: two ranks ", rank));
    comm->pending = {runtime.Draw(4),
                     [clique, size] { return static_cast<int>(clique->ranks.size()) == size; }, [] {}};
    *made = comm;
    return ncclInProgress;
  });
}
ncclResult_t CommGetAsyncError(ncclComm_t comm, ncclResult_t* state) {
  const ncclResult_t error = Enter(comm, "ncclCommGetAsyncError", [&](Runtime&) {
    *state = g_peer_is_lost ? ncclRemoteError : ncclSuccess;
    if (!comm->pending.has_value()) return ncclSuccess;
    *state = ncclInProgress;
    if (comm->pending->polls > 0) {
      --comm->pending->polls;
    } else if (comm->pending->can_complete()) {
      comm->pending->complete();
      comm->pending.reset();
      *state = ncclSuccess;
    }
    return ncclSuccess;
  });
  if (error != ncclSuccess) *state = error;
  return ncclSuccess;
}
ncclResult_t CommFinalize(ncclComm_t comm) {
  return Enter(comm, "ncclCommFinalize", [&](Runtime&) {
    if (comm->pending.has_value()) Fail("NCCL: ncclCommFinalize while an earlier call is in progress");
    if (comm->executed < comm->enqueued) Fail("NCCL: ncclCommFinalize with collectives under way");
    comm->finalized = true;
    ++comm->clique->finalized;
    comm->pending = {1, [comm] { return comm->clique->finalized == comm->clique->size; }, [] {}};
    return ncclInProgress;
  });
}
ncclResult_t CommDestroy(ncclComm_t comm) {
  if (!comm->finalized || comm->pending.has_value())
    Fail("NCCL: ncclCommDestroy before the end of ncclCommFinalize");
  if (!comm->registrations.empty()) Fail("NCCL: ncclCommDestroy with registered memory");
  delete comm;
  return ncclSuccess;
}
ncclResult_t CommRegister(const ncclComm_t comm, void* data, size_t bytes, void** handle) {
  return Enter(comm, "ncclCommRegister", [&](Runtime& runtime) {
    if (runtime.memory.PlaceOf(data, bytes, fake::CurrentDevice()) != fake::Place::kDevice)
      Fail("NCCL: ncclCommRegister of memory of the host");
    *handle = data;
    comm->registrations[data] = bytes;
    return ncclSuccess;
  });
}
ncclResult_t CommDeregister(const ncclComm_t comm, void* handle) {
  return Enter(comm, "ncclCommDeregister", [&](Runtime&) {
    if (comm->registrations.erase(handle) == 0) Fail("NCCL: ncclCommDeregister of what is not registered");
    return ncclSuccess;
  });
}
ncclResult_t AllReduce(const void* in, void* out, size_t count, ncclDataType_t type, ncclRedOp_t op,
                       ncclComm_t comm, cudaStream_t stream) {
  return Start(comm, stream, count, count, {"ncclAllReduce", count, type, op, in, out});
}
ncclResult_t ReduceScatter(const void* in, void* out, size_t count, ncclDataType_t type, ncclRedOp_t op,
                           ncclComm_t comm, cudaStream_t stream) {
  const size_t all = count * static_cast<size_t>(comm->clique->size);
  return Start(comm, stream, all, count, {"ncclReduceScatter", count, type, op, in, out});
}
ncclResult_t AllGather(const void* in, void* out, size_t count, ncclDataType_t type, ncclComm_t comm,
                       cudaStream_t stream) {
  const size_t all = count * static_cast<size_t>(comm->clique->size);
  return Start(comm, stream, count, all, {"ncclAllGather", count, type, 0, in, out});
}
ncclResult_t Broadcast(const void* in, void* out, size_t count, ncclDataType_t type, int root,
                       ncclComm_t comm, cudaStream_t stream) {
  return Start(comm, stream, count, count, {"ncclBroadcast", count, type, root, in, out});
}

}  // namespace

namespace deeper {

void fake_nccl::SlowCalls(int milliseconds) {
  g_slow_milliseconds = milliseconds;
}

void fake_nccl::LosePeer() {
  g_peer_is_lost = true;
}

absl::StatusOr<NcclLibrary> NcclLibrary::Open(const char*) {
  NcclLibrary library{};
#define DEEPER_TAKE(Name) library.Name = ::Name
  DEEPER_NCCL_FUNCTIONS(DEEPER_TAKE);
#undef DEEPER_TAKE
  return library;
}

std::string NcclLibrary::Version() const {
  return "of the fake";
}

const absl::StatusOr<NcclLibrary>& Nccl() {
  static const absl::StatusOr<NcclLibrary> library = NcclLibrary::Open("");
  return library;
}

}  // namespace deeper
