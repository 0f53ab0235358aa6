#!/usr/bin/env python3
"""deeper.ShardDataset on shards that the real binary packed:  shards_test.py DEEPER MPIRUN [unittest arguments]"""
import concurrent.futures
import hashlib
import os
import pathlib
import pickle
import shutil
import sys
import unittest
import unittest.mock

import h5py
import numpy
import PIL.Image

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "python"), str(ROOT / "tests/launch")]
import cli  # noqa: E402

import deeper  # noqa: E402
import deeper.shards  # noqa: E402

try:
    import torch.utils.data
except ImportError:
    torch = None

WORKERS = 4


def digest(image, label):
    """Picklable, so that it also runs in spawned workers."""
    pixels = numpy.asarray(image)
    return hashlib.sha256(repr((pixels.shape, label)).encode() + pixels.tobytes()).hexdigest()


def in_order(batch):
    return [digest(image, label) for image, label in batch]


class Packed(cli.Cli):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        random = numpy.random.default_rng(1)
        for number in range(26):
            folder = cls.dir / "photos" / ("cats", "dogs")[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            pixels = random.integers(0, 256, (20 + number, 40 - number, 3), dtype=numpy.uint8)
            cli.write_png(folder / f"{number:02}.png", pixels)
        shutil.copytree(cls.dir / "photos", cls.dir / "jpegs")
        for path in (cls.dir / "jpegs").rglob("*.png"):
            PIL.Image.open(path).save(path.with_suffix(".jpg"), quality=90)
            path.unlink()
        for name, source, encoding in ("raw", "photos", "raw"), ("jpeg", "jpegs", "jpeg"):
            result = cli.run("pack", "--format=folder", f"--input={cls.dir / source}", f"--output={cls.dir / name}", f"--encoding={encoding}",
                             "--shard_size=9000")
            assert result.returncode == 0, result.stderr
            assert len(list((cls.dir / name).glob("*.h5"))) > 4


class Shards(Packed):
    def sources(self, name):
        """(pixels, label) of every sample, from the files that were packed."""
        folder = self.dir / {"raw": "photos", "jpeg": "jpegs"}[name]
        files = sorted(folder.rglob("*.*"))
        return [(numpy.asarray(PIL.Image.open(path).convert("RGB")), ("cats", "dogs").index(path.parent.name)) for path in files]

    def test_raw_and_jpeg(self):
        for name in "raw", "jpeg":
            dataset, expected = deeper.ShardDataset(self.dir / name), self.sources(name)
            self.assertEqual(dataset.classes, ["cats", "dogs"])
            self.assertEqual(len(dataset), len(expected))
            for i in numpy.random.default_rng(2).permutation(len(expected)):
                image, label = dataset[i]
                self.assertIsInstance(image, numpy.ndarray if name == "raw" else PIL.Image.Image)
                numpy.testing.assert_array_equal(numpy.asarray(image), expected[i][0])
                self.assertEqual((label, type(label)), (expected[i][1], int))
            self.assertEqual(dataset.labels.tolist(), [label for _, label in expected])

    def test_grey(self):
        pixels = numpy.frombuffer((self.dir / "idx/train-images-idx3-ubyte").read_bytes()[16:], numpy.uint8).reshape(-1, 10, 10, 1)
        dataset = deeper.ShardDataset(self.data)
        numpy.testing.assert_array_equal(numpy.stack([image for image, _ in dataset]), pixels)
        self.assertAlmostEqual(dataset.mean[0], pixels.mean() / 255, places=5)
        self.assertEqual(deeper.ShardDataset(self.data, "val").std, dataset.std, "what train normalises with")

    def test_list(self):
        dataset = deeper.ShardDataset(self.dir / "raw", transform=lambda image: image.shape)
        self.assertEqual(dataset[-1], dataset[len(dataset) - 1])
        self.assertEqual(dataset[0], ((20, 40, 3), 0))
        for index in len(dataset), -len(dataset) - 1:
            with self.assertRaises(IndexError):
                dataset[index]
        image, _ = deeper.ShardDataset(self.dir / "raw")[0]
        image[:] = 0  # a copy of its own
        self.assertGreater(deeper.ShardDataset(self.dir / "raw")[0][0].max(), 0)

    def test_few_open_files_many_threads(self):
        expected = in_order(self.sources("raw"))
        with unittest.mock.patch.object(deeper.shards, "MOST_OPEN_FILES", 2):
            dataset, before = deeper.ShardDataset(self.dir / "raw"), len(os.listdir("/proc/self/fd"))
            order = numpy.random.default_rng(3).integers(0, len(dataset), 2000)
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                found = in_order(pool.map(dataset.__getitem__, order))
            self.assertEqual(found, [expected[i] for i in order])
            self.assertLessEqual(len(os.listdir("/proc/self/fd")) - before, 2 + 8)  # and a file per thread that was on its way
        del dataset, pool
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)

    def test_copies(self):
        dataset = deeper.ShardDataset(self.dir / "raw")
        dataset[3]
        copy = pickle.loads(pickle.dumps(dataset))
        self.assertEqual(in_order(copy), in_order(dataset))

    def test_loader(self):
        if torch is None:
            self.skipTest("needs torch")
        for name in "raw", "jpeg":
            dataset, expected = deeper.ShardDataset(self.dir / name), sorted(in_order(self.sources(name)))
            self.assertEqual(len(set(expected)), len(expected))
            dataset[0]  # forked workers inherit an open file
            for method in "fork", "spawn":
                loader = torch.utils.data.DataLoader(dataset, batch_size=3, shuffle=True, num_workers=WORKERS, collate_fn=in_order,
                                                     multiprocessing_context=method)
                self.assertEqual(sorted(sum(loader, [])), expected)

    def test_stacked_batches(self):
        if torch is None:
            self.skipTest("needs torch")
        images, labels = next(iter(torch.utils.data.DataLoader(deeper.ShardDataset(self.data), batch_size=7)))
        self.assertEqual((tuple(images.shape), images.dtype, labels.dtype), ((7, 10, 10, 1), torch.uint8, torch.int64))


class Mistakes(Packed):
    def setUp(self):
        self.copy = self.dir / self.id()
        shutil.copytree(self.dir / "raw", self.copy)
        self.shard = min(self.copy.glob("*.h5"))

    def refuses(self, *words, error=ValueError, **how):
        with self.assertRaises(error) as raised:
            deeper.ShardDataset(self.copy, **how)
        for word in words:
            self.assertIn(word, str(raised.exception))

    def test_no_such_split(self):
        self.refuses("no split 'test'", "train", split="test")

    def test_no_manifest(self):
        (self.copy / "manifest.json").unlink()
        self.refuses("manifest.json", error=FileNotFoundError)

    def test_no_json(self):
        (self.copy / "manifest.json").write_text("{")
        self.refuses("manifest.json is not JSON")

    def test_another_format(self):
        (self.copy / "manifest.json").write_text('{"format": "deeper-dataset", "format_version": 2}')
        self.refuses("deeper-dataset 2, expected deeper-dataset 1")

    def test_cut_off(self):
        os.truncate(self.shard, self.shard.stat().st_size - 1)
        self.refuses(self.shard.name, "the manifest says")

    def test_no_hdf5(self):
        self.shard.write_bytes(bytes(self.shard.stat().st_size))
        self.refuses(self.shard.name, "not an HDF5 file")

    def test_damaged_index(self):
        damaged = "index is damaged"
        for name, value, words in ("label", 2, damaged), ("offset", 2**40, damaged), ("offset", 2**64 - 1, damaged), ("length", 7, "another size"):
            with h5py.File(self.shard, "r+") as file:
                before, file[name][1] = file[name][1], value
            self.refuses(self.shard.name, words)
            with h5py.File(self.shard, "r+") as file:
                file[name][1] = before

    def test_another_data_set(self):
        with h5py.File(self.shard, "r+") as file:
            file.attrs.modify("dataset_uuid", numpy.bytes_(b"0" * 32))
        self.refuses(self.shard.name, "another data set")


if __name__ == "__main__":
    cli.main()
