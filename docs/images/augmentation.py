#!/usr/bin/env python3
"""Draws augmentation.svg: the part of a photograph that --augment and --val_preset use."""
from svg import Text, write

W, H = 180, 135  # a photograph of 4:3
SIDE = H * 7 / 8  # of a crop, in its pixels: the network's size, where the short side is 8/7 of that


def outline(x, y, width, height, dashed):
    dash = ' stroke-dasharray="6 4"' if dashed else ""
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" fill="none" stroke="#4a7fd6" stroke-width="3"{dash}/>'


def photograph(x, y):
    """Hills and a sun."""
    hills = f"M{x} {y + H}V{y + 95}L{x + 50} {y + 52}L{x + 95} {y + 100}L{x + 125} {y + 75}L{x + W} {y + 112}V{y + H}z"
    return [f'<rect class="blue" x="{x}" y="{y}" width="{W}" height="{H}"/>', f'<circle class="amber" cx="{x + 138}" cy="{y + 34}" r="15"/>',
            f'<path class="green" d="{hills}"/>']


def panel(column, row, title, notes, windows):
    x, y = 40 + column * 250, 60 + row * 240
    return [Text(x + W / 2, y - 18, title, 14, anchor="middle", bold=True), *photograph(x, y),
            *[outline(x + a, y + b, width, height, number == 1) for number, (a, b, width, height) in enumerate(windows)],
            *[Text(x + W / 2, y + H + 26 + 18 * line, note, 12, "soft", "middle") for line, note in enumerate(notes)]]


parts = [
    *panel(0, 0, "--augment=none, flip", ["the whole image;", "flip mirrors half of the images"], [(0, 0, W, H)]),
    *panel(1, 0, "--augment=crop", ["a square of 7/8 of the short side,", "at a random place"], [(8, 4, SIDE, SIDE), (58, 15, SIDE, SIDE)]),
    *panel(2, 0, "--augment=inception", ["8 to 100 % of the area,", "aspect ratio 3/4 to 4/3"], [(14, 26, 112, 100), (118, 10, 44, 56)]),
    *panel(0, 1, "--val_preset=none", ["the whole image"], [(0, 0, W, H)]),
    *panel(1, 1, "--val_preset=torchvision", ["the centre: a square of 7/8", "of the short side"], [((W - SIDE) / 2, (H - SIDE) / 2, SIDE, SIDE)]),
    *panel(2, 1, "--val_preset=bvlc", ["the centre: 7/8 of the width", "and 7/8 of the height"], [(W / 16, H / 16, W * 7 / 8, H * 7 / 8)]),
]
write(__file__, 760, 510, parts, "The part of a photograph that each option uses")
