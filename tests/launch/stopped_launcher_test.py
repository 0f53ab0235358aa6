#!/usr/bin/env python3
"""Jobs whose mpirun is stopped for some seconds while the ranks leave MPI, as on a busy machine. The mpirun of Open MPI 4 then ends with
exit code 1, although all ranks ended with 0 (https://github.com/open-mpi/ompi/issues/7833). The parameter
orte_allowed_exit_without_sync prevents it.

stopped_launcher_test.py DEEPER MPIRUN STOPPED_LAUNCHER [unittest arguments]
STOPPED_LAUNCHER: the library of stopped_launcher.cpp
"""
import os
import pathlib
import subprocess
import sys

STOPPED_LAUNCHER = str(pathlib.Path(sys.argv.pop(3)).resolve())

from cli import DEEPER, MPIRUN, ROOT, TRAIN, Cli, main  # noqa: E402

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


if __name__ == "__main__":
    main()
