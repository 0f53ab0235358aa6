"""Shared by tests that run the real binary: running it, checking its output, and a small data set.

Scripts that import it are called with DEEPER MPIRUN [unittest arguments].
"""
import json
import pathlib
import re
import struct
import subprocess
import sys
import tempfile
import unittest
import zlib

import numpy

DEEPER, MPIRUN = sys.argv[1:3]
ROOT = pathlib.Path(__file__).resolve().parents[2]
USAGE, DATA, CHECKPOINT, COMMUNICATION, NOT_FINITE = 2, 3, 4, 5, 6
# Small enough for a step of a few milliseconds.
MODEL = ["--model=nin-cifar", "--image_size=10", "--threads=1"]
TRAIN = [*MODEL, "--global_batch=12", "--lr=0.01", "--log_every=1", "--seed=5", "--augment=crop"]


def run(*arguments, ranks=0, **how):
    launcher = [MPIRUN, "--oversubscribe", "--bind-to", "none", "--allow-run-as-root", "--timeout", "120", "-n", str(ranks)]
    command = [*(launcher if ranks else []), DEEPER, *map(str, arguments)]
    return subprocess.run(command, **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "timeout": 150, **how})


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


def described_fields():
    """{event: the fields in the manual}"""
    pages = re.split(r"^## ", (ROOT / "docs/reference/metrics.md").read_text(), flags=re.MULTILINE)[1:]
    return {page.split()[0]: set(re.findall(r"^\| `(\w+)`", page, re.MULTILINE)) for page in pages}


def events(path, kind):
    """The events of one kind in a metrics file. The fields of all events must be those of the manual."""
    every, described = [json.loads(line) for line in path.read_text().splitlines()], described_fields()
    for event in every:
        fields = {re.sub("^(gradient|dead)_.*", r"\1_STAGE", re.sub("^loss_.*", "loss_HEAD", field)) for field in event} - {"event", "time"}
        assert fields == described[event["event"]], f"docs/reference/metrics.md and a file differ: {fields ^ described[event['event']]} of {event}"
    return [event for event in every if event["event"] == kind]


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
        """The command exits with `code`, and standard error contains all `words`."""
        result = run(*arguments, **how)
        self.assertEqual(result.returncode, code, result.stderr)
        for word in words:
            self.assertIn(word, result.stderr)
        return result

    def succeeds(self, *arguments, **how):
        result = run(*arguments, **how)
        # What explains a failure comes last, where a shortened log still shows it.
        self.assertEqual(result.returncode, 0, f"{result.stdout}{result.stderr}\nexit code {result.returncode}")
        return result.stdout


def main():
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
