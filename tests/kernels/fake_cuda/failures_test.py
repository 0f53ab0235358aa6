#!/usr/bin/env python3
"""The program on the fake CUDA: calls that fail or hang end it with one clear message.

failures_test.py DEEPER_ON_FAKE_CUDA [unittest arguments]
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

DEEPER = sys.argv.pop(1)
OUT_OF_MEMORY, LAUNCH_FAILURE, SUCCESS = 2, 719, 0
# What may fail without harm: it tears down, or describes.
HARMLESS = {"cudaEventDestroy", "cudaStreamDestroy", "cudaGraphExecDestroy", "cudaFree", "cudaFreeHost"}
# As a device ends, it waits for its streams, whatever they say.
UNCHECKED = {"cudaStreamSynchronize": 3}


class Failures(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(temporary.cleanup)
        cls.dir = pathlib.Path(temporary.name)
        report = cls.dir / "calls"
        for script in "seed=2", f"seed=2 report={report}":  # the first run tunes, and fills the cache of plans
            done = cls.train(script)
            assert done.returncode == 0, done.stderr
        cls.calls = {name: int(count) for name, count in (line.split() for line in report.read_text().splitlines())}

    @classmethod
    def train(cls, script, *flags):
        command = [
            DEEPER,
            "train",
            "--device=cuda",
            "--synthetic",
            "--synthetic_samples=8",
            "--model=nin-cifar",
            "--image_size=10",
            "--num_classes=5",
            "--global_batch=4",
            "--micro_batch=2",
            "--max_steps=3",
            "--deterministic=true",
            f"--plan_cache={cls.dir}/plans",
            *flags,
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "DEEPER_FAKE_CUDA": script}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)

    def check_one_message(self, done, call):
        self.assertGreater(done.returncode, 0, f"ended by a signal, or not at all: {done.stderr}")
        messages = [line for line in done.stderr.splitlines() if call in line or line.startswith("deeper")]
        self.assertTrue(messages, done.stderr)

    def test_every_call_that_fails_is_named(self):
        """The first of its kind, one in the middle, the last."""
        for call, count in self.calls.items():
            if call in HARMLESS:
                continue
            last = count - UNCHECKED.get(call, 0)
            for nth in sorted({1, (last + 1) // 2, last}):
                with self.subTest(call=call, nth=nth):
                    done = self.train(f"seed=2 fail={call}:{nth}:{LAUNCH_FAILURE}")
                    self.check_one_message(done, call)

    def test_harmless_failures_change_nothing(self):
        for call in sorted(HARMLESS & self.calls.keys()):
            with self.subTest(call=call):
                done = self.train(f"seed=2 fail={call}:{self.calls[call]}:{LAUNCH_FAILURE}")
                self.assertEqual(done.returncode, 0, done.stderr)

    def test_too_little_memory_is_said(self):
        for call in "cudaMalloc", "cudaMallocHost":
            for nth in range(1, self.calls[call] + 1):
                with self.subTest(call=call, nth=nth):
                    done = self.train(f"seed=2 fail={call}:{nth}:{OUT_OF_MEMORY}")
                    self.assertGreater(done.returncode, 0, done.stderr)
                    self.assertRegex(done.stderr, "memory|--micro_batch")

    def test_a_lost_device_ends_the_run(self):
        for call in "launch", "cudaStreamSynchronize", "cudaGraphLaunch":
            with self.subTest(call=call):
                self.check_one_message(self.train(f"seed=2 lose={call}:{self.calls[call] - UNCHECKED.get(call, 0)}:{LAUNCH_FAILURE}"), "cuda")

    def test_a_hang_ends_by_the_watchdog(self):
        for call in "launch", "cudaStreamSynchronize", "cudaGraphLaunch", "cudaMemcpyAsync":
            with self.subTest(call=call):
                done = self.train(f"seed=2 hang={call}:{self.calls[call] - UNCHECKED.get(call, 0) - 1}", "--watchdog_seconds=2")
                self.assertGreater(done.returncode, 0, done.stderr)
                self.assertRegex(done.stderr, "watchdog|no progress|hang")


if __name__ == "__main__":
    unittest.main()
