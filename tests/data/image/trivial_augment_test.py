#!/usr/bin/env python3
"""Compares every operation of TrivialAugment, at every strength, with Pillow, pixel by pixel.

trivial_augment_test.py TOOL: trivial_augment_tool
"""
import math
import subprocess
import sys
import unittest

import numpy
from PIL import Image, ImageEnhance, ImageOps

TOOL = sys.argv[1]
STRENGTHS = 31


def moved(image, *matrix):
    return image.transform(image.size, Image.AFFINE, matrix, Image.NEAREST)


def enhanced(kind):
    return lambda image, change: kind(image).enhance(1 + change)


# As in torchvision's TrivialAugmentWide and its functions on Pillow images: name, largest magnitude, change of an image.
SIGNED = [
    ("shear x", 0.99, lambda image, slope: moved(image, 1, math.tan(math.atan(slope)), 0, 0, 1, 0)),
    ("shear y", 0.99, lambda image, slope: moved(image, 1, 0, 0, math.tan(math.atan(slope)), 1, 0)),
    ("translate x", 32, lambda image, pixels: moved(image, 1, 0, -int(pixels), 0, 1, 0)),
    ("translate y", 32, lambda image, pixels: moved(image, 1, 0, 0, 0, 1, -int(pixels))),
    ("rotate", 135, lambda image, degrees: image.rotate(degrees, Image.NEAREST)),
    ("brightness", 0.99, enhanced(ImageEnhance.Brightness)),
    ("color", 0.99, enhanced(ImageEnhance.Color)),
    ("contrast", 0.99, enhanced(ImageEnhance.Contrast)),
    ("sharpness", 0.99, enhanced(ImageEnhance.Sharpness)),
]


def expected(image):
    """(name, changed image) in the tool's order."""
    for _ in range(2 * STRENGTHS):
        yield "identity", image
    for name, largest, change in SIGNED:
        for magnitude in numpy.linspace(0, largest, STRENGTHS):
            for sign in 1, -1:
                yield f"{name} {sign * magnitude:.3f}", change(image, sign * float(magnitude))
    for i in range(STRENGTHS):
        bits = int(8 - numpy.round(i / ((STRENGTHS - 1) / 6)))
        yield from 2 * [(f"posterize {bits}", ImageOps.posterize(image, bits))]
    for threshold in numpy.linspace(255, 0, STRENGTHS):
        yield from 2 * [(f"solarize {threshold}", ImageOps.solarize(image, threshold))]
    for name, change in ("autocontrast", ImageOps.autocontrast), ("equalize", ImageOps.equalize):
        for _ in range(2 * STRENGTHS):
            yield name, change(image)


class Operations(unittest.TestCase):
    def check(self, pixels):
        shape = (*pixels.shape, 1)[:3]
        made = subprocess.run([TOOL, *map(str, shape)], input=pixels.tobytes(), capture_output=True, check=True).stdout
        results = numpy.frombuffer(made, numpy.uint8).reshape(-1, *pixels.shape)
        wanted = list(expected(Image.fromarray(pixels)))
        self.assertEqual(len(results), len(wanted))
        for (name, image), result in zip(wanted, results):
            numpy.testing.assert_array_equal(result, numpy.asarray(image), err_msg=f"{name} of {pixels.shape}")

    def test_images(self):
        random = numpy.random.default_rng(3)
        for shape in (28, 28), (45, 61), (32, 32, 3), (61, 45, 3), (2, 3, 3), (1, 1):
            noise = random.integers(0, 256, shape, numpy.uint8)
            slopes = (numpy.indices(shape).sum(axis=0) * 3 + 20).astype(numpy.uint8)
            for pixels in noise, slopes, noise // 4 + 70, numpy.where(noise > 99, slopes, 0).astype(numpy.uint8), numpy.full(shape, 77, numpy.uint8):
                self.check(pixels)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]])
