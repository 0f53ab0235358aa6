#include "data/io/webdataset.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <unordered_map>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

constexpr uint64_t kMaxLabelBytes = 1 << 20;  // of .cls and .json
// With formats that the decoder refuses in words.
constexpr std::array<absl::string_view, 8> kImageEndings = {"jpg", "jpeg", "png", "webp",
                                                            "bmp", "gif",  "tif", "tiff"};

// The members of one sample.
struct Group {
  std::string key;
  std::vector<std::string> endings;  // of all members, in small letters
  std::optional<TarMember> image, cls, json;
};

// Splits the name of a member at the first dot of its last part. False: there is none.
bool SplitName(absl::string_view name, std::string* key, std::string* ending) {
  const size_t file = name.rfind('/') == name.npos ? 0 : name.rfind('/') + 1;
  const size_t dot = name.find('.', file);
  if (dot == name.npos) return false;
  *key = std::string(name.substr(0, dot));
  *ending = absl::AsciiStrToLower(name.substr(dot + 1));
  return true;
}

absl::StatusOr<std::string> ReadMember(const ReadAt& read, const TarMember& member) {
  if (member.bytes > kMaxLabelBytes) return InvalidArgument(member.name, " has ", member.bytes, " bytes");
  std::string text(member.bytes, '\0');
  RETURN_IF_ERROR(read(member.offset, text.data(), text.size()));
  return text;
}

absl::StatusOr<std::string> LabelOfJson(const ReadAt& read, const TarMember& member) {
  ASSIGN_OR_RETURN(const std::string text, ReadMember(read, member));
  const auto json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return InvalidArgument(member.name, " is not JSON");
  const auto label = json.is_object() ? json.find("label") : json.end();
  if (label == json.end())
    return InvalidArgument(member.name, " has no field \"label\", and there is no .cls");
  if (label->is_string()) return label->get<std::string>();
  if (label->is_number_integer()) return label->dump();
  return InvalidArgument("\"label\" in ", member.name, " is neither a whole number nor a text");
}

absl::StatusOr<std::string> LabelOf(const ReadAt& read, const Group& group) {
  if (!group.cls && !group.json) {
    return InvalidArgument("sample ", group.key, " has no label: its members are .",
                           absl::StrJoin(group.endings, ", ."),
                           "; expected .cls, or .json with a field \"label\"");
  }
  const TarMember& member = group.cls ? *group.cls : *group.json;
  ASSIGN_OR_RETURN(const std::string text, group.cls ? ReadMember(read, member) : LabelOfJson(read, member));
  std::string label(absl::StripAsciiWhitespace(text));
  if (label.empty()) return InvalidArgument("the label in ", member.name, " is empty");
  return label;
}

absl::Status AddMember(const TarMember& member, const std::string& ending, Group* group) {
  const bool is_image = std::ranges::find(kImageEndings, ending) != kImageEndings.end();
  std::optional<TarMember>* const slot = is_image           ? &group->image
                                         : ending == "cls"  ? &group->cls
                                         : ending == "json" ? &group->json
                                                            : nullptr;
  group->endings.push_back(ending);
  if (slot == nullptr) return absl::OkStatus();
  if (*slot) {
    return InvalidArgument("two members of sample ", group->key, ": ", (*slot)->name, " and ", member.name);
  }
  *slot = member;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<WebArchive> ReadWebArchive(const ReadAt& read, uint64_t bytes) {
  ASSIGN_OR_RETURN(const std::vector<TarMember> members, ListTar(read, 0, bytes));
  WebArchive archive;
  std::vector<Group> groups;
  std::unordered_map<std::string, size_t> by_key;
  for (const TarMember& member : members) {
    std::string key, ending;
    if (!SplitName(member.name, &key, &ending)) continue;
    if (key.empty() || key.back() == '/') {
      archive.hidden.push_back(member.name);
      continue;
    }
    const auto [found, is_new] = by_key.emplace(key, groups.size());
    if (is_new) groups.push_back({key, {}, {}, {}, {}});
    RETURN_IF_ERROR(AddMember(member, ending, &groups[found->second]));
  }
  for (Group& group : groups) {
    if (group.image) {
      ASSIGN_OR_RETURN(std::string label, LabelOf(read, group));
      archive.samples.push_back({*std::move(group.image), std::move(label)});
    } else {
      archive.without_image.push_back(std::move(group.key));
    }
  }
  return archive;
}

}  // namespace deeper
