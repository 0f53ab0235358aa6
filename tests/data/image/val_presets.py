#!/usr/bin/python3
"""Writes val_presets.json: some pixels of images that Pillow prepared with the validation presets, for augment_test.cpp.

    tests/data/image/val_presets.py > tests/data/image/val_presets.json        # python3-pil
"""
import json

from PIL import Image

SIZE, STEP = 224, 19


def noisy_image(height, width, channels=3):
    """NoisyImage of test_images.h, seed 0."""
    state, pixels = 1, bytearray()
    for y in range(height):
        for x in range(width):
            for c in range(channels):
                state = (state * 1664525 + 1013904223) % 2**32
                pixels.append(((x * 3 + y * 2 + c * 60) % 200 + 20 + (state >> 25)) // 2)
    return Image.frombytes("RGB", (width, height), bytes(pixels))


def middle(image):
    """torchvision's CenterCrop."""
    left, top = (int(round((extent - SIZE) / 2.0)) for extent in image.size)
    return image.crop((left, top, left + SIZE, top + SIZE))


def torchvision(image):
    """torchvision's Resize(256) of a Pillow image, then CenterCrop(224)."""
    width, height = image.size
    short, long = min(image.size), max(image.size)
    resized = int(256 * long / short)
    return middle(image.resize((256, resized) if width <= height else (resized, 256), Image.BILINEAR))


def bvlc(image):
    """Uses two taps per axis: transform() does not widen them, unlike resize()."""
    width, height = image.size
    return middle(image.transform((256, 256), Image.AFFINE, (width / 256, 0, 0, 0, height / 256, 0), Image.BILINEAR))


def cases():
    for height, width in ((375, 500), (500, 333), (301, 299), (120, 90), (640, 1200)):
        image = noisy_image(height, width)
        for preset in (torchvision, bvlc):
            crop = preset(image)
            values = [v for y in range(0, SIZE, STEP) for x in range(0, SIZE, STEP) for v in crop.getpixel((x, y))]
            yield {"preset": preset.__name__, "height": height, "width": width, "values": values}


print(json.dumps({"size": SIZE, "step": STEP, "cases": list(cases())}))
