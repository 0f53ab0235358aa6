#!/usr/bin/env python3
"""Draws gpu-step.svg: the predicted time of the launches of a step. The figures are those of
`deeper describe --model=googlenet --device=cuda --gpu=h200 --precision=bf16 --batch=256 --launches`, added by module and kind."""
from svg import Box, Text, write

KINDS = {
    "convolutions": "blue",
    "matrix products": "green",
    "pooled convolutions": "amber",
    "joins, with spread gradients of pools": "violet",
    "others": "grey",
}
# module: us of each kind, in the order of KINDS
FORWARD = {
    "conv1": (186.2, 0, 0, 0, 0), "conv2": (0, 47.8, 0, 0, 0), "conv3": (346.7, 0, 0, 0, 0), "pool2": (0, 0, 0, 0, 98.6),
    "3a": (96.7, 34.4, 67.5, 0, 0), "3b": (233.5, 57.8, 82.3, 0, 0), "pool3": (0, 0, 0, 0, 61.6), "4a": (39.0, 28.6, 35.4, 0, 0),
    "aux1": (0, 4.3, 0, 0, 21.2), "4b": (51.7, 29.7, 35.4, 0, 0), "4c": (65.3, 28.1, 35.4, 0, 0), "4d": (83.1, 28.9, 35.4, 0, 0),
    "aux2": (0, 4.4, 0, 0, 21.2), "4e": (110.4, 46.3, 41.7, 0, 0), "pool4": (0, 0, 0, 0, 26.7), "5a": (27.6, 18.3, 14.3, 0, 0),
    "5b": (40.0, 25.4, 14.3, 0, 0), "head": (0, 1.0, 0, 0, 18.0), "losses": (0, 0, 0, 0, 57.6),
}
BACKWARD = {
    "head": (0, 2.2, 0, 2.4, 9.8), "5b": (82.2, 56.5, 20.2, 17.9, 7.6), "5a": (59.9, 42.3, 20.2, 21.8, 7.1), "pool4": (0, 0, 0, 21.6, 0),
    "4e": (230.3, 107.9, 44.4, 26.7, 13.8), "aux2": (0, 9.2, 0, 7.2, 45.0), "4d": (173.1, 71.3, 28.1, 67.8, 13.0),
    "4c": (136.4, 69.7, 28.1, 53.8, 11.9), "4b": (108.8, 72.9, 28.1, 53.8, 10.5), "aux1": (0, 9.1, 0, 7.2, 44.0),
    "4a": (84.4, 69.9, 28.0, 65.7, 9.4), "pool3": (0, 0, 0, 49.8, 0), "3b": (498.5, 145.5, 52.9, 61.6, 10.2),
    "3a": (223.1, 89.7, 39.5, 107.5, 7.2), "pool2": (0, 0, 0, 79.7, 0), "conv3": (693.4, 0, 0, 98.6, 5.4),
    "conv2": (0, 95.6, 0, 71.7, 6.0), "conv1": (204.4, 0, 0, 0, 0), "update": (0, 0, 0, 0, 68.5),
}
LEFT, SCALE, HEIGHT = 30, 0.18, 40  # pixels: the axis, a us, a row


def row(name, modules, top):
    parts = [Text(LEFT, top - 26, f"{name}: {sum(map(sum, modules.values())) / 1000:.2f} ms", bold=True)]
    start = LEFT
    for module, times in modules.items():
        x = start
        for kind, us in zip(KINDS.values(), times, strict=True):
            if us > 0:
                parts.append(Box(x, top, SCALE * us, HEIGHT, kind, radius=0))
            x += SCALE * us
        if x - start > 6.4 * len(module):
            parts.append(Text((start + x) / 2, top - 6, module, 11, "soft", "middle"))
        parts.append(f'<path class="path" d="M{x:g} {top - 3} V{top + HEIGHT + 3}"/>')
        start = x
    return parts


parts = [Text(LEFT, 36, "A step of GoogLeNet on an H200, predicted", 17, bold=True),
         Text(LEFT, 60, "bf16, batch 256; launches one after the other, without 0.33 ms between kernels; never run on a GPU", 13, "soft"),
         *row("Forward", FORWARD, 122), *row("Backward and update", BACKWARD, 222)]
x = LEFT
for kind, colour in KINDS.items():
    parts += [Box(x, 290, 16, 16, colour, radius=3), Text(x + 22, 303, kind, 12)]
    x += 42 + 7 * len(kind)
parts += [f'<path class="path" d="M{LEFT} 336 h{SCALE * 1000:g} m0 -5 v10 M{LEFT} 331 v10"/>',
          Text(LEFT + SCALE * 1000 + 10, 340, "1 ms", 12, "soft")]
write(__file__, 920, 360, parts, "Predicted time of the launches of a training step of GoogLeNet on an H200, by module and kind")
