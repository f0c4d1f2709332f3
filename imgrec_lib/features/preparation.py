"""What options make of a set of vectors: learnt from the catalogue's, and fit for any other of the set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from imgrec_lib.errors import InputError

Learnt = Mapping[str, Mapping[str, np.ndarray]]
"""The arrays of each set's `Preparation`, by the names of both."""


@dataclass(frozen=True, eq=False)
class Preparation:
    """Standardising, scaling to unit length, and principal components, in this order.

    Attributes:
        unit_length: whether vectors are brought to length 1.
        mean, spread: (d,) of what is standardised; None where nothing is.
        centre, axes: (d,) and (d, components) of the principal components; None where all dimensions are kept.
    """

    unit_length: bool
    mean: np.ndarray | None = None
    spread: np.ndarray | None = None
    centre: np.ndarray | None = None
    axes: np.ndarray | None = None

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """(n, d) -> (n, d or components) float32."""
        if self.mean is not None and self.spread is not None:
            vectors = (vectors - self.mean) / self.spread
        if self.unit_length:
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors = vectors / np.where(lengths > 0, lengths, 1)
        if self.axes is not None and self.centre is not None:
            vectors = (vectors.astype(np.float64) - self.centre) @ self.axes
        return vectors.astype(np.float32)


def learn_preparation(values: np.ndarray, standardise: bool, unit_length: bool, components: int | None) -> Preparation:
    """What the options make of vectors like (n, d) `values`.

    Raises:
        InputError: there are fewer principal components.
    """
    mean = spread = None
    if standardise:
        mean, spread = values.mean(0), values.std(0)
        spread = np.where(spread > 0, spread, 1)
    found = Preparation(unit_length, mean, spread)
    if components is None:
        return found
    most = min(values.shape[1], len(values))
    if not 1 <= components <= most:
        raise InputError(f"there are at most {most} principal components of these features, not {components}.")
    centred = found(values).astype(np.float64)
    centre = centred.mean(0)
    centred -= centre
    axes = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :components]
    # An axis may point either way: here its largest entry is positive.
    axes *= np.sign(axes[np.abs(axes).argmax(0), np.arange(components)])
    return replace(found, centre=centre, axes=axes)


def preparation_tensors(preparations: Mapping[str, Preparation]) -> dict[str, Tensor]:
    """What sets of features have learnt, for a checkpoint; `learnt_from` is the inverse.

    A run keeps it: principal components of the same pictures, rounded otherwise by another device, can be others.
    """
    return {
        f"{part.name}.{name}": torch.from_numpy(np.ascontiguousarray(values))
        for name, each in preparations.items()
        for part in fields(each)
        if isinstance(values := getattr(each, part.name), np.ndarray)
    }


def learnt_from(tensors: Mapping[str, Tensor]) -> Learnt:
    """What `preparation_tensors` took of sets of features."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for key, values in tensors.items():
        part, _, name = key.partition(".")
        found.setdefault(name, {})[part] = values.numpy()
    return found
