#!/usr/bin/python3
"""Makes image files of every kind that people have: JPEG, PNG and WebP, whole, irregular and damaged.

    odd_images.py TOOL DIRECTORY        # TOOL: odd_image_tool, for JPEGs that Pillow cannot write
"""
import io
import pathlib
import struct
import subprocess
import sys
import tempfile
import zlib

import numpy
from PIL import Image, ImageCms

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}
DEPTHS = {GREY: (1, 2, 4, 8, 16), RGB: (8, 16), PALETTE: (1, 2, 4, 8), GREY_ALPHA: (8, 16), RGBA: (8, 16)}
SIZES = (1, 1), (1, 17), (17, 1), (2, 3), (7, 9), (8, 8), (16, 16), (33, 65), (3, 640), (640, 3), (257, 255)  # height, width
ADAM7 = (0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)  # y, x, step of y, of x
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def photo(height, width, channels=3):
    """Smooth, with noise, and with colours up to the corners of the RGB cube."""
    y, x, c = numpy.ogrid[:height, :width, :channels]
    noise = numpy.random.default_rng(height * 1000 + width).integers(-40, 40, (height, width, channels))
    return (128 + 150 * numpy.sin(x / 9 + c * 2) * numpy.cos(y / 7 - c) + noise).clip(0, 255).astype(numpy.uint8)


# ---- PNG

def chunk(kind, data=b"", crc=None):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) if crc is None else crc)


def header(height, width, kind, depth, interlaced=False):
    return chunk(b"IHDR", struct.pack(">2I5B", width, height, depth, kind, 0, 0, interlaced))


def packed_rows(values, depth, row_filter=0):
    """values[height, width, channels] of `depth` bits as the rows of a PNG; row_filter: 0 none, 1 sub, 2 up."""
    height = len(values)
    flat = values.reshape(height, -1)
    if depth == 16:
        rows = flat.astype(">u2").view(numpy.uint8).reshape(height, -1)
    elif depth == 8:
        rows = flat.astype(numpy.uint8)
    else:
        bits = flat[..., None].astype(numpy.uint8) >> numpy.arange(depth - 1, -1, -1, dtype=numpy.uint8) & 1
        rows = numpy.packbits(bits.reshape(height, -1), axis=1)
    before = numpy.zeros_like(rows)
    if row_filter == 1:
        step = max(1, values.shape[2] * depth // 8)
        before[:, step:] = rows[:, :-step]
    elif row_filter == 2:
        before[1:] = rows[:-1]
    return b"".join(bytes([row_filter]) + row.tobytes() for row in rows - before)


def scans(values, depth, interlaced=False, row_filter=0):
    if not interlaced:
        return packed_rows(values, depth, row_filter)
    passes = [values[y::dy, x::dx] for y, x, dy, dx in ADAM7]
    return b"".join(packed_rows(part, depth, row_filter) for part in passes if part.size)


def sample_values(height, width, kind, depth):
    if kind == PALETTE:
        return photo(height, width, 1) % min(2**depth, 200)
    if depth == 16:
        high = photo(height, width, CHANNELS[kind]).astype(int)
        return high * 256 + numpy.random.default_rng(1).integers(0, 256, high.shape)
    return photo(height, width, CHANNELS[kind]) >> (8 - depth)


def palette(entries):
    return chunk(b"PLTE", photo(1, entries).tobytes())


def png(height=19, width=23, kind=RGB, depth=8, interlaced=False, before=b"", between=b"", after=b"", data=None, end=None, row_filter=0, level=6):
    """before: chunks before the palette and the data; between: after the palette; after: after the data."""
    if data is None:
        data = zlib.compress(scans(sample_values(height, width, kind, depth), depth, interlaced, row_filter), level)
    if isinstance(data, bytes):
        data = chunk(b"IDAT", data)
    else:
        data = b"".join(chunk(b"IDAT", piece) for piece in data)
    colours = palette(min(2**depth, 200)) if kind == PALETTE else b""
    if end is None:
        end = chunk(b"IEND")
    return SIGNATURE + header(height, width, kind, depth, interlaced) + before + colours + between + data + after + end


def icc_profile():
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def png_files():
    names = {GREY: "grey", RGB: "rgb", PALETTE: "palette", GREY_ALPHA: "grey-alpha", RGBA: "rgba"}
    for kind, name in names.items():
        for depth in DEPTHS[kind]:
            for interlaced in (False, True):
                yield f"{name}-{depth}{'-interlaced' if interlaced else ''}", png(kind=kind, depth=depth, interlaced=interlaced)
    for height, width in SIZES:
        yield f"size-{height}x{width}", png(height, width)
        yield f"size-{height}x{width}-interlaced", png(height, width, interlaced=True)
        yield f"size-{height}x{width}-bits-interlaced", png(height, width, GREY, 1, interlaced=True)
    for row_filter in (1, 2):
        yield f"filter-{row_filter}", png(row_filter=row_filter)
    yield "stored", png(level=0)

    def gamma(value):
        return chunk(b"gAMA", struct.pack(">I", value))

    srgb = chunk(b"sRGB", b"\0")
    chromaticities = chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000))
    iccp = chunk(b"iCCP", b"profile\0\0" + zlib.compress(icc_profile()))
    colour_chunks = {
        "gamma-srgb": gamma(45455), "gamma-1": gamma(100000), "gamma-2.2": gamma(220000), "gamma-0": gamma(0), "srgb": srgb,
        "chrm": chromaticities, "iccp": iccp, "gamma-chrm": gamma(60000) + chromaticities, "srgb-gamma-chrm": srgb + gamma(45455) + chromaticities,
        "iccp-damaged": chunk(b"iCCP", b"profile\0\0" + zlib.compress(b"no profile" * 20)),
        "sbit": chunk(b"sBIT", bytes([5, 6, 5])), "background": chunk(b"bKGD", struct.pack(">3H", 255, 0, 0)),
        "resolution": chunk(b"pHYs", struct.pack(">2IB", 2, 1, 0)),
    }
    for name, chunks in colour_chunks.items():
        yield f"colour-{name}", png(between=chunks if name == "background" else b"", before=b"" if name == "background" else chunks)
    for kind, depth in ((GREY, 8), (GREY, 16), (PALETTE, 8), (RGB, 16), (RGBA, 8)):
        yield f"colour-gamma-{names[kind]}-{depth}", png(kind=kind, depth=depth, before=gamma(30000))
    yield "transparent-grey", png(kind=GREY, between=chunk(b"tRNS", struct.pack(">H", 120)))
    yield "transparent-grey-1", png(kind=GREY, depth=1, between=chunk(b"tRNS", struct.pack(">H", 1)))
    yield "transparent-grey-16", png(kind=GREY, depth=16, between=chunk(b"tRNS", struct.pack(">H", 1)))
    yield "transparent-rgb", png(between=chunk(b"tRNS", struct.pack(">3H", 120, 1, 2)))
    yield "transparent-rgb-16", png(depth=16, between=chunk(b"tRNS", struct.pack(">3H", 120, 1, 2)))
    for depth in DEPTHS[PALETTE]:
        yield f"transparent-palette-{depth}", png(kind=PALETTE, depth=depth, between=chunk(b"tRNS", b"\0\x80"))
    yield "text", png(before=chunk(b"tEXt", b"Comment\0x") + chunk(b"zTXt", b"a\0\0" + zlib.compress(b"b")), after=chunk(b"iTXt", b"c\0\0\0\0\0d"))
    exif = Image.Exif()
    exif[0x0112] = 6
    yield "exif-orientation", png(after=chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")))
    yield "animated", png(before=chunk(b"acTL", struct.pack(">2I", 1, 0)) + chunk(b"fcTL", struct.pack(">5I2H2B", 0, 23, 19, 0, 0, 1, 1, 0, 0)))
    yield "gamma-after-data", png(after=gamma(100000))
    yield "unknown-chunk", png(before=chunk(b"deEp", b"er"))
    yield "unknown-critical-chunk", png(before=chunk(b"DEEP", b"er"))
    yield "palette-of-rgb", png(before=palette(20))
    yield "palette-too-short", SIGNATURE + header(19, 23, PALETTE, 8) + palette(20) + chunk(b"IDAT", zlib.compress(
        scans(sample_values(19, 23, PALETTE, 8), 8))) + chunk(b"IEND")
    yield from irregular_png_files()


def irregular_png_files():
    packed = zlib.compress(scans(sample_values(19, 23, RGB, 8), 8))
    yield "data-in-bytes", png(data=[packed[i:i + 1] for i in range(len(packed))])
    yield "data-with-empty-pieces", png(data=[b"", packed[:10], b"", packed[10:], b""])
    yield "data-too-long", png(data=zlib.compress(scans(sample_values(21, 23, RGB, 8), 8)))
    yield "data-too-short", png(data=zlib.compress(scans(sample_values(17, 23, RGB, 8), 8)))
    yield "data-then-bytes", png(data=packed + b"more")
    yield "data-checksum", png(data=packed[:-1] + bytes([packed[-1] ^ 1]))
    yield "data-cut", png(data=packed[:-20])
    yield "crc-of-data", png(data=[packed]).replace(chunk(b"IDAT", packed), chunk(b"IDAT", packed, crc=1))
    yield "crc-of-text", png(before=chunk(b"tEXt", b"Comment\0x", crc=1))
    yield "crc-of-end", png(end=chunk(b"IEND", crc=1))
    yield "no-end", png(end=b"")
    yield "bytes-after-end", png() + b"more" * 100
    yield "two-files", png() + png(5, 5)
    yield "cut", png()[:-100]
    yield "no-palette", SIGNATURE + header(19, 23, PALETTE, 8) + chunk(b"IDAT", packed) + chunk(b"IEND")
    yield "no-rows", SIGNATURE + header(0, 23, RGB, 8) + chunk(b"IDAT", packed) + chunk(b"IEND")


# ---- JPEG

def jpeg(image=None, **options):
    out = io.BytesIO()
    Image.fromarray(photo(45, 61) if image is None else image).save(out, "JPEG", **{"quality": 90, **options})
    return out.getvalue()


def segment(marker, data):
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def segments(file):
    """(marker, data) of each segment of a header, and the rest from the first scan on."""
    found, at = [], 2
    while file[at + 1] != 0xDA:
        length = struct.unpack(">H", file[at + 2:at + 4])[0]
        found.append((file[at + 1], file[at + 4:at + 2 + length]))
        at += 2 + length
    return found, file[at:]


def changed(file, change):
    """change(marker, data): the bytes in place of that segment."""
    header, rest = segments(file)
    return file[:2] + b"".join(change(marker, data) for marker, data in header) + rest


def jpeg_files():
    for height, width in SIZES:
        yield f"size-{height}x{width}", jpeg(photo(height, width), subsampling="4:2:0")
        yield f"size-{height}x{width}-grey", jpeg(photo(height, width, 1)[..., 0])
    for quality in (1, 30, 100):
        yield f"quality-{quality}", jpeg(quality=quality)
    yield "optimized", jpeg(optimize=True)
    yield "profile", jpeg(icc_profile=icc_profile())
    yield "profile-damaged", jpeg(icc_profile=b"no profile" * 20)
    exif = Image.Exif()
    exif[0x0112] = 6
    yield "exif-orientation", jpeg(exif=exif)
    yield from irregular_jpeg_files()


def irregular_jpeg_files():
    plain = jpeg(subsampling="4:4:4")
    header, rest = segments(plain)
    scan_data = 2 + struct.unpack(">H", rest[2:4])[0]

    def with_app0(replacement):
        return changed(plain, lambda marker, data: replacement if marker == 0xE0 else segment(marker, data))

    def jfif(major, minor):
        return segment(0xE0, b"JFIF\0" + bytes([major, minor]) + bytes([0, 0, 1, 0, 1, 0, 0]))

    def adobe(transform):
        return segment(0xEE, b"Adobe" + struct.pack(">3HB", 100, 0, 0, transform))

    for major, minor in ((0, 0), (1, 9), (2, 1), (255, 255)):
        yield f"jfif-{major}.{minor}", with_app0(jfif(major, minor))
    yield "jfif-none", with_app0(b"")
    yield "jfif-short", with_app0(segment(0xE0, b"JFIF\0\1"))
    yield "jfif-twice", with_app0(jfif(1, 1) + jfif(0, 0))
    for transform in (0, 1, 2, 3):
        yield f"adobe-{transform}", with_app0(adobe(transform))
        yield f"jfif-adobe-{transform}", with_app0(jfif(1, 1) + adobe(transform))
    yield "adobe-short", with_app0(segment(0xEE, b"Adobe\0"))
    yield "adobe-0-of-grey", jpeg(photo(45, 61, 1)[..., 0])[:2] + adobe(0) + jpeg(photo(45, 61, 1)[..., 0])[2:]
    yield "segments-of-all-kinds", with_app0(b"".join(segment(marker, b"x" * 50) for marker in (*range(0xE0, 0xF0), 0xFE)))
    yield "segment-of-65533-bytes", with_app0(segment(0xFE, b"x" * 65533))
    yield "segment-with-markers", with_app0(segment(0xFE, b"\xff\xda\xff\xd9" * 5))
    yield "fill-bytes", changed(plain, lambda marker, data: b"\xff" * 9 + segment(marker, data))
    yield "bytes-between-segments", changed(plain, lambda marker, data: (b"" if marker == 0xE0 else b"\0\1\2") + segment(marker, data))
    yield "bytes-before-segments", changed(plain, lambda marker, data: b"\0\1\2" + segment(marker, data))
    yield "bytes-after-scan", plain[:-2] + b"\1\2\3" + plain[-2:]
    yield "zeros-after-scan", plain[:-2] + bytes(40) + plain[-2:]
    yield "fill-after-scan", plain[:-2] + b"\xff" * 9 + plain[-2:]
    yield "bytes-after-end", plain + b"more" * 100
    yield "zeros-after-end", plain + bytes(4096)
    yield "two-files", plain + jpeg(photo(8, 8))
    yield "no-end", plain[:-2]
    yield "cut", plain[:-200]
    yield "cut-in-header", plain[:300]
    yield "scan-of-coefficient-0", plain[:-len(rest)] + rest[:scan_data - 2] + b"\0" + rest[scan_data - 1:]
    wide = changed(plain, lambda marker, data: segment(marker, wide_quantization(data) if marker == 0xDB else data))
    yield "quantization-16-bit", wide.replace(b"\xff\xc0", b"\xff\xc1", 1)
    yield "extended-sequential", plain.replace(b"\xff\xc0", b"\xff\xc1", 1)
    yield "no-huffman-tables", changed(plain, lambda marker, data: b"" if marker == 0xC4 else segment(marker, data))
    frame = next(data for marker, data in header if marker == 0xC0)
    for name, other_frame in (("12-bit", b"\x0c" + frame[1:]), ("no-height", frame[:1] + b"\0\0" + frame[3:]),
                              ("2-components", frame[:5] + b"\2" + frame[6:])):
        yield name, plain.replace(frame, other_frame, 1)
    yield "lossless", plain.replace(b"\xff\xc0", b"\xff\xc3", 1)
    progressive = jpeg(progressive=True)
    second = progressive.index(b"\xff\xda", progressive.index(b"\xff\xda") + 2)
    third = progressive.index(b"\xff\xda", second + 2)
    yield "progressive-cut", progressive[:third] + b"\xff\xd9"
    yield "progressive-scan-twice", progressive[:third] + progressive[second:third] + progressive[third:]


def wide_quantization(tables):
    """DQT of 8-bit values as one of 16-bit values."""
    out = b""
    while tables:
        out += bytes([tables[0] | 0x10]) + b"".join(bytes([0, value]) for value in tables[1:65])
        tables = tables[65:]
    return out


# ---- WebP

def webp(image, **options):
    out = io.BytesIO()
    image.save(out, "WEBP", **options)
    return out.getvalue()


def webp_files():
    for height, width in SIZES:
        for lossless in False, True:
            yield f"{'lossless' if lossless else 'lossy'}-{height}x{width}", webp(Image.fromarray(photo(height, width)), lossless=lossless)
    picture = Image.fromarray(photo(33, 65))
    for quality in 1, 50, 100:
        yield f"quality-{quality}", webp(picture, quality=quality)
    with_alpha = Image.fromarray(photo(33, 65, 4))
    for lossless in False, True:
        yield f"alpha-{'lossless' if lossless else 'lossy'}", webp(with_alpha, lossless=lossless, exact=True)
    yield "grey", webp(picture.convert("L"))
    yield "palette", webp(picture.quantize(17), lossless=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    whole = webp(picture, exif=exif, icc_profile=profile)
    yield "exif-orientation", whole
    yield "more-behind", whole + b"\1\2\3"
    yield "cut", whole[:-40]
    yield "cut-in-header", whole[:20]
    yield "animated", webp(picture, save_all=True, append_images=[Image.fromarray(photo(33, 65)[::-1])])


# ---- Formats that deeper names and refuses

def other_files():
    picture = Image.fromarray(photo(9, 11))
    for kind in "gif", "bmp", "tiff":
        out = io.BytesIO()
        picture.save(out, kind)
        yield f"whole.{kind}", out.getvalue()
    yield "big-endian.tiff", b"MM\0*" + out.getvalue()[4:]
    for brand in b"avif", b"heic":
        yield f"header.{brand.decode()}", b"\0\0\0\x1cftyp" + brand + bytes(20)


def make(tool):
    """{name: content}"""
    files = {f"png-{name}.png": content for name, content in png_files()}
    files |= {f"jpeg-{name}.jpg": content for name, content in jpeg_files()}
    files |= {f"webp-{name}.webp": content for name, content in webp_files()}
    files |= {f"other-{name}": content for name, content in other_files()}
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run([tool, "write", directory], check=True)
        files |= {f"libjpeg-{path.name}": path.read_bytes() for path in pathlib.Path(directory).iterdir()}
    return files


if __name__ == "__main__":
    for name, content in make(sys.argv[1]).items():
        (pathlib.Path(sys.argv[2]) / name).write_bytes(content)
