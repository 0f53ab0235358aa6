#!/usr/bin/env python3
"""Draws fused-inception.svg: the buffer of a fused Inception module, and its launches forward and backward."""

from svg import Arrow, Box, Text, write

W = 960
parts = [Text(30, 34, "One pixel of inception3a in memory: 384 channels, 768 bytes in bf16", 17, bold=True)]
SLICES = [
    ("", 16, "grey"),
    ("R2", 96, "blue"),
    ("R3", 16, "blue"),
    ("O1", 64, "green"),
    ("O2", 128, "green"),
    ("O3", 32, "green"),
    ("O4", 32, "green"),
]
x, begins = 30.0, {}
for name, channels, kind in SLICES:
    width = channels * 900 / 384
    begins[name] = x
    parts.append(Box(x, 84, width, 46, kind, [name, str(channels)] if name else ["pad", "16"], 12, 2))
    x += width


def bracket(left, right, y, text):
    return [
        Arrow((left + 2, y), (left + 2, y + 7), (right - 2, y + 7), (right - 2, y), head=False),
        Text((left + right) / 2, y + 24, text, 12, "soft", "middle"),
    ]


parts += bracket(begins["R2"], begins["O2"], 135, "one product of x writes these")
parts += bracket(begins["O2"], 930, 135, "each convolution writes its own slice")
parts += [
    Arrow((begins["O1"] + 2, 78), (begins["O1"] + 2, 71), (928, 71), (928, 78), head=False),
    Text((begins["O1"] + 930) / 2, 64, "the next layer reads O1 to O4", 12, "soft", "middle"),
]

# Forward.
parts += [Text(30, 206, "Forward: four launches, of which three run side by side", 17, bold=True)]
parts += [
    Box(30, 250, 70, 120, "grey", ["x"]),
    Arrow((100, 281), (138, 281)),
    Box(140, 254, 210, 54, "blue", ["1x1: x W + b, ReLU", "R2, R3 and O1 at once"]),
    Arrow((350, 272), (398, 252), (418, 252)),
    Box(420, 226, 190, 50, "violet", ["3x3: R2 to O2", "branch 0"]),
    Arrow((350, 290), (398, 310), (418, 310)),
    Box(420, 286, 190, 50, "violet", ["5x5: R3 to O3", "branch 1"]),
    Arrow((100, 371 - 10), (418, 371 - 10)),
    Box(420, 346, 250, 50, "amber", ["max pool 3x3 and 1x1: x to O4", "branch 2, beside all the others"]),
]
parts += [
    Arrow((610, 251), (758, 251)),
    Arrow((610, 311), (758, 311)),
    Arrow((670, 371), (758, 371)),
    Box(760, 226, 170, 170, "green", ["The buffer", "R2 R3 O1 O2 O3 O4,", "nothing is copied"]),
]

# Backward.
parts += [Text(30, 446, "Backward", 17, bold=True), Text(142, 446, "G holds dR2, dR3 and dO1 of each pixel, one behind the other", 13, "soft")]
parts += [
    Box(30, 476, 70, 180, "grey", ["dy", "in parts"]),
    Arrow((100, 566), (128, 566)),
    Box(130, 512, 150, 108, "amber", ["Join", "adds the parts,", "spreads the pool's,", "masks, sums biases"]),
]
parts += [
    Arrow((280, 540), (306, 501), (328, 501)),
    Box(330, 476, 230, 50, "amber", ["3x3 gradient, masked", "dO2 to dR2 in G, branch 0"]),
    Arrow((280, 561), (328, 561)),
    Box(330, 536, 230, 50, "amber", ["5x5 gradient, masked", "dO3 to dR3 in G, branch 1"]),
    Arrow((280, 590), (306, 631), (328, 631)),
    Box(330, 596, 104, 60, "amber", ["dW4", "pools x again"]),
    Box(444, 596, 116, 60, "blue", ["dP = dO4 W4", "to x's maker"]),
]
parts += [
    Arrow((560, 501), (588, 501)),
    Arrow((560, 561), (588, 561)),
    Arrow((560, 626), (588, 626)),
    Box(590, 476, 60, 180, "grey", ["G is", "done"]),
    Arrow((650, 501), (678, 501)),
    Box(680, 476, 250, 50, "blue", ["dx = G W", "branch 0"]),
    Arrow((650, 561), (678, 561)),
    Box(680, 536, 250, 50, "blue", ["dW of the three 1x1s, dW3", "branch 1"]),
    Arrow((650, 626), (678, 626)),
    Box(680, 601, 250, 50, "blue", ["dW2", "branch 2"]),
]
# Key.
for x, kind, text in (
    (30, "blue", "cuDNN or cuBLASLt"),
    (200, "amber", "a kernel of deeper"),
    (370, "violet", "the faster of the two, as timed by the tuner"),
):
    parts += [Box(x, 682, 18, 16, kind, radius=3), Text(x + 26, 695, text, 12)]
write(__file__, W, 722, parts, "The buffer of a fused Inception module and its launches, forward and backward")
