#!/usr/bin/env python3
"""Runs deeper-sweep with the real binary, on generated images.

sweep_test.py DEEPER MPIRUN [unittest arguments]
"""
import json
import os
import pathlib
import re
import signal
import statistics
import subprocess
import tempfile
import time
import unittest

from cli import DEEPER, ROOT, USAGE, main

SWEEP = ROOT / "launch/deeper-sweep"
TRAIN = [DEEPER, "train", "--synthetic", "--synthetic_samples=40", "--num_classes=5", "--model=nin-cifar", "--image_size=8", "--global_batch=8",
         "--max_steps=2", "--threads=1"]
ARMS = ["--arm=slow:--lr=0.001", "--arm=fast:--lr=0.05 --optimizer=nesterov", "--arm=wrong:--lr=-1"]


class Sweep(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.dir = pathlib.Path(temporary.name) / "sweep"

    def sweep(self, *options, command=TRAIN):
        line = [str(SWEEP), f"--output={self.dir}", *options, "--", *command]
        return subprocess.run(line, capture_output=True, text=True, check=False, timeout=200)

    def runs(self):
        return [json.loads(line) for line in (self.dir / "runs.jsonl").read_text().splitlines()]

    def top1(self, arm, seed):
        events = [json.loads(line) for line in (self.dir / f"{arm}-{seed}.jsonl").read_text().splitlines()]
        return 100 * [event["top1"] for event in events if event["event"] == "eval"][-1]

    def test_table(self):
        done = self.sweep("--seeds=1..3", "--at_once=2", *ARMS)
        self.assertEqual(done.returncode, 1, done.stderr)  # some failed
        for arm in "slow", "fast":
            values = [self.top1(arm, seed) for seed in (1, 2, 3)]
            mean, deviation = statistics.fmean(values), statistics.stdev(values)
            half = 4.303 * deviation / 3**0.5
            row = (f"| {arm} | 3 | 0 | {', '.join(f'{value:.2f}' for value in values)} | {mean:.2f} | {deviation:.2f} | "
                   f"{mean - half:.2f} to {mean + half:.2f} |")
            self.assertIn(row, done.stdout)
        self.assertIn("| wrong | 3 | 3 | failed, failed, failed | - | - | - |", done.stdout)
        more = [self.top1("fast", seed) - self.top1("slow", seed) for seed in (1, 2, 3)]
        mean, deviation = statistics.fmean(more), statistics.stdev(more)
        half = 4.303 * deviation / 3**0.5
        self.assertIn("| top-1 minus that of slow, same seed | of each, points | mean | standard deviation | 95 % interval |", done.stdout)
        self.assertIn(f"| fast | {', '.join(f'{value:+.2f}' for value in more)} | {mean:+.2f} | {deviation:.2f} | "
                      f"{mean - half:+.2f} to {mean + half:+.2f} |", done.stdout)
        self.assertIn("| wrong | - | - | - | - |", done.stdout)
        self.assertIn("--lr=-1", (self.dir / "wrong-2.log").read_text())
        for number in range(30):  # links to nothing
            (self.dir / f"latest-{number}").symlink_to("never")
        reported = subprocess.run([DEEPER, "report", self.dir, f"--output={self.dir}/report.html"], capture_output=True, text=True, check=False)
        self.assertEqual((reported.returncode, reported.stderr), (0, ""))
        self.assertIn(": 6 runs, ", reported.stdout)
        self.assertEqual({run["exit_code"] for run in self.runs() if run["arm"] == "wrong"}, {USAGE})
        self.assertIn(f"slow, seed 1: started; its output is in {self.dir}/slow-1.log\n", done.stdout)
        self.assertRegex(done.stdout, r" s; [12] of 9 runs done, about \d+ min left\n")
        self.assertRegex(done.stdout, r" s; 9 of 9 runs done\n")
        self.assertIn('"nesterov"', (self.dir / "fast-1.jsonl").read_text())

        again = self.sweep("--seeds=1..3", *ARMS)  # repeats no run, and no failure either
        self.assertEqual(again.stdout.splitlines()[0], "| arm | runs | failed | top-1 of each, % | mean | standard deviation | 95 % interval |")
        self.assertIn(again.stdout.splitlines()[2], done.stdout)
        self.assertEqual(len(self.runs()), 9)
        other = self.sweep("--seeds=1", "--arm=slow:--lr=0.002")
        self.assertIn("arm slow with another command", other.stderr)

        report = re.search(r"Curves: (deeper report .*)", done.stdout)[1]
        # The shell finds the binary in its own directory.
        made = subprocess.run(report.replace("deeper", DEEPER, 1), shell=True, capture_output=True, text=True, check=False)
        self.assertEqual(made.returncode, 0, made.stderr)

    def test_incomplete_lines(self):
        """As a full disk and a killed process leave them."""
        self.dir.mkdir()
        (self.dir / "runs.jsonl").write_text('{"arm": "run", "se')
        script = '"$@"; code=$?; for last; do :; done; sed -i "1s/...$//" "${last#*=}"; exit $code'  # cuts the first line of the metrics
        done = self.sweep("--seeds=1,1", command=["sh", "-c", script, "sh", *TRAIN])
        self.assertRegex(done.stdout, r"\| run \| 1 \| 0 \| (\d+\.\d\d) \| \1 \|", done.stderr)
        self.assertEqual(len((self.dir / "runs.jsonl").read_text().splitlines()), 2)

    def test_no_evaluation(self):
        done = self.sweep("--seeds=1", command=[*TRAIN, "--val_split=none"])
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("| run | 1 | 0 | - | - |", done.stdout)

    def test_an_interrupted_sweep_continues(self):
        long = [*TRAIN, "--max_steps=100000", "--eval_every=100000"]
        for number in signal.SIGTERM, signal.SIGHUP:
            with subprocess.Popen([str(SWEEP), "--seeds=1,2", f"--output={self.dir}", "--", *long], stdout=subprocess.PIPE, text=True) as job:
                while not (self.dir / "run-1.jsonl").exists():
                    time.sleep(0.05)
                os.kill(job.pid, number)
                text = job.communicate(timeout=100)[0]
            self.assertEqual(job.returncode, 75, text)
            self.assertFalse((self.dir / "runs.jsonl").exists())
            self.assertFalse((self.dir / "run-2.log").exists())
            (self.dir / "run-1.jsonl").unlink()
        self.assertIn("| run | 2 | 0 |", self.sweep("--seeds=1,2").stdout)

    def test_wrong_options(self):
        for options, words in ((["--seeds=a"], "--seeds=a"), (["--seeds=3..1"], "empty"), (["--seeds=1", "--at_once=0"], "--at_once=0"),
                               (["--seeds=1", "--arm=a:--checkpoint_dir=runs"], "--checkpoint_dir=runs, which all runs would use"),
                               (["--seeds=1", "--arm=a:--seed 3"], "--seed; leave it out"), (["--seeds=1", "--arm=a b:"], "--arm=a b"),
                               (["--seeds=1", "--arm=a:", "--arm=a:"], "the same name")):
            wrong = self.sweep(*options)
            self.assertEqual(wrong.returncode, USAGE, wrong.stderr)
            self.assertIn(words, wrong.stderr)
        self.assertIn("no program nothing", self.sweep("--seeds=1", command=["nothing"]).stderr)


if __name__ == "__main__":
    main()
