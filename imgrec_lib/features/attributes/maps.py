"""The last feature maps of the catalogue, and what is computed from them once and kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from imgrec_lib.data.images import ImageStore
from imgrec_lib.errors import InputError
from imgrec_lib.features.activations import Activations, trunk_activations
from imgrec_lib.features.backbones import Backbone
from imgrec_lib.files import cache_folder, cached, fingerprint
from imgrec_lib.options import Array, Below
from imgrec_lib.progress import progress_bar


@dataclass(frozen=True, eq=False)
class FeatureMaps:
    """The last feature maps of a catalogue's pictures, computed some at a time.

    Attributes:
        images: the pictures.
        backbone: the network, on the device where it is to run (on a GPU in bfloat16).
        keep: where the activations at the backbone's cut are kept between passes, see `trunk_activations`.
        cache, progress: see `trunk_activations`.
    """

    images: ImageStore
    backbone: Backbone
    keep: str = "disk"
    cache: Path | None = None
    progress: bool = True

    @cached_property
    def activations(self) -> Activations:
        return trunk_activations(self.images, self.backbone, keep=self.keep, cache=self.cache, progress=self.progress)

    @cached_property
    def key(self) -> str:
        """Digits that change with any picture and with all that changes a map."""
        origin = {k: v for k, v in self.backbone.description.items() if k not in ("weights", "pooling")}
        precision = "float32" if self.keep == "recompute" else "float16"
        return fingerprint(self.images.fingerprint, origin, precision, self.device.type)

    @property
    def device(self) -> torch.device:
        return self.backbone.mean.device

    def of(self, items: Annotated[Tensor, Array(1, "iu"), Below("self.images")]) -> Tensor:
        """The maps of different items, ascending: (B,) int64 -> (B, n_features, h, w) float32."""
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            rows = self.activations.rows(items).to(self.backbone.mean.dtype)
            return self.backbone.maps(rows).float().contiguous()

    def batches(self, title: str) -> Iterator[tuple[Tensor, Tensor]]:
        """All items in order, some at a time, with their maps; `title` names the work on the progress bar."""
        every = torch.arange(len(self.images), device=self.device)
        with progress_bar(total=len(every), desc=title, unit="image", disable=not self.progress) as bar:
            for items in every.split(16 if self.device.type == "cpu" else 256):
                yield items, self.of(items)
                bar.update(len(items))


def kept(
    maps: FeatureMaps, kind: str, compute: Callable[[], dict[str, np.ndarray]], *key: Any
) -> dict[str, np.ndarray]:
    """The arrays that `compute` gives, by name: kept in the cache as a folder of .npy files where activations are."""
    if maps.keep != "disk":
        return compute()

    def make(temporary: Path) -> None:
        for name, values in compute().items():
            np.save(temporary / f"{name}.npy", values, allow_pickle=False)

    folder = cached(cache_folder(maps.cache, "attributes") / f"{kind}-{fingerprint(maps.key, *key)}", make)
    try:
        return {path.stem: np.load(path, mmap_mode="r", allow_pickle=False) for path in sorted(folder.glob("*.npy"))}
    except (OSError, ValueError):
        raise InputError(f"what is kept in {folder} is damaged: delete the folder, it will be made again.") from None
