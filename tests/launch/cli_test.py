#!/usr/bin/env python3
"""The real binary from outside: its manual, exit codes and messages, and a small training run from packing to predicting.

cli_test.py DEEPER MPIRUN [unittest arguments]
"""
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest
import zlib

import h5py
import numpy

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEEPER, MPIRUN = sys.argv[1:3]
COMMANDS = ["pack", "verify", "describe", "doctor", "train", "eval", "predict", "export", "checkpoint list", "checkpoint diff", "checkpoint reshard",
            "report", "bench step", "bench op", "bench comm", "bench loader", "bench checkpoint", "bench scaling"]
USAGE, DATA, CHECKPOINT, COMMUNICATION, NOT_FINITE = 2, 3, 4, 5, 6
# Small enough for a step of a few milliseconds.
MODEL = ["--model=nin-cifar", "--image_size=10", "--threads=1"]
TRAIN = [*MODEL, "--global_batch=12", "--lr=0.01", "--log_every=1", "--seed=5", "--augment=crop"]


def run(*arguments, ranks=0):
    launcher = [MPIRUN, "--oversubscribe", "--bind-to", "none", "--allow-run-as-root", "--timeout", "120", "-n", str(ranks)]
    command = [*(launcher if ranks else []), DEEPER, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=150)


def write_idx(directory, name, samples, seed):
    """Images of 10 x 10: class k has a bright row k and column k, in noise."""
    rng = numpy.random.default_rng(seed)
    labels = numpy.arange(samples, dtype=numpy.uint8) % 10
    images = rng.integers(0, 60, (samples, 10, 10), dtype=numpy.uint8)
    for image, label in zip(images, labels):
        image[label, :] += 150
        image[:, label] += 40
    (directory / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, *images.shape) + images.tobytes())
    (directory / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, samples) + labels.tobytes())


def write_png(path, pixels):
    """pixels: [height, width, 3] uint8."""
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">2I5B", pixels.shape[1], pixels.shape[0], 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def flip_bit(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 4
    path.write_bytes(content)


def sample_position(shard):
    """Where in the file the pixels of sample 7 begin."""
    with h5py.File(shard) as file:
        return file["data"].id.get_offset() + int(file["offset"][7])


def events(path, kind):
    return [event for event in map(json.loads, path.read_text().splitlines()) if event["event"] == kind]


def shards(step_directory):
    return {path.name: path.read_bytes() for path in step_directory.glob("shard-*.h5")}


class Cli(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(temporary.cleanup)
        cls.dir = pathlib.Path(temporary.name)
        cls.data = cls.dir / "data"
        cls.pack(cls.dir / "idx", cls.data, 1)

    @staticmethod
    def pack(source, output, seed):
        source.mkdir()
        write_idx(source, "train", 200, seed)
        write_idx(source, "t10k", 50, seed + 1)
        for split in "train", "val":
            packed = run("pack", "--format=idx", f"--input={source}", f"--output={output}", f"--split={split}",
                         "--shard_size=10000")
            assert packed.returncode == 0, packed.stderr

    def fails(self, code, words, *arguments, **how):
        """The command exits with `code`, and standard error says all `words`, once however many ranks there are."""
        result = run(*arguments, **how)
        self.assertEqual(result.returncode, code, result.stderr)
        for word in words:
            self.assertIn(word, result.stderr)
        return result

    def succeeds(self, *arguments, **how):
        result = run(*arguments, **how)
        self.assertEqual(result.returncode, 0, result.stderr + result.stdout)
        return result.stdout


class Manual(Cli):
    def test_overview(self):
        for arguments in [], ["--help"], ["help"]:
            overview = self.succeeds(*arguments)
            for command in COMMANDS:
                self.assertRegex(overview, rf"(?m)^  {command} +\S")

    def test_every_command(self):
        for command in COMMANDS:
            manual = self.succeeds(*command.split(), "--help")
            self.assertEqual(manual, self.succeeds("help", *command.split()))
            for words in f"deeper {command} [--flags]", "Examples:", "Exit codes:", "--":
                self.assertIn(words, manual)
        self.assertIn("--lr=0.01", self.succeeds("train", "--help"))
        self.assertNotIn("--lr=", self.succeeds("eval", "--help"))

    def test_documentation_is_up_to_date(self):
        self.assertEqual((ROOT / "docs/cli.md").read_text(), self.succeeds("help", "--markdown"),
                         "docs/cli.md: write it anew with `deeper help --markdown`")


class Usage(Cli):
    def test_names(self):
        self.fails(USAGE, ["no command trian", "did you mean train"], "trian")
        self.fails(USAGE, ["no command bench", "did you mean bench step"], "bench")
        self.fails(USAGE, ["deeper train:", "no flag --learning_rat"], "train", "--learning_rat=1")
        self.fails(USAGE, ["no flag --momentun", "did you mean --momentum?"], "train", "--momentun=0.9")
        self.fails(USAGE, ["deeper eval:", "no flag --lr"], "eval", "--lr=0.1")
        self.fails(USAGE, ["unexpected argument false"], "train", "--dropout", "false")
        self.fails(USAGE, ["googlenot", "googlenet-bn"], "describe", "--model=googlenot")

    def test_values(self):
        self.fails(USAGE, ["--lr=fast", "a number"], "train", "--lr=fast")
        self.fails(USAGE, ["--epochs=1.5", "an integer"], "train", "--epochs=1.5")
        self.fails(USAGE, ["--aux=maybe", "true or false"], "train", "--aux=maybe")
        self.fails(USAGE, ["--epochs needs a value"], "train", "--epochs")
        self.fails(USAGE, ["--data"], "train", "--max_steps=1")
        self.fails(USAGE, ["--augment=blur", "inception"], "train", "--synthetic", "--augment=blur")
        self.fails(USAGE, ["smallest --image_size"], "describe", "--model=nin", "--image_size=8")
        self.fails(USAGE, ["--format=onnx"], "export", "--format=onnx", "--checkpoint=x", "--output=y")

    def test_flag_files(self):
        inner, outer = self.dir / "inner.flags", self.dir / "outer.flags"
        inner.write_text("# comment\n\n  --image_size 48\n")
        outer.write_text(f"--flagfile={inner}\n--model=nin\n")
        self.fails(USAGE, [f"{inner}:3: ", "--image_size 48"], "describe", f"--flagfile={outer}")
        inner.write_text("# comment\n--image_size=64\n--num_classes=7\n--noaux\n")
        table = self.succeeds("describe", "--flagfile", outer, "--model", "googlenet", "--stem=small")
        self.assertIn("googlenet: 64 x 64 px, 3 channels, 7 classes", table)
        self.assertNotIn("aux1", table)
        inner.write_text(f"--flagfile={outer}\n")
        self.fails(USAGE, [f"{inner}:1: ", "includes itself"], "describe", f"--flagfile={outer}")
        self.fails(USAGE, ["missing.flags"], "describe", "--flagfile=missing.flags")

    def test_ranks(self):
        normed = ["train", f"--data={self.data}", "--model=googlenet-bn", "--image_size=28", "--stem=small", "--aux=false", "--max_steps=1"]
        result = self.fails(USAGE, ["--global_batch=2", "number of ranks, 3"], *normed, "--global_batch=2", ranks=3)
        self.assertEqual(result.stderr.count("deeper train:"), 1)
        self.fails(USAGE, ["leave out mpirun"], "describe", ranks=2)
        elastic = ["train", f"--data={self.data}", *TRAIN, "--max_steps=1", "--deterministic=elastic"]
        self.fails(USAGE, ["3 ranks", "--elastic_slices=4"], *elastic, "--elastic_slices=4", ranks=3)
        self.fails(USAGE, ["batch normalisation"], *elastic, "--model=googlenet-bn", "--image_size=28", "--stem=small", ranks=2)


class Damage(Cli):
    def copy(self, name):
        return pathlib.Path(shutil.copytree(self.data, self.dir / name))

    def train(self, data):
        return ["train", f"--data={data}", *TRAIN, "--epochs=1"]

    def test_missing(self):
        self.fails(DATA, [str(self.dir / "nowhere")], *self.train(self.dir / "nowhere"))
        data = self.copy("missing")
        shard = sorted(data.glob("train-*.h5"))[1]
        shard.unlink()
        self.fails(DATA, [shard.name], *self.train(data))

    def test_truncated(self):
        data = self.copy("truncated")
        shard = sorted(data.glob("train-*.h5"))[1]
        os.truncate(shard, shard.stat().st_size // 2)
        self.fails(DATA, [shard.name], *self.train(data))
        self.assertIn(shard.name, self.fails(DATA, [], "verify", f"--data={data}").stdout)

    def test_flipped_bit(self):
        data = self.copy("flipped")
        shard = sorted(data.glob("train-*.h5"))[1]
        flip_bit(shard, sample_position(shard))
        self.fails(DATA, [shard.name, "sample 7"], *self.train(data))
        self.fails(DATA, [shard.name, "sample 7"], *self.train(data), ranks=2)
        self.assertIn("sample 7", self.fails(DATA, ["problem"], "verify", f"--data={data}").stdout)

    def test_bad_samples_that_are_allowed(self):
        data = self.copy("allowed")
        shard = sorted(data.glob("train-*.h5"))[1]
        flip_bit(shard, sample_position(shard))
        losses = []
        for ranks in 0, 3:
            metrics = self.dir / f"allowed-{ranks}"
            printed = self.succeeds(*self.train(data), "--allow_bad=1", f"--metrics_out={metrics}", ranks=ranks)
            self.assertIn(f"{shard.name}, sample 7", printed)
            self.assertIn("1 samples could not be read", printed)
            self.assertEqual(len(events(metrics, "bad_sample")), 1)
            losses.append([event["loss"] for event in events(metrics, "step")])
        numpy.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)

    def test_staged(self):
        stage = self.dir / "local"
        for ranks in 2, 0:
            result = run(*self.train(self.data), f"--stage_dir={stage}", ranks=ranks)
            self.assertEqual(result.returncode, 0, result.stderr)
        names = [path.name for path in (stage / "deeper-shards").iterdir()]
        self.assertFalse([name for name in names if name.endswith(".tmp")], "the last run removed what the first had left")
        self.fails(DATA, ["create directory"], *self.train(self.data), "--stage_dir=/dev/null/x")

    def test_mixed(self):
        data, other = self.copy("mixed"), self.dir / "other"
        self.pack(self.dir / "other-idx", other, 3)
        shard = sorted(data.glob("train-*.h5"))[1]
        shutil.copy(other / shard.name, shard)
        self.fails(DATA, [shard.name], *self.train(data))

    def test_image_folder(self):
        folder, output = self.dir / "folder", self.dir / "folder-packed"
        for name, value in ("dark", 20), ("light", 220):
            (folder / name).mkdir(parents=True)
            write_png(folder / name / "a.png", numpy.full((20, 24, 3), value, numpy.uint8))
        pack = ["pack", "--format=folder", f"--input={folder}", f"--output={output}", "--resize=16"]
        (folder / "dark" / "b.jpg").write_text("no image at all")
        self.fails(DATA, ["b.jpg"], *pack)
        self.assertIn("2 images of 2 classes", self.succeeds(*pack, "--allow_bad=1"))


class Training(Cli):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.checkpoints = cls.dir / "run"
        cls.train = ["train", f"--data={cls.data}", *TRAIN]
        trained = run(*cls.train, "--max_steps=20", "--checkpoint_every=10", "--metrics_out", cls.dir / "metrics",
                      f"--checkpoint_dir={cls.checkpoints}")
        assert trained.returncode == 0, trained.stderr
        cls.step_20 = next(cls.checkpoints.glob("step-*20"))

    def test_learns_and_says_so(self):
        steps = events(self.dir / "metrics", "step")
        self.assertEqual([event["step"] for event in steps], list(range(1, 21)))
        self.assertLess(steps[-1]["loss"], steps[0]["loss"])
        self.assertEqual(events(self.dir / "metrics", "eval")[-1]["count"], 50)
        self.assertRegex(self.succeeds("checkpoint", "list", self.checkpoints), r"(?m)^ +10 +1 +\d+\.\d +- +sound$\n +20 +1 .* 0\.\d{4} +sound$")
        self.assertIn("all sound", self.succeeds("verify", f"--checkpoint={self.checkpoints}", f"--data={self.data}"))

    def test_start_says_how_images_are_changed(self):
        short = [*self.train, "--max_steps=1", "--eval_every=1000"]
        plain = self.succeeds(*short)
        self.assertRegex(plain, r"order full, augmentation crop\n")
        self.assertRegex(plain, r"50 samples of split val\n")
        self.assertRegex(self.succeeds(*short, "--augment=inception"), r"augmentation inception, color_jitter 0\.5\n")
        rich = self.succeeds(*short, "--color_jitter=0.25", "--random_erasing=0.125", "--mixup=0.2", "--cutmix=1", "--label_smoothing=0.1",
                             "--val_preset=torchvision")
        self.assertRegex(rich, r"augmentation crop, color_jitter 0\.25, random_erasing 0\.125, mixup 0\.2, cutmix 1, label_smoothing 0\.1\n")
        self.assertRegex(rich, r"50 samples of split val, val_preset torchvision\n")

    def test_any_number_of_ranks(self):
        alone = [event["loss"] for event in events(self.dir / "metrics", "step")]
        for ranks in 1, 2, 3:
            metrics = self.dir / f"metrics-{ranks}"
            self.succeeds(*self.train, "--max_steps=20", f"--metrics_out={metrics}", ranks=ranks)
            together = [event["loss"] for event in events(metrics, "step")]
            numpy.testing.assert_allclose(together, alone, rtol=1e-4)

    def test_steps_that_are_not_finite(self):
        diverging = [*self.train, "--lr=1e6", "--max_steps=12"]
        sharded = [*diverging, "--shard_optimizer"]
        for command, ranks in (diverging, 0), (diverging, 2), (sharded, 2):
            self.fails(NOT_FINITE, ["step ", "the gradient of ", "not finite", "--on_nonfinite=skip"], *command, ranks=ranks)
        self.assertIn("warning: skipped step ", self.succeeds(*sharded, "--on_nonfinite=skip", ranks=2))
        metrics = self.dir / "skipped"
        self.assertIn("warning: skipped step ", self.succeeds(*diverging, "--on_nonfinite=skip", f"--metrics_out={metrics}"))
        skipped = events(metrics, "nonfinite")
        self.assertGreater(len(skipped), 5)
        self.assertEqual(events(metrics, "step")[-1]["nonfinite_steps"], len(skipped))
        self.fails(NOT_FINITE, ["100 steps in a row"], *diverging, "--max_steps=200", "--on_nonfinite=skip")

    def test_resume_is_bit_identical(self):
        for ranks, whole in (0, self.checkpoints), (2, self.dir / "whole-2"):
            if ranks:
                self.succeeds(*self.train, "--max_steps=20", f"--checkpoint_dir={whole}", ranks=ranks)
            parts = self.dir / f"parts-{ranks}"
            for steps in 10, 20, 20:  # the third run finds nothing left to do
                # The schedule is constant, so a shorter run is the beginning of a longer one.
                self.succeeds(*self.train, f"--max_steps={steps}", f"--checkpoint_dir={parts}", ranks=ranks)
            saved = shards(parts / self.step_20.name)
            self.assertEqual(len(saved), max(1, ranks))
            self.assertEqual(saved, shards(whole / self.step_20.name))

    def test_batch_norm_of_all_ranks(self):
        train = ["train", f"--data={self.data}", *TRAIN, "--model=googlenet-bn", "--stem=small", "--image_size=32",
                 "--sync_bn", "--global_batch=3", "--max_steps=2", "--eval_every=1000"]
        losses = {}
        for ranks in 0, 2:
            metrics = self.dir / f"sync-bn-{ranks}"
            self.succeeds(*train, f"--metrics_out={metrics}", f"--checkpoint_dir={self.dir}/sync-bn-run-{ranks}", ranks=ranks)
            losses[ranks] = [event["loss"] for event in events(metrics, "step")]
        numpy.testing.assert_allclose(losses[2], losses[0], rtol=1e-3)
        self.fails(USAGE, ["--sync_bn: nin-cifar has no batch normalisation"], *self.train, "--model=nin-cifar",
                   "--sync_bn", "--max_steps=1", ranks=2)

    def test_sharded_optimizer(self):
        train = [*self.train, "--deterministic=true"]  # on 3 ranks, the size of buckets shows in the bits
        self.assertIn("of momentum a rank, its slice of ", self.succeeds(*train, "--max_steps=1", "--shard_optimizer", ranks=3))
        for ranks in 1, 2, 3:
            first, second = (self.dir / f"{name}-{ranks}" for name in ("sharded-first", "whole-first"))
            self.succeeds(*train, "--max_steps=10", "--shard_optimizer", f"--checkpoint_dir={first}", ranks=ranks)
            self.succeeds(*train, "--max_steps=10", f"--checkpoint_dir={second}", ranks=ranks)
            for step in 10, 20:
                saved = [{path.name: path.read_bytes() for path in next(run_dir.glob(f"step-*{step}")).iterdir()}
                         for run_dir in (first, second)]
                self.assertEqual(len(saved[0]), ranks + 1)
                self.assertEqual(saved[0], saved[1])
                if step == 10:
                    self.succeeds(*train, "--max_steps=20", f"--checkpoint_dir={first}", ranks=ranks)
                    self.succeeds(*train, "--max_steps=20", "--shard_optimizer", f"--checkpoint_dir={second}", ranks=ranks)

    def test_eval_and_export(self):
        weights, logits = self.dir / "weights.h5", self.dir / "logits.h5"
        evaluate = ["eval", f"--data={self.data}", "--threads=1", "--batch=16"]
        line = self.succeeds(*evaluate, f"--checkpoint={self.checkpoints}", f"--logits_out={logits}",
                             f"--metrics_out={self.dir}/eval").splitlines()[-1].split("(")[0]
        with h5py.File(logits) as file:
            right = numpy.argmax(file["logits"], axis=1) == file["labels"][:]
            self.assertEqual(file["logits"].shape, (50, 10))
            self.assertEqual(list(file["labels"][:12]), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1])
            alone = file["logits"][:]
        result = events(self.dir / "eval", "eval")[0]
        self.assertEqual((result["count"], result["step"]), (50, 20))
        self.assertAlmostEqual(result["top1"], right.mean())

        self.succeeds("export", f"--checkpoint={self.checkpoints}", "--format=hdf5", f"--output={weights}")
        self.assertIn(line, self.succeeds(*evaluate, f"--init_from={weights}"))
        self.assertIn(line, self.succeeds(*evaluate, f"--init_from={weights}", f"--logits_out={logits}", ranks=3))
        with h5py.File(logits) as file:
            numpy.testing.assert_allclose(file["logits"], alone, rtol=1e-4, atol=1e-5)
        with h5py.File(weights) as file:
            self.assertTrue(all(dataset.dtype == numpy.float32 for dataset in file.values()))
            self.assertIn((192, 1, 5, 5), [dataset.shape for dataset in file.values()])

    def test_predict(self):
        image, text = self.dir / "three.png", self.dir / "notes.txt"
        pixels = numpy.full((10, 10, 3), 30, numpy.uint8)
        pixels[3, :] += 150
        pixels[:, 3] += 40
        write_png(image, pixels)
        text.write_text("no image")
        predict = ["predict", f"--checkpoint={self.step_20}", "--threads=1"]
        lines = self.succeeds(*predict, image, image).splitlines()
        self.assertEqual((lines[0], len(lines)), (str(image), 12))
        shares = [float(line.split()[0]) for line in lines[1:6]]
        self.assertEqual(shares, sorted(shares, reverse=True))
        self.assertLessEqual(sum(shares), 100.05)
        self.fails(DATA, [str(text)], *predict, image, text)
        self.fails(DATA, ["missing.png"], *predict, "missing.png")
        self.fails(USAGE, ["at least one image"], *predict)

    def test_wrong_checkpoints(self):
        other = ["train", f"--data={self.data}", *TRAIN, "--max_steps=30", "--model=googlenet", "--stem=small"]
        self.fails(CHECKPOINT, ["model"], *other, f"--checkpoint_dir={self.checkpoints}")
        self.fails(CHECKPOINT, ["step"], *self.train, "--max_steps=30", "--resume=7", f"--checkpoint_dir={self.checkpoints}")
        self.fails(CHECKPOINT, ["nowhere"], "eval", f"--data={self.data}", f"--checkpoint={self.dir}/nowhere")
        (self.dir / "file").write_text("")
        self.fails(CHECKPOINT, [f"{self.dir}/file"], *self.train, "--max_steps=1", f"--checkpoint_dir={self.dir}/file/x")

    def test_damaged_checkpoint(self):
        run_dir = pathlib.Path(shutil.copytree(self.checkpoints, self.dir / "damaged"))
        shard = next((run_dir / self.step_20.name).glob("shard-*.h5"))
        flip_bit(shard, shard.stat().st_size // 2)
        self.assertIn(shard.name, self.fails(CHECKPOINT, ["problem"], "verify", f"--checkpoint={run_dir}").stdout)
        resumed = self.succeeds(*self.train, "--max_steps=11", f"--checkpoint_dir={run_dir}")
        self.assertIn("10 steps done", resumed)
        self.fails(CHECKPOINT, [self.step_20.name], "predict", f"--checkpoint={run_dir / self.step_20.name}", "x.png")


class Bench(Cli):
    def test_loader(self):
        bench = ["bench", "loader", f"--data={self.data}", "--image_size=10", "--images=50"]
        report = json.loads(self.succeeds(*bench, "--rounds=2"))
        self.assertEqual(report["settings"]["images"], 50)
        self.assertGreater(report["ratios"]["loader_to_pread"], 0)
        self.assertAlmostEqual(sum(report["stages"].values()), 1)
        opened = json.loads(self.succeeds(*bench, ranks=2))
        for how in "rank_0_for_all", "every_rank_all_files":
            self.assertGreater(opened[how]["seconds"], 0)

    def test_step(self):
        report = json.loads(self.succeeds("bench", "step", *MODEL, "--batch=4", "--num_classes=10", "--warmup=3", "--repeats=2"))
        self.assertEqual(report["settings"]["batch"], 4)
        self.assertLess(report["warmup_losses"][-1], report["warmup_losses"][0])
        for figure in "images_per_second", "step_ms", "forward_ms", "backward_ms", "update_ms", "peak_rss_bytes", "arena_bytes":
            self.assertGreater(report[figure], 0)
        self.fails(USAGE, ["--warmup"], "bench", "step", "--warmup=0")
        self.fails(USAGE, ["--profile", "--device=cuda"], "bench", "step", "--profile=trace.json")

    def test_op(self):
        small = ["--stem=small", "--batch=1", "--repeats=1", "--threads=1"]
        report = json.loads(self.succeeds("bench", "op", *small, "--op=inception3a"))
        self.assertEqual([op["name"] for op in report["ops"]], ["inception3a"])
        for figure in "forward_us", "backward_us":
            self.assertGreater(report["ops"][0]["separate"][figure], 0)
        report = json.loads(self.succeeds("bench", "op", *small))
        self.assertEqual([report["ops"][0]["name"], report["ops"][-1]["name"], len(report["ops"])], ["stem", "head", 11])
        self.fails(USAGE, ["--op=inception9z", "inception3a"], "bench", "op", *small, "--op=inception9z")

    def test_comm(self):
        sizes = ["--min_bytes=4096", "--max_bytes=65536", "--repeats=3"]
        for ranks, collectives in (2, 5), (3, 4):  # the tree wants a power of two
            result = run("bench", "comm", *sizes, ranks=ranks)
            self.assertEqual(result.returncode, 0, result.stderr)
            report = json.loads(result.stdout)
            self.assertEqual(report["settings"]["ranks"], ranks)
            self.assertEqual(len(report["results"]), 3 * collectives)
            for measured in report["results"]:
                self.assertIn(measured["collective"], result.stderr)
                reduced = 2 if "all_reduce" in measured["collective"] else 1
                factor = reduced * (ranks - 1) / ranks
                for figure, ms in ("bus_gb_per_s", measured["ms"]), ("mpi_bus_gb_per_s", measured["mpi_ms"]):
                    self.assertAlmostEqual(measured[figure], factor * measured["bytes"] / ms / 1e6)
        only = json.loads(run("bench", "comm", *sizes, "--collective=all_gather", ranks=2).stdout)
        self.assertEqual({measured["collective"] for measured in only["results"]}, {"all_gather"})
        self.fails(USAGE, ["--collective=sum"], "bench", "comm", *sizes, "--collective=sum", ranks=2)
        self.fails(USAGE, ["mpirun"], "bench", "comm")
        self.fails(USAGE, ["--max_bytes"], "bench", "comm", "--max_bytes=100", ranks=2)


    def test_checkpoint(self):
        for ranks in 0, 2:
            report = json.loads(self.succeeds("bench", "checkpoint", *MODEL, "--batch=2", "--repeats=2", f"--dir={self.dir}/bench", ranks=ranks))
            self.assertEqual(report["settings"]["ranks"], max(ranks, 1))
            for figure in "bytes", "step_ms", "stall_ms", "save_mb_per_s", "bare_write_mb_per_s", "restore_mb_per_s", "bare_read_mb_per_s":
                self.assertGreater(report[figure], 0)
            self.assertFalse((self.dir / "bench").exists())
        self.fails(USAGE, ["is there already"], "bench", "checkpoint", *MODEL, f"--dir={self.dir}")

    def test_scaling(self):
        scaling = ["bench", "scaling", f"--mpirun={MPIRUN} --oversubscribe --bind-to none --allow-run-as-root", "--steps=2", "--warmup=1"]
        result = run(*scaling, "--ranks=2,1", "--batch=4,2", "--rounds=2", "--predict=16,4096", "--node_gb_per_s=0.001", "--ranks_per_node=2", "--",
                     "--synthetic", "--num_classes=10", *MODEL)
        self.assertEqual(result.returncode, 0, result.stderr)
        report = json.loads(result.stdout)
        self.assertEqual(report["benchmark"], "scaling")
        self.assertEqual([(p["kind"], p["ranks"], p["global_batch"]) for p in report["points"]],
                         [("weak", 1, 4), ("weak", 2, 8), ("weak", 1, 2), ("weak", 2, 4), ("strong", 1, 8), ("strong", 2, 8)])
        for point in report["points"]:
            rate, (low, high) = point["images_per_second"]["median"], point["images_per_second"]["ci95"]
            self.assertTrue(low <= rate <= high, point)  # of two runs the median is the mean
            parts = sum(point[part] for part in ("compute_ms", "comm_exposed_ms", "data_wait_ms", "other_ms"))
            self.assertAlmostEqual(parts / point["step_ms"], 1, 2)
            base = next(p for p in report["points"] if p["kind"] == point["kind"] and p["ranks"] == 1
                        and (p["kind"] == "strong" or p["global_batch"] * point["ranks"] == point["global_batch"]))
            self.assertAlmostEqual(point["efficiency"], rate / point["ranks"] / base["images_per_second"]["median"])
            self.assertAlmostEqual(point["predicted"] / rate - 1, point["error"])
            self.assertEqual(point["held_out"], point["kind"] == "strong" and point["ranks"] == 1)  # all others are calibrated on
        few, many = report["predictions"]
        self.assertEqual((few["ranks"], many["ranks"]), (16, 4096))
        self.assertLess(few["efficiency"], 0.5)  # 4 MB of gradients at 1 MB/s
        self.assertIn("thread", report["hardware"])
        (self.dir / "scaling.json").write_text(result.stdout)
        calibration = f"--calibration={self.dir}/scaling.json"
        again = run(*scaling, calibration, "--ranks=2", "--batch=2", "--rounds=2", "--kind=weak", "--", "--synthetic", "--num_classes=10", *MODEL)
        self.assertEqual(again.returncode, 0, again.stderr)
        held = json.loads(again.stdout)
        self.assertTrue(held["points"][0]["held_out"])
        for figure in "fixed_ms", "ms_per_image", "sharing", "sending_ms_per_byte":
            self.assertAlmostEqual(held["calibration"][figure], report["calibration"][figure])
        self.fails(USAGE, ["of another network"], *scaling, calibration, "--ranks=1", "--rounds=2", "--", "--synthetic", "--num_classes=11", *MODEL)
        self.fails(USAGE, [f"--calibration={DEEPER}", "not the JSON"], *scaling, f"--calibration={DEEPER}")
        self.fails(USAGE, ["--ranks=1,x", "whole numbers"], *scaling, "--ranks=1,x")
        self.fails(USAGE, ["--mpirun", "leave out mpirun"], *scaling, ranks=1)
        self.fails(USAGE, ["no program nowhere"], "bench", "scaling", "--mpirun=nowhere")
        self.fails(USAGE, ["--rounds"], *scaling, "--rounds=1")
        self.fails(USAGE, ["exit code 2", "--model=lenet"], *scaling, "--ranks=1", "--", "--synthetic", "--model=lenet")
        self.fails(DATA, ["exit code 3", "nowhere"], *scaling, "--ranks=1", "--", f"--data={self.dir}/nowhere")

    def test_doctor(self):
        """What it finds is for tests/multinode/doctor_test.py and the unit tests: here, that it looks everywhere."""
        doctor = ["doctor", "--synthetic", "--num_classes=10", *MODEL, "--batch=4", "--steps=2"]
        result = run(*doctor, f"--checkpoint_dir={self.dir}/doctor", f"--json={self.dir}/doctor.json", ranks=3)
        self.assertIn(result.returncode, (0, DATA, COMMUNICATION), result.stderr)
        report = json.loads((self.dir / "doctor.json").read_text())
        self.assertEqual(report["fit"], result.returncode == 0)
        self.assertEqual(len(report["ranks"]), 3)
        for rank in report["ranks"]:
            for figure in "link_latency_us", "link_bytes_per_second", "compute_ms", "data_images_per_second", "free_bytes", "memory_bytes", "cores":
                self.assertGreater(rank[figure], 0, figure)
            self.assertTrue(rank["sees_lock"])
            self.assertLess(abs(rank["clock_skew_seconds"]), 1)
        self.assertGreater(report["predicted"]["images_per_second"], 0)
        self.assertIn(report["bottleneck"], result.stdout)
        self.assertIn("images/s predicted on 1 ranks", self.succeeds(*doctor))
        self.fails(DATA, [f"{self.dir}/nowhere"], "doctor", f"--data={self.dir}/nowhere", ranks=2)
        (self.dir / "file").write_text("")
        self.fails(CHECKPOINT, [f"{self.dir}/file"], *doctor, f"--checkpoint_dir={self.dir}/file/x", ranks=2)
        self.fails(USAGE, ["--batch"], *doctor, "--batch=0")


class Describe(Cli):
    def test_plan_of_a_step(self):
        plan = ["describe", "--model=nin-cifar", "--device=cuda", "--precision=bf16", "--batch=4"]
        self.fails(USAGE, ["--gpu=v100", "h200"], *plan, "--gpu=v100")
        if "built without CUDA" in run(*plan).stderr:
            self.fails(USAGE, ["cuda-release"], *plan)
            return
        table = self.succeeds(*plan, "--launches")
        for words in "NVIDIA H200", "optimizer", "images/s", "join and spread gradients":
            self.assertIn(words, table)
        report = json.loads(self.succeeds(*plan, "--json", "--gpu=a100"))
        self.assertIn("A100", report["device"])
        self.assertEqual(report["total"]["launches"], len(report["launches"]))
        for figure in "bytes", "macs", "floor_us":
            self.assertAlmostEqual(report["total"][figure] / sum(launch[figure] for launch in report["launches"]), 1)
            self.assertAlmostEqual(report["total"][figure] / sum(module[figure] for module in report["modules"]), 1)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
