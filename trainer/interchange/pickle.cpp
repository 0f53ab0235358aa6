#include "trainer/interchange/pickle.h"

#include <algorithm>
#include <cstring>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_format.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

using Kind = PickleNode::Kind;

// Names and values are those of pickle.py.
enum Opcode : uint8_t {
  kMark = '(',
  kStop = '.',
  kBinInt = 'J',
  kBinInt1 = 'K',
  kBinInt2 = 'M',
  kNone = 'N',
  kBinPersId = 'Q',
  kReduce = 'R',
  kBinString = 'T',
  kShortBinString = 'U',
  kBinUnicode = 'X',
  kAppend = 'a',
  kBuild = 'b',
  kGlobal = 'c',
  kEmptyDict = '}',
  kAppends = 'e',
  kBinGet = 'h',
  kLongBinGet = 'j',
  kEmptyList = ']',
  kBinPut = 'q',
  kLongBinPut = 'r',
  kSetItem = 's',
  kTuple = 't',
  kEmptyTuple = ')',
  kSetItems = 'u',
  kBinFloat = 'G',
  kProto = 0x80,
  kNewObj = 0x81,
  kTuple1 = 0x85,
  kTuple2 = 0x86,
  kTuple3 = 0x87,
  kNewTrue = 0x88,
  kNewFalse = 0x89,
  kLong1 = 0x8a,
  kShortBinUnicode = 0x8c,
  kStackGlobal = 0x93,
  kMemoize = 0x94,
  kFrame = 0x95,
};

class Machine {
 public:
  explicit Machine(std::span<const uint8_t> bytes) : bytes_(bytes) {}

  absl::StatusOr<Pickle> Run() {
    while (!problem_ && root_ == nullptr && status_.ok()) Step();
    RETURN_IF_ERROR(status_);
    if (problem_) return DataLoss("damaged pickle at byte ", at_);
    return Pickle{std::move(nodes_), root_, at_};
  }

 private:
  // The next `count` bytes; nullptr behind the end.
  const uint8_t* Take(uint64_t count) {
    if (count > bytes_.size() - at_) {
      problem_ = true;
      return nullptr;
    }
    at_ += count;
    return bytes_.data() + at_ - count;
  }
  template <class Int>
  Int Number() {
    Int number = 0;
    if (const uint8_t* from = Take(sizeof number)) std::memcpy(&number, from, sizeof number);
    return number;
  }
  std::string Text(uint64_t count) {
    const uint8_t* from = Take(count);
    return from == nullptr ? std::string() : std::string(from, from + count);
  }
  std::string Line() {
    const auto begin = bytes_.begin() + static_cast<std::ptrdiff_t>(at_);
    const auto count = static_cast<uint64_t>(std::find(begin, bytes_.end(), '\n') - begin);
    std::string line = Text(count);
    Take(1);
    return line;
  }

  void Push(PickleNode node) { stack_.push_back(&nodes_.emplace_back(std::move(node))); }
  // The top of the stack, down to the last mark; nullptr if there is none.
  PickleNode* Top() {
    if (stack_.size() > (marks_.empty() ? 0 : marks_.back())) return stack_.back();
    problem_ = true;
    return nullptr;
  }
  PickleNode* Pop() {
    PickleNode* top = Top();
    if (top != nullptr) stack_.pop_back();
    return top;
  }
  // The `count` topmost nodes, lowest first. Fewer on a problem.
  std::vector<const PickleNode*> PopItems(size_t count) {
    std::vector<const PickleNode*> items;
    while (items.size() < count) {
      const PickleNode* top = Pop();
      if (top == nullptr) return {};
      items.push_back(top);
    }
    std::ranges::reverse(items);
    return items;
  }
  std::vector<const PickleNode*> PopToMark() {
    if (marks_.empty()) {
      problem_ = true;
      return {};
    }
    const size_t mark = marks_.back();
    std::vector<const PickleNode*> items(stack_.begin() + static_cast<std::ptrdiff_t>(mark), stack_.end());
    stack_.resize(mark);
    marks_.pop_back();
    return items;
  }

  // Adds items to the container on top of the stack. Those of an object, such as a defaultdict, are dropped.
  void Extend(Kind kind, const std::vector<const PickleNode*>& items) {
    PickleNode* container = Top();
    if (container != nullptr && container->is(Kind::kCall)) return;
    if (container == nullptr || !container->is(kind) || (kind == Kind::kDict && items.size() % 2 != 0)) {
      problem_ = true;
      return;
    }
    container->items.insert(container->items.end(), items.begin(), items.end());
  }

  void Call() {
    std::vector<const PickleNode*> items = PopItems(2);
    if (problem_) return;
    const bool dict = items[0]->is(Kind::kGlobal) && items[0]->text == "collections.OrderedDict" &&
                      items[1]->is(Kind::kTuple) && items[1]->items.empty();
    Push(dict ? PickleNode{.kind = Kind::kDict} : PickleNode{.kind = Kind::kCall, .items = std::move(items)});
  }

  void Global(const PickleNode* module, const PickleNode* name) {
    if (module == nullptr || name == nullptr || !module->is(Kind::kText) || !name->is(Kind::kText)) {
      problem_ = true;
      return;
    }
    Push({.kind = Kind::kGlobal, .text = module->text + "." + name->text});
  }

  void Put(uint32_t slot) {
    if (PickleNode* top = Top()) memo_[slot] = top;
  }
  void Get(uint32_t slot) {
    const auto found = memo_.find(slot);
    if (found == memo_.end())
      problem_ = true;
    else
      stack_.push_back(found->second);
  }

  void PushInt(int64_t value) { Push({.kind = Kind::kInt, .integer = value}); }

  // A little-endian integer in two's complement. Larger ones than int64 (magic numbers) become 0.
  void Long() {
    const auto count = Number<uint8_t>();
    const uint8_t* from = Take(count);
    if (from == nullptr) return;
    uint64_t value = count > 0 && from[count - 1] >= 0x80 ? ~uint64_t{0} : 0;
    if (count <= sizeof value) std::memcpy(&value, from, count);
    PushInt(count <= sizeof value ? static_cast<int64_t>(value) : 0);
  }

  void Step() {
    const auto opcode = Number<uint8_t>();
    if (problem_ || Scalar(opcode) || Container(opcode)) return;
    status_ = Unimplemented(absl::StrFormat(
        "its pickle has opcode 0x%02x at byte %d, which no state_dict needs", opcode, at_ - 1));
  }

  bool Scalar(uint8_t opcode) {
    switch (opcode) {
      case kProto:
        Take(1);
        return true;
      case kFrame:
        Take(8);
        return true;
      case kNone:
        Push({});
        return true;
      case kNewTrue:
        Push({.kind = Kind::kBool, .integer = 1});
        return true;
      case kNewFalse:
        Push({.kind = Kind::kBool});
        return true;
      case kBinInt:
        PushInt(Number<int32_t>());
        return true;
      case kBinInt1:
        PushInt(Number<uint8_t>());
        return true;
      case kBinInt2:
        PushInt(Number<uint16_t>());
        return true;
      case kLong1:
        Long();
        return true;
      case kBinFloat:
        Take(8), Push({.kind = Kind::kFloat});
        return true;
      case kBinUnicode:
      case kBinString:
        Push({.kind = Kind::kText, .text = Text(Number<uint32_t>())});
        return true;
      case kShortBinUnicode:
      case kShortBinString:
        Push({.kind = Kind::kText, .text = Text(Number<uint8_t>())});
        return true;
      default:
        return false;
    }
  }

  bool Container(uint8_t opcode) {
    switch (opcode) {
      case kStop:
        root_ = Pop();
        return true;
      case kMark:
        marks_.push_back(stack_.size());
        return true;
      case kBinPut:
        Put(Number<uint8_t>());
        return true;
      case kLongBinPut:
        Put(Number<uint32_t>());
        return true;
      case kMemoize:
        Put(static_cast<uint32_t>(memo_.size()));
        return true;
      case kBinGet:
        Get(Number<uint8_t>());
        return true;
      case kLongBinGet:
        Get(Number<uint32_t>());
        return true;
      case kEmptyTuple:
        Push({.kind = Kind::kTuple});
        return true;
      case kEmptyList:
        Push({.kind = Kind::kList});
        return true;
      case kEmptyDict:
        Push({.kind = Kind::kDict});
        return true;
      case kTuple:
        Push({.kind = Kind::kTuple, .items = PopToMark()});
        return true;
      case kTuple1:
      case kTuple2:
      case kTuple3:
        Push({.kind = Kind::kTuple, .items = PopItems(opcode - kTuple1 + 1u)});
        return true;
      case kAppend:
        Extend(Kind::kList, PopItems(1));
        return true;
      case kAppends:
        Extend(Kind::kList, PopToMark());
        return true;
      case kSetItem:
        Extend(Kind::kDict, PopItems(2));
        return true;
      case kSetItems:
        Extend(Kind::kDict, PopToMark());
        return true;
      case kBuild:
        Pop();
        return true;  // attributes of an object
      case kReduce:
      case kNewObj:
        Call();
        return true;
      case kBinPersId:
        Push({.kind = Kind::kPersistent, .items = PopItems(1)});
        return true;
      case kGlobal: {
        std::string module = Line();
        Push({.kind = Kind::kGlobal, .text = std::move(module) + "." + Line()});
        return true;
      }
      case kStackGlobal: {
        const PickleNode* name = Pop();
        Global(Pop(), name);
        return true;
      }
      default:
        return false;
    }
  }

  const std::span<const uint8_t> bytes_;
  size_t at_ = 0;
  std::deque<PickleNode> nodes_;
  std::vector<PickleNode*> stack_;
  std::vector<size_t> marks_;  // sizes of the stack
  std::unordered_map<uint32_t, PickleNode*> memo_;
  const PickleNode* root_ = nullptr;
  bool problem_ = false;
  absl::Status status_;
};

}  // namespace

absl::StatusOr<Pickle> ParsePickle(std::span<const uint8_t> bytes) {
  return Machine(bytes).Run();
}

}  // namespace deeper
