#!/usr/bin/env python3
"""`deeper pack` of WebDataset archives, Kaggle's ImageNet and CSV lists:  inputs_test.py DEEPER MPIRUN [unittest arguments]

Two classes need Python packages, in build/tools/interchange or where Python looks. Without one, their tests are skipped:
  Reference      webdataset
  Parquet        pyarrow
"""
import csv
import io
import json
import os
import pathlib
import re
import subprocess
import sys
import tarfile

import numpy
import PIL.Image

ROOT = pathlib.Path(__file__).resolve().parents[3]
TOOLS = ROOT / "build/tools/interchange"
sys.path[:0] = [str(ROOT / "python"), str(ROOT / "tests/launch"), str(TOOLS)]
import cli  # noqa: E402

import deeper  # noqa: E402

cli.DEEPER = str(pathlib.Path(cli.DEEPER).resolve())  # a test changes the directory
CLASSES = "cats", "dogs", "fish"
KINDS = {"jpg": ("JPEG", {"quality": 90}), "png": ("PNG", {}), "webp": ("WEBP", {"quality": 90})}


def image(number, kind="jpg"):
    pixels = numpy.random.default_rng(number).integers(0, 256, (6, 8 + number % 3, 3), dtype=numpy.uint8)
    out = io.BytesIO()
    PIL.Image.fromarray(pixels).resize((32 + number, 24)).save(out, KINDS[kind][0], **KINDS[kind][1])
    return out.getvalue()


def pixels(content):
    return numpy.asarray(PIL.Image.open(io.BytesIO(content)).convert("RGB"))


def write_tar(path, members, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **how) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


class Inputs(cli.Cli):
    format = None

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.files = {number: image(number, list(KINDS)[number % 3]) for number in range(12)}

    def setUp(self):
        self.input, self.output = self.dir / self.id() / "in", self.dir / self.id() / "out"
        self.input.mkdir(parents=True)

    def arguments(self, *flags, source=None, output=None, split="train"):
        return ("pack", f"--format={self.format}", f"--input={source or self.input}", f"--output={output or self.output}", f"--split={split}", *flags)

    def packed(self, *flags, **how):
        """-> the data set, and what the command printed"""
        result = cli.run(*self.arguments(*flags, **how))
        self.assertEqual(result.returncode, 0, result.stderr)
        return deeper.ShardDataset(how.get("output") or self.output, how.get("split", "train")), result.stdout + result.stderr

    def refuses(self, *words, flags=(), code=cli.DATA, **how):
        result = self.fails(code, words, *self.arguments(*flags, **how))
        self.assertEqual(len(result.stderr.strip().splitlines()), 1, result.stderr)

    def expect(self, dataset, numbers, labels, classes):
        self.assertEqual(dataset.classes, list(classes))
        self.assertEqual(len(dataset), len(numbers))
        for (found, label), number, expected in zip(dataset, numbers, labels):
            numpy.testing.assert_array_equal(numpy.asarray(found), pixels(self.files[number]))
            self.assertEqual(label, expected)


class Locked(Inputs):
    """A folder whose files the user may list, but not open."""

    def test_every_format(self):
        self.input.chmod(0o644)
        self.addCleanup(self.input.chmod, 0o755)
        capabilities = "-dac_override,-dac_read_search"  # root has them
        user = ["setpriv", f"--inh-caps={capabilities}", f"--bounding-set={capabilities}"] if os.geteuid() == 0 else []
        for self.format in "idx", "folder", "imagenet", "kaggle", "webdataset", "csv":
            with self.subTest(format=self.format):
                done = subprocess.run([*user, cli.DEEPER, *self.arguments()], capture_output=True, text=True, check=False)
                self.assertEqual(done.returncode, cli.DATA, done.stderr)
                self.assertIn(str(self.input), done.stderr)
                self.assertNotIn("internal error", done.stderr)


class Webdataset(Inputs):
    format = "webdataset"

    def samples(self, numbers, label):
        """The members of samples; label(number) -> (ending, text)"""
        for number in numbers:
            yield f"a/{number:04}.{list(KINDS)[number % 3]}", self.files[number]
            ending, text = label(number)
            yield f"a/{number:04}.{ending}", text.encode()

    def archives(self, label=lambda number: ("cls", str(number % 3))):
        """Three archives of four samples, in each of the formats of tar."""
        for part, how in enumerate((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)):
            write_tar(self.input / f"train-{part:03}.tar", self.samples(range(4 * part, 4 * part + 4), label), format=how)

    def test_patterns(self):
        self.archives()
        everything = self.input, f"{self.input}/train-{{000..002}}.tar", f"{self.input}/train-*.tar", f"{self.input}/{{train-000,train-00[12]}}.tar"
        ids = set()
        for place, source in enumerate(everything):
            dataset, printed = self.packed(source=source, output=self.output / str(place))
            self.expect(dataset, range(12), [number % 3 for number in range(12)], "012")
            self.assertIn("12 images of 3 classes", printed)
            ids.add(json.loads((self.output / str(place) / "manifest.json").read_text())["splits"]["train"]["dataset_uuid"])
        self.assertEqual(len(ids), 1, "the same data set")
        dataset, _ = self.packed(source=self.input / "train-001.tar", output=self.output / "one")
        self.expect(dataset, range(4, 8), [1, 2, 0, 1], "012")
        dataset, _ = self.packed(source=f"{self.input}/train-{{002,000}}.tar", output=self.output / "order")
        self.expect(dataset, [*range(8, 12), *range(4)], [2, 0, 1, 2, 0, 1, 2, 0], "012")

    def test_labels(self):
        names = lambda n: ("cls", CLASSES[n % 3] + "\n"), lambda n: ("json", json.dumps({"label": CLASSES[n % 3], "x": [1]}))
        for place, label in enumerate(names):
            self.archives(label)
            self.expect(self.packed(output=self.output / str(place))[0], range(12), [n % 3 for n in range(12)], CLASSES)
        (self.input / "classes.txt").write_text("fish\ndogs\ncats\n")
        self.expect(self.packed(output=self.output / "listed")[0], range(12), [2 - n % 3 for n in range(12)], ("fish", "dogs", "cats"))
        self.archives(lambda n: ("json", json.dumps({"label": n % 3})))
        self.expect(self.packed(output=self.output / "numbers")[0], range(12), [n % 3 for n in range(12)], ("fish", "dogs", "cats"))
        (self.input / "classes.txt").write_text("fish\ndogs\n")
        self.refuses("label 2, but there are 2 classes", "train-000.tar/a/0002.webp", output=self.output / "few")

    def test_same_bytes_and_resume(self):
        self.archives()
        shards = []
        for place, jobs in enumerate((1, 4)):
            output = self.output / str(place)
            self.packed("--encoding=jpeg", "--shard_size=6000", "--shuffle=3", f"--jobs={jobs}", output=output)
            shards.append({path.name: path.read_bytes() for path in output.iterdir()})
        self.assertEqual(*shards)
        names = sorted(name for name in shards[0] if name.endswith(".h5"))
        self.assertGreater(len(names), 2)
        (output / names[1]).unlink()
        (output / "manifest.json").unlink()
        _, printed = self.packed("--encoding=jpeg", "--shard_size=6000", "--shuffle=3", output=output)
        self.assertIn(f"{len(names) - 1} of them kept", printed)
        self.assertEqual({path.name: path.read_bytes() for path in output.iterdir()}, shards[0])
        self.assertIn("12 samples", self.succeeds("verify", f"--data={output}"))

    def test_jpegs_are_kept_byte_for_byte(self):
        self.archives()
        self.packed("--encoding=jpeg")
        stored = b"".join(path.read_bytes() for path in self.output.glob("*.h5"))
        for number, content in self.files.items():
            self.assertEqual(content in stored, number % 3 == 0, number)

    def test_members_apart_and_others(self):
        jpg, other = self.files[0], self.files[3]
        write_tar(self.input / "x.tar", [("1.cls", b"0"), ("._1.jpg", b"macOS"), ("README", b""), ("2.JPG", other), ("d.v2/1.x.y", b""),
                                         ("3.txt", b"words"), ("1.jpg", jpg), ("1.txt", b"words"), ("2.cls", b" 1\n"), ("./4.json", b"{")])
        dataset, printed = self.packed()
        self.expect(dataset, [0, 3], [0, 1], "01")
        self.assertIn("1 hidden files", printed)
        self.assertIn("3 samples without an image are left out, the first is x.tar/d.v2/1", printed)

    def test_bad_images_are_named(self):
        self.archives()
        write_tar(self.input / "train-003.tar", [("bad.jpg", self.files[0][:-20]), ("bad.cls", b"1"), ("anim.gif", b"GIF89a"), ("anim.cls", b"1")])
        self.fails(cli.DATA, ["2 bad images", "train-003.tar/bad.jpg: damaged JPEG", "train-003.tar/anim.gif: the format is GIF"], *self.arguments())
        self.assertEqual(len(self.packed("--allow_bad=2")[0]), 12)

    def test_mistakes_in_archives(self):
        jpg = self.files[0]
        for members, words in (
                ([("1.jpg", jpg)], ["x.tar: sample 1 has no label", "its members are .jpg; expected .cls"]),
                ([("1.jpg", jpg), ("1.txt", b"a")], ["its members are .jpg, .txt"]),
                ([("1.jpg", jpg), ("1.png", jpg), ("1.cls", b"0")], ["two members of sample 1: 1.jpg and 1.png"]),
                ([("1.jpg", jpg), ("1.cls", b"0"), ("1.cls", b"0")], ["two members of sample 1"]),
                ([("1.jpg", jpg), ("1.cls", b" \n")], ["the label in 1.cls is empty"]),
                ([("1.jpg", jpg), ("1.json", b"{]")], ["1.json is not JSON"]),
                ([("1.jpg", jpg), ("1.json", b"[1]")], ["1.json has no field \"label\""]),
                ([("1.jpg", jpg), ("1.json", b'{"label": 1.5}')], ["\"label\" in 1.json is neither"]),
                ([("1.jpg", jpg), ("1.cls", b"0"), ("2.jpg", jpg), ("2.cls", b"cat")], ["numbers and some are names", "x.tar/1.jpg", "x.tar/2.jpg"]),
                ([("1.txt", b"")], ["no images in"]),
        ):
            with self.subTest(words=words):
                write_tar(self.input / "x.tar", members)
                self.refuses(*words)
        whole = io.BytesIO()
        with tarfile.open(fileobj=whole, mode="w:gz") as archive:
            archive.add(__file__, "1.cls")
        (self.input / "x.tar").write_bytes(whole.getvalue())
        self.refuses("x.tar: compressed with gzip; decompress it with gunzip")
        (self.input / "x.tar").write_bytes(b"neither" * 200)
        self.refuses("x.tar: missing or damaged tar header")

    def test_mistakes_in_input(self):
        self.refuses("no archives *.tar in")
        (self.input / "part").mkdir()
        self.refuses("pass one of its folders, such as", "/in/part")
        self.archives()
        write_tar(self.input / "val-00.tar", [])
        self.refuses("several series of archives, such as train-#.tar and val-#.tar", "/in/train-*.tar'")
        for source, words in ((f"{self.input}/{{7..9}}.tar", "7.tar: No such file"), (f"{self.input}/no-*.tar", "no file matches"),
                              (f"{self.input}/{{a..c}}.tar", "{a..c} is neither a range"), (f"{self.input}/train-{{000,00*}}.tar", "twice"),
                              ("https://example.com/{0..9}.tar", "download the archives first")):
            self.refuses(words, source=source)
        first, second = (self.arguments(source=self.input / f"train-00{part}.tar") for part in (0, 1))
        self.fails(cli.USAGE, ["--input is given twice, the second time as", "train-001.tar", "quotes"], *first[:3], second[2], *first[3:])
        self.fails(cli.DATA, ["no file matches"], *first, "--input=no-*.tar")
        for flags, words in ((["--root=x"], "--root applies to --format=csv only"), (["--holdout_seed=3"], "--holdout_seed needs --holdout"),
                             (["--quality=50"], "--quality needs --encoding=jpeg"),
                             (["--holdout=2", "--split=holdout"], "--holdout makes the split holdout")):
            self.refuses(words, flags=flags, code=cli.USAGE)


class Reference(Inputs):
    """Archives of the library `webdataset`, and what it reads."""

    format = "webdataset"

    def test_library(self):
        try:
            import webdataset
        except ImportError as error:
            self.skipTest(f"needs webdataset: {error}")
        with webdataset.ShardWriter(f"{self.input}/train-%06d.tar", maxcount=5, verbose=0) as writer:
            for number in self.files:
                if number % 3 != 2:
                    kind = list(KINDS)[number % 3]
                    writer.write({"__key__": f"sub/{number:05}", kind: self.files[number], "cls": number % 3, "json": {"n": number}})
        urls = sorted(str(path) for path in self.input.glob("*.tar"))
        self.assertGreater(len(urls), 1)
        dataset, _ = self.packed(source=f"{self.input}/train-{{000000..{len(urls) - 1:06}}}.tar")
        read = list(webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8").to_tuple("jpg;png", "cls"))
        self.assertEqual(len(dataset), len(read))
        for (found, label), (expected, cls) in zip(dataset, read):
            numpy.testing.assert_array_equal(found, expected)
            self.assertEqual(label, cls)


class Kaggle(Inputs):
    format = "kaggle"
    wnids = "n01440764", "n01443537", "n02084071"

    def setUp(self):
        super().setUp()
        images = self.input / "ILSVRC/Data/CLS-LOC"
        solution = ["ImageId,PredictionString"]
        for number, content in self.files.items():
            wnid = self.wnids[number % 3]
            train = images / "train" / wnid / f"{wnid}_{number}.JPEG"
            train.parent.mkdir(parents=True, exist_ok=True)
            train.write_bytes(content)
            (images / "val").mkdir(exist_ok=True)
            (images / f"val/ILSVRC2012_val_{number + 1:08}.JPEG").write_bytes(content)
            solution.insert(1, f"ILSVRC2012_val_{number + 1:08},{wnid} 85 1 499 272 {wnid} 1 2 3 4 ")
        self.solution, self.mapping, self.images = self.input / "LOC_val_solution.csv", self.input / "LOC_synset_mapping.txt", images
        self.solution.write_text("\n".join(solution) + "\n")
        self.mapping.write_text("n01440764 tench, Tinca tinca\nn01443537 goldfish, Carassius auratus\nn02084071 dog\n")

    def test_both_splits(self):
        by_class = sorted(self.files, key=lambda number: (number % 3, str(number)))
        for how in "whole", "without mapping":
            with self.subTest(how=how):
                output = self.output / how.split()[0]
                dataset, printed = self.packed("--shuffle=0", output=output)
                self.expect(dataset, by_class, [number % 3 for number in by_class], self.wnids)
                self.assertIn("12 images; ImageNet 2012 has 1281167", printed)
                dataset, printed = self.packed(split="val", output=output)
                self.expect(dataset, self.files, [number % 3 for number in self.files], self.wnids)
                self.assertIn("12 images; ImageNet 2012 has 50000", printed)
            self.mapping.unlink(missing_ok=True)
        shuffled, _ = self.packed()
        self.assertNotEqual(list(shuffled.labels), sorted(shuffled.labels), "sorted by class unless shuffled")
        self.refuses("--strict: 12 images; ImageNet 2012 has 50000", flags=["--strict"], split="val", output=self.output / "strict")

    def test_unpacked_elsewhere(self):
        (self.input / "ILSVRC/Data").rename(self.input / "Data")
        self.assertEqual(len(self.packed(split="val")[0]), 12)

    def test_mistakes(self):
        self.refuses("splits train and val, and test without labels", split="test")
        text = self.solution.read_text()
        for wrong, words in ((text.replace("val_00000003,", "val_00000099,"), "no label for ILSVRC2012_val_00000003.JPEG"),
                             (text.replace("n02084071 85", "85", 1), "line 2: not an image and a prediction"),
                             (text + text.splitlines()[1], "that an earlier line names"), (text.split("\n", 1)[1], "does not begin with ImageId"),
                             (text.replace("n02084071", "n09999999"), "\"n09999999\" is not one of the 3 classes")):
            self.solution.write_text(wrong)
            self.refuses(words, split="val")
        self.solution.write_text(text + "ILSVRC2012_val_00000099,n01440764 1 2 3 4\n")
        self.assertIn("1 images of LOC_val_solution.csv do not exist", self.packed(split="val")[1])
        self.solution.unlink()
        self.refuses("LOC_val_solution.csv: No such file", split="val")
        self.mapping.write_text("n01440764 tench\ntench\n")
        self.refuses("\"tench\" does not begin with a wnid")
        self.mapping.write_text("n01440764 tench\n")
        self.refuses("n01443537", output=self.output / "few")
        self.refuses("has no folder ILSVRC/Data/CLS-LOC/train", "Kaggle's unpacked download", source=self.dir)


class Csv(Inputs):
    format = "csv"

    def setUp(self):
        super().setUp()
        self.folder = self.input
        self.names = {number: f"pictures/{number}, a {list(KINDS)[number % 3]}" for number in self.files}
        for number, content in self.files.items():
            path = self.folder / self.names[number]
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        self.input = self.folder / "list.csv"

    def write(self, rows, path=None, prefix="", **how):
        with open(path or self.input, "w", newline="", encoding="utf-8") as file:
            file.write(prefix)
            csv.writer(file, **how).writerows(rows)

    def rows(self, label=lambda number: CLASSES[number % 3]):
        return [[name, label(number)] for number, name in self.names.items()]

    def test_lists(self):
        labels = [number % 3 for number in self.files]
        for place, (rows, how) in enumerate((
                (self.rows(), {}), (self.rows(), {"lineterminator": "\n", "quoting": csv.QUOTE_ALL, "prefix": "\ufeff"}),
                ([["label", "width", "Path"], *([label, 1, name] for name, label in self.rows())], {}))):
            self.write(rows, **how)
            dataset, printed = self.packed(output=self.output / str(place))
            self.expect(dataset, self.files, labels, CLASSES)
            self.assertEqual("columns that are not used: width" in printed, place == 2)
        self.write(self.rows(lambda number: number % 3))
        self.expect(self.packed(output=self.output / "numbers")[0], self.files, labels, "012")
        (self.folder / "classes.txt").write_text("\n".join(CLASSES))
        self.expect(self.packed(output=self.output / "named")[0], self.files, labels, CLASSES)
        self.input = pathlib.Path("list.csv")
        before = os.getcwd()
        self.addCleanup(os.chdir, before)
        os.chdir(self.folder)
        self.expect(self.packed(output=self.output / "here")[0], self.files, labels, CLASSES)

    def test_a_missing_first_file_is_no_header(self):
        self.write([["gone.png", "otters"], *self.rows()])
        self.assertEqual(len(self.packed("--allow_bad=1")[0]), 12)

    def test_roots(self):
        self.input = self.dir / "elsewhere.csv"
        self.write(self.rows())
        self.refuses("none of its 12 files exists, for example", "elsewhere.csv", "--root=DIR", "call its columns path and label")
        self.assertEqual(len(self.packed(f"--root={self.folder}")[0]), 12)
        self.write([["path", "label"], *([self.folder / name, label] for name, label in self.rows())])
        self.assertEqual(len(self.packed("--root=/nowhere", output=self.output / "absolute")[0]), 12)
        self.write(self.rows() + [["missing.jpg", "cats"]])
        self.fails(cli.DATA, ["1 bad images", "missing.jpg"], *self.arguments(f"--root={self.folder}"))

    def test_mistakes(self):
        first = self.rows()[0]
        for rows, words in (
                ([], ["list.csv: no lines"]), ([["a", "b", "c"]], ["line 1 has 3 cells: a,b,c; expected lines PATH,LABEL"]),
                ([["image", "breed"], first], ["the header image,breed has no column for the label; call it label"]),
                ([["id", "label"], first], ["has no column for the path"]),
                ([["id", "breed"], *self.rows()], ["the first line looks like a header: no file is called id", "the label breed", "path and label"]),
                ([["path", "image", "label"]], ["the columns path and image have the same meaning"]),
                ([first, ["x"]], ["line 2 has 1 cells, and line 1 2"]), ([first, ["x", ""]], ["line 2 has an empty path or label"]),
                ([first, ["./" + first[0], "dogs"]], ["lines 1 and 2 both name"]), ([["pictures", "cats"]], ["pictures in", "is not a regular file"]),
                ([first, [self.names[1], "7"]], ["some labels are numbers and some are names", "list.csv, line 2"])):
            with self.subTest(words=words):
                self.write(rows)
                self.refuses(*words)
        self.input.write_text('"a')
        self.refuses("list.csv: line 1: a quote is not closed")
        self.input.write_bytes("a,b".encode("utf-16"))
        self.refuses("list.csv: not UTF-8 text")
        os.mkfifo(self.folder / "pipe")
        self.write([["pipe", "cats"]])
        self.refuses("pipe in", "is not a regular file")
        self.refuses("must be the CSV file, not a folder", source=self.folder)
        self.refuses("no-such.csv: No such file", source=self.folder / "no-such.csv")


class Parquet(Inputs):
    """The script of docs/guides/data.md that writes archives from the Parquet files of Hugging Face."""

    format = "webdataset"

    def test_script(self):
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            self.skipTest(f"needs pyarrow: {error}")
        script, = re.findall(r"```python\n(import glob.*?)```", (ROOT / "docs/guides/data.md").read_text(), re.DOTALL)
        (self.input / "parquet").mkdir()
        for part in range(2):
            numbers = range(6 * part, 6 * part + 6)
            column = pyarrow.array([{"bytes": self.files[number], "path": None} for number in numbers])
            table = pyarrow.table({"image": column, "label": [number % 3 for number in numbers]})
            features = {"info": {"features": {"label": {"names": list(CLASSES), "_type": "ClassLabel"}, "image": {"_type": "Image"}}}}
            table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
            pyarrow.parquet.write_table(table, self.input / f"parquet/train-{part:05}-of-00002.parquet")
        done = subprocess.run([sys.executable, "-c", script], cwd=self.input, env=os.environ | {"PYTHONPATH": str(TOOLS)}, capture_output=True,
                              text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        dataset, _ = self.packed(source=f"{self.input}/tars/train-*.tar")
        self.expect(dataset, range(12), [number % 3 for number in range(12)], CLASSES)


if __name__ == "__main__":
    cli.main()
