#!/usr/bin/env python3
"""Draws throughput.svg: images/s of a training step of GoogLeNet. The figures are those of docs/benchmarks.md."""
from svg import Box, Text, write

# title, (program, value, least, most)
GROUPS = [
    ("fp32, EPYC with bf16 instructions: deeper is 2.03 times as fast",
     [("deeper", 54.1, 50.0, 54.4), ("PyTorch 2.15", 26.2, 25.8, 26.7)]),
    ("bf16, the same processor: 1.72 times as fast",
     [("deeper", 80.9, 78.3, 81.1), ("PyTorch + IPEX", 47.1, 46.3, 48.4)]),
    ("fp32, Xeon with AMX: 1.8 times as fast",
     [("deeper", 38.3, 37.6, 38.6), ("PyTorch 2.15", 21.2, 20.3, 22.1)]),
    ("bf16, Xeon with AMX, before the layout for it: PyTorch is 2.2 times as fast",
     [("deeper", 20.1, 19.2, 20.3), ("PyTorch 2.15", 43.8, 40.1, 44.8)]),
]
LEFT, SCALE, TOP, ROOM = 150, 8, 88, 94  # pixels: the axis, an image/s, the first group, a group


def line(*points, opacity=1.0):
    path = "M" + " L".join(f"{x:g} {y:g}" for x, y in points)
    return f'<path class="path" d="{path}" opacity="{opacity}"/>'


parts = [Text(30, 38, "Training GoogLeNet on 2 CPU cores", 17, bold=True),
         Text(30, 62, "images/s at batch 32, 224 px; more is better; the thin line is the spread of the runs", 13, "soft")]
bottom = TOP + ROOM * len(GROUPS)
for tick in range(0, 91, 10):
    x = LEFT + SCALE * tick
    parts += [line((x, TOP - 4), (x, bottom), opacity=0.2), Text(x, bottom + 18, str(tick), 12, "soft", "middle")]
for number, (title, bars) in enumerate(GROUPS):
    y = TOP + ROOM * number
    parts.append(Text(LEFT + 8, y + 18, title, bold=True))
    for bar, (program, value, least, most) in enumerate(bars):
        top, middle = y + 28 + 28 * bar, y + 38 + 28 * bar
        parts += [Text(LEFT - 12, middle + 5, program, anchor="end"),
                  Box(LEFT, top, SCALE * value, 20, "grey" if bar else "blue", radius=3),
                  line((LEFT + SCALE * least, middle), (LEFT + SCALE * most, middle))]
        parts += [line((LEFT + SCALE * end, middle - 5), (LEFT + SCALE * end, middle + 5)) for end in (least, most)]
        parts.append(Text(LEFT + SCALE * most + 10, middle + 5, f"{value:g}"))
write(__file__, 920, bottom + 36, parts, "Images per second of a training step of GoogLeNet: deeper and PyTorch")
