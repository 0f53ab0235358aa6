#!/usr/bin/env python3
"""Draws weight-gradient.svg: a stage and a tile of the weight gradient of a 3x3 convolution on compute capability 9.0."""

from svg import Arrow, Box, Text, write

parts = [
    Text(30, 38, "A step of the weight gradient", 17, bold=True),
    Text(30, 62, "A stage holds 128 places of dy, and of x two more. A tap of x starts one place further down.", 13, "soft"),
]
TOP, ROW = 108, 22
PLACES = ["0", "1", "2", "...", "126", "127", "128", "129"]
parts += [Text(120, TOP - 10, "dy, 64 filters", 12, "soft", "middle"), Text(320, TOP - 10, "x, up to 128 channels", 12, "soft", "middle")]
for i, place in enumerate(PLACES):
    y = TOP + ROW * i
    if i < 6:
        parts.append(Box(60, y, 120, ROW, "violet", [place], 11, 0))
    parts.append(Box(250, y, 140, ROW, "blue", [place], 11, 0))
# The places of each tap.
for tap in range(3):
    x, y = 408 + 40 * tap, TOP + ROW * tap
    parts += [Box(x, y, 30, 6 * ROW, "amber", [], 11, 3), Text(x + 15, TOP + ROW * 8 + 20, f"tap {tap}", 12, "soft", "middle")]
parts += [
    Text(30, TOP + ROW * 6 + 20, "One warpgroup multiplies", 12, "soft"),
    Text(30, TOP + ROW * 6 + 36, "the first 64 places, the", 12, "soft"),
    Text(30, TOP + ROW * 6 + 52, "other one the last 64.", 12, "soft"),
]
# The tile.
for tap in range(3):
    parts.append(Box(590 + 115 * tap, TOP + 22, 113, 88, "green", [f"tap {tap}", "64 filters x", "channels"], 12, 2))
parts += [
    Text(762, TOP + 12, "Tile: sums in registers of both warpgroups", 12, "soft", "middle"),
    Arrow((524, TOP + 66), (586, TOP + 66)),
    Arrow((762, TOP + 110), (762, TOP + 146)),
    Box(590, TOP + 148, 343, 44, "grey", ["The second warpgroup hands over its sums", "a second kernel adds the sums of all blocks"], 12, 4),
]
# The places.
parts += [Text(30, 346, "Places of a map of 7 columns", 17, bold=True)]
for row in range(2):
    for column in range(8):
        zero = column == 7
        number = row * 8 + column
        for y, kind, name in ((372, "violet", "dy"), (412, "blue", "x")):
            pad = column == 0 if name == "x" else zero
            parts.append(Box(60 + 54 * number, y, 52, 30, "grey" if pad else kind, ["0" if pad else f"{row},{column - (name == 'x')}"], 11, 2))
parts += [
    Text(30, 391, "dy", 13),
    Text(30, 431, "x", 13),
    Text(60, 466, "Row and column of the pixel; 0: zeros, which TMA adds. x is that of tap 0 of the middle row. Tap 1 starts one place", 12, "soft"),
    Text(60, 482, "further, where dy of a pixel meets x of the same pixel. Where a shift crosses the end of a row, dy or x is zero.", 12, "soft"),
]
write(__file__, 960, 506, parts, "A stage and a tile of the weight gradient of a 3x3 convolution")
