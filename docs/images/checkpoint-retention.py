#!/usr/bin/env python3
"""Draws checkpoint-retention.svg: which checkpoints --keep, --keep_every and the best top-1 keep."""
from svg import Arrow, Box, Text, write

STEPS = range(1000, 13000, 1000)
BEST, KEEP, EVERY = 7000, 3, 5000
CELL = 70


def kind(step):
    if step > STEPS[-1] - KEEP * 1000:
        return "blue", "newest"
    if step % EVERY == 0:
        return "green", "every"
    if step == BEST:
        return "amber", "best"
    return None, ""


parts = [Text(30, 38, "--checkpoint_every=1000 --keep=3 --keep_every=5000, after step 12,000", 16, bold=True)]
for i, step in enumerate(STEPS):
    x, (colour, _) = 30 + i * CELL, kind(step)
    if colour:
        parts.append(Box(x, 66, CELL - 10, 46, colour, [f"{step:,}"]))
    else:
        parts += [f'<rect x="{x}" y="66" width="{CELL - 10}" height="46" rx="6" class="path" stroke-dasharray="4 4"/>',
                  Text(x + (CELL - 10) / 2, 94, f"{step:,}", 13, "soft", "middle")]
parts.append(Arrow((30, 132), (30 + len(STEPS) * CELL - 10, 132)))
parts.append(Text(30 + len(STEPS) * CELL - 10, 152, "steps", 12, "soft", "end"))
for x, colour, text in ((30, "blue", "the 3 newest"), (180, "green", "steps that 5000 divides"), (395, "amber", "the best top-1")):
    parts += [Box(x, 176, 18, 18, colour, radius=3), Text(x + 28, 190, text)]
parts += ['<rect x="550" y="176" width="18" height="18" rx="3" class="path" stroke-dasharray="4 4"/>', Text(578, 190, "removed")]
write(__file__, 890, 220, parts, "Which checkpoints stay and which are removed")
