#!/usr/bin/env python3
"""Compares a training step of googlenet in deeper and in PyTorch, in turn on the same cores.

  tests/benchmarks/step_vs_pytorch.py --deeper build/cpu-release/launch/deeper [--batch 32] [--precision fp32,bf16] [--repeats 5]

PyTorch runs in both memory formats, and the ratio uses the faster one. Runs alternate, so that drift of the machine's speed affects
both equally. Ratios are per pair within a round: median, minimum, maximum. JSON on the last line.
"""
import argparse
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

PEER = Path(__file__).with_name("pytorch_googlenet.py")


def run_deeper(args, precision):
    out = subprocess.run([args.deeper, "bench", "step", "--model=googlenet", "--num_classes=1000", "--image_size=224",
                          f"--batch={args.batch}", f"--precision={precision}", "--warmup=2", f"--repeats={args.steps}"],
                         check=True, stdout=subprocess.PIPE, text=True).stdout
    result = json.loads(out)
    return result["images_per_second"], result["peak_rss_bytes"] / 2**30


def run_pytorch(args, precision, channels_last):
    command = [args.python, str(PEER), "--device=cpu", f"--batch={args.batch}", "--compile=none", "--model=seed",
               f"--amp={'bf16' if precision == 'bf16' else 'none'}", f"--steps={args.steps}", "--warmup=1", "--repeats=1"]
    out = subprocess.run(command + ([] if channels_last else ["--nchw"]), check=True, stdout=subprocess.PIPE, text=True).stdout
    fields = dict(re.findall(r"(\w+)=(\S+)", out))
    return float(fields["median_img_s"]), float(fields["peak_GiB"])


def summary(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def compare(args, precision):
    contenders = {"deeper": lambda: run_deeper(args, precision),
                  "pytorch default": lambda: run_pytorch(args, precision, False),
                  "pytorch channels_last": lambda: run_pytorch(args, precision, True)}
    rates = {name: [] for name in contenders}
    memory = dict.fromkeys(contenders, 0.0)
    for round_number in range(args.repeats):
        for name, run in contenders.items():
            rate, gib = run()
            rates[name].append(rate)
            memory[name] = max(memory[name], gib)
            print(f"{precision} round {round_number + 1}: {name:<22} {rate:6.2f} images/s, peak {gib:.2f} GiB", file=sys.stderr)
    best = [max(pair) for pair in zip(rates["pytorch default"], rates["pytorch channels_last"])]
    ratio = summary([mine / peer for mine, peer in zip(rates["deeper"], best)])
    print(f"{precision}: {ratio['median']:.2f} times PyTorch's faster format ({ratio['min']:.2f} to {ratio['max']:.2f})", file=sys.stderr)
    return {"images_per_second": {name: summary(values) for name, values in rates.items()}, "peak_gib": memory,
            "ratio_to_best_pytorch": ratio}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deeper", required=True)
    parser.add_argument("--python", default="/usr/bin/python3", help="Python interpreter with torch")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--precision", default="fp32,bf16")
    parser.add_argument("--steps", type=int, default=3, help="timed steps per run")
    parser.add_argument("--repeats", type=int, default=5, help="number of rounds")
    args = parser.parse_args()
    cpu = next(line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
    print(json.dumps({"cpu": cpu, "batch": args.batch, "steps": args.steps, "rounds": args.repeats,
                      **{precision: compare(args, precision) for precision in args.precision.split(",")}}))


if __name__ == "__main__":
    main()
