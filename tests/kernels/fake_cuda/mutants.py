#!/usr/bin/env python3
"""Faults that are put into the sources one at a time, each of which the tests on the fake CUDA must find.

    mutants.py BUILD [NAME...]
    mutants.py --check

Compiles the changed file of each mutant, links a test with it (the tree and the build stay as they are) and runs the test.
--check only looks whether the sources still have the places that the mutants change.
Exit status 0: every mutant was found, with the message that is expected of it. Needs the targets fake_cuda_tests, fake_nccl_tests
and trainer_tests_on_fake_cuda of the preset cuda-release.
"""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[3]
NCCL = "comm/nccl/nccl_communicator.cpp"
TUNER, CUDNN = "kernels/cuda/plans/autotune.cpp", "kernels/cuda/plans/cudnn.cpp"
DEVICE, STEP, NETWORK = "kernels/cuda/device_cuda.cpp", "trainer/engine/train_step.cpp", "trainer/engine/network.cpp"
STAGED, INCEPTION = "comm/nccl/staged_communicator.cpp", "kernels/ops/inception/inception_run_cuda.cpp"
EARLY = "kernels/cuda/base/early_start.cpp"
SMALL = ("fake_cuda_tests", "*Training*nincifar_bf16")
TUNING = ("fake_cuda_tests", "Tuner.BuildsForItsOwnGpu:GpuDeviceTest.PlansAreTunedOnceAndFoundAgain")
MEMORY = ("fake_cuda_tests", "GpuDeviceTest.DownloadsWaitForWork:GpuDeviceTest.MemoryIsZeroBeforeUploads")
SINGLES = ("fake_cuda_tests", "*Training*nincifar_bf16_singles")
WHOLE = ("fake_cuda_tests", "*Training*nincifar_bf16_whole")
BRANCHES = ("fake_cuda_tests", "*Training*googlenet_fp32")
RANKS = ("trainer_tests_on_fake_cuda", "*DeviceTraining.RanksChangeNothing/fp32")
GUARD = ("trainer_tests_on_fake_cuda", "*DeviceTrainingGuard.ABadStepChangesNothing")
NCCL_RECORDED = ("fake_nccl_tests", "*CollectivesAreRecorded*")
NCCL_SUITE = ("fake_nccl_tests", "*AllReduceEveryType*Nccl2*")
NCCL_THREADS = ("fake_nccl_tests", "*OneThreadAtATime*")
NCCL_LATER = ("fake_nccl_tests", "*AnErrorThatShowsLater*")
NCCL_TRAINING = ("fake_nccl_tests", "*FakeNcclTraining*/2")
ON_DEVICE = (RANKS, GUARD)  # tests of the device that the environment names
TIME_LIMIT = 900  # seconds, of a test
# Where a fault makes no call wrong, wrong numbers are what shows.
OTHER_BITS = r"is not finite|actual\.numbers$|shard-00000-of-00001.h5 differs"


class Mutant(NamedTuple):
    file: str
    old: str
    new: str
    test: tuple
    message: str


MUTANTS = {
    "work does not wait for uploads": Mutant(
        DEVICE,
        "    DEEPER_CUDA_CHECK(cudaStreamWaitEvent(stream_.get(), uploaded_.get(), 0));\n",
        "",
        SMALL,
        OTHER_BITS + "|cudaFreeHost: a copy that is under way",
    ),
    "downloads do not wait for work": Mutant(
        DEVICE, "    DEEPER_CUDA_CHECK(cudaStreamWaitEvent(downloads_.get(), computed_.get(), 0));\n", "", MEMORY, r"arrived\.as"
    ),
    "a download is not awaited": Mutant(
        DEVICE,
        "void Wait() override { DEEPER_CUDA_CHECK(cudaEventSynchronize(arrived_.get())); }",
        "void Wait() override {}",
        SMALL,
        "differs|the host wrote to where a copy is under way|cudaFreeHost: a copy that is under way",
    ),
    "a branch does not wait for the fork": Mutant(
        DEVICE,
        "      DEEPER_CUDA_CHECK(cudaStreamWaitEvent(branch_, forked_.get(), 0));\n",
        "      (void)0;\n",
        BRANCHES,
        OTHER_BITS + "|recorded outside of the capture|never recorded|freed",
    ),
    "a branch is not joined": Mutant(
        DEVICE,
        "      DEEPER_CUDA_CHECK(cudaStreamWaitEvent(stream_.get(), branch.done.get(), 0));\n",
        "",
        BRANCHES,
        "a capture ends with a fork that was not joined|something else wrote to its workspace",
    ),
    "every kernel starts early": Mutant(
        EARLY,
        "return node != nullptr && g_early_starts->last_[stream] == node;",
        "return true;",
        SMALL,
        "starts early, (after .*, which is no kernel of deeper|but not after one node)",
    ),
    "a library call counts as a kernel of deeper": Mutant(
        EARLY,
        "return node != nullptr && g_early_starts->last_[stream] == node;",
        "return node != nullptr;",
        SMALL,
        "starts early, after .*, which is no kernel of deeper",
    ),
    "a join waits before it records": Mutant(
        DEVICE,
        "      DEEPER_CUDA_CHECK(cudaEventRecord(branch.done.get(), branch.stream.get()));\n",
        "",
        BRANCHES,
        "waits for an event that was never recorded",
    ),
    "nothing waits for the device": Mutant(
        DEVICE,
        "void Synchronize() override { DEEPER_CUDA_CHECK(cudaStreamSynchronize(stream_.get())); }",
        "void Synchronize() override {}",
        SMALL,
        "the host changed what a copy under way reads|the host wrote to|is not finite|cudaFreeHost: a copy that is under way",
    ),
    "a pinned slot is released while it is uploaded": Mutant(
        DEVICE,
        "void WaitForUploads() override { DEEPER_CUDA_CHECK(cudaStreamSynchronize(uploads_.get())); }",
        "void WaitForUploads() override {}",
        SMALL,
        "the host changed what a copy under way reads|a copy that is under way uses this memory",
    ),
    "memory is handed out before it is zero": Mutant(
        DEVICE, "    Synchronize();  // uploads do not wait for the stream\n", "", MEMORY, r"arrived\.as"
    ),
    "memory is not zeroed": Mutant(DEVICE, "    DEEPER_CUDA_CHECK(cudaMemsetAsync(data, 0, bytes, stream_.get()));\n", "", SMALL, OTHER_BITS),
    "staging memory is not pinned": Mutant(
        DEVICE,
        "    if (bytes == 0 || !Allocated(cudaMallocHost(&data, bytes))) return {};\n",
        "    return AllocateHost(bytes);\n",
        SMALL,
        "a copy of pageable memory in a capture",
    ),
    "the first run is captured": Mutant(DEVICE, "!std::exchange(warm_, true)", "false", SMALL, "the first launch of .* in a capture"),
    "the legacy stream is used": Mutant(
        DEVICE,
        "cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, uploads_.get())",
        "cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, nullptr)",
        SMALL,
        "the legacy stream",
    ),
    "an allocation in a capture": Mutant(
        STEP, "      net_.Forward();", "      const Buffer more = device_.Allocate(64);\n      net_.Forward();", SMALL, "cudaMalloc in a capture"
    ),
    "a synchronisation in a capture": Mutant(
        STEP,
        "      guard_.InspectSums();\n",
        "      guard_.InspectSums();\n      device_.Synchronize();\n",
        SMALL,
        "cudaStreamSynchronize in a capture",
    ),
    "the loss is read before synchronisation": Mutant(
        STEP,
        "    AwaitDevice(batch->micro, last || net_.options().sum_statistics != nullptr);\n    Count(*batch, net_.results(), report);\n",
        "    Count(*batch, net_.results(), report);\n    AwaitDevice(batch->micro, last || net_.options().sum_statistics != nullptr);\n",
        SMALL,
        OTHER_BITS,
    ),
    "samples are counted when their slot is the loader's again": Mutant(
        STEP, "    Prefetch(report);\n", "    Prefetch(report);\n    report.samples += HashOf(*batch);\n", SMALL, OTHER_BITS
    ),
    "all micro-batches replay one recording": Mutant(
        STEP,
        "recordings_[net_.image_buffer()][batch->micro == 0][last]->Run",
        "recordings_[net_.image_buffer()][0][0]->Run",
        SINGLES,
        "the first launch of .* in a capture|" + OTHER_BITS,
    ),
    "a step does not wait for its images": Mutant(
        NETWORK, "  device_.JoinUploads();\n", "", SMALL, OTHER_BITS + "|cudaFreeHost: a copy that is under way"
    ),
    "images are made before their pixels arrive": Mutant(DEVICE, "    branch_ = uploads_.get();\n", "", SMALL, OTHER_BITS),
    "two batches share a buffer of images": Mutant(
        NETWORK, "At(images_[!image_buffer_]);", "At(images_[image_buffer_]);", SMALL, OTHER_BITS
    ),
    "one recording serves both buffers of images": Mutant(
        STEP, "recordings_[net_.image_buffer()][batch->micro == 0]", "recordings_[0][batch->micro == 0]", WHOLE, OTHER_BITS
    ),
    "labels are staged in pageable memory": Mutant(
        NETWORK,
        "  staged_control_ = device_.AllocateStaging(control_bytes);\n",
        "  staged_control_ = AllocateHost(control_bytes);\n",
        SMALL,
        "a copy of pageable memory in a capture",
    ),
    "a sum does not wait for its download": Mutant(
        STAGED,
        "      download_->Wait();\n",
        "",
        RANKS,
        "the host wrote to where a copy is under way|the host changed|ranks drifted apart|not finite|difference",
    ),
    "branches share their scratch memory": Mutant(
        INCEPTION,
        "    scratch_[branch] = take(scratch_bytes_[branch]);\n",
        "    scratch_[branch] = branch == 0 ? take(scratch_bytes_[0] + scratch_bytes_[1] + scratch_bytes_[2]) : scratch_[0];\n",
        BRANCHES,
        "something else wrote to its workspace",
    ),
    "the optimizer does not read the verdict": Mutant(
        STEP,
        "      optimizer_.Step(guard_.verdict());",
        "      optimizer_.Step();",
        GUARD,
        r"memcmp|NE\(rank.State|rank.Step\(\).finite",
    ),
    "a collective does not wait for the work before it": Mutant(
        NCCL,
        "    DEEPER_CUDA_CHECK(cudaStreamWaitEvent(stream_, forked_, 0));\n",
        "",
        NCCL_RECORDED,
        r"recorded outside of the capture|data\.Read\(\)|was not joined",
    ),
    "work does not wait for a collective": Mutant(
        NCCL,
        "    DEEPER_CUDA_CHECK(cudaStreamWaitEvent(origin_, done_, 0));\n",
        "",
        NCCL_RECORDED,
        r"data\.Read\(\)|was not joined",
    ),
    "ncclInProgress is taken for success": Mutant(
        NCCL,
        "    while (result == ncclInProgress) {",
        "    result = result == ncclInProgress ? ncclSuccess : result;\n    while (false) {",
        NCCL_SUITE,
        "while an earlier call is in progress",
    ),
    "two threads call NCCL at a time": Mutant(
        NCCL,
        "      if (!nccl_lock.owns_lock()) continue;",
        "      if (false) continue;",
        NCCL_THREADS,
        "while another thread is in this communicator",
    ),
    "errors that show later are ignored": Mutant(
        NCCL, "if (state != ncclSuccess && state != ncclInProgress) Fail(", "if (false) Fail(", NCCL_LATER, "failed to die|Result: |timed out"
    ),
    "a graph ignores the priority of the stream of NCCL": Mutant(
        DEVICE,
        "cudaGraphInstantiate(&graph_, captured, cudaGraphInstantiateFlagUseNodePriority)",
        "cudaGraphInstantiate(&graph_, captured, 0)",
        NCCL_RECORDED,
        "a graph without priorities",
    ),
    "the sum of another micro-batch is replayed": Mutant(
        STEP,
        "const bool same_work = first || accumulator.repeats();",
        "const bool same_work = true;",
        ("fake_nccl_tests", "*FakeNcclTraining.Elastic*/1"),
        OTHER_BITS,
    ),
    "ranks sum different counts": Mutant(
        NCCL,
        "nccl_.AllReduce(data, data, count, Native(type)",
        "nccl_.AllReduce(data, data, count - (count > 100 && rank() == 1), Native(type)",
        NCCL_TRAINING,
        "NCCL: rank 0 calls ncclAllReduce of .* where rank 1 calls",
    ),
    "a communicator ends without its peers": Mutant(
        NCCL,
        "return nccl_.CommFinalize(comm); }, kDeadline",
        "return ncclSuccess; }, kDeadline",
        NCCL_RECORDED,
        "ncclCommDestroy before the end of ncclCommFinalize",
    ),
    "builds share a handle": Mutant(
        CUDNN,
        "      if (!idle_.empty()) {\n        const cudnnHandle_t handle = idle_.back();\n        idle_.pop_back();\n",
        "      if (!idle_.empty()) {\n        const cudnnHandle_t handle = idle_.front();\n",
        TUNING,
        "cuDNN: two threads use a handle at a time",
    ),
    "builds are for the first GPU": Mutant(
        TUNER, "    DEEPER_CUDA_CHECK(cudaSetDevice(gpu));\n", "", TUNING, "gpu$|expected_gpu"
    ),
    "memory stays registered": Mutant(
        NCCL,
        "    for (void* registration : registrations_) nccl_.CommDeregister(all(), registration);\n",
        "",
        NCCL_RECORDED,
        "ncclCommDestroy with registered memory",
    ),
}


def command_of(build, file):
    """How the build compiles a source file."""
    entries = json.loads((build / "compile_commands.json").read_text())
    return next(shlex.split(entry["command"]) for entry in entries if entry["file"] == str(ROOT / file))


def link_of(build, target):
    lines = subprocess.run(
        ["ninja", "-C", build, "-t", "commands", f"tests/{target}"], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    return next(line for line in reversed(lines) if f"-o tests/{target} " in line).split("&&")[1]


def changed_source(name, mutant):
    source = (ROOT / mutant.file).read_text()
    assert source.count(mutant.old) == 1, f"{name}: {mutant.file} has {source.count(mutant.old)} places like this:\n{mutant.old}"
    return source.replace(mutant.old, mutant.new)


def build_mutant(build, name, mutant):
    """The path of the test with the fault in it."""
    source = changed_source(name, mutant)
    directory = build / "mutants" / name.replace(" ", "-").replace("'", "")
    directory.mkdir(parents=True, exist_ok=True)
    changed = directory / pathlib.Path(mutant.file).name
    changed.write_text(source)
    compile_command = command_of(build, mutant.file)
    compile_command[compile_command.index("-o") + 1] = str(changed) + ".o"
    compile_command[compile_command.index("-c") + 1] = str(changed)
    subprocess.run([*compile_command, "-O0", "-Wno-error"], check=True, cwd=build)
    target = mutant.test[0]
    # Before the libraries, whose own member is then left out.
    link = link_of(build, target).replace(f" -o tests/{target} ", f" {changed}.o -o {directory / target} ", 1)
    subprocess.run(link, check=True, cwd=build, shell=True)
    return directory / target


def finding(build, name, mutant):
    """The line that shows the fault, or None."""
    test = build_mutant(build, name, mutant)
    for seed in range(4):  # fake_cuda_tests goes through the seeds itself
        environment = {**os.environ, "DEEPER_FAKE_CUDA": f"seed={seed}", "OMP_NUM_THREADS": "1"}
        if mutant.test in ON_DEVICE:
            environment["DEEPER_TEST_DEVICE"] = "cuda"
        run = subprocess.run(
            [test, f"--gtest_filter={mutant.test[1]}"], env=environment, capture_output=True, text=True, errors="replace", timeout=TIME_LIMIT
        )
        found = re.search(f"^.*(?:{mutant.message}).*$", run.stdout + run.stderr, re.MULTILINE)
        if run.returncode != 0 or mutant.test not in ON_DEVICE:
            test.unlink()
            return (
                found.group(0)[:200]
                if run.returncode != 0 and found
                else f"NOT FOUND: exit status {run.returncode}: {(run.stdout + run.stderr)[-2000:]}"
            )
    return "NOT FOUND in 4 seeds"


def main():
    if sys.argv[1] == "--check":
        for name, mutant in MUTANTS.items():
            changed_source(name, mutant)
        return 0
    build = pathlib.Path(sys.argv[1]).resolve()
    names = sys.argv[2:] or list(MUTANTS)
    missed = 0
    for name in names:
        message = finding(build, name, MUTANTS[name])
        missed += message.startswith("NOT FOUND")
        print(f"{name}: {message}", flush=True)
    print(f"{len(names) - missed} of {len(names)} mutants found")
    return missed > 0


if __name__ == "__main__":
    sys.exit(main())
