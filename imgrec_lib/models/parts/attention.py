"""The scorer of a model in which users attend to regions of an item's picture."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

USERS_AT_ONCE = 16
"""So many users are scored together: more would need too much memory for their attentions, fewer would read the items'
vectors more often."""


@dataclass(frozen=True, eq=False)
class AttentiveScorer:
    """s(u, i) = <p_u, v_i> + b_i + sum_a alpha_uia <p_u, e_ia>, alpha_ui = softmax over a of h' tanh(q_u + k_ia).

    tanh(x) = 1 - 2 / (1 + exp(2x)), the 1 adds the same to every attribute's logit, and exp(2q + 2k) is a product: so
    users' and items' exponentials are taken once, and a pair costs no further one inside the sum over h.

    Attributes:
        users: (n_users, d), p.
        items: (n_items, d), v: the items' global part.
        offset: (n_items,), b.
        regions: (n_items, n_attributes, d), e.
        queries: (n_users, units), q.
        keys: (n_items, n_attributes, units), k.
        weight: (units,), h.
    """

    users: Tensor
    items: Tensor
    offset: Tensor
    regions: Tensor
    queries: Tensor
    keys: Tensor
    weight: Tensor

    def block(self, users: Tensor) -> Tensor:
        return torch.cat([self._block(part) for part in users.split(USERS_AT_ONCE)])

    def _block(self, users: Tensor) -> Tensor:
        p = self.users[users]
        liking = (p @ self.regions.flatten(0, 1).T).view(len(users), *self.regions.shape[:2])
        return p @ self.items.T + self.offset + liking.mul_(self.attention(users)).sum(2)

    def pairs(self, users: Tensor, items: Tensor) -> Tensor:
        p = self.users[users]
        liking = torch.einsum("bd,bcad->bca", p, self.regions[items])
        whole = torch.einsum("bd,bcd->bc", p, self.items[items]) + self.offset[items]
        return whole + (self.attention(users, items) * liking).sum(2)

    def attention(self, users: Tensor, items: Tensor | None = None) -> Tensor:
        """alpha, which sums to 1 over the attributes.

        Args:
            users: (B,) int64.
            items: (B, C) int64; None for the whole catalogue.

        Returns:
            (B, C or n_items, n_attributes).
        """
        queries = self._exponential(self.queries[users])[:, None, None]
        keys = self._keys.unsqueeze(0) if items is None else self._keys[items]
        one, logits = queries.new_ones(()), []
        # A CPU takes so few items at a time that their numbers stay in its caches.
        at_once = max(1, (2**20 if keys.is_cpu else 2**27) // max(1, keys[0].numel()))
        for part in torch.arange(len(users), device=queries.device).split(at_once):
            own = keys if items is None else keys[part]
            logits.append(torch.addcmul(one, queries[part], own).reciprocal_() @ (-2 * self.weight))
        return torch.cat(logits).softmax(-1)

    @cached_property
    def _keys(self) -> Tensor:
        return self._exponential(self.keys)

    @staticmethod
    def _exponential(x: Tensor) -> Tensor:
        # tanh is +-1 in float32 beyond 10. Within +-40 no single exponential is infinite; where a product is, or is
        # zero, the result is the right limit.
        return (2 * x.clamp(-40, 40)).exp()
