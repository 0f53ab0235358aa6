// What odd_images.py needs of C++.
//
//   odd_image_tool write DIRECTORY            writes JPEGs that Pillow cannot write
//   odd_image_tool read CHANNELS PRESET SIZE FILE...
//       prints each file as height, width (32 bits each) and pixels; 0, 0 where it is refused. PRESET: of
//       --val_preset, with a network of SIZE x SIZE; raw: the file's own pixels
#include <cstdio>
#include <cstring>
#include <optional>
#include <string>

#include "data/image/image_codec.h"
#include "data/image/resize.h"
#include "kernels/base/choice.h"
#include "tests/data/test_images.h"

namespace deeper {
namespace {

void Write(const std::string& directory, const std::string& name, const Bytes& file) {
  WriteBytes(directory + "/" + name + ".jpg", file);
}

Bytes RgbJpeg(const Image& image, bool adobe) {
  jpeg_compress_struct info = {};
  jpeg_error_mgr errors;
  info.err = jpeg_std_error(&errors);
  jpeg_create_compress(&info);
  unsigned char* out = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&info, &out, &size);
  info.image_height = static_cast<JDIMENSION>(image.height);
  info.image_width = static_cast<JDIMENSION>(image.width);
  info.input_components = 3;
  info.in_color_space = JCS_RGB;
  jpeg_set_defaults(&info);
  jpeg_set_colorspace(&info, JCS_RGB);
  info.write_Adobe_marker = adobe ? TRUE : FALSE;
  return FinishJpeg(&info, image.pixels, &out, &size);
}

void WriteAll(const std::string& directory) {
  const Image colour = NoisyImage(45, 61, 3), grey = NoisyImage(45, 61, 1), cmyk = NoisyImage(45, 61, 4);
  for (const auto& [h, v] : {std::pair{1, 1}, {2, 1}, {1, 2}, {2, 2}, {3, 1}, {4, 1}, {1, 4}, {4, 2}}) {
    for (const bool progressive : {false, true}) {
      const std::string name = "chroma-" + std::to_string(h) + "x" + std::to_string(v);
      Write(directory, name + (progressive ? "-progressive" : ""), JpegFile(colour, {h, v, progressive}));
    }
  }
  for (const bool progressive : {false, true}) {
    const std::string kind = progressive ? "-progressive" : "";
    Write(directory, "arithmetic" + kind, JpegFile(colour, {2, 2, progressive, 0, true}));
    Write(directory, "arithmetic-restart" + kind, JpegFile(colour, {1, 1, progressive, 3, true}));
    Write(directory, "arithmetic-grey" + kind, JpegFile(grey, {1, 1, progressive, 0, true}));
    Write(directory, "restart-1" + kind, JpegFile(colour, {2, 2, progressive, 1}));
    Write(directory, "restart-5" + kind, JpegFile(colour, {2, 1, progressive, 5}));
    Write(directory, "grey" + kind, JpegFile(grey, {1, 1, progressive, 2}));
  }
  for (const bool adobe : {false, true}) {
    const std::string kind = adobe ? "-adobe" : "";
    Write(directory, "cmyk" + kind, CmykJpeg(45, 61, cmyk.pixels, JCS_CMYK, adobe));
    Write(directory, "ycck" + kind, CmykJpeg(45, 61, cmyk.pixels, JCS_YCCK, adobe));
    Write(directory, "rgb" + kind, RgbJpeg(colour, adobe));
  }
}

// False: refused.
bool Read(const std::string& path, int channels, const std::string& preset, int size, Image* image) {
  if (!DecodeImage(ReadBytes(path), channels, image).ok()) return false;
  if (const std::optional<Augment> augment = ValueOf<Augment>(preset)) {
    const Window window = DrawWindow(*augment, size, image->height, image->width, Rng(0, 0, 0, 0));
    *image = ResizeWindow(*image, window, FilterOf(*augment), size, size);
  }
  return true;
}

int Main(int argc, char** argv) {
  if (argc == 3 && std::strcmp(argv[1], "write") == 0) {
    WriteAll(argv[2]);
    return 0;
  }
  if (argc < 5 || std::strcmp(argv[1], "read") != 0) return 2;
  for (int i = 5; i < argc; ++i) {
    Image image;
    if (!Read(argv[i], std::atoi(argv[2]), argv[3], std::atoi(argv[4]), &image)) image = {};
    const int32_t extents[] = {image.height, image.width};
    std::fwrite(extents, sizeof extents, 1, stdout);
    std::fwrite(image.pixels.data(), 1, image.pixels.size(), stdout);
  }
  return std::fflush(stdout) == 0 ? 0 : 1;
}

}  // namespace
}  // namespace deeper

int main(int argc, char** argv) {
  return deeper::Main(argc, argv);
}
