#!/usr/bin/env python3
"""Trains across two hosts: gives the same numbers as on one, and ends when the cable is cut.

multinode_test.py DEEPER MPIRUN [unittest arguments]
"""
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

import hosts
from hosts import NAMES

DEEPER, MPIRUN = sys.argv[1:3]
COMMUNICATION = 5
STEPS, PARAMETERS = 12, 966986
TRAIN = [DEEPER, "train", "--synthetic", "--synthetic_samples=200", "--model=nin-cifar", "--image_size=10", "--num_classes=10", "--threads=1",
         "--global_batch=12", "--log_every=1", "--watchdog_seconds=30"]


def numbers(path):
    """The events of a run, without what a clock measured."""
    events = [json.loads(line) for line in path.read_text().splitlines()]
    del events[0]["run"]["flags"]  # they name the run's directory
    measured = ("_ms", "_jitter", "_spread", "per_second", "seconds", "path", "time")
    return [{key: value for key, value in event.items() if not key.endswith(measured)} for event in events]


class TwoHosts(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.dir = pathlib.Path(temporary.name)
        self.hosts = self.enterContext(hosts.Hosts())

    def succeeds(self, where, *program):
        output = self.dir / "output"
        with self.hosts.job(MPIRUN, where, program, output) as job:
            self.assertIsNotNone(job.wait_until_gone(120), job.text())
            self.assertEqual(job.process.returncode, 0, job.text())
            return job.text()

    def train(self, where, name):
        """Returns the logged events, and the bytes of the checkpoint."""
        self.succeeds(where, *TRAIN, f"--max_steps={STEPS}", f"--metrics_out={self.dir}/{name}.jsonl", f"--checkpoint_dir={self.dir}/{name}")
        return numbers(self.dir / f"{name}.jsonl"), [path.read_bytes() for path in sorted((self.dir / name).glob("step-*/shard-*.h5"))]

    def test_trains_as_on_one_host(self):
        self.assertEqual(sorted(self.succeeds(NAMES, "hostname").split()), sorted(NAMES))
        before = self.hosts.received_bytes("host-b")
        apart, apart_shards = self.train(NAMES, "apart")
        # Half of the gradients cross the cable as summands, the other half as sums.
        self.assertGreater(self.hosts.received_bytes("host-b") - before, 4 * PARAMETERS * STEPS)
        together, together_shards = self.train(["host-a", "host-a"], "together")
        self.assertEqual(len([event for event in apart if event["event"] == "step"]), STEPS)
        self.assertEqual(apart, together)
        self.assertEqual(len(apart_shards), 2)
        self.assertEqual(apart_shards, together_shards)

    def test_gradients_keep_to_nodes(self):
        """Two ranks on each host: the gradients cross the cable once; in a ring over all ranks, one and a half times."""
        losses = {}
        for flag, least, most in ("auto", 1.0, 1.1), ("mpi", 1.4, 1.7):
            received = []
            for steps in 2, 6:  # the difference excludes data that is sent once per run
                before = self.hosts.received_bytes("host-b")
                metrics = self.dir / f"{flag}-{steps}.jsonl"
                output = self.succeeds([name for name in NAMES for _ in range(2)], *TRAIN, f"--all_reduce={flag}", "--bucket_mib=1",
                                       "--eval_every=1000", f"--max_steps={steps}", f"--metrics_out={metrics}")
                self.assertEqual("within nodes first" in output, flag == "auto")
                received.append(self.hosts.received_bytes("host-b") - before)
            share = (received[1] - received[0]) / 4 / (4 * PARAMETERS)
            self.assertTrue(least < share < most, f"--all_reduce={flag}: {share:.2f} times the gradients came over the cable")
            losses[flag] = [event["loss"] for event in numbers(metrics) if event["event"] == "step"]
        for auto, mpi in zip(losses["auto"], losses["mpi"], strict=True):
            self.assertAlmostEqual(auto, mpi, delta=1e-4 * mpi)

    def test_ends_when_the_cable_is_cut(self):
        with self.hosts.job(MPIRUN, NAMES, [*TRAIN, "--max_steps=1000000", "--watchdog_seconds=3"], self.dir / "output") as job:
            # Waits for some heartbeats during training: a rank reports its step four times a second.
            self.assertTrue(job.wait_for_text("step 300/", 60), job.text())
            self.hosts.cut("host-b")
            took = job.wait_until_gone(40)
            self.assertIsNotNone(took, f"processes are left: {job.pids()}\n{job.text()}")
            self.assertRegex(job.text(), r"rank 0 of 2: rank 1 (has sent no heartbeat|was lost: its connection).* in step \d+, \w+")
            self.assertEqual(job.process.returncode, COMMUNICATION, job.text())
            print(f"all gone {took:.1f} s after the cut", flush=True)

    def test_measures_overlap(self):
        """Checks that the script runs, not its measurements."""
        script = [sys.executable, hosts.HERE / "overlap.py", DEEPER, MPIRUN, "--rates=400mbit", "--steps=4", "--", *TRAIN[2:]]
        table = subprocess.run(script, capture_output=True, text=True)
        self.assertEqual(table.returncode, 0, table.stderr)
        self.assertRegex(table.stdout, r"(?m)^400mbit +\d+\.\d")

    def test_measures_what_the_model_was_not_given(self):
        """Checks that the script runs, not its measurements."""
        script = [sys.executable, hosts.HERE / "held_out.py", DEEPER, MPIRUN, "--rates=400mbit", "--repeats=1", "--steps=2", "--pause=1000",
                  "--batch=2,4,6", "--", *TRAIN[2:]]
        table = subprocess.run(script, capture_output=True, text=True)
        self.assertEqual(table.returncode, 0, table.stderr)
        points = re.findall(r"(?m)^(none|400mbit) +(\d) +(\d) +[\d.]+ +-?[\d.]+%.*?(calibrates|$)", table.stdout)
        self.assertEqual([(rate, ranks, batch) for rate, ranks, batch, calibrates in points if not calibrates],
                         [("none", "1", "4"), ("none", "2", "4"), *(("400mbit", "2", batch) for batch in "246")])


if __name__ == "__main__":
    if reason := hosts.obstacle():
        print(f"not run: {reason}")
        sys.exit(hosts.NOT_RUN)
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
