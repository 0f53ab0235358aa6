#include "comm/mpi/progress_thread.h"

#include <chrono>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/trace.h"

namespace deeper {
namespace {

// Time between two polls. It is shorter than any transfer worth hiding: polling at this interval made an
// all-reduce of 28 MB over shared memory as fast as MPI_Wait.
constexpr std::chrono::microseconds kPause{100};

}  // namespace

class ProgressThread::Pending final : public Request::State {
 public:
  Pending(ProgressThread& progress, std::shared_ptr<const Entry> entry)
      : progress_(progress), entry_(std::move(entry)) {}
  void Wait() override {
    std::unique_lock lock(progress_.mutex_);
    ++progress_.waiting_;
    while (!entry_->done) {
      progress_.AdvanceAll();
      lock.unlock();  // lets another caller in
      lock.lock();
    }
    --progress_.waiting_;
    if (!progress_.under_way_.empty()) progress_.wake_.notify_one();
  }
  bool Test() override {
    const std::lock_guard lock(progress_.mutex_);
    return entry_->done;
  }

 private:
  ProgressThread& progress_;
  std::shared_ptr<const Entry> entry_;
};

ProgressThread::ProgressThread() : thread_([this](const std::stop_token& stop) { Run(stop); }) {}

ProgressThread::~ProgressThread() {
  const std::lock_guard lock(mutex_);
  DEEPER_CHECK(under_way_.empty(), "a collective is still in progress");
}

Request ProgressThread::Start(const std::function<std::unique_ptr<Operation>()>& start) {
  auto entry = std::make_shared<Entry>();
  {
    const std::lock_guard lock(mutex_);
    entry->trace_start = Tracing() ? TraceClock() : 0;
    entry->operation = start();
    under_way_.push_back(entry);
  }
  wake_.notify_one();
  return Request(std::make_unique<Pending>(*this, std::move(entry)));
}

void ProgressThread::Call(const std::function<void()>& call) {
  const std::lock_guard lock(mutex_);
  call();
}

void ProgressThread::AdvanceAll() {
  std::erase_if(under_way_, [](const std::shared_ptr<Entry>& entry) {
    entry->done = entry->operation->Advance();
    if (!entry->done) return false;
    TraceAsync("communication", entry->operation->name(), entry->trace_start);
    entry->operation.reset();
    return true;
  });
}

void ProgressThread::Run(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  while (wake_.wait(lock, stop, [this] { return !under_way_.empty() && waiting_ == 0; })) {
    lock.unlock();
    // Sleeps first: by then, most callers that wait for their collective have completed it.
    std::this_thread::sleep_for(kPause);
    lock.lock();
    if (waiting_ == 0) AdvanceAll();
  }
}

}  // namespace deeper
