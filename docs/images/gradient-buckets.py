#!/usr/bin/env python3
"""Draws gradient-buckets.svg: pieces of the gradient arena, the buckets that they leave in, and the wait that remains."""

from svg import Arrow, Box, Text, write

W, H = 960, 420
# name, width in the arena, which bucket it leaves in.
PIECES = [("conv1", 60, 2), ("conv2", 80, 2), ("3a", 90, 2), ("3b", 110, 1), ("4a", 130, 1), ("5b", 170, 0), ("fc", 110, 0)]
KINDS = "violet", "green", "amber"
parts = [
    Text(30, 38, "Gradients of one rank: one arena, cut into buckets", 17, bold=True),
    Text(30, 76, "Gradient arena, in the order of the forward pass", 13, "soft"),
]
x, place = 30, {}
for name, width, bucket in PIECES:
    parts.append(Box(x, 88, width - 4, 44, KINDS[bucket], [name], 13, 3))
    place[name] = (x, width)
    x += width
parts += [Arrow((x - 4, 150), (30, 150)), Text(30, 172, "Backward finishes the pieces from the right to the left", 13, "soft")]
parts += [Text(30, 216, "Time", 13, "soft"), Arrow((70, 212), (930, 212))]
parts += [Text(30, 254, "compute", 13, "soft")]
x = 130
starts = {}
for name, width, bucket in reversed(PIECES):
    long = width * 0.76
    parts.append(Box(x, 230, long - 3, 38, "blue", [name], 12, 3))
    x += long
    starts[bucket] = x
finish = x
parts += [Text(30, 314, "network", 13, "soft")]
free = 0
for bucket in (0, 1, 2):
    first = max(starts[bucket], free)
    parts += [Arrow((starts[bucket] - 2, 268), (starts[bucket] - 2, 292)), Box(first, 294, 126, 38, KINDS[bucket], [f"all-reduce {bucket}"], 12, 3)]
    free = first + 130
parts += [Box(finish, 230, free - finish - 4, 38, "red", ["wait: Finish"], 12, 3), Box(free, 230, 92, 38, "grey", ["update"], 12, 3)]
parts += [
    Text(
        30,
        372,
        "A bucket leaves when all its pieces are ready and all earlier buckets have left. Every rank therefore sends in the same order.",
        13,
        "soft",
    ),
    Text(30, 394, "Only the part of the last all-reduce that backward does not cover costs time.", 13, "soft"),
]
write(__file__, W, H, parts, "Pieces of the gradient arena leave in buckets while the backward pass still runs")
