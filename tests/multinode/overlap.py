#!/usr/bin/env python3
"""Measures how much of the communication between two hosts backward hides, at several cable speeds.

overlap.py DEEPER MPIRUN [--rates=none,1gbit,...] [--steps=N] [--bucket_mib=N] [-- FLAGS OF TRAIN, for another model...]

Runs each speed twice: with buckets of gradients sent while backward runs, and with one bucket sent after it. Prints medians over the steps
of rank 0, in milliseconds: the time that a step waits for the network in both runs, and their difference, which backward hid.
"""
import argparse
import json
import pathlib
import statistics
import sys
import tempfile

import hosts

MODEL = ["--synthetic", "--synthetic_samples=2000", "--model=googlenet", "--stem=small", "--image_size=32", "--num_classes=10", "--threads=1",
         "--global_batch=32"]


def exposed(options, network, bucket_mib):
    """Returns the medians of (comm_exposed_ms, compute_ms)."""
    with tempfile.TemporaryDirectory() as directory:
        metrics = pathlib.Path(directory) / "metrics"
        flags = [*options.flags, f"--max_steps={options.steps + 1}", "--log_every=1", f"--bucket_mib={bucket_mib}",
                 "--eval_every=1000000", f"--metrics_out={metrics}"]
        with network.job(options.mpirun, hosts.NAMES, [options.deeper, "train", *flags], f"{directory}/output") as job:
            if job.process.wait() != 0:
                sys.exit(job.text())
        steps = [event for event in map(json.loads, metrics.read_text().splitlines()) if event["event"] == "step"][1:]  # the first is warm-up
        return [statistics.median(step[name] for step in steps) for name in ("comm_exposed_ms", "compute_ms")]


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("deeper")
    parser.add_argument("mpirun")
    parser.add_argument("--rates", default="none,1gbit,200mbit,50mbit")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--bucket_mib", type=float, default=8)
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options = parser.parse_args(sys.argv[1:end])
    options.flags = sys.argv[end + 1:] or MODEL
    if reason := hosts.obstacle():
        sys.exit(f"not run: {reason}")
    print(f"{'rate':10}{'compute':>10}{'exposed':>10}{'in one':>10}{'hidden':>10}")
    with hosts.Hosts() as network:
        for rate in options.rates.split(","):
            network.limit(None if rate == "none" else rate)
            overlapped, compute = exposed(options, network, options.bucket_mib)
            serial, _ = exposed(options, network, 1e6)
            print(f"{rate:10}{compute:10.1f}{overlapped:10.1f}{serial:10.1f}{serial - overlapped:10.1f}", flush=True)


if __name__ == "__main__":
    main()
