#!/usr/bin/env python3
"""Draws tensor-core-tile.svg: a tile of the tensor core convolutions, and the pipeline that computes it on compute capability 9.0."""

from svg import Arrow, Box, Text, write

parts = [
    Text(30, 38, "One tile of the output", 17, bold=True),
    Text(30, 62, "A block of threads computes 128 pixels by 16 to 224 columns. A step adds the products of 64 channels,", 13, "soft"),
    Text(30, 80, "of one tap (as here) or of a row of taps.", 13, "soft"),
]
# The product.
parts += [
    Box(350, 92, 300, 64, "amber", ["Weights of the step", "64 channels x columns"]),
    Box(60, 180, 190, 130, "blue", ["Pixels of the step", "128 pixels x 64 channels,", "shifted by the tap,", "zeros outside the image"]),
    Box(350, 180, 300, 130, "green", ["Tile", "128 pixels x columns", "fp32 sums in registers"]),
    Arrow((250, 245), (348, 245)),
    Arrow((500, 156), (500, 178)),
    Arrow((650, 245), (702, 245)),
    Box(704, 180, 226, 130, "violet", ["Epilogue", "bias and ReLU, or mask and", "sums per channel;", "rounds to bf16 and stores"]),
]
# Steps.
parts += [Text(30, 352, "Steps of a 3x3 convolution that reads 128 channels", 17, bold=True)]
for tap in range(9):
    for half in range(2):
        parts.append(Box(60 + 96 * tap + 44 * half, 384, 42, 30, "blue" if half else "grey", ["64-127" if half else "0-63"], 10, 3))
    parts.append(Text(60 + 96 * tap + 43, 376, f"tap {tap}", 12, "soft", "middle"))
parts.append(Text(60, 434, "channels of each step; 18 steps in all", 12, "soft"))
# Pipeline.
parts += [Text(30, 476, "The pipeline on compute capability 9.0, with 3 stages (128 columns)", 17, bold=True)]
LEFT, STEP = 200, 104
for row, (name, note) in enumerate((("1 lane loads (TMA)", "fills a stage"), ("2 warpgroups multiply", "wgmma, 64 pixels each"))):
    y = 506 + 64 * row
    parts += [Text(30, y + 19, name), Text(30, y + 36, note, 12, "soft")]
for step in range(6):
    x = LEFT + (STEP * step if step < 3 else STEP * step + 30)
    parts.append(Box(x, 506, STEP - 12, 44, "amber", [f"step {step}", f"stage {step % 3}"], 12, 4))
for step in range(5):
    x = LEFT + STEP * (step + 1) + 30
    parts.append(Box(x, 570, STEP - 12, 44, "green", [f"step {step}", f"stage {step % 3}"], 12, 4))
for line, text in enumerate(
    (
        "Each stage has two barriers. full: all its bytes have arrived. empty: all 8 warps have read it.",
        "The loading lane waits for empty before it fills a stage again, so step 3 waits for step 0.",
        "The warpgroups wait for full. Times are not to scale.",
    )
):
    parts.append(Text(30, 646 + 20 * line, text, 13, "soft"))
write(__file__, 960, 710, parts, "A tile of a tensor core convolution and the pipeline that computes it")
