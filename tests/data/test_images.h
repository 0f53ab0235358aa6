// Small images, and image files of every kind that the codec must read.
#pragma once

// libjpeg's header needs these first.
#include <cstddef>
#include <cstdio>

#include <jpeglib.h>
#include <png.h>

#include <cstdlib>

#include "data/load/dataset.h"
#include "tests/data/scratch.h"

namespace deeper {

// A smooth image, which JPEG preserves closely; different for each seed.
inline Image MakeImage(int height, int width, int channels, int seed = 0) {
  Image image{height, width, channels, {}};
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      for (int c = 0; c < channels; ++c) {
        image.pixels.push_back(static_cast<uint8_t>((x * 3 + y * 2 + c * 60 + seed * 17) % 200 + 20));
      }
    }
  }
  return image;
}

// `type` PNG_COLOR_TYPE_*, 8 or 16 bits; `rows` in the file's own layout, big-endian. `gamma` 0: not stated.
inline Bytes PngFile(int height, int width, int type, int bits, const Bytes& rows,
                     const std::vector<png_color>& palette = {}, int interlace = PNG_INTERLACE_NONE,
                     double gamma = 0) {
  Bytes file;
  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr, nullptr);
  png_infop info = png_create_info_struct(png);
  png_set_write_fn(
      png, &file,
      [](png_structp p, png_bytep data, size_t size) {
        auto* out = static_cast<Bytes*>(png_get_io_ptr(p));
        out->insert(out->end(), data, data + size);
      },
      nullptr);
  png_set_IHDR(png, info, static_cast<png_uint_32>(width), static_cast<png_uint_32>(height), bits, type,
               interlace, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  if (!palette.empty()) png_set_PLTE(png, info, palette.data(), static_cast<int>(palette.size()));
  if (gamma > 0) png_set_gAMA(png, info, gamma);
  std::vector<png_bytep> pointers;
  for (size_t y = 0; y < static_cast<size_t>(height); ++y) {
    pointers.push_back(const_cast<png_bytep>(&rows[y * rows.size() / static_cast<size_t>(height)]));
  }
  png_set_rows(png, info, pointers.data());
  png_write_png(png, info, PNG_TRANSFORM_IDENTITY, nullptr);
  png_destroy_write_struct(&png, &info);
  return file;
}

inline Bytes PngFile(const Image& image) {
  return PngFile(image.height, image.width, image.channels == 1 ? PNG_COLOR_TYPE_GRAY : PNG_COLOR_TYPE_RGB, 8,
                 image.pixels);
}

struct JpegLayout {
  int h = 1, v = 1;  // columns and rows of the image to one of chroma
  bool progressive = false;
  unsigned restart_interval = 0;  // blocks; 0: none
  bool arithmetic = false;        // coding, in place of Huffman's
};

// An image with all frequencies, unlike MakeImage: neighbouring pixels differ.
inline Image NoisyImage(int height, int width, int channels, int seed = 0) {
  Image image = MakeImage(height, width, channels, seed);
  uint32_t state = static_cast<uint32_t>(seed) + 1;
  for (uint8_t& pixel : image.pixels) {
    state = state * 1664525u + 1013904223u;
    pixel = static_cast<uint8_t>((pixel + (state >> 25)) / 2);
  }
  return image;
}

inline Bytes FinishJpeg(jpeg_compress_struct* info, const Bytes& pixels, unsigned char** out,
                        unsigned long* size) {
  jpeg_start_compress(info, TRUE);
  const size_t row_bytes = size_t{info->image_width} * static_cast<size_t>(info->input_components);
  while (info->next_scanline < info->image_height) {
    JSAMPROW row = const_cast<JSAMPROW>(&pixels[info->next_scanline * row_bytes]);
    jpeg_write_scanlines(info, &row, 1);
  }
  jpeg_finish_compress(info);
  jpeg_destroy_compress(info);
  Bytes file(*out, *out + *size);
  std::free(*out);
  return file;
}

inline Bytes JpegFile(const Image& image, const JpegLayout& layout, int quality = 90) {
  jpeg_compress_struct info = {};
  jpeg_error_mgr errors;
  info.err = jpeg_std_error(&errors);
  jpeg_create_compress(&info);
  unsigned char* out = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&info, &out, &size);
  info.image_height = static_cast<JDIMENSION>(image.height);
  info.image_width = static_cast<JDIMENSION>(image.width);
  info.input_components = image.channels;
  info.in_color_space = image.channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
  jpeg_set_defaults(&info);
  jpeg_set_quality(&info, quality, TRUE);
  info.comp_info[0].h_samp_factor = layout.h;
  info.comp_info[0].v_samp_factor = layout.v;
  info.restart_interval = layout.restart_interval;
  info.arith_code = layout.arithmetic ? TRUE : FALSE;
  if (layout.progressive) jpeg_simple_progression(&info);
  return FinishJpeg(&info, image.pixels, &out, &size);
}

// Four components as stored in the file. `adobe` adds Adobe's marker.
inline Bytes CmykJpeg(int height, int width, const Bytes& pixels, J_COLOR_SPACE stored, bool adobe) {
  jpeg_compress_struct info = {};
  jpeg_error_mgr errors;
  info.err = jpeg_std_error(&errors);
  jpeg_create_compress(&info);
  unsigned char* out = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&info, &out, &size);
  info.image_height = static_cast<JDIMENSION>(height);
  info.image_width = static_cast<JDIMENSION>(width);
  info.input_components = 4;
  info.in_color_space = JCS_CMYK;
  jpeg_set_defaults(&info);
  jpeg_set_colorspace(&info, stored);
  info.write_Adobe_marker = adobe ? TRUE : FALSE;
  jpeg_set_quality(&info, 100, TRUE);
  for (int c = 0; c < 4; ++c) info.comp_info[c].h_samp_factor = info.comp_info[c].v_samp_factor = 1;
  return FinishJpeg(&info, pixels, &out, &size);
}

}  // namespace deeper
