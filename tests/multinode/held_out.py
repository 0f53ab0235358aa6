#!/usr/bin/env python3
"""Measures the error of the scaling model on points without calibration: other batches, other numbers of ranks, and several cable speeds.

held_out.py DEEPER MPIRUN [--rates=1gbit,...] [--ranks=2,3,4] [--repeats=N] [--steps=N] [--batch=N,N...] [-- FLAGS OF TRAIN, for another model...]

Ranks are divided over two hosts. Each repeat runs `bench scaling` on one rank and on two with a cable at full speed. It calibrates computing on
the smallest and the largest batch. One more run for each other speed and number of ranks uses that calibration; the model then knows this cable
and these ranks only from `bench comm`. The script prints medians over the repeats of the images/s and of the errors, so drift of the machine's
speed between repeats has little effect. A study during which the machine paused for --pause=SECONDS (1) is done again. With --most_busy=SHARE,
studies begin when others take at most this share of the cores.
"""
import argparse
import collections
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

import hosts
from undisturbed import undisturbed

MODEL = ["--synthetic", "--model=googlenet", "--stem=small", "--image_size=32", "--num_classes=10", "--threads=1"]


def study(options, network, ranks, *flags):
    """Returns the JSON of `bench scaling`. `ranks`: numbers of ranks; the last is the largest."""
    places = sorted(hosts.NAMES[rank % 2] for rank in range(ranks[-1]))
    launcher = " ".join(network.launch(options.mpirun, places, timeout=1800)[:-2])  # without -n

    def run():
        return subprocess.run([options.deeper, "bench", "scaling", f"--ranks={','.join(map(str, ranks))}", "--kind=weak",
                               f"--batch={options.batch}", "--rounds=2", f"--steps={options.steps}", f"--warmup={options.warmup}",
                               f"--mpirun={launcher}", "--predict=", *flags, "--", *options.flags], stdout=subprocess.PIPE, text=True)
    done = undisturbed(run, options.most_busy, options.pause)
    if done.returncode != 0:
        sys.exit(done.returncode)
    return done.stdout


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("deeper")
    parser.add_argument("mpirun")
    parser.add_argument("--rates", default="1gbit,400mbit")
    parser.add_argument("--ranks", default="2", type=lambda text: [int(word) for word in text.split(",")])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--most_busy", type=float, default=1)
    parser.add_argument("--pause", type=float, default=1)
    parser.add_argument("--batch", default="8,16,24,32")
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options = parser.parse_args(sys.argv[1:end])
    options.flags = sys.argv[end + 1:] or MODEL
    if reason := hosts.obstacle():
        sys.exit(f"not run: {reason}")
    points = collections.defaultdict(list)
    with hosts.Hosts() as network, tempfile.TemporaryDirectory() as directory:
        calibration = pathlib.Path(directory, "calibration.json")
        for _ in range(options.repeats):
            network.limit(None)
            calibration.write_text(study(options, network, [1, 2]))
            studies = [("none", json.loads(calibration.read_text()))]
            for rate in "none", *options.rates.split(","):
                network.limit(None if rate == "none" else rate)
                studies += [(rate, json.loads(study(options, network, [ranks], f"--calibration={calibration}")))
                            for ranks in options.ranks if (rate, ranks) != ("none", 2)]
            for rate, its_study in studies:
                for point in its_study["points"]:
                    points[rate, point["ranks"], point["global_batch"] // point["ranks"], point["held_out"]].append(point)
    print(f"{'cable':10}{'ranks':>6}{'batch':>6}{'images/s':>10}{'error':>8}  of each repeat")
    for (rate, ranks, batch, held_out), repeats in points.items():
        errors = [100 * point["error"] for point in repeats]
        measured = statistics.median(point["images_per_second"]["median"] for point in repeats)
        print(f"{rate:10}{ranks:6}{batch:6}{measured:10.1f}{statistics.median(errors):7.1f}%  {' '.join(f'{error:+.1f}' for error in errors)}"
              f"{'' if held_out else '  (calibrates)'}")
    worst = max(abs(statistics.median(point["error"] for point in repeats)) for (*_, held_out), repeats in points.items() if held_out)
    print(f"largest error of what was held out: {100 * worst:.1f} %")


if __name__ == "__main__":
    main()
