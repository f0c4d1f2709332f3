"""Whether a ranking depends on who is asked."""

from __future__ import annotations

import torch

from imgrec_lib.devices import Device
from imgrec_lib.models.base import Scorer
from imgrec_lib.options import Count

IMPERSONAL = 1e-3
"""A personal share below this is none: everybody gets the same ranking, up to what may be noise of the last steps."""

USERS = 64


@torch.no_grad()
def personal_share(scorer: Scorer, n_users: Count, device: Device = "cpu") -> float:
    """How much of what tells items apart depends on the user, from 0 (nothing) to 1 (everything).

    Each user's scores are brought to mean 0 and variance 1, which changes no ranking. The share is what is left of
    their variance once each item's mean over the users is taken off. A model with scores a_u + b_u c_i, which ranks
    alike for all, has 0; one whose users have nothing in common has 1 - 1 / (number of users asked).

    Args:
        scorer: of a trained model.
        n_users: how many there are; 64 of them, evenly spread, are asked.
        device: where the scorer is.

    Returns:
        The share; 0 where no user's scores tell any items apart.
    """
    asked = torch.linspace(0, n_users - 1, min(USERS, n_users)).round().long().to(device)
    scores = scorer.block(asked).double()
    scores = scores - scores.mean(1, keepdim=True)
    norms = scores.square().mean(1, keepdim=True).sqrt()
    if not norms.any():
        return 0.0
    scores = (scores / norms)[norms.squeeze(1) > 0]
    return float((scores - scores.mean(0)).square().mean())
