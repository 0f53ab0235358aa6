#!/usr/bin/env python3
"""Fine-tuning against training from random weights, at equal steps, on a small folder of photographs.

    fine_tuning.py DEEPER WORK [--seeds=3 --photographs=50 --pretrain_steps=300 --threads=0 --images=DIR]

The photographs are those of articles of clothing in Fashion-MNIST (Debian: dataset-fashion-mnist), 28 x 28, grey. GoogLeNet first learns five
of its classes from 30,000 images. Then it learns the other five from a folder of 250, with recipes/fine-tune.flags: from these weights,
the same with the whole trunk frozen, and from random weights with the better of two learning rates. Prints JSON; WORK keeps what was packed.
"""
import argparse
import gzip
import json
import pathlib
import re
import statistics
import subprocess

import numpy
import PIL.Image

RECIPES = pathlib.Path(__file__).resolve().parents[2] / "recipes"
FASHION = pathlib.Path("/usr/share/datasets/fashion-mnist")
CLASSES = "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"
# Each half has tops and others.
KNOWN, NEW = ("t-shirt", "trouser", "pullover", "sneaker", "bag"), ("dress", "coat", "sandal", "shirt", "boot")
VALIDATION = 200  # photographs per class
MODEL = ["--model=googlenet", "--image_size=28"]


def write_folder(images, folder, split, classes, count):
    stem = "train" if split == "train" else "t10k"
    pixels = numpy.frombuffer(gzip.decompress((images / f"{stem}-images-idx3-ubyte.gz").read_bytes())[16:], numpy.uint8).reshape(-1, 28, 28)
    labels = numpy.frombuffer(gzip.decompress((images / f"{stem}-labels-idx1-ubyte.gz").read_bytes())[8:], numpy.uint8)
    for name in classes:
        (folder / split / name).mkdir(parents=True)
        for number in numpy.flatnonzero(labels == CLASSES.index(name))[:count]:
            PIL.Image.fromarray(pixels[number]).save(folder / split / name / f"{number}.png")


class Study:
    def __init__(self, options):
        self.deeper, self.work, self.options = options.deeper, options.work, options

    def run(self, *arguments):
        done = subprocess.run([self.deeper, *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=True)
        return done.stdout

    def pack(self, name, classes, count):
        folder, data = self.work / name, self.work / f"{name}-packed"
        for split in "train", "val":
            if not (folder / split).exists():
                write_folder(self.options.images, folder, split, classes, count if split == "train" else VALIDATION)
            self.run("pack", "--format=folder", f"--input={folder}/{split}", f"--output={data}", f"--split={split}")
        return data

    def train(self, name, data, *flags):
        """-> top-1 over the validation split at the end"""
        run = self.work / name
        self.run("train", f"--data={data}", *flags, *MODEL, f"--checkpoint_dir={run}", "--val_split=none", "--keep=1",
                 f"--threads={self.options.threads}")
        return float(re.search(r"top-1 (\S+) %", self.run("eval", f"--checkpoint={run}", f"--data={data}"))[1])

    def results(self):
        known, new = self.pack("known", KNOWN, None), self.pack("new", NEW, self.options.photographs)
        pretrained = self.train("pretrained", known, f"--flagfile={RECIPES}/fashion-mnist-plain.flags", f"--max_steps={self.options.pretrain_steps}",
                                "--checkpoint_every=0")
        print(f"known classes: top-1 {pretrained} %", flush=True)
        recipe, weights = f"--flagfile={RECIPES}/fine-tune.flags", f"--init_from={self.work}/pretrained"
        # What training says that it should normalise with: the weights' own values.
        manifest = json.loads((known / "manifest.json").read_text())["splits"]["train"]
        same = [f"--{key}={','.join(map(str, manifest[key]))}" for key in ("mean", "std")]
        ways = {"fine-tuned": [weights, *same], "fine-tuned, trunk frozen": [weights, *same, "--freeze=conv*,inception*"]}
        ways |= {f"from random weights, rate {rate}": [f"--lr={rate}", "--lr_scale="] for rate in (0.003, 0.01)}
        found = {}
        for way, flags in ways.items():
            name = re.sub(r"\W+", "-", way)
            found[way] = [self.train(f"{name}-{seed}", new, recipe, *flags, f"--seed={seed}") for seed in range(1, self.options.seeds + 1)]
            print(way, found[way], flush=True)
        return {way: {"top1": values, "median": statistics.median(values)} for way, values in found.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("deeper")
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--photographs", type=int, default=50)
    parser.add_argument("--pretrain_steps", type=int, default=300)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--images", type=pathlib.Path, default=FASHION, help="directory of the four files of Fashion-MNIST")
    print(json.dumps(Study(parser.parse_args()).results(), indent=2))


if __name__ == "__main__":
    main()
