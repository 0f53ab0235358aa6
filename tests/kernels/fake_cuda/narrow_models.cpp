// The networks of the trainings on fakes: all layers, and few channels. Most of the time of a run would
// otherwise go into its parameters.
#include <cstdint>
#include <string_view>
#include <variant>

#include "kernels/base/status.h"
#include "trainer/models/model.h"

namespace deeper {

// The linker's option --wrap (fake_cuda.cmake) puts Narrowed in place of MakeModel.
using ModelOrStatus = absl::StatusOr<Model>;
ModelOrStatus Real(std::string_view name, const ModelOptions& options) __asm__(
    "__real__ZN6deeper9MakeModelESt17basic_string_viewIcSt11char_traitsIcEERKNS_12ModelOptionsE");
ModelOrStatus Narrowed(std::string_view name, const ModelOptions& options) __asm__(
    "__wrap__ZN6deeper9MakeModelESt17basic_string_viewIcSt11char_traitsIcEERKNS_12ModelOptionsE");

ModelOrStatus Narrowed(std::string_view name, const ModelOptions& options) {
  ASSIGN_OR_RETURN(Model model, Real(name, options));
  const auto narrow = [](int64_t& channels) { channels = (channels + 127) / 128 * 8; };
  for (Node& node : model.nodes) {
    if (auto* conv = std::get_if<Conv2dParams>(&node.op)) {
      if (conv->out_channels != options.num_classes) narrow(conv->out_channels);
    } else if (auto* module = std::get_if<InceptionParams>(&node.op)) {
      for (int64_t* channels :
           {&module->c1, &module->c2_reduce, &module->c2, &module->c3_reduce, &module->c3, &module->c4})
        narrow(*channels);
    }
  }
  return model;
}

}  // namespace deeper
