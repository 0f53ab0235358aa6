#!/usr/bin/env python3
"""Reads a packed data set with h5py alone, as docs/reference/formats.md describes it, and compares it with the input."""
import json
import pathlib
import struct
import subprocess
import sys
import tempfile
import unittest

import h5py
import numpy as np

DEEPER = None  # path of the binary, from the command line
SAMPLES, HEIGHT, WIDTH = 50, 7, 9


def crc32c(data):
    """CRC-32C bit by bit, from the polynomial."""
    crc = 0xFFFFFFFF
    for byte in bytes(data):
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


class Shards(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = tempfile.TemporaryDirectory()
        cls.root = pathlib.Path(cls.scratch.name)
        cls.images = np.random.default_rng(1).integers(0, 256, (SAMPLES, HEIGHT, WIDTH), np.uint8)
        cls.labels = np.arange(SAMPLES, dtype=np.uint8) % 10
        (cls.root / "train-images-idx3-ubyte").write_bytes(
            struct.pack(">4I", 0x803, SAMPLES, HEIGHT, WIDTH) + cls.images.tobytes())
        (cls.root / "train-labels-idx1-ubyte").write_bytes(
            struct.pack(">2I", 0x801, SAMPLES) + cls.labels.tobytes())
        subprocess.run([DEEPER, "pack", "--format=idx", f"--input={cls.root}", f"--output={cls.root}/out",
                        "--shard_size=1280"], check=True, stdout=subprocess.DEVNULL)
        cls.manifest = json.loads((cls.root / "out" / "manifest.json").read_text())
        cls.split = cls.manifest["splits"]["train"]

    @classmethod
    def tearDownClass(cls):
        cls.scratch.cleanup()

    def test_every_sample(self):
        position = 0
        for number, entry in enumerate(self.split["shards"]):
            with h5py.File(self.root / "out" / entry["file"]) as shard:
                self.check_attributes(shard.attrs, number, position)
                for i in range(shard.attrs["n_samples"]):
                    self.check_sample(shard, i, position)
                    position += 1
        self.assertEqual(position, SAMPLES)

    def check_attributes(self, attributes, number, position):
        self.assertEqual(attributes["format"], b"deeper-shard")
        self.assertEqual(attributes["format_version"], 1)
        self.assertEqual(attributes["encoding"], b"raw")
        self.assertEqual(attributes["channels"], 1)
        self.assertEqual(attributes["dataset_uuid"].decode(), self.split["dataset_uuid"])
        self.assertEqual(attributes["shard_index"], number)
        self.assertEqual(attributes["shard_count"], len(self.split["shards"]))
        self.assertEqual(attributes["first_sample"], position)
        self.assertEqual(attributes["total_samples"], SAMPLES)

    def check_sample(self, shard, i, position):
        begin, length = int(shard["offset"][i]), int(shard["length"][i])
        stored = shard["data"][begin:begin + length]
        self.assertEqual(begin % 64, 0)
        np.testing.assert_array_equal(stored.reshape(HEIGHT, WIDTH), self.images[position])
        self.assertEqual((shard["height"][i], shard["width"][i]), (HEIGHT, WIDTH))
        self.assertEqual(shard["label"][i], self.labels[position])
        self.assertEqual(shard["crc32c"][i], crc32c(stored))
        self.assertEqual(shard["name"][i].decode(), f"train-images-idx3-ubyte[{position}]")
        self.assertEqual([name.decode() for name in shard["classes"]], self.manifest["classes"])

    def test_layout_is_plain(self):
        for entry in self.split["shards"]:
            path = self.root / "out" / entry["file"]
            self.assertEqual(path.stat().st_size, entry["bytes"])
            with h5py.File(path) as shard:
                for dataset in shard.values():
                    self.assertIsNone(dataset.chunks)
                    self.assertNotEqual(dataset.dtype.kind, "O", "variable length")
                data = shard["data"]
                at = data.id.get_offset()
                self.assertEqual(path.read_bytes()[at:at + data.size], data[:].tobytes())

    def test_statistics(self):
        self.assertAlmostEqual(self.split["mean"][0], self.images.mean() / 255, places=6)
        self.assertAlmostEqual(self.split["std"][0], self.images.std() / 255, places=6)


if __name__ == "__main__":
    DEEPER = sys.argv.pop(1)
    unittest.main()
