// MNIST's file format, plain or gzipped: big-endian words (magic, dimensions), then data bytes.
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "data/image/image_codec.h"
#include "data/io/file.h"
#include "data/sources/source.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

constexpr uint32_t kImagesMagic = 0x803, kLabelsMagic = 0x801;  // unsigned bytes in 3 dimensions, in 1
constexpr size_t kImagesHeader = 16, kLabelsHeader = 8;

struct IdxFile {
  std::string path;
  std::vector<uint8_t> bytes;

  // Big-endian word `i` of the header. The file must be long enough.
  uint32_t Word(size_t i) const {
    const uint8_t* b = &bytes[4 * i];
    return uint32_t{b[0]} << 24 | uint32_t{b[1]} << 16 | uint32_t{b[2]} << 8 | b[3];
  }
};

// A file's content, decompressed if necessary.
absl::StatusOr<IdxFile> ReadIdxFile(const std::string& stem) {
  std::error_code unreadable;  // opening the file reports it
  IdxFile file{std::filesystem::exists(stem + ".gz", unreadable) ? stem + ".gz" : stem, {}};
  const gzFile in = gzopen(file.path.c_str(), "rb");
  if (in == nullptr) return IoError("open", file.path, errno);
  constexpr unsigned kPiece = 1 << 20;
  int got = 0;
  do {
    const size_t size = file.bytes.size();
    file.bytes.resize(size + kPiece);
    got = gzread(in, &file.bytes[size], kPiece);
    file.bytes.resize(size + static_cast<size_t>(std::max(got, 0)));
  } while (got > 0);
  if (gzclose_r(in) != Z_OK || got < 0) {
    return DataLoss(file.path, " is damaged or truncated; download it again");
  }
  return file;
}

// Checks the magic number, and that the dimensions in the header account for every byte.
absl::Status CheckIdxFile(const IdxFile& file, uint32_t magic, size_t header_bytes) {
  if (file.bytes.size() < header_bytes || file.Word(0) != magic) {
    return InvalidArgument(file.path, " is not an IDX file of the expected kind");
  }
  unsigned __int128 elements = 1;
  for (size_t i = 1; i < header_bytes / 4; ++i) elements *= file.Word(i);
  if (elements == file.bytes.size() - header_bytes) return absl::OkStatus();
  return DataLoss(file.path, " has ", file.bytes.size() - header_bytes,
                  " bytes of data, not what its header says; download it again");
}

class IdxSource final : public ImageSource {
 public:
  IdxSource(IdxFile images, IdxFile labels, std::vector<std::string> classes)
      : ImageSource(std::move(classes)), images_(std::move(images)), labels_(std::move(labels)) {
    stem_ = std::filesystem::path(images_.path).filename();
    stem_ = stem_.substr(0, stem_.find(".gz"));
  }
  int64_t size() const override { return images_.Word(1); }
  int channels() const override { return 1; }
  std::string Name(int64_t i) const override { return absl::StrCat(stem_, "[", i, "]"); }
  int Label(int64_t i) const override { return labels_.bytes[kLabelsHeader + static_cast<size_t>(i)]; }

  absl::StatusOr<SourceSample> Load(int64_t i) const override {
    SourceSample sample;
    sample.image = {static_cast<int>(images_.Word(2)), static_cast<int>(images_.Word(3)), 1, {}};
    const size_t pixels = size_t{images_.Word(2)} * images_.Word(3);
    const auto begin =
        images_.bytes.begin() + static_cast<ptrdiff_t>(kImagesHeader + static_cast<size_t>(i) * pixels);
    sample.image.pixels.assign(begin, begin + static_cast<ptrdiff_t>(pixels));
    return sample;
  }

 private:
  IdxFile images_, labels_;
  std::string stem_;
};

absl::Status CheckPair(const IdxFile& images, const IdxFile& labels, size_t classes) {
  RETURN_IF_ERROR(CheckIdxFile(images, kImagesMagic, kImagesHeader));
  RETURN_IF_ERROR(CheckIdxFile(labels, kLabelsMagic, kLabelsHeader));
  if (images.Word(1) != labels.Word(1)) {
    return InvalidArgument(images.path, " has ", images.Word(1), " images, ", labels.path, " has ",
                           labels.Word(1), " labels; they must be a pair");
  }
  const uint32_t height = images.Word(2), width = images.Word(3);
  if (std::min(height, width) == 0 || std::max(height, width) > kMaxImageSide) {
    return InvalidArgument(images.path, " has images of ", width, " x ", height, " pixels");
  }
  const auto bad = std::find_if(labels.bytes.begin() + kLabelsHeader, labels.bytes.end(),
                                [&](uint8_t label) { return label >= classes; });
  if (bad == labels.bytes.end()) return absl::OkStatus();
  return InvalidArgument("label ", int{*bad}, " of sample ",
                         bad - labels.bytes.begin() - static_cast<ptrdiff_t>(kLabelsHeader), " in ",
                         labels.path, ", but there are ", classes,
                         " classes; name them in a classes.txt next to it, one per line");
}

}  // namespace

absl::StatusOr<std::unique_ptr<ImageSource>> OpenIdx(const SourceOptions& options) {
  const std::string& split = options.split;
  if (split != "train" && split != "val" && split != "test") {
    return InvalidArgument("IDX files have the splits train, and val or test; not \"", split, "\"");
  }
  ASSIGN_OR_RETURN(std::vector<std::string> classes, ListedClasses(options));
  if (classes.empty()) classes = {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"};
  const std::string stem = absl::StrCat(options.input, "/", split == "train" ? "train" : "t10k");
  ASSIGN_OR_RETURN(IdxFile images, ReadIdxFile(stem + "-images-idx3-ubyte"));
  ASSIGN_OR_RETURN(IdxFile labels, ReadIdxFile(stem + "-labels-idx1-ubyte"));
  RETURN_IF_ERROR(CheckPair(images, labels, classes.size()));
  return std::make_unique<IdxSource>(std::move(images), std::move(labels), std::move(classes));
}

}  // namespace deeper
