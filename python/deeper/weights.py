"""Weights of checkpoints and of weights files: docs/reference/formats.md."""
from __future__ import annotations

import json
import os
import pathlib
from typing import Any, Dict, List, Literal, NamedTuple, Tuple, Union, overload

import h5py
import numpy as np
from numpy.typing import NDArray

Path = Union[str, "os.PathLike[str]"]
StateDict = Dict[str, NDArray[np.float32]]

HDF5 = b"\x89HDF\r\n\x1a\n"
LONGEST_HEADER = 100_000_000  # bytes, of safetensors


class Weights(NamedTuple):
    tensors: StateDict  # weights and batch-normalisation statistics, by PyTorch's names
    config: Dict[str, Any]  # the network: model, num_classes, classes, image_size, mean, std, ...


@overload
def load_state_dict(path: Path, *, as_torch: Literal[False] = False, use_ema: bool = True) -> StateDict: ...
@overload
def load_state_dict(path: Path, *, as_torch: Literal[True], use_ema: bool = True) -> Dict[str, Any]: ...
def load_state_dict(path: Path, *, as_torch: bool = False, use_ema: bool = True) -> Dict[str, Any]:
    """The weights at `path`, by PyTorch's names, without the optimizer's state. Each is a new float32 array, or a torch.Tensor.

    path: a weights file of `deeper export` (HDF5 or safetensors), the directory of a step, or a directory of them: its newest step.
    use_ema: take the moving averages of a checkpoint that has them (`train --ema_decay`), not the last weights.
    Raises FileNotFoundError, or ValueError for a file of another format or a damaged one. `deeper verify` checks checksums; this does not.
    """
    tensors = read_weights(path, use_ema).tensors
    if not as_torch:
        return tensors
    import torch

    return {name: torch.from_numpy(value) for name, value in tensors.items()}


def read_weights(path: Path, use_ema: bool = True) -> Weights:
    """Of what load_state_dict accepts, and with its errors."""
    path = pathlib.Path(path)
    if path.is_dir():
        return read_checkpoint(newest_step(path), use_ema)
    with path.open("rb") as file:
        head = file.read(9)
    if head.startswith(HDF5):
        return read_hdf5(path)
    if head[8:] == b"{" and int.from_bytes(head[:8], "little") <= LONGEST_HEADER:
        return read_safetensors(path)
    raise ValueError(f"{path} is neither an HDF5 file nor a safetensors file: give a file of `deeper export`, or a checkpoint")


def newest_step(path: pathlib.Path) -> pathlib.Path:
    if (path / "manifest.json").exists():
        return path
    steps = [step for step in path.glob("step-*") if step.name[5:].isdigit() and (step / "manifest.json").exists()]
    if not steps:
        raise FileNotFoundError(f"{path} holds no checkpoint: neither manifest.json nor step-N/manifest.json")
    return max(steps, key=lambda step: int(step.name[5:]))


def check_format(path: pathlib.Path, facts: Any, expected: str) -> None:
    """facts: those of a manifest, or the attributes of an HDF5 file."""
    name, version = facts.get("format"), facts.get("format_version")
    name = name.decode(errors="replace") if isinstance(name, bytes) else name
    if (name, version) != (expected, 1):
        raise ValueError(f"{path}: the format is {name} {version}, expected {expected} 1")


def read_json(path: pathlib.Path) -> Dict[str, Any]:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(facts, dict):
        raise ValueError(f"{path} is not a JSON object")
    return facts


def open_hdf5(path: pathlib.Path, expected: str) -> h5py.File:
    try:
        file = h5py.File(path, "r")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"{path} is damaged, or not an HDF5 file: {error}") from None
    try:
        check_format(path, file.attrs, expected)
    except ValueError:
        file.close()
        raise
    return file


def read_checkpoint(step: pathlib.Path, use_ema: bool) -> Weights:
    path = step / "manifest.json"
    manifest = read_json(path)
    check_format(path, manifest, "deeper-checkpoint")
    parts: List[NDArray[np.float32]] = []
    for shard in manifest["shards"]:
        with open_hdf5(step / shard["file"], "deeper-checkpoint-shard") as file:
            if file.attrs["step"] != manifest["step"] or file.attrs["first_element"] != sum(len(part) for part in parts):
                raise ValueError(f"{step / shard['file']} belongs to another checkpoint than {path}")
            parts.append(file["state"][:])
    state = np.concatenate(parts)
    if len(state) != sum(tensor["count"] for tensor in manifest["tensors"]):
        raise ValueError(f"{step}: the shards hold {len(state)} elements, and the manifest lists another number")
    averages = use_ema and any(tensor["role"] == "weight_average" for tensor in manifest["tensors"])
    roles = ("weight_average", "statistic_average") if averages else ("weight", "statistic")
    tensors = {tensor["name"]: state[tensor["first"] : tensor["first"] + tensor["count"]].reshape(tensor["shape"]).copy()
               for tensor in manifest["tensors"] if tensor["role"] in roles}
    return Weights(tensors, manifest["config"])


def read_hdf5(path: pathlib.Path) -> Weights:
    with open_hdf5(path, "deeper-weights") as file:
        return Weights({name: tensor[()] for name, tensor in file.items()}, json.loads(file.attrs["config"]))


def read_safetensors(path: pathlib.Path) -> Weights:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(length))
            content = file.read()
            config = json.loads(header.pop("__metadata__", {}).get("config", "{}"))
            return Weights({name: safetensor(content, **entry) for name, entry in header.items()}, config)
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is damaged, or not a safetensors file of deeper: {error}") from None


def safetensor(content: bytes, dtype: str, shape: Tuple[int, ...], data_offsets: Tuple[int, int]) -> NDArray[np.float32]:
    if dtype != "F32":
        raise ValueError(f"a tensor is {dtype}, expected F32")
    begin, end = data_offsets
    if not 0 <= begin <= end <= len(content):
        raise ValueError("the file is cut off")
    return np.frombuffer(content[begin:end], "<f4").reshape(shape).astype(np.float32)
