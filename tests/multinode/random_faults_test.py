#!/usr/bin/env python3
"""A training on two hosts and a network file system meets faults at random times, and resumes after each: killed and stopped ranks, a cut
network, a file server that is away, preemptions. It names each cause and loses nothing: its weights are those of an undisturbed run.

Counted as not run where network_files_test.py is.

random_faults_test.py DEEPER MPIRUN [--trials=N] [--seed=S] [unittest arguments]
"""
import argparse
import os
import random
import re
import signal
import subprocess
import sys
import time
import unittest

import hosts
from network_files_test import DEEPER, DONE, MPIRUN, PREEMPTED, NetworkFiles, obstacle

parser = argparse.ArgumentParser(usage=__doc__)
parser.add_argument("deeper")
parser.add_argument("mpirun")
parser.add_argument("--trials", type=int, default=2)
parser.add_argument("--seed", type=int, default=random.randrange(10**6))
OPTIONS, unittest_arguments = parser.parse_known_args()
COMMUNICATION, KILLED = 5, 128 + signal.SIGKILL
# Open MPI ends the job with 255 if it notices that a connection is lost before the watchdog reports it.
LOST, OPEN_MPI = (COMMUNICATION, KILLED, 255), r"|pml_ob1_\w+\.c:\d+ FATAL"
DEADLINE = 30  # seconds, of the watchdog. GlusterFS reconnects every 3 s.


class RandomFaults(NetworkFiles):
    """Each fault waits until the job has ended, and checks how."""

    def kill(self, job, rng):
        victim = rng.randrange(2)
        os.kill(job.rank(victim), signal.SIGKILL)
        self.ended(job, rf"rank {victim} was lost" + OPEN_MPI, LOST)

    def stop(self, job, rng):
        victim = rng.randrange(2)
        os.kill(job.rank(victim), signal.SIGSTOP)
        self.ended(job, rf"rank {victim} has sent no heartbeat", (COMMUNICATION,))

    def cut(self, job, rng):
        self.hosts.cut("host-b")
        time.sleep(DEADLINE + 4)
        self.hosts.mend("host-b")
        self.ended(job, r"rank [01] (has sent no heartbeat|was lost: its connection)" + OPEN_MPI, LOST)

    def restart_server(self, job, rng):
        self.stop_server()
        time.sleep(rng.uniform(0, 2))
        self.server = self.start_server()
        self.continues(job, rng)

    def suspend_server(self, job, rng):
        with self.suspended(self.server):
            time.sleep(rng.uniform(0, 4))
        self.continues(job, rng)

    def preempt(self, job, rng):
        job.process.send_signal(signal.SIGUSR1)
        self.ended(job, "is saved; run the same command again", (PREEMPTED,))

    FAULTS = (kill, stop, cut, restart_server, suspend_server, preempt)

    def continues(self, job, rng):
        """After the outage, the job trains on and can be preempted."""
        seen = len(job.text())
        end = time.monotonic() + 60
        while not re.search(r"step \d+/", job.text()[seen:]):
            self.assertIsNone(job.process.poll(), job.text())
            self.assertLess(time.monotonic(), end, job.text())
            time.sleep(0.05)
        self.preempt(job, rng)

    def ended(self, job, says, codes):
        """mpirun and all ranks. A daemon of mpirun may stay on a host that was cut off: it never hears that mpirun has ended."""
        self.wait_for(lambda: job.process.poll() is not None and not self.ranks(job), job, 90)
        self.assertRegex(job.text(), says)
        self.assertIn(job.process.returncode, codes, job.text())

    def ranks(self, job):
        """Its processes of deeper."""
        return [pid for pid in job.pids() if os.path.realpath(f"/proc/{pid}/exe") == os.path.realpath(DEEPER)]

    def command(self, name, *flags):
        return self.train("--deterministic=true", f"--watchdog_seconds={DEADLINE}", "--checkpoint_every=25", "--keep=2",
                          f"--checkpoint_dir={self.shared}/{name}", *flags)

    def trial(self, number):
        rng = random.Random(OPTIONS.seed + number)
        fault = self.FAULTS[(OPTIONS.seed + number) % len(self.FAULTS)]
        delay = rng.uniform(0, 3)
        ranks = self.hosts.launch(MPIRUN, hosts.NAMES)
        with self.hosts.job_of([*ranks, *self.command("run", "--max_steps=10000000")], self.dir / "output") as job:
            self.assert_says(job, "resume ", 90)
            time.sleep(delay)
            begin = time.monotonic()
            fault(self, job, rng)
            took, text = time.monotonic() - begin, job.text()
        committed = [int(step) for step in re.findall(r"checkpoint \S+/step-(\d+) committed", text)]
        resumed = [int(step) for step in re.findall(r": (\d+) steps done, next is batch", text)]
        newest = max(self.steps(), default=0)
        self.assertGreaterEqual(newest, max(committed + resumed, default=0), text)
        print(f"trial {number}: {fault.__name__} after {delay:.2f} s: ended after {took:.1f} s with {job.process.returncode}, step {newest}",
              flush=True)
        return newest

    def test_nothing_is_lost(self):
        print(f"{OPTIONS.trials} trials, --seed={OPTIONS.seed}", flush=True)
        self.pack()
        newest = 0
        for number in range(OPTIONS.trials):
            with self.subTest(trial=number, seed=OPTIONS.seed):
                step = self.trial(number)
                self.assertGreaterEqual(step, newest)
                newest = step
        last = f"--max_steps={newest + 5}"
        for name in "run", "undisturbed":
            ranks = self.hosts.launch(MPIRUN, hosts.NAMES)
            ranks[ranks.index("--timeout") + 1] = "1500"
            with self.hosts.job_of([*ranks, *self.command(name, last)], self.dir / name) as job:
                self.ends(job, DONE, 1500)
        for shard in (self.disk / "run" / f"step-{newest + 5:09}").glob("*.h5"):
            same = subprocess.run(["cmp", shard, self.disk / "undisturbed" / shard.parent.name / shard.name], capture_output=True, text=True)
            self.assertEqual(same.returncode, 0, same.stdout)


if __name__ == "__main__":
    if reason := obstacle():
        print(f"not run: {reason}")
        sys.exit(hosts.NOT_RUN)
    unittest.main(argv=[sys.argv[0], *unittest_arguments])
