#!/usr/bin/env python3
"""Faults that are put into conv_pipeline.h one at a time. The model of the pipelines (pipeline_model.cpp, copy_model.h) must name each.

    pipeline_mutants.py COMPILER [NAME...]

COMPILER is a C++ compiler for the host. The tree stays as it is. Exit status 0: every mutant was found, with the message that is
expected of it, and the present file has no fault.
"""

import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[4]
HEADER = "kernels/cuda/tensor_core/conv_pipeline.h"
MODEL = "tests/kernels/cuda/tensor_core/pipeline_model.cpp"
PROGRAM = "tests/kernels/cuda/tensor_core/pipeline_check.cpp"
TIME_LIMIT = 120  # seconds, of one mutant


class Mutant(NamedTuple):
    old: str
    new: str
    message: str  # a regular expression
    also: tuple = ()  # pairs of other places and their texts


TOO_MANY = "more arrivals at .full. of stage 0 than its phase has"
OVERWRITTEN = r"is filled with step \d+ (while a warp may still read it|before all warps have read step)"
WAIT_EMPTY = "    machine.Wait(at.Empty(turn.stage), 1 - turn.parity);\n"
RELEASE = "    if (machine.IsLeader() && previous >= 0) machine.Arrive(at.Empty(previous));\n"
LOADS = "    load(at.Stage(turn.stage), full);\n"

MUTANTS = {
    # sm_90
    "no stage is released": Mutant(RELEASE, "", "deadlock: the lane that loads waits for .empty. of stage 0"),
    "the lane that loads waits for the wrong parity": Mutant("turn.stage), 1 - turn.parity", "turn.stage), turn.parity", "deadlock"),
    "warps wait for the wrong parity": Mutant(
        "machine.Wait(at.Full(turn.stage), turn.parity);",
        "machine.Wait(at.Full(turn.stage), 1 - turn.parity);",
        r"multiplies stage 0 before (it is filled|its bytes have arrived)",
    ),
    "a barrier expects too few bytes": Mutant(
        "machine.ArriveAndExpect(full, kBytes);", "machine.ArriveAndExpect(full, kBytes - 128);", r"expects \d+ bytes, but its copies bring"
    ),
    "a barrier expects too many bytes": Mutant(
        "machine.ArriveAndExpect(full, kBytes);", "machine.ArriveAndExpect(full, kBytes + 128);", r"expects \d+ bytes, but its copies bring"
    ),
    "a barrier does not expect the zeros below the tile": Mutant(
        "kBytes = StepPixels(kAcross) * kRowBytes", "kBytes = kTilePixels * kRowBytes", r"expects \d+ bytes, but its copies bring"
    ),
    "one arrival releases too early": Mutant("at.Empty(stage), kMultiplyWarps)", "at.Empty(stage), kMultiplyWarps - 1)", OVERWRITTEN),
    "a release needs one arrival too many": Mutant("at.Empty(stage), kMultiplyWarps)", "at.Empty(stage), kMultiplyWarps + 1)", "deadlock"),
    "a full stage needs two arrivals": Mutant("machine.InitBarrier(at.Full(stage), 1);", "machine.InitBarrier(at.Full(stage), 2);", "deadlock"),
    "every lane of a warp arrives": Mutant("machine.IsLeader() && previous", "previous", "more than one lane of a warp arrives"),
    "the lane that loads does not wait": Mutant(WAIT_EMPTY, "", TOO_MANY),
    "the wait follows the copies": Mutant(LOADS, LOADS + WAIT_EMPTY, TOO_MANY, ((WAIT_EMPTY, ""),)),
    "a stage is released one step too early": Mutant("template WaitForMultiply<1>", "template WaitForMultiply<2>", OVERWRITTEN),
    "the stage that is being read is released": Mutant(RELEASE, "    if (machine.IsLeader()) machine.Arrive(at.Empty(turn.stage));\n", OVERWRITTEN),
    "a release precedes the wait for the products": Mutant(
        "    machine.template WaitForMultiply<1>();\n" + RELEASE, RELEASE + "    machine.template WaitForMultiply<1>();\n", OVERWRITTEN
    ),
    "the next stage is released": Mutant(
        "machine.Arrive(at.Empty(previous))", "machine.Arrive(at.Empty((previous + 1) % 2))", "deadlock"
    ),
    "the stage does not wrap": Mutant("if (++stage < kStages) return;", "if (++stage <= kStages) return;", "an operation on what is no barrier"),
    "the parity does not change": Mutant("    parity ^= 1;\n", "", TOO_MANY),
    "products start before the wait": Mutant(
        "    machine.Wait(at.Full(turn.stage), turn.parity);\n", "", r"multiplies stage 0 before (it is filled|its bytes have arrived)"
    ),
    "the last products are not awaited": Mutant("  machine.template WaitForMultiply<0>();\n", "", "a thread ends while its products run"),
    "a step is not multiplied": Mutant(
        "  int previous = -1;\n  for (int left = steps; left > 0; --left) {",
        "  int previous = -1;\n  for (int left = steps; left > 1; --left) {",
        "the block ends while copies are under way",
    ),
    "weights arrive at the wrong barrier": Mutant(
        "step, tap, i), full);", "step, tap, i), at.Empty(0));", r"expects \d+ bytes, but its copies bring"
    ),
    "taps overwrite each other": Mutant("kAcross, kColumns, tap, i),\n", "kAcross, kColumns, 0, i),\n", "copies overlap in step 0"),
    "the weights of a step are those of the first": Mutant(
        "WeightBoxOf(g, tile, step, tap, i)", "WeightBoxOf(g, tile, FirstStep(g), tap, i)", r"expects \d+ bytes, but its copies bring"
    ),
    "barriers are not published": Mutant("  machine.PublishBarriers();\n", "", "they are not published"),
    "a barrier is missing": Mutant("at.Empty(stage), kMultiplyWarps);", "at.Empty(0), kMultiplyWarps);", "two barriers overlap"),
    "barriers lie in a stage": Mutant(
        "return base + kStages * kStageBytes + stage *", "return base + (kStages - 1) * kStageBytes + stage *", "a barrier is in other memory"
    ),
    "a product without a fence": Mutant("  machine.BeginMultiply();\n  DEEPER_UNROLL", "  DEEPER_UNROLL", "a product without a fence"),
    # sm_90, gradients of weights
    "a gradient does not expect the places of its taps": Mutant(
        "StepPixels(kDwTaps) * kRowBytes;", "kTilePixels * kRowBytes;", r"expects \d+ bytes, but its copies bring"
    ),
    "boxes of x overlap": Mutant("DwBoxOffset(i)", "DwBoxOffset(0)", "copies overlap in step 0"),
    "x overlaps dy": Mutant("DwBoxOffset(i)", "DwBoxOffset(i) - kSwizzleBytes", "copies overlap in step 0"),
    "dy arrives at the wrong barrier": Mutant(
        "DyBoxOf(tile, first), full);", "DyBoxOf(tile, first), at.Empty(0));", r"expects \d+ bytes, but its copies bring"
    ),
    "all steps have the first places": Mutant("    place += kTilePixels;\n", "", "step 1 multiplies stage 1, which has step 0"),
    "a product of a gradient without a fence": Mutant(
        "    machine.BeginMultiply();\n    DEEPER_UNROLL", "    DEEPER_UNROLL", "a product without a fence"
    ),
    "a gradient has a step too many": Mutant("MultiplyRing(tile.steps,", "MultiplyRing(tile.steps + 1,", "deadlock: a warp waits for .full."),
    # sm_80
    "a thread does not wait for its copies": Mutant(
        "template WaitForCopies<kStages - 2>", "template WaitForCopies<kStages - 1>", "step 0 multiplies stage 0 before its copies have arrived"
    ),
    "threads do not wait for each other": Mutant(
        "machine.Synchronize();  // copies of all threads;", "//", "step 0 multiplies stage 0 before the copies of all threads have arrived"
    ),
    "a stage is filled before the threads have met": Mutant(
        "    machine.template WaitForCopies<kStages - 2>();",
        "    machine.template WaitForCopies<kStages - 2>();\n    copy(step + kStages - 1);",
        "stage 0 is filled with step 3 while a thread may still read it",
        (("    copy(step + kStages - 1);\n", ""),),
    ),
    "there is no empty group after the last step": Mutant(
        "if (step < steps) machine.Copy(step, step % kStages);\n    machine.CommitCopies();",
        "if (step < steps) {\n      machine.Copy(step, step % kStages);\n      machine.CommitCopies();\n    }",
        "step 7 multiplies stage 1 before its copies have arrived",
    ),
    "a step is copied too early": Mutant("copy(step + kStages - 1);", "copy(step + kStages);", "is filled with step 3 before step 0 is read"),
    "another stage is multiplied": Mutant("machine.Multiply(step, step % kStages);", "machine.Multiply(step, (step + 1) % kStages);", "has step"),
    "bands are multiplied before the wait": Mutant(
        "      machine.template WaitForCopies<0>();", "", "step 0 multiplies stage 0 before its copies have arrived"
    ),
    "threads do not wait for each other's halves": Mutant(
        "machine.Synchronize();                // of all", "// of all", "step 0 multiplies stage 0 before the copies of all threads have arrived"
    ),
    "threads wait for each other too early": Mutant(
        "    if (half == 0) {\n      machine.template WaitForCopies<0>();",
        "    if (half == 0) {\n      machine.Synchronize();\n      machine.template WaitForCopies<0>();",
        "step 0 multiplies stage 0 before the copies of all threads have arrived",
        (("machine.Synchronize();                // of all", "// of all"),),
    ),
    "a half is not spread": Mutant(
        "if (band < bands) machine.Spread", "if (band < bands && half == 0) machine.Spread", "step 0 multiplies stage 0 before all of it is spread"
    ),
    "a band is spread to the stage that is read": Mutant(
        "machine.Spread(band, band % kBandStages, half)",
        "machine.Spread(band, (band + 1) % kBandStages, half)",
        "step 0 is spread to stage 1, which has step -1",
    ),
    "the last band is not multiplied": Mutant("i < 2 * (bands + 1)", "i < 2 * bands", "the loop ends while copies are under way"),
    "the stage of a copy does not wrap": Mutant("machine.Copy(step, step % kStages);", "machine.Copy(step, step);", "an access outside the stages"),
}


def compile_files(compiler, directories, *arguments):
    include = [f"-I{directory}" for directory in directories]
    subprocess.run([compiler, "-std=c++20", "-O0", "-w", *include, *map(str, arguments)], check=True)


def finding(compiler, model, mutant):
    """(exit status, output) of the model with the fault in it."""
    source = (ROOT / HEADER).read_text()
    for old, new in (*mutant.also, (mutant.old, mutant.new)) if mutant else ():
        assert source.count(old) == 1, f"{HEADER} has {source.count(old)} places like this:\n{old}"
        source = source.replace(old, new)
    with tempfile.TemporaryDirectory() as directory:
        header = pathlib.Path(directory, HEADER)
        header.parent.mkdir(parents=True)
        header.write_text(source)
        program = pathlib.Path(directory, "check")
        compile_files(compiler, (directory, ROOT), ROOT / PROGRAM, model, "-o", program)
        run = subprocess.run([program], capture_output=True, text=True, timeout=TIME_LIMIT)
        return run.returncode, run.stdout.strip()


def main():
    compiler, names = sys.argv[1], sys.argv[2:] or list(MUTANTS)
    with tempfile.TemporaryDirectory() as directory, concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        model = pathlib.Path(directory, "model.o")
        compile_files(compiler, (ROOT,), "-c", ROOT / MODEL, "-o", model)
        unchanged = pool.submit(finding, compiler, model, None)
        findings = list(pool.map(lambda name: finding(compiler, model, MUTANTS[name]), names))
    missed = unchanged.result() != (0, "no fault")
    print(f"unchanged: {unchanged.result()[1]}")
    for name, (code, output) in zip(names, findings):
        found = code == 1 and re.search(MUTANTS[name].message, output)
        missed += not found
        print(f"{name}: {output}" + ("" if found else f"  NOT AS EXPECTED: exit status {code}, {MUTANTS[name].message}"))
    print(f"{len(names)} mutants, {missed} not as expected")
    return missed > 0


if __name__ == "__main__":
    sys.exit(main())
