#!/usr/bin/env python3
"""deeper.load_state_dict and deeper.googlenet on what the real binary trained:  weights_test.py DEEPER MPIRUN [unittest arguments]"""
import json
import os
import pathlib
import shutil
import subprocess
import sys

import h5py
import numpy
import PIL.Image

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "python"), str(ROOT / "tests/launch"), str(ROOT / "tests/parity")]
import cli  # noqa: E402

import deeper  # noqa: E402

try:
    import torch
    import torch_reference
except ImportError:
    torch = None
try:
    import torchvision
except ImportError:
    torchvision = None

SIZE = 64


class Trained(cli.Cli):
    """steps: two checkpoints of googlenet-torchvision, each in two shards."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        random = numpy.random.default_rng(1)
        for number in range(16):
            folder = cls.dir / "photos" / ("cats", "dogs")[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            tile = PIL.Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=numpy.uint8))
            tile.resize((90 + number, 140 - 3 * number), PIL.Image.BICUBIC).save(folder / f"{number:02}.png")
        cls.photos, cls.steps = cls.dir / "packed", cls.dir / "run"
        for split in "train", "val":
            cls.command("pack", "--format=folder", f"--input={cls.dir / 'photos'}", f"--output={cls.photos}", f"--split={split}")
        cls.train(cls.steps, "--model=googlenet-torchvision", f"--data={cls.photos}", f"--image_size={SIZE}", ranks=2)
        cls.step = cls.steps / "step-000000002"

    @staticmethod
    def command(*arguments, **how):
        result = cli.run(*arguments, **how)
        assert result.returncode == 0, result.stderr

    @classmethod
    def train(cls, directory, *flags, **how):
        often = ["--global_batch=8", "--max_steps=2", "--checkpoint_every=1", "--threads=1"]
        cls.command("train", *often, f"--checkpoint_dir={directory}", *flags, **how)

    def refuses(self, error, words, function, *arguments):
        with self.assertRaises(error) as raised:
            function(*arguments)
        for word in words:
            self.assertIn(word, str(raised.exception))


class StateDict(Trained):
    def same(self, found, expected):
        self.assertEqual(found.keys(), expected.keys())
        for name, value in found.items():
            self.assertEqual(value.dtype, numpy.float32)
            numpy.testing.assert_array_equal(value, expected[name])

    def test_checkpoint_and_export(self):
        weights = deeper.load_state_dict(self.step)
        self.assertEqual(weights["conv1.conv.weight"].shape, (64, 3, 7, 7))
        self.assertIn("inception3a.branch2.1.bn.running_var", weights)
        self.assertIn("aux1.fc2.weight", weights)
        self.assertEqual(len(list(self.step.glob("shard-*"))), 2)
        self.command("export", f"--checkpoint={self.step}", "--format=hdf5", f"--output={self.dir / 'weights.h5'}")
        with h5py.File(self.dir / "weights.h5") as file:  # what the binary says they are
            self.same(weights, {name: value[:] for name, value in file.items()})
        self.same(deeper.load_state_dict(self.dir / "weights.h5"), weights)

    def test_newest_step(self):
        self.same(deeper.load_state_dict(self.steps), deeper.load_state_dict(str(self.step)))
        older = deeper.load_state_dict(self.steps / "step-000000001")
        self.assertGreater(abs(older["fc.weight"] - deeper.load_state_dict(self.steps)["fc.weight"]).max(), 0)

    def test_safetensors(self):
        weights = {"b": numpy.float32([[1, 2, 3], [4, 5, 6]]), "a.weight": numpy.float32([7]), "empty": numpy.zeros((0, 2), numpy.float32)}
        header, content = {"__metadata__": {"format": "pt", "config": '{"model": "m"}'}}, b""
        for name, value in weights.items():
            header[name] = {"dtype": "F32", "shape": value.shape, "data_offsets": (len(content), len(content) + value.nbytes)}
            content += value.tobytes()
        path, text = self.dir / "weights.safetensors", json.dumps(header).encode()
        whole = len(text).to_bytes(8, "little") + text + content
        path.write_bytes(whole)
        self.same(deeper.load_state_dict(path), weights)
        for damaged in whole[:-1], whole.replace(b"F32", b"F16"), whole[:20], whole.replace(b"[2, 3]", b"[2, 2]"), whole.replace(b"shape", b"shade"):
            path.write_bytes(damaged)
            self.refuses(ValueError, [path.name, "damaged, or not a safetensors file"], deeper.load_state_dict, path)

    def test_torch(self):
        if torch is None:
            self.skipTest("needs torch")
        case = torch_reference.Case("googlenet-torchvision", SIZE, 1, classes=2, aux=True)
        network = torch_reference.GoogLeNet(case)
        weights = deeper.load_state_dict(self.step, as_torch=True)
        network.load_state_dict(weights)  # strict: all names and shapes
        self.assertTrue(torch.equal(network.fc.weight, weights["fc.weight"]))

    def test_not_weights(self):
        junk = self.dir / "junk"
        junk.write_bytes(b"PK\3\4" + bytes(20))
        self.refuses(ValueError, ["junk is neither", "deeper export"], deeper.load_state_dict, junk)
        self.refuses(FileNotFoundError, ["none.h5"], deeper.load_state_dict, self.dir / "none.h5")
        self.refuses(FileNotFoundError, ["holds no checkpoint"], deeper.load_state_dict, self.dir / "photos")
        shard = next(self.photos.glob("*.h5"))
        self.refuses(ValueError, [shard.name, "deeper-shard 1, expected deeper-weights 1"], deeper.load_state_dict, shard)

    def test_damaged_checkpoint(self):
        copy, shard = self.dir / "copy", "shard-00001-of-00002.h5"
        shutil.copytree(self.step, copy)
        shutil.copy(self.steps / "step-000000001" / shard, copy / shard)
        self.refuses(ValueError, [shard, "another checkpoint"], deeper.load_state_dict, copy)
        (copy / shard).write_bytes((self.step / shard).read_bytes()[:5000])
        self.refuses(ValueError, [shard, "damaged"], deeper.load_state_dict, copy)
        (copy / shard).unlink()
        self.refuses(FileNotFoundError, [shard], deeper.load_state_dict, copy)
        manifest = json.loads((copy / "manifest.json").read_text())
        manifest["shards"].pop()
        (copy / "manifest.json").write_text(json.dumps(manifest))
        self.refuses(ValueError, ["copy", "the manifest lists another number"], deeper.load_state_dict, copy)


class GoogLeNet(Trained):
    def logits(self, run):
        """Of split val, from `deeper eval`."""
        path = self.dir / "logits.h5"
        self.command("eval", f"--checkpoint={run}", f"--data={self.photos}", f"--logits_out={path}", "--batch=16", "--threads=1")
        with h5py.File(path) as file:
            return file["logits"][:]

    def test_logits(self):
        if torchvision is None:
            self.skipTest("needs torchvision")
        other = self.dir / "torchvision"
        self.train(other, "--model=googlenet-torchvision", f"--data={self.photos}", f"--image_size={SIZE}", "--val_preset=torchvision")
        self.command("export", f"--checkpoint={other}", "--format=hdf5", f"--output={self.dir / 'other.h5'}")
        for run, path in (self.steps, self.steps), (other, self.dir / "other.h5"):
            model, preprocess, classes = deeper.googlenet(path)
            self.assertEqual(classes, ["cats", "dogs"])
            self.assertIsInstance(model, torchvision.models.GoogLeNet)
            dataset = deeper.ShardDataset(self.photos, "val", transform=preprocess)
            with torch.no_grad():
                found = model(torch.stack([image for image, _ in dataset])).numpy()
            expected = self.logits(run)
            self.assertLess(numpy.linalg.norm(found - expected), 1e-5 * numpy.linalg.norm(expected))

    def test_images(self):
        if torchvision is None:
            self.skipTest("needs torchvision")
        _, preprocess, _ = deeper.googlenet(self.step)
        array, _ = deeper.ShardDataset(self.photos, "val")[0]
        image, grey = PIL.Image.fromarray(array), array[:, :, :1]
        self.assertTrue(torch.equal(preprocess(array), preprocess(image)))
        for same in numpy.repeat(grey, 3, axis=2), PIL.Image.fromarray(grey[:, :, 0]):
            self.assertTrue(torch.allclose(preprocess(grey), preprocess(same), atol=1e-5))

    def test_other_networks(self):
        if torchvision is None:
            self.skipTest("needs torchvision")
        for words, flags in (["--model=nin-cifar", "load_state_dict"], ["--model=nin-cifar", f"--data={self.data}", "--image_size=10"]), \
                            (["stem small"], ["--model=googlenet-torchvision", "--stem=small", f"--data={self.photos}", "--image_size=32"]), \
                            (["channels 1"], ["--model=googlenet-torchvision", f"--data={self.data}", "--image_size=32"]):
            directory = self.dir / words[0].replace(" ", "-").strip("-")
            self.train(directory, *flags)
            self.refuses(ValueError, [str(directory), *words], deeper.googlenet, directory)
        self.refuses(ValueError, ["bvlc", "none or torchvision"], deeper.Preprocess, 224, [0], [1], "bvlc")

    def test_without_torchvision(self):
        script = f"""
import sys
sys.modules["torchvision"] = None
import deeper
deeper.load_state_dict("{self.step}")
deeper.googlenet("{self.step}")
"""
        result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT / "python")})
        self.assertIn("ImportError: googlenet() needs torchvision", result.stderr)
        self.assertIn("python3-torchvision", result.stderr)


if __name__ == "__main__":
    cli.main()
