"""Propagation along the edges of a graph, of users and the items they bought or of items that are alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from imgrec_lib.models.parts.sparse_tensor import sparse_tensor


class Graph(nn.Module):
    """x -> A x, for vectors x of all nodes.

    Args:
        matrix: A, (n, n): in row a the weights of the edges by which node a hears of others.
    """

    matrix: Tensor
    transposed: Tensor

    def __init__(self, matrix: sparse.csr_matrix) -> None:
        super().__init__()
        for name, edges in (("matrix", matrix), ("transposed", matrix.T.tocsr())):
            self.register_buffer(name, sparse_tensor(edges.astype(np.float32)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(n, k) -> (n, k)."""
        return _Product.apply(self.matrix, self.transposed, x)

    def mean_of_layers(self, x: Tensor, layers: int) -> Tensor:
        """(x + A x + A A x + ...) / (layers + 1): (n, k) -> (n, k)."""
        total = x
        for _ in range(layers):
            x = self(x)
            total = total + x
        return total / (layers + 1)


class _Product(torch.autograd.Function):
    """A x, whose gradient A' g is a product with rows too: PyTorch would search A for its columns."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, transposed: Tensor, x: Tensor) -> Tensor:
        ctx.transposed = transposed
        return matrix @ x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, Tensor]:
        return None, None, ctx.transposed @ gradient


def user_item_graph(bought: sparse.csr_matrix) -> sparse.csr_matrix:
    """D^-1/2 A D^-1/2 of the graph whose nodes are the users, then the items, with an edge for each interaction.

    Args:
        bought: (n_users, n_items), 1 for each interaction.

    Returns:
        (n_users + n_items, n_users + n_items) float64; D holds the numbers of edges, and a node without any hears of
        nothing.
    """
    edges = sparse.bmat([[None, bought], [bought.T, None]], format="csr", dtype=np.float64)
    return normalised(edges)


def normalised(edges: sparse.csr_matrix) -> sparse.csr_matrix:
    """a_ij / sqrt(d_i d_j), where d_i is the sum of row i: (n, n), all a_ij >= 0."""
    degree = np.asarray(edges.sum(1)).ravel()
    factor = np.divide(1, np.sqrt(degree), out=np.zeros(len(degree)), where=degree > 0)
    return (sparse.diags(factor) @ edges @ sparse.diags(factor)).tocsr()
