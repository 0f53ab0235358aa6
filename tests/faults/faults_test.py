#!/usr/bin/env python3
"""Jobs whose ranks die, stop or get stuck at random times. All must end and name the rank.

faults_test.py DEEPER MPIRUN SLOW_READS [--trials=N] [--seed=S] [unittest arguments]
"""
import argparse
import os
import pathlib
import random
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
parser.add_argument("slow_reads", help="the library of slow_reads.cpp")
parser.add_argument("--trials", type=int, default=4)
parser.add_argument("--seed", type=int, default=random.randrange(10**6))
OPTIONS, unittest_arguments = parser.parse_known_args()
COMMUNICATION = 5
DEADLINE = 4  # seconds, of the watchdog
GONE_WITHIN = 30  # seconds, counted from the deadline if there is one
PHASES = ("start-up|in the loader|computing|backward|all-reduce|updating|reporting|evaluating|saving a checkpoint")
# Small, so that a trial meets every phase often.
TRAIN = [OPTIONS.deeper, "train", "--model=nin-cifar", "--image_size=10", "--num_classes=10", "--threads=1", "--global_batch=12",
         "--max_steps=1000000", "--eval_every=7", "--log_every=3", f"--watchdog_seconds={DEADLINE}"]
MPIRUN = [OPTIONS.mpirun, "--oversubscribe", "--bind-to", "none", "--allow-run-as-root", "--timeout", "120"]


class Faults(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.dir = pathlib.Path(temporary.name)

    def ends(self, job, seconds, says, codes):
        took = job.wait_until_gone(seconds)
        self.assertIsNotNone(took, f"processes are left after {seconds} s: {list(job.pids())}\n{job.text()}")
        self.assertRegex(job.text(), says)
        self.assertIn(job.process.returncode, codes, job.text())
        return took


class Trials(Faults):
    def test_signals(self):
        """SIGKILL and SIGSTOP in turn, of a random rank, at a random time."""
        print(f"{OPTIONS.trials} trials, --seed={OPTIONS.seed}", flush=True)
        for number in range(OPTIONS.trials):
            with self.subTest(trial=number, seed=OPTIONS.seed):
                self.trial(random.Random(OPTIONS.seed + number), signal.SIGSTOP if number % 2 else signal.SIGKILL)

    def trial(self, rng, blow):
        ranks = rng.choice([2, 3])
        victim = rng.randrange(ranks)
        delay = rng.uniform(0, 3)
        # mpirun's own exit code is that of the first process that it saw die.
        seconds, verb, codes = {
            signal.SIGKILL: (GONE_WITHIN, "was lost", (COMMUNICATION, 128 + signal.SIGKILL)),
            signal.SIGSTOP: (DEADLINE + GONE_WITHIN, "has sent no heartbeat", (COMMUNICATION,)),
        }[blow]
        train = [*TRAIN, "--synthetic", "--synthetic_samples=400", "--checkpoint_every=5", f"--checkpoint_dir={self.dir}/run"]
        with Job([*MPIRUN, "-n", str(ranks), *train], self.dir / "output") as job:
            self.assertTrue(job.wait_for_text("resume ", 30), job.text())  # the last line before the first step
            time.sleep(delay)
            os.kill(job.rank(victim), blow)
            took = self.ends(job, seconds, rf"rank {victim} {verb}.*(step \d+, ({PHASES})|start-up)", codes)
            said = next(line for line in job.text().splitlines() if f"rank {victim} {verb}" in line)
            print(f"{blow.name} of rank {victim} of {ranks} after {delay:.2f} s: all gone after {took:.1f} s, exit code "
                  f"{job.process.returncode}: {said}", flush=True)


class RankZero(Faults):
    def test_is_reported_by_rank_1(self):
        """All others lose it at the same moment, and leave rank 1 time to report it and to end the job. Rank 2 reports as well, in case
        that rank 1 gets no core. mpirun may write the lines of different ranks in any order."""
        with Job([*MPIRUN, "-n", "5", *TRAIN, "--synthetic", "--synthetic_samples=400", f"--checkpoint_dir={self.dir}/run"],
                 self.dir / "output") as job:
            self.assertTrue(job.wait_for_text("resume ", 60), job.text())
            time.sleep(1)
            os.kill(job.rank(0), signal.SIGKILL)
            self.ends(job, GONE_WITHIN, "rank 0 was lost", (COMMUNICATION, 128 + signal.SIGKILL))
            self.assertRegex(job.text(), "rank [12] of 5: rank 0 was lost")


class Suspension(Faults):
    def test_of_all_ranks_is_no_fault(self):
        with Job([*MPIRUN, "-n", "2", *TRAIN, "--synthetic", "--synthetic_samples=400"], self.dir / "output") as job:
            self.assertTrue(job.wait_for_text("step 9/", 60), job.text())
            ranks = [job.rank(0), job.rank(1)]
            for blow, seconds in (signal.SIGSTOP, 2 * DEADLINE), (signal.SIGCONT, 0):
                for pid in ranks:
                    os.kill(pid, blow)
                time.sleep(seconds)
            size = len(job.text())
            time.sleep(1.5 * DEADLINE)
            self.assertIsNone(job.process.poll(), job.text())
            self.assertIn("step ", job.text()[size:])


class Disk(Faults):
    """Rank 1 of 2 has a slow disk, rank 0 has not."""

    def setUp(self):
        super().setUp()
        write_idx(self.dir, 240)
        for split in "train", "val":
            subprocess.run([OPTIONS.deeper, "pack", "--format=idx", f"--input={self.dir}", f"--output={self.dir}/data", f"--split={split}"],
                           check=True, capture_output=True)

    def job(self, **disk):
        train = [*TRAIN, f"--data={self.dir}/data", "--eval_every=1000000"]
        settings = " ".join(f"DEEPER_FAULT_{name}={value}" for name, value in disk.items())
        # Not as two programs: mpirun 5.0.7 of Debian 13 crashes at `-n 1 A : -n 1 B`.
        slow = f'[ "$OMPI_COMM_WORLD_RANK" = 0 ] || export LD_PRELOAD={OPTIONS.slow_reads} {settings}; exec "$@"'
        return Job([*MPIRUN, "-n", "2", "sh", "-c", slow, "sh", *train], self.dir / "output")

    def test_that_answers_no_more(self):
        with self.job(READS=300) as job:
            self.ends(job, 60, r"rank 0 of 2: rank 1 has made no progress for .*: step \d+, in the loader", (COMMUNICATION,))

    def test_that_is_slow(self):
        with self.job(READ_MS=50) as job:
            self.assertTrue(job.wait_for_text("warning: rank 1 is slow, mostly in waiting for data", 200), job.text())


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *unittest_arguments])
