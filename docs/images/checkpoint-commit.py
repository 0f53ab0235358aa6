#!/usr/bin/env python3
"""Draws checkpoint-commit.svg: what is on disk while a checkpoint is saved, and what a crash leaves."""

from svg import Arrow, Box, Text, write

W, H = 960, 560
STEPS = [
    ("1  copy", "blue", "Training waits for a copy", "of the state in memory"),
    ("2  write", "amber", "Each rank hashes, writes", "and flushes its shard"),
    ("3  agree", "violet", "All ranks succeeded,", "or all give up"),
    ("4  manifest", "amber", "Rank 0 writes and", "flushes the manifest"),
    ("5  commit", "green", "Rank 0 renames the directory", "and flushes its parent"),
    ("6  retention", "grey", "Rank 0 reads it back, then", "removes old checkpoints"),
]
parts = [
    Text(30, 38, "Saving step 2000 in runs/a", 17, bold=True),
    Text(30, 78, "step", 12, "soft"),
    Text(356, 78, "on disk after it", 12, "soft"),
    Text(668, 78, "after a crash in this step, resume uses", 12, "soft"),
]
DISK = [
    ["step-000001000/  complete"],
    ["step-000001000/  complete", ".tmp-step-000002000/  shards"],
    ["step-000001000/  complete", ".tmp-step-000002000/  all shards"],
    ["step-000001000/  complete", ".tmp-step-000002000/  shards, manifest"],
    ["step-000001000/  complete", "step-000002000/  complete"],
    ["step-000002000/  complete"],
]
for number, (name, kind, first, second) in enumerate(STEPS):
    y = 92 + 68 * number
    parts += [Box(30, y, 306, 54, kind), Text(44, y + 22, name, 13, bold=True), Text(138, y + 22, first, 12), Text(138, y + 40, second, 12)]
    if number < len(STEPS) - 1:
        parts.append(Arrow((85, y + 54), (85, y + 67)))
    disk = DISK[number]
    for row, text in enumerate(disk):
        kind = "grey" if text.startswith(".tmp") else "green"
        top = y + 14 if len(disk) == 1 else y + 1 + 27 * row
        parts += [Box(356, top, 276, 25, kind, radius=4), Text(368, top + 17, text, 12)]
parts += [
    Arrow((644, 94), (653, 94), (653, 349), (644, 349), head=False),
    Text(668, 208, "step 1000", 14, bold=True),
    Text(668, 228, "The next start removes .tmp-*", 12, "soft"),
]
parts += [Text(668, 388, "step 1000 or step 2000", 14, bold=True), Text(668, 408, "The rename is atomic", 12, "soft")]
parts += [Text(668, 456, "step 2000", 14, bold=True), Text(668, 476, "What is removed becomes .tmp-* first", 12, "soft")]
parts += [Text(30, 532, "Step 1 stops training. Steps 2 to 6 run on a thread of their own, while training continues.", 13, "soft")]
write(__file__, W, H, parts, "The commit of a checkpoint: states on disk, and what a crash leaves")
