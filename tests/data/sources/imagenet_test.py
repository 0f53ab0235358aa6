#!/usr/bin/env python3
"""Packs a small ImageNet in the layout of the real one, checks the result independently with h5py and PIL, trains on it and evaluates.

    imagenet_test.py DEEPER [--trials=N] [unittest's options]      --trials: how often to kill `pack` and run it again (default 4)
"""
import io
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import unittest

import h5py
import numpy
import PIL.Image

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import synthetic_imagenet

DEEPER = None  # path of the binary, from the command line
TRIALS = 4
USAGE, DATA = 2, 3
NO_NAMESPACE = 99


def run(*arguments):
    return subprocess.run([DEEPER, *map(str, arguments)], capture_output=True, text=True, timeout=300)


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def decode(file):
    return numpy.asarray(PIL.Image.open(io.BytesIO(file)).convert("RGB"), numpy.int32)


def psnr(a, b):
    return 10 * numpy.log10(255**2 / max(1e-9, numpy.mean((a - b) ** 2.0)))


class Sample:
    def __init__(self, shard, i):
        begin, self.length = int(shard["offset"][i]), int(shard["length"][i])
        self.bytes = shard["data"][begin:begin + self.length].tobytes()
        self.label, self.flags = int(shard["label"][i]), int(shard["flags"][i])
        self.height, self.width = int(shard["height"][i]), int(shard["width"][i])

    def pixels(self):
        return numpy.frombuffer(self.bytes, numpy.uint8).reshape(self.height, self.width, 3).astype(numpy.int32)


def samples(directory, split):
    """{name: Sample}, in the order of the shards."""
    found = {}
    for entry in json.loads((directory / "manifest.json").read_text())["splits"][split]["shards"]:
        with h5py.File(directory / entry["file"]) as shard:
            for i, name in enumerate(shard["name"][:]):
                assert name.decode() not in found
                found[name.decode()] = Sample(shard, i)
    return found


class Case(unittest.TestCase):
    SIZES = {}

    @classmethod
    def setUpClass(cls):
        cls.scratch = tempfile.TemporaryDirectory()
        cls.dir = pathlib.Path(cls.scratch.name)
        cls.made = synthetic_imagenet.Imagenet(cls.dir / "in", **cls.SIZES)
        cls.kept = {name: file for name, file in cls.made.train.items() if name not in cls.made.rejects}
        cls.allow = f"--allow_bad={len(cls.made.rejects)}"

    @classmethod
    def tearDownClass(cls):
        cls.scratch.cleanup()

    def command(self, output, *options, split="train", input=None):
        return ["pack", "--format=imagenet", f"--input={input or self.dir / 'in'}", f"--output={self.dir / output}", f"--split={split}",
                *([self.allow] if split == "train" else []), *options]

    def pack(self, output, *options, **where):
        packed = run(*self.command(output, *options, **where))
        self.assertEqual(packed.returncode, 0, packed.stderr)
        return packed

    def refuses(self, words, output, *options, **where):
        refused = run(*self.command(output, *options, **where))
        self.assertEqual(refused.returncode, DATA, refused.stderr)
        for word in words:
            self.assertIn(word, refused.stderr)
        self.assertEqual(list((self.dir / output).glob("*.h5*")), [])

    def sound(self, output):
        verified = run("verify", f"--data={self.dir / output}")
        self.assertIn("all sound", verified.stdout, verified.stderr)


class Whole(Case):
    """All 1000 classes."""

    def test_jpeg(self):
        packed = self.pack("jpeg", "--encoding=jpeg", "--shard_size=9000000")
        self.assertIn(f"{len(self.kept)} images of 1000 classes", packed.stdout)
        self.assertIn(f"1 re-encoded as JPEG, {len(self.made.rejects)} left out", packed.stdout)
        for name, reason in self.made.rejects.items():
            self.assertRegex(packed.stderr, f"left out {name}: .*{re.escape(reason)}")
        self.pack("jpeg", "--encoding=jpeg", split="val")
        self.sound("jpeg")
        classes = json.loads((self.dir / "jpeg/manifest.json").read_text())["classes"]
        self.assertEqual(classes, self.made.wnids)
        train, png = samples(self.dir / "jpeg", "train"), self.made.odd["png"]
        self.assertEqual(train.keys(), self.kept.keys())
        for name, sample in train.items():
            self.assertEqual(classes[sample.label], name.split("/")[0])
            self.assertEqual(sample.flags, int(name == png))
            self.assertEqual((sample.width, sample.height), PIL.Image.open(io.BytesIO(self.kept[name])).size)
            if name != png:
                self.assertEqual(sample.bytes, self.kept[name])
        self.assertGreater(psnr(decode(train[png].bytes), decode(self.kept[png])), 35)
        self.assertNotEqual(list(train), sorted(train), "not shuffled")
        val = samples(self.dir / "jpeg", "val")
        self.assertEqual({name: sample.bytes for name, sample in val.items()}, self.made.val)
        self.assertEqual({name: classes[sample.label] for name, sample in val.items()}, self.made.val_wnids)
        self.assertEqual(list(val), sorted(val))
        self.trains_and_evaluates("jpeg")

    def trains_and_evaluates(self, output):
        data, checkpoints = f"--data={self.dir / output}", self.dir / f"{output}-run"
        trained = run("train", data, "--model=nin-cifar", "--image_size=32", "--augment=inception", "--global_batch=8",
                      "--max_steps=3", f"--checkpoint_dir={checkpoints}")
        self.assertEqual(trained.returncode, 0, trained.stderr)
        evaluated = run("eval", data, f"--checkpoint={checkpoints}", f"--metrics_out={self.dir / 'metrics'}")
        self.assertEqual(evaluated.returncode, 0, evaluated.stderr)
        events = [json.loads(line) for line in (self.dir / "metrics").read_text().splitlines()]
        self.assertEqual([event["count"] for event in events if event["event"] == "eval"], [len(self.made.val)])

    def test_raw(self):
        self.pack("raw", "--resize=64")
        self.sound("raw")
        for name, sample in samples(self.dir / "raw", "train").items():
            original = PIL.Image.open(io.BytesIO(self.kept[name])).convert("RGB")
            short = min(original.size)
            size = tuple(64 * side // short for side in original.size)
            self.assertEqual((sample.width, sample.height), size)
            expected = numpy.asarray(original.resize(size, PIL.Image.Resampling.BILINEAR), numpy.int32)
            self.assertLessEqual(abs(sample.pixels() - expected).max(), 2, name)


class Few(Case):
    SIZES = {"classes": 20, "train_per_class": 2, "val": 30}

    def test_every_pixel_is_as_pil_decodes_it(self):
        self.pack("raw")
        for name, sample in samples(self.dir / "raw", "train").items():
            self.assertLessEqual(abs(sample.pixels() - decode(self.kept[name])).max(), 1, name)

    def test_resized_jpegs_and_their_quality(self):
        self.pack("resized", "--resize=100")
        raw, sizes = samples(self.dir / "resized", "train"), {}
        for quality, least in (95, 35), (50, 25):
            packed = self.pack(f"q{quality}", "--encoding=jpeg", "--resize=100", f"--quality={quality}")
            self.assertIn(f"{len(self.kept)} re-encoded", packed.stdout)
            resized = samples(self.dir / f"q{quality}", "train")
            sizes[quality] = sum(sample.length for sample in resized.values())
            for name, sample in resized.items():
                self.assertEqual(sample.flags, 1)
                self.assertGreater(psnr(decode(sample.bytes), raw[name].pixels()), least, name)
        self.assertLess(sizes[50], sizes[95] / 2)
        self.assertEqual(run(*self.command("q0", "--quality=0")).returncode, USAGE)

    def test_every_layout_gives_the_same_bytes(self):
        self.pack("tar")
        tars, folders = self.dir / "tars", self.dir / "folders"
        tars.mkdir()
        for name, content in self.made.class_tars.items():
            (tars / name).write_bytes(content)
        for name, content in self.made.train.items():
            (folders / name).parent.mkdir(parents=True, exist_ok=True)
            (folders / name).write_bytes(content)
        for layout in tars, folders:
            self.pack(f"of-{layout.name}", input=layout)
            self.assertEqual(contents(self.dir / f"of-{layout.name}"), contents(self.dir / "tar"))

    def test_hidden_members_and_pipes_are_left_out(self):
        folder, (first, content) = self.dir / "strays", next(iter(self.made.class_tars.items()))
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            members = [(member.name, archive.extractfile(member).read()) for member in archive if member.isfile()]
        odd = [("./" + members[0][0], members[0][1]), *members[1:], (".ipynb_checkpoints/x.JPEG", b"x"), ("._y.JPEG", b"y")]
        self.folder_of("strays", {**self.made.class_tars, first: synthetic_imagenet.tar(odd, tarfile.USTAR_FORMAT)})
        os.mkfifo(folder / "n99999999.tar")

        def hidden(packed):
            return int(re.search(r"note: (\d+) hidden files and folders are left out, the first is n\d+/\.", packed.stderr)[1])

        before = hidden(self.pack("no-strays"))
        packed = self.pack("strays/out", input=folder)
        self.assertEqual(hidden(packed), before + 2)
        self.assertIn("warning: n99999999.tar is left out: it is not a regular file", packed.stderr)
        self.assertEqual(contents(folder / "out"), contents(self.dir / "no-strays"))

    def test_any_seed_jobs_and_interruption(self):
        options = ["--encoding=jpeg", "--resize=200", "--shard_size=100000"]
        began = time.monotonic()
        self.pack("whole", *options, "--jobs=1")
        seconds = time.monotonic() - began
        whole = contents(self.dir / "whole")
        self.assertGreater(len(whole), 5)
        self.pack("jobs", *options, "--jobs=3")
        self.assertEqual(contents(self.dir / "jobs"), whole)
        self.pack("seed", *options, "--shuffle=2")
        self.assertNotEqual(list(samples(self.dir / "seed", "train")), list(samples(self.dir / "whole", "train")))
        self.pack("sorted", *options, "--shuffle=0")
        self.assertEqual(list(samples(self.dir / "sorted", "train")), sorted(self.kept))
        moments = random.Random(1)
        for trial in range(TRIALS):
            for _ in range(3):  # the second run is killed too
                process = subprocess.Popen([DEEPER, *self.command(f"killed-{trial}", *options)], stdout=subprocess.DEVNULL,
                                           stderr=subprocess.DEVNULL)
                time.sleep(moments.uniform(0, seconds))
                process.kill()
                self.assertIn(process.wait(), (0, -signal.SIGKILL))
            self.pack(f"killed-{trial}", *options)
            self.assertEqual(contents(self.dir / f"killed-{trial}"), whole)
            shutil.rmtree(self.dir / f"killed-{trial}")

    def test_full_disk(self):
        small = self.dir / "small"
        small.mkdir()
        script = f"mount -t tmpfs -o size=1m tmpfs {small} || exit {NO_NAMESPACE}; \"$@\"; code=$?; ls -R {small}; exit $code"
        ran = subprocess.run(["unshare", "--mount", "--map-root-user", "sh", "-c", script, "sh", DEEPER,
                              *self.command("small/out")], capture_output=True, text=True)
        if ran.returncode == NO_NAMESPACE or "unshare" in ran.stderr:
            self.skipTest(f"nothing can be mounted here: {ran.stderr}")
        self.assertEqual(ran.returncode, DATA, ran.stderr)
        self.assertIn("No space left on device; free space", ran.stderr)
        self.assertNotRegex(ran.stdout, r"manifest\.json|\.h5")

    def test_bad_images_are_counted_and_named(self):
        one_less = f"--allow_bad={len(self.made.rejects) - 1}"
        self.refuses([f"{len(self.made.rejects)} bad images", *self.made.rejects, *self.made.rejects.values()], "bad", one_less)

    def test_counts(self):
        packed = self.pack("counts")
        for warning in f"warning: {len(self.made.train)} images; ImageNet 2012 has 1281167", "20 classes; ImageNet 2012 has 1000":
            self.assertIn(warning, packed.stderr)
        self.refuses(["--strict: ", "ImageNet 2012 has 1281167", "has 1000"], "strict", "--strict")
        self.refuses(["--strict: ", "ImageNet 2012 has 50000"], "strict", "--strict", split="val")

    def folder_of(self, name, files):
        folder = self.dir / name
        folder.mkdir()
        for file, content in files.items():
            (folder / file).write_bytes(content)
        return folder

    def test_classes_missing_and_extra(self):
        devkit = (self.dir / "in" / f"{synthetic_imagenet.DEVKIT}.tar.gz").read_bytes()
        tars = dict(self.made.class_tars)
        last = f"{self.made.wnids[-1]}.tar"
        missing = {name: content for name, content in tars.items() if name != last}
        folder = self.folder_of("missing", {**missing, "devkit.zip": b"", "ILSVRC2012_devkit_t12.tar.gz": devkit})
        packed = self.pack("missing-out", input=folder)
        self.assertIn(f"1 classes have no images; the first is {self.made.wnids[-1]}", packed.stderr)
        folder = self.folder_of("extra", {**tars, "n99999999.tar": tars[last], "ILSVRC2012_devkit_t12.tar.gz": devkit})
        self.refuses(["class n99999999 of", "not one of the 20 classes"], "extra-out", input=folder)
        # Without a devkit it counts as one more class, until the validation split contradicts it.
        (folder / "ILSVRC2012_devkit_t12.tar.gz").unlink()
        self.assertIn("21 classes; ImageNet", self.pack("more-out", input=folder).stderr)
        refused = run(*self.command("more-out", split="val"))
        self.assertEqual(refused.returncode, DATA)
        self.assertIn("only one of the two has n99999999", refused.stderr)

    def test_damaged_archives(self):
        whole = (self.dir / "in" / synthetic_imagenet.TRAIN).read_bytes()
        class_tar = dict(self.made.class_tars)
        name, content = class_tar.popitem()
        for what, files in {
                "cut": {synthetic_imagenet.TRAIN: whole[:len(whole) // 2]},
                "endless": {synthetic_imagenet.TRAIN: whole.rstrip(b"\0")},
                "header": {synthetic_imagenet.TRAIN: whole[:100] + b"\x01" + whole[101:]},
                "class": {**class_tar, name: content[:len(content) // 2]},
                "empty": {**class_tar, name: b""},
        }.items():
            with self.subTest(what):
                folder = self.folder_of(f"damaged-{what}", files)
                self.refuses([".tar: ", "tar", "download it again"], f"damaged-{what}-out", input=folder)
        damaged = dict(self.made.devkit)
        mat = next(file for file in damaged if file.endswith("meta.mat"))
        damaged[mat] = damaged[mat][:200] + b"\xff\xff" + damaged[mat][202:]
        folder = self.folder_of("devkit", {"ILSVRC2012_devkit_t12.tar.gz": synthetic_imagenet.gzip.compress(
            synthetic_imagenet.tar(damaged.items(), tarfile.USTAR_FORMAT))})
        self.refuses(["ILSVRC2012_devkit_t12.tar.gz: data/meta.mat: damaged"], "devkit-out", input=folder)

    def test_a_directory_of_both_splits_is_no_class_folder(self):
        folder = self.dir / "both"
        for split in "train", "val":
            (folder / split).mkdir(parents=True)
            (folder / split / "x.JPEG").write_bytes(next(iter(self.made.val.values())))
        self.refuses(['class "train" is not a wnid', "one split of ImageNet"], "both-out", input=folder)

    def test_labels_of_the_validation_images(self):
        rank = {wnid: label for label, wnid in enumerate(self.made.wnids)}
        right = {name: rank[wnid] for name, wnid in self.made.val_wnids.items()}
        by_id = {name: self.made.by_id.index(wnid) for name, wnid in self.made.val_wnids.items()}
        tar = (self.dir / "in" / synthetic_imagenet.VAL).read_bytes()
        devkit = (self.dir / "in" / f"{synthetic_imagenet.DEVKIT}.tar.gz").read_bytes()

        def text(labels):
            return "".join(f"{name} {label}\n" for name, label in labels.items()).encode()

        self.pack("val-tar", split="val")
        expected = contents(self.dir / "val-tar")
        self.assertEqual({name: sample.label for name, sample in samples(self.dir / "val-tar", "val").items()}, right)
        wnids = "".join(f"{wnid}\n" for wnid in self.made.wnids).encode()
        flat = self.folder_of("flat", self.made.val)
        for name, content in self.made.devkit.items():
            (flat / name).parent.mkdir(parents=True, exist_ok=True)
            (flat / name).write_bytes(content)
        caffe = self.folder_of("caffe", {synthetic_imagenet.VAL: tar, "val.txt": text(right), "classes.txt": wnids})
        both = self.folder_of("with-both", {synthetic_imagenet.VAL: tar, "val.txt": text(right), "ILSVRC2012_devkit_t12.tar.gz": devkit})
        for folder in flat, caffe, both:
            self.pack(f"of-{folder.name}", split="val", input=folder)
            self.assertEqual(contents(self.dir / f"of-{folder.name}"), expected, folder)

        folders = self.dir / "val-folders"
        for name, content in self.made.val.items():
            path = folders / self.made.val_wnids[name] / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        self.pack("of-folders", split="val", input=folders)
        self.assertEqual({name.split("/")[1]: sample.label for name, sample in samples(self.dir / "of-folders", "val").items()}, right)

        (both / "val.txt").write_bytes(text(by_id))
        self.refuses(["val.txt gives ILSVRC2012_val_", "ranks of the sorted wnids", "not the devkit's ids"], "by-id", split="val",
                     input=both)
        (caffe / "val.txt").write_bytes(text({name: label + 1 for name, label in right.items()}))
        self.refuses(["label 20, but there are 20 classes"], "from-1", split="val", input=caffe)
        (caffe / "val.txt").write_bytes(text(dict(list(right.items())[1:])))
        self.refuses(["neither the devkit nor val.txt has a label for ILSVRC2012_val_00000001.JPEG"], "fewer", split="val", input=caffe)
        (caffe / "val.txt").unlink()
        self.refuses(["no labels for ILSVRC2012_val_00000001.JPEG: put ILSVRC2012_devkit_t12.tar.gz"], "none", split="val", input=caffe)
        (caffe / "val.txt").write_bytes(text(right))
        (caffe / "classes.txt").write_bytes("".join(f"{wnid}\n" for wnid in self.made.by_id).encode())
        self.refuses(["classes.txt are not sorted"], "unsorted", split="val", input=caffe)
        (caffe / "classes.txt").unlink()
        self.refuses(["val.txt has numbers only; pack the split train into the same --output first"], "numbers", split="val", input=caffe)


if __name__ == "__main__":
    DEEPER = sys.argv.pop(1)
    for argument in [a for a in sys.argv if a.startswith("--trials=")]:
        TRIALS = int(argument.removeprefix("--trials="))
        sys.argv.remove(argument)
    unittest.main()
