"""The activations at a backbone's cut: the frozen trunk looks at each picture once, whatever is trained after it."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from imgrec_lib.data.images import ImageStore
from imgrec_lib.errors import InputError, unknown_name
from imgrec_lib.features.backbones import Backbone
from imgrec_lib.features.extraction import fold_batch_norms
from imgrec_lib.features.rows import earlier_rows, write_rows
from imgrec_lib.files import cache_folder, cached, fingerprint, replacing
from imgrec_lib.options import Count
from imgrec_lib.progress import progress_bar

KEEP = ("disk", "memory", "recompute")


@dataclass(frozen=True, eq=False)
class Activations:
    """The activations of a catalogue's pictures at a backbone's cut.

    Attributes:
        look_up: different items, ascending, (B,) int64 -> their activations.
        n_bytes: what is kept; 0 when they are computed again each time.
    """

    look_up: Callable[[Tensor], Tensor]
    n_bytes: int

    def rows(self, items: Tensor) -> Tensor:
        """Activations of the given items, each item looked up once however often it occurs.

        Args:
            items: (B,) int64.

        Returns:
            (B, *Backbone.activation_shape) on the device of `items`: float16 where they are kept; else as the network
            computes. Maps of convolutions have their channels last in memory.
        """
        different, place = items.unique(return_inverse=True)
        found = self.look_up(different).to(items.device)
        return found if torch.equal(different, items) else found[place]


def trunk_activations(
    images: ImageStore,
    network: Backbone,
    *,
    keep: str = "disk",
    batch_size: Count | None = None,
    cache: Path | None = None,
    progress: bool = True,
) -> Activations:
    """Run the trunk over all pictures, on the device of `network` (on a GPU in bfloat16), and keep what it gives.

    A picture takes two bytes an activation: 18,816 bytes for EfficientNet-Lite0 at 224 px, 401,408 for ResNet50. The
    progress bar states the sum before anything is written. Items without a picture count as white.

    Args:
        images: the pictures.
        network: the backbone; it is not changed, and what later happens to its tail changes nothing here.
        keep: "disk" keeps a file in the cache, memory-mapped, for this and later runs; on a GPU with room for them the
            activations are copied there. "memory" keeps them on the device and writes nothing. "recompute" keeps
            nothing and runs the trunk whenever rows are asked for, in full precision.
        batch_size: pictures a step; by default 256 on a GPU and 4 on a CPU.
        cache: the cache folder; by default `default_cache()`.
        progress: whether to show a progress bar.

    Returns:
        The activations.

    Raises:
        InputError: an unknown way to keep them, no room for them, a damaged file, or values beyond the range of
            half precision (weights that were never trained can give such).
    """
    if keep not in KEEP:
        raise unknown_name("way to keep activations (keep)", keep, KEEP)
    device = network.mean.device
    batch_size = (4 if device.type == "cpu" else 256) if batch_size is None else batch_size
    # A copy: folded, it is faster, and it stays as it is when the tail of `network` is trained.
    trunk = copy.deepcopy(network).eval()
    fold_batch_norms(trunk)
    if keep == "recompute":
        return Activations(partial(_computed, trunk, images, batch_size), 0)
    # As they lie in memory, channels last for convolutions, so that a batch of rows is what the tail wants.
    order = network.memory_order
    shape = (len(images), *(network.activation_shape[i] for i in order))
    n_bytes = 2 * int(np.prod(shape))
    blocks = partial(_blocks, trunk, images, batch_size, f"activations at the cut, {_size(n_bytes)}", progress)
    if keep == "memory":
        try:
            kept = torch.empty(shape, dtype=torch.float16, device=device)
        except RuntimeError:
            raise InputError(
                f"the activations take {_size(n_bytes)}, more than {device} has free: use keep='disk', or "
                "keep='recompute' to run the frozen layers anew for every batch."
            ) from None
        start = 0
        for block in blocks(np.arange(len(images))):
            kept[start : start + len(block)] = block
            start += len(block)
        return Activations(partial(_from_tensor, kept, order), n_bytes)
    # The pooling comes after the cut, and the weights' content counts, not what their file is called.
    key = {name: value for name, value in network.description.items() if name not in ("weights", "pooling")}
    key["precision"] = "float32" if device.type == "cpu" else "bfloat16"
    folder = cache_folder(cache, "activations")

    def place(pictures: str) -> Path:
        return folder / f"{network.spec.name.replace('/', '_')}-{fingerprint(pictures, key, network.cut.block)}.npy"

    def make(temporary: Path) -> None:
        _check_room(folder, n_bytes)

        def computed(items: np.ndarray) -> Iterator[np.ndarray]:
            return (block.cpu().numpy() for block in blocks(items))

        write_rows(temporary, shape, "<f2", earlier_rows(images, place, shape, "<f2"), computed)

    path = cached(place(images.fingerprint), make, writer=replacing)
    for store in images.earlier:
        if store.replaced and store.fingerprint != images.fingerprint:
            place(store.fingerprint).unlink(missing_ok=True)
    try:
        values = np.lib.format.open_memmap(path, mode="r")
        intact = values.shape == shape and values.dtype == np.float16
    except (OSError, ValueError):
        intact = False
    if not intact:
        raise InputError(f"the activations in {path} are damaged: delete the file, it will be made again.")
    # Half of what is free: the other half is for training.
    if device.type == "cuda" and 2 * n_bytes < torch.cuda.mem_get_info(device)[0]:
        return Activations(partial(_from_tensor, torch.from_numpy(np.array(values)).to(device), order), n_bytes)
    return Activations(partial(_from_file, values, order), n_bytes)


def _check_room(folder: Path, n_bytes: int) -> None:
    """Refuse to begin what the disk has no room for."""
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise InputError(
            f"the activations take {_size(n_bytes)} and {folder} has {_size(free)} free: make room, point "
            "IMGREC_CACHE at another disk, or use keep='recompute' to run the frozen layers for every batch."
        )


def _from_tensor(kept: Tensor, order: Sequence[int], items: Tensor) -> Tensor:
    return _as_computed(kept[items.to(kept.device)], order)


def _from_file(values: np.ndarray, order: Sequence[int], items: Tensor) -> Tensor:
    return _as_computed(torch.from_numpy(values[items.cpu().numpy()]), order)


def _as_computed(rows: Tensor, order: Sequence[int]) -> Tensor:
    """Rows in the order of `Backbone.memory_order` -> in that of `Backbone.activation_shape`."""
    return rows.permute(0, *(1 + order.index(i) for i in range(len(order))))


def _computed(trunk: Backbone, images: ImageStore, batch_size: int, items: Tensor) -> Tensor:
    return torch.cat([_run(trunk, images, part.numpy()) for part in items.cpu().split(batch_size)])


def _run(trunk: Backbone, images: ImageStore, items: np.ndarray) -> Tensor:
    """Activations of the given items' pictures, as the network computes: (B, *Backbone.activation_shape)."""
    pixels = np.array(images.pixels[items])
    pixels[~images.present[items]] = 255
    device = trunk.mean.device
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type != "cpu"):
        return trunk.trunk(torch.from_numpy(pixels).to(device))


def _blocks(
    trunk: Backbone, images: ImageStore, batch_size: int, title: str, progress: bool, wanted: np.ndarray
) -> Iterator[Tensor]:
    """The activations of the wanted items in order, some at a time: (B, ...) float16, as they lie in memory."""
    with progress_bar(total=len(wanted), desc=title, unit="image", disable=not progress) as bar:
        for start in range(0, len(wanted), batch_size):
            items = wanted[start : start + batch_size]
            values = _run(trunk, images, items).permute(0, *(1 + i for i in trunk.memory_order))
            block = values.half()
            # Rounding costs 2^-11 of a value; much more is lost of values beyond the range, on either side.
            lost, largest = ((x.abs().flatten(1).amax(1)) for x in (block - values, values))
            unfit = ~(lost <= 2**-10 * largest)
            if unfit.any():
                item = items[int(unfit.nonzero()[0])]
                raise InputError(
                    f"the activations of item {item} (row of the image store) are beyond the range of half precision: "
                    "use keep='recompute'."
                )
            yield block.contiguous()
            bar.update(len(items))


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:,.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:,.1f} MB"
