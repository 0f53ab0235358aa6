// libjpeg's header needs these two first.
#include <cstddef>
#include <cstdio>

#include <fcntl.h>
#include <jpeglib.h>
#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "comm/agree.h"
#include "data/image/image_codec.h"
#include "data/io/checksum.h"
#include "data/shards/verify_shards.h"
#include "kernels/base/exit_code.h"
#include "kernels/base/jobs.h"
#include "kernels/base/status.h"
#include "launch/cli/command.h"
#include "launch/cli/run_config.h"
#include "nlohmann/json.hpp"
#include "trainer/run/inputs.h"
#include "trainer/scaling/statistics.h"

namespace deeper {
namespace {

constexpr CommandText kText = {
    .name = "bench loader",
    .summary = "times the loader, and compares with bare loops over the same bytes",
    .operands = "",
    .details =
        R"(Alternates between rounds of these, with the same number of threads: the loader as in training; pread
and CRC32C of the same samples in the same order; for JPEGs, deeper's decoder and a bare libjpeg loop over the
same files in memory. Prints medians, and medians of the ratios per round, as JSON. Read the data once before,
so that the page cache is warm. Under mpirun it only times opening the split: once by rank 0 for all ranks, and
once by every rank.)",
    .examples = R"(deeper bench loader --data=datasets/imagenet --augment=inception --workers=2
deeper bench loader --data=datasets/imagenet-raw --packed --workers=2
mpirun -n 8 deeper bench loader --data=datasets/imagenet)",
    .distributed = true,
};

int64_t ResidentBytes() {
  malloc_trim(0);
  int64_t size = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> size >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

// The least work that decoding needs. An error ends the process.
void DecodeBare(const std::vector<uint8_t>& file, std::vector<uint8_t>& pixels) {
  jpeg_error_mgr errors;
  jpeg_decompress_struct info = {};
  info.err = jpeg_std_error(&errors);
  jpeg_create_decompress(&info);
  jpeg_mem_src(&info, file.data(), file.size());
  jpeg_read_header(&info, TRUE);
  // libjpeg does not convert these two to RGB.
  const bool cmyk = info.jpeg_color_space == JCS_CMYK || info.jpeg_color_space == JCS_YCCK;
  info.out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
  jpeg_start_decompress(&info);
  const size_t pitch = static_cast<size_t>(info.output_components) * info.output_width;
  pixels.resize(pitch * info.output_height);
  while (info.output_scanline < info.output_height) {
    JSAMPROW row = pixels.data() + pitch * info.output_scanline;
    jpeg_read_scanlines(&info, &row, 1);
  }
  jpeg_finish_decompress(&info);
  jpeg_destroy_decompress(&info);
}

// A stored sample in an open shard.
struct Place {
  int fd = -1;
  uint64_t offset = 0;
  uint32_t length = 0, crc32c = 0;
};

class BenchLoaderCommand final : public Command {
 public:
  BenchLoaderCommand() : Command(kText) {
    config_.workers = 2;
    config_.augment = Augment::kInception;
  }

  std::vector<FlagGroup> Flags() override {
    RunConfig& c = config_;
    return {With(Pick(c, "Data", {"data", "direct_io", "order", "augment", "color_jitter"}),
                 {{"split", &c.train_split, "split of --data"},
                  {"image_size", &image_size_, "height and width of the output images"},
                  {"packed", &packed_,
                   "output for GPUs: stored pixels, which are not yet cropped and normalised"}}),
            {"Measuring",
             {{"workers", &c.workers, "threads of the loader and of each loop", Range(1)},
              {"batch", &batch_, "images per batch", Range(1, 1e6)},
              {"images", &images_, "images per round; more than the split has are several epochs", Range(1)},
              {"rounds", &rounds_, "rounds of each kind", Range(1)}}}};
  }

  absl::Status Run(const Invocation& call) override {
    if (config_.data.empty()) return InvalidArgument("needs --data=DIR");
    config_.global_batch = batch_;
    RETURN_IF_ERROR(Validate(config_));
    if (call.comm.size() > 1) return MeasureOpening(call);
    ASSIGN_OR_RETURN(const std::unique_ptr<Dataset> data,
                     OpenDataset(config_, config_.data, config_.train_split, call.comm));
    return WithExitCode(Measure(*data), ExitCode::kData);
  }

 private:
  // Prints the seconds and bytes of the slowest and largest rank.
  absl::Status MeasureOpening(const Invocation& call) {
    Communicator& comm = call.comm;
    nlohmann::ordered_json json = {{"benchmark", "open"}, {"ranks", comm.size()}};
    absl::Status status;
    const auto measure = [&](const char* name, const auto& open) {
      comm.Barrier();
      const int64_t before = ResidentBytes();
      const double start = Seconds();
      const auto kept = open();
      double worst[] = {Seconds() - start, static_cast<double>(ResidentBytes() - before)};
      comm.AllReduce(worst, 2, CommType::kF64, ReduceOp::kMax, {}).Wait();
      json[name] = {{"seconds", worst[0]}, {"bytes_a_rank", static_cast<int64_t>(worst[1])}};
    };
    for (int round = 0; round < 2; ++round) {  // the first round warms the page cache
      measure("rank_0_for_all", [&] {
        auto data = OpenDataset(config_, config_.data, config_.train_split, comm);
        status.Update(data.status());
        return data;
      });
      measure("every_rank_all_files", [&] {
        std::vector<ShardFile> shards;
        const absl::StatusOr<Manifest> manifest = ReadManifest(config_.data);
        if (manifest.ok() && manifest->splits.contains(config_.train_split)) {
          VisitShards(config_.data, *manifest, config_.train_split,
                      [&](ShardFile shard) { shards.push_back(std::move(shard)); });
        }
        return shards;
      });
    }
    if (call.is_root() && status.ok()) std::printf("%s\n", json.dump(2).c_str());
    return Agree(comm, status);
  }

  absl::Status Measure(const Dataset& data) {
    std::vector<File> files;
    std::vector<Place> places;
    RETURN_IF_ERROR(FindSamples(data, &files, &places));
    std::vector<std::vector<uint8_t>> jpegs;
    if (jpeg_) {
      ASSIGN_OR_RETURN(jpegs, ReadAll(places));
    }

    std::map<std::string, std::vector<double>> rates;
    StageTimes stages{};
    absl::Status status;
    const auto time = [&](const char* name, const auto& work) {
      const double seconds = SecondsOf([&] { status.Update(work()); });
      rates[name].push_back(static_cast<double>(images_) / seconds);
    };
    const uint32_t longest = std::ranges::max(places, {}, &Place::length).length;
    const int64_t buffers = std::max<int64_t>(3 * batch_, config_.workers);
    std::vector<std::vector<uint8_t>> ring(static_cast<size_t>(buffers), std::vector<uint8_t>(longest));
    for (int round = 0; round < rounds_ && status.ok(); ++round) {
      time("loader", [&] { return RunLoader(data, &stages); });
      time("pread", [&] { return ReadBare(places, ring); });
      if (jpegs.empty()) continue;
      time("decode", [&] {
        return RunJobs(config_.workers, images_, [&](int64_t i) {
          thread_local Image image;
          return DecodeImage(jpegs[static_cast<size_t>(i)], 3, &image);
        });
      });
      time("libjpeg", [&] {
        return RunJobs(config_.workers, images_, [&](int64_t i) {
          thread_local std::vector<uint8_t> pixels;
          DecodeBare(jpegs[static_cast<size_t>(i)], pixels);
          return absl::OkStatus();
        });
      });
    }
    if (status.ok()) Print(rates, stages, data);
    return status;
  }

  // The places of the samples of a round, in the order of reading.
  absl::Status FindSamples(const Dataset& data, std::vector<File>* files, std::vector<Place>* places) {
    ASSIGN_OR_RETURN(const Manifest manifest, ReadManifest(config_.data));
    jpeg_ = manifest.splits.at(config_.train_split).encoding == Encoding::kJpeg;
    std::vector<Place> stored;
    absl::Status status;
    VisitShards(config_.data, manifest, config_.train_split, [&](const ShardFile& shard) {
      absl::StatusOr<File> file = File::Open(shard.path(), O_RDONLY);
      status.Update(file.status());
      if (!status.ok()) return;
      const ShardIndex& index = shard.index();
      for (size_t i = 0; i < index.offset.size(); ++i) {
        stored.push_back(
            {file->fd(), shard.data_offset() + index.offset[i], index.length[i], index.crc32c[i]});
      }
      files->push_back(*std::move(file));
    });
    RETURN_IF_ERROR(status);
    const SampleOrder order(config_.order, data.info().samples, config_.seed, 0);
    for (int64_t i = 0; i < images_; ++i)
      places->push_back(stored[static_cast<size_t>(order.At(i % data.info().samples))]);
    return absl::OkStatus();
  }

  static absl::StatusOr<std::vector<std::vector<uint8_t>>> ReadAll(const std::vector<Place>& places) {
    std::vector<std::vector<uint8_t>> files;
    for (const Place& place : places) {
      files.emplace_back(place.length);
      if (pread(place.fd, files.back().data(), place.length, static_cast<off_t>(place.offset)) !=
          place.length)
        return DataLoss("a sample cannot be read; run `deeper verify`");
    }
    return files;
  }

  // Reads into as many buffers as the loader's ring has. Each thread has its share of samples and buffers.
  absl::Status ReadBare(const std::vector<Place>& places, std::vector<std::vector<uint8_t>>& ring) const {
    const auto threads = static_cast<size_t>(config_.workers), share = ring.size() / threads;
    return RunJobs(config_.workers, config_.workers, [&](int64_t thread) {
      for (size_t i = static_cast<size_t>(thread); i < places.size(); i += threads) {
        const Place& place = places[i];
        uint8_t* const into = ring[static_cast<size_t>(thread) * share + i / threads % share].data();
        const bool right =
            pread(place.fd, into, place.length, static_cast<off_t>(place.offset)) == place.length &&
            Crc32c(into, place.length) == place.crc32c;
        if (!right) return DataLoss("a sample is damaged; run `deeper verify`");
      }
      return absl::OkStatus();
    });
  }

  absl::Status RunLoader(const Dataset& data, StageTimes* stages) const {
    LoaderOptions options;
    options.image_size = static_cast<int>(image_size_);
    options.channels = data.info().channels;
    ConfigureTrainingInput(config_, options);
    options.order = config_.order;
    options.global_batch = options.rows = batch_;
    options.packed = packed_;
    ASSIGN_OR_RETURN(const std::unique_ptr<Loader> loader, MakeLoader(data, options));
    for (int64_t seen = 0; seen < images_;) {
      ASSIGN_OR_RETURN(const Batch batch, loader->Next());
      seen += batch.rows;
    }
    const StageTimes times = loader->times();
    for (size_t i = 0; i < times.size(); ++i) (*stages)[i] += times[i];
    return absl::OkStatus();
  }

  void Print(const std::map<std::string, std::vector<double>>& rates, const StageTimes& stages,
             const Dataset& data) const {
    nlohmann::ordered_json json = {{"benchmark", "loader"}};
    for (const auto& [name, values] : rates) json["images_per_second"][name] = Median(values);
    json["ratios"]["loader_to_pread"] = MedianRatio(rates.at("loader"), rates.at("pread"));
    if (rates.contains("decode"))
      json["ratios"]["decode_to_libjpeg"] = MedianRatio(rates.at("decode"), rates.at("libjpeg"));
    const double busy = stages[1] + stages[2] + stages[3];
    json["stages"] = {
        {"read", stages[1] / busy}, {"decode", stages[2] / busy}, {"augment", stages[3] / busy}};
    json["settings"] = {{"samples", data.info().samples},
                        {"images", images_},
                        {"rounds", rounds_},
                        {"workers", config_.workers},
                        {"batch", batch_},
                        {"image_size", image_size_},
                        {"augment", NameOf(config_.augment)},
                        {"color_jitter", config_.color_jitter},
                        {"order", NameOf(config_.order)},
                        {"direct_io", config_.direct_io},
                        {"packed", packed_}};
    std::printf("%s\n", json.dump(2).c_str());
  }

  RunConfig config_;
  int64_t image_size_ = 224, batch_ = 32, images_ = 2000;
  int rounds_ = 7;
  bool packed_ = false;
  bool jpeg_ = false;  // the samples are JPEG files
};

}  // namespace

std::unique_ptr<Command> MakeBenchLoader() {
  return std::make_unique<BenchLoaderCommand>();
}

}  // namespace deeper
