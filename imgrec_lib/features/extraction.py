"""Visual features of a whole catalogue, computed once and kept on disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from imgrec_lib.data.dataset import check_features, split_sets
from imgrec_lib.data.images import ImageStore, tell_of_enlargement
from imgrec_lib.devices import Device
from imgrec_lib.errors import InputError, unknown_name
from imgrec_lib.features.backbones import Backbone, build_backbone
from imgrec_lib.features.preparation import Preparation, preparation_tensors
from imgrec_lib.features.rows import earlier_rows, write_rows
from imgrec_lib.files import cache_folder, cached, fingerprint, write_json
from imgrec_lib.options import Count, CountOrNone, Option, options_of
from imgrec_lib.progress import progress_bar

MISSING = ("white", "zero")
CREDIT = ("licence", "source")
"""Parts of a description that say whom the weights are owed to: equal features may differ in them."""


@dataclass(frozen=True, eq=False)
class Features:
    """Visual features of a catalogue.

    Attributes:
        values: (n_items, n_features) float32, read-only and memory-mapped; row i is item i's.
        description: what they are, as text: `Backbone.description`, "precision" ("float32" or "bfloat16"),
            "missing" ("white" or "zero"), and the "licence" and "source" of the weights.
        fingerprint: 16 hexadecimal digits of the pictures' fingerprint and the description: equal digits, equal
            features.
        widths: of several named sets, which stand one behind the other, the number of columns of each; empty for one
            set of the pictures.
        of_table: names of the sets that come from the item table, and say nothing of how items look.
        preparations: by the names of sets that options have prepared, what makes of (n, d) vectors as they were before
            the (n, d') that stand in `values`.
    """

    values: np.ndarray
    description: dict[str, str]
    fingerprint: str
    widths: dict[str, int] = field(default_factory=dict)
    of_table: frozenset[str] = frozenset()
    preparations: Mapping[str, Preparation] = field(default_factory=dict)

    @property
    def identity(self) -> dict[str, str]:
        """What of the description tells these features from others."""
        return {name: value for name, value in self.description.items() if name not in CREDIT}

    @property
    def views(self) -> dict[str, np.ndarray]:
        """Each set's own columns by its name: (n_items, d) float32; "picture" where there is one without a name."""
        return split_sets(self.values, self.widths)

    @property
    def of_pictures(self) -> np.ndarray | None:
        """(n_items, d) float32: the sets that may say how items look, one behind the other; None without any."""
        looks = [values for name, values in self.views.items() if name not in self.of_table]
        if len(looks) == len(self.views):
            return self.values
        return np.concatenate(looks, 1) if looks else None

    @property
    def learnt(self) -> dict[str, Tensor]:
        """What the preparations have learnt, for a checkpoint: see `preparation_tensors`."""
        return preparation_tensors(self.preparations)

    @property
    def random(self) -> bool:
        """Whether they come from random weights: a table that uses them has to say so."""
        return self.description["random"] == "yes"


OwnFeatures = Annotated[Features | None, check_features]


def extract_features(
    images: ImageStore,
    *,
    backbone: str = "efficientnet-lite0",
    weights: str | Path = "default",
    pooling: str | None = None,
    size: Count | None = None,
    stride: str | None = None,
    preprocessing: str | None = None,
    crop: bool = False,
    seed: CountOrNone = 0,
    missing: str = "white",
    batch_size: Count | None = None,
    device: Device = "cpu",
    cache: str | Path | None = None,
    progress: bool = True,
) -> Features:
    """Compute the pooled features of every item's picture, or open them if they were computed before.

    They are kept in the cache, keyed by the pictures and by all that changes a value. Two processes that want the same
    features do the work once, and where some pictures changed, the features of the others are taken over. Batches
    stream to disk: memory does not grow with the catalogue. On a GPU the network runs in bfloat16.

    Args:
        images: the pictures.
        backbone, weights, pooling, size, stride, preprocessing, crop, seed: see `build_backbone`.
        missing: items without a picture get the features of a white one ("white", as in ImgRec's scripts) or zeros
            ("zero", as VBPR and VisRank are used).
        batch_size: pictures a step, which changes speed and memory alone; by default 256 on a GPU and 4 on a CPU,
            where activations of more do not fit its caches.
        device: where the network runs.
        cache: the cache folder; by default `default_cache()`.
        progress: whether to show a progress bar.

    Returns:
        The features, memory-mapped.

    Raises:
        InputError: an unknown option, weights that cannot be used, an empty image store, or a feature that is not
            finite.

    Example:
        >>> from imgrec_lib import extract_features, load_dataset
        >>> dataset = load_dataset("wardrobe", n_users=40, n_items=50, image_size=32, progress=False)
        >>> features = extract_features(dataset.images, size=32, progress=False)
        >>> features.values.shape, features.random
        ((50, 1280), False)
    """
    if missing not in MISSING:
        raise unknown_name("treatment of missing pictures", missing, MISSING)
    if not len(images.pixels):
        raise InputError("the image store has no pictures: load a dataset with at least one item.")
    device = torch.device(device)
    batch_size = (4 if device.type == "cpu" else 256) if batch_size is None else batch_size
    network = build_backbone(
        backbone,
        weights=weights,
        pooling=pooling,
        size=size,
        stride=stride,
        preprocessing=preprocessing,
        crop=crop,
        seed=seed,
    )
    tell_of_enlargement(images, network.size)
    precision = "float32" if device.type == "cpu" else "bfloat16"
    description = network.description | {"precision": precision, "missing": missing}

    def key_of(pictures: str) -> str:
        # The weights' content counts, not what their file is called.
        return fingerprint(pictures, {k: v for k, v in description.items() if k != "weights"})

    def folder_of(pictures: str) -> Path:
        return cache_folder(cache, "features") / f"{backbone.replace('/', '_')}-{key_of(pictures)}"

    def make(temporary: Path) -> None:
        shape = (len(images.pixels), network.n_features)
        earlier = earlier_rows(images, lambda pictures: folder_of(pictures) / "values.npy", shape, "<f4")
        compute = partial(_features, network.to(device), images, missing, batch_size, progress)
        write_rows(temporary / "values.npy", shape, "<f4", earlier, compute)
        write_json(temporary / "description.json", description)

    key, folder = key_of(images.fingerprint), cached(folder_of(images.fingerprint), make)
    for store in images.earlier:
        if store.replaced and store.fingerprint != images.fingerprint:
            shutil.rmtree(folder_of(store.fingerprint), ignore_errors=True)
    try:
        values = np.lib.format.open_memmap(folder / "values.npy", mode="r")
        intact = values.shape == (len(images.pixels), network.n_features) and values.dtype == np.float32
    except (OSError, ValueError):
        intact = False
    if not intact:
        raise InputError(f"the features in {folder} are damaged: delete the folder and extract them again.")
    return Features(values, description | network.credit, key)


def feature_options() -> dict[str, Option]:
    """The options of `extract_features` that say what the features are, and where they are kept."""
    elsewhere = {"backbone", "weights", "device", "progress"}
    return {name: option for name, option in options_of(extract_features).items() if name not in elsewhere}


def _features(
    network: Backbone, images: ImageStore, missing: str, batch_size: int, progress: bool, items: np.ndarray
) -> Iterator[np.ndarray]:
    """Run the network over the pictures of some items: their features in order, (batch, n_features) float32 at a time.

    Args:
        network, images, missing, batch_size, progress: see `extract_features`.
        items: (n,) int64, ascending.
    """
    fold_batch_norms(network)
    device = network.mean.device
    with progress_bar(total=len(items), desc="features", unit="image", disable=not progress) as bar:
        for start in range(0, len(items), batch_size):
            batch = items[start : start + batch_size]
            pixels = np.array(images.pixels[batch])
            absent = ~images.present[batch]
            pixels[absent] = 255
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=device.type != "cpu"):
                values = network(torch.from_numpy(pixels).to(device)).float().cpu().numpy()
            if missing == "zero":
                values[absent] = 0
            if not np.isfinite(values).all():
                item = int(batch[~np.isfinite(values).all(axis=1)][0])
                raise InputError(
                    f"the features of item {item} (row of the image store) are not finite: the weights "
                    f"({network.description['weights']}) do not suit {network.spec.name}; choose others."
                )
            yield values
            bar.update(len(pixels))


def fold_batch_norms(backbone: Backbone) -> None:
    """Merge each batch norm into the convolution before it: the same features, in two thirds of the time on a CPU."""
    network, made, pairs = backbone.network, {}, []

    def note(name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            made[id(output)] = name, output  # kept, so that no other tensor gets its id
        elif id(inputs[0]) in made:
            pairs.append((made[id(inputs[0])][0], name))

    # What is more than these two, such as a batch norm with an activation of its own, stays as it is.
    fitting: dict[str, Any] = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) or type(module) is nn.BatchNorm2d
    }
    handles = [module.register_forward_hook(partial(note, name)) for name, module in fitting.items()]
    with torch.no_grad():
        backbone.features(backbone.blank(1))
    for handle in handles:
        handle.remove()
    for conv, norm in pairs:
        network.set_submodule(conv, fuse_conv_bn_eval(fitting[conv], fitting[norm]))
        network.set_submodule(norm, nn.Identity())
