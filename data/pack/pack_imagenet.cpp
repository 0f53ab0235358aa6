// ImageNet (ILSVRC 2012) as it is downloaded, its tar archives left as they are, or unpacked. Labels are the
// ranks of the sorted wnids.
//
// train: ILSVRC2012_img_train.tar, a tar archive of one a class; or these, <wnid>.tar; or folders <wnid>/.
// val: ILSVRC2012_img_val.tar, or its files, with the devkit or val.txt; or folders <wnid>/.
#include <fcntl.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "data/io/file.h"
#include "data/io/tar.h"
#include "data/pack/imagenet_labels.h"
#include "data/pack/pack_plan.h"
#include "data/pack/pack_source.h"
#include "kernels/base/jobs.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kClasses = 1000, kTrainImages = 1281167, kValImages = 50000;

// An image's bytes, in an archive or as a file of its own.
struct ImageFile {
  std::string name;
  size_t path = 0;  // index of the file they are in
  uint64_t offset = 0, bytes = 0;
  int label = 0;
};

class ImagenetSource : public PackSource {
 public:
  ImagenetSource(std::vector<std::string> paths, std::vector<ImageFile> images,
                 std::vector<std::string> classes, std::vector<std::string> warnings)
      : paths_(std::move(paths)), images_(std::move(images)) {
    classes_ = std::move(classes);
    warnings_ = std::move(warnings);
    std::vector<bool> seen(classes_.size());
    for (const ImageFile& image : images_) seen[static_cast<size_t>(image.label)] = true;
    const auto missing = std::count(seen.begin(), seen.end(), false);
    if (missing == 0) return;
    const auto first = std::find(seen.begin(), seen.end(), false) - seen.begin();
    Warn(absl::StrCat(missing, " classes have no images, the first is ",
                      classes_[static_cast<size_t>(first)]));
  }
  int64_t size() const override { return static_cast<int64_t>(images_.size()); }
  int channels() const override { return 3; }
  std::string Name(int64_t i) const override { return images_[static_cast<size_t>(i)].name; }
  int Label(int64_t i) const override { return images_[static_cast<size_t>(i)].label; }

  absl::StatusOr<SourceSample> Load(int64_t i) const override {
    const ImageFile& image = images_[static_cast<size_t>(i)];
    absl::StatusOr<File> file = File::Open(paths_[image.path], O_RDONLY);
    return file.ok() ? LoadImageFile(*file, image.offset, image.bytes) : file.status();
  }

 private:
  std::vector<std::string> paths_;
  std::vector<ImageFile> images_;
};

// The members of the archive at [offset, offset + bytes) of `path`; all of it for bytes = 0.
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

// By name; and no name may be there twice.
absl::Status SortImages(const std::string& path, std::vector<ImageFile>* images) {
  std::sort(images->begin(), images->end(),
            [](const ImageFile& a, const ImageFile& b) { return a.name < b.name; });
  const auto twice =
      std::adjacent_find(images->begin(), images->end(),
                         [](const ImageFile& a, const ImageFile& b) { return a.name == b.name; });
  if (twice == images->end()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(path, " has ", twice->name, " twice"));
}

bool Hidden(const std::string& name) {
  return absl::StartsWith(fs::path(name).filename().string(), ".");
}

absl::StatusOr<std::vector<std::string>> ListDirectory(const std::string& directory) {
  std::vector<std::string> names;
  std::error_code error;
  for (auto it = fs::directory_iterator(directory, error); !error && it != fs::directory_iterator();
       it.increment(error)) {
    if (!Hidden(it->path())) names.push_back(it->path().filename());
  }
  if (error) return IoError("list", directory, error.value());
  std::sort(names.begin(), names.end());
  return names;
}

// The archive of one class: a file, or a part of one.
struct ClassTar {
  std::string wnid;
  size_t path = 0;
  uint64_t offset = 0, bytes = 0;
};

// Adds the archive called `name`, unless that is no class's.
void AddClassTar(const std::string& name, ClassTar tar, std::vector<ClassTar>* tars,
                 std::vector<std::string>* warnings) {
  tar.wnid = fs::path(name).stem();
  if (absl::EndsWith(name, ".tar") && IsWnid(tar.wnid)) {
    tars->push_back(std::move(tar));
  } else {
    warnings->push_back(absl::StrCat(name, " is not the archive of a class and is left out"));
  }
}

// Every wnid found must be a class.
absl::Status CheckClasses(const std::vector<std::string>& found, const std::vector<std::string>& classes,
                          const std::string& input) {
  for (const std::string& wnid : found) {
    if (std::find(classes.begin(), classes.end(), wnid) == classes.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("class ", wnid, " of ", input, " is none of the ", classes.size(),
                       " classes of classes.txt, the devkit or the splits already packed; remove it, or pack "
                       "into another directory"));
    }
  }
  return absl::OkStatus();
}

// The classes that classes.txt, other splits or the devkit give, which must agree; else empty.
absl::StatusOr<std::vector<std::string>> KnownClasses(const std::string& input,
                                                      const std::optional<Devkit>& devkit,
                                                      const std::vector<std::string>& known_classes) {
  absl::StatusOr<std::vector<std::string>> listed = ListedClasses(input, known_classes);
  if (!listed.ok() || !devkit) return listed;
  if (listed->empty()) return devkit->wnids;
  if (*listed == devkit->wnids) return listed;
  std::vector<std::string> differing, sorted = *listed;
  std::sort(sorted.begin(), sorted.end());
  std::set_symmetric_difference(sorted.begin(), sorted.end(), devkit->wnids.begin(), devkit->wnids.end(),
                                std::back_inserter(differing));
  return absl::InvalidArgumentError(absl::StrCat(
      "the ", devkit->wnids.size(), " classes of the devkit in ", input, " are not the ", listed->size(),
      " of classes.txt or of the splits already packed: ",
      differing.empty() ? "their order differs" : absl::StrCat("only one side has ", differing[0])));
}

// The class archives in `input`, or in the training archive there, sorted; *paths gets the files they are in.
absl::StatusOr<std::vector<ClassTar>> FindClassTars(const std::string& input, std::vector<std::string>* paths,
                                                    std::vector<std::string>* warnings) {
  std::vector<ClassTar> tars;
  const std::string all = absl::StrCat(input, "/ILSVRC2012_img_train.tar");
  if (fs::exists(all)) {
    ASSIGN_OR_RETURN(std::vector<TarMember> members, ListTarFile(all));
    paths->push_back(all);
    for (const TarMember& m : members) AddClassTar(m.name, {"", 0, m.offset, m.bytes}, &tars, warnings);
  } else {
    ASSIGN_OR_RETURN(std::vector<std::string> names, ListDirectory(input));
    for (const std::string& name : names) {
      if (!absl::EndsWith(name, ".tar")) continue;
      AddClassTar(name, {"", paths->size(), 0, 0}, &tars, warnings);
      paths->push_back(absl::StrCat(input, "/", name));
    }
  }
  std::sort(tars.begin(), tars.end(), [](const ClassTar& a, const ClassTar& b) { return a.wnid < b.wnid; });
  const auto twice = std::adjacent_find(
      tars.begin(), tars.end(), [](const ClassTar& a, const ClassTar& b) { return a.wnid == b.wnid; });
  if (twice == tars.end()) return tars;
  return absl::InvalidArgumentError(absl::StrCat(input, " has ", twice->wnid, ".tar twice"));
}

// The images of one class, by name.
absl::StatusOr<std::vector<ImageFile>> ListClass(const std::string& path, const ClassTar& tar, int label) {
  // An empty member is no archive, and 0 bytes would mean the whole file.
  if (tar.offset > 0 && tar.bytes == 0)
    return absl::DataLossError(absl::StrCat(path, ": ", tar.wnid, ".tar is empty"));
  ASSIGN_OR_RETURN(std::vector<TarMember> members, ListTarFile(path, tar.offset, tar.bytes));
  std::vector<ImageFile> images;
  for (const TarMember& m : members) {
    const std::string name = fs::path(m.name).filename();
    if (!Hidden(name))
      images.push_back({absl::StrCat(tar.wnid, "/", name), tar.path, m.offset, m.bytes, label});
  }
  RETURN_IF_ERROR(SortImages(path, &images));
  return images;
}

// Reading the headers of a million images takes a while: class by class, in parallel.
absl::StatusOr<std::vector<ImageFile>> ListClasses(const std::vector<ClassTar>& tars,
                                                   const std::vector<std::string>& paths,
                                                   const std::vector<std::string>& classes, int jobs,
                                                   const PackProgress& progress) {
  std::vector<std::vector<ImageFile>> by_label(classes.size());
  ProgressCounter counter(progress, "index", static_cast<int64_t>(tars.size()));
  RETURN_IF_ERROR(RunJobs(jobs, static_cast<int64_t>(tars.size()), [&](int64_t i) {
    const ClassTar& tar = tars[static_cast<size_t>(i)];
    const auto label = std::find(classes.begin(), classes.end(), tar.wnid) - classes.begin();
    ASSIGN_OR_RETURN(std::vector<ImageFile> images, ListClass(paths[tar.path], tar, static_cast<int>(label)));
    by_label[static_cast<size_t>(label)] = std::move(images);
    counter.Add(1);
    return absl::OkStatus();
  }));
  std::vector<ImageFile> all;
  for (std::vector<ImageFile>& images : by_label)
    all.insert(all.end(), std::make_move_iterator(images.begin()), std::make_move_iterator(images.end()));
  return all;
}

absl::StatusOr<std::unique_ptr<PackSource>> OpenTrain(const std::string& input,
                                                      const std::vector<std::string>& known_classes, int jobs,
                                                      const PackProgress& progress) {
  std::vector<std::string> paths, warnings, wnids;
  ASSIGN_OR_RETURN(std::vector<ClassTar> tars, FindClassTars(input, &paths, &warnings));
  if (tars.empty()) return OpenFolderSource(input, known_classes);
  for (const ClassTar& tar : tars) wnids.push_back(tar.wnid);
  std::vector<std::string> classes = known_classes.empty() ? wnids : known_classes;
  RETURN_IF_ERROR(CheckClasses(wnids, classes, input));
  ASSIGN_OR_RETURN(std::vector<ImageFile> images, ListClasses(tars, paths, classes, jobs, progress));
  return std::make_unique<ImagenetSource>(std::move(paths), std::move(images), std::move(classes),
                                          std::move(warnings));
}

// The validation images in `input`, or in the archive there, without labels.
absl::StatusOr<std::vector<ImageFile>> ListVal(const std::string& input, std::vector<std::string>* paths) {
  std::vector<ImageFile> images;
  const std::string tar = absl::StrCat(input, "/ILSVRC2012_img_val.tar");
  if (fs::exists(tar)) {
    ASSIGN_OR_RETURN(std::vector<TarMember> members, ListTarFile(tar));
    paths->push_back(tar);
    for (const TarMember& m : members) {
      if (!Hidden(m.name)) images.push_back({fs::path(m.name).filename(), 0, m.offset, m.bytes});
    }
  } else {
    ASSIGN_OR_RETURN(std::vector<std::string> names, ListDirectory(input));
    for (const std::string& name : names) {
      if (ValImageNumber(name) == 0) continue;
      std::error_code unreadable;  // Load() finds out
      images.push_back({name, paths->size(), 0, fs::file_size(fs::path(input) / name, unreadable)});
      paths->push_back(absl::StrCat(input, "/", name));
    }
  }
  RETURN_IF_ERROR(SortImages(input, &images));
  return images;
}

// By the devkit or val.txt, which must agree where there are both: a list of labels in the devkit's order of
// the classes looks just like one in the right order.
absl::StatusOr<int> ValLabel(const std::string& name, const std::optional<Devkit>& devkit,
                             const std::optional<std::map<std::string, int>>& list, size_t classes) {
  const int number = ValImageNumber(name);
  std::optional<int> by_devkit, by_list;
  if (devkit && number > 0 && static_cast<size_t>(number) <= devkit->val_labels.size())
    by_devkit = devkit->val_labels[static_cast<size_t>(number) - 1];
  if (const auto found = list ? list->find(name) : std::map<std::string, int>::const_iterator();
      list && found != list->end()) {
    by_list = found->second;
  }
  if (!by_devkit && !by_list)
    return absl::InvalidArgumentError(absl::StrCat("neither the devkit nor val.txt has a label for ", name));
  if (by_devkit && by_list && by_devkit != by_list) {
    return absl::InvalidArgumentError(absl::StrCat("val.txt gives ", name, " label ", *by_list,
                                                   ", the devkit ", *by_devkit, " (",
                                                   devkit->wnids[static_cast<size_t>(*by_devkit)],
                                                   "): labels are the ranks of the sorted wnids, from 0 on, "
                                                   "not the devkit's ids; correct val.txt or remove it"));
  }
  const int label = by_list.value_or(by_devkit.value_or(0));
  if (static_cast<size_t>(label) < classes) return label;
  return absl::InvalidArgumentError(absl::StrCat("val.txt gives ", name, " label ", label, ", but there are ",
                                                 classes, " classes, counted from 0"));
}

absl::StatusOr<std::unique_ptr<PackSource>> OpenVal(const std::string& input,
                                                    const std::optional<Devkit>& devkit,
                                                    const std::vector<std::string>& classes) {
  std::vector<std::string> paths;
  ASSIGN_OR_RETURN(std::vector<ImageFile> images, ListVal(input, &paths));
  if (images.empty()) return OpenFolderSource(input, classes);
  const auto list = ReadLabelList(absl::StrCat(input, "/val.txt"));
  if (!list.ok()) return list.status();
  if (!devkit && !*list) {
    return absl::InvalidArgumentError(absl::StrCat(
        "no labels for ", images[0].name, ": put ILSVRC2012_devkit_t12.tar.gz, or a val.txt of lines \"",
        images[0].name, " <label>\", into ", input));
  }
  if (classes.empty()) {
    return absl::InvalidArgumentError(
        "val.txt has numbers only; pack the split train into the same --output first, or name the classes in "
        "a "
        "classes.txt next to it, one wnid a line");
  }
  for (ImageFile& image : images) {
    ASSIGN_OR_RETURN(image.label, ValLabel(image.name, devkit, *list, classes.size()));
  }
  return std::make_unique<ImagenetSource>(std::move(paths), std::move(images), classes,
                                          std::vector<std::string>());
}

// What is not as in the challenge's own data.
void WarnOfCounts(bool train, PackSource* source) {
  const int64_t images = train ? kTrainImages : kValImages,
                classes = static_cast<int64_t>(source->classes().size());
  if (source->size() != images)
    source->Warn(absl::StrCat(source->size(), " images; ImageNet 2012 has ", images));
  if (classes != kClasses) source->Warn(absl::StrCat(classes, " classes; ImageNet 2012 has ", kClasses));
}

// Labels are the ranks of the sorted wnids, or a model trained elsewhere would be off.
absl::Status CheckWnids(const std::vector<std::string>& classes, const std::string& input) {
  const auto bad = std::find_if_not(classes.begin(), classes.end(), IsWnid);
  if (bad != classes.end()) {
    return absl::InvalidArgumentError(absl::StrCat("class \"", *bad,
                                                   "\" is no wnid (n and 8 digits); does --input=", input,
                                                   " hold one split of ImageNet?"));
  }
  if (std::is_sorted(classes.begin(), classes.end())) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "the classes in classes.txt are not sorted; ImageNet's labels are the ranks of the sorted wnids");
}

}  // namespace

absl::StatusOr<std::unique_ptr<PackSource>> OpenImagenetSource(const PackOptions& options,
                                                               const std::vector<std::string>& known_classes,
                                                               const PackProgress& progress) {
  const bool train = options.split == "train";
  if (!train && options.split != "val") {
    return absl::InvalidArgumentError(
        absl::StrCat("ImageNet has the splits train and val; not \"", options.split, "\""));
  }
  ASSIGN_OR_RETURN(std::optional<Devkit> devkit, ReadDevkit(options.input));
  ASSIGN_OR_RETURN(std::vector<std::string> classes, KnownClasses(options.input, devkit, known_classes));
  ASSIGN_OR_RETURN(std::unique_ptr<PackSource> source,
                   train ? OpenTrain(options.input, classes, options.jobs, progress)
                         : OpenVal(options.input, devkit, classes));
  RETURN_IF_ERROR(CheckWnids(source->classes(), options.input));
  WarnOfCounts(train, source.get());
  return source;
}

}  // namespace deeper
