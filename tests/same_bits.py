#!/usr/bin/env python3
"""Prints fingerprints of a build's results: packed shards, and the training state of every model after some steps.

    same_bits.py DEEPER [--against=OTHER_DEEPER] [--mpirun=mpirun] [--steps=20] [--only=REGEX]

A change that only moves code must not change any bit. Run this with the builds before and after the change, on the same
machine. The bits depend on the processor and the version of oneDNN, so the script stores no values. With --against, it runs
both builds and lists the differences. A checkpoint of the other build, written half-way, must also resume to the same bits.
"""
import argparse
import hashlib
import pathlib
import re
import subprocess
import sys
import tempfile

IMAGE_SIZES = {"googlenet": 64, "googlenet-naive": 64, "googlenet-bn": 64, "googlenet-torchvision": 64, "nin": 67, "nin-cifar": 28,
               "alexnet": 63, "vgg16": 32}
SMALL_STEM = {"googlenet"}
# Covers every random draw, and rarely used terms of the optimizer.
TRAINING = ["--synthetic", "--synthetic_samples=56", "--num_classes=10", "--global_batch=8", "--lr=0.003", "--weight_decay=1e-4",
            "--optimizer=nesterov", "--lr_schedule=cosine", "--augment=inception", "--random_erasing=0.2", "--mixup=0.2", "--cutmix=0.5",
            "--label_smoothing=0.1", "--deterministic=true", "--seed=3", "--log_every=1", "--threads=1", "--eval_every=7"]
SYNTHETIC_IMAGENET = pathlib.Path(__file__).parent / "data" / "sources" / "synthetic_imagenet.py"


def run(command):
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if result.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}\nended with {result.returncode}:\n{result.stdout}{result.stderr}")


def digest(paths):
    hashed = hashlib.sha256()
    for path in paths:
        hashed.update(path.name.encode() + b"\0" + path.read_bytes())
    return hashed.hexdigest()[:16]


def final_state(directory):
    """Digest of the newest checkpoint's shards: weights, optimizer state and statistics."""
    return digest(sorted(max(directory.glob("step-*")).glob("shard-*.h5")))


class Build:
    def __init__(self, deeper, options, directory):
        self.deeper, self.options, self.directory = deeper, options, directory
        directory.mkdir()

    def train_command(self, model, precision, ranks, directory):
        stem = ["--stem=small"] if model in SMALL_STEM else []
        return [self.options.mpirun, "--oversubscribe", "--bind-to", "none", "--allow-run-as-root", "-n", ranks, self.deeper, "train",
                f"--model={model}", *stem, f"--image_size={IMAGE_SIZES[model]}", f"--precision={precision}", *TRAINING,
                f"--max_steps={self.options.steps}", f"--checkpoint_every={self.options.steps // 2}", f"--checkpoint_dir={directory}"]

    def train(self, model, precision, ranks):
        directory = self.directory / f"{model}-{precision}-{ranks}"
        run(self.train_command(model, precision, ranks, directory))
        return final_state(directory)

    def resume(self, model, precision, ranks, other):
        """Resumes from the checkpoint that `other` wrote half-way."""
        name = f"{model}-{precision}-{ranks}"
        half = f"step-{self.options.steps // 2:09d}"
        directory = self.directory / f"{name}-resumed"
        directory.mkdir()
        (directory / half).symlink_to(other.directory / name / half)
        run(self.train_command(model, precision, ranks, directory))
        return final_state(directory)

    def pack(self, downloads, split, *flags):
        output = self.directory / f"packed-{split}"
        run([self.deeper, "pack", "--format=imagenet", f"--input={downloads}", f"--output={output}", f"--split={split}",
             "--allow_bad=100", *flags])
        return digest(sorted(output.iterdir()))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("deeper", type=pathlib.Path)
    parser.add_argument("--against", type=pathlib.Path)
    parser.add_argument("--mpirun", default="mpirun")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    differences = 0
    with tempfile.TemporaryDirectory() as temporary:
        scratch = pathlib.Path(temporary)
        build = Build(options.deeper.resolve(), options, scratch / "build")
        other = Build(options.against.resolve(), options, scratch / "other") if options.against else None

        def compare(name, take, take_resumed=None):
            nonlocal differences
            if not re.search(options.only, name):
                return
            values = [take(build)]
            if other:
                values.append(take(other))
                if take_resumed:
                    values.append(take_resumed())
            differences += len(set(values)) > 1
            print(f"{name:32s} {' '.join(values)}{'' if len(set(values)) == 1 else '  DIFFERENT'}", flush=True)

        downloads = scratch / "downloads"
        run([sys.executable, SYNTHETIC_IMAGENET, downloads, "--classes=24", "--train_per_class=2", "--val=24"])
        compare("pack train, JPEG", lambda b: b.pack(downloads, "train", "--encoding=jpeg"))
        compare("pack val, raw, resized", lambda b: b.pack(downloads, "val", "--encoding=raw", "--resize=64"))
        for model in IMAGE_SIZES:
            for precision in ("fp32", "bf16"):
                for ranks in (1, 2):
                    run_of = (model, precision, ranks)
                    compare(f"{model} {precision} {ranks} rank{'s' if ranks > 1 else ''}", lambda b, run_of=run_of: b.train(*run_of),
                            lambda run_of=run_of: build.resume(*run_of, other))
    if other:
        print("all the same" if differences == 0 else f"{differences} DIFFERENT")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
