#!/usr/bin/env python3
"""Many small ranks on this machine: what starting, controlling and ending a job costs as the number of ranks grows.

Run by hand; docs/benchmarks.md has figures. The ranks share the cores, so times include waiting for a core.

scale.py DEEPER MPIRUN [--ranks=16,64,256] [--repeats=3]
"""
import argparse
import json
import os
import pathlib
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "faults"))
from jobs import Job

COLUMNS = ("ranks", "start s", "sockets", "MiB", "reduce us", "by MPI us", "gather us", "named s", "lines", "stop s")
parser = argparse.ArgumentParser(usage=__doc__)
parser.add_argument("deeper")
parser.add_argument("mpirun")
parser.add_argument("--ranks", default="16,64")
parser.add_argument("--repeats", type=int, default=3)
options = parser.parse_args()
MPIRUN = [options.mpirun, "--oversubscribe", "--bind-to", "none", "--allow-run-as-root", "--mca", "mpi_yield_when_idle", "1"]


def train(ranks, directory):
    """A job whose steps compute as little as possible."""
    return Job([*MPIRUN, "-n", str(ranks), options.deeper, "train", "--synthetic", f"--synthetic_samples={4 * ranks}", "--model=nin-cifar",
                "--image_size=10", "--num_classes=2", "--threads=1", f"--global_batch={ranks}", "--log_every=1", "--eval_every=1000000",
                "--val_split=none", "--max_steps=1000000", "--checkpoint_every=1000000", f"--checkpoint_dir={directory}/run"],
               f"{directory}/output")


def started(job):
    """Seconds until the first step is done."""
    begin = time.monotonic()
    if not job.wait_for_text("step 1/", 600):
        raise SystemExit(f"the job did not start:\n{job.text()[-2000:]}")
    return time.monotonic() - begin


def of_rank_zero(job):
    """-> sockets, resident MiB."""
    process = pathlib.Path(f"/proc/{job.rank(0)}")
    sockets = sum(os.readlink(fd).startswith("socket:") for fd in (process / "fd").iterdir())
    return sockets, int(re.search(r"VmRSS:\s+(\d+)", (process / "status").read_text())[1]) // 1024


def microseconds(ranks, collective):
    """Of the smallest collective that bench comm times, of one float per rank: by deeper, and by MPI's blocking call."""
    bench = [options.deeper, "bench", "comm", f"--collective={collective}", f"--min_bytes={4 * ranks}", f"--max_bytes={4 * ranks}", "--repeats=50"]
    done = subprocess.run([*MPIRUN, "-n", str(ranks), *bench], capture_output=True, text=True, check=True)
    (result,) = json.loads(done.stdout)["results"]
    return 1e3 * result["ms"], 1e3 * result["mpi_ms"]


def kill_one(ranks, directory):
    """-> seconds until a message names the rank, and the number of such messages."""
    victim = random.randrange(ranks)
    with train(ranks, directory) as job:
        started(job)
        begin = time.monotonic()
        os.kill(job.rank(victim), signal.SIGKILL)
        named = job.wait_for_text(f"rank {victim} was lost", 120)
        took = time.monotonic() - begin
        job.wait_until_gone(120)
        return (took if named else float("nan")), job.text().count(f"rank {victim} was lost")


def measure(ranks):
    with tempfile.TemporaryDirectory() as directory:
        with train(ranks, directory) as job:
            start = started(job)
            sockets, memory = of_rank_zero(job)
            begin = time.monotonic()
            job.process.send_signal(signal.SIGUSR1)
            job.wait_until_gone(600)
            stop = time.monotonic() - begin
    with tempfile.TemporaryDirectory() as directory:
        named, lines = kill_one(ranks, directory)
    return start, sockets, memory, *microseconds(ranks, "all_reduce"), microseconds(ranks, "all_gather")[0], named, lines, stop


print(*(f"{column:>10}" for column in COLUMNS), flush=True)
for count in map(int, options.ranks.split(",")):
    rows = [measure(count) for _ in range(options.repeats)]
    medians = [statistics.median(column) for column in zip(*rows, strict=True)]
    print(*(f"{value:>10.4g}" for value in (count, *medians)), flush=True)
