#!/usr/bin/env python3
"""Two jobs on two hosts with the same checkpoint directory: only one trains.

DEEPER_LONG_TESTS=1 also waits until a dead owner on another machine is replaced, which takes half a minute.

lock_test.py DEEPER NO_LOCKS [unittest arguments]
"""
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import unittest

import hosts

DEEPER, NO_LOCKS = sys.argv[1:3]
CHECKPOINT = 4
TRAIN = [DEEPER, "train", "--synthetic", "--synthetic_samples=200", "--model=nin-cifar", "--image_size=10", "--num_classes=10", "--threads=1",
         "--global_batch=4", "--log_every=10"]


class TwoJobs(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.dir = pathlib.Path(temporary.name)
        self.hosts = self.enterContext(hosts.Hosts())

    def job(self, host, *flags, machine=None):
        """On another kernel, and a mount without locks, if `machine` is given: a name of the kernel."""
        command = [*TRAIN, f"--checkpoint_dir={self.dir}/run", *flags]
        if machine is not None:
            (self.dir / machine).write_text(machine + "\n")
            mount = f"mount --bind {self.dir}/{machine} /proc/sys/kernel/random/boot_id && exec \"$@\""
            command = ["unshare", "--mount", "sh", "-c", mount, "sh", "env", f"LD_PRELOAD={NO_LOCKS}", *command]
        return self.hosts.job_of([*self.hosts.enter(host), *command], self.dir / host)

    def trains(self, job):
        self.assertTrue(job.wait_for_text("step 10/", 60), job.text())
        (process,) = [pid for pid in job.pids() if pathlib.Path(f"/proc/{pid}/exe").resolve() == pathlib.Path(DEEPER).resolve()]
        return process

    def test_the_second_job_names_the_first(self):
        for machine in None, "a":
            with self.subTest(machine=machine), self.job("host-a", "--max_steps=1000000", machine=machine) as first:
                process = self.trains(first)
                with self.job("host-b", "--max_steps=20", machine=machine and "b") as second:
                    self.assertIsNotNone(second.wait_until_gone(60), second.text())
                    self.assertEqual(second.process.returncode, CHECKPOINT, second.text())
                    self.assertIn(f"in use by another process (process {process} on host host-a", second.text())
                self.assertIsNone(first.process.poll(), first.text())

    def test_a_killed_owner_is_replaced(self):
        """At once on the same kernel, otherwise when it has shown no sign of life for a while."""
        for machine in [None, "a"] if os.environ.get("DEEPER_LONG_TESTS") else [None]:
            with self.subTest(machine=machine):
                with self.job("host-a", "--max_steps=1000000", machine=machine) as first:
                    process = self.trains(first)
                    os.kill(process, signal.SIGKILL)
                    self.assertIsNotNone(first.wait_until_gone(20))
                with self.job("host-b", "--max_steps=20", machine=machine and "b") as second:
                    self.assertIsNotNone(second.wait_until_gone(90), second.text())
                    self.assertEqual(second.process.returncode, 0, second.text())
                    self.assertRegex(second.text(), rf"taken over from process\s+{process}\s+on\s+host\s+host-a")
                subprocess.run(["rm", "-r", self.dir / "run"], check=True)

    def test_an_owner_that_was_replaced_saves_nothing_more(self):
        """Another job wrote its name into the file while this one was suspended."""
        with self.job("host-a", "--max_steps=1000000", "--checkpoint_every=200") as job:
            self.trains(job)
            owner = self.dir / "run/.deeper-lock"
            text = owner.read_text()
            other = owner.with_name("other")
            other.write_text(text.replace("host host-a", "host host-c").replace("token ", "token f"))
            other.replace(owner)  # a sign of life could overwrite a change in place
            self.assertIsNotNone(job.wait_until_gone(120), job.text())
            self.assertEqual(job.process.returncode, CHECKPOINT, job.text())
            self.assertRegex(job.text(), r"deeper train: .*/run was taken over by another process \(process \d+ on host host-c\)")
            self.assertIn("host-c", owner.read_text())


if __name__ == "__main__":
    if reason := hosts.obstacle():
        print(f"not run: {reason}")
        sys.exit(hosts.NOT_RUN)
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
