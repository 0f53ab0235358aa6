#include "comm/mpi/mpi_communicator.h"

#include <mpi.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "comm/mpi/mpi_bf16_sum.h"
#include "comm/mpi/mpi_exchange.h"
#include "comm/mpi/mpi_tree_sum.h"
#include "comm/mpi/progress_thread.h"
#include "kernels/base/check.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

MPI_Datatype Native(CommType type) {
  switch (type) {
    case CommType::kF32:
      return MPI_FLOAT;
    case CommType::kF64:
      return MPI_DOUBLE;
    case CommType::kI64:
      return MPI_INT64_T;
    case CommType::kU8:
      return MPI_UINT8_T;
  }
  return MPI_DATATYPE_NULL;
}

MPI_Op Native(ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum:
      return MPI_SUM;
    case ReduceOp::kMax:
      return MPI_MAX;
    case ReduceOp::kMin:
      return MPI_MIN;
    case ReduceOp::kTreeSum:
      break;  // no operation of MPI's
  }
  return MPI_OP_NULL;
}

size_t SizeOf(CommType type) {
  int bytes = 0;
  MPI_Type_size(Native(type), &bytes);
  return static_cast<size_t>(bytes);
}

std::string ErrorText(const char* call, int code) {
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(code, text, &length);
  return absl::StrCat(call, " failed: ", absl::string_view(text, static_cast<size_t>(length)));
}

class MpiCommunicator final : public Communicator {
 public:
  explicit MpiCommunicator(size_t max_elements) : max_elements_(max_elements) {}
  // A duplicate: `comm` is its own, the thread that makes MPI calls the original's.
  MpiCommunicator(const MpiCommunicator& original, MPI_Comm comm)
      : max_elements_(original.max_elements_),
        is_duplicate_(true),
        comm_(comm),
        rank_(original.rank_),
        size_(original.size_),
        local_rank_(original.local_rank_),
        local_size_(original.local_size_),
        progress_(original.progress_) {
    InitPeers();
  }
  ~MpiCommunicator() override {
    if (is_duplicate_) {
      progress_->Call([this] { MPI_Comm_free(&comm_); });
      return;
    }
    progress_.reset();  // before MPI is gone
    if (comm_ != MPI_COMM_NULL) MPI_Comm_free(&comm_);
    MPI_Finalize();
  }
  absl::Status Init();

  std::string name() const override { return "mpi"; }
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  int local_rank() const override { return local_rank_; }
  int local_size() const override { return local_size_; }

  Request AllReduce(void* data, size_t count, CommType type, ReduceOp op, Stream) override;
  Request SumInBf16(float* data, float* residual, size_t count, Stream) override;
  Request ReduceScatter(const float* data, float* shard, size_t count, Stream) override;
  Request AllGather(const void* mine, void* all, size_t bytes, Stream) override;
  Request Shift(const void* to_next, void* from_previous, size_t bytes) override;
  Request Broadcast(void* data, size_t bytes, int root, Stream) override;
  void Barrier() override;
  std::unique_ptr<Communicator> Duplicate() override;
  void Abort(int exit_code, const std::string& reason) override {
    std::fprintf(stderr, "deeper: rank %d of %d: %s\n", rank_, size_, reason.c_str());
    MPI_Abort(comm_, exit_code);
    std::_Exit(exit_code);
  }

 private:
  using Requests = std::vector<MPI_Request>;
  class MpiOperation;

  void Check(const char* call, int code) {
    if (code != MPI_SUCCESS) Abort(kCommunicationExitCode, ErrorText(call, code));
  }
  void InitPeers();
  // Starts one collective made of MPI's own: start(requests) calls `call`.
  Request Start(const char* call, const std::function<void(Requests&)>& start);
  // One request from start(first, count, MPI_Request*) for each part of `elements` that a single call may
  // handle.
  template <class Start>
  void InParts(const char* call, size_t elements, Requests& requests, const Start& start) {
    for (size_t first = 0; first < elements; first += max_elements_) {
      const int count = static_cast<int>(std::min(max_elements_, elements - first));
      Check(call, start(first, count, &requests.emplace_back(MPI_REQUEST_NULL)));
    }
  }

  const size_t max_elements_;
  const bool is_duplicate_ = false;
  MPI_Comm comm_ = MPI_COMM_NULL;
  int rank_ = 0, size_ = 1, local_rank_ = 0, local_size_ = 1;
  MpiPeers peers_;
  std::shared_ptr<ProgressThread> progress_;  // makes or guards all MPI calls from Init to the end
};

class MpiCommunicator::MpiOperation final : public ProgressThread::Operation {
 public:
  MpiOperation(MpiCommunicator& comm, const char* call, Requests requests)
      : comm_(comm), call_(call), requests_(std::move(requests)) {}

  bool Advance() override {
    int done = 0;
    comm_.Check(
        call_, MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &done, MPI_STATUSES_IGNORE));
    return done != 0;
  }
  const char* name() const override { return call_; }

 private:
  MpiCommunicator& comm_;
  const char* call_;
  Requests requests_;
};

class MpiShift final : public ProgressThread::Operation {
 public:
  MpiShift(MpiPeers& peers, const void* to_next, void* from_previous, size_t bytes) : exchange_(peers) {
    if (to_next != nullptr) exchange_.Send(to_next, bytes, (peers.rank + 1) % peers.size);
    if (from_previous != nullptr)
      exchange_.Receive(from_previous, bytes, (peers.rank + peers.size - 1) % peers.size);
  }
  bool Advance() override { return exchange_.Done(); }
  const char* name() const override { return "shift"; }

 private:
  MpiExchange exchange_;
};

absl::Status MpiCommunicator::Init() {
  const auto run = [](const char* call, int code) {
    return code == MPI_SUCCESS ? absl::OkStatus() : absl::InternalError(ErrorText(call, code));
  };
  MPI_Comm local = MPI_COMM_NULL;
  absl::Status status =
      run("MPI_Comm_set_errhandler", MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
  if (status.ok()) status = run("MPI_Comm_dup", MPI_Comm_dup(MPI_COMM_WORLD, &comm_));
  if (status.ok())
    status = run("MPI_Comm_split_type",
                 MPI_Comm_split_type(comm_, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &local));
  if (!status.ok()) return status;
  MPI_Comm_rank(comm_, &rank_);
  MPI_Comm_size(comm_, &size_);
  MPI_Comm_rank(local, &local_rank_);
  MPI_Comm_size(local, &local_size_);
  MPI_Comm_free(&local);
  InitPeers();
  progress_ = std::make_shared<ProgressThread>();
  return absl::OkStatus();
}

void MpiCommunicator::InitPeers() {
  peers_.comm = comm_;
  peers_.rank = rank_;
  peers_.size = size_;
  peers_.max_bytes = max_elements_;
  peers_.check = [this](const char* call, int code) { Check(call, code); };
}

Request MpiCommunicator::Start(const char* call, const std::function<void(Requests&)>& start) {
  return progress_->Start([&] {
    Requests requests;
    start(requests);
    return std::make_unique<MpiOperation>(*this, call, std::move(requests));
  });
}

Request MpiCommunicator::AllReduce(void* data, size_t count, CommType type, ReduceOp op, Stream) {
  if (op == ReduceOp::kTreeSum) {
    DEEPER_CHECK(type == CommType::kF32, "tree sums are of floats");
    return progress_->Start(
        [&] { return std::make_unique<MpiTreeSum>(peers_, static_cast<float*>(data), count); });
  }
  return Start("MPI_Iallreduce", [&](Requests& requests) {
    const size_t bytes = SizeOf(type);
    InParts("MPI_Iallreduce", count, requests, [&](size_t first, int n, MPI_Request* request) {
      std::byte* part = static_cast<std::byte*>(data) + first * bytes;
      return MPI_Iallreduce(MPI_IN_PLACE, part, n, Native(type), Native(op), comm_, request);
    });
  });
}

Request MpiCommunicator::SumInBf16(float* data, float* residual, size_t count, Stream) {
  return progress_->Start([&] { return std::make_unique<MpiBf16Sum>(peers_, data, residual, count); });
}

// A reduction to each rank of its shard: Open MPI's MPI_Ireduce_scatter_block sends everything through rank
// 0, which took two to four times as long (28 MB, 2 and 4 ranks of one machine).
Request MpiCommunicator::ReduceScatter(const float* data, float* shard, size_t count, Stream) {
  return Start("MPI_Ireduce", [&](Requests& requests) {
    for (int root = 0; root < size_; ++root) {
      const float* from = data + static_cast<size_t>(root) * count;
      InParts("MPI_Ireduce", count, requests, [&](size_t first, int n, MPI_Request* request) {
        return MPI_Ireduce(from + first, shard + first, n, MPI_FLOAT, MPI_SUM, root, comm_, request);
      });
    }
  });
}

Request MpiCommunicator::AllGather(const void* mine, void* all, size_t bytes, Stream) {
  std::byte* const to = static_cast<std::byte*>(all);
  std::byte* const own = to + static_cast<size_t>(rank_) * bytes;
  if (bytes > 0 && mine != own) std::memcpy(own, mine, bytes);
  if (static_cast<size_t>(size_) * bytes <= max_elements_) {
    return Start("MPI_Iallgather", [&](Requests& requests) {
      const int n = static_cast<int>(bytes);
      Check("MPI_Iallgather", MPI_Iallgather(MPI_IN_PLACE, n, MPI_BYTE, to, n, MPI_BYTE, comm_,
                                             &requests.emplace_back(MPI_REQUEST_NULL)));
    });
  }
  return Start("MPI_Ibcast", [&](Requests& requests) {
    for (int root = 0; root < size_; ++root) {
      std::byte* block = to + static_cast<size_t>(root) * bytes;
      InParts("MPI_Ibcast", bytes, requests, [&](size_t first, int n, MPI_Request* request) {
        return MPI_Ibcast(block + first, n, MPI_BYTE, root, comm_, request);
      });
    }
  });
}

Request MpiCommunicator::Shift(const void* to_next, void* from_previous, size_t bytes) {
  return progress_->Start([&] { return std::make_unique<MpiShift>(peers_, to_next, from_previous, bytes); });
}

Request MpiCommunicator::Broadcast(void* data, size_t bytes, int root, Stream) {
  return Start("MPI_Ibcast", [&](Requests& requests) {
    InParts("MPI_Ibcast", bytes, requests, [&](size_t first, int n, MPI_Request* request) {
      return MPI_Ibcast(static_cast<std::byte*>(data) + first, n, MPI_BYTE, root, comm_, request);
    });
  });
}

void MpiCommunicator::Barrier() {
  Start("MPI_Ibarrier", [&](Requests& requests) {
    Check("MPI_Ibarrier", MPI_Ibarrier(comm_, &requests.emplace_back(MPI_REQUEST_NULL)));
  }).Wait();
}

std::unique_ptr<Communicator> MpiCommunicator::Duplicate() {
  MPI_Comm duplicate = MPI_COMM_NULL;
  Start("MPI_Comm_idup", [&](Requests& requests) {
    Check("MPI_Comm_idup", MPI_Comm_idup(comm_, &duplicate, &requests.emplace_back(MPI_REQUEST_NULL)));
  }).Wait();
  return std::make_unique<MpiCommunicator>(*this, duplicate);
}

}  // namespace

bool LaunchedByMpi() {
  for (const char* variable : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"})
    if (std::getenv(variable) != nullptr) return true;
  return false;
}

absl::StatusOr<std::unique_ptr<Communicator>> MakeMpiCommunicator(size_t max_elements) {
  DEEPER_CHECK(max_elements > 0 && max_elements <= size_t{1} << 28);
  int started = 0;
  MPI_Initialized(&started);
  if (started)
    return absl::FailedPreconditionError(
        "MPI was started before in this process, and starts only once: share its communicator");
  // The ring moves every byte twice for any number of ranks. Open MPI's own choice for reductions in place is
  // a binomial tree through rank 0, which took 1.2 to 2.5 times as long from 4 MB on. Whoever chose an
  // algorithm keeps it.
  setenv("OMPI_MCA_coll_libnbc_iallreduce_algorithm", "1", /*overwrite=*/0);
  int provided = MPI_THREAD_SINGLE;
  if (const int code = MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &provided); code != MPI_SUCCESS)
    return absl::InternalError(ErrorText("MPI_Init_thread", code));
  auto communicator = std::make_unique<MpiCommunicator>(max_elements);
  if (provided < MPI_THREAD_SERIALIZED)
    return absl::FailedPreconditionError(
        "this MPI library serves only one thread; use one built with thread support (MPI_THREAD_MULTIPLE)");
  RETURN_IF_ERROR(communicator->Init());
  return communicator;
}

}  // namespace deeper
