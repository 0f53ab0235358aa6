#!/usr/bin/env python3
"""Compares a training step of googlenet in deeper and in PyTorch, in turn on the same cores.

  tests/benchmarks/step_vs_pytorch.py --deeper build/cpu-release/launch/deeper [--batch 32] [--precision fp32,bf16] [--repeats 5]

PyTorch runs in both memory formats, with --compile=none,default also compiled, and with --ipex_python in Intel's extension. The ratio
uses the fastest of them. Runs alternate, so that drift of the machine's speed affects all equally. Ratios are within a round: median,
minimum, maximum. --base=DEEPER runs another build of deeper in turn, too. JSON on the last line.
"""
import argparse
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

PEER = Path(__file__).with_name("pytorch_googlenet.py")


def run_deeper(args, binary, precision):
    out = subprocess.run([binary, "bench", "step", "--model=googlenet", "--num_classes=1000", "--image_size=224",
                          f"--batch={args.batch}", f"--precision={precision}", "--warmup=2", f"--repeats={args.steps}"],
                         check=True, stdout=subprocess.PIPE, text=True).stdout
    result = json.loads(out)
    return result["images_per_second"], result["peak_rss_bytes"] / 2**30


def run_pytorch(args, precision, python, mode, *flags):
    command = [python, str(PEER), "--device=cpu", f"--batch={args.batch}", f"--compile={mode}", "--model=seed",
               f"--amp={'bf16' if precision == 'bf16' else 'none'}", f"--steps={args.steps}", "--warmup=1", "--repeats=1", *flags]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    fields = dict(re.findall(r"(\w+)=(\S+)", out))
    if "median_img_s" not in fields:
        raise SystemExit(f"failed: {' '.join(command)}: {out}")
    return float(fields["median_img_s"]), float(fields["peak_GiB"])


def summary(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def contenders_of(args, precision):
    contenders = {"deeper": lambda: run_deeper(args, args.deeper, precision)}
    if args.base:
        contenders["base"] = lambda: run_deeper(args, args.base, precision)
    for mode in args.compile.split(","):
        compiled = "" if mode == "none" else f", compile {mode}"
        for layout, flags in ("default", ["--nchw"]), ("channels_last", []):
            contenders[f"pytorch {layout}{compiled}"] = lambda mode=mode, flags=flags: run_pytorch(args, precision, args.python, mode, *flags)
    if args.ipex_python:
        contenders["pytorch with IPEX"] = lambda: run_pytorch(args, precision, args.ipex_python, "none", "--ipex", "--opt=plain")
    return contenders


def compare(args, precision):
    contenders = contenders_of(args, precision)
    rates = {name: [] for name in contenders}
    memory = dict.fromkeys(contenders, 0.0)
    for round_number in range(args.repeats):
        for name, run in contenders.items():
            rate, gib = run()
            rates[name].append(rate)
            memory[name] = max(memory[name], gib)
            print(f"{precision} round {round_number + 1}: {name:<38} {rate:6.2f} images/s, peak {gib:.2f} GiB", file=sys.stderr)
    best = [max(peers) for peers in zip(*(values for name, values in rates.items() if name.startswith("pytorch")), strict=True)]
    ratios = {"ratio_to_best_pytorch": summary([mine / peer for mine, peer in zip(rates["deeper"], best, strict=True)])}
    if args.base:
        ratios["ratio_to_base"] = summary([mine / base for mine, base in zip(rates["deeper"], rates["base"], strict=True)])
    for name, ratio in ratios.items():
        print("{}: {}: {median:.2f} ({min:.2f} to {max:.2f})".format(precision, name, **ratio), file=sys.stderr)
    return {"images_per_second": {name: summary(values) for name, values in rates.items()}, "peak_gib": memory, **ratios}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deeper", required=True)
    parser.add_argument("--python", default="/usr/bin/python3", help="Python interpreter with torch")
    parser.add_argument("--compile", default="none", help="modes of torch.compile, separated by commas; none: eager")
    parser.add_argument("--ipex_python", help="Python interpreter with torch and intel_extension_for_pytorch")
    parser.add_argument("--base", help="another build of deeper")
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
