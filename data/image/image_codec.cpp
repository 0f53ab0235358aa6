#include "data/image/image_codec.h"

// libjpeg's header needs these first.
#include <cstddef>
#include <cstdio>

#include <jerror.h>
#include <jpeglib.h>
#include <png.h>
#include <webp/decode.h>

#include <algorithm>
#include <csetjmp>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

absl::Status CheckSize(ImageSize size) {
  if (std::max(size.height, size.width) <= kMaxImageSide &&
      int64_t{size.height} * size.width <= kMaxImagePixels)
    return absl::OkStatus();
  return OutOfRange("image of ", size.width, " x ", size.height, " pixels; the limit is ", kMaxImageSide,
                    " per side and ", kMaxImagePixels, " in total");
}

constexpr size_t kNoteBytes = JMSG_LENGTH_MAX;

// What to read of an image besides its size: nothing without `image`.
struct Wanted {
  int channels = 0;
  const ChoosePart* choose = nullptr;
  Image* image = nullptr;
  char* note = nullptr;  // kNoteBytes, or nullptr
};

// Makes room for the wanted part of an image of this size, or for all of it. False: no part is wanted, or the
// image is too large.
bool MakeRoom(const Wanted& wanted, ImageSize size, bool all) {
  if (wanted.image == nullptr || !CheckSize(size).ok()) return false;
  PixelRect part = (*wanted.choose)(size);
  DEEPER_CHECK(!part.empty() && part.x >= 0 && part.y >= 0 && part.x + part.width <= size.width &&
               part.y + part.height <= size.height);
  if (all) part = ChooseAll(size);
  Image& image = *wanted.image;
  image = {part.height, part.width, wanted.channels, std::move(image.pixels), part.x, part.y};
  image.pixels.resize(static_cast<size_t>(int64_t{part.height} * part.width * wanted.channels));
  return true;
}

uint8_t* Row(Image* image, size_t y) {
  return image->pixels.data() + y * static_cast<size_t>(image->width) * static_cast<size_t>(image->channels);
}

// The same weighted sum for every format and colour profile: Rec. 601 in 16 bits, as in Pillow.
uint8_t GreyOf(const uint8_t* rgb) {
  return static_cast<uint8_t>((19595 * rgb[0] + 38470 * rgb[1] + 7471 * rgb[2] + (1 << 15)) >> 16);
}

// Both libraries report errors by jumping out of the call. The jump skips destructors, so the functions
// between setjmp and the library hold only plain data.
struct JpegErrors {
  jpeg_error_mgr manager;  // first, so that a pointer to it is a pointer to this
  std::jmp_buf jump;
  char message[JMSG_LENGTH_MAX];
  char note[kNoteBytes];  // the first warning that does not mean damage
  bool in_header, cut_short;
};

[[noreturn]] void OnJpegError(j_common_ptr info) {
  auto* errors = reinterpret_cast<JpegErrors*>(info->err);
  info->err->format_message(info, errors->message);
  std::longjmp(errors->jump, 1);
}

// Whether libjpeg's last warning loses no pixel. An unknown version of JFIF or of Adobe's colour transform;
// wrong bounds of a sequential scan, which libjpeg does not use; bytes between two segments of the header; a
// missing end: where data is missing too, decoding one sequential scan of Huffman codes gives another
// warning. Unused bytes after a scan are damage: its decoding may have gone wrong before them.
bool IsHarmless(j_decompress_ptr info, const JpegErrors& errors) {
  switch (errors.manager.msg_code) {
    case JWRN_JFIF_MAJOR:
    case JWRN_ADOBE_XFORM:
    case JWRN_NOT_SEQUENTIAL:
      return true;
    case JWRN_EXTRANEOUS_DATA:
      return errors.in_header;
    case JWRN_JPEG_EOF:
      return !errors.in_header && !info->arith_code && !jpeg_has_multiple_scans(info);
    default:
      return false;
  }
}

void OnJpegMessage(j_common_ptr info, int level) {
  auto* errors = reinterpret_cast<JpegErrors*>(info->err);
  if (level >= 0) return;  // no warning
  errors->cut_short |= errors->manager.msg_code == JWRN_JPEG_EOF;
  if (!IsHarmless(reinterpret_cast<j_decompress_ptr>(info), *errors)) {
    if (errors->cut_short) errors->manager.msg_code = JWRN_JPEG_EOF;  // the cause of all that follows
    OnJpegError(info);
  }
  if (errors->note[0] == 0) info->err->format_message(info, errors->note);
}

jpeg_error_mgr* InitErrors(JpegErrors* errors) {
  jpeg_std_error(&errors->manager);
  errors->manager.error_exit = OnJpegError;
  errors->manager.emit_message = OnJpegMessage;
  errors->note[0] = 0;
  errors->in_header = true;
  errors->cut_short = false;
  return &errors->manager;
}

// One row of RGB to grey, or of CMYK to grey or RGB. Files hold 255 minus the ink, as Adobe's programs write
// them. Pillow and ImageMagick assume this with and without Adobe's marker.
void ConvertRow(const uint8_t* from, bool cmyk, int channels, int width, uint8_t* out) {
  for (int x = 0; x < width; ++x, from += cmyk ? 4 : 3, out += channels) {
    uint8_t rgb[3];
    for (int c = 0; c < 3; ++c) {
      rgb[c] = cmyk ? static_cast<uint8_t>((from[c] * from[3] + 127) / 255) : from[c];
    }
    if (channels == 3) {
      std::copy_n(rgb, 3, out);
    } else {
      *out = GreyOf(rgb);
    }
  }
}

// Columns to decode to the left and right of the wanted part. libjpeg interpolates chroma at the edges of a
// crop as if the image ended there, which affects this many columns.
constexpr int kChromaMargin = 2;

// Reads the part that *image has room for.
void ReadJpegPixels(jpeg_decompress_struct* info, Image* image) {
  const bool cmyk = info->jpeg_color_space == JCS_CMYK || info->jpeg_color_space == JCS_YCCK;
  const bool grey = image->channels == 1 && info->jpeg_color_space == JCS_GRAYSCALE;
  info->out_color_space = cmyk ? JCS_CMYK : grey ? JCS_GRAYSCALE : JCS_RGB;
  jpeg_start_decompress(info);
  const int full_width = static_cast<int>(info->image_width);
  auto left = static_cast<JDIMENSION>(std::max(0, image->x - kChromaMargin));
  JDIMENSION width =
      static_cast<JDIMENSION>(std::min(full_width, image->x + image->width + kChromaMargin)) - left;
  if (width < info->image_width) jpeg_crop_scanline(info, &left, &width);  // moves `left` to a block's edge
  if (image->y > 0) jpeg_skip_scanlines(info, static_cast<JDIMENSION>(image->y));
  const auto components = static_cast<JDIMENSION>(info->output_components);
  JSAMPARRAY decoded = info->mem->alloc_sarray(reinterpret_cast<j_common_ptr>(info), JPOOL_IMAGE,
                                               info->output_width * components, 1);
  const uint8_t* const from = decoded[0] + (static_cast<JDIMENSION>(image->x) - left) * components;
  const bool convert = static_cast<int>(components) != image->channels;
  const bool in_place = !convert && image->width == full_width;
  for (int y = 0; y < image->height; ++y) {
    uint8_t* row = Row(image, static_cast<size_t>(y));
    jpeg_read_scanlines(info, in_place ? &row : decoded, 1);
    if (convert) {
      ConvertRow(from, cmyk, image->channels, image->width, row);
    } else if (!in_place) {
      std::memcpy(row, from, static_cast<size_t>(image->width) * components);
    }
  }
  if (info->output_scanline == info->output_height) jpeg_finish_decompress(info);
}

absl::Status ReadJpeg(std::span<const uint8_t> bytes, const Wanted& wanted, ImageSize* size) {
  JpegErrors errors;
  jpeg_decompress_struct info = {};
  info.err = InitErrors(&errors);
  if (setjmp(errors.jump) != 0) {
    jpeg_destroy_decompress(&info);
    return DataLoss("damaged JPEG: ", errors.message);
  }
  jpeg_create_decompress(&info);
  jpeg_mem_src(&info, bytes.data(), bytes.size());
  jpeg_read_header(&info, TRUE);
  errors.in_header = false;
  *size = {static_cast<int>(info.image_height), static_cast<int>(info.image_width)};
  if (MakeRoom(wanted, *size, /*all=*/false)) ReadJpegPixels(&info, wanted.image);
  jpeg_destroy_decompress(&info);
  if (wanted.note != nullptr) std::memcpy(wanted.note, errors.note, kNoteBytes);
  return CheckSize(*size);
}

struct PngInput {
  std::span<const uint8_t> rest;
  std::jmp_buf jump;
  char message[128];
  bool pixels_read;
};

[[noreturn]] void OnPngError(png_structp png, png_const_charp message) {
  auto* input = static_cast<PngInput*>(png_get_error_ptr(png));
  std::snprintf(input->message, sizeof input->message, "%s", message);
  std::longjmp(input->jump, 1);
}

void IgnorePngWarning(png_structp, png_const_charp) {}  // about colour profiles and text; damage is an error

void ReadPngBytes(png_structp png, png_bytep out, size_t bytes) {
  auto* input = static_cast<PngInput*>(png_get_io_ptr(png));
  if (bytes > input->rest.size()) png_error(png, "truncated");
  std::memcpy(out, input->rest.data(), bytes);
  input->rest = input->rest.subspan(bytes);
}

// Of RGB, in place.
void MakeGrey(Image* image) {
  const size_t count = size_t{1} * image->height * image->width;
  for (size_t i = 0; i < count; ++i) image->pixels[i] = GreyOf(&image->pixels[3 * i]);
  image->channels = 1;
  image->pixels.resize(count);
}

void ReadPngPixels(png_structp png, png_infop info, Image* image) {
  png_set_expand(png);
  png_set_scale_16(png);
  png_set_strip_alpha(png);
  // libpng's own conversion to grey depends on the file's gamma.
  const bool to_grey = image->channels == 1 && png_get_color_type(png, info) & PNG_COLOR_MASK_COLOR;
  if (image->channels == 3) png_set_gray_to_rgb(png);
  if (to_grey) {
    image->channels = 3;
    image->pixels.resize(3 * image->pixels.size());
  }
  const int passes = png_set_interlace_handling(png);
  png_read_update_info(png, info);
  for (int pass = 0; pass < passes; ++pass) {
    for (int y = 0; y < image->height; ++y) png_read_row(png, Row(image, static_cast<size_t>(y)), nullptr);
  }
  if (to_grey) MakeGrey(image);
}

// A fault after the pixels is a note: the checksums of the pixels are right.
absl::Status ReadPng(std::span<const uint8_t> bytes, const Wanted& wanted, ImageSize* size) {
  PngInput input = {bytes, {}, {}, false};
  png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &input, OnPngError, IgnorePngWarning);
  png_infop info = png_create_info_struct(png);
  DEEPER_CHECK(png != nullptr && info != nullptr);
  if (setjmp(input.jump) != 0) {
    png_destroy_read_struct(&png, &info, nullptr);
    if (!input.pixels_read) return DataLoss("damaged PNG: ", input.message);
    if (wanted.note != nullptr)
      std::snprintf(wanted.note, kNoteBytes, "damaged after the pixels: %s", input.message);
    return CheckSize(*size);
  }
  png_set_read_fn(png, &input, ReadPngBytes);
  png_set_user_limits(png, PNG_UINT_31_MAX, PNG_UINT_31_MAX);  // CheckSize has the clearer message
  png_read_info(png, info);
  *size = {static_cast<int>(png_get_image_height(png, info)),
           static_cast<int>(png_get_image_width(png, info))};
  if (MakeRoom(wanted, *size, /*all=*/true)) {
    ReadPngPixels(png, info, wanted.image);
    input.pixels_read = true;
    png_read_end(png, nullptr);
  }
  png_destroy_read_struct(&png, &info, nullptr);
  return CheckSize(*size);
}

// libwebp ignores what follows the image.
absl::Status ReadWebp(std::span<const uint8_t> bytes, const Wanted& wanted, ImageSize* size) {
  WebPBitstreamFeatures features;
  if (WebPGetFeatures(bytes.data(), bytes.size(), &features) != VP8_STATUS_OK)
    return DataLoss("damaged WebP: no valid header");
  if (features.has_animation != 0) return InvalidArgument("an animated WebP file; convert one of its images");
  *size = {features.height, features.width};
  if (!MakeRoom(wanted, *size, /*all=*/true)) return CheckSize(*size);
  Image& image = *wanted.image;
  const bool to_grey = image.channels == 1;
  const int row_bytes = 3 * image.width;
  if (to_grey) image.pixels.resize(3 * image.pixels.size());
  if (WebPDecodeRGBInto(bytes.data(), bytes.size(), image.pixels.data(), image.pixels.size(), row_bytes) ==
      nullptr)
    return DataLoss("damaged WebP: its pixels are damaged or cut off");
  if (to_grey) MakeGrey(&image);
  return absl::OkStatus();
}

// The name of a format that is not read, or nullptr.
const char* OtherFormat(std::span<const uint8_t> bytes) {
  const std::string_view head(reinterpret_cast<const char*>(bytes.data()),
                              std::min<size_t>(bytes.size(), 12));
  const auto has = [&](size_t at, std::string_view magic) {
    return head.substr(std::min(at, head.size()), magic.size()) == magic;
  };
  if (has(0, "GIF8")) return "GIF";
  if (has(0, "BM")) return "BMP";
  if (has(0, {"II*\0", 4}) || has(0, {"MM\0*", 4})) return "TIFF";
  if (has(4, "ftypavif")) return "AVIF";
  if (has(4, "ftypheic") || has(4, "ftypmif1")) return "HEIC";
  return nullptr;
}

absl::Status ReadImage(std::span<const uint8_t> bytes, const Wanted& wanted, ImageSize* size) {
  const ImageFormat format = SniffImage(bytes);
  if (format == ImageFormat::kJpeg) return ReadJpeg(bytes, wanted, size);
  if (format == ImageFormat::kPng) return ReadPng(bytes, wanted, size);
  if (format == ImageFormat::kWebp) return ReadWebp(bytes, wanted, size);
  if (const char* const other = OtherFormat(bytes))
    return InvalidArgument("the format is ", other, ", which is not read; convert it to PNG");
  return InvalidArgument(bytes.empty() ? "empty file" : "not a JPEG, PNG or WebP file");
}

}  // namespace

ImageFormat SniffImage(std::span<const uint8_t> bytes) {
  const auto starts_with = [&](const char* magic, size_t size) {
    return bytes.size() >= size && std::memcmp(bytes.data(), magic, size) == 0;
  };
  if (starts_with("\xFF\xD8\xFF", 3)) return ImageFormat::kJpeg;
  if (starts_with("\x89PNG\r\n\x1A\n", 8)) return ImageFormat::kPng;
  const bool webp = starts_with("RIFF", 4) && bytes.size() >= 12 && std::memcmp(&bytes[8], "WEBP", 4) == 0;
  return webp ? ImageFormat::kWebp : ImageFormat::kUnknown;
}

absl::StatusOr<ImageSize> ReadImageSize(std::span<const uint8_t> bytes) {
  ImageSize size;
  RETURN_IF_ERROR(ReadImage(bytes, {}, &size));
  return size;
}

absl::Status DecodePart(std::span<const uint8_t> bytes, int channels, ChoosePart choose, Image* image) {
  DEEPER_CHECK(channels == 1 || channels == 3);
  ImageSize size;
  return ReadImage(bytes, {channels, &choose, image, nullptr}, &size);
}

absl::Status DecodeImage(std::span<const uint8_t> bytes, int channels, Image* image, std::string* note) {
  DEEPER_CHECK(channels == 1 || channels == 3);
  const ChoosePart all = ChooseAll;
  ImageSize size;
  char text[kNoteBytes] = "";
  absl::Status status = ReadImage(bytes, {channels, &all, image, text}, &size);
  if (note != nullptr) *note = text;
  return status;
}

std::vector<uint8_t> EncodeJpeg(const Image& image, int quality) {
  // libjpeg's default handlers abort on errors. None can occur here: the size is that of a decoded image, and
  // the output is in memory.
  JpegErrors errors;
  jpeg_compress_struct info = {};
  info.err = InitErrors(&errors);
  if (setjmp(errors.jump) != 0) DEEPER_CHECK(false, errors.message);
  jpeg_create_compress(&info);
  unsigned char* out = nullptr;
  unsigned long bytes = 0;
  jpeg_mem_dest(&info, &out, &bytes);
  info.image_height = static_cast<JDIMENSION>(image.height);
  info.image_width = static_cast<JDIMENSION>(image.width);
  info.input_components = image.channels;
  info.in_color_space = image.channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
  jpeg_set_defaults(&info);
  jpeg_set_quality(&info, quality, TRUE);
  info.comp_info[0].h_samp_factor = info.comp_info[0].v_samp_factor = 1;
  jpeg_start_compress(&info, TRUE);
  while (info.next_scanline < info.image_height) {
    JSAMPROW row = Row(const_cast<Image*>(&image), info.next_scanline);
    jpeg_write_scanlines(&info, &row, 1);
  }
  jpeg_finish_compress(&info);
  jpeg_destroy_compress(&info);
  std::vector<uint8_t> file(out, out + bytes);
  std::free(out);  // NOLINT(cppcoreguidelines-no-malloc): libjpeg allocated it
  return file;
}

}  // namespace deeper
