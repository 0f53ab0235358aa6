// ImageNet (ILSVRC 2012) as downloaded, in its tar archives, or unpacked. Labels are the ranks of the sorted
// wnids.
//
// train: ILSVRC2012_img_train.tar, which contains one tar archive per class; or these archives, <wnid>.tar;
// or folders <wnid>/.
// val: ILSVRC2012_img_val.tar, or its files, with the devkit or val.txt; or folders <wnid>/.
#include <fcntl.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "data/io/file.h"
#include "data/io/tar.h"
#include "data/sources/imagenet_labels.h"
#include "data/sources/labels.h"
#include "data/sources/listing.h"
#include "data/sources/source.h"
#include "kernels/base/jobs.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

namespace fs = std::filesystem;

// The members of the archive at [offset, offset + bytes) of `path`; bytes = 0 means the whole file.
absl::StatusOr<std::vector<TarMember>> ListTarFile(const std::string& path, uint64_t offset = 0,
                                                   uint64_t bytes = 0) {
  ASSIGN_OR_RETURN(File file, File::Open(path, O_RDONLY));
  ASSIGN_OR_RETURN(uint64_t size, file.Size());
  const ReadAt read = [&](uint64_t at, void* data, size_t count) { return file.ReadAt(at, data, count); };
  absl::StatusOr<std::vector<TarMember>> members = ListTar(read, offset, bytes > 0 ? offset + bytes : size);
  if (members.ok()) return members;
  return absl::Status(members.status().code(),
                      absl::StrCat(path, ": ", members.status().message(), "; download it again"));
}

// Sorts by name. InvalidArgument: a name occurs twice.
absl::Status SortImages(const std::string& path, std::vector<ImageFile>* images) {
  std::ranges::sort(*images, {}, &ImageFile::name);
  const auto twice = std::ranges::adjacent_find(*images, {}, &ImageFile::name);
  if (twice == images->end()) return absl::OkStatus();
  return InvalidArgument(path, " has ", twice->name, " twice");
}

// The archive of one class: a file, or a part of one.
struct ClassTar {
  std::string wnid;
  int path = 0;  // index of the file that contains it
  uint64_t offset = 0, bytes = 0;
};

// Adds the archive called `name` if the name is that of a class; otherwise warns.
void AddClassTar(const std::string& name, ClassTar tar, std::vector<ClassTar>* tars,
                 std::vector<std::string>* warnings) {
  tar.wnid = fs::path(name).stem();
  if (absl::EndsWith(name, ".tar") && IsWnid(tar.wnid)) {
    tars->push_back(std::move(tar));
  } else {
    warnings->push_back(absl::StrCat(name, " is not the archive of a class and is left out"));
  }
}

// The class archives in `input`, or in the training archive there, sorted; *paths receives their files.
absl::StatusOr<std::vector<ClassTar>> FindClassTars(const std::string& input, Lister* lister,
                                                    std::vector<std::string>* paths,
                                                    std::vector<std::string>* warnings) {
  std::vector<ClassTar> tars;
  const std::string all = absl::StrCat(input, "/ILSVRC2012_img_train.tar");
  std::error_code unreadable;  // listing the folder reports it
  if (fs::exists(all, unreadable)) {
    ASSIGN_OR_RETURN(std::vector<TarMember> members, ListTarFile(all));
    paths->push_back(all);
    for (const TarMember& m : members) AddClassTar(m.name, {"", 0, m.offset, m.bytes}, &tars, warnings);
  } else {
    ASSIGN_OR_RETURN(const Listing listing, lister->List());
    for (const std::string& name : listing.files) {
      if (!absl::EndsWith(name, ".tar")) continue;
      AddClassTar(name, {"", static_cast<int>(paths->size()), 0, 0}, &tars, warnings);
      paths->push_back(absl::StrCat(input, "/", name));
    }
  }
  std::ranges::sort(tars, {}, &ClassTar::wnid);
  const auto twice = std::ranges::adjacent_find(tars, {}, &ClassTar::wnid);
  if (twice == tars.end()) return tars;
  return InvalidArgument(input, " has ", twice->wnid, ".tar twice");
}

// The images of one class, by name. *hidden receives the names of its hidden files.
absl::StatusOr<std::vector<ImageFile>> ListClass(const std::string& path, const ClassTar& tar, int label,
                                                 std::vector<std::string>* hidden) {
  // An empty member is not an archive. (0 bytes would mean the whole file.)
  if (tar.offset > 0 && tar.bytes == 0) return DataLoss(path, ": ", tar.wnid, ".tar is empty");
  ASSIGN_OR_RETURN(std::vector<TarMember> members, ListTarFile(path, tar.offset, tar.bytes));
  std::vector<ImageFile> images;
  for (const TarMember& m : members) {
    const std::string name = absl::StrCat(tar.wnid, "/", fs::path(m.name).filename().native());
    if (IsHidden(m.name)) {
      hidden->push_back(name);
    } else {
      images.push_back({name, label, tar.path, m.offset, m.bytes});
    }
  }
  RETURN_IF_ERROR(SortImages(path, &images));
  return images;
}

// Reading a million headers takes long: one class at a time per thread, in parallel.
absl::StatusOr<std::vector<ImageFile>> ListClasses(const std::vector<ClassTar>& tars,
                                                   const std::vector<std::string>& paths,
                                                   const std::vector<std::string>& classes,
                                                   const SourceOptions& options, Lister* lister) {
  std::vector<std::vector<ImageFile>> by_label(classes.size());
  std::vector<std::vector<std::string>> hidden(classes.size());
  ProgressCounter counter(options.progress, "index", static_cast<int64_t>(tars.size()));
  RETURN_IF_ERROR(RunJobs(options.jobs, static_cast<int64_t>(tars.size()), [&](int64_t i) {
    const ClassTar& tar = tars[static_cast<size_t>(i)];
    const auto label = std::find(classes.begin(), classes.end(), tar.wnid) - classes.begin();
    ASSIGN_OR_RETURN(std::vector<ImageFile> images,
                     ListClass(paths[static_cast<size_t>(tar.path)], tar, static_cast<int>(label),
                               &hidden[static_cast<size_t>(label)]));
    by_label[static_cast<size_t>(label)] = std::move(images);
    counter.Add(1);
    return absl::OkStatus();
  }));
  for (const std::vector<std::string>& names : hidden) {
    for (const std::string& name : names) lister->CountHidden(name);
  }
  std::vector<ImageFile> all;
  for (std::vector<ImageFile>& images : by_label)
    all.insert(all.end(), std::make_move_iterator(images.begin()), std::make_move_iterator(images.end()));
  return all;
}

std::unique_ptr<ImageSource> MakeSource(const std::string& input, std::vector<std::string> archives,
                                        std::vector<ImageFile> images, std::vector<std::string> classes,
                                        const Lister& lister, std::vector<std::string> warnings) {
  auto source = MakeFileSource(input, std::move(archives), std::move(images), std::move(classes));
  lister.Report(source.get());
  for (std::string& warning : warnings) source->Warn(std::move(warning));
  WarnOfEmptyClasses(source.get());
  return source;
}

// options.known_classes is the result of ImagenetClasses(), here and in OpenVal.
absl::StatusOr<std::unique_ptr<ImageSource>> OpenTrain(const SourceOptions& options) {
  std::vector<std::string> paths, warnings, wnids;
  Lister lister(options);
  ASSIGN_OR_RETURN(std::vector<ClassTar> tars, FindClassTars(options.input, &lister, &paths, &warnings));
  if (tars.empty()) return OpenFolder(options);
  for (const ClassTar& tar : tars) wnids.push_back(tar.wnid);
  std::vector<std::string> classes = options.known_classes.empty() ? wnids : options.known_classes;
  RETURN_IF_ERROR(CheckAreClasses(options.input, "class", wnids, classes,
                                  "classes.txt, the devkit or the splits already packed"));
  ASSIGN_OR_RETURN(std::vector<ImageFile> images, ListClasses(tars, paths, classes, options, &lister));
  return MakeSource(options.input, std::move(paths), std::move(images), std::move(classes), lister,
                    std::move(warnings));
}

// The validation images in `input`, or in the archive there, without labels.
absl::StatusOr<std::vector<ImageFile>> ListVal(const std::string& input, Lister* lister,
                                               std::vector<std::string>* paths) {
  std::vector<ImageFile> images;
  const std::string tar = absl::StrCat(input, "/ILSVRC2012_img_val.tar");
  std::error_code unreadable;  // listing the folder reports it
  if (fs::exists(tar, unreadable)) {
    ASSIGN_OR_RETURN(std::vector<TarMember> members, ListTarFile(tar));
    paths->push_back(tar);
    for (const TarMember& m : members) {
      if (IsHidden(m.name)) {
        lister->CountHidden(m.name);
      } else {
        images.push_back({fs::path(m.name).filename(), 0, 0, m.offset, m.bytes});
      }
    }
  } else {
    ASSIGN_OR_RETURN(const Listing listing, lister->List());
    for (const std::string& name : listing.files) {
      if (ValImageNumber(name) > 0) images.push_back({name});
    }
  }
  RETURN_IF_ERROR(SortImages(input, &images));
  return images;
}

// The label from the devkit or val.txt. If both exist they must agree, since a list in the devkit's order of
// the classes looks like a correct one.
absl::StatusOr<int> ValLabel(const std::string& name, const std::optional<Devkit>& devkit,
                             const std::optional<std::map<std::string, int>>& list, size_t classes) {
  const int number = ValImageNumber(name);
  std::optional<int> by_devkit, by_list;
  if (devkit && number > 0 && static_cast<size_t>(number) <= devkit->val_labels.size())
    by_devkit = devkit->val_labels[static_cast<size_t>(number) - 1];
  if (list && list->contains(name)) by_list = list->at(name);
  if (!by_devkit && !by_list) return InvalidArgument("neither the devkit nor val.txt has a label for ", name);
  if (by_devkit && by_list && by_devkit != by_list) {
    return InvalidArgument("val.txt gives ", name, " label ", *by_list, ", but the devkit ", *by_devkit, " (",
                           devkit->wnids[static_cast<size_t>(*by_devkit)],
                           "). Labels are the ranks of the sorted wnids, counted from 0, "
                           "not the devkit's ids; correct val.txt or remove it");
  }
  const int label = by_list.value_or(by_devkit.value_or(0));
  if (static_cast<size_t>(label) < classes) return label;
  return InvalidArgument("val.txt gives ", name, " label ", label, ", but there are ", classes,
                         " classes, counted from 0");
}

absl::StatusOr<std::unique_ptr<ImageSource>> OpenVal(const SourceOptions& options,
                                                     const std::optional<Devkit>& devkit) {
  const std::string& input = options.input;
  const std::vector<std::string>& classes = options.known_classes;
  std::vector<std::string> paths;
  Lister lister(options);
  ASSIGN_OR_RETURN(std::vector<ImageFile> images, ListVal(input, &lister, &paths));
  if (images.empty()) return OpenFolder(options);
  ASSIGN_OR_RETURN(const auto list, ReadLabelList(absl::StrCat(input, "/val.txt")));
  if (!devkit && !list) {
    return InvalidArgument("no labels for ", images[0].name,
                           ": put ILSVRC2012_devkit_t12.tar.gz, or a val.txt of lines \"", images[0].name,
                           " <label>\", into ", input);
  }
  if (classes.empty()) {
    return InvalidArgument(
        "val.txt has numbers only; pack the split train into the same --output first, or name the classes in "
        "a classes.txt next to it, one wnid a line");
  }
  for (ImageFile& image : images) {
    ASSIGN_OR_RETURN(image.label, ValLabel(image.name, devkit, list, classes.size()));
  }
  return MakeSource(input, std::move(paths), std::move(images), classes, lister, {});
}

}  // namespace

absl::StatusOr<std::unique_ptr<ImageSource>> OpenImagenet(const SourceOptions& options) {
  const bool train = options.split == "train";
  if (!train && options.split != "val") {
    return InvalidArgument("ImageNet has the splits train and val; not \"", options.split, "\"");
  }
  ASSIGN_OR_RETURN(const std::optional<Devkit> devkit, ReadDevkit(options.input));
  SourceOptions known = options;
  ASSIGN_OR_RETURN(
      known.known_classes,
      ImagenetClasses(options, devkit ? devkit->wnids : std::vector<std::string>(), "the devkit"));
  ASSIGN_OR_RETURN(std::unique_ptr<ImageSource> source, train ? OpenTrain(known) : OpenVal(known, devkit));
  RETURN_IF_ERROR(CheckImagenet(options, source.get()));
  return source;
}

}  // namespace deeper
