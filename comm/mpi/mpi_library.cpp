#include "comm/mpi/mpi_library.h"

#include <mpi.h>

#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace deeper {
namespace {

// The tool interface lists the parameters of a component only while it is open. `parameter` is one that each
// component of the framework has.
std::set<std::string> OpenComponents(absl::string_view framework, absl::string_view parameter) {
  std::set<std::string> components;
  int count = 0;
  if (MPI_T_cvar_get_num(&count) != MPI_SUCCESS) return components;
  for (int i = 0; i < count; ++i) {
    char name[256];
    int size = sizeof name, verbosity = 0, binding = 0, scope = 0, no_text = 0;
    MPI_Datatype type = MPI_DATATYPE_NULL;
    if (MPI_T_cvar_get_info(i, name, &size, &verbosity, &type, nullptr, nullptr, &no_text, &binding,
                            &scope) != MPI_SUCCESS)
      continue;
    absl::string_view component = name;
    if (absl::ConsumePrefix(&component, framework) && absl::ConsumeSuffix(&component, parameter))
      components.emplace(component);
  }
  return components;
}

}  // namespace

std::string DescribeMpiLibrary() {
  char version[MPI_MAX_LIBRARY_VERSION_STRING] = {};
  int length = 0;
  MPI_Get_library_version(version, &length);
  const absl::string_view whole(version, static_cast<size_t>(length));
  std::string text(whole.substr(0, whole.find_first_of(",\n")));
  int provided = 0;
  if (MPI_T_init_thread(MPI_THREAD_SERIALIZED, &provided) != MPI_SUCCESS) return text;
  const std::set<std::string> pml = OpenComponents("pml_", "_priority");
  const std::set<std::string> btl = OpenComponents("btl_", "_exclusivity");
  MPI_T_finalize();
  if (!pml.empty()) absl::StrAppend(&text, ", pml ", absl::StrJoin(pml, ", "));
  if (pml.contains("ob1")) absl::StrAppend(&text, ", btl ", absl::StrJoin(btl, ", "));
  return text;
}

}  // namespace deeper
