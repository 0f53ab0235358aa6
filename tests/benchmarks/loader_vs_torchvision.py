#!/usr/bin/env python3
"""Compares deeper's loader with torchvision (PIL) and NVIDIA's DALI for training crops from JPEGs, in turn on the same cores.

  tests/benchmarks/loader_vs_torchvision.py --deeper build/cpu-release/launch/deeper --images DIR [--workers 2] [--rounds 5]

DIR has one folder of JPEGs per class. deeper packs them byte for byte. All loaders then make 224 px crops of random area and aspect,
randomly mirrored and normalised, in `workers` threads or processes. Rounds alternate, and ratios are per round. JSON on the last line.
Needs an interpreter with torch and torchvision: Debian's python3-torchvision. Includes DALI, on the CPU, if it can be imported:
`pip install nvidia-dali-cuda120` in a virtual environment with --system-site-packages.
"""
import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time


def torchvision_rate(images, workers, count, batch):
    import torch
    import torchvision.transforms as transforms
    from torchvision.datasets import ImageFolder

    torch.set_num_threads(1)
    transform = transforms.Compose([transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(), transforms.ToTensor(),
                                    transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])
    dataset = ImageFolder(images, transform)
    sampler = torch.utils.data.RandomSampler(dataset, replacement=True, num_samples=count + workers * batch)
    batches = iter(torch.utils.data.DataLoader(dataset, batch_size=batch, sampler=sampler, num_workers=workers))
    for _ in range(workers):  # until the processes have started
        next(batches)
    start = time.perf_counter()
    seen = sum(len(labels) for _, labels in batches)
    return seen / (time.perf_counter() - start)


def dali_rate(images, workers, count, batch):
    from nvidia.dali import fn, pipeline_def, types

    @pipeline_def(batch_size=batch, num_threads=workers, device_id=None)
    def crops():
        files, labels = fn.readers.file(file_root=images, random_shuffle=True)
        part = fn.decoders.image_random_crop(files, device="cpu", output_type=types.RGB, random_area=[0.08, 1], random_aspect_ratio=[3 / 4, 4 / 3])
        small = fn.resize(part, size=[224, 224])
        return fn.crop_mirror_normalize(small, dtype=types.FLOAT, output_layout="CHW", mirror=fn.random.coin_flip(),
                                        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]), labels

    pipeline = crops()
    pipeline.build()
    pipeline.run()  # until the threads have started
    start = time.perf_counter()
    runs = -(-count // batch)
    for _ in range(runs):
        pipeline.run()
    return runs * batch / (time.perf_counter() - start)


def deeper_rate(args, data, count):
    out = subprocess.run([args.deeper, "bench", "loader", f"--data={data}", "--augment=inception", "--color_jitter=0", f"--workers={args.workers}",
                          f"--images={count}", f"--batch={args.batch}", "--rounds=1"], check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(out)["images_per_second"]["loader"]


def summary(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deeper", required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3, help="epochs per round")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as data:
        packed = subprocess.run([args.deeper, "pack", "--format=folder", f"--input={args.images}", f"--output={data}", "--split=train",
                                 "--encoding=jpeg"], stdout=subprocess.PIPE, text=True)
        if packed.returncode != 0:
            sys.exit(f"pack failed: {packed.stdout}")
        with open(f"{data}/manifest.json") as manifest:
            count = args.epochs * json.load(manifest)["splits"]["train"]["samples"]
        peers = {"torchvision": torchvision_rate}
        try:
            import nvidia.dali  # noqa: F401
            peers["dali"] = dali_rate
        except ImportError as error:
            print(f"without DALI: {error}", file=sys.stderr)
        rates = {"deeper": [], **{name: [] for name in peers}}
        for number in range(args.rounds):
            rates["deeper"].append(deeper_rate(args, data, count))
            for name, rate in peers.items():
                rates[name].append(rate(args.images, args.workers, count, args.batch))
            print(f"round {number + 1}:", ", ".join(f"{name} {values[-1]:.0f}" for name, values in rates.items()), "images/s", file=sys.stderr)
    ratios = {name: summary([mine / its for mine, its in zip(rates["deeper"], rates[name])]) for name in peers}
    print(json.dumps({"workers": args.workers, "images": count, "rounds": args.rounds,
                      "images_per_second": {name: summary(values) for name, values in rates.items()}, "ratio": ratios}))


if __name__ == "__main__":
    main()
