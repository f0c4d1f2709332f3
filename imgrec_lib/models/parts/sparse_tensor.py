"""SciPy's sparse matrices as PyTorch's."""

from __future__ import annotations

import warnings

import torch
from scipy import sparse
from torch import Tensor


def sparse_tensor(matrix: sparse.csr_matrix) -> Tensor:
    """A matrix in compressed sparse rows as a tensor of the same shape and type, which shares its memory."""
    indptr, indices, values = (torch.from_numpy(each) for each in (matrix.indptr, matrix.indices, matrix.data))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        with torch.sparse.check_sparse_tensor_invariants(False):  # said explicitly, or PyTorch warns of it
            return torch.sparse_csr_tensor(indptr, indices, values, size=matrix.shape)
