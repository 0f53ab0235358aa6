#!/usr/bin/env python3
"""Compares inference of googlenet in deeper, ONNX Runtime and PyTorch, in turn on the same cores.

  tests/benchmarks/inference_vs_peers.py --deeper build/cpu-release/launch/deeper [--batch 1,8,64] [--rounds 5] [--python PYTHON]

deeper runs `eval` on synthetic images that its loader makes meanwhile; the others run one batch in memory again and again: ONNX Runtime
the network that `deeper export` wrote, PyTorch the same network in inference_mode in both memory formats. Ratios are per round, of
deeper's best batch over the best batch and format of the others: median, minimum, maximum. JSON on the last line. PYTHON has torch,
numpy and onnxruntime; PyTorch runs in fp32 and, with autocast, in bf16; ONNX Runtime in fp32 only.
"""

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PIXELS = 224
SECONDS = 3  # of each measurement of a peer


def timed(run, batch):
    """Images per second, after a first run that prepares."""
    run()
    began, runs = time.perf_counter(), 0
    while time.perf_counter() - began < SECONDS or runs < 3:
        run()
        runs += 1
    print(runs * batch / (time.perf_counter() - began), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


def run_onnxruntime(model, batch, _precision):
    import numpy
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    images = numpy.random.default_rng(0).random((batch, 3, PIXELS, PIXELS), numpy.float32)
    timed(lambda: session.run(None, {"images": images}), batch)


def run_pytorch(memory_format, batch, precision):
    import torch

    sys.path.insert(0, str(Path(__file__).parent))
    from pytorch_googlenet import SeedGoogLeNet

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    memory_format = getattr(torch, memory_format)
    net = SeedGoogLeNet(1000, aux=False).eval().to(memory_format=memory_format)
    images = torch.rand(batch, 3, PIXELS, PIXELS).to(memory_format=memory_format)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        timed(lambda: net(images), batch)


def run_deeper(deeper, checkpoint, batch, precision, samples):
    # One in ten synthetic images is of the split val.
    command = [deeper, "eval", f"--checkpoint={checkpoint}", "--synthetic", f"--synthetic_samples={10 * samples}", f"--batch={batch}",
               f"--precision={precision}"]
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        output.seek(0)
        text = output.read().decode()
    rate = re.search(r"; ([0-9.]+) images/s", text)
    if status != 0 or rate is None:
        raise SystemExit(f"failed: {' '.join(command)}: {text}")
    return float(rate.group(1)), usage.ru_maxrss / 2**20


def peer(args, *words):
    command = [args.python, __file__, "--child", *map(str, words)]
    rate, gib = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    return float(rate), float(gib)


def summary(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def compare(args, precision, checkpoint, model):
    contenders = {}
    for batch in args.batch:
        contenders["deeper", batch] = lambda batch=batch: run_deeper(args.deeper, checkpoint, batch, precision, args.samples)
        if precision == "fp32":
            contenders["onnxruntime", batch] = lambda batch=batch: peer(args, "onnxruntime", model, batch, precision)
        for layout in "contiguous_format", "channels_last":
            contenders[f"pytorch {layout}", batch] = lambda batch=batch, layout=layout: peer(args, "pytorch", layout, batch, precision)
    rates = {contender: [] for contender in contenders}
    memory = dict.fromkeys(contenders, 0.0)
    for number in range(args.rounds):
        for (name, batch), run in contenders.items():
            rate, gib = run()
            rates[name, batch].append(rate)
            memory[name, batch] = max(memory[name, batch], gib)
            print(f"{precision} round {number + 1}: {name:<26} batch {batch:<3} {rate:7.2f} images/s, peak {gib:.2f} GiB", file=sys.stderr)
    ratios = {}
    for program in "onnxruntime", "pytorch":
        rounds = []
        for number in range(args.rounds):
            best = {who: max((values[number] for (name, _), values in rates.items() if name.startswith(who)), default=None)
                    for who in ("deeper", program)}
            if best[program] is not None:
                rounds.append(best["deeper"] / best[program])
        if rounds:
            ratios[program] = summary(rounds)
            print("{}: {median:.2f} times {} ({min:.2f} to {max:.2f})".format(precision, program, **ratios[program]), file=sys.stderr)
    return {"ratios": ratios, "images_per_second": {f"{name}, batch {batch}": {**summary(values), "peak_gib": memory[name, batch]}
                                                    for (name, batch), values in rates.items()}}


def main():
    if sys.argv[1:2] == ["--child"]:
        kind, what, batch, precision = sys.argv[2:]
        {"onnxruntime": run_onnxruntime, "pytorch": run_pytorch}[kind](what, int(batch), precision)
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deeper", required=True)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--batch", default="1,8,64")
    parser.add_argument("--precision", default="fp32,bf16")
    parser.add_argument("--samples", type=int, default=512, help="images that deeper evaluates")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    args.batch = [int(batch) for batch in args.batch.split(",")]
    with tempfile.TemporaryDirectory() as directory:
        checkpoint, model = f"{directory}/run", f"{directory}/googlenet.onnx"
        subprocess.run([args.deeper, "train", "--synthetic", "--synthetic_samples=16", "--model=googlenet", "--num_classes=1000",
                        "--global_batch=8", "--max_steps=1", f"--checkpoint_dir={checkpoint}"], check=True, stdout=subprocess.DEVNULL)
        subprocess.run([args.deeper, "export", f"--checkpoint={checkpoint}", "--format=onnx", f"--output={model}"], check=True,
                       stdout=subprocess.DEVNULL)
        print(json.dumps({precision: compare(args, precision, checkpoint, model) for precision in args.precision.split(",")}))


if __name__ == "__main__":
    main()
