"""Packed shards as a data set for PyTorch: docs/reference/formats.md."""
from __future__ import annotations

import io
import operator
import os
import pathlib
from typing import Any, Callable, Dict, List, Optional, Tuple

import numpy as np
from numpy.typing import NDArray

from deeper.weights import Path, check_format, open_hdf5, read_json

MOST_OPEN_FILES = 256
INDEX = ("offset", "length", "label", "height", "width")


class _File:
    """Open for reading until nothing refers to it."""

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "fd"):
            os.close(self.fd)


class ShardDataset:
    """The samples of one split in the order of the shards: a map-style data set for torch.utils.data.DataLoader. Does not need torch.

    dataset[i] is (image, label). image: a new uint8 array [height, width, channels] with --encoding=raw, a PIL image ("RGB" or "L") with
    --encoding=jpeg, or what `transform` makes of it. label: an index into `classes`.

    The constructor reads the index of all shards, 18 bytes per sample. Samples are read with os.preadv from files that each process opens
    when it first needs them. So threads, forked workers and pickled copies may read at the same time.
    Raises FileNotFoundError, or ValueError for shards that are damaged or do not belong together. `deeper verify` checks checksums; this
    class does not.

    classes: names by label.  labels: [samples], of all samples.
    mean, std: per channel, of pixels scaled to 0..1, of split `train` if there is one: what `deeper train` normalises with.
    """

    def __init__(self, directory: Path, split: str = "train", transform: Optional[Callable[[Any], Any]] = None) -> None:
        root = pathlib.Path(directory)
        manifest = read_json(root / "manifest.json")
        check_format(root / "manifest.json", manifest, "deeper-dataset")
        splits = manifest["splits"]
        if split not in splits:
            raise ValueError(f"{root} has no split {split!r}; it has {', '.join(sorted(splits))}")
        facts = splits[split]
        normalisation = splits.get("train", facts)
        self.transform = transform
        self.classes: List[str] = manifest["classes"]
        self.mean: List[float] = normalisation["mean"]
        self.std: List[float] = normalisation["std"]
        self._channels: int = facts["channels"]
        self._raw: bool = facts["encoding"] == "raw"
        self._paths = [str(root / shard["file"]) for shard in facts["shards"]]
        self._files: Dict[int, _File] = {}
        indexes = [self._read_index(pathlib.Path(path), facts["dataset_uuid"], shard) for path, shard in zip(self._paths, facts["shards"])]
        self._ends = np.cumsum([len(index["label"]) for index in indexes])  # of each shard, in samples
        joined = {name: np.concatenate([index[name] for index in indexes]) for name in INDEX}
        self._offset, self._length, self.labels = joined["offset"], joined["length"], joined["label"]
        self._height, self._width = joined["height"], joined["width"]

    def _read_index(self, path: pathlib.Path, uuid: str, shard: Dict[str, Any]) -> Dict[str, NDArray[Any]]:
        """offset: in the file."""
        if path.stat().st_size != shard["bytes"]:
            raise ValueError(f"{path} has {path.stat().st_size} bytes, and the manifest says {shard['bytes']}")
        with open_hdf5(path, "deeper-shard") as file:
            if file.attrs["dataset_uuid"].decode() != uuid:
                raise ValueError(f"{path} belongs to another data set than the manifest")
            index = {name: file[name][:] for name in INDEX}
            data = file["data"]
            first, size = data.id.get_offset(), data.size
        inside = (index["offset"] <= size) & (index["offset"] + index["length"] <= size)
        if len(inside) != shard["samples"] or not inside.all() or np.any(index["label"] >= len(self.classes)):
            raise ValueError(f"{path}: the index is damaged; run `deeper verify`")
        if self._raw and np.any(index["length"] != index["height"].astype(np.int64) * index["width"] * self._channels):
            raise ValueError(f"{path}: a sample has another size than height x width x channels; run `deeper verify`")
        index["offset"] += np.uint64(first)
        return index

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Tuple[Any, int]:
        index = operator.index(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        index %= len(self)
        content = self._read(index)
        image = self._pixels(index, content) if self._raw else self._decode(content)
        return image if self.transform is None else self.transform(image), int(self.labels[index])

    def _read(self, index: int) -> bytearray:
        shard = int(np.searchsorted(self._ends, index, side="right"))
        file = self._files.get(shard)
        if file is None:
            if len(self._files) >= MOST_OPEN_FILES:
                self._files.clear()
            file = self._files[shard] = _File(self._paths[shard])
        length = int(self._length[index])
        content = bytearray(length)
        if os.preadv(file.fd, [content], int(self._offset[index])) != length:
            raise OSError(f"{self._paths[shard]}: sample {index} is cut off")
        return content

    def _pixels(self, index: int, content: bytearray) -> NDArray[np.uint8]:
        shape = int(self._height[index]), int(self._width[index]), self._channels
        return np.frombuffer(content, np.uint8).reshape(shape)

    def _decode(self, content: bytearray) -> Any:
        import PIL.Image

        return PIL.Image.open(io.BytesIO(content)).convert("L" if self._channels == 1 else "RGB")

    def __getstate__(self) -> Dict[str, Any]:
        return {**self.__dict__, "_files": {}}
