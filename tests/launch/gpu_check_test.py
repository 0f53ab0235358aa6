#!/usr/bin/env python3
"""gpu-check on the fake CUDA, with kernels that are right, hang, fault or compute wrong results.

gpu_check_test.py GPU_CHECK DEEPER KERNELS_TESTS TRAINER_TESTS [unittest arguments]; the last three run on the fake CUDA
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

GPU_CHECK, DEEPER, KERNELS_TESTS, TRAINER_TESTS = (sys.argv.pop(1) for _ in range(4))
BUDGET = 570  # seconds
PARTS = ["device", "kernels", "ops", "training"]
# Quick ones. The op tests have modules that use deeper's own kernels.
GPU_TESTS = """own *ConvolutionOnGpuTest.PoolBranches*
kernels_tests *FusedInceptionOp*:*inceptionleast*:*Linear*
trainer_tests *DeviceImages*
"""
NVIDIA_SMI = """#!/bin/sh
case $* in *--query-gpu*) echo "Fake GPU, 1.0, 4096 MiB" ;; esac
"""


class GpuCheck(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.root = pathlib.Path(temporary.name)
        self.out = self.root / "out"
        (self.root / "bin").mkdir()
        (self.root / "tests").mkdir()
        (self.root / "tests" / "gpu-tests.txt").write_text(GPU_TESTS)
        for name, file in {"deeper": DEEPER, "kernels_tests": KERNELS_TESTS, "trainer_tests": TRAINER_TESTS}.items():
            (self.root / "bin" / name).symlink_to(file)
        shutil.copy(GPU_CHECK, self.root / "bin" / "gpu-check")
        for name, text in {"run": '#!/bin/sh\nexec "$@"\n', "nvidia-smi": NVIDIA_SMI}.items():
            (self.root / "bin" / name).write_text(text)
            (self.root / "bin" / name).chmod(0o755)

    def check(self, script, *arguments, seconds="60"):
        environment = {
            **os.environ,
            "PATH": f"{self.root}/bin:{os.environ['PATH']}",
            "OUT": str(self.out),
            "OMP_NUM_THREADS": "1",
            "DEEPER_FAKE_CUDA": script,
            "DEEPER_KERNEL_SECONDS": seconds,
        }
        done = subprocess.run([self.root / "bin" / "gpu-check", *arguments], env=environment, capture_output=True, text=True, timeout=280)
        summary = (self.out / "summary.txt").read_text() if self.out.exists() else ""
        return done, {line.split()[0]: line for line in summary.splitlines() if line.strip()}

    def check_others_pass(self, rows):
        for part in "device", "ops", "training":
            self.assertRegex(rows[part], f"^{part} +passed", (self.out / f"{part}.log").read_text()[-3000:])
        self.assertRegex(rows["kernels"], "the other parts run without deeper's own kernels")

    def test_a_gpu_that_works(self):
        done, rows = self.check("seed=2", *PARTS)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(list(rows), PARTS)
        self.assertIn("Fake GPU", rows["device"])
        self.assertRegex(rows["kernels"], "passed .* 1 passed, 0 failed, 0 crashed")
        found = json.loads((self.out / "gpu-check.json").read_text())
        self.assertEqual([part["name"] for part in found["parts"]], PARTS)
        self.assertEqual({part["outcome"] for part in found["parts"]}, {"passed"})
        self.assertEqual(found["device"], {"deviceVer": 900})
        self.assertEqual(found["own_kernels"], "all")

    def test_a_kernel_that_hangs(self):
        done, rows = self.check("seed=2 own=hang", *PARTS)
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertRegex(rows["kernels"], "FAILED 1 .* 0 passed, 0 failed, 1 crashed")
        log = (self.out / "kernels.log").read_text()
        self.assertIn("on trial: own", log)
        self.assertRegex(log, r"CRASHED \] .*PoolBranchesOfGoogLeNet, exit status 134")
        self.check_others_pass(rows)
        self.assertEqual(json.loads((self.out / "gpu-check.json").read_text())["own_kernels"], "none")

    def test_a_kernel_that_faults(self):
        done, rows = self.check("seed=2 own=fault", *PARTS)
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertRegex(rows["kernels"], "FAILED 1 .* 0 passed, 0 failed, 1 crashed")
        self.assertIn("cudaErrorIllegalAddress", (self.out / "kernels.log").read_text())
        self.check_others_pass(rows)

    def test_a_kernel_that_is_wrong(self):
        done, rows = self.check("seed=2 own=wrong", *PARTS)
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertRegex(rows["kernels"], "FAILED 1 .* 0 passed, 1 failed, 0 crashed")
        self.check_others_pass(rows)

    def test_a_slow_test_does_not_exclude_the_kernels(self):
        done, rows = self.check("seed=2", "kernels", seconds="0.01")
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertRegex(rows["kernels"], "FAILED 1 .* 0 passed, 0 failed, 0 crashed$")
        self.assertIn("PoolBranchesOfGoogLeNet: did not end within 0.01 s", (self.out / "kernels.log").read_text())
        self.assertEqual(json.loads((self.out / "gpu-check.json").read_text())["own_kernels"], "all")

    def test_what_has_no_time_left_is_said(self):
        done, rows = self.check("seed=2", "--budget=0", "ops", "training")
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        for part in "ops", "training":
            self.assertRegex(rows[part], f"^{part} +not run .* no time left of 0 s")
        self.assertEqual({part["outcome"] for part in json.loads((self.out / "gpu-check.json").read_text())["parts"]}, {"not run"})

    def test_without_a_gpu_no_part_is_run(self):
        (self.root / "bin" / "nvidia-smi").unlink()
        done, rows = self.check("devices=0", *PARTS)
        self.assertEqual(done.returncode, 77, done.stdout + done.stderr)
        self.assertIn("CUDA finds no GPU", rows["because:"])

    def test_the_limits_of_all_parts_fit_in_the_budget(self):
        done = subprocess.run([GPU_CHECK, "--limits"], capture_output=True, text=True, check=True)
        limits = {part: int(limit) for part, limit in (line.split() for line in done.stdout.splitlines())}
        self.assertLessEqual(sum(limits.values()), BUDGET)
        self.assertEqual(list(limits)[:3], ["device", "kernels", "bench-256"], "the most valuable facts come first")


if __name__ == "__main__":
    unittest.main()
