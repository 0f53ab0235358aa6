#!/usr/bin/env python3
"""Which lines of the GPU path on the host's side the tests on the fakes execute.

    coverage.py BUILD

Compiles these files once more for gcov, links tests with them (the tree and the build stay as they are) and runs the tests. What a test
does in a process that aborts is not counted. Exit status 0: at least 85 % of the lines of each file. Needs the targets fake_cuda_tests,
fake_nccl_tests and kernels_tests of the preset cuda-release.
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
QUICKLY = {"OMP_NUM_THREADS": "1", "DEEPER_FAKE_CUDA_SEEDS": "2"}
RUNS = {  # target: a filter of its tests
    "fake_cuda_tests": "*",
    "fake_nccl_tests": "-*SixtyFour*:*ManyInFlight*",  # which take minutes
    "kernels_tests": "*CudaEngines*:*CudnnTarget*",
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
    for target, tests in RUNS.items():
        link = link_of(build, target)
        own = [str(o) for file, o in objects.items() if not file.startswith("comm/") or target != "kernels_tests"]
        link = link.replace(f" -o tests/{target} ", f" {' '.join(own)} --coverage -o {directory / target} ", 1)
        subprocess.run(link, check=True, cwd=build, shell=True)
        command, environment = [directory / target, f"--gtest_filter={tests}"], {**os.environ, **QUICKLY}
        done = subprocess.run(command, env=environment, cwd=directory, capture_output=True, text=True, timeout=900)
        print(f"{target}: exit status {done.returncode}", flush=True)
        if done.returncode != 0:
            print(done.stdout[-1000:], done.stderr[-1000:])
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
