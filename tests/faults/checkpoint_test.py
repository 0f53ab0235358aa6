#!/usr/bin/env python3
"""Checkpoints of jobs under mpirun that are stopped, killed and resumed. They must train the same as an uninterrupted run.

checkpoint_test.py DEEPER MPIRUN [unittest arguments]

Faults of ranks and checkpoints in daily use, and the test of each:
  17 a prime number of ranks, a batch of fewer than ranks, an epoch of fewer than a batch    Ranks; data/Loader.WorksWithFewerSamplesThanRanks
  18 SIGKILL during a commit                            commit_test.py test_kills; Stops.test_a_killed_save_leaves_the_checkpoints_before_it
  19 full disk, failing or short writes                 commit_test.py test_failing_calls; FullDisk;
                                                       trainer/CheckpointTest.AFullDiskLeavesTheOldCheckpointAndNothingElse
  20 damaged or missing shard, manifest                 trainer/CheckpointTest.LatestFallsBackToTheNewestValidOne, EveryFlippedBitIsFoundAndNamed;
                                                       cli/train Training.test_damaged_checkpoint
  21 resumed on other ranks, twice in an epoch, at its end, in a later one    Resume
  22 resumed with another dataset, model, batch, seed   Mismatch
  23 ranks that are killed or stopped                   faults_test.py Trials
  24 USR1, TERM, INT, HUP, PIPE, a second signal        Stops
  25 two jobs on one directory, read-only, leftovers    Directory
"""
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from jobs import Job, write_idx

DEEPER, MPIRUN = sys.argv[1:3]
USAGE, CHECKPOINT, PREEMPTED = 2, 4, 75
PATIENCE = 300  # seconds: a slow disk may take seconds for each fsync
LAUNCHER = [MPIRUN, "--oversubscribe", "--bind-to", "none", "--allow-run-as-root", "--timeout", str(PATIENCE)]
# 40 samples: 3 steps of 12 and one of 4 an epoch.
TRAIN = ["train", "--model=nin-cifar", "--image_size=10", "--threads=1", "--global_batch=12", "--log_every=1", "--eval_every=1000000",
         "--augment=crop"]
ELASTIC = ["--deterministic=elastic", "--elastic_slices=8"]
STEPS = 14


def steps_in(directory):
    return sorted(int(path.name.split("-")[1]) for path in directory.glob("step-*"))


class Checkpoints(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(temporary.cleanup)
        cls.dir = pathlib.Path(temporary.name)
        cls.data = cls.pack(cls.dir, 40)

    @staticmethod
    def pack(directory, samples):
        write_idx(directory, samples)
        for split in "train", "val":
            subprocess.run([DEEPER, "pack", "--format=idx", f"--input={directory}", f"--output={directory}/data", f"--split={split}"],
                           check=True, capture_output=True)
        return directory / "data"

    def setUp(self):
        temporary = tempfile.TemporaryDirectory(dir=self.dir)
        self.addCleanup(temporary.cleanup)
        self.run_dir = pathlib.Path(temporary.name) / "run"
        self.metrics = pathlib.Path(temporary.name) / "metrics"
        self.output = pathlib.Path(temporary.name) / "output"

    def command(self, ranks, *flags):
        launcher = [*LAUNCHER, "-n", str(ranks)] if ranks else []
        return [*launcher, DEEPER, *TRAIN, f"--data={self.data}", f"--checkpoint_dir={self.run_dir}", f"--metrics_out={self.metrics}", *flags]

    def train(self, ranks, *flags, code=0):
        result = subprocess.run(self.command(ranks, *flags), capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)
        return result

    def events(self, kind):
        return [event for event in map(json.loads, self.metrics.read_text().splitlines()) if event["event"] == kind]

    def sample_log(self):
        """{step: hash of the samples that it trained on}; the last time for a step that was trained twice."""
        return {event["step"]: event["samples"] for event in self.events("step")}

    def sound(self, *steps):
        listing = subprocess.run([DEEPER, "checkpoint", "list", str(self.run_dir)], capture_output=True, text=True).stdout
        self.assertEqual([int(line.split()[0]) for line in listing.splitlines()[1:] if line.endswith("sound")], list(steps), listing)


class Ranks(Checkpoints):
    """Seven ranks, of which four have a sample of an epoch's last batch; a batch larger than an epoch; a batch smaller than the ranks."""

    def test_each_sample_once(self):
        for batch, epoch_steps in (12, 4), (64, 1), (5, 8):
            logs, losses = [], []
            for ranks in 1, 7:
                done = self.train(ranks, f"--global_batch={batch}", "--epochs=2", "--checkpoint_every=1", "--keep=100", "--resume=never")
                self.assertEqual("warning: a step has 5 images on 7 ranks: 2 ranks have none" in done.stdout, batch < ranks, done.stdout)
                logs.append(self.sample_log())
                losses.append([event["loss"] for event in self.events("step")])
                self.assertEqual(steps_in(self.run_dir), list(range(1, 2 * epoch_steps + 1)))
                manifest = json.loads((self.run_dir / f"step-{2 * epoch_steps:09}/manifest.json").read_text())
                self.assertEqual(manifest["data"]["samples_trained"], 2 * 40)
                subprocess.run(["rm", "-r", str(self.run_dir)], check=True)
            self.assertEqual(*logs)
            for alone, together in zip(*losses, strict=True):
                self.assertAlmostEqual(alone, together, delta=1e-3 * alone)

    def test_batch_norm_needs_an_image_on_every_rank(self):
        normed = ["--model=googlenet-bn", "--image_size=28", "--stem=small", "--aux=false", "--global_batch=3", "--max_steps=2"]
        refused = self.train(4, *normed, code=USAGE)
        self.assertIn("--global_batch=3 is smaller than the number of ranks, 4: a rank without images has no statistics", refused.stderr)
        self.train(4, *normed, "--sync_bn")


class Resume(Checkpoints):
    """4 -> 3 -> 8 -> 1 ranks: twice in mid-epoch, at the end of an epoch, in the third and the fourth."""

    def uninterrupted(self, *flags):
        plain = Resume()
        plain.setUp()
        self.addCleanup(plain.doCleanups)
        plain.train(1, f"--max_steps={STEPS}", *flags)
        return plain

    def hand_on(self, turns, *flags):
        for ranks, last in turns:
            self.train(ranks, f"--max_steps={last}", *flags)

    def test_the_sample_log_is_that_of_the_uninterrupted_run(self):
        plain = self.uninterrupted()
        self.hand_on([(4, 1), (3, 2), (8, 4), (1, 8), (2, 11), (3, STEPS)])
        self.assertEqual(len(set(plain.sample_log().values())), STEPS)
        self.assertEqual(self.sample_log(), plain.sample_log())
        self.assertEqual([event["step"] for event in self.events("resume")], [1, 2, 4, 8, 11])

    def test_elastic_weights_are_too(self):
        plain = self.uninterrupted(*ELASTIC)
        self.hand_on([(4, 1), (2, 2), (8, 4), (1, 9), (4, STEPS)], *ELASTIC)
        self.assertEqual(self.sample_log(), plain.sample_log())
        newest = [f"{run.run_dir}/step-{STEPS:09}" for run in (plain, self)]
        same = subprocess.run([DEEPER, "checkpoint", "diff", *newest], capture_output=True, text=True)
        self.assertEqual(same.returncode, 0, same.stdout)
        other = subprocess.run([DEEPER, "checkpoint", "diff", newest[0], f"{self.run_dir}/step-{9:09}"], capture_output=True, text=True)
        self.assertEqual(other.returncode, CHECKPOINT)
        self.assertRegex(other.stdout, r"(?m)weight \(weight\): \d+ values differ, by at most [0-9.e-]+$")

    def test_resharded_and_exported_it_is_the_same(self):
        self.train(3, "--max_steps=2")
        whole = self.run_dir.parent / "whole"
        for source, shards, target in (self.run_dir, 5, self.run_dir.parent / "five"), (self.run_dir.parent / "five", 1, whole):
            subprocess.run([DEEPER, "checkpoint", "reshard", str(source), f"--shards={shards}", f"--output={target}"], check=True)
            self.assertEqual(len(list(target.glob("step-*/shard-*.h5"))), shards)
        subprocess.run([DEEPER, "checkpoint", "diff", str(self.run_dir), str(whole)], check=True, capture_output=True)
        files = []
        for source in self.run_dir, whole:
            files.append(self.run_dir.parent / f"{source.name}.h5")
            subprocess.run([DEEPER, "export", f"--checkpoint={source}", f"--output={files[-1]}"], check=True, capture_output=True)
        self.assertEqual(files[0].read_bytes(), files[1].read_bytes())


class Stops(Checkpoints):
    def running(self, ranks, *flags):
        job = Job(self.command(ranks, "--max_steps=1000000", *flags), self.output)
        self.addCleanup(job.__exit__)
        self.assertTrue(job.wait_for_text("step 5/", PATIENCE), job.text())
        return job

    def saved_once(self, job):
        self.assertIsNotNone(job.wait_until_gone(PATIENCE), job.text())
        self.assertEqual(job.process.returncode, PREEMPTED, job.text())
        saved = self.events("checkpoint")
        self.assertEqual(len(saved), 1)
        self.sound(saved[0]["step"])
        self.assertIn("stopped by a signal after step", job.text())
        return saved[0]["step"]

    def test_usr1_on_one_rank(self):
        job = self.running(2)
        os.kill(job.rank(1), signal.SIGUSR1)
        step = self.saved_once(job)
        self.assertIn(f"{step} steps done", self.train(3, f"--max_steps={step + 1}").stdout)

    def test_term_on_one_rank(self):
        for rank in 0, 1:
            job = self.running(2, "--resume=never")
            os.kill(job.rank(rank), signal.SIGTERM)
            self.saved_once(job)
            subprocess.run(["rm", "-r", str(self.run_dir)], check=True)

    def test_usr1_on_mpirun_reaches_all(self):
        job = self.running(3)
        os.kill(job.process.pid, signal.SIGUSR1)
        self.saved_once(job)

    def test_each_signal_on_a_plain_run(self):
        """Without mpirun, as in a terminal; a SIGHUP under nohup changes nothing."""
        for blow in signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1:
            self.addCleanup(signal.signal, blow, signal.signal(blow, signal.SIG_DFL))  # shells ignore some for background jobs
            job = self.running(0)
            os.kill(job.process.pid, blow)
            self.saved_once(job)
            self.assertEqual("once more to stop at once" in job.text(), blow == signal.SIGINT)
            subprocess.run(["rm", "-r", str(self.run_dir), str(self.metrics)], check=True)
        with Job(["nohup", *self.command(0, "--max_steps=1000000")], self.output) as job:
            self.assertTrue(job.wait_for_text("step 5/", PATIENCE), job.text())
            os.kill(job.process.pid, signal.SIGHUP)
            seen = job.text().count("images/s")
            self.assertTrue(job.wait_for_text(f"step {seen + 50}/", PATIENCE), job.text())
            os.kill(job.process.pid, signal.SIGTERM)
            self.saved_once(job)

    def test_nobody_reads_the_log(self):
        """`| head -1`"""
        for flags in [], ["--checkpoint_dir="]:
            with subprocess.Popen(self.command(0, "--max_steps=30", *flags), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as job:
                job.stdout.readline()
                job.stdout.close()
                errors = job.stderr.read()
            self.assertEqual(job.returncode, 0, errors)
            self.assertEqual(self.events("done")[-1]["step"], 30)

    def test_a_second_signal_is_harmless(self):
        self.train(2, "--max_steps=3")
        job = self.running(2)
        victim = job.rank(1)
        os.kill(victim, signal.SIGSTOP)  # so that both signals are pending before it reacts
        os.kill(victim, signal.SIGUSR1)
        os.kill(victim, signal.SIGTERM)
        os.kill(victim, signal.SIGCONT)
        self.assertIsNotNone(job.wait_until_gone(PATIENCE), job.text())
        self.assertNotIn(job.process.returncode, (0, PREEMPTED), job.text())
        self.sound(3)
        self.assertIn("3 steps done", self.train(2, "--max_steps=4").stdout)

    def test_a_killed_save_leaves_the_checkpoints_before_it(self):
        """Saves at every step. After any rank is killed at any time, the next start resumes from a checkpoint and removes leftovers."""
        for rank, delay in (0, 0.02), (1, 0.11), (0, 0.17), (1, 0.23):
            job = self.running(2, "--checkpoint_every=1", "--keep=2")
            time.sleep(delay)
            os.kill(job.rank(rank), signal.SIGKILL)
            self.assertIsNotNone(job.wait_until_gone(PATIENCE), job.text())
            newest = steps_in(self.run_dir)[-1]
            self.assertIn(f"{newest} steps done", self.train(2, f"--max_steps={newest + 1}").stdout)
            self.assertEqual(list(self.run_dir.glob(".tmp-*")), [])
            subprocess.run(["rm", "-r", str(self.run_dir)], check=True)

    def test_by_the_clock(self):
        job = self.running(2, "--checkpoint_minutes=0.01", "--keep=1000")
        self.assertTrue(job.wait_for_text("committed", PATIENCE), job.text())
        os.kill(job.rank(0), signal.SIGUSR1)
        self.assertIsNotNone(job.wait_until_gone(PATIENCE), job.text())
        steps = steps_in(self.run_dir)
        self.assertGreater(len(steps), 1)
        self.sound(*steps)


class FullDisk(Checkpoints):
    """A limit on file sizes simulates a full disk."""

    def limited(self, kib, *flags):
        limit = f"trap '' XFSZ; ulimit -f {kib}; exec \"$@\""
        return subprocess.run(["bash", "-c", limit, "limited", *self.command(0, "--metrics_out=", *flags)], capture_output=True, text=True)

    def test_training_goes_on_and_says_so(self):
        self.train(0, "--max_steps=1")
        room = max(path.stat().st_size for path in self.run_dir.glob("*/shard-*")) // 1024
        result = self.limited(room // 2, "--max_steps=4", "--checkpoint_every=1")
        self.assertEqual(result.returncode, CHECKPOINT, result.stderr)  # a failure of the last save fails the run
        for step in 2, 3, 4:
            self.assertRegex(result.stdout, rf"warning: checkpoint \S*{step} was NOT saved.*free space")
        self.assertIn("step 4/4", result.stdout)
        self.assertNotIn("committed", result.stdout)
        self.sound(1)
        self.assertEqual(len(list(self.run_dir.iterdir())), 1)
        self.train(0, "--max_steps=4")
        self.sound(1, 4)


class Mismatch(Checkpoints):
    def test_each_field_is_named(self):
        self.train(0, "--max_steps=5")
        other = self.pack(self.run_dir.parent, 44)
        for flag, words in {"--seed=7": "seed was 0 and is 7", "--global_batch=24": "global_batch was 12 and is 24", "--model=googlenet": "model was",
                            "--order=sequential": "order was", "--mean=0.25": "mean was", f"--data={other}": "dataset was"}.items():
            with self.subTest(flag=flag):
                flags = [flag, "--stem=small"] if flag == "--model=googlenet" else [flag]
                message = self.train(0, "--max_steps=6", *flags, code=CHECKPOINT).stderr
                self.assertIn(words, message)
                self.assertEqual("--force_resume" in message, flag == "--mean=0.25", message)
        both = ["--max_steps=6", "--mean=0.25", "--image_size=12"]
        self.assertIn("pass --force_resume to continue", self.train(0, *both, code=CHECKPOINT).stderr)
        self.assertNotIn("--force_resume", self.train(0, *both, "--global_batch=24", code=CHECKPOINT).stderr)
        forced = self.train(0, *both, "--force_resume")
        self.assertIn("--force_resume ignores that mean was", forced.stdout)
        self.assertIn("--force_resume ignores that image_size was 10 and is 12", forced.stdout)
        self.assertIn("seed was", self.train(0, *both, "--max_steps=7", "--seed=7", "--force_resume", code=CHECKPOINT).stderr)


class Directory(Checkpoints):
    def test_two_jobs(self):
        with Job(self.command(2, "--max_steps=1000000"), self.output) as job:
            self.assertTrue(job.wait_for_text("step 1/", PATIENCE), job.text())
            self.assertIn("in use by another process", self.train(0, "--max_steps=1", "--metrics_out=", code=CHECKPOINT).stderr)

    def test_another_job_takes_it_over(self):
        """As another machine does when this one makes no progress for too long. All ranks end, although a save ends at another time on each."""
        for _ in range(4):
            with Job(self.command(2, "--max_steps=1000000", "--checkpoint_every=1"), self.output) as job:
                self.assertTrue(job.wait_for_text("step 5/", PATIENCE), job.text())
                (self.run_dir / "other").write_text("host other\nprocess 7\ntoken 0\n")
                (self.run_dir / "other").replace(self.run_dir / ".deeper-lock")  # a sign of life could overwrite a change in place
                self.assertIsNotNone(job.wait_until_gone(60), job.text())
                self.assertEqual(job.process.returncode, CHECKPOINT, job.text())
                self.assertIn("was taken over by another process (process 7 on host other)", job.text())
            subprocess.run(["rm", "-r", str(self.run_dir)], check=True)

    def test_leftovers(self):
        """Those of an interrupted save, and only once nothing can stop the run from starting."""
        self.train(0, "--max_steps=1")
        names = "step-000000001", ".tmp-step-000000002/shard-00000-of-00009.h5", ".tmp-thesis/one.txt", ".tmp-list"
        for name in names[1:]:
            (self.run_dir / name).parent.mkdir(exist_ok=True)
            (self.run_dir / name).write_text("half")
        for flag, code in ("--global_batch=24", CHECKPOINT), ("--metrics_out=/dev/null/x", None):
            failed = subprocess.run(self.command(0, "--max_steps=2", flag), capture_output=True, text=True, timeout=PATIENCE)
            self.assertIn(failed.returncode, [code] if code else range(1, 7), failed.stderr)
            for name in names:
                self.assertTrue((self.run_dir / name).exists(), f"{name} after {flag}")
        self.train(0, "--max_steps=1")
        self.assertEqual(sorted(path.name for path in self.run_dir.iterdir()), [".tmp-list", ".tmp-thesis", "step-000000001"])
        self.assertEqual((self.run_dir / ".tmp-thesis/one.txt").read_text(), "half")

    def test_read_only(self):
        self.run_dir.mkdir(mode=0o555)
        like_a_user = ["setpriv", "--inh-caps=-dac_override", "--bounding-set=-dac_override"] if os.geteuid() == 0 else []
        result = subprocess.run([*like_a_user, *self.command(0, "--max_steps=1")], capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual(result.returncode, CHECKPOINT, result.stdout + result.stderr)
        self.assertIn(f"cannot write to {self.run_dir}: Permission denied", result.stderr)
        self.assertEqual(list(self.run_dir.iterdir()), [])


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
