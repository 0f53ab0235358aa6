#!/usr/bin/env python3
"""deeper.run with the real binary:  run_test.py DEEPER MPIRUN [unittest arguments]"""
import gc
import json
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import time
import unittest
import unittest.mock

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "python"), str(ROOT / "tests/launch")]
import cli  # noqa: E402

import deeper  # noqa: E402

PREEMPTED = 75
MPIRUN = [cli.MPIRUN, "--oversubscribe", "--bind-to", "none", "--allow-run-as-root", "--timeout", "120", "-n", "2", cli.DEEPER]
LAUNCHER = [str(ROOT / "launch/deeper-run"), f"--mpirun={cli.MPIRUN}", f"--deeper={cli.DEEPER}", "--oversubscribe", "-n", "2", "--"]


class Runs(cli.Cli):
    def setUp(self):
        self.checkpoints = self.dir / self.id()
        self.metrics = self.dir / f"{self.id()}.jsonl"

    def train(self, *flags, steps=3, command=(cli.DEEPER,), **how):
        return deeper.run(["train", *cli.TRAIN, f"--data={self.data}", f"--max_steps={steps}", *flags], command=command, **how)

    def test_events(self):
        for command in [cli.DEEPER], MPIRUN, LAUNCHER:
            metrics, log = self.dir / f"{len(command)}.jsonl", self.dir / "log"
            events = list(self.train(command=command, metrics_out=metrics, log=log))
            self.assertEqual(events, [json.loads(line) for line in metrics.read_text().splitlines()])
            kinds = [event["event"] for event in events]
            self.assertEqual((kinds[0], kinds.count("step"), kinds[-1]), ("start", 3, "done"))
            self.assertIn("step 3/3", log.read_text())

    def test_only_new_events(self):
        first = self.train(f"--checkpoint_dir={self.checkpoints}", metrics_out=self.metrics)
        self.assertEqual([event["step"] for event in first if event["event"] == "step"], [1, 2, 3])
        resumed = self.train(f"--checkpoint_dir={self.checkpoints}", metrics_out=self.metrics, steps=5)
        self.assertEqual([event["step"] for event in resumed if event["event"] in ("resume", "step")], [3, 4, 5])
        anew = self.train(metrics_out=self.metrics, steps=20)
        self.assertEqual([event["step"] for event in anew if event["event"] == "step"], [*range(1, 21)])

    def test_failures(self):
        for code, words, flags in (cli.USAGE, "lr", ["--lr=-1"]), (cli.DATA, "nowhere", ["--data=nowhere"]):
            for command in [cli.DEEPER], MPIRUN:
                with self.assertRaises(deeper.RunError) as raised:
                    list(self.train(*flags, command=command))
                self.assertEqual(raised.exception.exit_code, code)
                self.assertIn(words, str(raised.exception))
                self.assertIn(words, raised.exception.log)
        with self.assertRaisesRegex(ValueError, "metrics_out=FILE"):
            self.train("--metrics_out=x")
        with self.assertRaises(FileNotFoundError):
            self.train(command=[str(self.dir / "none")])

    def test_killed(self):
        run, killed = self.train(steps=10**6), False
        with self.assertRaises(deeper.RunError) as raised:
            for event in run:
                if event["event"] == "step" and not killed:  # more steps may have been logged before the signal
                    self.assertIsNone(run.process.poll(), "events come while it runs")
                    run.process.send_signal(signal.SIGKILL)
                    killed = True
        self.assertEqual(raised.exception.exit_code, 128 + signal.SIGKILL)
        self.assertEqual(list(run), [])
        copy = pickle.loads(pickle.dumps(raised.exception))  # as a pool of processes passes it on
        self.assertEqual((str(copy), copy.exit_code, copy.log), (str(raised.exception), raised.exception.exit_code, raised.exception.log))

    def first_step(self, run):
        return next(event["step"] for event in run if event["event"] == "step")

    def test_close_saves(self):
        for command in [cli.DEEPER], MPIRUN, LAUNCHER:
            directory = self.dir / f"closed-{len(command)}"
            with self.train(f"--checkpoint_dir={directory}", steps=10**6, command=command) as run:
                self.first_step(run)
            self.assertEqual(run.process.returncode, PREEMPTED, run.command)
            self.assertEqual(len(list(directory.glob("step-*"))), 1)
            self.assertEqual(list(run), [])

    def test_last_reference(self):
        run = self.train(steps=10**6)
        process, scratch = run.process, run.log.parent
        self.first_step(run)
        self.assertTrue(scratch.exists())
        del run
        gc.collect()
        self.assertIsNotNone(process.returncode)
        self.assertFalse(scratch.exists())

    def test_end_of_python(self):
        script = f"""
import deeper
run = deeper.run(["train", *{cli.TRAIN}, "--data={self.data}", "--max_steps=1000000"], command=["{cli.DEEPER}"])
for event in run:
    if event["event"] == "step":
        print(run.process.pid, flush=True)
        raise SystemExit
"""
        result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT / "python")},
                                timeout=60)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertFalse(pathlib.Path("/proc", result.stdout.strip()).exists())

    def test_close_kills(self):
        """A command that ignores the signals."""
        stubborn = self.dir / "stubborn"
        stubborn.write_text("#!/bin/sh\ntrap '' USR1 TERM\ntouch $0.ready\nsleep 1000\n")
        stubborn.chmod(0o755)
        with unittest.mock.patch("deeper.training.TERMINATE_SECONDS", 0.1):
            run = deeper.run([], command=[str(stubborn)], stop_seconds=0.1)
            while not (self.dir / "stubborn.ready").exists():
                time.sleep(0.02)
            run.close()
        self.assertEqual(run.process.returncode, -signal.SIGKILL)


if __name__ == "__main__":
    cli.main()
