#!/usr/bin/env python3
"""Benchmark of GoogLeNet's training throughput in PyTorch, for comparison. Runs on torch 1.13 .. 2.11, CUDA or CPU.

Fastest expected settings on a Hopper GPU (synthetic data resident on the GPU, no loader):
  python3 pytorch_googlenet.py --device cuda --batch 256 --compile max-autotune --amp bf16 --model seed
  python3 pytorch_googlenet.py --device cuda --batch 256 --compile max-autotune --amp bf16 --model torchvision
Search for the best settings:  --batch 256,512,1024 --compile none,default,max-autotune (comma lists are tried in turn)
CPU smoke test:  python3 pytorch_googlenet.py --device cpu --batch 2 --compile none --amp none --model seed --steps 1 --warmup 0

One step = (optional uint8->normalised input cast) + forward (+2 aux heads) + loss + backward + SGD(momentum 0.9, wd 1e-4).
Prints one line per configuration: median img/s over --repeats windows of --steps steps, peak memory, last loss.
"""
import argparse
import contextlib
import statistics
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F


class Inception(nn.Module):
    def __init__(self, cin, c1, c2, c3, c4, bn=False):
        super().__init__()
        self.b1 = conv(cin, c1, 1, bn=bn)
        self.b2 = nn.Sequential(conv(cin, c2[0], 1, bn=bn), conv(c2[0], c2[1], 3, padding=1, bn=bn))
        self.b3 = nn.Sequential(conv(cin, c3[0], 1, bn=bn), conv(c3[0], c3[1], 5, padding=2, bn=bn))
        self.b4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(cin, c4, 1, bn=bn))

    def forward(self, x):
        return torch.cat((self.b1(x), self.b2(x), self.b3(x), self.b4(x)), 1)


def conv(cin, cout, k, bn=False, **kw):
    if bn:
        return nn.Sequential(nn.Conv2d(cin, cout, k, bias=False, **kw), nn.BatchNorm2d(cout, eps=1e-3), nn.ReLU(inplace=True))
    return nn.Sequential(nn.Conv2d(cin, cout, k, **kw), nn.ReLU(inplace=True))


class AuxHead(nn.Module):
    def __init__(self, cin, classes, bn=False):
        super().__init__()
        self.pool, self.conv = nn.AvgPool2d(5, 3), conv(cin, 128, 1, bn=bn)
        self.fc1, self.drop, self.fc2 = nn.Linear(2048, 1024), nn.Dropout(0.7), nn.Linear(1024, classes)

    def forward(self, x):
        x = torch.flatten(self.conv(self.pool(x)), 1)
        return self.fc2(self.drop(F.relu(self.fc1(x))))


class SeedGoogLeNet(nn.Module):
    """GoogLeNet of the d2l.ai book, 224x224x3 input, no BN (bn=True adds torchvision-style conv-BN-ReLU), optional aux heads."""
    CFG = dict(a3=(192, 64, (96, 128), (16, 32), 32), b3=(256, 128, (128, 192), (32, 96), 64),
               a4=(480, 192, (96, 208), (16, 48), 64), b4=(512, 160, (112, 224), (24, 64), 64), c4=(512, 128, (128, 256), (24, 64), 64),
               d4=(512, 112, (144, 288), (32, 64), 64), e4=(528, 256, (160, 320), (32, 128), 128),
               a5=(832, 256, (160, 320), (32, 128), 128), b5=(832, 384, (192, 384), (48, 128), 128))

    def __init__(self, classes=1000, aux=True, bn=False):
        super().__init__()
        self.stem = nn.Sequential(conv(3, 64, 7, stride=2, padding=3, bn=bn), nn.MaxPool2d(3, 2, 1), conv(64, 64, 1, bn=bn),
                                  conv(64, 192, 3, padding=1, bn=bn), nn.MaxPool2d(3, 2, 1))
        m = {k: Inception(*v, bn=bn) for k, v in self.CFG.items()}
        self.s3 = nn.Sequential(m["a3"], m["b3"], nn.MaxPool2d(3, 2, 1))
        self.s4a, self.s4bcd, self.s4e = m["a4"], nn.Sequential(m["b4"], m["c4"], m["d4"]), nn.Sequential(m["e4"], nn.MaxPool2d(3, 2, 1))
        self.s5 = nn.Sequential(m["a5"], m["b5"], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.4))
        self.fc = nn.Linear(1024, classes)
        self.aux1 = AuxHead(512, classes, bn) if aux else None
        self.aux2 = AuxHead(528, classes, bn) if aux else None
        for p in self.modules():
            if isinstance(p, (nn.Conv2d, nn.Linear)):
                nn.init.xavier_uniform_(p.weight)
                if p.bias is not None:
                    nn.init.zeros_(p.bias)

    def forward(self, x):
        x4a = self.s4a(self.s3(self.stem(x)))
        x4d = self.s4bcd(x4a)
        y = self.fc(self.s5(self.s4e(x4d)))
        if self.training and self.aux1 is not None:
            return y, self.aux2(x4d), self.aux1(x4a)
        return y


def build(name, aux):
    if name in ("seed", "seed-bn"):
        return SeedGoogLeNet(aux=aux, bn=name == "seed-bn")
    import torchvision
    try:
        return torchvision.models.googlenet(weights=None, aux_logits=aux, init_weights=False)
    except TypeError:
        return torchvision.models.googlenet(pretrained=False, aux_logits=aux, init_weights=False)


def bench(a, batch, comp, name):
    dev = torch.device(a.device)
    cuda = dev.type == "cuda"
    torch.manual_seed(0)
    if cuda:
        torch.backends.cudnn.benchmark = not a.deterministic
        torch.backends.cudnn.deterministic = a.deterministic
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        if hasattr(torch, "set_float32_matmul_precision"):
            torch.set_float32_matmul_precision("high")
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    aux = not a.no_aux
    net = build(name, aux).to(dev).train()
    if not a.nchw:
        net = net.to(memory_format=torch.channels_last)
    lr = torch.tensor(0.01, device=dev) if (cuda and a.tensor_lr) else 0.01
    kw = {}
    if cuda:
        kw = {"fused": True} if a.opt == "fused" else {"foreach": a.opt == "foreach"}
    try:
        opt = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9, weight_decay=1e-4, **kw)
    except (TypeError, RuntimeError):
        opt = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    dt = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(a.amp)
    if a.ipex:  # Intel's extension: its own layouts of weights, and bf16 weights with fp32 masters
        import intel_extension_for_pytorch
        net, opt = intel_extension_for_pytorch.optimize(net, optimizer=opt, dtype=dt or torch.float32)

    def autocast():
        if dt is None:
            return contextlib.nullcontext()
        return torch.autocast(device_type=dev.type, dtype=dt)

    mean = torch.tensor([0.485, 0.456, 0.406], device=dev).view(1, 3, 1, 1) * 255
    inv = 1.0 / (torch.tensor([0.229, 0.224, 0.225], device=dev).view(1, 3, 1, 1) * 255)
    fmt = torch.contiguous_format if a.nchw else torch.channels_last
    u8 = torch.randint(0, 256, (batch, 3, 224, 224), device=dev, dtype=torch.uint8).contiguous(memory_format=fmt)
    tgt = torch.randint(0, 1000, (batch,), device=dev)

    def loss_fn(u8, tgt):
        x = (u8.float() - mean) * inv
        with autocast():
            o = net(x)
            if isinstance(o, tuple):
                main, aux2, aux1 = o[0], o[1], o[2]
                loss = F.cross_entropy(main.float(), tgt)
                if aux1 is not None:
                    loss = loss + 0.3 * (F.cross_entropy(aux1.float(), tgt) + F.cross_entropy(aux2.float(), tgt))
            else:
                loss = F.cross_entropy(o.float(), tgt)
        return loss

    graph_step = None
    fwd = loss_fn
    if comp != "none" and comp != "cudagraph":
        if not hasattr(torch, "compile"):
            print("torch.compile is not in torch", torch.__version__, "- skipped", file=sys.stderr)
            return
        fwd = torch.compile(loss_fn, mode=None if comp == "default" else comp, fullgraph=a.fullgraph)

    def step(u8, tgt):
        loss = fwd(u8, tgt)
        loss.backward()
        opt.step()
        opt.zero_grad(set_to_none=True)
        return loss

    if comp == "cudagraph":  # eager kernels, whole step (forward, backward, optimizer) in one CUDA graph
        s = torch.cuda.Stream()
        s.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(s):
            for _ in range(max(3, a.warmup)):
                step(u8, tgt)
        torch.cuda.current_stream().wait_stream(s)
        torch.cuda.synchronize()
        g = torch.cuda.CUDAGraph()
        opt.zero_grad(set_to_none=True)
        with torch.cuda.graph(g):
            static_loss = loss_fn(u8, tgt)
            static_loss.backward()
            opt.step()

        def graph_step():
            g.replay()
            return static_loss

    run = graph_step or (lambda: step(u8, tgt))
    sync = torch.cuda.synchronize if cuda else (lambda: None)
    t0 = time.time()
    loss = None
    for _ in range(a.warmup):
        loss = run()
    sync()
    t_warm = time.time() - t0
    rates = []
    for _ in range(a.repeats):
        sync()
        t0 = time.time()
        for _ in range(a.steps):
            loss = run()
        sync()
        rates.append(a.steps * batch / (time.time() - t0))
    mem = torch.cuda.max_memory_allocated() / 2**30 if cuda else 0.0
    if not cuda:
        import resource
        mem = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    n = sum(p.numel() for p in net.parameters())
    print(f"model={name} aux={int(aux)} params={n} batch={batch} amp={a.amp} compile={comp} opt={a.opt} layout={'nchw' if a.nchw else 'nhwc'} "
          f"torch={torch.__version__} median_img_s={statistics.median(rates):.2f} min={min(rates):.2f} max={max(rates):.2f} "
          f"ms_step={1e3*batch/statistics.median(rates):.2f} peak_GiB={mem:.2f} warm_s={t_warm:.1f} loss={float(loss.detach()):.4f}", flush=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    ap.add_argument("--batch", default="256", help="comma-separated list")
    ap.add_argument("--compile", default="none", help="comma-separated list of "
                    "none,cudagraph,default,reduce-overhead,max-autotune,max-autotune-no-cudagraphs")
    ap.add_argument("--amp", default="bf16", choices=("bf16", "fp16", "none"), help="fp16 is for throughput only (no GradScaler)")
    ap.add_argument("--model", default="seed", help="comma-separated list of seed,seed-bn,torchvision")
    ap.add_argument("--steps", type=int, default=30)
    ap.add_argument("--repeats", type=int, default=5)
    ap.add_argument("--warmup", type=int, default=10)
    ap.add_argument("--opt", default="fused", choices=("fused", "foreach", "plain"))
    ap.add_argument("--no-aux", action="store_true")
    ap.add_argument("--nchw", action="store_true")
    ap.add_argument("--ipex", action="store_true", help="with intel_extension_for_pytorch, on a CPU")
    ap.add_argument("--fullgraph", action="store_true")
    ap.add_argument("--inductor", default="", help="torch._inductor.config settings, separated by semicolons: "
                    "\"conv_1x1_as_mm=True;coordinate_descent_tuning=True;max_autotune_conv_backends='ATEN,TRITON'\"")
    ap.add_argument("--deterministic", action="store_true")
    ap.add_argument("--tensor-lr", action="store_true", help="lr as a device tensor (schedulable without recompiling / inside a CUDA graph)")
    a = ap.parse_args()
    if a.inductor:
        import ast
        import torch._inductor.config as icfg
        for kv in a.inductor.split(";"):
            k, v = kv.split("=", 1)
            obj = icfg
            for part in k.strip().split(".")[:-1]:
                obj = getattr(obj, part)
            if hasattr(obj, k.strip().split(".")[-1]):
                setattr(obj, k.strip().split(".")[-1], ast.literal_eval(v.strip()))
            else:
                print("no inductor setting", k, file=sys.stderr)
    for name in a.model.split(","):
        for comp in a.compile.split(","):
            for b in a.batch.split(","):
                try:
                    bench(a, int(b), comp, name)
                except Exception as e:  # out of memory or unsupported mode: report it and continue with the next configuration
                    print(f"model={name} batch={b} compile={comp} FAILED {type(e).__name__}: {str(e)[:300]}", flush=True)
                if hasattr(torch, "_dynamo") and hasattr(torch._dynamo, "reset"):
                    torch._dynamo.reset()


if __name__ == "__main__":
    main()
