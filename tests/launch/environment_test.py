#!/usr/bin/env python3
"""Commands in hostile environments: limits, missing or full directories, closed streams, signals, a clock that jumps. Prints a table
of what happened.

environment_test.py DEEPER MPIRUN JUMPING_CLOCK TAKEN_SIGNAL [--all] [unittest arguments]
JUMPING_CLOCK, TAKEN_SIGNAL: the libraries of jumping_clock.cpp and taken_signal.cpp
--all tries every command under mpirun and deeper-run too, and more limits.
"""
import functools
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import numpy

ALL = "--all" in sys.argv
sys.argv = [argument for argument in sys.argv if argument != "--all"]
JUMPING_CLOCK, TAKEN_SIGNAL = (str(pathlib.Path(sys.argv.pop(3)).resolve()) for _ in range(2))

from cli import CHECKPOINT, COMMUNICATION, DATA, DEEPER, MPIRUN, ROOT, TRAIN, USAGE, Cli, main, run, write_png  # noqa: E402

sys.path.insert(0, str(ROOT / "tests/faults"))
from jobs import TAG, Job, lives  # noqa: E402

INTERNAL, PREEMPTED = 1, 75
OTHER_USER = 54321
PATIENCE = 300  # seconds, on a busy machine
KEPT = ("output", "packed", ".deeper-lock")  # the next `pack` takes over the lock
ON_RANKS = [MPIRUN, "--oversubscribe", "--bind-to", "none", "--allow-run-as-root", "--timeout", str(PATIENCE), "-n", "2"]
BY_RUN = [str(ROOT / "launch/deeper-run"), f"--deeper={DEEPER}", f"--mpirun={MPIRUN}", "--oversubscribe", "-n", "2", "--"]
ALONE, SHARDS = ("train", "eval", "pack", "verify", "predict"), 84
MPIRUN5_STOPPED = -signal.SIGBUS, 14  # of Open MPI 5 without space for its files: mpirun, or MPI_Init
CRASH = "terminate called", "Traceback", "Segmentation", "Aborted"
MPIRUN_CRASHED = re.compile(r"^.*Process received signal(?:.*\n)*?.*bin/mpi(?:.*\n)*?.*End of error message.*\n", re.MULTILINE)


def mounted(script):
    """A wrapper: the command in a mount namespace of its own, after `script`."""
    return ["unshare", "--mount", "sh", "-c", f'{script} && exec "$@"', "sh"]


@functools.cache
def can_mount():
    return subprocess.run([*mounted("mount -t tmpfs none /mnt"), "true"], capture_output=True, check=False).returncode == 0


def full(directory):
    return f"mount -t tmpfs -o size=4k none {directory} && head -c 4096 /dev/zero > {directory}/x && export TMPDIR={directory}"


def shell(redirection):
    return ["sh", "-c", f'exec {redirection}; exec "$@"', "sh"]


def limited(kind, value):
    return {"preexec_fn": lambda: resource.setrlimit(kind, (value, value))}


class Environment(Cli):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.dir.chmod(0o755)
        cls.rows = []
        cls.addClassCleanup(cls.print_rows)
        many, checkpoints = cls.dir / "many", cls.dir / "run"
        for split in "train", "val":
            assert run("pack", "--format=idx", f"--input={cls.dir}/idx", f"--output={many}", f"--split={split}", "--shard_size=400").returncode == 0
        assert len(list(many.glob("*.h5"))) == SHARDS
        assert run("train", f"--data={cls.data}", *TRAIN, "--max_steps=2", f"--checkpoint_dir={checkpoints}").returncode == 0
        write_png(cls.dir / "image.png", numpy.full((10, 10, 3), 30, numpy.uint8))
        cls.commands = {
            "train": ["train", f"--data={many}", *TRAIN, "--max_steps=20", "--checkpoint_every=10", "--checkpoint_dir=run", "--metrics_out=metrics"],
            "eval": ["eval", f"--data={many}", f"--checkpoint={checkpoints}", "--threads=1", "--logits_out=logits.h5"],
            "pack": ["pack", "--format=idx", f"--input={cls.dir}/idx", "--output=packed", "--shard_size=5000"],
            "verify": ["verify", f"--data={many}", f"--checkpoint={checkpoints}"],
            "predict": ["predict", f"--checkpoint={checkpoints}", "--threads=1", f"{cls.dir}/image.png"],
        }

    @classmethod
    def print_rows(cls):
        print(f"\n{'fault':26} {'command':20} what happened")
        for fault, command, what in cls.rows:
            print(f"{fault:26} {command:20} {what}", flush=True)

    def line(self, name):
        """`name`: a command, and " on ranks" or " by deeper-run" if it does not run alone."""
        command, _, how = name.partition(" ")
        return [*{"": [DEEPER], "on ranks": [*ON_RANKS, DEEPER], "by deeper-run": BY_RUN}[how], *self.commands[command]]

    def check(self, fault, name, codes, words="", wrapper=(), environment=None, **how):
        """The command ends with one of `codes`, without processes and half-written files left. If the code is not 0, one line of its
        output has `words`, and the same command then succeeds without the fault."""
        with self.subTest(fault=fault, command=name), tempfile.TemporaryDirectory(dir=self.dir) as place:
            os.chmod(place, 0o777)
            tag = f"{TAG}-{os.urandom(8).hex()}"
            variables = os.environ | {"OMP_NUM_THREADS": "1"} | (environment or {}) | {TAG: tag}
            done = subprocess.run([*wrapper, *self.line(name)], cwd=place, capture_output=True, text=True, errors="replace", timeout=PATIENCE,
                                  env={key: value for key, value in variables.items() if value is not None}, **how)
            text = done.stdout + done.stderr
            self.assertIn(done.returncode, codes, text)
            for word in CRASH:
                self.assertNotIn(word, text)
            own = [line for line in text.splitlines() if line.startswith("deeper") and ": warning" not in line and words in line]
            if done.returncode != 0 and words:
                self.assertTrue(own, text)
            self.rows.append((fault, name, f"exit code {done.returncode}" + (f": {own[0]}" if done.returncode and own else "")))
            self.gone(tag)
            self.whole(name.split()[0], pathlib.Path(place))
            if done.returncode != 0 or ALL:
                self.succeeds_now(name.split()[0], place)
            return text

    def whole(self, command, place):
        # An interrupted `pack` continues with its temporary files, and `train` removes its own.
        self.assertEqual([str(path) for path in place.rglob("*.tmp") if command != "pack"], [])
        if steps := sorted(place.glob("run/step-*")):
            self.assertIn("all sound", self.succeeds("verify", f"--checkpoint={steps[0].parent}"))
        if (place / "packed/manifest.json").exists():
            self.assertIn("all sound", self.succeeds("verify", f"--data={place}/packed"))

    def succeeds_now(self, command, place):
        again = subprocess.run([DEEPER, *self.commands[command]], cwd=place, capture_output=True, text=True, timeout=PATIENCE, check=False)
        self.assertEqual(again.returncode, 0, again.stderr)

    def gone(self, tag):
        end = time.monotonic() + 30
        left, seen = True, set()
        while left and time.monotonic() < end:
            marked = {path.parent.name for path in pathlib.Path("/proc").glob("[0-9]*/environ") if f"{TAG}={tag}" in self.read(path)}
            seen |= marked
            left = marked | set(filter(lives, seen))
            time.sleep(0.05)
        self.assertFalse(left)

    @staticmethod
    def read(path):
        try:
            return path.read_text(errors="replace")
        except OSError:
            return ""

    @staticmethod
    def names(*launched):
        """All commands alone, and those that are `launched`; with --all, all that can be."""
        return [*ALONE, *([f"{command} {how}" for command in ("train", "eval") for how in ("on ranks", "by deeper-run")] if ALL else launched)]


class Limits(Environment):
    def test_open_files(self):
        for name in self.names():
            soft = (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1])  # which deeper may raise
            self.check("ulimit -Sn 64", name, [0], preexec_fn=lambda soft=soft: resource.setrlimit(resource.RLIMIT_NOFILE, soft))
        for name in ALONE:
            needs = name in ("train",)
            text = self.check("ulimit -n 64", name, [DATA] if needs else [0], "shards of split train stay open",
                              **limited(resource.RLIMIT_NOFILE, 64))
            self.assertEqual(needs, "ulimit -n 1" in text, text)
        for name in ALONE:
            self.check("ulimit -n 12", name, [0, DATA, CHECKPOINT], "ulimit -n", **limited(resource.RLIMIT_NOFILE, 12))

    def test_file_size(self):
        # Not on ranks: Open MPI keeps files of its own, and its mpirun can hang if it cannot write them.
        for bytes_ in 100 << 10, 0:
            for name in ALONE:
                writes = name == "train" or (bytes_ == 0 and name in ("eval", "pack"))
                codes = {"train": [DATA, CHECKPOINT], "eval": [DATA], "pack": [DATA]}[name] if writes else [0]
                self.check(f"ulimit -f {bytes_ >> 10}", name, codes, "file size limit", **limited(resource.RLIMIT_FSIZE, bytes_))

    def test_memory(self):
        """From limits at which the loader of the system fails (exit code 127) to those at which everything works."""
        for name in ALONE:
            codes = []
            for mebibytes in range(60, 260, 10 if ALL else 30):  # at 90 MiB, oneDNN gets no memory for its code
                with tempfile.TemporaryDirectory(dir=self.dir) as place:
                    done = subprocess.run(self.line(name), cwd=place, capture_output=True, text=True, timeout=PATIENCE, check=False,
                                          env=os.environ | {"MALLOC_ARENA_MAX": "1"}, **limited(resource.RLIMIT_AS, mebibytes << 20))
                codes.append(done.returncode)
                with self.subTest(command=name, mebibytes=mebibytes):
                    self.assertIn(done.returncode, [0, INTERNAL, 2, DATA, CHECKPOINT, 127], done.stderr)
                    self.assertTrue(done.returncode == 0 or done.stderr.strip(), "no message")
                    for word in CRASH:
                        self.assertNotIn(word, done.stderr)
            self.assertEqual(codes[-1], 0, codes)
            self.rows.append(("ulimit -v 60M to 250M", name, f"exit codes {codes}"))

    def test_threads(self):
        user = ["setpriv", f"--reuid={OTHER_USER}", f"--regid={OTHER_USER}", "--clear-groups"] if os.geteuid() == 0 else None
        if user is None:  # the limit counts all processes of a user; it does not hold for root
            self.skipTest("needs root, to become a user without other processes")
        for most in 1, 2, 4:
            for name in ALONE:
                self.check(f"ulimit -u {most}", name, [0, INTERNAL], "cannot start a thread", [*user, "prlimit", f"--nproc={most}:{most}"])


class Places(Environment):
    def test_home(self):
        for name in self.names():
            self.check("no HOME", name, [0], environment={"HOME": None})
            self.check("HOME cannot be written", name, [0], environment={"HOME": "/proc"})

    def test_full_directories(self):
        if not can_mount():
            self.skipTest("mounting a tmpfs is not allowed here")
        for name in ALONE:
            self.check("full TMPDIR", name, [0], wrapper=mounted(full("/mnt")))
            self.check("full /dev/shm", name, [0], wrapper=mounted(full("/dev/shm")))
        # Open MPI needs a directory for temporary files; it continues without shared memory.
        for how in ("on ranks", "by deeper-run") if ALL else ("on ranks",):
            self.check("full TMPDIR", f"train {how}", [INTERNAL, *MPIRUN5_STOPPED], wrapper=mounted(full("/mnt")))
            self.check("full /dev/shm", f"train {how}", [0, INTERNAL, COMMUNICATION, *MPIRUN5_STOPPED],
                       wrapper=mounted(full("/dev/shm") + "; unset TMPDIR"))


class Streams(Environment):
    def test_closed(self):
        for name in self.names("train by deeper-run"):
            lost = [0] if " " in name else [DATA]  # mpirun copies the output of ranks, and reports no error
            if "on ranks" not in name:  # mpirun itself opens files with the numbers of closed streams
                by_mpirun5 = [INTERNAL] if " " in name else []  # fails if it cannot write
                self.check("all three closed", name, [*lost, *by_mpirun5], "", shell("<&- >&- 2>&-"))
            if name in ALONE or ALL:
                self.check("closed input", name, [0], wrapper=shell("<&-"))
                self.check("closed output", name, lost, "cannot write the standard output", shell(">&-"))
                self.check("closed errors", name, [0], wrapper=shell("2>&-"))

    def test_full(self):
        for name in ALONE:
            self.check("output to /dev/full", name, [DATA], "cannot write the standard output", shell("> /dev/full"))

    def test_no_file_takes_the_number_of_a_stream(self):
        with tempfile.TemporaryDirectory(dir=self.dir) as place:
            done = subprocess.run([*shell(">&- 2>&-"), *self.line("train")], cwd=place, check=False, timeout=PATIENCE)
            self.assertEqual(done.returncode, DATA)
            for line in pathlib.Path(place, "metrics").read_text().splitlines():
                json.loads(line)


class Signals(Environment):
    def job(self, name, place, *more, wait=""):
        """A running job, which has printed `wait`."""
        job = Job(["env", "-C", str(place), *self.line(name), *more], place / "output", {"OMP_NUM_THREADS": "1"})
        self.addCleanup(job.__exit__)
        self.assertTrue(job.wait_for_text(wait, PATIENCE), job.text())
        return job

    def ends(self, fault, name, job, codes):
        self.assertIsNotNone(job.wait_until_gone(PATIENCE), f"{fault} {name}: processes are left\n{job.text()}")
        code = job.process.returncode
        self.assertIn(code, codes, f"{fault} {name}\n{job.text()}")
        # mpirun may crash in its own PMIx library if it is stopped while it ends.
        text = MPIRUN_CRASHED.sub("", job.text())
        for word in CRASH:
            self.assertNotIn(word, text, f"{fault} {name}")
        self.rows.append((fault, name, f"exit code {code}" if code >= 0 else f"ended by {signal.Signals(-code).name}"))

    def place(self):
        path = pathlib.Path(tempfile.mkdtemp(dir=self.dir))
        self.addCleanup(shutil.rmtree, path, ignore_errors=True)
        return path

    def test_of_commands(self):
        """Each command reads from a pipe to which nobody writes. Signals that do not stop it, then one that does."""
        image, manifest, classes = (self.dir / name for name in ("pipe.png", "no-data/manifest.json", "no-idx/classes.txt"))
        shutil.copytree(self.dir / "idx", classes.parent)
        manifest.parent.mkdir()
        waits = {"predict": (image, str(image)), "eval": (manifest, f"--data={manifest.parent}"), "verify": (manifest, f"--data={manifest.parent}"),
                 "pack": (classes, f"--input={classes.parent}")}
        for pipe in image, manifest, classes:
            os.mkfifo(pipe)
        for name, (pipe, argument) in waits.items():
            for stop in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
                with self.subTest(command=name, signal=stop.name):
                    place = self.place()
                    job = self.job(name, place, argument)
                    writer = self.when_read(pipe, job)
                    self.addCleanup(os.close, writer)
                    for harmless in signal.SIGPIPE, signal.SIGXFSZ:
                        job.process.send_signal(harmless)
                    job.process.send_signal(signal.SIGTSTP)
                    self.until_stopped(job)
                    job.process.send_signal(signal.SIGCONT)
                    job.process.send_signal(stop)
                    self.ends(f"PIPE XFSZ TSTP CONT {stop.name[3:]}", name, job, [-stop])
                    self.assertEqual([path.name for path in place.rglob("*") if path.name not in KEPT], [])

    def test_that_a_library_takes(self):
        """SIGHUP does what it does without the library: it ends the command, or nothing under nohup."""
        pipe = self.dir / "taken/classes.txt"
        shutil.copytree(self.dir / "idx", pipe.parent)
        os.mkfifo(pipe)
        for wrapper, end in ([], signal.SIGHUP), (["nohup"], signal.SIGTERM):
            command = ["env", "-C", self.place(), f"LD_PRELOAD={TAKEN_SIGNAL}", *wrapper, *self.line("pack"), f"--input={pipe.parent}"]
            job = Job(command, self.dir / f"taken-{end.name}", {"OMP_NUM_THREADS": "1"})
            self.addCleanup(job.__exit__)
            self.addCleanup(os.close, self.when_read(pipe, job))
            for blow in signal.SIGHUP, signal.SIGTERM:
                job.process.send_signal(blow)
            self.ends(f"{' '.join(wrapper)} HUP TERM, a library takes HUP", "pack", job, [-end])

    def when_read(self, pipe, job):
        """The end of a pipe for writing, as soon as somebody reads the other one."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and job.process.poll() is None:
            try:
                return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:  # nobody
                time.sleep(0.02)
        return self.fail(job.text())

    def until_stopped(self, job):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and job.process.poll() is None:
            if self.read(pathlib.Path(f"/proc/{job.process.pid}/stat")).rpartition(")")[2].split()[0] == "T":
                return
            time.sleep(0.02)
        self.fail(f"exit code {job.process.poll()}\n{job.text()}")

    def test_of_training(self):
        everywhere = ["train", "train on ranks", "train by deeper-run"]
        for name in everywhere:
            for stop in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
                if not ALL and name != "train" and stop != signal.SIGINT:
                    continue
                for times in (1, 2):
                    with self.subTest(command=name, signal=stop.name, times=times):
                        self.stop_training(name, stop, times)

    def stop_training(self, name, stop, times):
        place = self.place()
        job = self.job(name, place, "--max_steps=100000", "--log_every=10", "--checkpoint_every=1000000", "--eval_every=1000000", wait="step 10/")
        for _ in range(times):
            job.process.send_signal(stop)
            time.sleep(0.2 if name == "train by deeper-run" else 0.001)
        alone, launched = name == "train", name == "train on ranks"
        once = [PREEMPTED] if not launched else [PREEMPTED, *LAUNCHER_STOPPED]
        # mpirun of Open MPI 4 exits in the handler of the second signal, which can crash.
        twice = [*once, -stop, 128 + stop, *([] if alone else [*LAUNCHER_STOPPED, -signal.SIGSEGV, 128 + signal.SIGSEGV])]
        self.ends(f"{stop.name[3:]} {'once' if times == 1 else 'twice'}", name, job, once if times == 1 else twice)
        saved = list(place.glob("run/step-*"))
        self.assertTrue(saved or times == 2 or launched, job.text())
        for step in saved:
            self.assertIn("all sound", self.succeeds("verify", f"--checkpoint={step}"))

    def test_that_do_not_end_training(self):
        for name in ["train", "train on ranks"]:
            with self.subTest(command=name):
                place = self.place()
                job = self.job(name, place, "--max_steps=400", "--log_every=10", "--checkpoint_every=1000000", "--watchdog_seconds=5",
                               wait="step 10/")
                ranks = [job.process.pid] if name == "train" else [job.rank(0), job.rank(1)]
                for harmless in signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTSTP:
                    for pid in ranks:
                        os.kill(pid, harmless)
                time.sleep(0.5)
                for pid in ranks:
                    os.kill(pid, signal.SIGCONT)
                self.ends("PIPE XFSZ TSTP CONT", name, job, [0])

    def test_reader_that_leaves(self):
        """As `| head`."""
        for name in ALONE:
            with self.subTest(command=name), tempfile.TemporaryDirectory(dir=self.dir) as place:
                process = subprocess.Popen(self.line(name), cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                process.stdout.close()
                errors = process.stderr.read()
                self.assertEqual(process.wait(PATIENCE), 0, errors)
                self.rows.append(("| head", name, "exit code 0"))


# mpirun's own exit codes when it is stopped by a signal: 1, or that of a rank that it stopped.
LAUNCHER_STOPPED = [1, 128 + signal.SIGTERM, 128 + signal.SIGKILL, 128 + signal.SIGINT, 128 + signal.SIGHUP, COMMUNICATION, -signal.SIGHUP]


class Clock(Environment):
    def test_that_jumps(self):
        for name in self.names("train on ranks"):
            self.check("a clock that jumps", name, [0], environment={"LD_PRELOAD": JUMPING_CLOCK})

    def test_does_not_change_durations(self):
        place = pathlib.Path(tempfile.mkdtemp(dir=self.dir))
        done = subprocess.run([*self.line("train"), "--checkpoint_minutes=1", "--watchdog_seconds=5", "--max_steps=200", "--keep=100"], cwd=place,
                              capture_output=True, text=True, timeout=PATIENCE, env=os.environ | {"LD_PRELOAD": JUMPING_CLOCK}, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        events = [json.loads(line) for line in (place / "metrics").read_text().splitlines()]
        self.assertGreater(max(event["time"] for event in events) - min(event["time"] for event in events), 3600, "the clock did not jump")
        for event in events:
            for field, value in event.items():
                if field.endswith("_ms") or field == "seconds":
                    self.assertTrue(0 <= value < 120000, event)
        self.assertEqual([event["step"] for event in events if event["event"] == "checkpoint"], list(range(10, 201, 10)))


class Terminal(Cli):
    """Signals of a terminal to deeper-run."""

    def begin(self, name, **how):
        """-> process, after its first step"""
        metrics = self.dir / f"{name}.jsonl"
        process = subprocess.Popen([*BY_RUN, "train", *TRAIN, f"--data={self.data}", "--val_split=none", "--max_steps=1000000",
                                    f"--checkpoint_dir={self.dir / name}", f"--metrics_out={metrics}"], stdout=subprocess.DEVNULL, **how)
        self.addCleanup(process.kill)
        end = time.monotonic() + PATIENCE
        while not metrics.exists() or '"step"' not in metrics.read_text():
            self.assertLess(time.monotonic(), end)
            time.sleep(0.1)
        return process

    def ends_with_a_save(self, name, process):
        self.assertEqual(process.wait(PATIENCE), PREEMPTED)
        self.assertTrue(list((self.dir / name).glob("step-*")))

    def test_one_that_has_closed(self):
        read, write = os.pipe()
        process = self.begin("closed", stderr=write)
        os.close(write)
        os.close(read)  # from here on, every write fails
        process.send_signal(signal.SIGHUP)
        self.ends_with_a_save("closed", process)

    def test_nohup(self):
        process = self.begin("nohup", stderr=subprocess.DEVNULL, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
        process.send_signal(signal.SIGHUP)
        with self.assertRaises(subprocess.TimeoutExpired):
            process.wait(3)
        process.send_signal(signal.SIGTERM)
        self.ends_with_a_save("nohup", process)

    def test_mistakes(self):
        ended = subprocess.run([str(ROOT / "launch/deeper-run"), "--hosts=", "--", "train"], capture_output=True, text=True, check=False)
        self.assertEqual((ended.returncode, "--hosts and --hostfile must not be empty" in ended.stderr), (USAGE, True))
        for environment, options, words in (({"PBS_NODEFILE": "/nonexistent"}, [], "PBS_NODEFILE /nonexistent: No such file"),
                                            ({"PBS_NODEFILE": "/dev/null"}, [], "names no host"),
                                            ({}, ["--hosts=a:1,b:1", "--rsh_agent=ssh '"], "--rsh_agent=ssh ': No closing quotation")):
            ended = subprocess.run([*BY_RUN[:3], *options, "--", "train"], env=os.environ | environment, capture_output=True, text=True, check=False)
            self.assertEqual((ended.returncode, words in ended.stderr), (USAGE, True), ended.stderr)


if __name__ == "__main__":
    main()
