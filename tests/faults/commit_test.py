#!/usr/bin/env python3
"""Saves in which a system call fails or a rank is killed. No checkpoint is lost, and none is reported as saved that is not.

commit_test.py DEEPER MPIRUN FAILING_CALLS [--failures=N] [--kills=N] [--model=nin-cifar] [--seed=S] [unittest arguments]

Two thirds of the time are spent waiting for the disk: with TMPDIR=/dev/shm a kill takes a third of the time. The test is as valid there,
since the kernel keeps what a killed process has written.
"""
import argparse
import errno
import filecmp
import itertools
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from jobs import Job, write_idx

parser = argparse.ArgumentParser(usage=__doc__)
parser.add_argument("deeper")
parser.add_argument("mpirun")
parser.add_argument("failing_calls", help="the library of failing_calls.cpp")
parser.add_argument("--failures", type=int, default=8, help="how many calls of two saves to make fail; 0: every call, in every way")
parser.add_argument("--kills", type=int, default=12)
parser.add_argument("--model", choices=["nin-cifar", "googlenet"], default="nin-cifar")
parser.add_argument("--seed", type=int, default=random.randrange(10**6))
OPTIONS, unittest_arguments = parser.parse_known_args()
USAGE, DATA, CHECKPOINT, TIMED_OUT = 2, 3, 4, 110  # the last one is mpirun's
PATIENCE = 300  # seconds, for machines with other work
STEPS = 12
SIZE = ["--image_size=10"] if OPTIONS.model == "nin-cifar" else ["--image_size=28", "--stem=small"]
COMMAND = [OPTIONS.mpirun, "--oversubscribe", "--bind-to", "none", "--allow-run-as-root", "--timeout", str(PATIENCE),
           "--mca", "odls_base_sigkill_timeout", "0", "-n", "2", OPTIONS.deeper, "train",
           f"--model={OPTIONS.model}", *SIZE, "--threads=1", "--deterministic=true", "--global_batch=4",
           "--log_every=1", "--eval_every=1000000", "--checkpoint_every=1", "--metrics_out="]


def steps_in(directory):
    return sorted(int(path.name.split("-")[1]) for path in directory.glob("step-*"))


def numbers(pattern, text):
    return list(map(int, re.findall(pattern, text)))


class Commits(unittest.TestCase):
    """On two ranks. `reference` holds the checkpoints of all steps of an uninterrupted run."""

    @classmethod
    def setUpClass(cls):
        temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(temporary.cleanup)
        cls.dir = pathlib.Path(temporary.name)
        cls.run_dir, cls.reference, cls.output, cls.log = (cls.dir / name for name in ("run", "reference", "output", "calls"))
        write_idx(cls.dir, 20)
        for split in "train", "val":
            subprocess.run([OPTIONS.deeper, "pack", "--format=idx", f"--input={cls.dir}", f"--output={cls.dir}/data", f"--split={split}"],
                           check=True, capture_output=True)
        command = [*COMMAND, f"--data={cls.dir}/data", f"--checkpoint_dir={cls.reference}", f"--max_steps={STEPS}", f"--keep={STEPS}"]
        with Job(command, cls.output) as job:
            assert job.wait_for_text("resume ", PATIENCE), job.text()
            start = time.monotonic()
            assert job.process.wait(PATIENCE) == 0, job.text()
        cls.seconds = time.monotonic() - start
        print(f"--seed={OPTIONS.seed}; the uninterrupted run took {cls.seconds:.1f} s", flush=True)

    def setUp(self):
        self.rng = random.Random(OPTIONS.seed)
        self.begin_with()

    def begin_with(self, *steps):
        shutil.rmtree(self.run_dir, ignore_errors=True)
        self.run_dir.mkdir()
        for step in steps:
            shutil.copytree(self.reference / f"step-{step:09}", self.run_dir / f"step-{step:09}")

    def start(self, steps, **fault):
        """Starts the run from its newest checkpoint to this step, keeping two."""
        settings = {f"DEEPER_FAULT_{name.upper()}": str(value) for name, value in fault.items()}
        preload = {"LD_PRELOAD": OPTIONS.failing_calls, "DEEPER_FAULT_DIR": str(self.run_dir)} if fault else {}
        return Job([*COMMAND, f"--data={self.dir}/data", f"--checkpoint_dir={self.run_dir}", f"--max_steps={steps}", "--keep=2"],
                   self.output, settings | preload)

    def end(self, job):
        self.assertIsNotNone(job.wait_until_gone(PATIENCE + 10), job.text())
        return job.process.returncode, job.text()

    def run_to(self, steps, **fault):
        with self.start(steps, **fault) as job:
            return self.end(job)

    def calls(self):
        """[(rank, number, name)] of the calls of two saves that replace older checkpoints, without those of start-up."""
        self.begin_with(1)
        code, text = self.run_to(3, log=self.log)
        self.assertEqual(code, 0, text)
        found = []
        for rank in 0, 1:
            lines = pathlib.Path(f"{self.log}.{rank}").read_text().splitlines()
            first = next(number for number, line in enumerate(lines) if "/.tmp-step-" in line)
            found += [(rank, number, line.split()[0]) for number, line in enumerate(lines, 1) if number > first]
        return found

    def check_directory(self, text):
        """Every checkpoint is valid and bitwise equal to that of the uninterrupted run. All checkpoints reported as committed exist."""
        steps = steps_in(self.run_dir)
        if steps:
            verified = subprocess.run([OPTIONS.deeper, "verify", f"--checkpoint={self.run_dir}"], capture_output=True, text=True)
            self.assertEqual(verified.returncode, 0, verified.stdout + verified.stderr + text)
        for step in steps:
            for shard in "shard-00000-of-00002.h5", "shard-00001-of-00002.h5":
                ours, theirs = (run / f"step-{step:09}" / shard for run in (self.run_dir, self.reference))
                self.assertTrue(filecmp.cmp(ours, theirs, shallow=False), f"{ours}\n{text}")
        self.assertGreaterEqual(steps[-1:], numbers(r"step-(\d+) committed", text)[-1:], text)
        return steps

    def test_failing_calls(self):
        calls = self.calls()
        faults = [(rank, number, name, kind) for rank, number, name in calls for kind in (errno.EIO, errno.ENOSPC, "short")
                  if kind != "short" or name in ("write", "pwrite")]
        chosen = faults if OPTIONS.failures == 0 else self.rng.sample(faults, OPTIONS.failures)
        lost = 0
        for rank, number, name, kind in chosen:
            with self.subTest(rank=rank, call=number, name=name, kind=kind, seed=OPTIONS.seed):
                lost += self.fail_at(rank, number, kind)
        print(f"{len(chosen)} of {len(faults)} failures of {len(calls)} calls; {lost} saves failed and reported it", flush=True)

    def fail_at(self, rank, number, kind):
        """Returns how many of the two saves failed."""
        self.begin_with(1)
        code, text = self.run_to(3, rank=rank, call=number, kind=kind)
        committed, failed = numbers(r"step-(\d+) committed", text), numbers(r"warning: checkpoint \S*step-(\d+) was NOT saved", text)
        self.assertEqual(sorted(committed + failed), [2, 3], text)
        self.assertEqual(code, 0 if 3 in committed else CHECKPOINT, text)
        self.assertIn("step 3/3", text)
        if kind == "short":
            self.assertEqual(failed, [], text)
        steps = self.check_directory(text)
        self.assertTrue(committed or 1 in steps, text)
        self.resume(4, steps[-1])
        self.assertEqual(list(self.run_dir.glob(".tmp-*")), [])
        return len(failed)

    def resume(self, to, newest):
        code, text = self.run_to(to)
        self.assertEqual(code, 0, text)
        self.assertIn(f"{newest} steps done", text)
        self.assertEqual(self.check_directory(text)[-1], to)

    def test_kills(self):
        """Kills every start: at each call in turn, a tenth of them on both ranks, and a third at a random time."""
        calls = self.calls()
        self.rng.shuffle(calls)
        turns = itertools.cycle(calls)
        self.begin_with()
        steps, at_calls, at_times, starts, runs = [], 0, 0, 0, 0
        while at_calls + at_times < OPTIONS.kills:
            starts += 1
            by_time = starts % 3 == 0
            fault = {} if by_time else dict(zip(("rank", "call"), next(turns)), kind="kill")
            if starts % 10 == 0:
                fault.pop("rank", None)
            with self.subTest(start=starts, seed=OPTIONS.seed, **fault):
                with self.start(STEPS, **fault) as job:
                    if by_time:
                        job.wait_for_text("resume ", PATIENCE)  # mpirun can hang if a rank is killed while it connects
                        time.sleep(self.rng.uniform(0, self.seconds))
                        self.kill_a_rank(job)
                    code, text = self.end(job)
                if starts % 25 == 0:
                    print(f"start {starts}: {at_calls + at_times} kills so far", flush=True)
                self.assertNotIn(code, (USAGE, DATA, CHECKPOINT, TIMED_OUT), text)  # the kill ended it, not the state of the files
                at_times += by_time and code != 0
                at_calls += not by_time and code != 0
                newest = steps[-1] if steps else 0
                self.assertEqual(numbers(r"step (\d+)/", text)[:1] or [newest + 1], [newest + 1], text)
                steps = self.check_directory(text)
            if code == 0:
                self.assertEqual(steps[-1], STEPS, text)
                self.begin_with()
                steps, runs = [], runs + 1
        if steps:
            self.resume(STEPS, steps[-1])
        print(f"{at_calls} kills at calls and {at_times} at random times, in {starts} starts of {runs + 1} runs", flush=True)

    def kill_a_rank(self, job):
        try:
            os.kill(job.rank(self.rng.randrange(2)), signal.SIGKILL)
        except (ValueError, ProcessLookupError):
            pass  # not started yet, or already ended


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *unittest_arguments])
