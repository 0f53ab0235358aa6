#!/usr/bin/env python3
"""Draws elastic-sum.svg: the same binary tree of sums on one, two and four ranks."""

from svg import Arrow, Box, Text, write

W, H, SLICES = 960, 330, 8
KINDS = "blue", "amber", "green", "violet"


def tree(left, ranks):
    cell = 35
    parts = [Text(left + SLICES * cell / 2, 78, f"{ranks} rank" + ("s" if ranks > 1 else ""), 14, "ink", "middle", True)]
    xs = [left + (i + 0.5) * cell for i in range(SLICES)]
    owners = [i * ranks // SLICES for i in range(SLICES)]
    y = 250
    for i, x in enumerate(xs):
        parts.append(Box(x - 14, y, 28, 28, KINDS[owners[i]], [str(i)], 12, 4))
    while len(xs) > 1:
        new = [(xs[i] + xs[i + 1]) / 2 for i in range(0, len(xs), 2)]
        same = [owners[i] == owners[i + 1] for i in range(0, len(xs), 2)]
        for i, x in enumerate(xs):
            parts.append(Arrow((x, y), (new[i // 2], y - 24), head=False, dashed=not same[i // 2]))
        owners = [owners[i] if same[i // 2] else -1 for i in range(0, len(xs), 2)]
        owners = [owner if ok else -1 - i for i, (owner, ok) in enumerate(zip(owners, same))]
        y -= 52
        for i, x in enumerate(new):
            parts.append(Box(x - 14, y, 28, 28, KINDS[owners[i]] if owners[i] >= 0 else "grey", ["+"], 13, 14))
        xs = new
    return parts


parts = [Text(30, 38, "Gradients of 8 slices of a global batch, always added in the same tree", 17, bold=True)]
parts += tree(30, 1) + tree(340, 2) + tree(650, 4)
parts.append(Text(30, 312, "Colour: the rank that computes a slice or a sum. Grey and dashed: a sum between ranks.", 12, "soft"))
write(__file__, W, H, parts, "The sum of eight slices' gradients is the same binary tree on one, two and four ranks")
