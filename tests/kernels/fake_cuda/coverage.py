#!/usr/bin/env python3
"""Which lines of the GPU path on the host's side the tests on the fakes execute.

    coverage.py BUILD

Compiles these files once more for gcov, links tests with them (the tree and the build stay as they are) and runs the tests. What a test
does in a process that aborts is not counted. Exit status 0: at least 85 % of the lines of each file. Needs the targets fake_cuda_tests,
fake_nccl_tests, kernels_tests, kernels_tests_on_fake_cuda and deeper_on_fake_cuda of the preset cuda-release.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys

from mutants import command_of, link_of

FILES = [
    "kernels/cuda/device_cuda.cpp",
    "kernels/cuda/plans/autotune.cpp",
    "kernels/cuda/plans/cublaslt.cpp",
    "kernels/cuda/plans/cudnn.cpp",
    "comm/nccl/nccl_communicator.cpp",
]
LEAST = 85  # per cent
ON_GPU = {"DEEPER_TEST_DEVICE": "cuda", "OMP_NUM_THREADS": "1", "DEEPER_FAKE_CUDA_SEEDS": "1"}
TRAIN = ["train", "--device=cuda", "--synthetic", "--synthetic_samples=8", "--num_classes=5", "--global_batch=4", "--max_steps=3"]
GOOGLENET = [*TRAIN, "--model=googlenet", "--stem=small", "--image_size=8", "--aux=false", "--precision=bf16"]
BENCH = ["bench", "step", "--device=cuda", "--model=nin-cifar", "--image_size=10", "--num_classes=5", "--batch=4", "--lr=0.1"]
RUNS = {  # target: runs of it, each with its arguments and what DEEPER_FAKE_CUDA is
    "fake_cuda_tests": [([], "")],
    "fake_nccl_tests": [(["--gtest_filter=-*SixtyFour*:*ManyInFlight*"], "")],
    "kernels_tests": [(["--gtest_filter=*CudaEngines*:*CudnnTarget*"], "")],
    "kernels_tests_on_fake_cuda": [(["--gtest_filter=*FusedInceptionOp*:*Linear*:CudnnOnGpu*"], "")],
    "deeper_on_fake_cuda": [
        ([*GOOGLENET, "--plan_cache=", "--own_kernels=sm80", "--cuda_graph=false"], "seed=1"),
        ([*GOOGLENET, "--plan_cache="], "seed=3 own=wrong"),
        ([*BENCH, "--plan_cache=", "--profile=step.json"], "seed=1"),
    ],
}


def compiled(build, directory, file):
    command = command_of(build, file)
    target = directory / (pathlib.Path(file).stem + ".o")
    command[command.index("-o") + 1] = str(target)
    subprocess.run([*command, "-O0", "--coverage", "-Wno-error"], check=True, cwd=build)
    return target


def executed(directory, target):
    """The counts of a file's lines, as gcov has them: {line: count}."""
    gcov = subprocess.run(["gcov", "--json-format", "--stdout", target.with_suffix(".gcda")], check=True, capture_output=True, cwd=directory)
    for file in json.loads(gcov.stdout)["files"]:
        if pathlib.Path(file["file"]).name == target.stem + ".cpp":
            counts = {}
            for line in file["lines"]:
                counts[line["line_number"]] = counts.get(line["line_number"], 0) + line["count"]
            return counts
    return {}


def main():
    build = pathlib.Path(sys.argv[1]).resolve()
    directory = build / "coverage"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    objects = {file: compiled(build, directory, file) for file in FILES}
    for target, runs in RUNS.items():
        link = link_of(build, target)
        own = [str(o) for file, o in objects.items() if file != "comm/nccl/nccl_communicator.cpp" or target != "kernels_tests"]
        link = link.replace(f" -o tests/{target} ", f" {' '.join(own)} --coverage -o {directory / target} ", 1)
        subprocess.run(link, check=True, cwd=build, shell=True)
        for arguments, script in runs:
            environment = {**os.environ, **ON_GPU, "DEEPER_FAKE_CUDA": script}
            if target == "kernels_tests":
                del environment["DEEPER_TEST_DEVICE"]
            done = subprocess.run([directory / target, *arguments], env=environment, cwd=directory, capture_output=True, text=True, timeout=900)
            print(f"{target} {' '.join(arguments)[:60]} {script}: exit status {done.returncode}", flush=True)
    missed = 0
    for file, target in objects.items():
        counts = executed(directory, target)
        covered = sum(count > 0 for count in counts.values())
        share = 100 * covered / max(1, len(counts))
        missed += share < LEAST
        left = [str(line) for line, count in sorted(counts.items()) if count == 0]
        print(f"{file}: {share:.1f} % of {len(counts)} lines; not executed: {', '.join(left)}")
    return missed > 0


if __name__ == "__main__":
    sys.exit(main())
