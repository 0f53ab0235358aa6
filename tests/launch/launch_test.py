#!/usr/bin/env python3
"""launch/deeper-run: the command line of mpirun, restarts after failures, and the end of all processes.

launch_test.py DEEPER_RUN DEEPER MPIRUN [--kills=N] [--seed=S] [unittest arguments]
"""
import argparse
import json
import os
import pathlib
import random
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

import h5py
import numpy
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/faults"))
from jobs import Job  # noqa: E402

parser = argparse.ArgumentParser(usage=__doc__)
parser.add_argument("deeper_run")
parser.add_argument("deeper")
parser.add_argument("mpirun")
parser.add_argument("--kills", type=int, default=3)
parser.add_argument("--seed", type=int, default=random.randrange(10**6))
OPTIONS, unittest_arguments = parser.parse_known_args()
USAGE, DATA, COMMUNICATION, PREEMPTED, KILLED = 2, 3, 5, 75, 128 + signal.SIGKILL
RUN = [OPTIONS.deeper_run, f"--deeper={OPTIONS.deeper}", f"--mpirun={OPTIONS.mpirun}"]
STEPS = 300  # enough for a job to run until the last kill also on a fast machine
TRAIN = ["train", "--synthetic", "--synthetic_samples=200", "--model=nin-cifar", "--image_size=10", "--num_classes=10", "--threads=1",
         "--global_batch=4", "--eval_every=1000000", "--checkpoint_every=5", "--watchdog_seconds=30", f"--max_steps={STEPS}"]


def state(run_dir):
    """The weights of the last step, saved by any number of ranks."""
    shards = sorted((run_dir / f"step-{STEPS:09}").glob("shard-*.h5"))
    return numpy.concatenate([h5py.File(shard)["state"][:] for shard in shards])


def newest(run_dir):
    return max((int(path.parent.name[5:]) for path in run_dir.glob("step-*/manifest.json")), default=0)


class Launch(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.dir = pathlib.Path(temporary.name)

    def executable(self, name, script):
        """Writes a program on the PATH."""
        path = self.dir / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def launch(self, *arguments, **variables):
        path = f"{self.dir}/bin:{os.environ['PATH']}"
        return subprocess.run([*RUN, *arguments], capture_output=True, text=True, timeout=120, env=os.environ | {"PATH": path} | variables)

    def gone(self, job, code):
        self.assertIsNotNone(job.wait_until_gone(120), f"processes are left: {list(job.pids())}\n{job.text()}")
        self.assertEqual(job.process.returncode, code, job.text())

    def shown(self, metrics):
        """The data of the run in a report."""
        page = self.dir / "report.html"
        result = subprocess.run([OPTIONS.deeper, "report", metrics, f"--output={page}"], capture_output=True, text=True)
        self.assertEqual(result.returncode, 0, result.stderr)
        (run,) = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)[1])["runs"]
        return run


class DryRun(Launch):
    """The hosts and cores that it finds."""

    def line(self, *arguments, **variables):
        """mpirun's arguments, without those of deeper, and the reasons."""
        result = self.launch("--dry_run", *arguments, "--", "train", "--data=x", **variables)
        self.assertEqual(result.returncode, 0, result.stderr)
        words = shlex.split(result.stdout.splitlines()[-1])
        self.assertEqual(words[-3:], [OPTIONS.deeper, "train", "--data=x"])
        return " ".join(words[:-3]), result.stdout

    def gpus(self, count):
        self.executable("nvidia-smi", f"for i in $(seq {count}); do echo \"GPU $i: NVIDIA H200\"; done")

    def test_this_machine(self):
        line, reasons = self.line("-n", "1")
        self.assertRegex(line, r"--host localhost:\d+ -n 1 --map-by slot:PE=\d+ --bind-to core")
        self.assertIn("all ranks are on this machine", reasons)
        self.gpus(4)
        self.assertIn("--host localhost:4 -n 4 ", self.line()[0])
        self.assertIn("--host localhost:4 -n 3 ", self.line("-n", "3")[0])
        self.assertIn("--host localhost:2 -n 2 ", self.line(CUDA_VISIBLE_DEVICES="1,3")[0])

    def test_gpu_ranks_bind_themselves(self):
        self.gpus(2)
        (self.dir / "cuda.flags").write_text("# GPUs\n--device=cuda\n")
        (self.dir / "itself.flags").write_bytes(b"--flagfile=%b/itself.flags\n--model=\xff\n--device=cuda\n" % os.fsencode(self.dir))
        for given in "--device=cuda", "--device cuda", f"--flagfile={self.dir}/cuda.flags", f"--flagfile={self.dir}/itself.flags":
            result = self.launch("--dry_run", "--", "train", *given.split())
            self.assertIn("each rank binds to its GPU", result.stdout + result.stderr)

    def test_hosts_and_files(self):
        here = socket.gethostname()
        self.gpus(8)
        self.assertIn(f"--host {here}:2,b.invalid:8 -n 10 ", self.line(f"--hosts={here}:2,b.invalid")[0])
        self.assertIn(f"--host {here}:2 -n 2 ", self.line(f"--hosts={here}:2,b.invalid,c.invalid", "--exclude=c.invalid,b.invalid")[0])
        (self.dir / "hosts").write_text(f"# two\n{here} slots=3 max_slots=4\n\nb.invalid slots=1\n")
        for how in {}, {"OMPI_MCA_orte_default_hostfile": f"{self.dir}/hosts"}:
            line, reasons = self.line(*([] if how else [f"--hostfile={self.dir}/hosts"]), **how)
            self.assertIn(f"--host {here}:3,b.invalid:1 -n 4 ", line)
            self.assertIn("no route to b.invalid is known", reasons)

    def test_slurm(self):
        self.executable("scontrol", '[ "$*" = "show hostnames node[1-3]" ] && printf "node%s\\n" 1 2 3')
        job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node[1-3]", "SLURM_TASKS_PER_NODE": "4(x2),2", "SLURM_NTASKS": "10"}
        line, reasons = self.line(**job)
        self.assertIn("--host node1:4,node2:4,node3:2 -n 10 ", line)
        self.assertIn("Slurm job 7", reasons)
        self.gpus(8)
        del job["SLURM_NTASKS"]
        self.assertIn("--host node1:8,node2:8,node3:8 -n 24 ", self.line(**job | {"SLURM_TASKS_PER_NODE": "1(x3)"})[0])

    def test_slurm_variables_of_mpirun(self):
        """Open MPI takes its slots from Slurm's variables, and starts its daemons beside the shell of an `srun --pty`."""
        self.executable("scontrol", "echo localhost")
        self.executable("deeper", "exit 0")
        self.executable("mpirun", f"[ $1 = --version ] && exec {OPTIONS.mpirun} --version; echo $SLURM_TASKS_PER_NODE $SLURM_OVERLAP")
        self.gpus(8)
        result = self.launch(f"--mpirun={self.dir}/bin/mpirun", f"--deeper={self.dir}/bin/deeper", "--", "train", SLURM_JOB_NODELIST="localhost",
                             SLURM_TASKS_PER_NODE="1")
        self.assertEqual(result.stdout.strip(), "8(x1) 1", result.stderr)

    def test_log_dir(self):
        """A file per rank; the run before it keeps its own."""
        self.executable("deeper", "echo rank $OMPI_COMM_WORLD_RANK")
        for runs in 1, 2:
            result = self.launch(f"--deeper={self.dir}/bin/deeper", "-n", "2", "--oversubscribe", f"--log_dir={self.dir}/logs", "--", "eval")
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertIn(f"{self.dir}/logs/", result.stderr)
            outputs = sorted(path.read_text() for path in (self.dir / "logs").glob("*/*/rank.*/stdout"))
            self.assertEqual(outputs, sorted(runs * ["rank 0\n", "rank 1\n"]))
            time.sleep(1)  # names are times

    def test_pbs(self):
        (self.dir / "nodes").write_text("node1\nnode1\nnode2\nnode2\n")
        self.assertIn("--host node1:2,node2:2 -n 4 ", self.line(PBS_NODEFILE=str(self.dir / "nodes"), PBS_JOBID="7.server")[0])

    def test_what_other_hosts_need(self):
        line, reasons = self.line("--hosts=192.0.2.77:1", NCCL_DEBUG="INFO")
        # Other hosts may give the interface another name. MPI knows it by its subnet.
        subnet = r"[\d.]+/\d+"
        self.assertRegex(line, rf"--mca btl_tcp_if_include ({subnet}) --mca oob_tcp_if_include \1 ")
        self.assertRegex(reasons, r"network: \S+: the route to 192.0.2.77")
        self.assertIn("-x NCCL_DEBUG", line)
        self.assertIn("-x CUDA_VISIBLE_DEVICES", self.line("--hosts=192.0.2.77:1", CUDA_VISIBLE_DEVICES="1,3")[0])
        self.assertNotIn("NCCL", self.line("-n", "1", NCCL_DEBUG="INFO")[0])
        self.assertIn("-x NCCL_SOCKET_IFNAME", self.line("--hosts=192.0.2.77:1", NCCL_SOCKET_IFNAME="ib0")[0])


class Mistakes(Launch):
    def refuses(self, code, words, *arguments, command=("train", "--data=x"), **variables):
        """Refuses with one message of one line."""
        result = self.launch(*arguments, "--", *command, **variables)
        self.assertEqual(result.returncode, code, result.stderr)
        self.assertEqual(result.stderr.count("deeper-run: "), 1, result.stderr)
        for word in words:
            self.assertIn(word, result.stderr)
        self.assertEqual(result.stdout, "")

    def test_before_anything_runs(self):
        self.refuses(USAGE, ["-n 99", "slots", "--oversubscribe"], "-n", "99")
        self.refuses(USAGE, ["-n 3", "2 slots", "localhost:2"], "-n", "3", "--hosts=localhost:2")
        self.refuses(USAGE, ["--interface=nope", "no such interface", "lo (127.0.0.1)"], "--interface=nope")
        self.refuses(USAGE, ["--interface=lo", "192.0.2.77"], "--interface=lo", "--hosts=localhost:1,192.0.2.77:1")
        self.refuses(USAGE, ["/no/mpirun", "install Open MPI"], "--mpirun=/no/mpirun")
        self.refuses(USAGE, ["/bin/true", "not Open MPI"], "--mpirun=/bin/true")
        self.refuses(USAGE, ["/no/deeper"], "--deeper=/no/deeper")
        self.refuses(USAGE, ["a:x"], "--hosts=a:x,b:1")
        self.refuses(USAGE, ["/no/hosts", "No such file"], "--hostfile=/no/hosts")
        (self.dir / "empty").write_text("# nothing\n")
        self.refuses(USAGE, [f"{self.dir}/empty", "names no host"], f"--hostfile={self.dir}/empty")
        self.refuses(USAGE, ["--exclude=b", "b not among localhost:2"], "--exclude=b", "--hosts=localhost:2")
        self.refuses(USAGE, ["--backoff"], "--backoff=nan")
        self.refuses(USAGE, ["--probe_seconds"], "--probe_seconds=inf")
        self.refuses(USAGE, ["--flagfile=/dev/stdin", "every rank"], command=["train", "--flagfile=/dev/stdin"])
        self.refuses(USAGE, ["SLURM_JOB_NODELIST=a[1-2"], SLURM_JOB_NODELIST="a[1-2")

    def test_restarts(self):
        self.refuses(USAGE, ["--checkpoint_dir"], "--restarts=1")
        self.refuses(USAGE, ["--resume=never"], "--restarts=1", command=["train", "--checkpoint_dir=x", "--resume=never"])
        self.refuses(USAGE, ["--restarts", "eval"], "--restarts=1", command=["eval"])
        self.refuses(USAGE, ["--grow_minutes", "--checkpoint_dir"], "--shrink", "--grow_minutes=1")

    def test_a_host_that_does_not_answer(self):
        two = "--hosts=localhost:1,192.0.2.77:1"
        self.executable("agent", "[ $1 = 192.0.2.77 ] && echo 'no such key' >&2 && exit 3; shift; exec sh -c \"$*\"")
        self.refuses(COMMUNICATION, ["192.0.2.77 does not answer", "no such key"], two, "--rsh_agent=agent")
        self.executable("agent", "exec sleep 1000")
        self.refuses(COMMUNICATION, ["192.0.2.77 does not answer", "nothing within 0.5 s"], two, "--rsh_agent=agent", "--probe_seconds=0.5")
        self.refuses(COMMUNICATION, ["--min_hosts=2", "only 1 answer"], two, "--rsh_agent=agent", "--probe_seconds=0.5", "--shrink",
                     "--min_hosts=2")

    def test_a_host_that_misses_a_probe(self):
        self.executable("agent", f"mkdir {self.dir}/probed && exit 1; exit 0")
        self.executable("mpirun", f"[ $1 = --version ] && exec {OPTIONS.mpirun} --version; echo $4")
        result = self.launch("--hosts=localhost:1,192.0.2.77:1", "--rsh_agent=agent", f"--mpirun={self.dir}/bin/mpirun", "--shrink", "--", "eval")
        self.assertEqual(result.stdout, "2\n", result.stderr)

    def test_elastic_runs_shrink_to_a_power_of_two(self):
        self.executable("agent", "[ $1 != 192.0.2.78 ]")
        self.executable("mpirun", f"[ $1 = --version ] && exec {OPTIONS.mpirun} --version; echo $4")
        for mode, ranks in ("true", "3"), ("elastic", "2"):
            result = self.launch("--hosts=localhost:1,192.0.2.77:2,192.0.2.78:1", "--rsh_agent=agent", f"--mpirun={self.dir}/bin/mpirun", "--shrink",
                                 "--probe_seconds=5", "--", "train", f"--deterministic={mode}")
            self.assertEqual(result.stdout, ranks + "\n", result.stderr)


class Restarts(Launch):
    def train(self, name, *launcher, ranks=2):
        return [*RUN, "-n", str(ranks), "--oversubscribe", *launcher, "--", *TRAIN, "--deterministic=true",
                f"--checkpoint_dir={self.dir}/{name}", f"--metrics_out={self.dir}/{name}.jsonl", "--log_every=1"]

    def test_killed_ranks_leave_no_trace_in_the_weights(self):
        print(f"{OPTIONS.kills} kills, --seed={OPTIONS.seed}", flush=True)
        rng = random.Random(OPTIONS.seed)
        whole = subprocess.run(self.train("whole"), capture_output=True, text=True, timeout=300)
        self.assertEqual(whole.returncode, 0, whole.stderr)
        with Job(self.train("killed", "--restarts=3", "--backoff=0.1"), self.dir / "output") as job:
            for kill in range(OPTIONS.kills):
                self.kill_a_rank(job, rng, kill, int(STEPS * 0.4 * (kill + rng.random()) / OPTIONS.kills))
            self.assertIsNotNone(job.wait_until_gone(120), job.text())
            self.assertEqual(job.process.returncode, 0, job.text())
        shown = self.shown(self.dir / "killed.jsonl")
        restarts = [event for event in shown["events"] if event["event"] == "restart"]
        self.assertEqual(restarts[-1]["restart"], OPTIONS.kills)  # a start without a checkpoint begins new metrics
        self.assertIn(restarts[-1]["exit_code"], (KILLED, COMMUNICATION))
        self.assertEqual(len([event for event in shown["events"] if event["event"] == "resume"]), len(restarts))
        self.assertEqual(shown["events"][-1]["event"], "done")
        self.assertEqual(shown["steps"]["step"], list(range(1, STEPS + 1)))
        numpy.testing.assert_array_equal(state(self.dir / "killed"), state(self.dir / "whole"))

    def kill_a_rank(self, job, rng, kill, step):
        """Kills for the `kill`-th time, some time after the checkpoint of this step. Each start prints one line "model  ..."."""
        end = time.monotonic() + 120
        while len(re.findall(r"(?m)^model  ", job.text())) <= kill or newest(self.dir / "killed") < step // 5 * 5:
            self.assertTrue(job.process.poll() is None and time.monotonic() < end, job.text())
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 0.1))
        victim = rng.randrange(2)
        os.kill(job.rank(victim), signal.SIGKILL)
        self.assertTrue(job.wait_for_text(f"restart {kill + 1} in ", 90), job.text())
        print(f"killed rank {victim} after step {newest(self.dir / 'killed')}", flush=True)

    def test_stopped_and_gone_on(self):
        """After SIGTERM and SIGUSR1: the same final weights, and no repeated step."""
        whole = subprocess.run(self.train("whole"), capture_output=True, text=True, timeout=300)
        self.assertEqual(whole.returncode, 0, whole.stderr)
        for blow, step in (signal.SIGUSR1, 20), (signal.SIGTERM, 40):
            with Job(self.train("stopped"), self.dir / "output") as job:
                while newest(self.dir / "stopped") < step:
                    self.assertIsNone(job.process.poll(), job.text())
                    time.sleep(0.02)
                job.process.send_signal(blow)
                self.gone(job, PREEMPTED)
        finished = subprocess.run(self.train("stopped"), capture_output=True, text=True, timeout=300)
        self.assertEqual(finished.returncode, 0, finished.stderr)
        steps = [event["step"] for event in map(json.loads, (self.dir / "stopped.jsonl").read_text().splitlines()) if event["event"] == "step"]
        self.assertEqual(steps, list(range(1, STEPS + 1)))
        numpy.testing.assert_array_equal(state(self.dir / "stopped"), state(self.dir / "whole"))

    def test_an_mpirun_that_hangs(self):
        """A mpirun that does not notice that a child has ended."""
        self.executable("deeper", "exit 0")
        self.executable("mpirun", f"""case "$*" in *train*) mkdir {self.dir}/hung 2>/dev/null && {{ sleep 0.1 & exec sleep 600; }}; esac
exec {OPTIONS.mpirun} "$@\"""")
        result = self.launch("-n", "1", "--restarts=1", "--backoff=0", f"--deeper={self.dir}/bin/deeper", f"--mpirun={self.dir}/bin/mpirun", "--",
                             "train", f"--checkpoint_dir={self.dir}")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertRegex(result.stderr, "(?s)it hangs, and is killed.*exit code 137; restart 1 in 0 s")

    def test_gives_up_without_progress(self):
        """A new checkpoint resets the count. Final exit codes cause no restart."""
        job = self.dir / "job"
        for codes, tries in ([1, 1, 1, 1], 3), ([137, 5, 0], 3), ([255, 0], 2), ([3], 1), ([75], 1), ([1, 1, "save", 1, 1], 5):
            self.executable("deeper", f"""n=$(cat {job}/n 2>/dev/null || echo 0); echo $((n + 1)) > {job}/n
set -- {' '.join(map(str, codes))}; shift $n
[ "$1" != save ] || {{ mkdir {job}/step-000000020; touch {job}/step-000000020/manifest.json; exit 1; }}
exit $1""")
            subprocess.run(["rm", "-rf", str(job)], check=True)
            job.mkdir()
            (job / "metrics").write_text('{"event": "start"}\n{"event": "st')  # a rank was killed while it wrote
            result = self.launch("-n", "1", "--restarts=2", "--backoff=0", f"--deeper={self.dir}/bin/deeper", "--",
                                 "train", f"--checkpoint_dir={job}", f"--metrics_out={job}/metrics")
            noted = [json.loads(line) for line in (job / "metrics").read_text().splitlines()[2:]]
            failures = [{"save": 1, 255: COMMUNICATION}.get(code, code) for code in codes[:tries - 1]]
            expected = [("restart", code, restart) for restart, code in enumerate(failures, start=1)]
            expected += [("failure", codes[tries - 1], None)] if codes[tries - 1] == 1 else []
            self.assertEqual([(event["event"], event["exit_code"], event.get("restart")) for event in noted], expected)
            self.assertEqual((job / "n").read_text().strip(), str(tries), result.stderr)
            self.assertEqual(result.returncode, codes[tries - 1], result.stderr)


class Stops(Launch):
    """Programs that behave like ranks that save at SIGUSR1, under a real mpirun."""

    def job(self, at_usr1, *flags, launcher=()):
        self.executable("deeper", f"trap '{at_usr1}' USR1; touch {self.dir}/rank-$OMPI_COMM_WORLD_RANK\nwhile :; do sleep 0.05; done")
        command = [*RUN, f"--deeper={self.dir}/bin/deeper", "-n", "2", "--oversubscribe", *launcher, "--", *flags]
        return Job(command, self.dir / "output")

    def wait_for_ranks(self, job):
        while len(list(self.dir.glob("rank-*"))) < 2:
            self.assertIsNone(job.process.poll(), job.text())
            time.sleep(0.02)

    def test_with_a_checkpoint(self):
        for blow in signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP:
            with self.job("exit 75", "train", f"--checkpoint_dir={self.dir}", launcher=["--restarts=3"]) as job:
                self.wait_for_ranks(job)
                job.process.send_signal(blow)
                self.gone(job, PREEMPTED)
            for path in self.dir.glob("rank-*"):
                path.unlink()

    def test_with_nothing_to_save(self):
        with self.job("exit 75", "train") as job:
            self.wait_for_ranks(job)
            job.process.send_signal(signal.SIGTERM)
            self.gone(job, 128 + signal.SIGTERM)

    def test_at_once(self):
        with self.job(f"touch {self.dir}/saving", "train", f"--checkpoint_dir={self.dir}", launcher=["--restarts=3"]) as job:
            self.wait_for_ranks(job)
            job.process.send_signal(signal.SIGUSR1)
            while not (self.dir / "saving").exists():
                self.assertIsNone(job.process.poll(), job.text())
            job.process.send_signal(signal.SIGTERM)
            self.gone(job, 128 + signal.SIGUSR1)

    def test_between_two_tries(self):
        self.executable("failing", "exit 1")
        with Job([*RUN, f"--deeper={self.dir}/bin/failing", "--restarts=3", "--backoff=600", "--", "train", f"--checkpoint_dir={self.dir}"],
                 self.dir / "output") as job:
            self.assertTrue(job.wait_for_text("restart 1 in 600 s", 60), job.text())
            job.process.send_signal(signal.SIGTERM)
            self.gone(job, PREEMPTED)


class NothingOutlives(Launch):
    """If any process is killed, all end with the right exit code, and a report shows it."""

    def kill(self, victim, codes):
        """The last event in a report of the run."""
        metrics = self.dir / "run.jsonl"
        flags = ["--max_steps=1000000", "--log_every=10", f"--metrics_out={metrics}", "--watchdog_seconds=300"]
        with Job([*RUN, "-n", "2", "--oversubscribe", "--", *TRAIN, *flags], self.dir / "output") as job:
            self.assertTrue(job.wait_for_text("step 10/", 60), job.text())
            self.assertEqual(len(list(job.pids())), 4)  # deeper-run, mpirun, two ranks
            os.kill(victim(job), signal.SIGKILL)
            self.assertIsNotNone(job.wait_until_gone(60), f"processes are left: {list(job.pids())}\n{job.text()}")
            self.assertIn(job.process.returncode, codes, job.text())
            warnings = ("bottleneck", "straggler", "stuck_head", "diagnosis")
            event = [event for event in self.shown(metrics)["events"] if event["event"] not in warnings][-1]
            self.assertIn(event.get("exit_code"), (None, job.process.returncode))
            return event["event"]

    def test_a_rank(self):
        self.assertEqual(self.kill(lambda job: job.rank(1), (KILLED, COMMUNICATION)), "failure")

    def test_mpirun(self):
        self.assertEqual(self.kill(lambda job: self.child(job.process.pid), (KILLED,)), "failure")

    def test_the_launcher(self):
        """No process remains to write an event, so the run has no end."""
        self.assertEqual(self.kill(lambda job: job.process.pid, (-signal.SIGKILL,)), "start")

    @staticmethod
    def child(pid):
        return int(subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout.split()[0])


class Scripts(Launch):
    def test_of_slurm(self):
        """Requeues only after a USR1 or a preemption, and only if the job ended because of it."""
        self.executable("scontrol", f'[ $1 = requeue ] && echo "$@" >> {self.dir}/scontrol || cat {self.dir}/job')
        self.executable("deeper-run", f'''echo "$@" > {self.dir}/arguments
trap 'exit 75' USR1 TERM
case $5 in early) trap 'exit 143' TERM ;; fail) exit 3 ;; esac
touch {self.dir}/ready
while :; do sleep 0.05; done''')
        running, preempted = "PreemptEligibleTime=2026-11-28T10:00:00 PreemptTime=None", "PreemptTime=2026-11-28T11:00:00"
        for word, blow, code, job_of_slurm, requeued in (
                ("go", signal.SIGUSR1, PREEMPTED, running, "requeue 7\n"), ("go", signal.SIGTERM, PREEMPTED, running, ""),
                ("go", signal.SIGTERM, PREEMPTED, preempted, "requeue 7\n"), ("early", signal.SIGTERM, 143, preempted, "requeue 7\n"),
                ("early", signal.SIGTERM, 143, running, ""), ("fail", None, 3, preempted, "")):
            (self.dir / "job").write_text(job_of_slurm)
            for name in "ready", "scontrol":
                (self.dir / name).unlink(missing_ok=True)
            job = subprocess.Popen(["bash", ROOT / "launch/deploy/slurm/train.sbatch", word, "two words"],
                                   env=os.environ | {"PATH": f"{self.dir}/bin:{os.environ['PATH']}", "SLURM_JOB_ID": "7"})
            self.addCleanup(job.kill)
            if blow is not None:
                while not (self.dir / "ready").exists():
                    self.assertIsNone(job.poll())
                    time.sleep(0.02)
                job.send_signal(blow)
            self.assertEqual(job.wait(60), code)
            self.assertEqual((self.dir / "scontrol").read_text() if requeued else "", requeued)
            self.assertEqual((self.dir / "arguments").read_text(), f"--restarts=3 --shrink -- train {word} two words\n")

    def test_of_kubernetes(self):
        """Fields of the MPI operator, and a command that deeper accepts except for the missing data."""
        job = yaml.safe_load((ROOT / "launch/deploy/kubernetes/mpijob.yaml").read_text())
        self.assertEqual((job["apiVersion"], job["kind"]), ("kubeflow.org/v2beta1", "MPIJob"))
        known = {"launcherCreationPolicy", "mpiImplementation", "mpiReplicaSpecs", "runLauncherAsWorker", "runPolicy",
                 "slotsPerWorker", "sshAuthMountPath"}
        self.assertLessEqual(set(job["spec"]), known)
        known = {"activeDeadlineSeconds", "backoffLimit", "cleanPodPolicy", "managedBy", "schedulingPolicy", "suspend", "ttlSecondsAfterFinished"}
        self.assertLessEqual(set(job["spec"]["runPolicy"]), known)
        replicas = job["spec"]["mpiReplicaSpecs"]
        self.assertEqual(set(replicas), {"Launcher", "Worker"})
        for spec in replicas.values():
            self.assertLessEqual(set(spec), {"replicas", "restartPolicy", "template"})
            pod = spec["template"]["spec"]
            mounts = [mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]]
            self.assertEqual(sorted(mounts), sorted(volume["name"] for volume in pod["volumes"]))
        (self.dir / "hostfile").write_text("deeper-worker-0.deeper.default.svc slots=8\ndeeper-worker-1.deeper.default.svc slots=8\n")
        _, *arguments = replicas["Launcher"]["template"]["spec"]["containers"][0]["command"]
        line = self.launch("--dry_run", *arguments, OMPI_MCA_orte_default_hostfile=f"{self.dir}/hostfile").stdout
        self.assertIn(" -n 16 --bind-to none ", line)
        train = shlex.split(line.splitlines()[-1].partition(OPTIONS.deeper)[2])
        train = [{"--device=cuda": "--device=cpu"}.get(flag, flag) for flag in train]
        tried = subprocess.run([OPTIONS.deeper, *train], capture_output=True, text=True)
        self.assertEqual(tried.returncode, DATA, tried.stderr)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *unittest_arguments])
