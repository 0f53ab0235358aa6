#!/usr/bin/env python3
"""Files for and from other programs:  interchange_test.py DEEPER MPIRUN [unittest arguments]

The classes need Python packages, in build/tools/interchange or where Python looks. Without one, its tests are skipped:
  Onnx           onnx, onnxruntime
  Safetensors    safetensors; one test torchvision
  Torch          torchvision
  Caffe          cv2, before OpenCV 5
"""
import importlib
import json
import struct
import sys

import cli
import h5py
import numpy
import PIL.Image

sys.path[:0] = [str(cli.ROOT / "python"), str(cli.ROOT / "build/tools/interchange")]
import deeper  # noqa: E402

SIZE = 112
MODELS = ("googlenet", "googlenet-naive", "googlenet-bn", "googlenet-torchvision", "googlenet-bvlc", "nin", "nin-bn", "nin-cifar",
          "nin-cifar-bn", "alexnet", "vgg16")


class Photos(cli.Cli):
    """Ten images of SIZE x SIZE in two classes. needs: packages of Python."""

    needs = ()

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        random = numpy.random.default_rng(1)
        for number in range(10):
            folder = cls.dir / "photos" / ("cats", "dogs")[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            tile = PIL.Image.fromarray(random.integers(0, 256, (9, 9, 3), dtype=numpy.uint8))
            tile.resize((SIZE, SIZE), PIL.Image.BICUBIC).save(folder / f"{number:02}.png")
        cls.photos = cls.dir / "packed"
        for split in "train", "val":
            cls.command("pack", "--format=folder", f"--input={cls.dir / 'photos'}", f"--output={cls.photos}", f"--split={split}", "--encoding=raw")
        cls.pixels = numpy.stack([image for image, _ in deeper.ShardDataset(cls.photos, "val")])

    def setUp(self):
        for name in self.needs:
            try:
                setattr(self, name, importlib.import_module(name))
            except ImportError as error:
                self.skipTest(f"needs {name}: {error}")

    @staticmethod
    def command(*arguments, **how):
        result = cli.run(*arguments, **how)
        assert result.returncode == 0, result.stderr
        return result.stdout

    @classmethod
    def train(cls, model, *flags):
        """The checkpoint after two steps, in which batch norm's statistics change."""
        run = cls.dir / model
        if not run.exists():
            cls.command("train", f"--model={model}", f"--data={cls.photos}", f"--image_size={SIZE}", "--global_batch=8", "--lr=0.001",
                        "--max_steps=2", "--val_split=none", f"--checkpoint_dir={run}", "--threads=1", *flags)
        return run

    def logits(self, weights, *flags):
        """Of the images, from `deeper eval`."""
        path = self.dir / "logits.h5"
        self.command("eval", weights, f"--data={self.photos}", f"--logits_out={path}", "--batch=16", "--threads=1", *flags)
        with h5py.File(path) as file:
            return file["logits"][:]

    def close(self, found, expected, tolerance=1e-5):
        self.assertEqual(found.shape, expected.shape)
        difference = numpy.linalg.norm(found.astype(float) - expected) / numpy.linalg.norm(expected)
        self.assertLess(difference, tolerance)


class Onnx(Photos):
    needs = "onnx", "onnx.reference", "onnxruntime"

    def export(self, run, *flags):
        path = self.dir / "model.onnx"
        self.command("export", f"--checkpoint={run}", "--format=onnx", f"--output={path}", *flags)
        return path

    def images(self, kind, metadata):
        if kind == "uint8":
            return self.pixels
        mean, std = (numpy.float32(json.loads(metadata[name])) for name in ("mean", "std"))
        order = slice(None, None, -1 if metadata["channel_order"] == "BGR" else 1)
        return ((self.pixels[..., order] / numpy.float32(255) - mean) / std).transpose(0, 3, 1, 2).astype(numpy.float32)

    def compare(self, run, expected):
        for kind in "float", "uint8":
            path = self.export(run, f"--input={kind}")
            model = self.onnx.load(path)
            self.onnx.checker.check_model(model, full_check=True)
            self.assertEqual([(each.domain, each.version) for each in model.opset_import], [("", 13)])
            self.assertNotIn("ceil_mode", str(model.graph.node))
            metadata = {each.key: each.value for each in model.metadata_props}
            self.assertEqual(json.loads(metadata["classes"]), ["cats", "dogs"])
            session = self.onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            self.assertEqual(session.get_inputs()[0].shape[0], "N")
            reference = self.onnx_reference(model)
            images = self.images(kind, metadata)
            for batch in 1, 5:
                with self.subTest(kind=kind, batch=batch):
                    feed = {"images": images[:batch]}
                    self.close(session.run(["logits"], feed)[0], expected[:batch])
                    self.close(reference.run(["logits"], feed)[0], expected[:batch])

    def onnx_reference(self, model):
        """The reference evaluator, with three operators of its own version corrected: LRN sums over as many channels as there are images,
        BatchNormalization before opset 14 always trains, and MaxPool takes minutes."""
        op_run = sys.modules["onnx.reference"].op_run.OpRun

        class LRN(op_run):
            def _run(self, x, alpha=None, beta=None, bias=None, size=None):
                padded = numpy.pad(x * x, ((0, 0), (size // 2, size // 2), (0, 0), (0, 0)))
                squares = sum(padded[:, at:at + x.shape[1]] for at in range(size))
                return ((x / (bias + alpha / size * squares) ** beta).astype(x.dtype),)

        class BatchNormalization(op_run):
            def _run(self, x, scale, bias, mean, variance, epsilon=None, **_):
                scale, bias, mean, variance = (each[:, None, None] for each in (scale, bias, mean, variance))
                return ((scale * (x - mean) / numpy.sqrt(variance + numpy.float32(epsilon)) + bias).astype(x.dtype),)

        class MaxPool(op_run):
            def _run(self, x, kernel_shape=None, strides=None, pads=None, **_):
                top, left, bottom, right = pads
                padded = numpy.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=-numpy.inf)
                windows = numpy.lib.stride_tricks.sliding_window_view(padded, kernel_shape, (2, 3))
                return (windows[:, :, ::strides[0], ::strides[1]].max((4, 5)),)

        return sys.modules["onnx.reference"].ReferenceEvaluator(model, new_ops=[LRN, BatchNormalization, MaxPool])

    def test_caffe_pixels(self):
        run = self.train("nin-cifar")
        path = self.export(run, "--input=uint8", "--val_preset=bvlc", "--image_size=98")  # what the preset cuts out of 112 pixels
        session = self.onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        found = session.run(["logits"], {"images": numpy.ascontiguousarray(self.pixels[:, 7:105, 7:105])})[0]
        self.close(found, self.logits(f"--checkpoint={run}", "--val_preset=bvlc", "--image_size=98"))

    def test_weights_that_do_not_fit(self):
        run = self.train("nin-cifar")
        self.fails(cli.CHECKPOINT, ["mlpconv3.2.conv.bias [2] in the file is mlpconv3.2.conv.bias [3] in the model", "mlpconv3.2.conv.weight"],
                   "export", f"--checkpoint={run}", "--format=onnx", f"--output={self.dir / 'other.onnx'}", "--num_classes=3")
        self.assertFalse((self.dir / "other.onnx").exists())


def add_model(model):
    def test(self):
        run = self.train(model)
        self.compare(run, self.logits(f"--checkpoint={run}"))
    setattr(Onnx, "test_" + model.replace("-", "_"), test)


for each in MODELS:
    add_model(each)


class Safetensors(Photos):
    needs = ("safetensors.numpy",)

    def export(self, run, *flags):
        path = self.dir / "weights.safetensors"
        self.command("export", f"--checkpoint={run}", "--format=safetensors", f"--output={path}", *flags)
        return path

    def test_reference_library(self):
        for model in "googlenet", "googlenet-torchvision", "nin-cifar":
            run = self.train(model)
            expected = deeper.load_state_dict(run)
            path = self.export(run, "--aux")
            found = sys.modules["safetensors.numpy"].load_file(path)
            self.assertEqual(found.keys(), expected.keys())
            for name, value in found.items():
                self.assertEqual(value.dtype, numpy.float32)
                numpy.testing.assert_array_equal(value, expected[name])
            with sys.modules["safetensors"].safe_open(path, "numpy") as file:
                metadata = file.metadata()
            self.assertEqual((metadata["format"], metadata["model"], metadata["num_classes"]), ("pt", model, "2"))
            self.assertEqual(json.loads(metadata["config"])["classes"], ["cats", "dogs"])
            self.assertEqual(deeper.load_state_dict(path).keys(), expected.keys())
            without = sys.modules["safetensors.numpy"].load_file(self.export(run))
            self.assertEqual(without.keys(), {name for name in expected if not name.startswith("aux")})

    def test_torchvision(self):
        try:
            import torch
            from torchvision.models import GoogLeNet
        except ImportError as error:
            self.skipTest(f"needs torchvision: {error}")
        run = self.train("googlenet-torchvision")
        model = GoogLeNet(num_classes=2, aux_logits=False, init_weights=False).eval()
        weights = sys.modules["safetensors.numpy"].load_file(self.export(run))
        model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()}, strict=True)
        _, preprocess, _ = deeper.googlenet(run)
        with torch.no_grad():
            found = model(torch.stack([preprocess(image) for image in self.pixels])).numpy()
        self.close(found, self.logits(f"--checkpoint={run}"))


class Torch(Photos):
    """Weights that PyTorch saved."""

    needs = "torch", "torchvision"

    def googlenet(self, classes=2):
        """torchvision's, with random weights and statistics that stay in a usual range."""
        self.torch.manual_seed(1)
        model = self.torchvision.models.GoogLeNet(num_classes=classes, aux_logits=True, transform_input=True, init_weights=False).eval()
        for name, value in model.state_dict().items():
            if name.endswith(("running_mean", "running_var", "bn.weight", "bn.bias")):
                value.copy_(self.torch.rand_like(value) + (0 if name.endswith(("mean", "bias")) else 0.5))
        return model

    def save(self, model, name, **how):
        path = self.dir / name
        self.torch.save(model.state_dict(), path, **how)
        return path

    def test_logits(self):
        model = self.googlenet()
        preprocess = deeper.Preprocess(SIZE, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], "torchvision")
        with self.torch.no_grad():
            expected = model(self.torch.stack([preprocess(image) for image in self.pixels])).numpy()
        zipped, legacy = self.save(model, "new.pth"), self.save(model, "old.pth", _use_new_zipfile_serialization=False)
        for path in zipped, legacy:
            self.close(self.logits(f"--init_from={path}", f"--image_size={SIZE}"), expected)
        names = self.dir / "names.txt"
        names.write_text("cats\ndogs\n")
        imported = self.dir / "imported.h5"
        three = self.dir / "three.txt"
        three.write_text("a\nb\nc\n")
        self.fails(cli.DATA, ["three.txt has 3 lines, and the network 2 classes"], "import", f"--input={zipped}", f"--output={imported}",
                   f"--classes={three}")
        three.write_bytes("cats\nh\xfchner\n".encode("latin-1"))
        self.fails(cli.DATA, ["UTF-8"], "import", f"--input={zipped}", f"--output={imported}", f"--classes={three}")
        printed = self.command("import", f"--input={zipped}", f"--output={imported}", f"--classes={names}")
        self.assertIn("googlenet-torchvision, 2 classes, mean [0.5,0.5,0.5]", printed)
        self.close(self.logits(f"--init_from={imported}", f"--image_size={SIZE}"), expected)
        # Other normalisation than that of the published weights.
        flags = "--mean=0.1,0.2,0.3", "--std=1,2,3", "--val_preset=none"
        model.transform_input = False
        preprocess = deeper.Preprocess(SIZE, [0.1, 0.2, 0.3], [1, 2, 3])
        with self.torch.no_grad():
            expected = model(self.torch.stack([preprocess(image) for image in self.pixels])).numpy()
        self.close(self.logits(f"--init_from={zipped}", f"--image_size={SIZE}", *flags), expected)

    def test_what_was_assumed_is_said(self):
        path = self.save(self.googlenet(), "weights.pth")
        result = cli.run("eval", f"--init_from={path}", f"--data={self.photos}", f"--image_size={SIZE}", "--threads=1")
        for words in "googlenet-torchvision has the same tensors", "mean and std are 0.5 and val_preset is torchvision", "pass --mean, --std":
            self.assertIn(words, result.stderr)

    def test_code_is_not_executed(self):
        evidence = self.dir / "executed"

        class Evil:
            def __reduce__(self):
                return __import__("os").system, (f"touch {evidence}",)

        for how in {}, {"_use_new_zipfile_serialization": False}:
            path = self.dir / "evil.pth"
            self.torch.save({**self.googlenet().state_dict(), "evil": Evil()}, path, **how)
            self.fails(cli.CHECKPOINT, ["evil is not a dense, contiguous tensor"], "import", f"--input={path}", f"--output={self.dir / 'evil.h5'}")
            self.assertFalse(evidence.exists())
        self.assertFalse((self.dir / "evil.h5").exists())

    def test_other_networks_are_listed(self):
        path = self.save(self.torch.nn.Sequential(self.torch.nn.Linear(2, 3)), "linear.pth")
        command = "import", f"--input={path}", f"--output={self.dir / 'x.h5'}"
        self.fails(cli.CHECKPOINT, ["linear.pth", "--model, --num_classes"], *command)
        self.fails(cli.CHECKPOINT, ["do not fit", "conv1.conv.weight [64, 3, 7, 7] is missing in the file", "and 106 more"],
                   *command, "--model=googlenet", "--num_classes=3", "--mean=0,0,0", "--std=1,1,1")
        path.write_bytes(b"neither")
        self.fails(cli.CHECKPOINT, ["no known format"], *command)

    def test_fine_tuning(self):
        """To another number of classes, on two ranks, resumed in the middle."""
        path = self.save(self.googlenet(classes=7), "seven.pth")
        run = self.dir / "tuned"
        train = ["train", "--model=googlenet-torchvision", f"--data={self.photos}", f"--image_size={SIZE}", "--aux=false", "--global_batch=5",
                 "--lr=0.01", "--freeze=conv*,inception*", f"--init_from={path}", "--val_split=none", f"--checkpoint_dir={run}", "--threads=1"]
        printed = self.command(*train, "--max_steps=1", ranks=2)
        self.assertIn("has 7 classes, not 2: the classifiers start anew: fc.weight, fc.bias", " ".join(printed.split()))
        first = deeper.load_state_dict(run)
        printed = self.command(*train, "--max_steps=2", ranks=2)
        self.assertIn("1 steps done", printed)
        self.assertNotIn("start anew", printed)
        second, expected = deeper.load_state_dict(run), self.googlenet(classes=7).state_dict()
        for name, value in second.items():
            if name.startswith("fc."):
                self.assertEqual(value.shape[0], 2)
                self.assertGreater(abs(value - first[name]).max(), 0)
            elif "running" not in name:
                numpy.testing.assert_array_equal(value, expected[name].numpy())
        self.fails(cli.USAGE, ["no parameter matches covn*"], *train, "--freeze=covn*", "--max_steps=3")
        self.fails(cli.USAGE, ["--lr_scale=fc", "PATTERN:FACTOR"], *train, "--lr_scale=fc", "--max_steps=3")

    def test_descriptions_of_other_networks(self):
        """A config with our names and other types: every format of export refuses it, and leaves no file."""
        path = self.dir / "strange.safetensors"
        for config in '{"model":"nin-cifar","num_classes":"10"}', '{"model":["nin-cifar"]}':
            header = json.dumps({"__metadata__": {"config": config}, "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
            path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
            for form in "hdf5", "safetensors", "onnx":
                self.fails(cli.CHECKPOINT, ["strange.safetensors: its config is not that of a network of deeper"], "export", f"--checkpoint={path}",
                           f"--format={form}", f"--output={self.dir / 'strange-exported'}")
                self.assertEqual(list(self.dir.glob("strange-exported*")), [])
        for flags, words in ((["--format=hdf5", "--input=uint8"], "--input needs --format=onnx"),
                             (["--format=onnx", "--aux"], "--aux needs --format=safetensors"),
                             (["--output=x.onnx"], "--output=x.onnx ends as --format=onnx, and --format is hdf5")):
            self.fails(cli.USAGE, [words], "export", f"--checkpoint={path}", f"--output={self.dir / 'x'}", *flags)


def field(number, kind, content):
    """A field of a protobuf message. kind: 0 an integer, 2 bytes."""
    def varint(value):
        return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)
    return varint(number << 3 | kind) + (varint(content) if kind == 0 else varint(len(content)) + content)


class CaffeNet:
    """bvlc_googlenet with random weights, as Caffe's text and binary files."""

    MODULES = {"3a": (64, 96, 128, 16, 32, 32), "3b": (128, 128, 192, 32, 96, 64), "4a": (192, 96, 208, 16, 48, 64),
               "4b": (160, 112, 224, 24, 64, 64), "4c": (128, 128, 256, 24, 64, 64), "4d": (112, 144, 288, 32, 64, 64),
               "4e": (256, 160, 320, 32, 128, 128), "5a": (256, 160, 320, 32, 128, 128), "5b": (384, 192, 384, 48, 128, 128)}

    def __init__(self, size, classes):
        self.random, self.blobs = numpy.random.default_rng(1), {}
        self.text = f'input: "data" input_dim: 1 input_dim: 3 input_dim: {size} input_dim: {size}\n'
        x = self.pool("pool1/3x3_s2", self.conv("conv1/7x7_s2", "data", 3, 64, 7, 2))
        x = self.conv("conv2/3x3_reduce", self.norm("pool1/norm1", x), 64, 64, 1)
        x = self.pool("pool2/3x3_s2", self.norm("conv2/norm2", self.conv("conv2/3x3", x, 64, 192, 3)))
        channels = 192
        for name, (c1, r3, c3, r5, c5, pool) in self.MODULES.items():
            at = f"inception_{name}/"
            branches = [self.conv(at + "1x1", x, channels, c1, 1), self.conv(at + "3x3", self.conv(at + "3x3_reduce", x, channels, r3, 1), r3, c3, 3),
                        self.conv(at + "5x5", self.conv(at + "5x5_reduce", x, channels, r5, 1), r5, c5, 5),
                        self.conv(at + "pool_proj", self.pool(at + "pool", x, 1, 1), channels, pool, 1)]
            x = self.layer(at + "output", "Concat", branches)
            channels = c1 + c3 + c5 + pool
            if name in ("3b", "4e"):
                x = self.pool(f"pool{name[0]}/3x3_s2", x)
        x = self.layer("pool5", "Pooling", [x], "pooling_param { pool: AVE global_pooling: true }")
        self.weights("loss3/classifier", (classes, channels))
        self.layer("loss3/classifier", "InnerProduct", [x], f"inner_product_param {{ num_output: {classes} }}")

    def layer(self, name, kind, bottoms, parameters=""):
        inputs = " ".join(f'bottom: "{bottom}"' for bottom in bottoms)
        self.text += f'layer {{ name: "{name}" type: "{kind}" {inputs} top: "{name}" {parameters} }}\n'
        return name

    def conv(self, name, bottom, inputs, outputs, kernel, stride=1):
        self.weights(name, (outputs, inputs, kernel, kernel))
        window = f"kernel_size: {kernel} stride: {stride} pad: {kernel // 2}"
        self.layer(name, "Convolution", [bottom], f"convolution_param {{ num_output: {outputs} {window} }}")
        return self.layer(name + "/relu", "ReLU", [name])

    def pool(self, name, bottom, stride=2, pad=0):
        return self.layer(name, "Pooling", [bottom], f"pooling_param {{ pool: MAX kernel_size: 3 stride: {stride} pad: {pad} }}")

    def norm(self, name, bottom):
        return self.layer(name, "LRN", [bottom], "lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }")

    def weights(self, name, shape):
        scale = numpy.sqrt(2 / numpy.prod(shape[1:]))
        self.blobs[name] = [self.random.normal(0, scale, shape).astype(numpy.float32), self.random.normal(0, 0.1, shape[:1]).astype(numpy.float32)]

    def binary(self, version):
        message = field(1, 2, b"GoogleNet")
        for name, blobs in self.blobs.items():
            layer = field(1 if version == 2 else 4, 2, name.encode())
            kind = ("Convolution", 4) if blobs[0].ndim == 4 else ("InnerProduct", 14)
            layer += field(2, 2, kind[0].encode()) if version == 2 else field(5, 0, kind[1])
            for blob in blobs:
                content = field(5, 2, blob.tobytes())
                if version == 2:
                    content += field(7, 2, b"".join(field(1, 0, side) for side in blob.shape))
                else:
                    for number, side in enumerate((1,) * (4 - blob.ndim) + blob.shape, 1):
                        content += field(number, 0, side)
                layer += field(7 if version == 2 else 6, 2, content)
            message += field(100 if version == 2 else 2, 2, layer)
        return message


class Caffe(Photos):
    needs = ("cv2",)

    def test_logits(self):
        size = SIZE * 7 // 8
        net = CaffeNet(size, 2)
        crop = (SIZE - size) // 2
        images = self.pixels[:, crop:crop + size, crop:crop + size, ::-1] - numpy.float32([104, 117, 123])
        for version in 1, 2:
            with self.subTest(version=version):
                path = self.dir / f"v{version}.caffemodel"
                path.write_bytes(net.binary(version))
                files = (numpy.frombuffer(content, numpy.uint8) for content in (net.text.encode(), path.read_bytes()))
                reader = self.cv2.dnn.readNetFromCaffe(*files)
                expected = []
                for image in images:
                    reader.setInput(numpy.ascontiguousarray(image.transpose(2, 0, 1)[None]))
                    expected.append(reader.forward().reshape(-1))
                found = self.logits(f"--init_from={path}", f"--image_size={size}")
                self.close(found, numpy.stack(expected), 1e-5)
        without_pools = self.logits(f"--init_from={path}", f"--image_size={size}", "--model=googlenet")
        self.assertGreater(numpy.linalg.norm(without_pools - found), 1e-3 * numpy.linalg.norm(found))

    def test_damage(self):
        path = self.dir / "damaged.caffemodel"
        path.write_bytes(CaffeNet(98, 2).binary(2)[:-1])
        self.fails(cli.CHECKPOINT, ["damaged.caffemodel is damaged"], "import", f"--input={path}", f"--output={self.dir / 'x.h5'}")


if __name__ == "__main__":
    cli.main()
