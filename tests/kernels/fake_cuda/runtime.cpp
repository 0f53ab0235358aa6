#include "tests/kernels/fake_cuda/runtime.h"

#include <omp.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string_view>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace deeper::fake_cuda {
namespace {

constexpr uint64_t kDefaultSeed = 2;
constexpr int kPoison = 0xCD;
uint64_t g_seed = kDefaultSeed;  // for messages
std::string g_report;            // a file for the calls, and how often each was made, at exit

size_t HashOf(const HostUse& use) {
  return std::hash<std::string_view>()({static_cast<const char*>(use.data), use.bytes});
}

bool Overlap(const HostUse& use, const void* data, size_t bytes) {
  const auto* const begin = static_cast<const char*>(data);
  const auto* const other = static_cast<const char*>(use.data);
  return begin < other + use.bytes && other < begin + bytes;
}

bool IsPoisoned(const HostUse& use) {
  const auto* const begin = static_cast<const unsigned char*>(use.data);
  return std::all_of(begin, begin + use.bytes, [](unsigned char byte) { return byte == kPoison; });
}

// Opens what a kernel may touch. Of an access that is not allowed it says whose it is, and of what.
void OnFault(int signal, siginfo_t* info, void*) {
  Runtime& runtime = Runtime::Get();
  const char* const running = runtime.running;
  if (running != nullptr && runtime.memory.Open(info->si_addr)) return;
  ::signal(signal, SIG_DFL);
  if (runtime.memory.IsDevice(info->si_addr)) {
    Fail(absl::StrCat(running == nullptr ? "the host" : running, " touches ",
                      runtime.memory.Describe(info->si_addr)));
  }
  if (running != nullptr) Fail(absl::StrCat(running, " touches host memory that is not there"));
}

Options OptionsFromEnvironment() {
  Options options;
  options.seed = kDefaultSeed;
  const char* const text = std::getenv("DEEPER_FAKE_CUDA");
  const std::vector<std::string> words = absl::StrSplit(text == nullptr ? "" : text, ' ', absl::SkipEmpty());
  for (const std::string& word : words) {
    const std::pair<std::string, std::string> setting = absl::StrSplit(word, absl::MaxSplits('=', 1));
    const auto& [name, value] = setting;
    const std::vector<std::string> parts = absl::StrSplit(value, ':');
    Fault fault = {.call = parts[0], .error = cudaSuccess, .sticky = name == "lose"};
    int error = 0;
    bool good = true;
    if (name == "seed") {
      good = absl::SimpleAtoi(value, &options.seed);
    } else if (name == "devices") {
      good = absl::SimpleAtoi(value, &options.devices);
    } else if (name == "memory") {
      good = absl::SimpleAtoi(value, &options.memory_bytes);
    } else if (name == "own") {
      good = value == "wrong" || value == "fault" || value == "hang";
      options.own_kernels = value == "wrong"   ? OwnKernels::kWrong
                            : value == "fault" ? OwnKernels::kFault
                                               : OwnKernels::kHang;
    } else if (name == "report") {
      g_report = value;
    } else if (name == "fail" || name == "lose" || name == "hang" || name == "signal") {
      int& number = name == "signal" ? fault.signal : error;
      good = parts.size() == (name == "hang" ? 2 : 3) && absl::SimpleAtoi(parts[1], &fault.nth) &&
             (name == "hang" || absl::SimpleAtoi(parts[2], &number));
      fault.error = static_cast<cudaError_t>(error);
      options.faults.push_back(fault);
    } else {
      good = false;
    }
    if (!good) Fail("DEEPER_FAKE_CUDA: " + word);
  }
  return options;
}

void Report() {
  std::ofstream file(g_report);
  for (const auto& [call, count] : Calls()) file << call << ' ' << count << '\n';
}

}  // namespace

void Fail(const std::string& message) {
  std::fprintf(stderr, "fake CUDA (seed %llu): %s\n", static_cast<unsigned long long>(g_seed),
               message.c_str());
  std::abort();
}

Runtime& Runtime::Get() {
  static Runtime* const runtime = [] {
    auto* const made = new Runtime;  // streams may outlive everything
    made->Reset(OptionsFromEnvironment());
    if (!g_report.empty()) std::atexit(Report);
    struct sigaction action = {};
    action.sa_sigaction = OnFault;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGSEGV, &action, nullptr);
    return made;
  }();
  return *runtime;
}

void Runtime::Reset(const Options& options) {
  if (memory.allocations() > 0)
    Fail(absl::StrCat(memory.allocations(), " allocations of device memory were not freed"));
  memory.ForgetFreed();
  options_ = options;
  g_seed = options.seed;
  random_.seed(options.seed);
  order_ = static_cast<Order>(options.seed % 4);
  lost_.reset();
  calls.clear();
  loaded.clear();
  streams.clear();
  events.clear();
  graphs.clear();
  execs.clear();
  host_uses_.clear();
}

cudaError_t Runtime::Enter(std::unique_lock<std::mutex>& lock, const char* call) {
  if (lost_.has_value()) return lost_->error;
  const int count = ++calls[call];
  for (const Fault& fault : options_.faults) {
    if (fault.call != call || fault.nth != count) continue;
    if (fault.signal != 0) {
      raise(fault.signal);
      continue;
    }
    if (fault.error == cudaSuccess) {
      lock.unlock();
      while (true) pause();
    }
    if (fault.sticky) lost_ = fault;
    return fault.error;
  }
  return cudaSuccess;
}

cudaError_t Runtime::Error(cudaError_t error, const std::string& why) {
  std::fprintf(stderr, "fake CUDA (seed %llu): %s\n", static_cast<unsigned long long>(g_seed), why.c_str());
  return error;
}

Stream* Runtime::Find(cudaStream_t stream) {
  const auto found = streams.find(reinterpret_cast<size_t>(stream));
  if (found == streams.end()) return nullptr;
  if (found->second->destroyed) Fail(absl::StrCat("stream ", found->first, " was destroyed"));
  return found->second.get();
}
Event* Runtime::Find(cudaEvent_t event) {
  const auto found = events.find(reinterpret_cast<size_t>(event));
  return found == events.end() ? nullptr : found->second.get();
}
GraphExec* Runtime::Find(cudaGraphExec_t exec) {
  const auto found = execs.find(reinterpret_cast<size_t>(exec));
  return found == execs.end() ? nullptr : found->second.get();
}

cudaError_t Runtime::Add(Stream& stream, Node node) {
  if (stream.capture != nullptr) {
    node.after = stream.tail;
    node.urgent = stream.urgent;
    stream.tail = {stream.capture->graph.size()};
    stream.capture->graph.push_back(std::move(node));
    return cudaSuccess;
  }
  Push(stream, std::make_shared<Graph>(Graph{std::move(node)}));
  RunSome();
  return cudaSuccess;
}

cudaError_t Runtime::Record(Event& event, Stream& stream) {
  event.capture = stream.capture;
  event.marker = nullptr;
  if (stream.capture != nullptr) {
    event.after = stream.tail;
    return cudaSuccess;
  }
  event.marker = Push(stream, std::make_shared<Graph>());
  RunSome();
  return cudaSuccess;
}

cudaError_t Runtime::Wait(Stream& stream, Event& event) {
  if (event.capture == nullptr) {
    if (stream.capture != nullptr) {
      stream.capture->invalid = true;
      return Error(cudaErrorStreamCaptureIsolation,
                   "a captured stream waits for an event that was recorded outside of the capture");
    }
    if (event.marker == nullptr) Fail("a stream waits for an event that was never recorded");
    Push(stream, std::make_shared<Graph>())->waits = {event.marker};
    RunSome();
    return cudaSuccess;
  }
  if (event.capture->ended || (stream.capture != nullptr && stream.capture != event.capture)) {
    return Error(cudaErrorCapturedEvent, "a stream waits for an event of a capture that it is not part of");
  }
  if (stream.capture == nullptr) {
    stream.capture = event.capture;
    stream.capture->streams.insert(&stream);
    stream.tail.clear();
  }
  for (const size_t node : event.after)
    if (std::find(stream.tail.begin(), stream.tail.end(), node) == stream.tail.end())
      stream.tail.push_back(node);
  return cudaSuccess;
}

void Runtime::Launch(GraphExec& exec, Stream& stream) {
  std::shared_ptr<Task> task = Push(stream, exec.graph);
  if (exec.last != nullptr && !exec.last->done) task->waits.push_back(exec.last);
  exec.last = std::move(task);
  RunSome();
}

std::shared_ptr<Task> Runtime::Push(Stream& stream, std::shared_ptr<const Graph> graph) {
  auto task = std::make_shared<Task>();
  task->graph = std::move(graph);
  task->left = task->graph->size();
  task->ran.resize(task->left);
  task->hashes.resize(task->left);
  task->numbers.resize(task->left);
  for (size_t node = 0; node < task->left; ++node) {
    Expect(*task, node);
    const auto& collective = (*task->graph)[node].collective;
    if (collective != nullptr) task->numbers[node] = collective->Enqueue();
  }
  stream.queue.push_back(task);
  changed_.notify_all();
  return task;
}

// What another copy, which is under way and comes before, will change is not known yet.
void Runtime::Expect(Task& task, size_t node) {
  const std::optional<HostUse>& host = (*task.graph)[node].host;
  if (!host.has_value()) return;
  const bool known = std::none_of(host_uses_.begin(), host_uses_.end(), [&](const HostUse& other) {
    return Overlap(other, host->data, host->bytes) && (other.writes || host->writes);
  });
  host_uses_.push_back(*host);
  if (!known) return;
  if (host->writes) std::memset(host->data, kPoison, host->bytes);
  task.hashes[node] = host->writes ? 0 : HashOf(*host);
}

void Runtime::RunSome() {
  if (order_ == Order::kAtOnce) return DrainAll();
  if (order_ == Order::kLate) return;
  if (Draw(4) > 0) return;
  for (size_t steps = Draw(8); steps > 0; --steps) {
    Stream* const ready = Ready();
    if (ready == nullptr) break;
    Step(*ready);
  }
  memory.CloseAll();
}

Stream* Runtime::Ready() {
  std::vector<Stream*> ready;
  for (const auto& [handle, stream] : streams) {
    if (!stream->queue.empty() && CanStep(*stream)) ready.push_back(stream.get());
  }
  if (ready.empty()) return nullptr;
  if (order_ != Order::kPriorities) return ready[Draw(ready.size())];
  Stream* const first = *std::max_element(
      ready.begin(), ready.end(), [](const Stream* a, const Stream* b) { return a->priority < b->priority; });
  if (Draw(16) == 0) first->priority = NewPriority();
  return first;
}

std::vector<size_t> Runtime::Runnable(const Task& task) {
  std::vector<size_t> runnable;
  for (size_t index = 0; index < task.ran.size(); ++index) {
    const Node& node = (*task.graph)[index];
    if (!task.ran[index] &&
        std::all_of(node.after.begin(), node.after.end(), [&](size_t other) { return task.ran[other]; }) &&
        (node.collective == nullptr || node.collective->Ready(task.numbers[index])))
      runnable.push_back(index);
  }
  return runnable;
}

bool Runtime::CanStep(const Stream& stream) {
  const Task& task = *stream.queue.front();
  return std::all_of(task.waits.begin(), task.waits.end(), [](const auto& other) { return other->done; }) &&
         (task.left == 0 || !Runnable(task).empty());
}

// A collective needs work of devices that other threads drive.
void Runtime::AwaitOtherThreads() {
  memory.CloseAll();
  if (changed_.wait_for(mutex, std::chrono::seconds(options_.patience_seconds)) == std::cv_status::timeout) {
    for (const auto& [handle, stream] : streams) {
      if (stream->queue.empty()) continue;
      const Task& task = *stream->queue.front();
      for (size_t node = 0; node < task.ran.size(); ++node) {
        const auto& collective = (*task.graph)[node].collective;
        if (!task.ran[node] && collective != nullptr && !collective->Ready(task.numbers[node]))
          Fail(collective->Missing(task.numbers[node]));
      }
    }
    Fail("nothing can run");
  }
}

void Runtime::Step(Stream& stream) {
  const std::shared_ptr<Task> task = stream.queue.front();
  if (task->left > 0) {
    const std::vector<size_t> ready = Runnable(*task);
    Run(*task, ready[Draw(ready.size())]);
  }
  if (task->left > 0) return;
  task->done = true;
  task->tick = ++tick_;
  task->waits.clear();
  stream.queue.pop_front();
}

void Runtime::Run(Task& task, size_t index) {
  const Node& node = (*task.graph)[index];
  running = node.name.c_str();
  if (node.host.has_value()) {
    const HostUse& host = *node.host;
    if (task.hashes[index].has_value()) {
      if (host.writes && !IsPoisoned(host))
        Fail(absl::StrCat(node.name, ": the host wrote to where a copy is under way to"));
      if (!host.writes && HashOf(host) != *task.hashes[index])
        Fail(absl::StrCat(node.name, ": the host changed what a copy under way reads"));
    }
    host_uses_.erase(std::find_if(host_uses_.begin(), host_uses_.end(), [&](const HostUse& use) {
      return use.data == host.data && use.bytes == host.bytes && use.writes == host.writes;
    }));
  }
  if (node.collective != nullptr) {
    node.collective->Run(task.numbers[index]);
    changed_.notify_all();
  } else {
    omp_set_num_threads(1);  // work is short, and other ranks need the cores
    node.run();
  }
  running = nullptr;
  task.ran[index] = true;
  --task.left;
  ++tick_;
}

Stream& Runtime::StreamOf(const Task& task) {
  for (const auto& [handle, stream] : streams) {
    for (const auto& queued : stream->queue)
      if (queued.get() == &task) return *stream;
  }
  Fail("a task is in no stream");
}

// The stream whose first task must run before this one can.
Stream& Runtime::Needed(const Task& task) {
  Stream* stream = &StreamOf(task);
  while (true) {
    const auto& waits = stream->queue.front()->waits;
    const auto open =
        std::find_if(waits.begin(), waits.end(), [](const auto& other) { return !other->done; });
    if (open == waits.end()) return *stream;
    stream = &StreamOf(**open);
  }
}

void Runtime::Force(const std::shared_ptr<Task>& task) {
  if (task->done) return;
  while (!task->done) {
    Stream* next = order_ == Order::kLate ? &Needed(*task) : Ready();
    if (next != nullptr && !CanStep(*next)) next = Ready();  // a GPU works while its host waits
    next != nullptr ? Step(*next) : AwaitOtherThreads();
  }
  memory.CloseAll();
}

void Runtime::Drain(Stream& stream) {
  if (!stream.queue.empty()) Force(std::shared_ptr<Task>(stream.queue.back()));
}

void Runtime::DrainAll() {
  if (Ready() == nullptr) return;
  while (Stream* const ready = Ready()) Step(*ready);
  memory.CloseAll();
}

// Also what waits for other devices, where a thread drives them. Streams do not end meanwhile.
void Runtime::DrainDevice(int device) {
  DrainAll();
  for (const auto& [handle, stream] : streams)
    if (stream->device == device) Drain(*stream);
}

void Runtime::CheckUnused(const void* data, size_t bytes, const char* call) const {
  if (std::any_of(host_uses_.begin(), host_uses_.end(),
                  [&](const HostUse& use) { return Overlap(use, data, bytes); })) {
    Fail(absl::StrCat(call, ": a copy that is under way uses this memory"));
  }
}

cudaError_t FindCode() {
  Runtime& runtime = Runtime::Get();
  std::unique_lock lock(runtime.mutex);
  return runtime.Enter(lock, "cudaFuncGetAttributes");
}

}  // namespace deeper::fake_cuda
