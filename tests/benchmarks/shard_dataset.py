#!/usr/bin/env python3
"""Compares deeper.ShardDataset with torchvision's ImageFolder: images per second of a DataLoader over the same JPEGs.

    shard_dataset.py --deeper=build/cpu-release/launch/deeper --images=DIR [--workers=4 --rounds=7 --epochs=2]

DIR has one folder of JPEGs per class. deeper packs them byte for byte (jpeg) and as pixels of their own size (raw). Each loader gives every image
once per epoch, in random order: decoded only, or with torchvision's RandomResizedCrop(224), flip, ToTensor and Normalize. Rounds alternate between
the loaders, and ratios are per round. JSON on the last line. Needs torch and torchvision: Debian's python3-torchvision.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy
import PIL
import torch
import torchvision.transforms as transforms
from torchvision.datasets import ImageFolder

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "python"))
import deeper

CROP = transforms.Compose([transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(), transforms.ToTensor(),
                           transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])


class Pixels:
    """ImageFolder's and a JPEG shard's images, decoded."""

    def __call__(self, image):
        return numpy.asarray(image).sum(dtype=numpy.int64)


class CropOfPixels:
    def __call__(self, pixels):
        return CROP(PIL.Image.fromarray(pixels))


def rate(dataset, workers, epochs):
    torch.set_num_threads(1)
    loader = torch.utils.data.DataLoader(dataset, batch_size=16, shuffle=True, num_workers=workers, persistent_workers=True)
    for _ in loader:  # until the workers have started and every file is in the page cache
        pass
    start, seen = time.perf_counter(), 0
    for _ in range(epochs):
        seen += sum(len(labels) for _, labels in loader)
    assert seen == epochs * len(dataset)
    return seen / (time.perf_counter() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deeper", required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--epochs", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        for encoding in "jpeg", "raw":
            subprocess.run([args.deeper, "pack", "--format=folder", f"--input={args.images}", f"--output={directory}/{encoding}",
                            f"--encoding={encoding}"], check=True, stdout=subprocess.DEVNULL)
        loaders = {"ImageFolder, decoded": ImageFolder(args.images, Pixels()),
                   "jpeg, decoded": deeper.ShardDataset(f"{directory}/jpeg", transform=Pixels()),
                   "raw, decoded": deeper.ShardDataset(f"{directory}/raw", transform=Pixels()),
                   "ImageFolder, cropped": ImageFolder(args.images, CROP),
                   "jpeg, cropped": deeper.ShardDataset(f"{directory}/jpeg", transform=CROP),
                   "raw, cropped": deeper.ShardDataset(f"{directory}/raw", transform=CropOfPixels())}
        rates = {name: [] for name in loaders}
        for number in range(args.rounds):
            for name, dataset in loaders.items():
                rates[name].append(rate(dataset, args.workers, args.epochs))
            print(number, {name: round(values[-1]) for name, values in rates.items()}, flush=True)
    result = {"workers": args.workers, "images": len(loaders["jpeg, decoded"]), "torchvision": sys.modules["torchvision"].__version__,
              "pillow": PIL.__version__}
    for name, values in rates.items():
        peer = rates["ImageFolder, " + name.split(", ")[1]]
        ratios = sorted(value / other for value, other in zip(values, peer))
        result[name] = {"images_per_second": round(statistics.median(values)), "over_image_folder": [round(each, 2) for each in (
            statistics.median(ratios), ratios[0], ratios[-1])]}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
