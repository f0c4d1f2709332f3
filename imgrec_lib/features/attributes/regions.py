"""Where a picture shows an attribute: class activation maps, boxes, and the features of regions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from imgrec_lib.errors import InputError
from imgrec_lib.features.attributes.heads import Heads
from imgrec_lib.features.attributes.maps import FeatureMaps, kept
from imgrec_lib.options import ShareBelowOne


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


def boxes_from_maps(maps: Tensor, threshold: ShareBelowOne = 0.2) -> Tensor:
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


def find_regions(maps: FeatureMaps, heads: Heads, threshold: ShareBelowOne = 0.2) -> Regions:
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
    return Regions(**kept(maps, "regions", find, *weights, list(heads.sizes), threshold))
