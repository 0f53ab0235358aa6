#!/usr/bin/env python3
"""Measures the share of the all-reduce that is not hidden by backward: comm_exposed_ms of a training run on 2 ranks of one core each, divided by
the time of an all-reduce of the same size, measured before and after the run. JSON on standard output.

overlap.py --deeper=BINARY [--steps=40] [--bucket_mib=0]
"""
import argparse
import json
import statistics
import subprocess
import tempfile

MODEL = ["--model=googlenet", "--stem=small", "--image_size=64", "--num_classes=1000"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--deeper", required=True)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--bucket_mib", type=float, default=0)
    options = parser.parse_args()
    mpirun = ["mpirun", "-n", "2", "--bind-to", "core", "--allow-run-as-root", options.deeper]

    def run(*arguments):
        return subprocess.run([*mpirun, *arguments], check=True, capture_output=True, text=True).stdout

    table = json.loads(subprocess.run([options.deeper, "describe", *MODEL, "--json"], check=True, capture_output=True, text=True).stdout)
    bytes_ = 4 * table["total"]["parameters"]

    def all_reduce_ms():
        report = json.loads(run("bench", "comm", f"--min_bytes={bytes_}", f"--max_bytes={bytes_}"))
        return next(result["ms"] for result in report["results"] if result["collective"] == "all_reduce")

    before = all_reduce_ms()
    with tempfile.NamedTemporaryFile() as metrics:
        run("train", "--synthetic", "--synthetic_samples=256", *MODEL, "--threads=1", "--global_batch=16", f"--max_steps={options.steps}",
            f"--bucket_mib={options.bucket_mib}", "--log_every=1", "--eval_every=1000000", f"--metrics_out={metrics.name}")
        steps = [event for event in map(json.loads, open(metrics.name)) if event["event"] == "step"][options.steps // 2:]
    alone = statistics.median([before, all_reduce_ms()])
    exposed = statistics.median(step["comm_exposed_ms"] for step in steps)
    print(json.dumps({"bytes": bytes_, "all_reduce_ms": alone, "comm_exposed_ms": exposed, "exposed_share": exposed / alone,
                      "compute_ms": statistics.median(step["compute_ms"] for step in steps),
                      "peer_wait_ms": statistics.median(step["peer_wait_ms"] for step in steps), "steps": len(steps)}, indent=2))


if __name__ == "__main__":
    main()
