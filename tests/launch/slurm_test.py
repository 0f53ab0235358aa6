#!/usr/bin/env python3
"""launch/deploy/slurm/train.sbatch in a Slurm of one node, which this test starts: a job returns to the queue after a signal, and resumes.
Run it manually, as root, with slurmctld, slurmd, slurm-client and munge of Debian. It takes about three minutes, because Slurm delays a
requeued job by two.

slurm_test.py DEEPER_RUN DEEPER MPIRUN [unittest arguments]
"""
import os
import pathlib
import secrets
import shutil
import socket
import subprocess
import time
import unittest

from launch_test import OPTIONS, STEPS, TRAIN, Launch, newest, unittest_arguments

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "launch/deploy/slurm/train.sbatch"
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
AuthInfo=socket={dir}/munge.socket
StateSaveLocation={dir}/state
SlurmdSpoolDir={dir}/spool
SlurmctldPidFile={dir}/slurmctld.pid
SlurmdPidFile={dir}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
NodeName={host} NodeAddr=127.0.0.1 CPUs=2
PartitionName=all Nodes=ALL Default=YES
"""


class Slurm(Launch):
    def setUp(self):
        super().setUp()
        self.dir.chmod(0o755)
        (self.dir / "state").mkdir()
        (self.dir / "key").write_bytes(secrets.token_bytes(128))
        (self.dir / "key").chmod(0o600)
        (self.dir / "slurm.conf").write_text(CONFIGURATION.format(dir=self.dir, host=socket.gethostname()))
        os.environ["SLURM_CONF"] = str(self.dir / "slurm.conf")
        self.executable("deeper-run", f'exec {OPTIONS.deeper_run} --deeper={OPTIONS.deeper} --mpirun={OPTIONS.mpirun} "$@"')
        os.environ["PATH"] += f":{self.dir}/bin"
        munge = {name: f"--{name}-file={self.dir}/munge.{name}" for name in ("pid", "log", "seed")}
        for daemon in (["munged", "--foreground", "--force", f"--socket={self.dir}/munge.socket", f"--key-file={self.dir}/key", *munge.values()],
                       ["slurmctld", "-D", "-c"], ["slurmd", "-D"]):
            self.start(daemon)
            time.sleep(1)

    def start(self, daemon):
        process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *daemon], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)

    def slurm(self, *command):
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def wait_for(self, condition):
        end = time.monotonic() + 300
        while not condition():
            time.sleep(0.5)
            if time.monotonic() > end:
                self.fail(self.slurm("scontrol", "show", "job") + (self.dir / "output").read_text())

    def test_requeue(self):
        run = self.dir / "run"
        sbatch = ["--nodes=1", "--ntasks-per-node=2", "--gpus-per-node=0", "--time=10", f"--output={self.dir}/output", str(SCRIPT), *TRAIN[1:],
                  f"--checkpoint_dir={run}", "--deterministic=true"]
        self.slurm("sbatch", "--test-only", *sbatch)
        job = self.slurm("sbatch", "--parsable", *sbatch).strip()
        self.wait_for(lambda: newest(run) >= 20)
        self.slurm("scancel", "--batch", "--signal=USR1", job)  # as five minutes before its time limit
        self.wait_for(lambda: "JobState=PENDING" in self.slurm("scontrol", "show", "job", job))
        self.wait_for(lambda: "JobState=COMPLETED" in self.slurm("scontrol", "show", "job", job))
        output = (self.dir / "output").read_text()
        self.assertRegex(output, r"resume +none")
        self.assertRegex(output, r"resume .*: \d+ steps done")
        self.assertEqual(newest(run), STEPS)


if __name__ == "__main__":
    if missing := [tool for tool in ("munged", "slurmctld", "slurmd", "sbatch") if shutil.which(tool) is None]:
        raise SystemExit(f"not run: {', '.join(missing)} not installed")
    unittest.main(argv=[__file__, *unittest_arguments])
