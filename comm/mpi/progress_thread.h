// Moves collectives along while everybody else computes.
//
// MPI transfers data only while some thread is inside MPI: a collective that was started and left alone
// stands still. Here, a thread of its own polls whatever is under way, a few microseconds out of every
// hundred, so that it costs little even on the core that computes. Whoever waits polls in its place, without
// pause: no hand-over between threads, no sleep in the way.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "comm/communicator.h"

namespace deeper {

class ProgressThread {
 public:
  class Operation {
   public:
    virtual ~Operation() = default;
    // Does what can be done now without blocking; true once complete.
    virtual bool Advance() = 0;
    virtual const char* name() const = 0;  // static; for timelines
  };

  ProgressThread();
  // Every request must be complete.
  ~ProgressThread();
  ProgressThread(const ProgressThread&) = delete;
  ProgressThread& operator=(const ProgressThread&) = delete;

  // `start` begins an operation; the request completes with it. `start` and Advance run one at a time, under
  // one lock: the library that they call need not serve several threads at once. Operations are advanced in
  // the order they were started in. Must outlive the request.
  Request Start(const std::function<std::unique_ptr<Operation>()>& start);
  // Runs `call` under the same lock.
  void Call(const std::function<void()>& call);

 private:
  struct Entry {
    std::unique_ptr<Operation> operation;
    int64_t trace_start = 0;  // TraceAsync's
    bool done = false;
  };
  class Pending;

  void AdvanceAll();
  void Run(const std::stop_token& stop);

  std::mutex mutex_;  // guards everything below
  std::condition_variable_any wake_;
  std::vector<std::shared_ptr<Entry>> under_way_;
  int waiting_ = 0;      // callers of Request::Wait, who poll themselves
  std::jthread thread_;  // last: it ends before what it uses
};

}  // namespace deeper
