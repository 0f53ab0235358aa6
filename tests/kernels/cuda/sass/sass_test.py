#!/usr/bin/env python3
"""Checks the compiled code of the kernels:  sass_test.py LIBRARY [CUOBJDUMP]

    sass_test.py --write LIBRARY [CUOBJDUMP]   writes the table of costs, kernels/cuda/base/kernel_costs.inc

Kernels must use the tensor cores of their GPU, keep all variables in registers, and stay within budgets of instructions. The table must
agree with the code. cuobjdump and nvdisasm come with the CUDA toolkit, or from PyPI as nvidia-cuda-cuobjdump and nvidia-cuda-nvdisasm.
Without them the script checks nothing and exits with 77.
"""
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import sass

NOT_RUN = 77
ROOT = pathlib.Path(__file__).resolve().parents[4]
TABLE = ROOT / "kernels/cuda/base/kernel_costs.inc"
LAUNCHER = ROOT / "cmake/refuse-remarks"
ARCHITECTURES = ("sm_80", "sm_90")
# name: (number of kernels, architectures, tensor core instruction)
TENSOR_CORE = {
    "ConvSm80": (6, ARCHITECTURES, "HMMA.16816.F32.BF16"),
    "PooledGradientSm80": (3, ARCHITECTURES, "HMMA.16816.F32.BF16"),
    "ConvStemSm80": (1, ARCHITECTURES, "HMMA.16816.F32.BF16"),
    "StemGradientSm80": (1, ARCHITECTURES, "HMMA.16816.F32.BF16"),
    "ConvSm90": (30, ("sm_90",), "HGMMA.64x"),
    "WeightGradientSm90": (6, ("sm_90",), "HGMMA.64x"),
}
# On sm_90, for 8 channels of bf16. Kernel: most instructions of a pixel (JoinQuads: of four pixels), fewest loads at once.
SPREAD = "Join<bf16, 8, {}, MaxPool3x3Gradient<bf16, 8, {}>>"
BUDGETS = {
    "MaxPool3x3": (220, 9),
    SPREAD.format(0, 1): (380, 18),
    SPREAD.format(1, 1): (380, 18),
    SPREAD.format(2, 1): (405, 18),
    SPREAD.format(0, 2): (270, 9),
    SPREAD.format(1, 2): (270, 9),
    SPREAD.format(2, 2): (270, 9),
    "JoinQuads<bf16, 8, 0>": (450, 8),
    "JoinQuads<bf16, 8, 1>": (540, 16),
    "JoinQuads<bf16, 8, 2>": (630, 18),
    "Join<bf16, 8, 1, NoPooled>": (95, 2),
}
# Chains of loads that depend on nothing but their place. Kernel: loads at once, after which the loop waits only once.
CHAINS = {"AddRows": 32, "AveragePoolGradient<bf16, 8>": 4, "MergeAll<Sum, StoreSum>": 32, "MergeGroup<Sum>": 32,
          "MergeAll<Moments, FinishMoments>": 32, "MergeGroup<Moments>": 32}
STEP_BUDGET = (50, 16)  # of a step of ConvSm90 or WeightGradientSm90, and more for each wgmma
MASK_WAITS = 4  # of the masks of a tile of ConvSm90, all of which are loaded together
CHUNK_BUDGET = 150  # maxima of 8 channels, while a tile of the pooled convolution is copied
# Of a row of 112 places: by 32 filters of ConvStemSm80, and by 64 filters and a row of the filter of StemGradientSm80. Most instructions,
# products.
STEM_BUDGETS = {"ConvStemSm80": (1900, 392), "StemGradientSm80": (720, 112)}
POOLED = ["ConvSm80<2, 64>", "ConvSm80<2, 128>"]
POOLED_GRADIENTS = [f"PooledGradientSm80<{tile}>" for tile in ("64, false", "64, true", "128, false")]
HOT = [*BUDGETS, *POOLED, *POOLED_GRADIENTS, "ConvStemSm80", "StemGradientSm80"]
# Instructions that may read or write memory of the GPU.
MEMORY = {"LD", "LDG", "LDGSTS", "ST", "STG", "ATOM", "ATOMG", "RED", "REDG", "CCTL", "SULD", "SUST", "TEX", "TLD", "UBLKCP", "UBLKRED",
          "UBLKPF", "UTMALDG", "UTMASTG", "UTMAREDG", "UTMAPF", "CALL"}
TOLERANCE = 0.05  # of the table, for other versions of nvcc

library = cuobjdump = None
kernels = {}  # by architecture


def names_in(arch, name):
    return [kernel for kernel in kernels[arch] if kernel == name or kernel.startswith(name + "<")]


def row_of(name, kernel):
    """Of KernelCost."""
    once, loop = kernel.code.cost()
    return name, [once.cycles, once.waits, loop.cycles, loop.waits, loop.loads, kernel.warps_on_sm()]


def table_rows():
    return dict(row_of(name, kernel) for name, kernel in sorted(kernels["sm_90"].items()))


def write_table():
    lines = [f'{{"{name}", {", ".join(map(str, row))}}},\n' for name, row in table_rows().items()]
    TABLE.write_text("// clang-format off\n" + "".join(lines))


def read_table():
    return {match[1]: [int(number) for number in match[2].split(",")]
            for match in re.finditer(r'\{"(.+)", ([\d, ]+)\}', TABLE.read_text())}


def pipelines():
    return names_in("sm_90", "ConvSm90") + names_in("sm_90", "WeightGradientSm90")


def pipeline_of(name):
    """Of a step of ConvSm90<backward, columns, taps> or WeightGradientSm90<channels>, as conv_pipeline.h says: the products of its groups, and
    [bytes, boxes of pixels, boxes of weights] of its stage."""
    if match := re.match(r"WeightGradientSm90<(\d+)>", name):
        boxes = -(-int(match[1]) // 64)
        return [4 * 3], [128 * (128 + boxes * (128 + 2)), 1 + boxes, 0]
    backward, columns, taps = re.match(r"ConvSm90<(\w+), (\d+), (\d+)>", name).groups()
    columns, taps = int(columns), int(taps)
    boxes = -(-columns // 64) if backward == "true" else 1
    stage_bytes = 128 * (128 + taps - 1 + taps * (64 * boxes if backward == "true" else columns))
    return [taps * slices for slices in range(1, 5)], [stage_bytes, 1, taps * boxes]


def pipeline_faults(instructions, expected_groups, expected_fill):
    """What the code does not do as pipeline_of says. The instructions are in the order of their addresses: ptxas leaves each of these
    sequences in one piece."""
    faults, groups, waits, fills = [], [], [], []
    products = None  # of the open group
    values = {}  # constants in registers
    names = [i.name.removesuffix(".64") for i in instructions]
    order = [names.index(name) if name in names else -1 for name in ("SYNCS.EXCH", "BAR.SYNC.DEFER_BLOCKING", "SYNCS.PHASECHK.TRANS64.TRYWAIT")]
    if -1 in order or order != sorted(order) or "SYNCS.EXCH" in names[order[1]:]:
        faults.append("a wait before the barriers exist for all threads")
    for i in instructions:
        if products is not None and i.name.startswith(("BRA", "WARPGROUP", "SYNCS", "EXIT")):
            faults.append(f"{i.name} within a group of products")
        if written := re.match(r"(R\d+), ", i.operands):
            constant = re.search(r" (0x[0-9a-f]+)$", i.operands) if "MOV" in i.name else None
            values[written[1]] = int(constant[1], 16) if constant else None
        if i.name == "WARPGROUP.ARRIVE":
            products = 0
        elif i.name.startswith("WARPGROUP.DEPBAR"):
            waits.append(int(i.operands.split()[-1], 16))
        elif i.name.startswith("HGMMA"):
            if products is None:
                faults.append("a product without a fence before it")
                continue
            products += 1
            if "gsb0" in i.operands:
                groups.append(products)
                products = None
        elif i.name == "SYNCS.ARRIVE.TRANS64.A1T0" and waits != [1]:
            faults.append("a stage is released elsewhere than after the wait in the loop")
        elif i.name == "SYNCS.ARRIVE.TRANS64":
            fills.append([values.get(i.operands.split()[-1]), 0, 0])
        elif i.name.startswith("UTMALDG"):
            fills[-1][1 if "IM2COL" in i.name else 2] += 1
    if sorted(groups) != expected_groups:
        faults.append(f"groups of {groups} products")
    if waits != [1, 0]:
        faults.append(f"waits until {waits} groups run")
    if not fills or any(fill != expected_fill for fill in fills):
        faults.append(f"fills of [bytes, boxes of pixels, of weights] {fills} instead of {expected_fill}")
    return faults


class TensorCores(unittest.TestCase):
    def test_are_used(self):
        for name, (count, architectures, instruction) in TENSOR_CORE.items():
            for arch in architectures:
                found = names_in(arch, name)
                self.assertEqual(len(found), count, found)
                for kernel in found:
                    uses = any(instruction in i.text for i in kernels[arch][kernel].code.instructions)
                    self.assertTrue(uses, f"{kernel} for {arch} has no {instruction}")


class Pipelines(unittest.TestCase):
    @staticmethod
    def faults_of(name, change=lambda text: text):
        instructions = [sass.Instruction(i.address, change(i.text)) for i in kernels["sm_90"][name].code.instructions]
        return pipeline_faults(instructions, *pipeline_of(name))

    def test_groups_waits_and_bytes(self):
        for name in pipelines():
            self.assertEqual(self.faults_of(name), [], name)

    def test_operands_are_transposed(self):
        for name in pipelines():
            wanted = ".tnspA.tnspB" if name.startswith("Weight") else ".tnspB" if "<true" in name else ""
            products = [i.operands for i in kernels["sm_90"][name].code.instructions if i.name.startswith("HGMMA")]
            found = {re.search(r"gdesc\[UR\d+\]([.\w]*)", operands)[1] for operands in products}
            self.assertEqual(found, {wanted}, name)

    def test_sums_are_handed_over_between_two_barriers(self):
        """By the 256 threads of the two warpgroups of WeightGradientSm90, after their last products: STS, BAR 1, LDS."""
        for name in names_in("sm_90", "WeightGradientSm90"):
            texts = [i.text for i in kernels["sm_90"][name].code.instructions]
            places = [i for i, text in enumerate(texts) if text.endswith("BAR.SYNC.DEFER_BLOCKING 0x1, 0x100")]
            self.assertEqual(len(places), 2, name)
            self.assertTrue(any("STS" in text for text in texts[places[0]:places[1]]), name)
            self.assertFalse(any("LDS" in text or "HGMMA" in text for text in texts[places[0]:places[1]]), name)
            self.assertTrue(any("LDS" in text for text in texts[places[1]:]), name)

    def test_descriptors_have_a_swizzle_of_128_bytes(self):
        """The upper half of a descriptor: a stride of 1024 bytes and the swizzle."""
        for name in pipelines():
            self.assertTrue(any("0x40000040" in i.text for i in kernels["sm_90"][name].code.instructions), name)

    def test_mistakes_are_seen(self):
        for old, new, fault in (("BAR.SYNC.DEFER_BLOCKING", "NOP", "a wait before the barriers exist"),
                                ("WARPGROUP.ARRIVE", "NOP", "a product without a fence"),
                                (", gsb0", "", "within a group of products"),
                                ("gsb0, 0x1", "gsb0, 0x2", "waits until [2, 0] groups run"),
                                ("WARPGROUP.DEPBAR.LE gsb0, 0x1", "NOP", "a stage is released elsewhere"),
                                ("0x6000", "0x6080", "fills of [bytes"),
                                ("UTMALDG.3D", "NOP", "fills of [bytes")):
            faults = self.faults_of("ConvSm90<false, 64, 1>", lambda text, old=old, new=new: text.replace(old, new))
            self.assertTrue(any(fault in found for found in faults), (old, faults))


class Registers(unittest.TestCase):
    def test_sums_of_gradients_take_registers_of_the_warps_that_load(self):
        """168 for each of 384 threads at first, then 24 and 240. All of it comes before the loops."""
        for name in names_in("sm_90", "WeightGradientSm90"):
            texts = [i.text for i in kernels["sm_90"][name].code.instructions]
            moved = [text.split()[0] + " " + text.split()[-1] for text in texts if "USETMAXREG" in text]
            self.assertEqual(moved, ["USETMAXREG.TRY_ALLOC.CTAPOOL 0xf0", "USETMAXREG.DEALLOC.CTAPOOL 0x18"], name)
            self.assertEqual(kernels["sm_90"][name].registers, 168, name)

    def test_no_local_memory(self):
        for arch in ARCHITECTURES:
            self.assertGreater(len(kernels[arch]), 50)
            self.assertEqual([name for name, kernel in kernels[arch].items() if kernel.local > 0], [])

    def test_hot_kernels_have_no_stack(self):
        for arch in ARCHITECTURES:
            hot = HOT + [kernel for name in TENSOR_CORE for kernel in names_in(arch, name)]
            self.assertEqual([name for name in hot if kernels[arch][name].stack > 0], [])

    def test_two_blocks_on_a_multiprocessor(self):
        for arch in ARCHITECTURES:
            for name in BUDGETS:
                self.assertGreaterEqual(kernels[arch][name].warps_on_sm(), 2 * sass.BLOCK_THREADS // 32, name)


class EarlyStarts(unittest.TestCase):
    """Every kernel may start before the previous one has ended (kernels/cuda/base/early_start.h)."""

    @staticmethod
    def is_safe(code):
        """Whether all threads wait before anything else that touches memory, and let the next kernel start only after that."""
        names = [i.name.partition(".")[0] for i in code.content(0)]
        if "ACQBULK" not in names:
            return False
        before = names[:names.index("ACQBULK")]
        return not any(name in MEMORY or name == "PREEXIT" for name in before)

    def test_kernels_wait_first(self):
        for name, kernel in kernels["sm_90"].items():
            self.assertTrue(self.is_safe(kernel.code), name)

    def test_kernels_let_the_next_one_start(self):
        for name, kernel in kernels["sm_90"].items():
            self.assertTrue(any(i.name == "PREEXIT" for i in kernel.code.instructions), name)

    def test_mistakes_are_seen(self):
        for lines, safe in ((["LDC R1, c[0x0][0x28]", "ACQBULK", "PREEXIT", "LDG.E R8, desc[UR4][R2.64]", "EXIT"], True),
                            (["LDC R1, c[0x0][0x28]", "LDG.E R8, desc[UR4][R2.64]", "ACQBULK", "EXIT"], False),
                            (["UTMALDG.4D [UR4], [UR6]", "ACQBULK", "EXIT"], False),
                            (["PREEXIT", "ACQBULK", "EXIT"], False),
                            (["@P0 BRA 0x20", "ACQBULK", "EXIT"], False),
                            (["@P0 EXIT", "ACQBULK", "EXIT"], False),
                            (["LDG.E R8, desc[UR4][R2.64]", "EXIT"], False)):
            self.assertEqual(self.is_safe(Reader.code_of(lines)), safe, lines)


class Instructions(unittest.TestCase):
    def test_hot_kernels_call_nothing(self):
        """A division of 64-bit integers is a function. It ends in RET. A CALL alone is how ptxas leaves some loops on sm_80."""
        for arch in ARCHITECTURES:
            for name in HOT:
                called = [i.text for i in kernels[arch][name].code.instructions if i.name.startswith(("RET", "I2F.U64"))]
                self.assertEqual(called, [], f"{name} for {arch}")

    def test_budgets(self):
        for name, (most, fewest_loads) in BUDGETS.items():
            with self.subTest(name):
                once, loop = kernels["sm_90"][name].code.cost()
                pixel = loop if loop.instructions > 0 else once  # a Join has a loop over pixels
                self.assertLessEqual(pixel.instructions, most)
                self.assertGreaterEqual(pixel.in_flight, fewest_loads)

    def test_chains_wait_once(self):
        for name, loads in CHAINS.items():
            _, loop = kernels["sm_90"][name].code.cost()
            self.assertEqual((loop.in_flight, loop.waits), (loads, 1), name)

    def test_budgets_of_steps(self):
        for name in pipelines():
            with self.subTest(name):
                code = kernels["sm_90"][name].code
                main = code.main_loop()
                path = code.longest_path(main, code.loops[main])
                products = sum(i.name.startswith("HGMMA") for i in path)
                self.assertEqual(products, max(pipeline_of(name)[0]))
                self.assertLessEqual(len(path), STEP_BUDGET[0] + STEP_BUDGET[1] * products)
                if "true" in name:
                    self.assertLessEqual(code.cost()[0].waits, MASK_WAITS)

    def test_budgets_of_the_stem(self):
        for name, (most, products) in STEM_BUDGETS.items():
            code = kernels["sm_90"][name].code
            main = code.main_loop()
            path = code.longest_path(main, code.loops[main])
            self.assertEqual(sum(i.name.startswith("HMMA") for i in path), products, name)
            self.assertLessEqual(len(path), most, name)

    def test_budget_of_pooled_chunks(self):
        for name in POOLED:
            code = kernels["sm_90"][name].code
            chunks = [code.content(block) for block in code.blocks if any("HMNMX2" in i.name for i in code.content(block))]
            self.assertGreaterEqual(len(chunks), 4)
            for chunk in chunks:
                self.assertLessEqual(len(chunk), CHUNK_BUDGET, name)
                self.assertGreaterEqual(sass.cost_of(chunk).in_flight, 9, name)

    def test_bf16_is_rounded_by_an_instruction(self):
        for arch in ARCHITECTURES:
            for name in BUDGETS.keys() - {"MaxPool3x3"}:  # which does not round
                rounds = [i for i in kernels[arch][name].code.instructions if i.name.startswith("F2FP.BF16")]
                self.assertGreaterEqual(len(rounds), 4, name)


class Table(unittest.TestCase):
    def test_agrees_with_the_code(self):
        table, rows = read_table(), table_rows()
        write = "run sass_test.py --write"
        self.assertEqual(sorted(table), sorted(rows), write)
        for name, row in rows.items():
            for known, counted in zip(table[name], row):
                self.assertLessEqual(abs(known - counted), max(2, TOLERANCE * counted), f"{name}: {table[name]}, but {row}: {write}")


class Remarks(unittest.TestCase):
    """The build of the kernels with wgmma."""

    @staticmethod
    def exit_code(line):
        with tempfile.TemporaryDirectory() as directory:
            output = pathlib.Path(directory, "kernel.o")
            compiler = ["sh", "-c", f"echo '{line}' >&2; echo > $2", "nvcc", "-o", str(output)]
            code = subprocess.run([LAUNCHER, *compiler], capture_output=True).returncode
            return code, output.exists()

    def test_serialized_wgmma_fails(self):
        self.assertEqual(self.exit_code("ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized"),
                         (1, False))

    def test_other_lines_do_not(self):
        self.assertEqual(self.exit_code("ptxas info    : Used 90 registers, C7510"), (0, True))


class Reader(unittest.TestCase):
    """On code that was written by hand."""

    # A loop, a branch that calls, and two loads in flight.
    LINES = ["MOV R1, c[0x0][0x28]", "LDG.E.128 R4, desc[UR4][R2.64]", "LDG.E R8, desc[UR4][R2.64]", "IADD3 R9, R5, R8, RZ", "@P0 BRA 0x60",
             "CALL.REL.NOINC 0x90", "LOP3.LUT R3, R3, R9, RZ, 0xfc, !PT", "@P1 BRA 0x10", "EXIT", "RET"]

    # Two cases in a loop that precedes another one; the loops end where they begin.
    CASES = ["MOV R1, R2", "@P0 BRA 0x70", "@P1 BRA 0x50", "FADD R1, R1, R1", "BRA 0x10", "FMUL R1, R1, R1", "BRA 0x10",
             "@P2 BRA 0xa0", "FADD R1, R1, R1", "BRA 0x70", "EXIT"]

    @staticmethod
    def code_of(lines):
        return sass.Code(sass.instructions_of(f"        /*{16 * i:04x}*/   {line} ;" for i, line in enumerate(lines)))

    def test_longest_path(self):
        once, loop = self.code_of(self.CASES).cost()
        self.assertEqual(loop.instructions, 4)  # two branches, one of the cases, and the branch back
        self.assertEqual(once.instructions, 5)  # MOV, the other loop once, and EXIT

    def test_costs(self):
        once, loop = self.code_of(self.LINES).cost()
        self.assertEqual((once.instructions, loop.instructions), (2, 6))  # MOV and EXIT; the call does not count
        self.assertEqual((loop.loads, loop.waits, loop.in_flight), (2, 1, 2))
        self.assertEqual(loop.cycles, 16 + 4)  # bytes of the loads

    def test_shared_memory_costs_cycles(self):
        for instruction, cycles in (("LDSM.16.MT88.4 R4, [R2]", 16), ("LDSM.16.M88.2 R4, [R2]", 8), ("LDGSTS.E.BYPASS.128 [R2], [R4.64]", 16),
                                    ("LDGSTS.E.64 [R2], [R4.64]", 8), ("STS.128 [R2], R4", 16), ("LDS R4, [R2]", 4)):
            self.assertEqual(sass.cost_of(sass.instructions_of([f"        /*0000*/   {instruction} ;"])).cycles, cycles, instruction)


if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if argument != "--write"]
    library, cuobjdump = pathlib.Path(arguments[0]), shutil.which(arguments[1] if len(arguments) > 1 else "cuobjdump")
    if cuobjdump is None:
        print("not run: cuobjdump not found")
        sys.exit(NOT_RUN)
    kernels = {arch: sass.kernels_of(library, cuobjdump, arch) for arch in ARCHITECTURES}
    if "--write" in sys.argv:
        write_table()
    else:
        unittest.main(argv=sys.argv[:1])
