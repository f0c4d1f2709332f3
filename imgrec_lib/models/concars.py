"""CoNCARS: convolutions over the outer products of user and item embeddings, with and without time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from imgrec_lib.data.dataset import TrainingData
from imgrec_lib.data.sampler import Batch
from imgrec_lib.errors import InputError
from imgrec_lib.models.base import ModelCard, Profile, Range, Recommender, Scorer, TrainSettings
from imgrec_lib.models.parts.losses import binary_cross_entropy, half_squared_norm
from imgrec_lib.options import Count, NotNegative

N_SLOTS = {"month": 12, "weekday": 7, "hour": 24}

_MONTH_STARTS = np.arange("1970-01", "2200-01", dtype="datetime64[M]").astype("datetime64[s]").astype(np.int64)


def time_slots(times: Tensor, kind: str) -> Tensor:
    """The slot of each time, in UTC: month (January 0), weekday (Monday 0) or hour.

    Args:
        times: int64 Unix seconds of any shape; negative where unknown.
        kind: "month", "weekday" or "hour".

    Returns:
        int64 of the same shape; `N_SLOTS[kind]` where the time is unknown.
    """
    if kind == "month":
        starts = torch.as_tensor(_MONTH_STARTS, device=times.device)
        slots = (torch.searchsorted(starts, times.contiguous(), right=True) - 1) % 12
    elif kind == "weekday":
        slots = (times // 86_400 + 3) % 7  # 1 January 1970 was a Thursday
    else:
        slots = times % 86_400 // 3600
    return torch.where(times < 0, N_SLOTS[kind], slots)


class CoNCARS(Recommender):
    """Score: s(u, i | t) = w' [c(p_u y_i'), c(p_u q_i'), c(x_u y_i'), c(x_u q_i')] + b; c, one CNN for each map.

    p_u and q_i are the static embeddings, x_u and y_i the temporal ones. With the slot vectors U_1 .. U_T of user u
    and the interaction's slot t, x_u = sum_s a_s U_s, where a = softmax over s of <tanh(W U_s), U_t>; y_i alike with
    the items' own W. The slots are the months (or weekdays, or hours) of the timestamps in UTC. All candidates of a
    user are scored at the time at which that user is served. Without a time, the query is the slot "unknown" (index
    T), which is attended to by none and starts at p_u (low-rank) or 0 (full): training moves it only where training
    timestamps are missing, too.
    Each CNN has log2(d) layers of `channels` kernels, 2 x 2 with stride 2, and ReLU, from d x d down to 1 x 1 (as in
    ConvNCF, He et al. 2018). Loss: binary cross-entropy on logits, the negatives at the positive's time, plus
    l2 * mean(1/2 |p_u|^2 + 1/2 |q_i|^2).

    A reconstruction. From the paper's abstract come the joint embedding of user, item and time, the outer products, the
    CNNs and the fusion layer; the attention over slots and the choice of the four maps come from a third party's class,
    the only implementation that was found. None of the authors' is public.

    What the sources leave open is an option: the slots, their tables (`slot_tables`), whether a time attends to the
    other slots or is its own slot's vector alone (`attention`), and an offset of the item (`item_bias`).

    Cost: scores do not factorise, so every (user, item) pair passes the CNNs: about 2 d^2 C + 4/3 d^2 C^2
    multiply-adds for d factors and C channels (95 thousand for 16 and 16, 5.9 million for 64 and 32).

    Args:
        data: the training data; timestamps are needed.
        factors: d, a power of two from 2.
        channels: C.
        slots: "month", "weekday" or "hour".
        slot_tables: "low-rank" (U_s = p_u + r_s, T vectors a side) or "full" (T vectors for each user and item).
        attention: whether x_u and y_i are attended sums; else x_u = U_t and y_i = I_t.
        item_bias: whether an offset b_i is added to the score; it starts at 0.
        l2: penalty weight.
        initial_scale: embeddings start normal with this standard deviation.
    """

    mixed_precision = True
    item_bias: nn.Parameter | None

    def __init__(
        self,
        data: TrainingData,
        *,
        factors: Count = 16,
        channels: Count = 16,
        slots: str = "month",
        slot_tables: str = "low-rank",
        attention: bool = True,
        item_bias: bool = False,
        l2: NotNegative = 0.0,
        initial_scale: NotNegative = 0.1,
    ) -> None:
        super().__init__()
        if factors < 2 or factors & (factors - 1):
            raise InputError(f"CoNCARS halves its maps down to 1 x 1: factors must be 2, 4, 8, ..., not {factors}.")
        if slots not in N_SLOTS:
            raise InputError(f"CoNCARS's slots are one of {', '.join(map(repr, N_SLOTS))}, not {slots!r}.")
        if slot_tables not in ("low-rank", "full"):
            raise InputError(f"CoNCARS's slot_tables is 'low-rank' or 'full', not {slot_tables!r}.")
        self.l2, self.slots = l2, slots
        self.users, self.items = (
            TemporalEmbedding(
                n,
                N_SLOTS[slots],
                factors,
                full=slot_tables == "full",
                attention=attention,
                initial_scale=initial_scale,
            )
            for n in (data.n_users, data.n_items)
        )
        self.network = OuterProductCNN(factors, channels)
        self.register_parameter("item_bias", nn.Parameter(torch.zeros(data.n_items)) if item_bias else None)

    def slots_of(self, times: Tensor | None, like: Tensor) -> Tensor:
        """Slots of (B,) times, or (B,) times "unknown" for None: (B,) int64, on the device of `like` (B,)."""
        if times is None:
            return torch.full_like(like, N_SLOTS[self.slots])
        return time_slots(times.to(like.device), self.slots)

    def loss(self, batch: Batch) -> Tensor:
        items = batch.items
        slots = self.slots_of(batch.times, batch.users)
        user = self.users(batch.users, slots)
        item = self.items(items.flatten(), slots.repeat_interleave(items.shape[1])).unflatten(1, items.shape)
        logits = self.network(user, item)
        if self.item_bias is not None:
            logits = logits + self.item_bias[items]
        loss = binary_cross_entropy(logits[:, 0], logits[:, 1:])
        return loss + self.l2 * half_squared_norm(user[0], item[0]) if self.l2 else loss

    @torch.no_grad()
    def scorer(self, times: Tensor | None = None) -> Scorer:
        device = self.users.static.device
        users = torch.arange(len(self.users.static), device=device)
        slots = self.slots_of(times, users)
        served, which = slots.unique(return_inverse=True)
        items = torch.stack([self.items.all(slot.expand(len(self.items.static))) for slot in served])
        bias = None if self.item_bias is None else self.item_bias.detach()
        return PairScorer(self.network, self.users.all(slots), items, which, bias)


class TemporalEmbedding(nn.Module):
    """Static and temporal embeddings of one side (users or items).

    Args:
        n: users or items.
        n_slots: T.
        factors: d.
        full: a slot table of its own for each row, instead of static + slot vector.
        attention: whether the temporal embedding is an attended sum over the slots, or its own slot's vector.
        initial_scale: standard deviation of the embeddings at the start.
    """

    attention: nn.Parameter | None

    def __init__(
        self, n: int, n_slots: int, factors: int, *, full: bool, attention: bool, initial_scale: float
    ) -> None:
        super().__init__()
        self.full = full
        self.static = nn.Parameter(torch.empty(n, factors))
        # The last slot is "unknown".
        self.slot_vectors = nn.Parameter(torch.empty(*((n,) if full else ()), n_slots + 1, factors))
        kernel = nn.Parameter(torch.empty(factors, factors)) if attention else None
        self.register_parameter("attention", kernel)
        nn.init.normal_(self.static, std=initial_scale)
        nn.init.normal_(self.slot_vectors, std=initial_scale)
        nn.init.zeros_(self.slot_vectors[..., -1, :])
        if kernel is not None:
            nn.init.xavier_uniform_(kernel)

    def forward(self, index: Tensor, slots: Tensor) -> Tensor:
        """Static and temporal embeddings of (B,) rows in (B,) slots: (2, B, d)."""
        static = self.static[index]
        vectors = self.slot_vectors[index] if self.full else static.unsqueeze(1) + self.slot_vectors
        query = vectors[torch.arange(len(index), device=index.device), slots]
        if self.attention is None:
            return torch.stack([static, query])
        known = vectors[:, :-1]
        logits = torch.einsum("btd,bd->bt", torch.tanh(known @ self.attention.T), query)
        temporal = torch.einsum("bt,btd->bd", logits.softmax(1), known)
        return torch.stack([static, temporal])

    def all(self, slots: Tensor, chunk: int = 8192) -> Tensor:
        """The embeddings of every row, each in its own slot of (n,): (2, n, d)."""
        index = torch.arange(len(self.static), device=self.static.device)
        parts = zip(index.split(chunk), slots.split(chunk), strict=True)
        return torch.cat([self(i, s) for i, s in parts], 1)


class OuterProductCNN(nn.Module):
    """The four CNNs on the outer products (p, y), (p, q), (x, y), (x, q), and the layer that fuses them.

    No map is built and no pixel is moved. The first convolution of an outer product is bilinear:

        out[r, s, c] = p[2r : 2r + 2]' K_c q[2s : 2s + 2],

    so K is applied to the user once, and each of the user's items costs one product of q's pairs with the outcome.
    The pixels' columns s come in bit-reversed order: then the two columns that a later kernel joins are two halves
    of memory, its two rows r lie next to each other, and every convolution is two matrix products over views.

    Args:
        factors: d, a power of two.
        channels: C.
    """

    order: Tensor
    user_of_map: Tensor
    item_of_map: Tensor

    def __init__(self, factors: int, channels: int) -> None:
        super().__init__()
        depth = factors.bit_length() - 1
        self.channels = channels
        # Kernels by map: [row, column, out] in the first layer, then [column, row and in, out].
        self.first = nn.Parameter(torch.empty(4, 2, 2, channels))
        self.later = nn.ParameterList(nn.Parameter(torch.empty(4, 2, 2 * channels, channels)) for _ in range(depth - 1))
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(4, 1, channels)) for _ in range(depth))
        self.fusion = nn.Linear(4 * channels, 1)
        nn.init.normal_(self.first, std=(2 / 4) ** 0.5)  # He: four inputs to each unit
        for kernel in self.later:
            nn.init.normal_(kernel, std=(2 / (4 * channels)) ** 0.5)
        order = torch.zeros(1, dtype=torch.int64)
        for _ in range(depth - 1):
            order = torch.cat([2 * order, 2 * order + 1])
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("user_of_map", torch.tensor([0, 0, 1, 1]), persistent=False)
        self.register_buffer("item_of_map", torch.tensor([1, 0, 1, 0]), persistent=False)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        """Logits of G users for n items each.

        Args:
            user: (2, G, d), p and x.
            item: (2, G, n, d), q and y.

        Returns:
            (G, n).
        """
        groups, n, factors = item.shape[1:]
        half, channels = factors // 2, self.channels
        rows = user[self.user_of_map].unflatten(2, (half, 2))
        by_user = torch.einsum("mgra,mabc->mgbrc", rows, self.first).flatten(3)
        bias = self.biases[0].repeat(1, 1, half).unsqueeze(1).expand(-1, groups, -1, -1)
        pairs = item.unflatten(3, (half, 2))[:, :, :, self.order].transpose(2, 3)[self.item_of_map].flatten(2, 3)
        # The bias is a third row, met by a column of ones.
        ones = pairs.new_ones(*pairs.shape[:3], 1)
        h = torch.matmul(torch.cat([pairs, ones], 3), torch.cat([by_user, bias], 2)).relu()
        for kernel, bias in zip(self.later, self.biases[1:], strict=True):
            left, right = h.view(4, groups, 2, -1, 2 * channels).unbind(2)
            h = torch.baddbmm(bias, left.reshape(4, -1, 2 * channels), kernel[:, 0])
            h = torch.baddbmm(h, right.reshape(4, -1, 2 * channels), kernel[:, 1]).relu()
        return self.fusion(h.view(4, groups, n, channels).permute(1, 2, 0, 3).flatten(2)).squeeze(2)


@dataclass(frozen=True)
class PairScorer:
    """Scores every pair by the network, so many pairs at a time that the activations stay in the processor's cache.

    Attributes:
        network: the CNNs.
        users: (2, n_users, d), p and x at each user's own time.
        items: (S, 2, n_items, d), q and y in each of the S slots in which some user is served.
        slot_of_user: (n_users,) int64, index into the first dimension of `items`.
        bias: (n_items,) the items' offsets, or None.
    """

    network: OuterProductCNN
    users: Tensor
    items: Tensor
    slot_of_user: Tensor
    bias: Tensor | None = None

    @property
    def chunk(self) -> int:
        """Pairs at a time: their largest activation, d^2 C numbers each, takes 4 MiB (256 MiB on a GPU)."""
        budget = 2**20 if self.users.device.type == "cpu" else 2**26
        return max(1, budget // (self.users.shape[2] ** 2 * self.network.channels))

    @torch.no_grad()
    def block(self, users: Tensor) -> Tensor:
        scores = self.users.new_empty(len(users), self.items.shape[2])
        for row, user in enumerate(users.tolist()):
            catalogue = self.items[self.slot_of_user[user]].unsqueeze(1)
            # One user a call: the network applies its first kernel to the user once for all items of the part.
            parts = catalogue.split(self.chunk, 2)
            torch.cat([self.network(self.users[:, user : user + 1], part)[0] for part in parts], out=scores[row])
        return scores if self.bias is None else scores.add_(self.bias)

    @torch.no_grad()
    def pairs(self, users: Tensor, items: Tensor) -> Tensor:
        rows = []
        for user, candidates in zip(users.split(1), items, strict=True):
            catalogue = self.items[self.slot_of_user[user[0]]]
            parts = [catalogue[:, part].unsqueeze(1) for part in candidates.split(self.chunk)]
            rows.append(torch.cat([self.network(self.users[:, user], part)[0] for part in parts]))
        scores = torch.stack(rows)
        return scores if self.bias is None else scores + self.bias[items]


SETTINGS = TrainSettings(learning_rate=1e-3, batch_size=256, epochs=30, evaluate_every=5)

CARD = ModelCard(
    name="concars",
    title="CoNCARS",
    family="collaborative",
    needs=frozenset({"timestamps"}),
    source="Costa and Dolog 2019, Collective Embedding for Neural Context-Aware Recommender Systems",
    fidelity="reconstruction",
    build=CoNCARS,
    profiles={
        "default": Profile(
            {"factors": 16, "channels": 16},
            (SETTINGS,),
        ),
        "paper": Profile(
            {"factors": 64, "channels": 32},
            (SETTINGS,),
            "the paper's settings are not known to us: ConvNCF's 64 factors and six layers of 32 channels",
        ),
    },
    space={
        "factors": [8, 16],
        "channels": [8, 16],
        "learning_rate": Range(3e-4, 1e-2, log=True),
    },
)
