// JPEGs with flipped bits, truncated, or with changed segment lengths. The codec must read them as libjpeg
// does if no pixel is lost, and refuse them otherwise. $DEEPER_MUTATIONS is the number of files, 2000 by
// default; docs/benchmarks.md has the results of 100,000.
#include <gtest/gtest.h>

#include <algorithm>
#include <csetjmp>
#include <cstdlib>
#include <set>
#include <vector>

#include "data/image/image_codec.h"
#include "kernels/base/rng.h"
#include "tests/data/test_images.h"

#include <jerror.h>

namespace deeper {
namespace {

constexpr int64_t kComparedPixels = 1 << 16;  // larger ones, of damaged headers, are decoded but not compared

// libjpeg's own result for a file, row by row.
struct Reference {
  Image image;
  int sound_rows = 0;     // read before the first warning
  bool complete = false;  // to the end, without any
  bool compared = false;  // whether size and kind allow a comparison
};

struct Errors {
  jpeg_error_mgr manager;  // first, so that a pointer to it is a pointer to this
  std::jmp_buf jump;
  bool in_header;
};

// Of the header or the end alone, pixels apart.
bool IsNote(j_decompress_ptr info) {
  const std::set<int> notes = {JWRN_JFIF_MAJOR, JWRN_ADOBE_XFORM, JWRN_NOT_SEQUENTIAL};
  const int code = info->err->msg_code;
  const bool in_header = reinterpret_cast<Errors*>(info->err)->in_header;
  return notes.contains(code) || (code == JWRN_EXTRANEOUS_DATA && in_header) ||
         (code == JWRN_JPEG_EOF && !in_header && !info->progressive_mode);
}

void ReadRows(jpeg_decompress_struct* info, Reference* reference) {
  jpeg_read_header(info, TRUE);
  reinterpret_cast<Errors*>(info->err)->in_header = false;
  Image& image = reference->image;
  const bool cmyk = info->jpeg_color_space == JCS_CMYK || info->jpeg_color_space == JCS_YCCK;
  if (cmyk || int64_t{info->image_width} * info->image_height > kComparedPixels) return;
  reference->compared = true;
  image.height = static_cast<int>(info->image_height);
  image.width = static_cast<int>(info->image_width);
  image.channels = 3;
  image.pixels.resize(size_t{3} * info->image_width * info->image_height);
  info->out_color_space = JCS_RGB;
  jpeg_start_decompress(info);
  while (info->output_scanline < info->output_height) {
    JSAMPROW row = &image.pixels[size_t{3} * info->image_width * info->output_scanline];
    jpeg_read_scanlines(info, &row, 1);
    if (info->err->num_warnings == 0) reference->sound_rows = static_cast<int>(info->output_scanline);
  }
  jpeg_finish_decompress(info);
  reference->complete = info->err->num_warnings == 0;
}

Reference Read(const Bytes& file) {
  Reference reference;
  jpeg_decompress_struct info = {};
  Errors errors;
  errors.in_header = true;
  info.err = jpeg_std_error(&errors.manager);
  errors.manager.error_exit = [](j_common_ptr common) {
    std::longjmp(reinterpret_cast<Errors*>(common->err)->jump, 1);
  };
  errors.manager.emit_message = [](j_common_ptr common, int level) {
    if (level < 0 && !IsNote(reinterpret_cast<j_decompress_ptr>(common))) ++common->err->num_warnings;
  };
  if (setjmp(errors.jump) == 0) {
    jpeg_create_decompress(&info);
    jpeg_mem_src(&info, file.data(), file.size());
    ReadRows(&info, &reference);
  }
  jpeg_destroy_decompress(&info);
  return reference;
}

std::vector<Bytes> Originals() {
  const Image colour = NoisyImage(48, 61, 3), grey = NoisyImage(33, 40, 1), cmyk = NoisyImage(24, 24, 4);
  std::vector<Bytes> files = {JpegFile(grey, {}), CmykJpeg(24, 24, cmyk.pixels, JCS_CMYK, true),
                              CmykJpeg(24, 24, cmyk.pixels, JCS_YCCK, true)};
  for (const auto& [h, v] : {std::pair{1, 1}, {2, 1}, {2, 2}}) {
    for (const bool progressive : {false, true}) {
      files.push_back(JpegFile(colour, {h, v, progressive, 0}));
      files.push_back(JpegFile(colour, {h, v, progressive, 2}));
    }
  }
  return files;
}

int Below(Rng& rng, size_t bound) {
  return static_cast<int>(rng.NextBelow(static_cast<uint32_t>(std::max<size_t>(1, bound))));
}

// The length of some segment: two bytes after a marker.
void ChangeALength(Rng& rng, Bytes* file) {
  std::vector<size_t> markers;
  for (size_t i = 2; i + 4 < file->size(); ++i) {
    if ((*file)[i] == 0xFF && (*file)[i + 1] >= 0xC0 && (*file)[i + 1] != 0xFF) markers.push_back(i);
  }
  if (markers.empty()) return;
  const size_t at = markers[static_cast<size_t>(Below(rng, markers.size()))];
  const int length = (*file)[at + 2] << 8 | (*file)[at + 3];
  const int changed = rng.NextBelow(2) ? length + Below(rng, 9) - 4 : Below(rng, 65536);
  (*file)[at + 2] = static_cast<uint8_t>(changed >> 8);
  (*file)[at + 3] = static_cast<uint8_t>(changed);
}

Bytes Mutate(Bytes file, Rng& rng) {
  const size_t header = 700;  // where single bits matter most
  switch (rng.NextBelow(6)) {
    case 0:
    case 1:
      for (int flips = 1 + Below(rng, 8); flips-- > 0;)
        file[static_cast<size_t>(
            Below(rng, rng.NextBelow(2) ? std::min(header, file.size()) : file.size()))] ^=
            static_cast<uint8_t>(1 << Below(rng, 8));
      break;
    case 2:
      file.resize(3 + static_cast<size_t>(Below(rng, file.size() - 3)));
      break;
    case 3:
      ChangeALength(rng, &file);
      break;
    case 4: {
      const size_t at = static_cast<size_t>(Below(rng, file.size()));
      const size_t end = std::min(file.size(), at + 1 + static_cast<size_t>(Below(rng, 40)));
      for (size_t i = at; i < end; ++i) file[i] = static_cast<uint8_t>(Below(rng, 256));
      break;
    }
    default: {  // removes or repeats a piece
      const auto at = file.begin() + Below(rng, file.size());
      const Bytes piece(at, at + std::min<std::ptrdiff_t>(file.end() - at, 1 + Below(rng, 60)));
      if (rng.NextBelow(2)) {
        file.insert(at, piece.begin(), piece.end());
      } else {
        file.erase(at, at + std::ssize(piece));
      }
    }
  }
  return file;
}

// Whether rows [part.y, ...) of `reference` have the pixels of `part`.
bool Matches(const Image& part, const Reference& reference) {
  if (part.y + part.height > reference.sound_rows) return false;
  const auto bytes = static_cast<ptrdiff_t>(part.width) * 3;
  for (int y = 0; y < part.height; ++y) {
    const auto row = part.pixels.begin() + y * bytes;
    const auto expected =
        reference.image.pixels.begin() + (ptrdiff_t{part.y + y} * reference.image.width + part.x) * 3;
    if (!std::equal(row, row + bytes, expected)) return false;
  }
  return true;
}

PixelRect SomePart(ImageSize size, Rng& rng) {
  PixelRect part;
  part.width = 1 + Below(rng, static_cast<size_t>(size.width));
  part.height = 1 + Below(rng, static_cast<size_t>(size.height));
  part.x = Below(rng, static_cast<size_t>(size.width - part.width + 1));
  part.y = Below(rng, static_cast<size_t>(size.height - part.height + 1));
  return part;
}

TEST(MutatedJpegs, AreReadRightOrNotAtAll) {
  const char* const wanted = std::getenv("DEEPER_MUTATIONS");
  const int count = wanted == nullptr ? 2000 : std::atoi(wanted);
  const std::vector<Bytes> originals = Originals();
  int whole_ok = 0, part_ok = 0, compared = 0;
  for (int i = 0; i < count; ++i) {
    Rng rng(1, RandomStream("mutations"), 0, static_cast<uint64_t>(i));
    const Bytes file = Mutate(originals[static_cast<size_t>(i) % originals.size()], rng);
    if (SniffImage(file) != ImageFormat::kJpeg) continue;
    SCOPED_TRACE(i);
    const Reference reference = Read(file);
    Image whole, part;
    const bool sized = ReadImageSize(file).ok();
    const absl::Status decoded = DecodeImage(file, 3, &whole);
    const absl::Status decoded_part = DecodePart(
        file, 3, [&](ImageSize size) { return SomePart(size, rng); }, &part);
    ASSERT_TRUE(sized || (!decoded.ok() && !decoded_part.ok()));
    whole_ok += decoded.ok();
    part_ok += decoded_part.ok();
    ASSERT_TRUE(decoded_part.ok() || !decoded.ok()) << decoded_part;
    if (!reference.compared) continue;
    ++compared;
    ASSERT_EQ(decoded.ok(), reference.complete) << decoded;
    ASSERT_TRUE(!decoded.ok() || Matches(whole, reference));
    ASSERT_TRUE(!decoded_part.ok() || Matches(part, reference));
  }
  std::printf("%d files: %d compared with libjpeg, %d whole images and %d parts accepted\n", count, compared,
              whole_ok, part_ok);
  EXPECT_GT(whole_ok, count / 50);
  EXPECT_GT(part_ok, whole_ok);  // parts before the damage
  EXPECT_LT(part_ok, count * 4 / 5);
}

}  // namespace
}  // namespace deeper
