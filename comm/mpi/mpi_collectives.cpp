#include "comm/mpi/mpi_collectives.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>
#include <utility>

#include "comm/bf16_sum.h"
#include "kernels/base/check.h"
#include "kernels/base/parallel.h"

namespace deeper {
namespace {

constexpr int kTags = 32768;  // every MPI supports as many

// The messages of one collective. Every rank makes its exchanges in the same order, which determines their
// tags.
class Exchange : public ProgressThread::Operation {
 public:
  explicit Exchange(MpiPeers& peers) : peers_(peers), tag_(peers.tag = (peers.tag + 1) % kTags) {
    if (peers_.scratch.empty()) return;
    scratch_ = std::move(peers_.scratch.back());
    peers_.scratch.pop_back();
  }
  ~Exchange() override { peers_.scratch.push_back(std::move(scratch_)); }
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

 protected:
  int rank() const { return peers_.place->rank; }
  int size() const { return peers_.place->size; }
  // Scratch memory for this exchange; not cleared.
  template <class T>
  T* Scratch(size_t count) {
    const size_t bytes = count * sizeof(T);
    if (scratch_.size() < bytes) scratch_.assign(bytes, {});
    return reinterpret_cast<T*>(scratch_.data());
  }
  // Between two ranks, messages arrive in the order of sending.
  void Send(const void* data, size_t bytes, int to) {
    peers_.InParts("MPI_Isend", bytes, under_way_, [&](size_t first, int n, MPI_Request* request) {
      return MPI_Isend(static_cast<const std::byte*>(data) + first, n, MPI_BYTE, to, tag_, peers_.comm,
                       request);
    });
  }
  void Receive(void* data, size_t bytes, int from) {
    peers_.InParts("MPI_Irecv", bytes, under_way_, [&](size_t first, int n, MPI_Request* request) {
      return MPI_Irecv(static_cast<std::byte*>(data) + first, n, MPI_BYTE, from, tag_, peers_.comm, request);
    });
  }
  void Check(const char* call, int code) const { peers_.check(call, code); }
  // True once all messages sent and received so far are complete.
  bool Done() { return peers_.Done("MPI_Testall", under_way_); }

 private:
  MpiPeers& peers_;
  const int tag_;
  std::vector<std::byte> scratch_;
  std::vector<MPI_Request> under_way_;
};

class Shift final : public Exchange {
 public:
  Shift(MpiPeers& peers, const void* to_next, void* from_previous, size_t bytes) : Exchange(peers) {
    if (to_next != nullptr) Send(to_next, bytes, (rank() + 1) % size());
    if (from_previous != nullptr) Receive(from_previous, bytes, (rank() + size() - 1) % size());
  }
  bool Advance() override { return Done(); }
  const char* name() const override { return "shift"; }
};

// Ranks from the largest power of two on fold into lower ones first, and receive the result at the end.
class SmallReduction final : public Exchange {
 public:
  SmallReduction(MpiPeers& peers, void* data, size_t count, MPI_Datatype type, MPI_Op op)
      : Exchange(peers), data_(data), count_(static_cast<int>(count)), type_(type), op_(op) {
    MPI_Type_size(type, &element_);
    theirs_ = Scratch<std::byte>(bytes());
    const int core = static_cast<int>(std::bit_floor(static_cast<unsigned>(size())));
    if (rank() >= core) {
      rounds_ = {{rank() - core, true, false}, {rank() - core, false, true}};
    } else {
      const bool folds = rank() + core < size();
      if (folds) rounds_.push_back({rank() + core, false, true});
      for (int bit = 1; bit < core; bit *= 2) rounds_.push_back({rank() ^ bit, true, true});
      if (folds) rounds_.push_back({rank() + core, true, false});
    }
    if (!rounds_.empty()) Begin(rounds_[0]);
  }

  bool Advance() override {
    while (round_ < rounds_.size()) {
      if (!Done()) return false;
      End(rounds_[round_]);
      if (++round_ < rounds_.size()) Begin(rounds_[round_]);
    }
    return true;
  }
  const char* name() const override { return "small reduction"; }

 private:
  struct Round {
    int peer = 0;
    bool sends = false, receives = false;
  };

  size_t bytes() const { return static_cast<size_t>(count_) * static_cast<size_t>(element_); }
  void Begin(const Round& round) {
    if (round.receives) Receive(theirs_, bytes(), round.peer);
    if (round.sends) Send(data_, bytes(), round.peer);
  }
  // Both partners compute (lower rank's) op (higher rank's), so that they get the same bits.
  void End(const Round& round) {
    if (!round.receives) return;
    const bool result = !round.sends && round.peer < rank();
    if (round.peer > rank()) Reduce(data_, theirs_);
    if (result || round.peer > rank()) {
      std::memcpy(data_, theirs_, bytes());
    } else {
      Reduce(theirs_, data_);
    }
  }
  void Reduce(const void* x, void* into) {
    Check("MPI_Reduce_local", MPI_Reduce_local(x, into, count_, type_, op_));
  }

  void* const data_;
  const int count_;
  const MPI_Datatype type_;
  const MPI_Op op_;
  int element_ = 0;  // bytes
  std::byte* theirs_ = nullptr;
  std::vector<Round> rounds_;
  size_t round_ = 0;
};

// Shares are kept in the order of ranks from this one on: own first. A round doubles them.
class SmallGather final : public Exchange {
 public:
  SmallGather(MpiPeers& peers, std::byte* all, size_t bytes) : Exchange(peers), all_(all), bytes_(bytes) {
    shares_ = Scratch<std::byte>(bytes * static_cast<size_t>(size()));
    if (bytes > 0) std::memcpy(shares_, Share(all_, rank()), bytes);
    Begin();
  }

  bool Advance() override {
    while (have_ < size()) {
      if (!Done()) return false;
      have_ += count();
      Begin();
    }
    for (int i = 0; i < size() && bytes_ > 0; ++i)
      std::memcpy(Share(all_, (rank() + i) % size()), Share(shares_, i), bytes_);
    return true;
  }
  const char* name() const override { return "small all-gather"; }

 private:
  std::byte* Share(std::byte* of, int i) const { return of + static_cast<size_t>(i) * bytes_; }
  int count() const { return std::min(have_, size() - have_); }  // of shares in this round
  void Begin() {
    if (have_ == size()) return;
    const size_t bytes = static_cast<size_t>(count()) * bytes_;
    Receive(Share(shares_, have_), bytes, (rank() + have_) % size());
    Send(shares_, bytes, (rank() + size() - have_) % size());
  }

  std::byte* const all_;
  const size_t bytes_;
  std::byte* shares_ = nullptr;  // [size * bytes]
  int have_ = 1;
};

DEEPER_SIMD void Add(const float* x, float* into, size_t count) {
  for (size_t i = 0; i < count; ++i) into[i] += x[i];
}

size_t LevelsOfTree(int ranks) {
  DEEPER_CHECK(std::has_single_bit(static_cast<unsigned>(ranks)),
               "a tree over " + std::to_string(ranks) + " ranks");
  return static_cast<size_t>(std::countr_zero(static_cast<unsigned>(ranks)));
}

class TreeSum final : public Exchange {
 public:
  TreeSum(MpiPeers& peers, float* data, size_t count)
      : Exchange(peers),
        data_(data),
        theirs_(Scratch<float>((count + 1) / 2)),
        levels_(LevelsOfTree(size())),
        kept_{{0, count}} {
    if (levels_ > 0) Halve(0);
  }

  bool Advance() override {
    while (round_ < 2 * levels_) {
      if (!Done()) return false;
      if (round_ < levels_) Add(theirs_, data_ + kept_.back().begin, kept_.back().size());
      ++round_;
      if (round_ < levels_) {
        Halve(round_);
      } else if (round_ < 2 * levels_) {
        Double(2 * levels_ - 1 - round_);
      }
    }
    return true;
  }
  const char* name() const override { return "tree sum"; }

 private:
  struct Range {
    size_t begin = 0, end = 0;
    size_t size() const { return end - begin; }
    size_t bytes() const { return size() * sizeof(float); }
  };

  int Partner(size_t level) const { return rank() ^ (1 << level); }

  // Of two partners, the lower keeps the first half.
  void Halve(size_t level) {
    const Range all = kept_.back();
    const size_t middle = all.begin + all.size() / 2;
    Range keep = {all.begin, middle}, give = {middle, all.end};
    if (Partner(level) < rank()) std::swap(keep, give);
    kept_.push_back(keep);
    Receive(theirs_, keep.bytes(), Partner(level));
    Send(data_ + give.begin, give.bytes(), Partner(level));
  }

  // Reverses Halve(level): the partner has summed the other half of kept_[level].
  void Double(size_t level) {
    const Range mine = kept_[level + 1], all = kept_[level];
    const Range theirs = mine.begin == all.begin ? Range{mine.end, all.end} : Range{all.begin, mine.begin};
    Receive(data_ + theirs.begin, theirs.bytes(), Partner(level));
    Send(data_ + mine.begin, mine.bytes(), Partner(level));
  }

  float* const data_;
  float* const theirs_;      // the partner's data of the half that is being summed
  const size_t levels_;      // halvings, and doublings
  size_t round_ = 0;         // of 2 levels_
  std::vector<Range> kept_;  // [halvings begun + 1]: the range that this rank sums from then on
};

class Bf16Sum final : public Exchange {
 public:
  Bf16Sum(MpiPeers& peers, float* data, float* residual, size_t count)
      : Exchange(peers), data_(data), residual_(residual), count_(count) {
    const OwnedPart mine = PartOf(rank());
    wire_ = Scratch<bf16>(count + mine.size() * static_cast<size_t>(size()));
    RoundWithFeedback(data, residual, wire_, count);
    for (int peer = 0; peer < size(); ++peer) {
      bf16* const theirs = wire_ + count + mine.size() * static_cast<size_t>(peer);
      parts_.push_back(peer == rank() ? wire_ + mine.begin : theirs);
      if (peer != rank()) Swap(peer, theirs, mine, PartOf(peer));
    }
  }

  bool Advance() override {
    if (!Done()) return false;
    if (!summed_) SumMine();
    if (!Done()) return false;
    Widen(wire_, data_, count_);
    return true;
  }
  const char* name() const override { return "sum in bf16"; }

 private:
  OwnedPart PartOf(int owner) const { return {count_, size(), owner}; }

  // Receives `received` into `into`, and sends `sent` of wire_.
  void Swap(int peer, bf16* into, const OwnedPart& received, const OwnedPart& sent) {
    Receive(into, received.size() * sizeof(bf16), peer);
    Send(wire_ + sent.begin, sent.size() * sizeof(bf16), peer);
  }

  // All parts have arrived, and all parts of wire_ have been sent.
  void SumMine() {
    summed_ = true;
    const OwnedPart mine = PartOf(rank());
    SumParts(parts_, residual_ + mine.begin, wire_ + mine.begin, mine.size());
    for (int peer = 0; peer < size(); ++peer)
      if (peer != rank()) Swap(peer, wire_ + PartOf(peer).begin, PartOf(peer), mine);
  }

  float* const data_;
  float* const residual_;
  const size_t count_;
  bf16* wire_ = nullptr;            // [count]
  std::vector<const bf16*> parts_;  // [rank], of the part that this rank owns
  bool summed_ = false;
};

}  // namespace

std::unique_ptr<ProgressThread::Operation> StartShift(MpiPeers& peers, const void* to_next,
                                                      void* from_previous, size_t bytes) {
  return std::make_unique<Shift>(peers, to_next, from_previous, bytes);
}

std::unique_ptr<ProgressThread::Operation> StartSmallReduction(MpiPeers& peers, void* data, size_t count,
                                                               MPI_Datatype type, MPI_Op op) {
  return std::make_unique<SmallReduction>(peers, data, count, type, op);
}

std::unique_ptr<ProgressThread::Operation> StartSmallGather(MpiPeers& peers, std::byte* all, size_t bytes) {
  return std::make_unique<SmallGather>(peers, all, bytes);
}

std::unique_ptr<ProgressThread::Operation> StartTreeSum(MpiPeers& peers, float* data, size_t count) {
  return std::make_unique<TreeSum>(peers, data, count);
}

std::unique_ptr<ProgressThread::Operation> StartBf16Sum(MpiPeers& peers, float* data, float* residual,
                                                        size_t count) {
  return std::make_unique<Bf16Sum>(peers, data, residual, count);
}

}  // namespace deeper
