// Drives collectives in the background while other threads compute.
//
// MPI transfers data only while a thread is inside MPI; otherwise a collective makes no progress. This thread
// polls all collectives in progress, a few microseconds out of every hundred, so it costs little even on a
// core that computes. A thread that waits polls in its place, without pause. That avoids delays by sleeping
// or by switching threads.
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
    // Does what is possible without blocking; true once complete.
    virtual bool Advance() = 0;
    virtual const char* name() const = 0;  // static; for timelines
  };

  ProgressThread();
  // Every request must be complete.
  ~ProgressThread();
  ProgressThread(const ProgressThread&) = delete;
  ProgressThread& operator=(const ProgressThread&) = delete;

  // Begins an operation with `start`; the request completes with it. `start` and Advance run one at a time,
  // under one lock, so the library that they call need not be thread-safe. Operations advance in the order in
  // which they started. This object must outlive the request.
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
  int waiting_ = 0;      // callers of Request::Wait, which poll
  std::jthread thread_;  // last: ends before the members that it uses
};

}  // namespace deeper
