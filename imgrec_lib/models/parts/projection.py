"""A fixed projection of rows of features."""

from __future__ import annotations

import torch
from scipy.linalg import eigh
from torch import Tensor, nn


class Projection(nn.Module):
    """Rows brought to mean 0 and, on average, length 1, if wanted on their first principal components only.

    Fixed once and then kept with the weights: principal components of nearly equal variance may come out otherwise on
    another machine.

    Args:
        width: length of a row.
        components: components to keep; 0 keeps the rows as they are.
    """

    mean: Tensor
    scale: Tensor
    basis: Tensor | None

    def __init__(self, width: int, components: int = 0) -> None:
        super().__init__()
        self.width = min(components, width) or width
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("basis", torch.zeros(width, self.width) if self.width < width else None)

    def fit(self, rows: Tensor) -> None:
        """Take mean, components and scale from the rows of a catalogue, (n, width)."""
        parts = rows.split(65536)
        self.mean = torch.stack([part.to(self.mean.dtype).sum(0) for part in parts]).sum(0) / len(rows)
        if self.basis is not None:
            covariance = torch.zeros(len(self.mean), len(self.mean), dtype=torch.float64, device=rows.device)
            for part in parts:
                centred = part.to(self.mean.dtype) - self.mean
                covariance += centred.T @ centred
            self.basis = _axes(covariance).flip(1)[:, : self.width].to(self.mean.dtype)
        self.scale = torch.ones_like(self.scale)
        length = sum(float(self(part).square().sum()) for part in parts) / len(rows)
        self.scale = self.scale * length**0.5 or torch.ones_like(self.scale)

    def forward(self, rows: Tensor) -> Tensor:
        """(..., width of a row) -> (..., `self.width`)."""
        centred = rows.to(self.mean.dtype) - self.mean
        return (centred if self.basis is None else centred @ self.basis) / self.scale


def _axes(covariance: Tensor) -> Tensor:
    """The eigenvectors of a symmetric matrix, by ascending eigenvalue."""
    try:
        return torch.linalg.eigh(covariance)[1]
    except torch.linalg.LinAlgError:
        # Some builds of LAPACK's divide and conquer give up where most eigenvalues are equal, as those of few rows are.
        axes = eigh(covariance.cpu().numpy(), driver="ev")[1]
        return torch.as_tensor(axes, device=covariance.device)
