#!/usr/bin/env python3
"""Compares the scaling of data-parallel training in deeper and in PyTorch DDP over gloo, in turns on the same cores and links.

  tests/benchmarks/ddp_scaling.py --deeper build/cpu-release/launch/deeper --ranks=1,2,4 --rates=none,1gbit,200mbit

GoogLeNet with the small stem on images of 32 px, with both auxiliary heads, 28.7 MB of gradients, fp32, one thread per rank. With --rates, ranks
are divided over two hosts, which are network namespaces of this machine (needs root); "none" is a link without a limit. Without --rates, all
ranks are on this host. Both programs run under the same mpirun; PyTorch's jobs stay and wait between measurements, since importing it takes
long. A round measures every point with both; figures are medians over the rounds, with the range of the images/s. A run during which the
machine paused is repeated. JSON is on the last line.

- images/s: by the clock over all timed steps. deeper makes a new batch in every step (--synthetic); PyTorch reuses one.
- efficiency: images/s per rank over those of one rank in the same round.
- exposed: from the end of backward to the sum of the last gradient, the shortest wait of any rank, ms per step. In PyTorch, backward ends when
  the gradient of the first layer is there.
"""
import argparse
import datetime
import json
import math
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "multinode"))
import hosts
from undisturbed import undisturbed

PARAMETERS = 7180622
IMAGE, CLASSES = 32, 10


def small_googlenet():
    import torch.nn as nn
    from pytorch_googlenet import SeedGoogLeNet, conv
    net = SeedGoogLeNet(CLASSES)
    net.stem = nn.Sequential(conv(3, 64, 3, padding=1), conv(64, 64, 1), conv(64, 192, 3, padding=1), nn.MaxPool2d(3, 2, 1))
    for head in net.aux1, net.aux2:
        head.fc1 = nn.Linear(512, 1024)
    assert sum(p.numel() for p in net.parameters()) == PARAMETERS
    return net


def train_with_ddp(options):
    """One rank. Rank 0 measures for each line of its input and prints a line of JSON."""
    import torch
    import torch.distributed as dist
    import torch.nn.functional as F
    rank, size = int(os.environ["OMPI_COMM_WORLD_RANK"]), int(os.environ["OMPI_COMM_WORLD_SIZE"])
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dist.init_process_group("gloo", init_method=f"tcp://{options.master}", rank=rank, world_size=size,
                            timeout=datetime.timedelta(days=1))
    module = small_googlenet().to(memory_format=torch.channels_last).train()
    net = torch.nn.parallel.DistributedDataParallel(module, gradient_as_bucket_view=True) if size > 1 else module
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    images = torch.randn(options.batch, 3, IMAGE, IMAGE).to(memory_format=torch.channels_last)
    labels = torch.randint(0, CLASSES, (options.batch,))
    backward_ended = [0.0]
    for parameter in module.stem[0].parameters():
        parameter.register_hook(lambda _: backward_ended.__setitem__(0, time.perf_counter()))

    def step():
        main, aux2, aux1 = net(images)
        loss = F.cross_entropy(main, labels) + 0.3 * (F.cross_entropy(aux1, labels) + F.cross_entropy(aux2, labels))
        loss.backward()
        waited = time.perf_counter() - backward_ended[0]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return waited

    def measure():
        for _ in range(options.warmup):
            step()
        dist.barrier()
        start = time.perf_counter()
        waits = [step() for _ in range(options.steps)]
        dist.barrier()
        seconds = time.perf_counter() - start
        shortest = torch.tensor(waits)
        dist.all_reduce(shortest, dist.ReduceOp.MIN)
        return {"images_per_second": options.steps * options.batch * size / seconds, "step_ms": 1e3 * seconds / options.steps,
                "exposed_ms": 1e3 * float(shortest.mean()) if size > 1 else 0.0, "version": torch.__version__}

    while True:
        going_on = torch.tensor([1 if rank == 0 and sys.stdin.readline() else 0])
        dist.broadcast(going_on, 0)
        if not going_on:
            break
        result = measure()
        if rank == 0:
            print(json.dumps(result), flush=True)
    dist.destroy_process_group()


def run(command):
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"exit code {done.returncode} from {shlex.join(map(str, command))}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return done.stdout


class Programs:
    """Runs either program on a number of ranks, on one host or on two."""

    def __init__(self, options, network):
        self.options, self.network = options, network
        self.peers = {}  # by ranks: PyTorch jobs, which wait between measurements

    def launcher(self, ranks, *mpirun_flags):
        if self.network is None:
            words = [self.options.mpirun, "--allow-run-as-root", "--oversubscribe", "--bind-to", "none"]
        else:
            places = sorted(hosts.NAMES[rank % 2] for rank in range(ranks))
            words = self.network.launch(self.options.mpirun, places, timeout=24 * 3600)[:-2]
        return [*words, *mpirun_flags, "-n", ranks]

    def deeper(self, ranks):
        options = self.options
        window = math.gcd(options.warmup, options.steps)
        with tempfile.TemporaryDirectory() as directory:
            metrics = Path(directory, "metrics")
            run([*self.launcher(ranks), options.deeper, "train", "--synthetic", f"--synthetic_samples={4 * options.batch * ranks}",
                 "--val_split=none", "--model=googlenet", "--stem=small", f"--image_size={IMAGE}", f"--num_classes={CLASSES}",
                 "--threads=1", "--bucket_mib=8", f"--global_batch={options.batch * ranks}",
                 f"--max_steps={options.warmup + options.steps}", f"--log_every={window}", f"--metrics_out={metrics}"])
            events = [event for event in map(json.loads, metrics.read_text().splitlines()) if event["event"] == "step"]
        timed = [event for event in events if event["step"] > options.warmup]
        step_ms = statistics.mean(event["step_ms"] for event in timed)
        return {"images_per_second": 1e3 * options.batch * ranks / step_ms, "step_ms": step_ms,
                "exposed_ms": statistics.mean(event["comm_exposed_ms"] for event in timed)}

    def pytorch(self, ranks):
        options = self.options
        if ranks not in self.peers:
            interface, address = ("lo", "127.0.0.1") if self.network is None else ("eth0", hosts.ADDRESSES[hosts.NAMES[0]])
            command = [*self.launcher(ranks, "-x", f"GLOO_SOCKET_IFNAME={interface}"), options.python, Path(__file__).resolve(),
                       f"--master={address}:{20000 + (os.getpid() + ranks) % 10000}", f"--batch={options.batch}",
                       f"--steps={options.steps}", f"--warmup={options.warmup}"]
            self.peers[ranks] = subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        peer = self.peers[ranks]
        peer.stdin.write("measure\n")
        peer.stdin.flush()
        return json.loads(peer.stdout.readline() or sys.exit(f"PyTorch on {ranks} ranks ended: exit code {peer.wait()}"))

    def close(self):
        for peer in self.peers.values():
            peer.stdin.close()
            peer.wait()


def measure(options, network):
    """Returns {(rate, ranks): {program: [result of each round]}}. One rank has no link."""
    programs = Programs(options, network)
    results = {}
    try:
        for ranks in options.ranks:
            programs.pytorch(ranks)  # starts them
        for number in range(options.repeats):
            for rate in options.rates:
                if network is not None:
                    network.limit(None if rate == "none" else rate)
                for ranks in options.ranks:
                    if ranks == 1 and rate != options.rates[0]:
                        continue
                    for name in ("deeper", "pytorch") if number % 2 == 0 else ("pytorch", "deeper"):
                        result = undisturbed(lambda name=name, ranks=ranks: getattr(programs, name)(ranks), options.most_busy)
                        results.setdefault((rate, ranks), {}).setdefault(name, []).append(result)
                        print(f"round {number + 1}: {rate}, {ranks} ranks, {name}: {result['images_per_second']:.1f} images/s, "
                              f"exposed {result['exposed_ms']:.1f} ms, load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
    finally:
        programs.close()
    return results


def report(options, results):
    one = results.get((options.rates[0], 1))
    rows = []
    print(f"{'link':9}{'ranks':>6}  {'program':9}{'images/s: median (range)':>28}{'efficiency':>12}{'step ms':>10}{'exposed ms':>12}")
    for (rate, ranks), programs in results.items():
        for name, rounds in programs.items():
            rates = [result["images_per_second"] for result in rounds]
            efficiencies = [mine / ranks / alone["images_per_second"] for mine, alone in zip(rates, one[name])] if one else []
            row = {"link": rate, "ranks": ranks, "program": name, "images_per_second": rates,
                   "efficiency": statistics.median(efficiencies) if efficiencies else None,
                   **{figure: statistics.median(result[figure] for result in rounds) for figure in ("step_ms", "exposed_ms")}}
            rows.append(row)
            spread = f"{statistics.median(rates):.1f} ({min(rates):.1f} to {max(rates):.1f})"
            efficiency = "-" if row["efficiency"] is None else f"{100 * row['efficiency']:.1f} %"
            print(f"{rate:9}{ranks:6}  {name:9}{spread:>28}{efficiency:>12}{row['step_ms']:10.1f}{row['exposed_ms']:12.1f}")
    cpu = next(line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
    torch = next(iter(results.values()))["pytorch"][0]["version"]
    print(json.dumps({"cpu": cpu, "cores": os.cpu_count(), "python": platform.python_version(), "torch": torch, "batch": options.batch,
                      "steps": options.steps, "warmup": options.warmup, "rows": rows}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deeper")
    parser.add_argument("--mpirun", default="mpirun")
    parser.add_argument("--python", default="/usr/bin/python3", help="Python interpreter with torch")
    parser.add_argument("--ranks", type=lambda text: [int(word) for word in text.split(",")], default=[1, 2, 4])
    parser.add_argument("--rates", type=lambda text: text.split(","), help="limits of the links between two hosts, in tc's units, or none")
    parser.add_argument("--batch", type=int, default=8, help="images per rank")
    parser.add_argument("--steps", type=int, default=20, help="timed steps per run")
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=5, help="number of rounds")
    parser.add_argument("--most_busy", type=float, default=1, help="share of the cores that others may take when a run starts")
    parser.add_argument("--master", help=argparse.SUPPRESS)  # this is a rank of PyTorch: the address of rank 0
    options = parser.parse_args()
    if options.master:
        return train_with_ddp(options)
    if options.rates is None:
        options.rates = ["one host"]
        return report(options, measure(options, None))
    if reason := hosts.obstacle():
        sys.exit(f"not run: {reason}")
    with hosts.Hosts() as network:
        return report(options, measure(options, network))


if __name__ == "__main__":
    main()
