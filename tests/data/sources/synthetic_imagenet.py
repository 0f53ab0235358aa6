#!/usr/bin/env python3
"""Makes a small ImageNet 2012 in the layout of the real download: a tar of class tars, the validation tar, and the devkit.

    synthetic_imagenet.py DIR [--classes=1000 --train_per_class=1 --val=1000 --photos=/usr/share/backgrounds --seed=1]

The images are crops of photographs (Debian: lomiri-wallpapers-16.04; mate-backgrounds has more), 500 x 375, as JPEG of quality 96,
like the real ones. The training images include one of every unusual kind in the real data, and of every kind of damaged download.
"""
import argparse
import gzip
import io
import pathlib
import tarfile

import numpy
import PIL.Image
import scipy.io

TRAIN, VAL, DEVKIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12"
FORMATS = tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT


def jpeg(image, **options):
    out = io.BytesIO()
    image.save(out, "JPEG", **{"quality": 96, **options})
    return out.getvalue()


class Photos:
    """Endless random crops."""

    def __init__(self, directory, seed):
        self.random = numpy.random.default_rng(seed)
        self.images = []
        for path in sorted(pathlib.Path(directory).glob("**/*.jpg")):
            image = PIL.Image.open(path)
            if min(image.size) >= 1000:
                image.draft("RGB", (1500, 1500))
                self.images.append(image.convert("RGB"))
        if not self.images:
            raise SystemExit(f"no photographs in {directory}: apt-get install lomiri-wallpapers-16.04")

    def crop(self, width=500, height=375):
        image = self.images[self.random.integers(len(self.images))]
        left = int(self.random.integers(image.width - width + 1))
        top = int(self.random.integers(image.height - height + 1))
        return image.crop((left, top, left + width, top + height))


def cmyk(image):
    """RGB to CMYK with as much black as possible."""
    rgb = numpy.asarray(image, numpy.float64)
    white = rgb.max(axis=2)
    ink = 255 - rgb * 255 / numpy.maximum(white, 1)[..., None]
    return numpy.concatenate([ink, 255 - white[..., None]], axis=2).round().astype(numpy.uint8)


def ycck_jpeg(image):
    """YCCK as Adobe writes it: transforms the inverted CMY as RGB to YCbCr, and stores K inverted."""
    planes = cmyk(image)
    # A decoder gives CMYK = 255 - RGB(YCbCr). Inverted, the ink is RGB(YCbCr).
    ycc = numpy.asarray(PIL.Image.fromarray(planes[..., :3]).convert("YCbCr"))
    stored = numpy.concatenate([ycc, 255 - planes[..., 3:]], axis=2)
    file = jpeg(PIL.Image.frombytes("CMYK", image.size, (255 - stored).tobytes()))  # PIL inverts what it saves
    adobe = file.index(b"Adobe") + 11
    assert file[adobe] == 0
    return file[:adobe] + b"\x02" + file[adobe + 1:]


def header_bomb(image, side=65500):
    """A small file whose header claims 4.3 billion pixels."""
    file = jpeg(image)
    size = file.index(b"\xff\xc0") + 5
    return file[:size] + side.to_bytes(2, "big") * 2 + file[size + 4:]


def oddities(photos):
    """{name: (file, part of the reason for rejecting it, or None)}"""
    png = io.BytesIO()
    photos.crop().save(png, "PNG")
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    whole = jpeg(photos.crop())
    inks = photos.crop()
    return {
        "png": (png.getvalue(), None),
        "cmyk": (jpeg(PIL.Image.frombytes("CMYK", inks.size, cmyk(inks).tobytes())), None),
        "ycck": (ycck_jpeg(photos.crop()), None),
        "grey": (jpeg(photos.crop().convert("L")), None),
        "progressive": (jpeg(photos.crop(), progressive=True), None),
        "rotated": (jpeg(photos.crop(), exif=exif), None),
        "narrow": (jpeg(photos.crop(500, 33)), None),
        "pixel": (jpeg(photos.crop(1, 1)), None),
        "truncated": (whole[:len(whole) // 2], "damaged JPEG"),
        "empty": (b"", "empty file"),
        "text": (b"<html>404 not found</html>", "not a JPEG, PNG or WebP file"),
        "bomb": (header_bomb(photos.crop()), "image of 65500 x 65500 pixels; the limit is"),
    }


def add(archive, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def tar(files, format, directory=None):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        if directory:
            folder = tarfile.TarInfo(directory)
            folder.type = tarfile.DIRTYPE
            archive.addfile(folder)
        for name, content in files:
            add(archive, name, content)
    return out.getvalue()


def meta_mat(wnids_by_id):
    """The devkit's table of synsets: the classes, then inner nodes of the tree above them."""
    types = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O"), ("children", "O"),
             ("wordnet_height", "O"), ("num_train_images", "O")]
    inner = [f"n9{i:07d}" for i in range(60)]
    rows = numpy.empty((len(wnids_by_id) + len(inner), 1), types)
    for i, wnid in enumerate(wnids_by_id + inner):
        children = [] if i < len(wnids_by_id) else [1 + i % 7, 2 + i % 9]
        rows[i, 0] = (float(i + 1), wnid, f"words of {wnid}", "caf\u00e9, a place", float(len(children)),
                      numpy.array(children, float), float(bool(children)), 1300.0)
    out = io.BytesIO()
    scipy.io.savemat(out, {"synsets": rows}, do_compression=True)
    return out.getvalue()


class Imagenet:
    """The generated files: `train` and `val` {path: file}, `rejects` {path: reason}, `val_wnids` {path: wnid}, sorted `wnids`."""

    def __init__(self, directory, photos="/usr/share/backgrounds", classes=1000, train_per_class=1, val=1000, seed=1):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        photos = Photos(photos, seed)
        self.random = photos.random
        numbers = self.random.choice(9_000_000, classes, replace=False)
        self.wnids = sorted(f"n0{number:07d}" for number in numbers)
        self.by_id = [str(wnid) for wnid in self.random.permutation(self.wnids)]  # the devkit's order is its own
        self.make_train(photos, train_per_class)
        self.make_val(photos, val)

    def make_train(self, photos, per_class):
        odd = oddities(photos)
        self.train, self.rejects, self.odd, self.class_tars = {}, {}, {}, {}
        with tarfile.open(self.directory / TRAIN, "w", format=tarfile.GNU_FORMAT) as archive:
            for label in self.random.permutation(len(self.wnids)):
                wnid = self.wnids[label]
                files = [(f"{wnid}_{i}.JPEG", jpeg(photos.crop())) for i in range(per_class)]
                if label < len(odd):
                    kind = list(odd)[label]
                    name = f"{wnid}_{kind}.JPEG"
                    self.odd[kind] = f"{wnid}/{name}"
                    if odd[kind][1]:
                        self.rejects[f"{wnid}/{name}"] = odd[kind][1]
                    files.insert(0, (name, odd[kind][0]))
                self.train.update({f"{wnid}/{name}": content for name, content in files})
                # Includes files repacked with names longer than ustar allows, and files added by macOS.
                deep = f"{'long/' * 50}{wnid}/" if label % 3 == 1 else ""
                extra = [(f"._{wnid}_0.JPEG", b"Mac OS X")] if label % 5 == 0 else []
                format = FORMATS[1 + label % 2] if deep else FORMATS[label % 3]
                content = tar(extra + [(deep + name, file) for name, file in files], format, "./" if label % 4 == 0 else None)
                self.class_tars[f"{wnid}.tar"] = content
                add(archive, f"{wnid}.tar", content)

    def make_val(self, photos, count):
        ids = [1 + i % len(self.wnids) for i in self.random.permutation(count)]
        self.val = {f"ILSVRC2012_val_{i + 1:08d}.JPEG": jpeg(photos.crop(*((500, 375) if i % 4 else (375, 500)))) for i in range(count)}
        self.val_wnids = {name: self.by_id[id - 1] for name, id in zip(self.val, ids)}
        shuffled = [(name, self.val[name]) for name in self.random.permutation(list(self.val))]
        (self.directory / VAL).write_bytes(tar(shuffled, tarfile.GNU_FORMAT))
        self.devkit = {f"{DEVKIT}/readme.txt": b"synthetic", f"{DEVKIT}/data/meta.mat": meta_mat(self.by_id),
                       f"{DEVKIT}/data/ILSVRC2012_validation_ground_truth.txt": "".join(f"{id}\n" for id in ids).encode()}
        self.write_devkit(self.devkit)

    def write_devkit(self, files):
        (self.directory / f"{DEVKIT}.tar.gz").write_bytes(gzip.compress(tar(files.items(), tarfile.USTAR_FORMAT)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory")
    for name, default in ("classes", 1000), ("train_per_class", 1), ("val", 1000), ("seed", 1):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--photos", default="/usr/share/backgrounds")
    made = Imagenet(**vars(parser.parse_args()))
    print(f"{made.directory}: {len(made.train)} training images, {len(made.rejects)} of them damaged, and {len(made.val)} to validate")


if __name__ == "__main__":
    main()
