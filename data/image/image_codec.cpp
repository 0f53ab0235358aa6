#include "data/image/image_codec.h"

// libjpeg's header needs these first.
#include <cstddef>
#include <cstdio>

#include <jpeglib.h>
#include <png.h>

#include <algorithm>
#include <csetjmp>
#include <cstdlib>
#include <cstring>
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

// What to read of an image besides its size; without `image`, nothing.
struct Wanted {
  int channels = 0;
  const ChoosePart* choose = nullptr;
  Image* image = nullptr;
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

// Both libraries report errors by jumping out of the call. The jump skips destructors, so the functions
// between setjmp and the library hold only plain data.
struct JpegErrors {
  jpeg_error_mgr manager;  // first, so that a pointer to it is a pointer to this
  std::jmp_buf jump;
  char message[JMSG_LENGTH_MAX];
};

[[noreturn]] void OnJpegError(j_common_ptr info) {
  auto* errors = reinterpret_cast<JpegErrors*>(info->err);
  info->err->format_message(info, errors->message);
  std::longjmp(errors->jump, 1);
}

void OnJpegMessage(j_common_ptr info, int level) {
  if (level < 0) OnJpegError(info);  // a warning: the data is damaged
}

jpeg_error_mgr* InitErrors(JpegErrors* errors) {
  jpeg_std_error(&errors->manager);
  errors->manager.error_exit = OnJpegError;
  errors->manager.emit_message = OnJpegMessage;
  return &errors->manager;
}

// One row of CMYK to grey or RGB.
void ConvertCmyk(const uint8_t* cmyk, bool inverted, int channels, int width, uint8_t* out) {
  const int flip = inverted ? 0 : 255;
  for (int x = 0; x < width; ++x, cmyk += 4, out += channels) {
    int rgb[3];
    for (int c = 0; c < 3; ++c) rgb[c] = ((cmyk[c] ^ flip) * (cmyk[3] ^ flip) + 127) / 255;
    if (channels == 3) {
      std::copy_n(rgb, 3, out);
    } else {
      *out = static_cast<uint8_t>((299 * rgb[0] + 587 * rgb[1] + 114 * rgb[2] + 500) / 1000);
    }
  }
}

// Columns to decode to the left and right of the wanted part. libjpeg interpolates chroma at the edges of a
// crop as if the image ended there, which affects this many columns.
constexpr int kChromaMargin = 2;

// Reads the part that *image has room for.
void ReadJpegPixels(jpeg_decompress_struct* info, Image* image) {
  const bool cmyk = info->jpeg_color_space == JCS_CMYK || info->jpeg_color_space == JCS_YCCK;
  info->out_color_space = cmyk ? JCS_CMYK : image->channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
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
  const bool in_place = !cmyk && image->width == full_width;
  for (int y = 0; y < image->height; ++y) {
    uint8_t* row = Row(image, static_cast<size_t>(y));
    jpeg_read_scanlines(info, in_place ? &row : decoded, 1);
    if (cmyk) {
      ConvertCmyk(from, info->saw_Adobe_marker, image->channels, image->width, row);
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
  *size = {static_cast<int>(info.image_height), static_cast<int>(info.image_width)};
  if (MakeRoom(wanted, *size, /*all=*/false)) ReadJpegPixels(&info, wanted.image);
  jpeg_destroy_decompress(&info);
  return CheckSize(*size);
}

struct PngInput {
  std::span<const uint8_t> rest;
  std::jmp_buf jump;
  char message[128];
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

void ReadPngPixels(png_structp png, png_infop info, Image* image) {
  png_set_expand(png);
  png_set_scale_16(png);
  png_set_strip_alpha(png);
  if (image->channels == 3) {
    png_set_gray_to_rgb(png);
  } else if (png_get_color_type(png, info) & PNG_COLOR_MASK_COLOR) {
    png_set_rgb_to_gray_fixed(png, PNG_ERROR_ACTION_NONE, 29900, 58700);
  }
  const int passes = png_set_interlace_handling(png);
  png_read_update_info(png, info);
  for (int pass = 0; pass < passes; ++pass) {
    for (int y = 0; y < image->height; ++y) png_read_row(png, Row(image, static_cast<size_t>(y)), nullptr);
  }
  png_read_end(png, nullptr);
}

absl::Status ReadPng(std::span<const uint8_t> bytes, const Wanted& wanted, ImageSize* size) {
  PngInput input = {bytes, {}, {}};
  png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &input, OnPngError, IgnorePngWarning);
  png_infop info = png_create_info_struct(png);
  DEEPER_CHECK(png != nullptr && info != nullptr);
  if (setjmp(input.jump) != 0) {
    png_destroy_read_struct(&png, &info, nullptr);
    return DataLoss("damaged PNG: ", input.message);
  }
  png_set_read_fn(png, &input, ReadPngBytes);
  png_set_user_limits(png, PNG_UINT_31_MAX, PNG_UINT_31_MAX);  // CheckSize has the clearer message
  png_read_info(png, info);
  *size = {static_cast<int>(png_get_image_height(png, info)),
           static_cast<int>(png_get_image_width(png, info))};
  if (MakeRoom(wanted, *size, /*all=*/true)) ReadPngPixels(png, info, wanted.image);
  png_destroy_read_struct(&png, &info, nullptr);
  return CheckSize(*size);
}

absl::Status ReadImage(std::span<const uint8_t> bytes, const Wanted& wanted, ImageSize* size) {
  const ImageFormat format = SniffImage(bytes);
  if (format == ImageFormat::kJpeg) return ReadJpeg(bytes, wanted, size);
  if (format == ImageFormat::kPng) return ReadPng(bytes, wanted, size);
  return InvalidArgument(bytes.empty() ? "empty file" : "neither a JPEG nor a PNG file");
}

}  // namespace

ImageFormat SniffImage(std::span<const uint8_t> bytes) {
  const auto starts_with = [&](const char* magic, size_t size) {
    return bytes.size() >= size && std::memcmp(bytes.data(), magic, size) == 0;
  };
  if (starts_with("\xFF\xD8\xFF", 3)) return ImageFormat::kJpeg;
  return starts_with("\x89PNG\r\n\x1A\n", 8) ? ImageFormat::kPng : ImageFormat::kUnknown;
}

absl::StatusOr<ImageSize> ReadImageSize(std::span<const uint8_t> bytes) {
  ImageSize size;
  RETURN_IF_ERROR(ReadImage(bytes, {}, &size));
  return size;
}

absl::Status DecodePart(std::span<const uint8_t> bytes, int channels, ChoosePart choose, Image* image) {
  DEEPER_CHECK(channels == 1 || channels == 3);
  ImageSize size;
  return ReadImage(bytes, {channels, &choose, image}, &size);
}

absl::Status DecodeImage(std::span<const uint8_t> bytes, int channels, Image* image) {
  return DecodePart(bytes, channels, ChooseAll, image);
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
