"""The contract between a model and everything else.

A model draws its batch, computes its loss and hands out a scorer. The trainer knows nothing else of it, and the
evaluation sees only the scorer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imgrec_lib.data.dataset import Interactions
from imgrec_lib.data.sampler import Sampler
from imgrec_lib.errors import InputError
from imgrec_lib.options import Count, CountOrNone, NotNegative, Positive


def announce(table: Tensor, index: Tensor) -> bool:
    """Say which rows of a table are about to be read, where that is not done by `look_up`.

    Returns:
        Whether the trainer asked for gradients that hold the rows of the batch alone (`Recommender.row_tables`).

    Raises:
        InputError: other processes hold rows of it (`TrainSettings.shard_tables`), which `look_up` alone can bring.
    """
    if hasattr(table, "fetch_rows"):
        raise InputError(
            "this model reads its tables otherwise than by looking rows up, and so whole ones: leave shard_tables out."
        )
    listener = getattr(table, "announce_rows", None)
    if listener is not None:
        listener(index)
    return listener is not None


def look_up(table: Tensor, index: Tensor) -> Tensor:
    """Rows of a table: an (n, k) or (n,) table and int64 indices (...) -> (..., k) or (...).

    Losses look rows up here and not by indexing: on the CPU the backward pass is several times faster and features are
    read by all cores, and the trainer may ask for gradients that hold the rows of the batch alone
    (`Recommender.row_tables`), or leave the rows with other processes (`TrainSettings.shard_tables`).
    """
    fetch = getattr(table, "fetch_rows", None)
    if fetch is not None:
        return fetch(index)
    if announce(table, index):
        if table.ndim == 1:
            return torch.gather(table, 0, index.reshape(-1), sparse_grad=True).view(index.shape)
        return F.embedding(index, table, sparse=True)
    if table.ndim == 1:
        return F.embedding(index, table.unsqueeze(1)).squeeze(-1)
    return F.embedding(index, table)


def dot(users: Tensor, items: Tensor) -> Tensor:
    """Inner products of each user's vector with those of its items: (B, k) and (B, n, k) -> (B, n).

    A sum of products: on the CPU it is faster than einsum, and mixed precision would round a matrix product's factors.
    """
    return (users.unsqueeze(1) * items).sum(-1)


def distinct(items: Tensor) -> tuple[Tensor, Tensor]:
    """Each item once, for a loss that embeds an item once however often the batch names it.

    Args:
        items: int64 of any shape (...).

    Returns:
        (D,) different items, in an order that is the same for the same items, and int64 (...) places among them:
        `look_up(rows, places)` are the rows of `items` where `rows` are those of the different ones.
    """
    if items.device.type != "cpu":
        return items.unique(return_inverse=True)
    from imgrec_lib import compiled  # this loop hashes, which is faster than PyTorch's sorting

    different, places = compiled.distinct(items.reshape(-1).numpy())
    return torch.from_numpy(different), torch.from_numpy(places).view(items.shape)


@runtime_checkable
class Scorer(Protocol):
    """Scores of users for items. Higher is better; only the order inside a user matters."""

    def block(self, users: Tensor) -> Tensor:
        """(B,) int64 user indices -> (B, n_items) float32 scores of the whole catalogue."""
        ...

    def pairs(self, users: Tensor, items: Tensor) -> Tensor:
        """(B,) users and (B, C) items -> (B, C) float32 scores, equal to the entries of `block`."""
        ...


@runtime_checkable
class Sliceable(Protocol):
    """A scorer that scores a part of the catalogue at the part's cost."""

    def tile(self, users: Tensor, items: slice, out: Tensor | None = None) -> Tensor:
        """(B,) int64 users and n consecutive items -> (B, n) float32 scores: columns of `block`, up to rounding.

        `out`, of the result's shape and type, may serve as its memory: fresh memory can cost as much as the product.
        """
        ...


@dataclass(frozen=True)
class InnerProduct:
    """The scorer of every latent factor model: s(u, i) = <users[u], items[i]>.

    An item offset is one more column, with ones on the users' side (`with_item_offset`).

    Attributes:
        users: (n_users, k) float32.
        items: (n_items, k) float32.
    """

    users: Tensor
    items: Tensor

    @classmethod
    def with_item_offset(cls, users: Tensor, items: Tensor, offset: Tensor) -> InnerProduct:
        """s(u, i) = <users[u], items[i]> + offset[i]; `offset` is (n_items,)."""
        ones = users.new_ones(len(users), 1)
        return cls(torch.cat([users, ones], 1), torch.cat([items, offset.unsqueeze(1)], 1))

    @cached_property
    def rounded(self) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray], float]:
        """The items, what `compiled.round_rows` makes of them, and the length of all of them together."""
        from imgrec_lib import compiled

        items = self.items.detach().float().contiguous().numpy()
        *rows, length = compiled.round_rows(items)
        return items, tuple(rows), length

    def block(self, users: Tensor) -> Tensor:
        return self.tile(users, slice(None))

    def tile(self, users: Tensor, items: slice, out: Tensor | None = None) -> Tensor:
        rows = self.users.index_select(0, users)  # takes a fifth of the time of indexing
        return torch.mm(rows, self.items[items].T, out=out)

    def pairs(self, users: Tensor, items: Tensor) -> Tensor:
        if self.users.device.type != "cpu":
            return torch.einsum("bk,bck->bc", self.users[users], self.items[items])
        # This copies no row, which on the CPU takes a fraction of the time.
        from imgrec_lib import compiled

        tables = (table.detach().contiguous().numpy() for table in (self.users, self.items))
        return torch.from_numpy(compiled.pair_scores(*tables, *(each.contiguous().numpy() for each in (users, items))))

    def extended(self, rows: Tensor) -> InnerProduct:
        return InnerProduct(self.users, torch.cat([self.items, rows]))

    def personal(self) -> Tensor:
        """(k,) bool: the columns that tell users apart; of the others, item offsets, each user has the same."""
        return (self.users != self.users[:1]).any(0)


def item_vectors(scorer: Scorer) -> Tensor | None:
    """The items as a model has learnt them, whose cosines say which items it takes for alike.

    Item offsets do not count: they say how popular an item is, not what it is like.

    Returns:
        (n_items, k) float32, the items' side of an inner product with 0 in the columns that do not tell users apart;
        None where scores are no inner product, or the same for all users.
    """
    if not isinstance(scorer, InnerProduct):
        return None
    personal = scorer.personal()
    return scorer.items * personal if personal.any() else None


@runtime_checkable
class Extensible(Protocol):
    """A scorer that can take in items that are not in the catalogue."""

    def extended(self, rows: Tensor) -> Scorer:
        """The scorer of the catalogue and, behind it, new items, one a row of `PictureEmbedding.embed_pictures`."""
        ...


@runtime_checkable
class ScoreParts(Protocol):
    """A model whose score is a sum of parts that have a meaning."""

    def contributions(self, users: Tensor, items: Tensor) -> Mapping[str, Tensor]:
        """Split scores exactly.

        Args:
            users: (B,) int64.
            items: (B, C) int64.

        Returns:
            What each part contributes, by its name: (B, C) float32 each, and their sum is the score.

        Raises:
            InputError: with these hyper-parameters the score is no such sum.
        """
        ...


@runtime_checkable
class PurchaseParts(Protocol):
    """A model that compares an item with each of a user's purchases."""

    def purchase_similarity(self, user: int, items: Tensor) -> Tensor:
        """How similar items are to the user's training items.

        Args:
            user: user index.
            items: (C,) int64.

        Returns:
            (C, training items of the user) float32, the columns in the order of `Interactions.of`: what the model
            takes the mean, the sum or the largest of.
        """
        ...


@runtime_checkable
class Baskets(Protocol):
    """A model that scores for users it has never seen, from what they bought alone, without training."""

    def score_baskets(self, baskets: Interactions) -> Tensor:
        """Score the whole catalogue for each basket.

        Args:
            baskets: what each new user bought, over this model's catalogue; a basket may be empty.

        Returns:
            (n_baskets, n_items) float32. A basket that holds just the training items of a known user gets the scores
            of that user.
        """
        ...


@runtime_checkable
class BasketTower(Protocol):
    """A model whose users are what they bought: a network of their purchases, whose output meets items in a product."""

    def basket_tower(self) -> nn.Module | None:
        """The users' side of the inner product, as a network that stands alone.

        Returns:
            A module that takes (B, L) int64 baskets, items of the catalogue filled up with -1, to (B, k) float32 rows
            for `InnerProduct.users`. A basket that holds just the training items of a known user gets that user's row.
            None where, with these hyper-parameters, the score is no inner product.
        """
        ...


@runtime_checkable
class AttributeAttention(Protocol):
    """A model in which a user attends to an item's attributes."""

    def attribute_attention(self, users: Tensor, items: Tensor) -> Mapping[str, Tensor]:
        """The share of attention that each attribute gets; over the attributes they sum to 1.

        Args:
            users: (B,) int64.
            items: (B, C) int64.

        Returns:
            (B, C) float32 by the attribute's name.
        """
        ...


class SeenAttribute(NamedTuple):
    """An attribute of an item as a model sees it in the picture.

    Attributes:
        name: the attribute, "neckline".
        value: which of its values the model sees, "round".
        box: (4,) float32, where the picture shows it: left, top, right, bottom as shares of the picture's sides.
        strength: (h, w) float32 from 0 to 1, how much each place of the picture speaks for the value.
    """

    name: str
    value: str
    box: np.ndarray
    strength: np.ndarray


@runtime_checkable
class AttributeRegions(AttributeAttention, Protocol):
    """A model that knows where a picture shows an attribute."""

    def seen_attributes(self, item: int) -> Sequence[SeenAttribute]:
        """All attributes of an item, in the order of `attribute_attention`."""
        ...


@runtime_checkable
class PictureEmbedding(Protocol):
    """A model that can score an item of which there is a picture alone, without training.

    What belongs to the item's id, which is unknown, counts as it does in the mean over the catalogue.
    """

    def embed_pictures(self, pixels: Tensor, features: Tensor) -> Tensor:
        """The items' side of the score, for pictures that are not in the catalogue.

        Args:
            pixels: (P, height, width, 3) uint8, as in the image store.
            features: (P, n_features) float32, as the catalogue's.

        Returns:
            (P, k) float32: rows for the scorer's `extended`.
        """
        ...


@dataclass(frozen=True)
class TrainSettings:
    """How the trainer runs one phase of training.

    Attributes:
        optimiser: "adam", "sgd" or "adagrad".
        learning_rate: step size.
        weight_decay: before each step all weights shrink by this times the learning rate (Loshchilov and Hutter 2019,
            Decoupled Weight Decay Regularization: AdamW); of Adam alone.
        warm_up: steps in which the rate grows evenly to its size.
        batch_size: positives a batch.
        accumulate: batches a step: its gradient is the mean of theirs, so that 4 batches of 256 train as one of 1024
            does, in a quarter of the memory.
        epochs: at most so many; one epoch draws as many positives as there are training interactions.
        patience: stop after so many validations without a better one (0: run all epochs).
        choose_by: the metric of the validation items by which one validation is better than another: "auc" or any other
            of `evaluation.metrics.user_values`, such as "ndcg@10"; the same in all phases.
        validation_users: validate on so many users alone, see `ValidationAUC` (0: on all); the same in all phases.
        restore: which weights the phase leaves behind: "best", those of the best validation, or "last", those of the
            last epoch, as scripts without model selection do; it then runs all epochs.
        evaluate_every: epochs between validations.
        negatives: negatives a positive.
        positives_by: "user" (user uniform, then one of its items), "user-without-replacement" (all of its items before
            one comes again) or "interaction", see `Sampler.positives`.
        epsilon: Adam's or Adagrad's epsilon.
        gradient_clip: largest global gradient norm (0: no clipping).
        schedule: "constant", or "linear" decay, step by step, to 1e-4 of the learning rate over all epochs.
        precision: "float32"; "bfloat16" for mixed precision, of use on GPUs and on CPUs that multiply such numbers
            (AVX512-BF16, AMX), for a model that allows it (`Recommender.mixed_precision`); or "auto": bfloat16 on a
            GPU where the model allows it, else float32.
        shard_tables: of several processes on CPUs (torchrun) each holds a part of the rows of the tables that the model
            looks rows up in, with their moments: memory falls with the number of processes. For a model of one phase
            that looks rows up and nothing else, without clipping, and without Adam whose rate decays.
    """

    optimiser: str = "adam"
    learning_rate: Positive = 1e-3
    weight_decay: NotNegative = 0.0
    warm_up: CountOrNone = 0
    batch_size: Count = 1024
    epochs: CountOrNone = 100
    patience: CountOrNone = 5
    evaluate_every: Count = 1
    negatives: Count = 1
    positives_by: str = "user"
    epsilon: NotNegative = 1e-8
    gradient_clip: NotNegative = 0.0
    schedule: str = "constant"
    accumulate: Count = 1
    precision: str = "auto"
    restore: str = "best"
    choose_by: str = "auc"
    validation_users: CountOrNone = 0
    shard_tables: bool = False


class ParameterGroup(NamedTuple):
    """Parameters that are trained in their own way.

    Attributes:
        parameters: which.
        learning_rate, weight_decay: theirs in place of those of `TrainSettings`.
    """

    parameters: Sequence[nn.Parameter]
    learning_rate: float
    weight_decay: float


class Recommender(nn.Module):
    """What a model must be.

    A subclass's constructor is `__init__(self, data: TrainingData, *, <hyper-parameters with defaults>)`. It keeps
    what it needs of `data` as buffers (`persistent=False` for what the dataset gives again, so that a checkpoint
    holds weights only). PyTorch's global random stream is seeded when the constructor runs.

    Only `loss` and `scorer` must be written; a model without parameters (PopRank) needs only `scorer`.

    Attributes:
        phases: the trainer's settings for each training phase, from the profile; empty for a model without training.
        mixed_precision: whether the loss may be computed in bfloat16 mixed precision (`TrainSettings.precision`). True
            where a network or a product with the features is most of the work. False where the work is look-ups and
            dot products, which gain nothing: bfloat16 has 8 significant bits, and a ranking loss lives on differences
            of close scores (a margin, the score of a pair, |g|^2 less its diagonal).
        picture_size: height and width of the pictures that the model looks at, where it has them resized with Pillow;
            0 where it looks at them as they are stored, or at none.
    """

    phases: tuple[TrainSettings, ...] = ()
    mixed_precision: bool = False
    picture_size: int = 0

    def steps(self, sampler: Sampler, settings: TrainSettings) -> int:
        """Steps of an epoch, at one batch a step: it draws as many positives as there are training interactions."""
        return max(1, sampler.n_interactions // settings.batch_size)

    def sample(self, sampler: Sampler, settings: TrainSettings) -> Any:
        """Draw the next training batch, a `Batch`. Override for a batch of another form, which `loss` then takes."""
        return sampler.triples(settings.batch_size, settings.negatives, settings.positives_by)

    def shard(self, batch: Any, rank: int, world_size: int) -> tuple[Any, float]:
        """The part of a batch that one of several processes computes (data parallel training), and its weight.

        The sum over the ranks of weight * loss(part) must be the loss of the batch. By default the examples are
        dealt out in parts of equal size, or nearly so; a tensor that does not have a row for each belongs to all of
        them. Override for a batch of another form.

        Args:
            batch: the batch, a named tuple of tensors or None, the same in every process.
            rank: number of the process, from 0.
            world_size: number of processes; at most the number of examples.
        """
        size = len(batch[0])
        part = type(batch)(*(t if t is None or len(t) != size else t.tensor_split(world_size)[rank] for t in batch))
        return part, len(part[0]) / size

    def loss(self, batch: Any) -> Tensor:
        """The scalar that training minimises: the mean over the batch's examples, penalties included.

        The trainer averages it over batches (`TrainSettings.accumulate`) and parts of batches (`shard`).
        """
        raise TypeError(f"{type(self).__name__} has no loss: it is not trained")

    def scorer(self, times: Tensor | None = None) -> Scorer:
        """What evaluation and recommendation use; computed without gradient, each item embedded once.

        Args:
            times: (n_users,) int64 Unix seconds at which each user is served, for models that use time; None
                when unknown.
        """
        raise NotImplementedError

    def row_tables(self) -> Iterable[nn.Parameter]:
        """The (n, k) or (n,) tables that `loss` reads by `look_up` and in no other way.

        Where such a table is much larger than a batch, the trainer lets a step touch the rows of the batch only: the
        cost of training then follows interactions, not the size of the catalogue (see `training.rows`).
        """
        return ()

    def start_phase(self, phase: int) -> Iterable[nn.Parameter]:
        """Prepare training phase `phase` (0, 1, ...); return the parameters that it trains."""
        return [p for p in self.parameters() if p.requires_grad]

    def parameter_groups(self) -> Iterable[ParameterGroup]:
        """Those of the phase's parameters that have a learning rate and a weight decay of their own."""
        return ()

    def start_epoch(self, sampler: Sampler) -> None:
        """Called before each epoch, to draw what an epoch keeps; the sampler's random stream resumes where it was."""

    def after_step(self) -> None:
        """Called after each update, for projections onto a constraint."""


@dataclass(frozen=True)
class Profile:
    """One named set of hyper-parameters.

    Attributes:
        parameters: keyword arguments of the model's constructor.
        phases: the trainer's settings, one for each phase; empty for a model that is not trained.
        note: where the values come from.
    """

    parameters: Mapping[str, Any] = field(default_factory=dict)
    phases: tuple[TrainSettings, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Range:
    """All numbers between two ends, as the values of a hyper-parameter that a search may try.

    Attributes:
        low, high: both ends belong to it; of a hyper-parameter that is a whole number, whole numbers.
        log: whether every decade is tried as often as another, and not every interval of the same width.
    """

    low: float
    high: float
    log: bool = False


Space = Mapping[str, Sequence[Any] | Range]
"""What a search may try: values to choose from, or a range, by the name of a hyper-parameter or setting of training."""


@dataclass(frozen=True)
class ModelCard:
    """A model as the registry knows it; each model's file ends with its card.

    Attributes:
        name: the name by which it is chosen ("bpr-mf").
        title: the name in tables ("BPR-MF").
        family: "popularity", "collaborative", "content", "visual", "end-to-end", "generative" or "hybrid".
        needs: any of "features", "categories", "groups", "timestamps", "images", "attributes".
        optional: what it uses where the data has it.
        source: the paper that defines it.
        fidelity: "faithful"; "reconstruction" where the sources leave a gap; or "own" for a model of imgrec's.
        build: the model's class.
        profiles: at least "default".
        space: what a search tries by default, around the profile "default", whose own values belong to it; empty for a
            model without hyper-parameters.
    """

    name: str
    title: str
    family: str
    needs: frozenset[str]
    source: str
    fidelity: str
    build: Callable[..., Recommender]
    profiles: Mapping[str, Profile]
    optional: frozenset[str] = frozenset()
    space: Space = field(default_factory=dict)

    @property
    def uses(self) -> frozenset[str]:
        """What it needs and what it uses where present."""
        return self.needs | self.optional
