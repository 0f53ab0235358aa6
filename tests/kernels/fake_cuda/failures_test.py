#!/usr/bin/env python3
"""The program on the fake CUDA: calls that fail or hang end it with one clear message.

failures_test.py DEEPER_ON_FAKE_CUDA [unittest arguments]
"""

import json
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
# They open the device. Their failure is one of the machine, as in a wrong flag.
OPENING = {"cudaDriverGetVersion", "cudaGetDeviceCount", "cudaGetDeviceProperties", "cudaSetDevice", "cudaDeviceGetPCIBusId"}
OPENING |= {"cudaFuncGetAttributes", "cudnnCreate", "cublasLtCreate"}
PLANNING = "cublasLt", "cudnnBackend"
FAULT, USAGE, COMMUNICATION = 1, 2, 5  # exit codes
# As a device ends, it waits for its streams, whatever they say.
UNCHECKED = {"cudaStreamSynchronize": 3}


def train(plans, script, *flags):
    command = [DEEPER, "train", "--device=cuda", "--synthetic", "--synthetic_samples=8", "--num_classes=5", "--global_batch=4", "--micro_batch=2"]
    command += ["--max_steps=3", f"--plan_cache={plans}", *flags]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DEEPER_FAKE_CUDA": script}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


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
        counts = (line.rsplit(" ", 1) for line in report.read_text().splitlines())
        cls.calls = {name: int(count) for name, count in counts if " " not in name}  # without "early start", which is no call

    @classmethod
    def train(cls, script, *flags):
        return train(cls.dir / "plans", script, "--model=nin-cifar", "--image_size=10", "--deterministic=true", *flags)

    def check_one_message(self, done, call, code):
        self.assertEqual(done.returncode, code, done.stderr)
        messages = [line for line in done.stderr.splitlines() if call in line or line.startswith("deeper")]
        self.assertTrue(messages, done.stderr)

    def check_plans(self, done):
        """A plan that a library cannot make is left out. Without another plan for the layer, the run ends before the first step. A plan
        that fails in a step is a fault."""
        self.assertIn(done.returncode, (0, USAGE, FAULT), done.stderr)
        if done.returncode != 0:
            self.assertRegex(done.stderr, r"(cuDNN|cuBLASLt): CU(DNN|BLAS)_STATUS_OF_THE_FAKE")
        if done.returncode == USAGE:
            self.assertRegex(done.stderr, r"^deeper train: nin-cifar, layer \S+: ")

    def test_every_call_that_fails_is_named(self):
        """The first of its kind, one in the middle, the last."""
        for call, count in self.calls.items():
            if call in HARMLESS:
                continue
            last = count - UNCHECKED.get(call, 0)
            for nth in sorted({1, (last + 1) // 2, last}):
                with self.subTest(call=call, nth=nth):
                    done = self.train(f"seed=2 fail={call}:{nth}:{LAUNCH_FAILURE}")
                    if call.startswith(PLANNING) and call not in OPENING:
                        self.check_plans(done)
                    else:
                        self.check_one_message(done, call, USAGE if call in OPENING else FAULT)

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
                    # A small buffer that does not fit ends the process; all that depends on flags says what to do.
                    self.assertEqual(done.returncode, FAULT if "small_buffer.h" in done.stderr else USAGE, done.stderr)
                    self.assertRegex(done.stderr, "memory|--micro_batch")

    def test_a_lost_device_ends_the_run(self):
        for call in "launch", "cudaStreamSynchronize", "cudaGraphLaunch":
            with self.subTest(call=call):
                self.check_one_message(self.train(f"seed=2 lose={call}:{self.calls[call] - UNCHECKED.get(call, 0)}:{LAUNCH_FAILURE}"), "cuda", FAULT)

    def test_a_hang_ends_by_the_watchdog(self):
        for call in "launch", "cudaStreamSynchronize", "cudaGraphLaunch", "cudaMemcpyAsync":
            with self.subTest(call=call):
                done = self.train(f"seed=2 hang={call}:{self.calls[call] - UNCHECKED.get(call, 0) - 1}", "--watchdog_seconds=2")
                self.assertEqual(done.returncode, COMMUNICATION, done.stderr)
                self.assertRegex(done.stderr, r"rank 0 has made no progress for .*\(--watchdog_seconds=2\)|the only rank has waited for")


class OwnKernels(unittest.TestCase):
    """Deeper's own kernels, which the tuner tries first, hang, fault or compute wrong results."""

    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.dir = pathlib.Path(temporary.name)

    def train(self, script, *flags):
        googlenet = ["--model=googlenet", "--stem=small", "--image_size=8", "--aux=false", "--precision=bf16"]
        googlenet.append(f"--trial_seconds={5 if 'own=hang' in script else 60}")
        return train(self.dir / "plans", script, *googlenet, *flags)

    def plans(self):
        """The plans themselves, without the problems that they are for."""
        environments = json.loads((self.dir / "plans").read_text())["plans"].values()
        return "".join(plan for plans in environments for plan in plans.values())

    def check_next_start(self, record):
        """It does without the kernel, says so, and says how to try it again."""
        records = list(self.dir.glob("plans.trial.*"))
        self.assertEqual(len(records), 1, records)
        done = self.train(record)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stderr, f"warning: own checked sm90 is not used, .* did not survive that; to try it again, delete {records[0]}")
        records[0].unlink()
        self.assertNotIn("own checked sm90", self.plans())
        self.assertEqual(self.train("seed=2").stderr.count("is not used"), 0)
        self.assertIn("own checked sm90", self.plans())  # although a plan without it is in the cache

    def test_one_that_hangs_ends_the_run_and_is_not_run_again(self):
        done = self.train("seed=2 own=hang")
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertRegex(done.stderr, r"it did not within 5000 ms \(on trial: own checked sm90 for convolution .*dw fp32")
        self.check_next_start("seed=2 own=hang")

    def test_one_that_faults_ends_the_run_and_is_not_run_again(self):
        for seed in 1, 2:  # the launch itself reports the fault, or a later call
            with self.subTest(seed=seed):
                (self.dir / "plans").unlink(missing_ok=True)
                done = self.train(f"seed={seed} own=fault")
                self.assertEqual(done.returncode, 1, done.stderr)
                self.assertRegex(done.stderr, r"cudaErrorIllegalAddress: .* \(on trial: own checked sm90 for convolution .*dw fp32")
                self.check_next_start("seed=2 own=fault")

    def test_one_that_is_wrong_is_excluded(self):
        done = self.train("seed=2 own=wrong")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stderr, "own checked sm90 is excluded: at pixel .*, and the library has")
        self.assertEqual(list(self.dir.glob("plans.trial.*")), [])

    def test_none_is_run_where_the_flag_says_so(self):
        done = self.train("seed=2 own=hang", "--own_kernels=none")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertNotIn("own", self.plans())
        self.train("seed=2")
        self.assertIn("own checked sm90", self.plans())  # although a plan without it is in the cache

    def test_those_with_wgmma_are_left_out_where_the_flag_says_so(self):
        done = self.train("seed=2", "--own_kernels=sm80")
        self.assertEqual(done.returncode, 0, done.stderr)
        plans = (self.dir / "plans").read_text()
        self.assertIn("own checked sm80", plans)
        self.assertNotIn("sm90", plans)


if __name__ == "__main__":
    unittest.main()
