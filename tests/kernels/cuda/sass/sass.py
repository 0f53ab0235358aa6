"""Reads and measures machine code of NVIDIA GPUs (SASS) as cuobjdump lists it. Nothing is executed.

Counts are those of the longest path that a warp can take, without the paths to calls: nvcc calls a function only for rare cases of a
division. A loop within the path counts once.
"""
import collections
import dataclasses
import re
import subprocess

BLOCK_THREADS = 256  # of a kernel over an index space
# Of a multiprocessor of compute capability 8.0 and 9.0 (CUDA programming guide, "Technical specifications per compute capability").
REGISTERS, WARPS = 65536, 64
# Cycles of a scheduler and its units. A scheduler starts one instruction per cycle. A unit has 16 lanes for integers, logic,
# comparisons, selections, minima and conversions, and 4 for the functions of MUFU (CUDA programming guide, "Throughput of native
# arithmetic instructions", compute capability 9.0). The memory that is L1 cache and shared memory moves 128 bytes per cycle, a quarter of
# them for each scheduler. Bank conflicts, and what wgmma reads, are not counted.
HALF_RATE = re.compile(r"(IADD|IADD3|ISETP|LOP|LOP3|LEA|SHF|SHL|SHR|SEL|FSEL|FSETP|FSET|FMNMX|IMNMX|VIMNMX|VIADD|VIADDMNMX|PRMT|I2FP|F2FP|"
                       r"PLOP3|ISCADD|BMSK|SGXT|IABS|HMNMX2|HSET2|HSETP2|P2R|R2P|VABSDIFF|BREV|POPC|FLO)\b")
MULTIPLY = re.compile(r"IMAD\b")  # another unit with 16 lanes
EIGHTH_RATE = re.compile(r"(MUFU|I2F|F2I|F2F|FRND)\b")
L1_BYTES = 32
MATRIX = re.compile(r"HG?MMA\b")
PREDICATE = re.compile(r"^@!?U?P\w+\s+")
MEMORY = re.compile(r"(LD|LDG|ST|STG|LDS|STS|LDSM|LDGSTS)\b")
LOAD = re.compile(r"LDG?\b")
BYTES = {".128": 16, ".64": 8, ".U8": 1, ".S8": 1, ".U16": 2, ".S16": 2}  # of a thread; else 4


def run(*command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout


@dataclasses.dataclass(frozen=True)
class Instruction:
    address: int
    text: str  # "@P0 LDG.E.128 R4, desc[UR4][R2.64]"

    @property
    def name(self):
        return PREDICATE.sub("", self.text).split()[0]

    @property
    def operands(self):
        return PREDICATE.sub("", self.text).partition(" ")[2]

    @property
    def is_conditional(self):
        return self.text.startswith("@")

    @property
    def target(self):
        """Of a branch: an address."""
        match = re.search(r"\b0x([0-9a-f]+)$", self.text)
        return int(match[1], 16) if match else None

    @property
    def bytes(self):
        """Moved per thread through the L1 cache or shared memory."""
        if not MEMORY.match(self.name):
            return 0
        if self.name.startswith("LDSM"):
            return 4 * int(self.name.rpartition(".")[2])  # matrices of 8 x 8
        return next((count for suffix, count in BYTES.items() if suffix in self.name), 4)


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of a sequence of instructions, for a warp."""
    instructions: int = 0
    cycles: int = 0  # that the busiest unit of a scheduler needs
    loads: int = 0  # from global memory
    waits: int = 0  # for loads, one after the other
    in_flight: int = 0  # loads at once, at most


def registers_in(text):
    return {int(number) for number in re.findall(r"\bR(\d+)\b", text)}


def cost_of(instructions):
    half = sum(bool(HALF_RATE.match(i.name)) for i in instructions)
    multiplications = sum(bool(MULTIPLY.match(i.name)) for i in instructions)
    eighth = sum(bool(EIGHTH_RATE.match(i.name)) for i in instructions)
    moved = 32 * sum(i.bytes for i in instructions) // L1_BYTES
    loads = [i for i in instructions if LOAD.match(i.name)]
    waits = most = 0
    pending = {}  # register: address of the load that writes it
    for i in instructions:
        loads_to = re.match(r"R(\d+),", i.operands) if LOAD.match(i.name) else None
        if registers_in(i.operands[loads_to.end():] if loads_to else i.operands) & pending.keys():
            waits += 1
            pending = {}
        if loads_to:
            pending |= {int(loads_to[1]) + word: i.address for word in range(max(1, i.bytes // 4))}
            most = max(most, len(set(pending.values())))
    cycles = max(len(instructions), 2 * half, 2 * multiplications, 8 * eighth, moved)
    return Cost(len(instructions), cycles, len(loads), waits, most)


class Code:
    """The control flow of a kernel, without the paths to calls."""

    def __init__(self, instructions):
        self.instructions = instructions
        self.index_of = {instruction.address: i for i, instruction in enumerate(instructions)}
        starts = {0}
        for i, instruction in enumerate(instructions):
            if instruction.name.startswith(("BRA", "EXIT", "CALL", "RET", "BPT")):
                starts.add(i + 1)
            if instruction.name.startswith("BRA"):
                starts.add(self.index_of[instruction.target])
        starts = sorted(start for start in starts if start < len(instructions))
        self.ends = dict(zip(starts, starts[1:] + [len(instructions)]))  # of the basic blocks, by their start
        self.blocks = self.reachable()
        self.before = collections.defaultdict(set)
        for block in self.blocks:
            for successor in self.successors(block):
                self.before[successor].add(block)
        self.loops = self.find_loops()

    def content(self, block):
        return self.instructions[block:self.ends[block]]

    def successors(self, block):
        """The blocks that may follow, without those that call."""
        last, end = self.content(block)[-1], self.ends[block]
        following = []
        if last.name.startswith("BRA"):
            following.append(self.index_of[last.target])
            # "BRA UP0, 0x100" and "BRA.DIV" are conditional, too.
            if last.is_conditional or "DIV" in last.name or re.match(r"!?U?P\d", last.operands):
                following.append(end)
        elif last.is_conditional or not last.name.startswith(("EXIT", "RET", "BPT")):
            following.append(end)
        return [b for b in following if b in self.ends and not self.content(b)[-1].name.startswith("CALL")]

    def reachable(self):
        seen, todo = set(), [0]
        while todo:
            block = todo.pop()
            if block not in seen:
                seen.add(block)
                todo += self.successors(block)
        return sorted(seen)

    def find_loops(self):
        """{first block of a loop: its blocks}: natural loops (Aho, Sethi and Ullman 1986, section 10.4)."""
        dominators = {block: set(self.blocks) for block in self.blocks}
        dominators[0] = {0}
        changed = True
        while changed:
            changed = False
            for block in self.blocks[1:]:
                new = {block} | set.intersection(*(dominators[other] for other in self.before[block]))
                changed = changed or new != dominators[block]
                dominators[block] = new
        loops = collections.defaultdict(set)
        for block in self.blocks:
            for head in self.successors(block):
                if head not in dominators[block]:
                    continue
                todo = [block]
                loops[head].add(head)
                while todo:
                    inner = todo.pop()
                    if inner not in loops[head]:
                        loops[head].add(inner)
                        todo += self.before[inner]
        return loops

    def longest_path(self, head, blocks, without=None):
        """The instructions of a path from `head` through `blocks`. A loop inside is one step of it. Those of loop `without` do not count."""
        loops = {start: body for start, body in self.loops.items() if start != head and body < blocks}
        outer = {start: body for start, body in loops.items() if not any(body < other for other in loops.values())}
        step_of = {block: start for start, body in outer.items() for block in body}  # else the block itself
        best = {}

        def visit(step):
            if step in best:
                return best[step]
            best[step] = []  # for graphs that no loop explains
            if step == without:
                own = []
            elif step in outer:
                own = self.longest_path(step, outer[step], without)
            else:
                own = [i for i in self.content(step) if i.name != "NOP"]
            following = {step_of.get(b, b) for block in outer.get(step, {step}) for b in self.successors(block) if b in blocks}
            best[step] = own + max((visit(other) for other in sorted(following - {step, head})), key=len, default=[])
            return best[step]

        return visit(head)

    def main_loop(self):
        """The head of the loop with tensor core instructions, else of that with the longest path; None if there is none. In ConvSm90, one
        warp has another loop, which fills the stages."""
        def key(head):
            path = self.longest_path(head, self.loops[head])
            return any(MATRIX.match(i.name) for i in path), len(path)
        return max(self.loops, key=key, default=None)

    def cost(self):
        """Outside the main loop; the main loop, once."""
        main = self.main_loop()
        loop = [] if main is None else self.longest_path(main, self.loops[main])
        return cost_of(self.longest_path(0, set(self.blocks), main)), cost_of(loop)


@dataclasses.dataclass
class Kernel:
    code: Code
    registers: int
    shared: int
    stack: int
    local: int

    def warps_on_sm(self):
        allocated = (self.registers + 7) // 8 * 8
        blocks = min(REGISTERS // (allocated * BLOCK_THREADS), WARPS * 32 // BLOCK_THREADS)
        return blocks * BLOCK_THREADS // 32


def short_names(mangled):
    """{mangled: "MaxPool<bf16, 8>"} for ForEachKernel<MaxPool<...>>, as kernel_cost.cpp forms it."""
    names = {}
    for symbol, name in zip(mangled, run("c++filt", input="\n".join(mangled)).splitlines()):
        name = re.sub(r"\(anonymous namespace\)::|deeper::|conv::|^void ", "", name)
        name = name.replace("(Input)", "").partition("(")[0]
        names[symbol] = re.sub(r"^ForEachKernel<(.*)>$", r"\1", name.replace(" >", ">"))
    return names


def sections(listing):
    """{mangled name of a kernel: lines} of cuobjdump's output for one architecture."""
    found, lines = {}, []
    for line in listing.splitlines():
        if match := re.match(r"\s*Function\s*:? (\S+?):?$", line):
            lines = found[match[1]] = []
        lines.append(line)
    return found


def instructions_of(lines):
    matches = (re.match(r"\s*/\*([0-9a-f]{4,})\*/\s+(\S.*?)\s*;", line) for line in lines)
    return [Instruction(int(match[1], 16), match[2]) for match in matches if match]


def kernels_of(library, cuobjdump, arch):
    """{short name: Kernel}."""
    code = sections(run(cuobjdump, "-sass", "-arch", arch, str(library)))
    usage = sections(run(cuobjdump, "-res-usage", "-arch", arch, str(library)))
    names = short_names(list(code))
    kernels = {}
    for symbol, lines in code.items():
        amount = dict(re.findall(r"\b([A-Z]+):(\d+)", " ".join(usage[symbol])))
        used = [int(amount[of]) for of in ("REG", "SHARED", "STACK", "LOCAL")]
        if names[symbol] in kernels:
            raise ValueError(f"two kernels have the name {names[symbol]}")
        kernels[names[symbol]] = Kernel(Code(instructions_of(lines)), *used)
    return kernels
