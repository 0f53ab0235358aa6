"""A checkpoint of --model=googlenet-torchvision as torchvision's GoogLeNet."""
from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Sequence

import numpy as np

from deeper.weights import Path, read_weights

MODEL = "googlenet-torchvision"


class Preprocess:
    """What `deeper eval` makes of an image: a tensor [channels, image_size, image_size].

    Takes a PIL image or a uint8 array [height, width, channels]; a grey image is repeated in all channels. Needs torch.
    preset: as --val_preset, "none" or "torchvision".
    """

    def __init__(self, image_size: int, mean: Sequence[float], std: Sequence[float], preset: str = "none") -> None:
        if preset not in ("none", "torchvision"):
            raise ValueError(f"--val_preset={preset} is not available in Python: none or torchvision")
        self.image_size, self.mean, self.std, self.preset = image_size, list(mean), list(std), preset

    def __call__(self, image: Any) -> Any:
        import torch

        pixels = np.array(image if isinstance(image, np.ndarray) or len(self.mean) == 1 else image.convert("RGB"))
        pixels = pixels.reshape(*pixels.shape[:2], -1)
        tensor = torch.from_numpy(pixels).permute(2, 0, 1).expand(len(self.mean), -1, -1).float() / 255
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return (self._resize(tensor) - mean) / std

    def _resize(self, image: Any) -> Any:
        from torch.nn.functional import interpolate

        size, torchvision = self.image_size, self.preset == "torchvision"
        height, width = image.shape[1:]
        side, short = (size * 8 // 7, min(height, width)) if torchvision else (size, 0)
        target = (side * height // short, side * width // short) if torchvision else (size, size)
        image = interpolate(image[None], target, mode="bilinear", align_corners=False, antialias=torchvision)[0]
        top, left = (round((extent - size) / 2) for extent in target)
        return image[:, top : top + size, left : left + size]


class Classifier(NamedTuple):
    model: Any  # torchvision.models.GoogLeNet in evaluation mode, without auxiliary heads
    preprocess: Preprocess
    classes: List[str]  # names by label; empty if the file has none


def googlenet(checkpoint: Path) -> Classifier:
    """The network of a checkpoint or weights file that `deeper train --model=googlenet-torchvision` made, as torchvision's.

    checkpoint: as for load_state_dict, with its errors. Raises ImportError without torchvision, and ValueError for a network that torchvision
    does not have: another --model, --stem=small, or images of one channel.
    """
    try:
        import torch
        from torchvision.models import GoogLeNet
    except ImportError as error:
        raise ImportError(f"googlenet() needs torchvision ({error}): `pip install torchvision`, or Debian's python3-torchvision. "
                          "load_state_dict() does not need it.") from error
    tensors, config = read_weights(checkpoint)
    check_network(checkpoint, config)
    preprocess = Preprocess(config["image_size"], config["mean"], config["std"], config.get("val_preset", "none"))
    model = GoogLeNet(num_classes=config["num_classes"], aux_logits=False, transform_input=False, init_weights=False)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items() if not name.startswith(("aux1.", "aux2."))})
    return Classifier(model.eval(), preprocess, config.get("classes", []))


def check_network(checkpoint: Path, config: Dict[str, Any]) -> None:
    if config.get("model") != MODEL:
        name = config.get("model", "(unknown)")
        raise ValueError(f"{checkpoint} is of --model={name}, and torchvision has only {MODEL}. load_state_dict() reads it.")
    for name, value, expected in ("stem", config.get("stem", "default"), "default"), ("channels", config["channels"], 3):
        if value != expected:
            raise ValueError(f"{checkpoint} has {name} {value}, and torchvision's GoogLeNet has {expected}. load_state_dict() reads it.")
