#!/usr/bin/env python3
"""Jobs whose mpirun is slow. If the mpirun of Open MPI 4 is stopped for some seconds while the ranks leave MPI, it ends with exit code 1,
although all ranks ended with 0 (https://github.com/open-mpi/ompi/issues/7833). The parameter orte_allowed_exit_without_sync prevents it.

stopped_launcher_test.py DEEPER MPIRUN STOPPED_LAUNCHER [unittest arguments]
STOPPED_LAUNCHER: the library of stopped_launcher.cpp
"""
import os
import pathlib
import signal
import subprocess
import sys
import time

STOPPED_LAUNCHER = str(pathlib.Path(sys.argv.pop(3)).resolve())

from cli import DEEPER, MPIRUN, ROOT, TRAIN, Cli, main  # noqa: E402

sys.path.insert(0, str(ROOT / "tests/faults"))
from jobs import Job  # noqa: E402

PARAMETER = "orte_allowed_exit_without_sync"
SYNTHETIC = ["--synthetic", "--synthetic_samples=48", "--num_classes=10", *TRAIN]


class StoppedLauncher(Cli):
    def ends_well(self, *command):
        log = self.dir / "log"
        environment = {name: value for name, value in os.environ.items() if PARAMETER not in name}
        done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False,
                              env=environment | {"LD_PRELOAD": STOPPED_LAUNCHER, "STOPPED_LAUNCHER_LOG": log, "OMP_NUM_THREADS": "1"})
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("stopped", log.read_text())
        log.unlink()
        return done.stdout + done.stderr

    def test_of_deeper_run(self):
        text = self.ends_well(ROOT / "launch/deeper-run", f"--deeper={DEEPER}", f"--mpirun={MPIRUN}", "--oversubscribe", "-n", "2", "--",
                              "train", *SYNTHETIC, "--max_steps=1")
        self.assertIn("step 1/1", text)

    def test_of_bench_scaling(self):
        self.ends_well(DEEPER, "bench", "scaling", "--ranks=2", f"--mpirun={MPIRUN} --oversubscribe --bind-to none --allow-run-as-root", "--steps=2",
                       "--warmup=1", "--rounds=2", "--", *SYNTHETIC)

    def test_that_has_no_ranks_yet(self):
        """A signal that it could forward to nobody must not be lost."""
        launcher, begun = self.dir / "launcher", self.dir / "begun"
        launcher.write_text(f"""#!/bin/sh
case "$*" in *train*) trap "" USR1; : >{begun}; exec sleep 600; esac
exec {MPIRUN} "$@"
""")
        launcher.chmod(0o755)
        command = [ROOT / "launch/deeper-run", f"--deeper={DEEPER}", f"--mpirun={launcher}", "-n", "1", "--",
                   "train", f"--checkpoint_dir={self.dir}/run"]
        with Job(command, self.dir / "output") as job:
            end = time.monotonic() + 60
            while not begun.exists():
                self.assertTrue(job.process.poll() is None and time.monotonic() < end, job.text())
                time.sleep(0.02)
            job.process.send_signal(signal.SIGTERM)
            self.assertIsNotNone(job.wait_until_gone(60), job.text())
            self.assertEqual(job.process.returncode, 128 + signal.SIGTERM, job.text())


if __name__ == "__main__":
    main()
