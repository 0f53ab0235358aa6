#!/usr/bin/env python3
"""`deeper doctor` on two hosts names a throttled link and a slowed rank.

doctor_test.py DEEPER MPIRUN [unittest arguments]
"""
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

import hosts
from hosts import NAMES

DEEPER, MPIRUN = sys.argv[1:3]
COMMUNICATION = 5
DOCTOR = [DEEPER, "doctor", "--synthetic", "--model=nin-cifar", "--image_size=32", "--num_classes=10", "--threads=1", "--workers=1"]


@contextlib.contextmanager
def competitors(core, count):
    """Runs `count` programs on this core, which leave a rank 1 / (count + 1) of it."""
    spin = ["setpriv", "--pdeathsig", "KILL", "taskset", "-c", str(core), "sh", "-c", "while :; do :; done"]
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            program = stack.enter_context(subprocess.Popen(spin))
            stack.callback(program.kill)
        yield


class Doctor(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.dir = pathlib.Path(temporary.name)
        self.hosts = self.enterContext(hosts.Hosts())

    def examine(self, program):
        """Returns its exit code, output and JSON."""
        with self.hosts.job(MPIRUN, NAMES, [*program, f"--json={self.dir}/doctor.json"], self.dir / "output") as job:
            took = job.wait_until_gone(120)
            self.assertIsNotNone(took, job.text())
            print(f"{self.id()}: {took:.1f} s\n{job.text()}", flush=True)
            return job.process.returncode, " ".join(job.text().split()), json.loads((self.dir / "doctor.json").read_text())

    def test_names_a_throttled_link(self):
        self.hosts.limit("100mbit")
        code, text, report = self.examine([*DOCTOR, "--batch=4", f"--checkpoint_dir={self.dir}/checkpoints"])
        self.assertEqual(code, COMMUNICATION, text)
        self.assertRegex(text, r"the link from rank 0 \(host-a\) to rank 1 \(host-b\) gives [\d.]+ MB/s .*that eth0 of host-\w reports")
        self.assertEqual([rank["host"] for rank in report["ranks"]], list(NAMES))
        self.assertEqual(report["ranks"][0]["nominal_bytes_per_second"], 1.25e9)  # the nominal speed of veth
        for rank in report["ranks"]:
            # 12.5e6 at 100 Mbit/s, or less and more after pauses of this machine; more than 1e9 without the limit.
            self.assertTrue(1e6 < rank["link_bytes_per_second"] < 50e6, rank)
            streams = rank["streams_bytes_per_second"]
            self.assertTrue(streams == 0 or 1e6 < streams < 50e6, rank)  # 0: not all connections were made within 2 s
        self.assertTrue(all(rank["sees_lock"] for rank in report["ranks"]))

    def test_names_a_slowed_rank(self):
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            self.skipTest("needs a core for each rank")
        # All other processes of this machine use the core of rank 0, too, so that rank has priority.
        pinned = ["sh", "-c", f'[ "$OMPI_COMM_WORLD_RANK" = 0 ] && set -- nice -n -15 taskset -c {cores[0]} "$@" '
                              f'|| set -- taskset -c {cores[1]} "$@"; exec "$@"', "sh"]
        with competitors(cores[1], 4):
            code, text, report = self.examine([*pinned, *DOCTOR, "--batch=16"])
        self.assertEqual(code, COMMUNICATION, text)
        self.assertRegex(text, r"rank 1 \(host-b\) is slow: [\d.]+ ms of computing per step")
        self.assertNotIn("rank 0 (host-a) is slow", text)
        self.assertFalse(report["fit"])

    def test_a_study_measures_the_sums_of_training(self):
        """Four ranks on two hosts sum gradients within the hosts first; two ranks do not."""
        for places, collective in (("host-a", "host-a", "host-b", "host-b"), "all_reduce_tree"), (NAMES, "all_reduce"):
            launcher = " ".join(self.hosts.launch(MPIRUN, places)[:-2])  # without -n
            study = subprocess.run([DEEPER, "bench", "scaling", f"--ranks={len(places)}", "--kind=weak", "--batch=2", "--rounds=2", "--steps=2",
                                    "--warmup=1", f"--mpirun={launcher}", "--predict=", "--", "--synthetic", "--model=nin-cifar",
                                    "--image_size=10", "--num_classes=2", "--threads=1"], capture_output=True, text=True)
            self.assertEqual(study.returncode, 0, study.stderr)
            self.assertEqual(json.loads(study.stdout)["settings"]["collective"], collective)


if __name__ == "__main__":
    if reason := hosts.obstacle():
        print(f"not run: {reason}")
        sys.exit(hosts.NOT_RUN)
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
