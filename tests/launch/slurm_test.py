#!/usr/bin/env python3
"""Jobs in a Slurm of two nodes, which this test starts: each daemon runs in the namespaces of its own host (tests/multinode/hosts.py).

Counted as not run where namespaces are not allowed, or slurmctld, slurmd, slurm-client or munge of Debian are missing.
DEEPER_LONG_TESTS=1 also waits for a real time limit and for the return of a lost node, which takes minutes.

slurm_test.py DEEPER_RUN DEEPER MPIRUN [unittest arguments]
"""
import os
import pathlib
import re
import secrets
import shutil
import subprocess
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "multinode"))
import hosts
from launch_test import COMMUNICATION, OPTIONS, PREEMPTED, TRAIN, USAGE, Launch, newest, unittest_arguments

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "launch/deploy/slurm/train.sbatch"
TOOLS = "munged", "slurmctld", "slurmd", "sbatch", "srun"
CONTROLLER, NODES = "head", ("n1", "n2")
# cred_expire: a job waits for so long after it was requeued. The partition "high" preempts jobs of "low".
CONFIGURATION = """
ClusterName=test
SlurmctldHost={controller}({address})
SlurmUser=root
AuthInfo=socket={dir}/munge.socket,cred_expire=5
StateSaveLocation={dir}/state
SlurmdSpoolDir={dir}/spool.%n
TmpFS={dir}/tmp.%n
SlurmctldPidFile={dir}/slurmctld.pid
SlurmdPidFile={dir}/slurmd.%n.pid
SlurmctldLogFile={dir}/slurmctld.log
SlurmdLogFile={dir}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=20
SlurmdTimeout=10
ReturnToService=2
NodeName=DEFAULT CPUs=4 RealMemory=1000
{nodes}
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=60
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF
"""


class Cluster(Launch):
    """A Slurm of two nodes, for runs of 1 to 2 ranks, a rank on each node."""

    def setUp(self):
        super().setUp()
        self.dir.chmod(0o755)
        self.hosts = self.enterContext(hosts.Hosts((CONTROLLER, *NODES)))
        self.addCleanup(lambda: [self.hosts.lose(name) for name in NODES])  # with what their jobs left
        (self.dir / "state").mkdir()
        for node in NODES:
            (self.dir / f"spool.{node}").mkdir()
            (self.dir / f"tmp.{node}").mkdir()
        (self.dir / "key").write_bytes(secrets.token_bytes(128))
        (self.dir / "key").chmod(0o600)
        nodes = "\n".join(f"NodeName={node} NodeAddr={self.hosts.addresses[node]}" for node in NODES)
        (self.dir / "slurm.conf").write_text(CONFIGURATION.format(
            dir=self.dir, controller=CONTROLLER, address=self.hosts.addresses[CONTROLLER], nodes=nodes))
        self.executable("deeper", f'exec {OPTIONS.deeper} "$@"')
        self.executable("deeper-run", f'exec {OPTIONS.deeper_run} --deeper={OPTIONS.deeper} --mpirun={OPTIONS.mpirun} "$@"')
        self.environment = os.environ | {"SLURM_CONF": str(self.dir / "slurm.conf"), "PATH": f"{self.dir}/bin:{os.environ['PATH']}"}
        munge = {name: f"--{name}-file={self.dir}/munge.{name}" for name in ("pid", "log", "seed")}
        munge = [f"--socket={self.dir}/munge.socket", f"--key-file={self.dir}/key", *munge.values()]
        self.start(CONTROLLER, "munged", "--foreground", "--force", *munge)
        self.wait_for(lambda: (self.dir / "munge.socket").exists())
        self.start(CONTROLLER, "slurmctld", "-D", "-c")
        self.nodes = {node: self.start(node, "slurmd", "-D") for node in NODES}
        self.wait_for(lambda: self.slurm("sinfo", "-h", "-t", "idle", "-o", "%D").split() == ["2"])

    def start(self, host, *daemon):
        command = ["setpriv", "--pdeathsig", "KILL", *self.hosts.enter(host), *daemon]
        process = subprocess.Popen(command, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def slurm(self, *command):
        """The output of a command on the controller; empty if it fails, as before all daemons are up."""
        return subprocess.run([*self.hosts.enter(CONTROLLER), *command], capture_output=True, text=True, env=self.environment).stdout

    def srun(self, *command):
        command = [*self.hosts.enter(CONTROLLER), "srun", "--nodes=2", "--ntasks=2", *command]
        return subprocess.run(command, capture_output=True, text=True, env=self.environment, timeout=120)

    def submit(self, launcher, *flags, options=("--nodes=2", "--time=10")):
        """-> number of a job with train.sbatch that needs both nodes."""
        job = self.slurm("env", f"LAUNCHER={launcher}", "sbatch", "--parsable", "--ntasks-per-node=1", "--gpus-per-node=0",
                         f"--output={self.dir}/output", *options, str(SCRIPT), *TRAIN[1:], f"--checkpoint_dir={self.dir}/run", *flags).strip()
        self.assertRegex(job, r"^\d+$")
        return job

    def output(self):
        path = self.dir / "output"
        return path.read_text() if path.exists() else ""

    def state(self, job):
        return re.findall(r"JobState=(\w+)", self.slurm("scontrol", "show", "job", job))[0]

    def wait_for(self, condition, seconds=120):
        end = time.monotonic() + seconds
        while not condition():
            time.sleep(0.2)
            if time.monotonic() > end:
                self.fail(self.slurm("scontrol", "show", "job") + self.slurm("sinfo") + self.output())


class Slurm(Cluster):
    def test_srun_without_pmi_starts_no_separate_trainings(self):
        result = self.srun("--mpi=none", "deeper", *TRAIN)
        self.assertEqual(result.returncode, USAGE, result.stderr)
        self.assertEqual(result.stdout, "")
        self.assertEqual(len(re.findall(r"the launcher started 2 processes .*srun --mpi=pmix", result.stderr)), 1, result.stderr)

    def test_srun_with_pmix(self):
        result = self.srun("--mpi=pmix", "deeper", *TRAIN, "--max_steps=10")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertRegex(result.stdout, r"ranks +2 over mpi")

    def test_a_lost_node_is_named(self):
        """Slurm ends the step on the other node as well."""
        with self.hosts.job_of(["env", f"SLURM_CONF={self.dir}/slurm.conf", *self.hosts.enter(CONTROLLER), "srun", "--nodes=2", "--ntasks=2",
                                "--mpi=pmix", OPTIONS.deeper, *TRAIN, "--max_steps=1000000", "--log_every=10", "--watchdog_seconds=4"],
                               self.dir / "srun") as job:
            self.assertTrue(job.wait_for_text("step 20/", 60), job.text())
            self.hosts.lose("n2")
            self.assertIsNotNone(job.wait_until_gone(60), job.text())
            self.assertRegex(job.text(), r"rank 0 of 2: rank 1 (has sent no heartbeat|was lost)")
            self.assertEqual(job.process.returncode, COMMUNICATION, job.text())

    def requeues(self, launcher, stop):
        """The job saves at a stop, returns to the queue, and trains on."""
        job = self.submit(launcher, "--checkpoint_every=1000000", "--checkpoint_minutes=0", "--log_every=1", "--max_steps=1000000")
        self.wait_for(lambda: "step 10/" in self.output())
        stop(job)
        self.wait_for(lambda: "is saved; run the same command again" in self.output())
        saved = newest(self.dir / "run")
        self.assertGreater(saved, 0, self.output())
        self.wait_for(lambda: f"step {saved + 1}/" in self.output())
        self.assertRegex(self.output(), rf"resume .*: {saved} steps done")

    def test_tasks_of_an_array_do_not_share_a_directory(self):
        """One task trains. The other one names its owner: host, process and job."""
        array = "--array=1-2", "--nodes=1", "--time=10", f"--output={self.dir}/output.%a"
        self.submit("srun", "--max_steps=1000000", "--log_every=1", options=array)
        texts = [self.dir / "output.1", self.dir / "output.2"]

        def says(words):
            return [path for path in texts if path.exists() and words in path.read_text()]
        self.wait_for(lambda: says("is in use by another process") and says("step 10/"))
        (refused,) = says("is in use by another process")
        self.assertRegex(refused.read_text(), r"process \d+ on host n[12], job \d+")
        self.assertNotEqual([refused], says("step 10/"))

    def test_no_gpu(self):
        """One message, though each task lacks one."""
        result = self.srun("--mpi=pmix", "deeper", *TRAIN, "--device=cuda")
        self.assertEqual(result.returncode, USAGE, result.stderr)
        self.assertEqual(len(re.findall(r"deeper train: ", result.stderr)), 1, result.stderr)

    def preempt(self, job):
        self.slurm("sbatch", "--partition=high", "--nodes=2", "--exclusive", "--time=1", "--output=/dev/null", "--wrap=sleep 1")

    def signal(self, job):
        """As five minutes before the time limit."""
        self.slurm("scancel", "--batch", "--signal=USR1", job)

    def test_requeue_at_the_time_limit_with_mpirun(self):
        self.requeues("deeper-run", self.signal)

    def test_requeue_at_the_time_limit_with_srun(self):
        self.requeues("srun", self.signal)

    def test_requeue_after_a_preemption(self):
        self.requeues("srun", self.preempt)

    def test_scancel_saves_and_does_not_requeue(self):
        job = self.submit("srun", "--checkpoint_every=1000000", "--log_every=1", "--max_steps=1000000")
        self.wait_for(lambda: "step 10/" in self.output())
        self.slurm("scancel", job)
        self.wait_for(lambda: self.state(job) == "CANCELLED" and "is saved; run the same command again" in self.output())
        self.assertGreater(newest(self.dir / "run"), 0)
        self.assertIn(f"Exited with exit code {PREEMPTED}", self.output())


if os.environ.get("DEEPER_LONG_TESTS"):
    class LongSlurm(Cluster):
        def test_a_real_time_limit(self):
            """Slurm sends the signal up to a minute before the limit of one minute."""
            job = self.submit("srun", "--checkpoint_every=1000000", "--checkpoint_minutes=0", "--log_every=1", "--max_steps=1000000",
                              options=("--nodes=2", "--time=2", "--signal=B:USR1@60"))
            self.wait_for(lambda: "is saved; run the same command again" in self.output(), 180)
            self.wait_for(lambda: " steps done, next is batch" in self.output(), 60)
            self.assertIn("Restarts=1", self.slurm("scontrol", "show", "job", job))

        def test_a_batch_job_returns_after_its_node_was_lost(self):
            job = self.submit("srun", "--checkpoint_every=20", "--log_every=1", "--max_steps=1000000",
                              options=("--nodes=1", "--time=10", "--nodelist=n2"))
            self.wait_for(lambda: newest(self.dir / "run") > 0)
            self.hosts.lose("n2")
            self.wait_for(lambda: self.state(job) == "PENDING")
            self.slurm("scontrol", "update", f"jobid={job}", "reqnodelist=")  # Slurm does not change it while the job runs
            self.wait_for(lambda: " steps done, next is batch" in self.output(), 180)
            self.assertIn("Restarts=1", self.slurm("scontrol", "show", "job", job))


if __name__ == "__main__":
    if reason := hosts.obstacle() or next((f"{tool} is not installed" for tool in TOOLS if shutil.which(tool) is None), None):
        print(f"not run: {reason}")
        sys.exit(hosts.NOT_RUN)
    unittest.main(argv=[sys.argv[0], *unittest_arguments])
