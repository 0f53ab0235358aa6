#!/usr/bin/env python3
"""How far the model of scaling is right where it was not calibrated: other batches, and two hosts whose cable has several speeds.

held_out.py DEEPER MPIRUN [--rates=none,1gbit,...] [--rounds=N] [--steps=N] [--batch=N,N...] [-- FLAGS OF TRAIN, for another model...]

Each speed is one `bench scaling` on one host and on both: it calibrates computing on one rank with the first batch, the link on `bench comm`,
and predicts the rest.
"""
import argparse
import json
import subprocess
import sys

import hosts

MODEL = ["--synthetic", "--model=googlenet", "--stem=small", "--image_size=32", "--num_classes=10", "--threads=1"]


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("deeper")
    parser.add_argument("mpirun")
    parser.add_argument("--rates", default="none,400mbit,100mbit")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--batch", default="16,8,32")
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options = parser.parse_args(sys.argv[1:end])
    if reason := hosts.obstacle():
        sys.exit(f"not run: {reason}")
    print(f"{'rate':10}{'ranks':>6}{'batch':>6}{'images/s':>10}{'predicted':>10}{'error':>8}")
    with hosts.Hosts() as network:
        launcher = " ".join(network.launch(options.mpirun, hosts.NAMES)[:-2])  # without -n
        for rate in options.rates.split(","):
            network.limit(None if rate == "none" else rate)
            study = subprocess.run([options.deeper, "bench", "scaling", "--ranks=1,2", "--kind=weak", f"--batch={options.batch}",
                                    f"--rounds={options.rounds}", f"--steps={options.steps}", f"--mpirun={launcher}", "--",
                                    *(sys.argv[end + 1:] or MODEL)], stdout=subprocess.PIPE, text=True)
            if study.returncode != 0:
                sys.exit(study.returncode)
            for point in json.loads(study.stdout)["points"][1:]:
                measured, predicted = point["images_per_second"]["median"], point["predicted_images_per_second"]
                print(f"{rate:10}{point['ranks']:6}{point['global_batch'] // point['ranks']:6}{measured:10.1f}{predicted:10.1f}"
                      f"{100 * (predicted / measured - 1):7.1f}%", flush=True)


if __name__ == "__main__":
    main()
