"""The conformance suite accepts what CONTRIBUTING promises, and refuses each fault that it looks for."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable
from typing import Any, get_type_hints

import conformance
import pytest
import torch
from conformance import EVERY_MODEL, TRAINED_MODEL
from torch import Tensor, nn

from imgrec_lib.data.dataset import TrainingData
from imgrec_lib.data.sampler import Batch
from imgrec_lib.models import registry
from imgrec_lib.models.base import ModelCard, Profile, Recommender, TrainSettings
from imgrec_lib.models.bprmf import BPRMF
from imgrec_lib.models.parts.losses import bpr, half_squared_norm


class ItemByItem:
    """s(u, i) = sum over u's training items j of weight[j, i], for a matrix of history and one of weights."""

    def __init__(self, history: Tensor, weight: Tensor) -> None:
        self.history, self.weight = history, weight

    def block(self, users: Tensor) -> Tensor:
        return self.history[users] @ self.weight

    def pairs(self, users: Tensor, items: Tensor) -> Tensor:
        return self.block(users).gather(1, items)


def history_of(data: TrainingData) -> Tensor:
    """(n_users, n_items) float32, 1 where bought."""
    history = torch.zeros(data.n_users, data.n_items)
    history[data.interactions.users, data.interactions.items] = 1
    return history


class Ridge(Recommender):
    """An item-by-item weight in closed form, in a buffer that the checkpoint keeps; nothing is trained."""

    history: Tensor
    weight: Tensor

    def __init__(self, data: TrainingData, *, penalty: float = 1.0) -> None:
        super().__init__()
        history = history_of(data)
        gram = (history.T @ history).double()
        inverse = torch.linalg.inv(gram + penalty * torch.eye(data.n_items, dtype=gram.dtype))
        self.register_buffer("history", history, persistent=False)
        self.register_buffer("weight", (inverse @ gram).float())

    def scorer(self, times: Tensor | None = None) -> ItemByItem:
        return ItemByItem(self.history, self.weight)


class Linear(Recommender):
    """An item-by-item weight that is trained."""

    history: Tensor

    def __init__(self, data: TrainingData, *, l2: float = 0.0) -> None:
        super().__init__()
        self.l2 = l2
        self.register_buffer("history", history_of(data), persistent=False)
        self.weight = nn.Parameter(torch.empty(data.n_items, data.n_items).normal_(std=0.01))

    def loss(self, batch: Batch) -> Tensor:
        scores = (self.history.to(self.weight.dtype)[batch.users] @ self.weight).gather(1, batch.items)
        return bpr(scores[:, 0], scores[:, 1:]) + self.l2 * 0.5 * self.weight.square().sum()

    def scorer(self, times: Tensor | None = None) -> ItemByItem:
        return ItemByItem(self.history, self.weight.detach())


def register(monkeypatch: pytest.MonkeyPatch, build: Callable[..., Recommender], trained: bool) -> str:
    """Give a model one line in the registry, with a profile `default` alone."""
    profile = Profile({}, (TrainSettings(),) if trained else ())
    card = ModelCard("guest", "Guest", "collaborative", frozenset(), "a test", "faithful", build, {"default": profile})
    monkeypatch.setattr(registry, "CARDS", (*registry.CARDS, card))
    return card.name


@pytest.mark.parametrize("shows", EVERY_MODEL, ids=lambda shows: shows.__name__)
@pytest.mark.parametrize(("build", "trained"), [(Ridge, False), (Linear, True)])
def test_item_by_item_weights_conform(
    build: Callable[..., Recommender], trained: bool, shows: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    shows(register(monkeypatch, build, trained))


@pytest.mark.parametrize("shows", TRAINED_MODEL, ids=lambda shows: shows.__name__)
def test_trained_item_by_item_weights_conform(shows: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    shows(register(monkeypatch, Linear, trained=True))


class Sum(BPRMF):
    def loss(self, batch: Any) -> Tensor:
        return len(batch.users) * super().loss(batch)


class ForgottenPenalty(BPRMF):
    def loss(self, batch: Any) -> Tensor:
        self.l2_bias = 0.0
        return super().loss(batch)


class NormForSquare(BPRMF):
    def loss(self, batch: Any) -> Tensor:
        weight, self.l2 = self.l2, 0.0
        return super().loss(batch) + weight * self.users[batch.users].norm(dim=1).mean() ** 2 * weight


class DeadWeight(BPRMF):
    def __init__(self, data: TrainingData, **options: Any) -> None:
        super().__init__(data, **options)
        self.unused = nn.Parameter(torch.ones(3))


class FirstItemsFirst(BPRMF):
    def scorer(self, times: Tensor | None = None) -> Any:
        offset = torch.linspace(1, 0, len(self.items))
        return type(super().scorer()).with_item_offset(self.users.detach(), self.items.detach(), offset)


class PairsWithoutOffset(BPRMF):
    def scorer(self, times: Tensor | None = None) -> Any:
        whole, self.item_bias.data = super().scorer(), torch.zeros_like(self.item_bias)
        bare = super().scorer()

        class Scorer:
            block, pairs = staticmethod(whole.block), staticmethod(bare.pairs)

        return Scorer()


class OwnSeed(BPRMF):
    numbers = itertools.count()

    def __init__(self, data: TrainingData, **options: Any) -> None:
        super().__init__(data, **options)
        generator = torch.Generator().manual_seed(next(self.numbers))
        self.users.data = torch.randn(self.users.shape, generator=generator)


class KeepsFeatures(BPRMF):
    def __init__(self, data: TrainingData, **options: Any) -> None:
        super().__init__(data, **options)
        if data.features is not None:
            self.register_buffer("features", torch.as_tensor(data.features))


class Greedy(BPRMF):
    def __init__(self, data: TrainingData, **options: Any) -> None:
        super().__init__(data, **options)
        if data.features is None:
            raise ValueError("features, please")


class Unlearning(BPRMF):
    def loss(self, batch: Any) -> Tensor:
        return half_squared_norm(self.users[batch.users]) + 0 * super().loss(batch)


FAULTS = {
    Sum: conformance.the_loss_is_a_mean_over_the_batch,
    ForgottenPenalty: conformance.each_penalty_reaches_the_gradient,
    NormForSquare: conformance.each_penalty_reaches_the_gradient,
    DeadWeight: conformance.every_trained_weight_gets_a_gradient,
    FirstItemsFirst: conformance.permuting_ids_permutes_scores,
    PairsWithoutOffset: conformance.pairs_are_entries_of_block,
    OwnSeed: conformance.the_seed_decides_the_initial_weights,
    KeepsFeatures: conformance.a_checkpoint_holds_no_copy_of_the_data,
    Greedy: conformance.what_is_not_needed_may_be_missing,
    Unlearning: conformance.learns_planted_tastes,
}


def with_bpr_mf_s_parameters(build: type[BPRMF]) -> Callable[..., Recommender]:
    """The constructor of a faulty model, whose hyper-parameters are those of BPR-MF."""

    def constructor(data: TrainingData, **options: Any) -> Recommender:
        return build(data, **options)

    constructor.__annotations__ = get_type_hints(BPRMF.__init__, include_extras=True)
    constructor.__signature__ = inspect.signature(BPRMF)  # type: ignore[attr-defined]
    return constructor


@pytest.mark.parametrize("build", FAULTS, ids=lambda build: build.__name__)
def test_a_fault_is_found(build: type[BPRMF], monkeypatch: pytest.MonkeyPatch) -> None:
    name = register(monkeypatch, with_bpr_mf_s_parameters(build), trained=True)
    with pytest.raises((AssertionError, ValueError)):
        FAULTS[build](name)


def test_without_a_fault_the_same_model_conforms(monkeypatch: pytest.MonkeyPatch) -> None:
    name = register(monkeypatch, with_bpr_mf_s_parameters(BPRMF), trained=True)
    for shows in set(FAULTS.values()):
        shows(name)
