#!/usr/bin/env python3
"""Runs the real binary: recipes, what they use to train, and what shows whether a network learns.

recipes_test.py DEEPER MPIRUN [unittest arguments]
"""
import base64
import gzip
import io
import json
import socket
import struct
import subprocess
import sys

import h5py
import numpy
from PIL import Image

from cli import CHECKPOINT, DATA, DEEPER, NOT_FINITE, ROOT, TRAIN, USAGE, Cli, events, main, run, write_png


class Recipes(Cli):
    def test_each_trains(self):
        """One step on small images, on this machine's CPU."""
        recipes = sorted((ROOT / "recipes").rglob("*.flags"))
        self.assertGreater(len(recipes), 5)
        for recipe in recipes:
            with self.subTest(recipe=recipe.name):
                self.succeeds("train", f"--flagfile={recipe}", "--synthetic", "--synthetic_samples=8", "--num_classes=10", "--image_size=32",
                              "--device=cpu", "--precision=fp32", "--threads=1", "--global_batch=4", "--epochs=0", "--max_steps=1",
                              "--warmup_epochs=0")


    def test_fine_tuning(self):
        """The study of fine-tuning, on 40 images of noise."""
        images, random = self.dir / "fashion", numpy.random.default_rng(1)
        images.mkdir()
        labels = numpy.arange(40, dtype=numpy.uint8) % 10
        for name in "train", "t10k":
            pixels = random.integers(0, 256, (40, 28, 28), dtype=numpy.uint8)
            (images / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(struct.pack(">4I", 0x803, 40, 28, 28) + pixels.tobytes()))
            (images / f"{name}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(struct.pack(">2I", 0x801, 40) + labels.tobytes()))
        done = subprocess.run([sys.executable, ROOT / "tests/benchmarks/fine_tuning.py", DEEPER, self.dir / "fine-tuning", f"--images={images}",
                               "--seeds=1", "--photographs=2", "--pretrain_steps=2", "--threads=1"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, r'"fine-tuned": {\s+"top1": \[\s+\d+\.\d+')


class Evaluation(Cli):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.checkpoints = cls.dir / "run"
        trained = run("train", f"--data={cls.data}", *TRAIN, "--max_steps=20", f"--checkpoint_dir={cls.checkpoints}")
        assert trained.returncode == 0, trained.stderr
        cls.evaluate = ["eval", f"--data={cls.data}", f"--checkpoint={cls.checkpoints}", "--threads=1", "--batch=16"]

    def test_report(self):
        """Equal to what NumPy computes from the logits, on any number of ranks."""
        logits, report = self.dir / "logits.h5", self.dir / "eval.json"
        self.succeeds(*self.evaluate, f"--logits_out={logits}", f"--report={report}")
        found = json.loads(report.read_text())
        with h5py.File(logits) as file:
            values, labels = file["logits"][:].astype(float), file["labels"][:]
        shares = numpy.exp(values - values.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        predicted = values.argmax(axis=1)
        confusion = numpy.zeros((10, 10), int)
        numpy.add.at(confusion, (labels, predicted), 1)
        expected = [[int(i), int(j), int(confusion[i, j])] for i, j in zip(*numpy.nonzero(confusion))]
        self.assertEqual(found["confusion"], expected)
        self.assertEqual([row[:2] for row in found["class_accuracy"]], [[i, n] for i, n in enumerate(confusion.sum(axis=1)) if n])
        for label, samples, top1 in found["class_accuracy"]:
            self.assertAlmostEqual(top1, confusion[label, label] / samples)
        self.assertAlmostEqual(found["top1"], confusion.trace() / 50)
        self.assertEqual((found["classes"], found["count"], found["split"], found["step"]), ([str(i) for i in range(10)], 50, "val", 20))

        wrong = sorted((-shares[i].max(), i) for i in range(50) if predicted[i] != labels[i])[:24]
        self.assertGreater(len(wrong), 1)
        self.assertEqual([mistake["sample"] for mistake in found["mistakes"]], [i for _, i in wrong])
        stored = (self.dir / "idx/t10k-images-idx3-ubyte").read_bytes()[16:]
        for mistake, (share, i) in zip(found["mistakes"], wrong, strict=True):
            self.assertEqual((mistake["label"], mistake["predicted"]), (labels[i], predicted[i]))
            self.assertAlmostEqual(mistake["probability"], -share)
            picture = numpy.array(Image.open(io.BytesIO(base64.b64decode(mistake["jpeg"]))), float)
            pixels = numpy.frombuffer(stored[100 * i:100 * i + 100], numpy.uint8).reshape(10, 10)
            self.assertLess(numpy.abs(picture - pixels).mean(), 8)

        self.succeeds(*self.evaluate, f"--report={report}", ranks=3)
        together = json.loads(report.read_text())
        self.assertEqual(together["confusion"], expected)
        self.assertEqual([mistake["sample"] for mistake in together["mistakes"]], [i for _, i in wrong])

    def test_other_images(self):
        grey = self.succeeds("eval", "--synthetic", "--synthetic_samples=100", f"--checkpoint={self.checkpoints}", "--threads=1")
        self.assertIn("of 10 images right", grey)
        self.assertIn("of 50 images right", self.succeeds(*self.evaluate, "--image_size=16"))
        for digit in range(10):
            (self.dir / f"colours/{digit}").mkdir(parents=True)
            write_png(self.dir / f"colours/{digit}/a.png", numpy.full((10, 10, 3), [20 * digit, 0, 99], numpy.uint8))
        self.succeeds("pack", "--format=folder", f"--input={self.dir}/colours", f"--output={self.dir}/colour", "--split=val")
        self.fails(DATA, ["1 channels", "has 3"], *self.evaluate, f"--data={self.dir}/colour", ranks=2)

    def test_predict_from_links_and_open_input(self):
        """Links to folders are followed. `-` reads on from where the standard input stands, which may be a socket."""
        folder, other = self.dir / "links", self.dir / "elsewhere"
        images = [folder / "a.png", folder / "cats/b.png"]
        for path in folder, other:
            path.mkdir()
        (folder / "cats").symlink_to(other)
        (other / "up").symlink_to(folder)  # a loop
        for number, image in enumerate(images):
            write_png(image, numpy.full((10, 10, 3), 60 * number, numpy.uint8))
        predict = ["predict", f"--checkpoint={self.checkpoints}", "--threads=1"]
        expected = self.succeeds(*predict, *images)
        self.assertEqual(self.succeeds(*predict, folder), expected)
        header, names = b"names\n", "".join(f"{image}\n" for image in images).encode()
        (self.dir / "names").write_bytes(header + names)
        with (self.dir / "names").open("rb", buffering=0) as file:
            file.read(len(header))
            self.assertEqual(self.succeeds(*predict, "-", stdin=file), expected)
        here, there = socket.socketpair()
        with here, there:
            here.sendall(names)
            here.shutdown(socket.SHUT_WR)
            self.assertEqual(self.succeeds(*predict, "-", stdin=there), expected)

    def test_report_of_wrong_input(self):
        huge = self.dir / "huge.h5"
        self.succeeds("export", f"--checkpoint={self.checkpoints}", f"--output={huge}")
        with h5py.File(huge, "a") as file:
            file["mlpconv3.1.conv.bias"][:] = 3e38
            file["mlpconv3.2.conv.weight"][:] = 3e38
        self.fails(NOT_FINITE, ["--report: the network's output for ", "is not finite"], "eval", f"--data={self.data}", f"--init_from={huge}",
                   "--threads=1", f"--report={self.dir}/never.json", ranks=2)
        self.fails(DATA, ["/never/eval.json"], *self.evaluate, "--report=/never/eval.json", ranks=2)
        self.assertFalse((self.dir / "never.json").exists())


class Parts(Cli):
    def test_stop_at(self):
        """Two parts are the whole run, bit for bit: --stop_at does not change the schedule."""
        train = ["train", f"--data={self.data}", *TRAIN, "--epochs=2", "--lr_schedule=linear"]  # 17 steps per epoch
        whole, parts, metrics = self.dir / "whole", self.dir / "parts", self.dir / "parts.jsonl"
        self.succeeds(*train, f"--checkpoint_dir={whole}")
        part = [*train, f"--checkpoint_dir={parts}", f"--metrics_out={metrics}"]
        said = self.succeeds(*part, "--stop_at=0.5", ranks=1)
        self.assertIn("34 steps, 17 per epoch; stops after step 9\n", said)
        self.assertIn("stopped after step 9 of 34, as --stop_at=0.5 asks", said)
        self.assertEqual([event["step"] for event in events(metrics, "eval")], [9])
        self.assertEqual([event["step"] for event in events(metrics, "done")], [9])
        self.assertIn("already done: step 9 of 9; to train further, raise --stop_at", self.succeeds(*part, "--stop_at=0.5"))
        self.assertNotIn("stopped after", self.succeeds(*part, "--stop_at=9"))
        self.assertEqual([event["step"] for event in events(metrics, "done")], [9, 9, 34])
        read = [(run_dir / "step-000000034/shard-00000-of-00001.h5").read_bytes() for run_dir in (whole, parts)]
        self.assertEqual(*read)
        self.fails(USAGE, ["--stop_at=1", "--checkpoint_dir"], *train, "--stop_at=1")

    def test_growing_images(self):
        train = ["train", f"--data={self.data}", *TRAIN, "--epochs=2", f"--checkpoint_dir={self.dir}/growing"]
        self.succeeds(*train, "--stop_at=1")
        self.fails(CHECKPOINT, ["image_size was 10 and is 32"], *train, "--image_size=0")
        self.assertIn("the image size was 10 and is now 16\n", self.succeeds(*train, "--image_size=16", ranks=2))
        exported = self.dir / "grown.h5"
        self.succeeds("export", f"--checkpoint={self.dir}/growing", f"--output={exported}")
        with h5py.File(exported) as file:
            self.assertEqual(json.loads(file.attrs["config"])["image_size"], 16)
        googlenet = ["train", f"--data={self.data}", *TRAIN, "--model=googlenet", "--stem=small", "--eval_every=100",
                     f"--checkpoint_dir={self.dir}/googlenet"]
        self.succeeds(*googlenet, "--max_steps=1", "--image_size=32")
        self.fails(CHECKPOINT, ["image_size was 32 and is 96, and parameters depend on it", "--aux=false"], *googlenet, "--max_steps=2",
                   "--image_size=96")


class BlurPool(Cli):
    def test_is_part_of_the_checkpoint(self):
        saved, exported = self.dir / "blurred", self.dir / "blurred.h5"
        train = ["train", f"--data={self.data}", *TRAIN, "--model=googlenet-bn", "--stem=medium", "--image_size=28", "--aux=false",
                 f"--checkpoint_dir={saved}"]
        metrics = self.dir / "blurred.jsonl"
        self.succeeds(*train, "--blur_pool", "--max_steps=2", f"--metrics_out={metrics}")
        self.fails(CHECKPOINT, ["blur_pool was true and is false"], *train, "--max_steps=3")
        self.succeeds("export", f"--checkpoint={saved}", f"--output={exported}")
        loss = f"loss {events(metrics, 'eval')[-1]['loss']:.4f}"
        self.assertIn(loss, self.succeeds("eval", f"--data={self.data}", f"--init_from={exported}", "--threads=1"))
        plain = [*train[:-1], "--val_split=none", "--max_steps=1", f"--init_from={exported}"]
        self.assertIn("its blur_pool was true, that of this run is false; --blur_pool sets it", " ".join(self.succeeds(*plain).split()))


class Lars(Cli):
    def test_sharded_and_resumed(self):
        """Each rank updates its slice with the norms of whole tensors, and a resumed run continues the averages and the flips: the same bits."""
        train = ["train", f"--data={self.data}", *TRAIN, "--model=nin-cifar-bn", "--optimizer=lars", "--lr=5", "--lars_trust=0.01",
                 "--weight_decay=1e-3", "--ema_decay=0.9", "--lr_scale=*.bias:2", "--augment=flip", "--flip=alternate", "--trivial_augment",
                 "--val_split=none", "--max_steps=30", "--keep=1"]
        metrics, read = self.dir / "lars.jsonl", []
        parts = [["--stop_at=20"], ["--shard_optimizer"]]  # stops in the second of two epochs
        for name, runs in ("whole", [[]]), ("sharded", [["--shard_optimizer"]]), ("resumed", parts):
            saved = self.dir / f"lars-{name}"
            for flags in runs:
                self.succeeds(*train, *flags, f"--checkpoint_dir={saved}", f"--metrics_out={metrics}", ranks=2)
            read.append([path.read_bytes() for path in sorted(saved.rglob("shard-*.h5"))])
        self.assertEqual(len(read[0]), 2)
        self.assertEqual(read[0], read[1])
        self.assertEqual(read[0], read[2])
        losses = [event["loss"] for event in events(metrics, "step")]
        self.assertLess(losses[-1], 0.9 * losses[0])


class Diagnosis(Cli):
    def test_is_the_same_on_any_number_of_ranks(self):
        found = []
        for ranks in 0, 2:
            metrics = self.dir / f"diagnosis-{ranks}.jsonl"
            said = self.succeeds("train", f"--data={self.data}", *TRAIN, "--max_steps=10", "--eval_every=5", "--ema_decay=0.9",
                                 f"--metrics_out={metrics}", ranks=ranks)
            self.assertEqual(said.count("diagnosis of step "), 2, said)
            found.append(events(metrics, "diagnosis"))
        for alone, together in zip(*found, strict=True):
            stages = [f"{what}_mlpconv{i}" for i in (1, 2, 3) for what in ("gradient", "dead")]
            self.assertEqual(list(alone), ["event", "step", *stages, "what", "time"])
            for key in alone.keys() - {"event", "what", "time"}:
                self.assertAlmostEqual(alone[key], together[key], delta=1e-3 * alone[key] + 1e-6)
            for stage in 1, 2, 3:
                self.assertGreater(alone[f"gradient_mlpconv{stage}"], 0)
                self.assertLess(alone[f"dead_mlpconv{stage}"], 0.9)


if __name__ == "__main__":
    main()
