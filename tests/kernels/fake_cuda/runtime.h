// The state of the fake CUDA: streams, events, captures, and who runs when.
#pragma once

#include <cuda_runtime_api.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "tests/kernels/fake_cuda/fake_cuda.h"
#include "tests/kernels/fake_cuda/memory.h"

namespace deeper::fake_cuda {

// Host memory that a copy reads or writes.
struct HostUse {
  void* data;
  size_t bytes;
  bool writes;
};

// Work that streams of several devices do together, each at its place in its own order.
class Collective {
 public:
  virtual ~Collective() = default;
  virtual size_t Enqueue() = 0;           // it enters a stream: returns its number
  virtual bool Ready(size_t number) = 0;  // all others have come as far, too
  virtual void Run(size_t number) = 0;
  virtual std::string Missing(size_t number) const = 0;  // what it waits for
};

struct Node {
  std::string name;
  std::function<void()> run;
  std::optional<HostUse> host = {};
  std::vector<size_t> after = {};               // nodes of the same graph
  std::shared_ptr<Collective> collective = {};  // in place of `run`
  bool own = false;                             // a kernel of deeper
  bool urgent = false;                          // of a stream with another priority than 0
};
using Graph = std::vector<Node>;

// An entry of a stream's queue: a graph that is under way. Without nodes: what an event waits for.
struct Task {
  std::shared_ptr<const Graph> graph;
  std::vector<std::shared_ptr<Task>> waits;
  std::vector<bool> ran;
  std::vector<size_t> numbers;                // of collectives
  std::vector<std::optional<size_t>> hashes;  // of the host memory of a node, as it must be when it runs
  size_t left = 0;                            // nodes that did not run
  bool done = false;
  int64_t tick = 0;  // when it was done
};

struct Stream;
struct Capture {
  Graph graph = {};
  Stream* origin = nullptr;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  std::thread::id thread = {};
  std::set<Stream*> streams = {};
  bool invalid = false, ended = false;
};

struct Stream {
  int number = 0, device = 0;
  uint64_t priority = 0;  // of the simulation, drawn
  bool urgent = false;    // its own priority is not 0
  std::deque<std::shared_ptr<Task>> queue;
  std::shared_ptr<Capture> capture;
  std::vector<size_t> tail;              // of a capture: what the next node comes after
  std::vector<cudaGraphNode_t> handles;  // of these
  bool destroyed = false;
};

struct Event {
  int device = 0;
  bool timing = false;
  std::shared_ptr<Task> marker;      // as recorded last
  std::shared_ptr<Capture> capture;  // or in a capture
  std::vector<size_t> after;
};

struct GraphExec {
  std::shared_ptr<const Graph> graph;
  std::shared_ptr<Task> last;
};

class Runtime {
 public:
  static Runtime& Get();

  void Reset(const Options& options);
  const Options& options() const { return options_; }

  // What every call begins with: an error where a script says so. Hangs without the lock.
  cudaError_t Enter(std::unique_lock<std::mutex>& lock, const char* call);
  // Says why on stderr, for cudaGetLastError too.
  static cudaError_t Error(cudaError_t error, const std::string& why);
  void Lose(cudaError_t error) { lost_ = Fault{.call = "", .error = error, .sticky = true}; }
  cudaError_t lost() const { return lost_.has_value() ? lost_->error : cudaSuccess; }
  // Of a call that a capture by this thread (or in global mode by any) forbids; the capture becomes invalid.
  cudaError_t Forbidden(const char* call);

  // nullptr: no such handle. Fails where it was destroyed.
  Stream* Find(cudaStream_t stream);
  Event* Find(cudaEvent_t event);
  GraphExec* Find(cudaGraphExec_t exec);

  cudaError_t Add(Stream& stream, Node node);
  cudaError_t AddKernel(Stream& stream, Node node, bool early = false);
  cudaError_t Record(Event& event, Stream& stream);
  cudaError_t Wait(Stream& stream, Event& event);
  cudaError_t BeginCapture(Stream& stream, cudaStreamCaptureMode mode);
  cudaError_t EndCapture(Stream& stream, std::shared_ptr<const Graph>& graph);
  void Launch(GraphExec& exec, Stream& stream);
  // Until it is done.
  void Force(const std::shared_ptr<Task>& task);
  void Drain(Stream& stream);
  void DrainAll();  // all that can run
  void DrainDevice(int device);
  // Fails where a copy that is under way uses it.
  void CheckUnused(const void* data, size_t bytes, const char* call) const;

  uint64_t NewPriority() { return random_(); }
  size_t Draw(size_t count) { return count <= 1 ? 0 : random_() % count; }

  std::mutex mutex;
  Memory memory;
  std::map<std::string, int> calls;
  std::set<std::string> loaded;  // kernels
  std::map<size_t, std::unique_ptr<Stream>> streams;
  std::map<size_t, std::unique_ptr<Event>> events;
  std::map<size_t, std::shared_ptr<const Graph>> graphs;
  std::map<size_t, std::unique_ptr<GraphExec>> execs;
  size_t next_handle = 1;
  // The name of the node that this thread runs.
  static inline thread_local const char* volatile running = nullptr;

 private:
  enum class Order { kLate, kAtOnce, kRandom, kPriorities };

  std::shared_ptr<Task> Push(Stream& stream, std::shared_ptr<const Graph> graph);
  void Expect(Task& task, size_t node);
  void RunSome();
  Stream* Ready();
  static std::vector<size_t> Runnable(const Task& task);
  static bool CanStep(const Stream& stream);
  void Step(Stream& stream);
  void AwaitOtherThreads();
  void Run(Task& task, size_t node);
  Stream& StreamOf(const Task& task);
  Stream& Needed(const Task& task);

  Options options_;
  std::optional<Fault> lost_;
  std::mt19937_64 random_;
  Order order_ = Order::kLate;
  int64_t tick_ = 0;
  std::list<HostUse> host_uses_;         // of tasks that are not done
  std::condition_variable_any changed_;  // something was enqueued or ran
};

}  // namespace deeper::fake_cuda
