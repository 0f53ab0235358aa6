#include "comm/nccl/nccl_library.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace deeper {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

TEST(NcclLibrary, IsOpenedWhereItIs) {
  const absl::StatusOr<NcclLibrary>& nccl = Nccl();
  if (!nccl.ok()) GTEST_SKIP() << nccl.status().message();
  EXPECT_THAT(nccl->Version(), StartsWith("2."));
  EXPECT_STREQ(nccl->GetErrorString(ncclSuccess), "no error");
}

TEST(NcclLibrary, SaysWhatIsMissing) {
  EXPECT_THAT(std::string(NcclLibrary::Open("libnone.so.2").status().message()),
              HasSubstr("cannot load NCCL: libnone.so.2"));
  EXPECT_THAT(std::string(NcclLibrary::Open("libm.so.6").status().message()),
              HasSubstr("libm.so.6 has no ncclGetVersion: NCCL 2.19 or later is needed"));
}

}  // namespace
}  // namespace deeper
