#!/usr/bin/env python3
"""Draws memory-plan.svg: buffers of a small network, placed in one arena by the rule of trainer/engine/memory_plan.cpp."""

from svg import Arrow, Box, Text, write

# Five layers; each: name, size of its output, whether its backward pass reads its input. Time runs as in Network::PlanBuffers.
LAYERS = [("conv1", 6, True), ("pool1", 3, False), ("conv2", 4, True), ("pool2", 2, False), ("fc", 1, True)]
T = len(LAYERS)


def lifetimes():
    """(name, kind, size, first, last) of the output and of the output's gradient of each layer."""
    buffers = []
    for i, (name, size, _) in enumerate(LAYERS):
        last = max([i] + ([i + 1] if i + 1 < T else [T]) + ([2 * T - i - 1] if i + 1 < T and LAYERS[i + 1][2] else []))
        buffers.append((f"{name} y", "blue", size, i, last))
        buffers.append((f"{name} dy", "amber", size, T if i + 1 == T else 2 * T - i - 1, 2 * T - i))
    return buffers


def place(buffers):
    """Largest first, each at the lowest gap that is free for all of its life."""
    offsets, placed = {}, []
    for buffer in sorted(buffers, key=lambda b: -b[2]):
        offset = 0
        for other in sorted(placed, key=lambda b: offsets[b]):
            if buffer[3] <= other[4] and other[3] <= buffer[4]:
                if offset + buffer[2] <= offsets[other]:
                    break
                offset = max(offset, offsets[other] + other[2])
        offsets[buffer] = offset
        placed.append(buffer)
    return offsets


W, H, X, CELL, UNIT = 960, 470, 150, 70, 26
offsets = place(lifetimes())
top = max(offset + buffer[2] for buffer, offset in offsets.items())
floor = 90 + top * UNIT
parts = [Text(30, 38, "One arena for the activations and gradients of a small network", 17, bold=True), Text(30, 70, "address", 12, "soft")]
for (name, kind, size, first, last), offset in offsets.items():
    parts.append(Box(X + first * CELL + 1, floor - (offset + size) * UNIT + 1, (last - first + 1) * CELL - 2, size * UNIT - 2, kind, [name], 12, 3))
parts += [Arrow((X - 8, floor), (X - 8, 76)), Arrow((X - 8, floor + 6), (W - 26, floor + 6))]
for time in range(2 * T + 1):
    label = LAYERS[time][0] if time < T else "loss" if time == T else LAYERS[2 * T - time][0]
    parts.append(Text(X + time * CELL + CELL / 2, floor + 26, label, 12, "ink", "middle"))
parts += [
    Text(X + T * CELL / 2, floor + 48, "forward", 12, "soft", "middle"),
    Text(X + (T + 1) * CELL + T * CELL / 2, floor + 48, "backward", 12, "soft", "middle"),
]
total = sum(size for _, _, size, _, _ in lifetimes())
parts.append(
    Text(
        30,
        floor + 84,
        f"y: output of a layer. dy: gradient of that output. Side by side they would take {total} units; the plan takes {top}.",
        12,
        "soft",
    )
)
write(__file__, W, floor + 108, parts, "Buffers of a small network over time, placed in one arena")
