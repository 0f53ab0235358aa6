#include "comm/mpi/progress_thread.h"

#include <chrono>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/trace.h"

namespace deeper {
namespace {

// Between two polls. The transfers of one poll take longer than that where they are worth hiding: an
// all-reduce of 28 MB over shared memory was as fast polled this way as by MPI_Wait.
constexpr std::chrono::microseconds kPause{100};

}  // namespace

class ProgressThread::Pending final : public Request::State {
 public:
  Pending(ProgressThread& progress, std::shared_ptr<const Entry> entry)
      : progress_(progress), entry_(std::move(entry)) {}
  void Wait() override { progress_.Wait(*entry_); }
  bool Test() override { return progress_.Test(*entry_); }

 private:
  ProgressThread& progress_;
  std::shared_ptr<const Entry> entry_;
};

ProgressThread::ProgressThread() : thread_([this] { Run(); }) {}

ProgressThread::~ProgressThread() {
  {
    const std::lock_guard lock(mutex_);
    DEEPER_CHECK(under_way_.empty(), "a collective is still under way");
    stop_ = true;
  }
  wake_.notify_one();
  thread_.join();
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

void ProgressThread::Wait(const Entry& entry) {
  std::unique_lock lock(mutex_);
  ++waiting_;
  while (!entry.done) {
    AdvanceAll();
    lock.unlock();  // lets another caller in
    lock.lock();
  }
  --waiting_;
  if (!under_way_.empty()) wake_.notify_one();
}

bool ProgressThread::Test(const Entry& entry) {
  const std::lock_guard lock(mutex_);
  return entry.done;
}

void ProgressThread::Run() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return stop_ || (!under_way_.empty() && waiting_ == 0); });
    if (stop_) return;
    lock.unlock();
    std::this_thread::sleep_for(
        kPause);  // first: most who start something and wait for it are served by then
    lock.lock();
    if (waiting_ == 0) AdvanceAll();
  }
}

}  // namespace deeper
