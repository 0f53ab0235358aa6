// Reads a Python pickle as an inert tree. Nothing in it is imported, called or executed: a call in the pickle
// becomes a node that names the function and its arguments.
// Source: Lib/pickletools.py of github.com/python/cpython.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace deeper {

struct PickleNode {
  enum class Kind : uint8_t {
    kNone,
    kBool,        // integer
    kInt,         // integer
    kFloat,       // its value is not kept
    kText,        // text
    kGlobal,      // text: "module.name"
    kTuple,       // items
    kList,        // items
    kDict,        // items: key, value, key, value, ...
    kCall,        // items: the global, its arguments
    kPersistent,  // items: the id
  };
  Kind kind = Kind::kNone;
  int64_t integer = 0;
  std::string text = {};
  std::vector<const PickleNode*> items = {};  // may lead back to this node

  bool is(Kind other) const { return kind == other; }
};

struct Pickle {
  std::deque<PickleNode> nodes;  // owns all nodes
  const PickleNode* root = nullptr;
  size_t bytes = 0;  // of the pickle, from its first to its STOP
};

// The pickle at the beginning of `bytes`: protocols 2 to 5, the opcodes that a state_dict of PyTorch needs.
// An OrderedDict is a kDict. DataLoss: damaged or truncated. Unimplemented: another opcode.
absl::StatusOr<Pickle> ParsePickle(std::span<const uint8_t> bytes);

}  // namespace deeper
