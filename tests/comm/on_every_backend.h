// One suite for every communicator. The tests are in communicator_test.cpp and in those of code built on it.
// comm_tests runs them on "single" and "threads" (backends_test.cpp), comm_mpi_tests on MPI under mpirun
// (mpi_main.cpp).
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <ostream>
#include <string>

#include "comm/communicator.h"

namespace deeper {

// The code of each rank. Use only EXPECT: a rank that returns early leaves its peers waiting.
using RankBody = std::function<void(Communicator&)>;

struct Backend {
  std::string name;
  std::function<void(const RankBody&)> run;  // runs the body once as each rank, and returns when all are done
  friend void PrintTo(const Backend& backend, std::ostream* out) { *out << backend.name; }
};

class OnEveryBackend : public testing::TestWithParam<Backend> {
 protected:
  static void OnEachRank(const RankBody& body) { GetParam().run(body); }
};

inline std::string BackendName(const testing::TestParamInfo<Backend>& info) {
  return info.param.name;
}

}  // namespace deeper
