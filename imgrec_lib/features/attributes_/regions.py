"""An attribute network: what a picture shows of each attribute, and where it shows it.

One linear head for each attribute (colour, pattern, garment group, ...) stands on the averaged last feature map of a
backbone. Because the heads are linear and the average is too, a class's logit is the average of a map that is known in
closed form, its class activation map (Zhou et al. 2016). Where that map is strong lies the attribute's region; the
feature map averaged over the region is the attribute's own visual feature.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor
from tqdm.auto import tqdm

from imgrec_lib.data.dataset import Columns, TrainingData
from imgrec_lib.data.images import ImageStore
from imgrec_lib.errors import InputError, unknown_name
from imgrec_lib.features.activations import Activations, trunk_activations
from imgrec_lib.features.backbones import Backbone
from imgrec_lib.files import cached, default_cache, fingerprint

ITEMS_A_VALUE = 5
"""A column whose values recur less often than this on average names or describes items one by one: it is an id or free
text, not an attribute."""


# --- Labels


@dataclass(frozen=True, eq=False)
class AttributeLabels:
    """What the item table says of each item's attributes.

    Attributes:
        names: the attributes, in the order of the table's columns.
        values: the values of each, in alphabetical order.
        codes: (n_items, n_attributes) int64 indices into `values`, -1 where the table says nothing.
    """

    names: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]
    codes: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    @property
    def sizes(self) -> list[int]:
        """Number of values of each attribute."""
        return [len(values) for values in self.values]


def attribute_labels(data: TrainingData, columns: Sequence[str] = ()) -> AttributeLabels:
    """Read the attributes of a catalogue off its item table.

    Args:
        data: gives the attribute columns and, where it has categories, one more that is called "category".
        columns: which columns to take; empty: all that have at least two values, each on average for at least
            `ITEMS_A_VALUE` items, and so are neither ids nor free text.

    Returns:
        The labels. Cells that are empty or NaN are missing.

    Raises:
        InputError: a column that is not there or has fewer than two values, or no column that is an attribute.
    """
    table = pd.DataFrame(index=range(data.n_items)) if data.attributes is None else data.attributes
    columns_of = {str(name): table[name] for name in table.columns}
    if data.categories is not None:
        names = data.category_names or tuple(f"category {i}" for i in range(data.n_categories))
        columns_of = {Columns.CATEGORY: pd.Series([names[i] for i in data.categories])} | columns_of
    read = {}
    for name in columns or columns_of:
        if name not in columns_of:
            raise unknown_name("attribute column", name, columns_of)
        text = columns_of[name].astype("string").fillna("").str.strip()
        found = pd.Categorical(text.mask(text == ""))
        labelled = int((found.codes >= 0).sum())
        if columns and len(found.categories) < 2:
            raise InputError(f"attribute column {name!r} has fewer than two different values: choose another column.")
        if columns or 2 <= len(found.categories) <= labelled / ITEMS_A_VALUE:
            read[name] = (tuple(map(str, found.categories)), found.codes.astype(np.int64))
    if not read:
        raise InputError(
            f"no column of the item table is an attribute (found: {', '.join(columns_of) or 'none'}): an attribute has "
            f"at least two values, each for {ITEMS_A_VALUE} items on average; name columns to take them all the same."
        )
    return AttributeLabels(
        tuple(read), tuple(values for values, _ in read.values()), np.stack([codes for _, codes in read.values()], 1)
    )


def held_out_items(images: ImageStore, share: float) -> np.ndarray:
    """Which items are kept from the heads, to measure their accuracy: (n_items,) bool.

    A picture's own bytes decide (CRC-32 below the share of its range), so that the same photograph is never on both
    sides, and the order of the items does not matter.
    """
    digests = np.array([zlib.crc32(picture.tobytes()) for picture in images.pixels], dtype=np.float64)
    return digests < share * 2.0**32


# --- Maps


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

    def of(self, items: Tensor) -> Tensor:
        """The maps of different items, ascending: (B,) int64 -> (B, n_features, h, w) float32."""
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            rows = self.activations.rows(items).to(self.backbone.mean.dtype)
            return self.backbone.spec.tail(self.backbone.network, rows).float().contiguous()

    def batches(self, title: str) -> Iterator[tuple[Tensor, Tensor]]:
        """All items in order, some at a time, with their maps; `title` names the work on the progress bar."""
        every = torch.arange(len(self.images), device=self.device)
        with tqdm(total=len(every), desc=title, unit="image", disable=not self.progress) as bar:
            for items in every.split(16 if self.device.type == "cpu" else 256):
                yield items, self.of(items)
                bar.update(len(items))


# --- Heads


@dataclass(frozen=True, eq=False)
class Heads:
    """The linear heads of all attributes, stacked: rows `sizes[0]` for the first attribute, and so on.

    Attributes:
        weight: (number of values of all attributes, n_features) float32.
        bias: (number of values of all attributes,) float32.
        sizes: number of values of each attribute.
    """

    weight: Tensor
    bias: Tensor
    sizes: Sequence[int]

    def logits(self, pooled: Tensor) -> tuple[Tensor, ...]:
        """Logits of each attribute's values: (B, n_features) -> for each attribute (B, number of values)."""
        return F.linear(pooled, self.weight, self.bias).split(list(self.sizes), 1)

    def predict(self, pooled: Tensor) -> Tensor:
        """The likeliest value of each attribute: (B, n_features) -> (B, n_attributes) int64."""
        return torch.stack([logits.argmax(1) for logits in self.logits(pooled)], 1)

    def rows(self, values: Tensor) -> Tensor:
        """Where in `weight` values of the attributes stand: (..., n_attributes) int64 -> the same shape."""
        starts = torch.tensor([0, *self.sizes[:-1]], device=values.device).cumsum(0)
        return starts + values


def fit_heads(pooled: Tensor, codes: Tensor, sizes: Sequence[int], *, penalty: float = 1e-2, steps: int = 200) -> Heads:
    """Fit the heads by multinomial logistic regression, all attributes at once.

    Minimises the sum over attributes of the mean cross-entropy of the items that have a label, plus
    penalty / 2 * (|W|^2 + |b|^2) on features brought to mean 0 and deviation 1. The problem is convex; L-BFGS on the
    whole set finds its only minimum, whatever the items' order.

    Args:
        pooled: (n, n_features) averaged feature maps.
        codes: (n, n_attributes) int64, -1 for a missing label.
        sizes: number of values of each attribute.
        penalty: weight of the penalty.
        steps: steps of L-BFGS at most.

    Returns:
        The heads, for features as they come.
    """
    mean, deviation = pooled.mean(0), pooled.std(0, correction=0)
    deviation = deviation.clamp_min(1e-3 * float(deviation.mean()) or 1.0)
    x = (pooled - mean) / deviation
    labelled = [(codes[:, a] >= 0).nonzero().squeeze(1) for a in range(len(sizes))]
    targets = [codes[rows, a] for a, rows in enumerate(labelled)]
    parameters = torch.zeros(sum(sizes), pooled.shape[1] + 1, dtype=x.dtype, device=x.device, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [parameters], max_iter=steps, tolerance_grad=1e-7, tolerance_change=1e-10, line_search_fn="strong_wolfe"
    )

    def objective() -> Tensor:
        optimiser.zero_grad()
        heads = Heads(parameters[:, :-1], parameters[:, -1], sizes)
        losses = [
            F.cross_entropy(logits[rows], target)
            for logits, rows, target in zip(heads.logits(x), labelled, targets, strict=True)
            if len(rows)
        ]
        loss = torch.stack([*losses, 0.5 * penalty * parameters.square().sum()]).sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimiser.step(objective)
    found = parameters.detach()
    weight = found[:, :-1] / deviation
    return Heads(weight, found[:, -1] - weight @ mean, sizes)


def train_heads(maps: FeatureMaps, labels: AttributeLabels, *, held_out: float = 0.1, penalty: float = 1e-2) -> Heads:
    """Train the heads on the items with a picture that are not held out; with keep="disk" once and for all.

    Args:
        maps: the pictures and the network.
        labels: what the item table says.
        held_out: share of the items kept aside for `attribute_accuracy`, see `held_out_items`.
        penalty: see `fit_heads`.

    Raises:
        InputError: fewer than two items are left to learn from.
    """

    def train() -> dict[str, np.ndarray]:
        kept = torch.from_numpy(maps.images.present & ~held_out_items(maps.images, held_out)).to(maps.device)
        if int(kept.sum()) < 2:
            raise InputError(
                f"attribute heads need two items with a picture to learn from: lower held_out ({held_out}), or add "
                "pictures."
            )
        pooled = torch.cat([x.mean((2, 3)) for _, x in maps.batches("attribute heads")])
        codes = torch.from_numpy(labels.codes).to(maps.device)
        heads = fit_heads(pooled[kept], codes[kept], labels.sizes, penalty=penalty)
        return {"weight": heads.weight.cpu().numpy(), "bias": heads.bias.cpu().numpy()}

    found = _kept(maps, "heads", train, labels.codes, labels.sizes, held_out, penalty)
    weight, bias = (torch.from_numpy(np.array(found[name])).to(maps.device) for name in ("weight", "bias"))
    return Heads(weight, bias, labels.sizes)


# --- Regions


def activation_maps(weights: Tensor, maps: Tensor) -> Tensor:
    """Class activation maps of linear heads: how much each place of the picture adds to a logit.

    Grad-CAM (Selvaraju et al. 2017) weighs a channel by the mean over the map of the logit's gradient. Under a linear
    head on the average that gradient is the head's weight / (h w) everywhere, so no backward pass is needed. Here the
    factor 1 / (h w) is left out: the mean of the map plus the head's bias is the logit.

    Args:
        weights: (B, n_attributes, n_features) the heads' weights of one value for each attribute.
        maps: (B, n_features, h, w).

    Returns:
        (B, n_attributes, h, w).
    """
    return torch.einsum("bac,bchw->bahw", weights, maps)


def strong_part(maps: Tensor) -> Tensor:
    """ReLU, then each map (..., h, w) divided by its maximum; one that is nowhere positive stays zero."""
    positive = torch.relu(maps)
    return positive / positive.amax((-2, -1), keepdim=True).clamp_min(torch.finfo(maps.dtype).tiny)


def boxes_from_maps(maps: Tensor, threshold: float = 0.2) -> Tensor:
    """The tight box around the largest connected part of each map that is above the threshold.

    Cells are connected along edges. Of parts of equal size the first in reading order counts. A map that is nowhere
    above the threshold gets the box of the whole map.

    Args:
        maps: (B, n_attributes, h, w), values in 0..1, as `strong_part` gives them.
        threshold: share of the maximum.

    Returns:
        (B, n_attributes, 4) int64 on the CPU: left, top, right, bottom in cells, the last two exclusive.
    """
    above = (maps > threshold).cpu().numpy()
    n_pictures, n_attributes, height, width = above.shape
    flat = above.reshape(-1, height, width)
    inside = np.zeros((3, 3, 3), dtype=bool)
    inside[1] = ndimage.generate_binary_structure(2, 1)  # connected within a map, never across maps
    parts, n_parts = ndimage.label(flat, inside)
    boxes = np.tile(np.array([0, 0, width, height]), (len(flat), 1))
    sizes = np.bincount(parts.ravel(), minlength=n_parts + 1)
    largest = np.zeros(len(flat), dtype=np.int64)
    for part, place in enumerate(ndimage.find_objects(parts), start=1):
        picture = place[0].start
        if sizes[part] > largest[picture]:
            largest[picture] = sizes[part]
            boxes[picture] = place[2].start, place[1].start, place[2].stop, place[1].stop
    return torch.from_numpy(boxes.reshape(n_pictures, n_attributes, 4))


def region_features(maps: Tensor, boxes: Tensor) -> Tensor:
    """The feature map averaged over each box, by RoI align (He et al. 2017) with one output cell.

    A box is sampled at the centre of each of its cells, so that for whole cells the result is their exact mean.

    Args:
        maps: (B, n_features, h, w).
        boxes: (B, n_attributes, 4): left, top, right, bottom in cells.

    Returns:
        (B, n_attributes, n_features).
    """
    from torchvision.ops import roi_align

    corners = list(boxes.to(maps.device, maps.dtype))
    pooled = roi_align(maps, corners, output_size=1, sampling_ratio=-1, aligned=True)
    return pooled.flatten(1).view(*boxes.shape[:2], -1)


@dataclass(frozen=True, eq=False)
class Regions:
    """Where a catalogue's pictures show their attributes, and what is there.

    Attributes:
        pooled: (n_items, n_features) float32: each picture's whole feature map, averaged.
        features: (n_items, n_attributes, n_features): the map averaged over the attribute's box; float16 where they
            are kept on disk, else float32.
        boxes: (n_items, n_attributes, 4) float32: left, top, right, bottom as shares of the picture's sides.
        predicted: (n_items, n_attributes) int64: the value of each attribute that the network sees.
    """

    pooled: np.ndarray
    features: np.ndarray
    boxes: np.ndarray
    predicted: np.ndarray


def find_regions(maps: FeatureMaps, heads: Heads, threshold: float = 0.2) -> Regions:
    """Find each item's region of each attribute: that of the value which the network thinks the likeliest.

    With keep="disk" the result is kept in the cache, keyed by pictures, network, heads and threshold.

    Args:
        maps: the pictures and the network.
        heads: the trained heads.
        threshold: see `boxes_from_maps`.

    Raises:
        InputError: region features beyond the range of half precision, or a damaged file in the cache.
    """
    n_items, n_attributes, width = len(maps.images), len(heads.sizes), heads.weight.shape[1]

    def find() -> dict[str, np.ndarray]:
        found = {
            "pooled": np.empty((n_items, width), np.float32),
            "features": np.empty((n_items, n_attributes, width), np.float16 if maps.keep == "disk" else np.float32),
            "boxes": np.empty((n_items, n_attributes, 4), np.float32),
            "predicted": np.empty((n_items, n_attributes), np.int64),
        }
        for items, x in maps.batches("attribute regions"):
            pooled = x.mean((2, 3))
            predicted = heads.predict(pooled)
            boxes = boxes_from_maps(strong_part(activation_maps(heads.weight[heads.rows(predicted)], x)), threshold)
            sides = torch.tensor([x.shape[3], x.shape[2]] * 2)
            rows = slice(int(items[0]), int(items[-1]) + 1)
            found["pooled"][rows], found["predicted"][rows] = pooled.cpu(), predicted.cpu()
            found["boxes"][rows] = boxes / sides
            with np.errstate(over="ignore"):
                found["features"][rows] = region_features(x, boxes).cpu()
            if not np.isfinite(found["features"][rows]).all():
                raise InputError(
                    f"region features of items {rows.start} to {rows.stop - 1} (rows of the image store) are beyond "
                    "the range of half precision: use keep='recompute'."
                )
        return found

    weights = [x.cpu().numpy() for x in (heads.weight, heads.bias)]
    return Regions(**_kept(maps, "regions", find, *weights, list(heads.sizes), threshold))


def attribute_accuracy(labels: AttributeLabels, predicted: np.ndarray, held_out: np.ndarray) -> pd.DataFrame:
    """How often the heads are right about items they never saw, beside always naming the commonest value.

    Args:
        labels: what the item table says.
        predicted: (n_items, n_attributes) int64, `Regions.predicted`.
        held_out: (n_items,) bool; the commonest value is counted among the others.

    Returns:
        One row an attribute: `values`, `items` (held out and labelled), `accuracy` and `majority` (the baseline); NaN
        where no held-out item has a label.
    """
    rows = {}
    for a, name in enumerate(labels.names):
        known = labels.codes[:, a] >= 0
        asked, taught = known & held_out, known & ~held_out
        truth = labels.codes[asked, a]
        commonest = np.bincount(labels.codes[taught, a], minlength=labels.sizes[a]).argmax()
        rows[name] = {
            "values": labels.sizes[a],
            "items": int(asked.sum()),
            "accuracy": float((predicted[asked, a] == truth).mean()) if len(truth) else float("nan"),
            "majority": float((truth == commonest).mean()) if len(truth) else float("nan"),
        }
    return pd.DataFrame(rows).T.astype({"values": int, "items": int}).rename_axis("attribute")


# --- The cache


def _kept(
    maps: FeatureMaps, kind: str, compute: Callable[[], dict[str, np.ndarray]], *key: Any
) -> dict[str, np.ndarray]:
    """The arrays that `compute` gives, by name: kept in the cache as a folder of .npy files where activations are."""
    if maps.keep != "disk":
        return compute()

    def make(temporary: Path) -> None:
        for name, values in compute().items():
            np.save(temporary / f"{name}.npy", values, allow_pickle=False)

    folder = cached(Path(maps.cache or default_cache()) / "attributes" / f"{kind}-{fingerprint(maps.key, *key)}", make)
    try:
        return {path.stem: np.load(path, mmap_mode="r", allow_pickle=False) for path in sorted(folder.glob("*.npy"))}
    except (OSError, ValueError):
        raise InputError(f"what is kept in {folder} is damaged: delete the folder, it will be made again.") from None
