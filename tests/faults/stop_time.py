#!/usr/bin/env python3
"""Measures the time from SIGUSR1 to a run's end: GoogLeNet at 224 px on two ranks, stopped at random moments.

Run by hand; docs/guides/failures.md has figures.

stop_time.py DEEPER MPIRUN [--batch=32] [--stops=4] [--seed=S]
"""
import argparse
import os
import random
import re
import signal
import sys
import tempfile
import time

from jobs import Job

parser = argparse.ArgumentParser(usage=__doc__)
parser.add_argument("deeper")
parser.add_argument("mpirun")
parser.add_argument("--batch", type=int, default=32, help="images per step, over both ranks")
parser.add_argument("--stops", type=int, default=4)
parser.add_argument("--seed", type=int, default=0)
options = parser.parse_args()
PREEMPTED = 75
rng = random.Random(options.seed)

with tempfile.TemporaryDirectory() as directory:
    train = [options.deeper, "train", "--model=googlenet", "--synthetic", "--synthetic_samples=1000", "--threads=1",
             f"--global_batch={options.batch}",
             "--max_steps=1000000", "--log_every=1", "--eval_every=1000000", f"--checkpoint_dir={directory}/run"]
    command = [options.mpirun, "--oversubscribe", "--bind-to", "none", "--allow-run-as-root", "-n", "2", *train]
    for number in range(options.stops):
        with Job(command, f"{directory}/output") as job:
            while len(re.findall(r"(?m)^step \d+/", job.text())) < 2:
                if job.process.poll() is not None:
                    sys.exit(job.text())
                time.sleep(0.05)
            step = options.batch / float(re.findall(r"([\d.]+) images/s", job.text())[-1])
            time.sleep(rng.uniform(0, step))
            start = time.monotonic()
            os.kill(job.rank(number % 2), signal.SIGUSR1)
            job.process.wait()
            took = time.monotonic() - start
            if job.process.returncode != PREEMPTED:
                sys.exit(job.text())
            print(f"stop {number}: {took:.1f} s, steps of {step:.1f} s", flush=True)
