#include "comm/mpi/mpi_communicator.h"

#include <mpi.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "comm/mpi/launcher.h"
#include "comm/mpi/mpi_collectives.h"
#include "comm/mpi/mpi_library.h"
#include "comm/mpi/progress_thread.h"
#include "kernels/base/check.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

// Up to here, the number of messages in a row matters more than their size.
constexpr size_t kSmallBytes = size_t{16} << 10;

MPI_Datatype Native(CommType type) {
  const MPI_Datatype types[] = {MPI_FLOAT, MPI_DOUBLE, MPI_INT64_T, MPI_UINT8_T};
  return types[static_cast<size_t>(type)];
}

MPI_Op Native(ReduceOp op) {
  const MPI_Op ops[] = {MPI_SUM, MPI_MAX, MPI_MIN};  // MPI has no kTreeSum
  return ops[static_cast<size_t>(op)];
}

std::string ErrorText(const char* call, int code) {
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(code, text, &length);
  return absl::StrCat(call, " failed: ", absl::string_view(text, static_cast<size_t>(length)));
}

using Requests = std::vector<MPI_Request>;

// A collective of the MPI library.
class MpiOperation final : public ProgressThread::Operation {
 public:
  MpiOperation(const MpiPeers& peers, const char* call, Requests requests)
      : peers_(peers), call_(call), requests_(std::move(requests)) {}

  bool Advance() override { return peers_.Done(call_, requests_); }
  const char* name() const override { return call_; }

 private:
  const MpiPeers& peers_;
  const char* call_;
  Requests requests_;
};

class MpiCommunicator final : public Communicator {
 public:
  explicit MpiCommunicator(size_t max_elements) {
    peers_.place = &place_;
    peers_.max_elements = max_elements;
    peers_.check = [this](const char* call, int code) { Check(call, code); };
  }
  // A duplicate: owns `comm`, and shares the thread that makes the MPI calls with the original.
  MpiCommunicator(const MpiCommunicator& original, MPI_Comm comm)
      : MpiCommunicator(original.peers_.max_elements) {
    is_duplicate_ = true;
    place_ = original.place_;
    peers_.comm = comm;
    progress_ = original.progress_;
  }
  ~MpiCommunicator() override {
    if (is_duplicate_) {
      progress_->Call([this] { MPI_Comm_free(&peers_.comm); });
      return;
    }
    progress_.reset();  // before MPI ends
    if (peers_.comm != MPI_COMM_NULL) MPI_Comm_free(&peers_.comm);
    MPI_Finalize();
  }
  absl::Status Init() {
    const auto run = [](const char* call, int code) {
      return code == MPI_SUCCESS ? absl::OkStatus() : Internal(ErrorText(call, code));
    };
    MPI_Comm local = MPI_COMM_NULL;
    RETURN_IF_ERROR(
        run("MPI_Comm_set_errhandler", MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN)));
    RETURN_IF_ERROR(run("MPI_Comm_dup", MPI_Comm_dup(MPI_COMM_WORLD, &peers_.comm)));
    RETURN_IF_ERROR(run("MPI_Comm_split_type",
                        MPI_Comm_split_type(peers_.comm, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &local)));
    MPI_Comm_rank(peers_.comm, &place_.rank);
    MPI_Comm_size(peers_.comm, &place_.size);
    MPI_Comm_rank(local, &place_.local_rank);
    MPI_Comm_size(local, &place_.local_size);
    MPI_Comm_free(&local);
    if (place_.rank == 0) library_ = DescribeMpiLibrary();
    progress_ = std::make_shared<ProgressThread>();
    return absl::OkStatus();
  }

  std::string name() const override { return "mpi"; }
  std::string library() const override { return library_; }

  Request AllReduce(void* data, size_t count, CommType type, ReduceOp op, Stream) override {
    if (op == ReduceOp::kTreeSum) {
      DEEPER_CHECK(type == CommType::kF32, "tree sums need floats");
      return progress_->Start([&] { return StartTreeSum(peers_, static_cast<float*>(data), count); });
    }
    if (count * SizeOf(type) <= kSmallBytes) {
      return progress_->Start(
          [&] { return StartSmallReduction(peers_, data, count, Native(type), Native(op)); });
    }
    return Start("MPI_Iallreduce", 1, count, [&](int, size_t first, int n, MPI_Request* request) {
      std::byte* part = static_cast<std::byte*>(data) + first * SizeOf(type);
      return MPI_Iallreduce(MPI_IN_PLACE, part, n, Native(type), Native(op), peers_.comm, request);
    });
  }

  Request SumInBf16(float* data, float* residual, size_t count, Stream) override {
    return progress_->Start([&] { return StartBf16Sum(peers_, data, residual, count); });
  }

  // One reduction per rank, of its shard: Open MPI's MPI_Ireduce_scatter_block sends everything through rank
  // 0, which took two to four times as long (28 MB, 2 and 4 ranks of one machine).
  Request ReduceScatter(const float* data, float* shard, size_t count, Stream) override {
    return Start("MPI_Ireduce", size(), count, [&](int root, size_t first, int n, MPI_Request* request) {
      const float* from = data + static_cast<size_t>(root) * count + first;
      return MPI_Ireduce(from, shard + first, n, MPI_FLOAT, MPI_SUM, root, peers_.comm, request);
    });
  }

  Request AllGather(const void* mine, void* all, size_t bytes, Stream) override {
    std::byte* const to = static_cast<std::byte*>(all);
    std::byte* const own = to + static_cast<size_t>(rank()) * bytes;
    if (bytes > 0 && mine != own) std::memcpy(own, mine, bytes);
    if (static_cast<size_t>(size()) * bytes <= kSmallBytes)
      return progress_->Start([&] { return StartSmallGather(peers_, to, bytes); });
    if (static_cast<size_t>(size()) * bytes <= peers_.max_elements) {
      return Start("MPI_Iallgather", [&](MPI_Request* request) {
        const int n = static_cast<int>(bytes);
        return MPI_Iallgather(MPI_IN_PLACE, n, MPI_BYTE, to, n, MPI_BYTE, peers_.comm, request);
      });
    }
    return Start("MPI_Ibcast", size(), bytes, [&](int root, size_t first, int n, MPI_Request* request) {
      std::byte* const part = to + static_cast<size_t>(root) * bytes + first;
      return MPI_Ibcast(part, n, MPI_BYTE, root, peers_.comm, request);
    });
  }

  Request Shift(const void* to_next, void* from_previous, size_t bytes) override {
    return progress_->Start([&] { return StartShift(peers_, to_next, from_previous, bytes); });
  }

  Request Broadcast(void* data, size_t bytes, int root, Stream) override {
    return Start("MPI_Ibcast", 1, bytes, [&](int, size_t first, int n, MPI_Request* request) {
      return MPI_Ibcast(static_cast<std::byte*>(data) + first, n, MPI_BYTE, root, peers_.comm, request);
    });
  }

  void Barrier() override {
    Start("MPI_Ibarrier", [&](MPI_Request* request) { return MPI_Ibarrier(peers_.comm, request); }).Wait();
  }

  std::unique_ptr<Communicator> Duplicate() override {
    MPI_Comm duplicate = MPI_COMM_NULL;
    Start("MPI_Comm_idup", [&](MPI_Request* request) {
      return MPI_Comm_idup(peers_.comm, &duplicate, request);
    }).Wait();
    return std::make_unique<MpiCommunicator>(*this, duplicate);
  }

  void Abort(int exit_code, const std::string& reason) override {
    std::fprintf(stderr, "deeper: rank %d of %d: %s\n", rank(), size(), reason.c_str());
    MPI_Abort(peers_.comm, exit_code);
    std::_Exit(exit_code);
  }

 private:
  void Check(const char* call, int code) {
    if (code != MPI_SUCCESS) Abort(kCommunicationExitCode, ErrorText(call, code));
  }
  // Starts one MPI collective with start(MPI_Request*).
  template <class Call>
  Request Start(const char* name, const Call& start) {
    return Start(name, 1, 1, [&](int, size_t, int, MPI_Request* request) { return start(request); });
  }
  // Starts several with start(root, first, count, MPI_Request*), for every root below `roots` and each part
  // of `elements` that one MPI call may handle.
  template <class Call>
  Request Start(const char* name, int roots, size_t elements, const Call& start) {
    return progress_->Start([&] {
      Requests requests;
      for (int root = 0; root < roots; ++root) {
        peers_.InParts(name, elements, requests, [&](size_t first, int n, MPI_Request* request) {
          return start(root, first, n, request);
        });
      }
      return std::make_unique<MpiOperation>(peers_, name, std::move(requests));
    });
  }

  bool is_duplicate_ = false;
  std::string library_;
  MpiPeers peers_;
  std::shared_ptr<ProgressThread> progress_;  // makes or guards all MPI calls from MPI_Init to the end
};

}  // namespace

MpiBaseline::MpiBaseline() {
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_ARE_FATAL);
}

void MpiBaseline::AllReduce(float* data, size_t count) {
  MPI_Allreduce(MPI_IN_PLACE, data, static_cast<int>(count), MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
}

void MpiBaseline::ReduceScatter(const float* data, float* shard, size_t count) {
  MPI_Reduce_scatter_block(data, shard, static_cast<int>(count), MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
}

void MpiBaseline::AllGather(const void* mine, void* all, size_t bytes) {
  const int n = static_cast<int>(bytes);
  MPI_Allgather(mine, n, MPI_BYTE, all, n, MPI_BYTE, MPI_COMM_WORLD);
}

std::string MpiVersion() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING];
  int length = 0;
  MPI_Get_library_version(text, &length);
  const absl::string_view whole(text, static_cast<size_t>(length));
  return std::string(whole.substr(0, whole.find_first_of(",\n")));
}

absl::StatusOr<std::unique_ptr<Communicator>> MakeMpiCommunicator(size_t max_elements) {
  DEEPER_CHECK(max_elements > 0 && max_elements <= size_t{1} << 28);
  int started = 0;
  MPI_Initialized(&started);
  if (started)
    return FailedPrecondition(
        "MPI is already started in this process and can start only once; share its communicator");
  // The ring moves every byte twice for any number of ranks. For reductions in place, Open MPI uses a
  // binomial tree through rank 0 by default, which took 1.2 to 2.5 times as long from 4 MB on. Keeps an
  // algorithm set by the user. Small reductions do not use it: see StartSmallReduction.
  setenv("OMPI_MCA_coll_libnbc_iallreduce_algorithm", "1", /*overwrite=*/0);
  ShareNetworkOfMpi();
  int provided = MPI_THREAD_SINGLE;
  if (const int code = MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided);
      code != MPI_SUCCESS)
    return Internal(ErrorText("MPI_Init_thread", code));
  auto communicator = std::make_unique<MpiCommunicator>(max_elements);
  if (provided < MPI_THREAD_SERIALIZED)
    return FailedPrecondition(
        "this MPI library supports only one thread; use one built with thread support "
        "(MPI_THREAD_SERIALIZED)");
  RETURN_IF_ERROR(communicator->Init());
  return communicator;
}

}  // namespace deeper
