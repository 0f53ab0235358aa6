#!/usr/bin/env python3
"""An independent PyTorch implementation of the networks in docs/reference/models.md, with weights and images given by a formula.

  torch_reference.py CASE...              writes CASE.json in this folder: logits, losses, a fingerprint of each gradient
  torch_reference.py --dump DIR CASE...   writes DIR/CASE.h5: each gradient in full

tests/trainer/engine/parity_test.cpp creates the same weights and images with the project's generator (kernels/base/rng.h) and compares the results.
"""
import argparse
import json
import pathlib
import sys
import typing

import h5py
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

PROJECTIONS = 4


class Case(typing.NamedTuple):
    """A small network in which every layer still has an effect."""
    model: str
    image_size: int
    image_seed: int  # chosen so that values stay away from kinks
    batch: int = 2
    classes: int = 20
    aux: bool = False  # not with batch norm, which would see one value per sample there
    stem: str = "default"
    blur_pool: bool = False
    # Relative to a tensor's norm. The first is for logits, losses and statistics.
    tolerance: float = 1e-4
    gradient_tolerance: float = 1e-4


# Batch norm amplifies rounding from layer to layer, until a ReLU switches. PyTorch's own float32 gradients differ by up to 6 % from
# float64. An error in a network, as opposed to a kernel, causes a larger difference.
CASES = {
    "googlenet": Case("googlenet", 48, 1, aux=True),
    "googlenet-small-stem": Case("googlenet", 16, 1, aux=True, stem="small"),
    "googlenet-blurred": Case("googlenet", 24, 10, aux=True, stem="medium", blur_pool=True),
    "nin": Case("nin", 100, 3),
    "nin-bn": Case("nin-bn", 100, 1, batch=4, tolerance=5e-4, gradient_tolerance=0.1),
    "nin-cifar": Case("nin-cifar", 16, 14),
    "nin-cifar-bn": Case("nin-cifar-bn", 16, 1, batch=4, tolerance=5e-4, gradient_tolerance=0.1),
    "googlenet-bn": Case("googlenet-bn", 64, 1, batch=4, tolerance=5e-4, gradient_tolerance=0.1),
    "googlenet-torchvision": Case("googlenet-torchvision", 64, 4, batch=4, tolerance=5e-4, gradient_tolerance=0.1),
}
# Minimum distance, for tight tolerances, of values from a ReLU's zero and from each other within a pool's window. It is several times the
# rounding error.
MIN_MARGIN = 3e-6
margin = np.inf  # the smallest so far, relative to the tensor's root mean square


def random_blocks(name, count, seed=1):
    """[count, 4]: the first blocks of Rng(seed, RandomStream(name), 0, 0)."""
    stream = 2166136261
    for byte in name.encode():
        stream = (stream ^ byte) * 16777619 & 0xFFFFFFFF
    key = seed ^ (stream << 32 | stream)
    k0, k1, low = key & 0xFFFFFFFF, key >> 32, np.uint64(0xFFFFFFFF)
    c0, c1, c2, c3 = np.arange(count, dtype=np.uint64), *np.zeros((3, count), np.uint64)
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (p1 >> np.uint64(32)) ^ c1 ^ np.uint64(k0), p1 & low, (p0 >> np.uint64(32)) ^ c3 ^ np.uint64(k1), p0 & low
        k0, k1 = k0 + 0x9E3779B9 & 0xFFFFFFFF, k1 + 0xBB67AE85 & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=1).astype(np.uint32)


def symmetric(words):
    """Uniform in [-1, 1), exact in float32."""
    return 2 * ((words >> 8).astype(np.float32) / np.float32(1 << 24)) - 1


def draw(name, shape, seed=1):
    count = int(np.prod(shape))
    return symmetric(random_blocks(name, (count + 3) // 4, seed).ravel()[:count]).reshape(shape)


def initial_value(name, shape):
    uniform = draw(name, shape)
    if len(shape) > 1:
        return uniform * np.float32(np.sqrt(6 / np.prod(shape[1:])))
    if name.endswith(("bn.weight", "running_var")):
        return 1 + uniform / 2
    return uniform / 8


def note_margin(distances, x):
    global margin
    margin = min(margin, (distances.detach().abs().min() / x.detach().square().mean().sqrt()).item())


def relu(x):
    note_margin(x, x)
    return torch.relu(x)


def max_pool(x, kernel, stride, pad=0, ceil_mode=False):
    y = F.max_pool2d(x, kernel, stride, pad, ceil_mode=ceil_mode)
    side = (y.shape[-1] - 1) * stride + kernel - x.shape[-1] - pad
    windows = F.pad(x.detach(), (pad, side, pad, side), value=-1).unfold(2, kernel, stride).unfold(3, kernel, stride)
    first, second = windows.flatten(4).topk(2).values.unbind(-1)
    # Equal values are copies of one value, means of such copies, or zeros of a ReLU: no kink.
    gaps = (first - second)[first - second > 1e-12 * first.abs()]
    note_margin(gaps, x)
    return y


class Conv(nn.Module):
    def __init__(self, inputs, outputs, kernel=1, stride=1, pad=0, norm=False):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, pad, bias=not norm)
        if norm:
            self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x):
        x = self.conv(x)
        return relu(self.bn(x) if hasattr(self, "bn") else x)


class MaxPool(nn.Module):
    def __init__(self, *window):
        super().__init__()
        self.window = window

    def forward(self, x):
        return max_pool(x, *self.window)


class Inception(nn.Module):
    def __init__(self, inputs, c1, c2, c3, c4, branch3_kernel, norm):
        super().__init__()
        self.branch1 = Conv(inputs, c1, norm=norm)
        self.branch2 = nn.Sequential(Conv(inputs, c2[0], norm=norm), Conv(c2[0], c2[1], 3, pad=1, norm=norm))
        self.branch3 = nn.Sequential(
            Conv(inputs, c3[0], norm=norm), Conv(c3[0], c3[1], branch3_kernel, pad=branch3_kernel // 2, norm=norm))
        self.branch4 = nn.Sequential(MaxPool(3, 1, 1), Conv(inputs, c4, norm=norm))

    def forward(self, x):
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class Aux(nn.Module):
    def __init__(self, inputs, classes, norm):
        super().__init__()
        self.conv = Conv(inputs, 128, norm=norm)
        self.fc1 = nn.Linear(128, 1024)
        self.fc2 = nn.Linear(1024, classes)

    def forward(self, x):
        x = self.conv(x.mean((2, 3), keepdim=True)).flatten(1)  # equals the 5x5/3 average on maps up to 5x5
        return self.fc2(relu(self.fc1(x)))


class GoogLeNet(nn.Module):
    MODULES = {
        "inception3a": (64, (96, 128), (16, 32), 32), "inception3b": (128, (128, 192), (32, 96), 64),
        "inception4a": (192, (96, 208), (16, 48), 64), "inception4b": (160, (112, 224), (24, 64), 64),
        "inception4c": (128, (128, 256), (24, 64), 64), "inception4d": (112, (144, 288), (32, 64), 64),
        "inception4e": (256, (160, 320), (32, 128), 128), "inception5a": (256, (160, 320), (32, 128), 128),
        "inception5b": (384, (192, 384), (48, 128), 128),
    }

    AUX = {"inception4a": "aux1", "inception4d": "aux2"}

    def __init__(self, case):
        super().__init__()
        self.aux, self.stem, self.blur_pool = case.aux, case.stem, case.blur_pool
        self.torchvision, norm = case.model == "googlenet-torchvision", case.model != "googlenet"
        self.conv1 = Conv(3, 64, 3, 1, 1, norm=norm) if case.stem == "small" else Conv(3, 64, 7, 2, 3, norm=norm)
        self.conv2 = Conv(64, 64, norm=norm)
        self.conv3 = Conv(64, 192, 3, pad=1, norm=norm)
        channels = 192
        for name, (c1, c2, c3, c4) in self.MODULES.items():
            self.add_module(name, Inception(channels, c1, c2, c3, c4, 3 if self.torchvision else 5, norm))
            channels = c1 + c2[1] + c3[1] + c4
            if case.aux and name in self.AUX:
                self.add_module(self.AUX[name], Aux(channels, case.classes, norm))
        self.fc = nn.Linear(channels, case.classes)

    def pool(self, x, kernel=3):
        if self.blur_pool:  # Zhang 2019, with the pixels at the borders repeated
            weights = torch.outer(*2 * [torch.tensor([1, 2, 1], dtype=x.dtype) / 4]).expand(x.shape[1], 1, 3, 3)
            x = F.pad(max_pool(x, 3, 1, 1), (1, 1, 1, 1), mode="replicate")
            return F.conv2d(x, weights, stride=2, groups=x.shape[1])
        return max_pool(x, kernel, 2, ceil_mode=True) if self.torchvision else max_pool(x, 3, 2, 1)

    def forward(self, x):
        x = self.conv1(x)
        x = self.pool(self.conv3(self.conv2(self.pool(x) if self.stem == "default" else x)))
        aux = {}
        for name in self.MODULES:
            x = getattr(self, name)(x)
            if self.aux and name in self.AUX:
                aux[self.AUX[name]] = getattr(self, self.AUX[name])(x)
            if name == "inception3b":
                x = self.pool(x)
            elif name == "inception4e":
                x = self.pool(x, 2)
        return {"main": self.fc(x.mean((2, 3))), **aux}


class Nin(nn.Sequential):
    def forward(self, x):
        return {"main": super().forward(x).mean((2, 3))}


def make_nin(case):
    net, classes, norm = Nin(), case.classes, case.model.endswith("-bn")

    def mlpconv(inputs, kernel, stride, pad, *channels):
        return nn.Sequential(Conv(inputs, channels[0], kernel, stride, pad, norm), Conv(channels[0], channels[1], norm=norm),
                             Conv(channels[1], channels[2], norm=norm))

    if case.model in ("nin", "nin-bn"):
        layers = {"mlpconv1": mlpconv(3, 11, 4, 0, 96, 96, 96), "pool1": MaxPool(3, 2),
                  "mlpconv2": mlpconv(96, 5, 1, 2, 256, 256, 256), "pool2": MaxPool(3, 2),
                  "mlpconv3": mlpconv(256, 3, 1, 1, 384, 384, 384), "pool3": MaxPool(3, 2),
                  "mlpconv4": mlpconv(384, 3, 1, 1, 1024, 1024, classes)}
    else:
        layers = {"mlpconv1": mlpconv(3, 5, 1, 2, 192, 160, 96), "pool1": MaxPool(3, 2),
                  "mlpconv2": mlpconv(96, 5, 1, 2, 192, 192, 192), "pool2": nn.AvgPool2d(3, 2),
                  "mlpconv3": mlpconv(192, 3, 1, 1, 192, 192, classes)}
    for name, layer in layers.items():
        net.add_module(name, layer)
    return net


def run(case):
    """Returns logits, the loss of each head, and all tensors that a training step produces: gradients and new BN statistics."""
    net = make_nin(case) if case.model.startswith("nin") else GoogLeNet(case)
    for name, value in net.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            value.copy_(torch.from_numpy(initial_value(name, tuple(value.shape))))
    images = draw("images", (case.batch, 3, case.image_size, case.image_size), case.image_seed) * np.float32(np.sqrt(3))
    labels = torch.from_numpy((random_blocks("labels", case.batch)[:, 0] % case.classes).astype(np.int64))
    logits = net.double().train()(torch.from_numpy(images).double())
    losses = {head: F.cross_entropy(x, labels) for head, x in logits.items()}
    sum(loss * (1 if head == "main" else 0.3) for head, loss in losses.items()).backward()
    tensors = {name: p.grad for name, p in net.named_parameters()}
    tensors.update({name: b for name, b in net.named_buffers() if not name.endswith("num_batches_tracked")})
    return (logits["main"].detach().numpy(), {head: loss.item() for head, loss in losses.items()},
            {name: t.detach().numpy() for name, t in tensors.items()})


def rounded(values):
    return [float(f"{v:.9g}") for v in values]


def fingerprint(name, tensor):
    """Norm, and products with random vectors of variance 1/3, which change by about the size of any error."""
    weights = symmetric(random_blocks(name + "/projection", tensor.size))[:, :PROJECTIONS].astype(np.float64)
    return rounded([np.linalg.norm(tensor), *(tensor.ravel() @ weights)])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="+", choices=CASES)
    parser.add_argument("--dump", metavar="DIR", type=pathlib.Path)
    args = parser.parse_args()
    global margin
    for name in args.cases:
        margin, case = np.inf, CASES[name]
        logits, losses, tensors = run(case)
        print(f"{name}: margin {margin:.1e}")
        if margin < MIN_MARGIN and case.gradient_tolerance < 1e-3:
            sys.exit(f"{name}: too close to a kink, where rounding alone changes gradients: choose another image_seed")
        if args.dump:
            with h5py.File(args.dump / f"{name}.h5", "w") as file:
                for tensor_name, tensor in tensors.items():
                    file[tensor_name] = tensor.astype(np.float32)
            continue
        facts = json.dumps({**case._asdict(), "losses": losses, "logits": rounded(logits.ravel())})
        rows = ",\n".join(f'"{key}": {fingerprint(key, tensor)}' for key, tensor in tensors.items())
        (pathlib.Path(__file__).parent / f"{name}.json").write_text(f'{facts[:-1]}, "tensors": {{\n{rows}}}}}\n')


if __name__ == "__main__":
    main()
