#!/usr/bin/env python3
"""Draws sample-order.svg: the order of samples over ranks, and after a resume on another number of ranks."""

import random

from svg import Arrow, Box, Text, write

SAMPLES, BATCH, CELL = 20, 8, 42
order = list(range(SAMPLES))
random.Random(4).shuffle(order)
KINDS = "blue", "amber", "green", "violet"


def rank_of(position, ranks):
    """As RankSlice of data/load/sample_order.cpp."""
    begin = position // BATCH * BATCH
    count = min(BATCH, SAMPLES - begin)
    return next(rank for rank in range(ranks) if begin + count * rank // ranks <= position < begin + count * (rank + 1) // ranks)


def row(y, ranks, first=0):
    parts = []
    for position in range(first, SAMPLES):
        x = left(position)
        parts.append(Box(x, y, CELL - 4, 34, KINDS[rank_of(position, ranks)], [str(order[position])], 12, 3))
    return parts


def left(position):
    return 30 + position * CELL + position // BATCH * 12


W, H = 960, 470
parts = [Text(30, 38, "One epoch of 20 samples, global batches of 8, order from (seed, epoch)", 17, bold=True)]
for batch in range(3):
    x, last = left(batch * BATCH), left(min(SAMPLES, batch * BATCH + BATCH) - 1) + CELL - 4
    parts += [
        Text((x + last) / 2, 76, f"batch {batch}" + (", the rest" if batch == 2 else ""), 13, "soft", "middle"),
        Arrow((x, 90), (x, 84), (last, 84), (last, 90), head=False),
    ]
parts += [Text(30, 124, "2 ranks", 14, bold=True), *row(136, 2)]
parts += [Text(30, 208, "4 ranks: the same batches, other shares", 14, bold=True), *row(220, 4)]
parts += [Text(30, 292, "2 ranks stop after batch 0; 4 ranks resume at batch 1", 14, bold=True), *row(304, 2)[:BATCH], *row(304, 4, BATCH)]
cut = left(BATCH) - 8
parts += [Arrow((cut, 303), (cut, 374), head=False, dashed=True), Text(cut, 392, "checkpoint: epoch 0, batch 1", 12, "soft", "middle")]
x = 30
for rank, kind in enumerate(KINDS):
    parts += [Box(x, 426, 16, 16, kind, radius=3), Text(x + 24, 439, f"rank {rank}", 12)]
    x += 100
parts += [Text(x + 10, 439, "The number in a box is a sample of the data set.", 12, "soft")]
write(__file__, W, H, parts, "The order of samples over two ranks, over four ranks, and when a run resumes on other ranks")
