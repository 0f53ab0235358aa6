#!/usr/bin/env python3
"""--deterministic=elastic gives the same bits for every number of ranks. Trains a GoogLeNet with auxiliary heads, dropout and augmentation
on 1, 2 and 4 ranks, and on 4, then 2, then 1 ranks, resuming from checkpoints, with sharded and unsharded momentum. Then the same with LARS,
averages of weights, factors on rates, blurred pools, TrivialAugment and alternating flips.

elastic_test.py DEEPER MPIRUN [--steps=30] [--data=DIR]     DIR: packed by `deeper pack`; the default is generated images of 28 x 28 px
"""
import argparse
import hashlib
import json
import pathlib
import struct
import subprocess
import tempfile

import h5py
import numpy

CHECKPOINT = 4  # exit code


def pack_fashion_like(deeper, directory, samples):
    """Grey images of 28 x 28: class k has a bright band k on noise."""
    rng = numpy.random.default_rng(1)
    for name, split, count in ("train", "train", samples), ("t10k", "val", 32):
        labels = rng.integers(0, 10, count, dtype=numpy.uint8)
        images = rng.integers(0, 80, (count, 28, 28), dtype=numpy.uint8)
        for image, label in zip(images, labels):
            image[2 * label + 4:2 * label + 7, :] += 150
        (directory / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, *images.shape) + images.tobytes())
        (directory / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, count) + labels.tobytes())
        subprocess.run([deeper, "pack", "--format=idx", f"--input={directory}", f"--output={directory}/packed", f"--split={split}"],
                       check=True, capture_output=True)
    return directory / "packed"


class Trial:
    def __init__(self, options, directory):
        self.directory = directory
        self.mpirun = [options.mpirun, "--oversubscribe", "--bind-to", "none", "--allow-run-as-root"]
        # 3 batches per epoch. The last one is incomplete, and some of its slices are empty.
        data = options.data or pack_fashion_like(options.deeper, directory, 39)
        self.train = [options.deeper, "train", f"--data={data}", "--model=googlenet", "--stem=small", "--image_size=28",
                      "--augment=inception", "--global_batch=16", "--weight_decay=1e-4", "--lr=0.003", "--threads=1", "--log_every=1"]

    def run(self, name, ranks, *flags):
        command = [*self.mpirun, "-n", str(ranks), *self.train, f"--checkpoint_dir={self.directory}/{name}",
                   f"--metrics_out={self.directory}/{name}.metrics", *flags]
        return subprocess.run(command, capture_output=True, text=True)

    def fingerprint(self, name, steps, mode, ranks):
        """Trains on these numbers of ranks in turn; each run resumes the previous one. Returns digests of the state and of all losses."""
        for turn, size in enumerate(ranks, start=1):
            result = self.run(name, size, f"--max_steps={steps * turn // len(ranks)}", "--eval_every=1000000", *mode)
            assert result.returncode == 0, result.stdout + result.stderr
        step = sorted((self.directory / name).glob("step-*"))[-1]
        state = numpy.concatenate([h5py.File(shard)["state"][:] for shard in sorted(step.glob("shard-*.h5"))])
        events = map(json.loads, (self.directory / f"{name}.metrics").read_text().splitlines())
        losses = {event["step"]: [event[key] for key in sorted(event) if key.startswith("loss")]
                  for event in events if event["event"] == "step"}
        assert list(losses) == list(range(1, steps + 1)), list(losses)
        digest = [hashlib.sha256(state.tobytes()).hexdigest(), hashlib.sha256(json.dumps(losses).encode()).hexdigest()]
        print(f"{name}: step {steps}, {state.size} elements, sha256 of state {digest[0][:16]}, of losses {digest[1][:16]}, "
              f"last loss {losses[steps][0]:.6f}", flush=True)
        return digest


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("deeper")
    parser.add_argument("mpirun")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--data")
    options = parser.parse_args()
    elastic = ["--deterministic=elastic", "--elastic_slices=8"]
    with tempfile.TemporaryDirectory() as directory:
        trial = Trial(options, pathlib.Path(directory))
        runs = {name: trial.fingerprint(name, options.steps, elastic, ranks)
                for name, ranks in {"1": [1], "2": [2], "4": [4], "4-2-1": [4, 2, 1]}.items()}
        runs["sharded-4-2-1"] = trial.fingerprint("sharded-4-2-1", options.steps, [*elastic, "--shard_optimizer"], [4, 2, 1])
        assert len({tuple(digest) for digest in runs.values()}) == 1, "elastic runs differ"
        # Shows that the comparison can fail: without elastic mode, the number of ranks changes the result.
        plain = [trial.fingerprint(f"plain-{ranks}", options.steps, ["--deterministic=true"], [ranks]) for ranks in (1, 4)]
        assert plain[0][0] != plain[1][0] and plain[0][0] != runs["1"][0], "the results do not depend on the number of ranks"
        recipe = [*elastic, "--optimizer=lars", "--lr=2", "--ema_decay=0.9", "--lr_scale=*.bias:2", "--blur_pool", "--label_smoothing=0.1",
                  "--augment=flip", "--flip=alternate", "--trivial_augment", "--random_erasing=0.5"]
        steps = 2 * options.steps  # two epochs of 3 steps, and resumes in the middle of both
        whole = trial.fingerprint("recipe-1", steps, recipe, [1])
        assert whole == trial.fingerprint("recipe-4-2-1", steps, [*recipe, "--shard_optimizer"], [4, 2, 1]), "recipes differ"
        # A run resumes only with the number of slices that it started with.
        other = trial.run("1", 1, f"--max_steps={options.steps + 1}", "--deterministic=elastic", "--elastic_slices=4")
        assert other.returncode == CHECKPOINT and "elastic was" in other.stderr, other.stderr


if __name__ == "__main__":
    main()
