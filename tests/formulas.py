"""Formulas of papers, written as slow loops that several tests compare models with."""

from __future__ import annotations

import numpy as np


def naive_fm(x: np.ndarray, w0: float, w: np.ndarray, v: np.ndarray) -> float:
    """w0 + sum_k w_k x_k + sum_{k<l} <v_k, v_l> x_k x_l over all fields, pair by pair."""
    total = w0 + sum(w[k] * x[k] for k in range(len(x)))
    for k in np.flatnonzero(x):
        for m in np.flatnonzero(x):
            if k < m:
                total += float(v[k] @ v[m]) * x[k] * x[m]
    return total
