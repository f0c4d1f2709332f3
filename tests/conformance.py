"""What every model must show, whatever it is: each behaviour takes a model's name and fails where it is missing.

`test_models.py` holds all models of the registry to it, and `test_conformance.py` holds it to account: it accepts
models that are sound and refuses each fault. A model is named by its registry line; nothing else is asked of it.
"""

from __future__ import annotations

import inspect
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from narrow import Model
from torch import Tensor
from toy import N_ITEMS, N_USERS, START, exact_auc, planted_dataset, toy_data

from imgrec_lib.data.dataset import HeldOut, Interactions, TrainingData
from imgrec_lib.data.images import ImageStore
from imgrec_lib.data.sampler import Sampler
from imgrec_lib.errors import InputError
from imgrec_lib.models import build_model, check_needs, list_models, model_card, resolve_profile
from imgrec_lib.models.base import ModelCard, Range, Recommender, TrainSettings
from imgrec_lib.search import check_space
from imgrec_lib.search.space import combinations, distributions, own_values

CARDS = list_models()
TRAINED = [name for name, card in CARDS.items() if card.profiles["default"].phases]

# Small sizes and full precision for the tests, given to every model whose constructor has a parameter of that name.
SMALL: dict[str, Any] = {
    "factors": 4,
    "visual_factors": 3,
    "units": 6,
    "channels": 2,
    "size": 32,
    "keep": "recompute",
    "components": 0,
    "batches": "interactions",
    "cold_negatives": True,
    "at_interactions": None,
}

BATCH = 7


@cache
def data() -> TrainingData:
    """Random training data with all that a model can ask for."""
    return toy_data()


def parameters_of(card: ModelCard) -> dict[str, Any]:
    """Name and default of every hyper-parameter of a model's constructor."""
    keywords = inspect.signature(card.build).parameters.values()
    return {p.name: p.default for p in keywords if p.kind is inspect.Parameter.KEYWORD_ONLY}


def penalties_of(name: str) -> list[str]:
    """The hyper-parameters that are weights of a penalty."""
    return [key for key in parameters_of(model_card(name)) if key.startswith("l2")]


def is_trained(name: str) -> bool:
    return bool(model_card(name).profiles["default"].phases)


def small(name: str, data: TrainingData, seed: int = 0, **overrides: Any) -> Recommender:
    """A small model of that name."""
    sizes = {key: value for key, value in SMALL.items() if key in parameters_of(model_card(name))}
    return build_model(name, data, seed=seed, **(sizes | overrides))


def randomised(model: Model, seed: int = 0) -> Model:
    """The model with random weights everywhere, so that no bias hides behind its initial zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def user_times(seed: int = 0) -> Tensor:
    return torch.as_tensor(START + np.random.default_rng(seed).integers(0, 10**8, N_USERS))


def batch_of(model: Recommender, data: TrainingData, size: int = BATCH, negatives: int = 1, seed: int = 0) -> Any:
    settings = TrainSettings(batch_size=size, negatives=negatives)
    return model.sample(Sampler(data, seed=seed), settings)


def rows(batch: Any, index: Tensor) -> Any:
    """The batch's examples at `index`; tensors shared by the whole batch stay."""
    size = len(batch.users)
    return type(batch)(*(x[index] if isinstance(x, Tensor) and len(x) == size else x for x in batch))


def gradients(model: Recommender, batch: Any) -> dict[str, Tensor]:
    model.zero_grad(set_to_none=True)
    model.loss(batch).backward()
    return {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in model.named_parameters()}


def train(model: Recommender, data: TrainingData, steps: int, batch_size: int, rate: float = 0.01) -> None:
    """Plain Adam, without the trainer."""
    sampler = Sampler(data, seed=0)
    optimiser = torch.optim.Adam(list(model.start_phase(0)), lr=rate)
    settings = replace(model.phases[0], batch_size=batch_size)
    model.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(steps):
            loss = model.loss(model.sample(sampler, settings))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            model.after_step()
    model.eval()


class Permuted(NamedTuple):
    """The same data under other indices: what was user u is user `users[u]`, what was item i is item `items[i]`."""

    data: TrainingData
    users: np.ndarray
    items: np.ndarray

    def weight(self, value: Tensor) -> Tensor:
        """A tensor of the model's state, whose dimensions over users or items change their order."""
        orders = {
            N_USERS: self.users,
            N_ITEMS: self.items,
            N_USERS + N_ITEMS: np.concatenate([self.users, N_USERS + self.items]),
        }
        for dimension, size in enumerate(value.shape):
            if size in orders:
                value = value.index_select(dimension, torch.as_tensor(np.argsort(orders[size])))
        return value


def permuted(data: TrainingData, seed: int = 5) -> Permuted:
    rng = np.random.default_rng(seed)
    users, items = rng.permutation(N_USERS), rng.permutation(N_ITEMS)
    back = np.argsort(items)
    old = data.interactions
    assert data.categories is not None and data.groups is not None and data.features is not None
    assert data.attributes is not None and data.images is not None
    moved = replace(
        data,
        interactions=Interactions.from_pairs(users[old.users], items[old.items], N_USERS, N_ITEMS, old.times),
        categories=data.categories[back],
        groups=data.groups[back],
        features=data.features[back],
        attributes=data.attributes.iloc[back].reset_index(drop=True),
        images=ImageStore.from_array(data.images.pixels[back], data.images.present[back]),
    )
    return Permuted(moved, users, items)


# --- Every model


def pairs_are_entries_of_block(name: str) -> None:
    scorer = randomised(small(name, data())).scorer(user_times())
    users = torch.tensor([3, 0, 22, 3, 11])
    items = torch.randint(N_ITEMS, (5, 9), generator=torch.Generator().manual_seed(0))
    block = scorer.block(users)
    assert block.shape == (5, N_ITEMS) and block.dtype == torch.float32 and torch.isfinite(block).all()
    assert not block.requires_grad
    pairs = scorer.pairs(users, items)
    assert pairs.shape == (5, 9)
    torch.testing.assert_close(pairs, block.gather(1, items), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(block[0], block[3], rtol=1e-5, atol=1e-6)  # the same user twice
    assert block.std() > 0


def scores_without_times(name: str) -> None:
    scorer = randomised(small(name, data())).scorer()
    assert torch.isfinite(scorer.block(torch.arange(N_USERS))).all()


def permuting_ids_permutes_scores(name: str) -> None:
    model = randomised(small(name, data()))
    moved = permuted(data())
    other = small(name, moved.data)
    other.load_state_dict({key: moved.weight(value) for key, value in model.state_dict().items()})
    times = user_times()
    expected = model.scorer(times).block(torch.arange(N_USERS))
    moved_times = times[torch.as_tensor(np.argsort(moved.users))]
    scores = other.eval().scorer(moved_times).block(torch.as_tensor(moved.users))[:, torch.as_tensor(moved.items)]
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-4 * float(expected.std()))


def a_misspelt_parameter_gets_a_suggestion(name: str) -> None:
    for key in list(parameters_of(model_card(name)))[:1]:
        misspelt: dict[str, Any] = {key + "x": 1}
        with pytest.raises(InputError, match=f"did you mean '{key}'"):
            build_model(name, data(), **misspelt)
    with pytest.raises(InputError, match=f"unknown parameter of {name} 'no_such_thing'"):
        build_model(name, data(), no_such_thing=1)
    with pytest.raises(InputError, match="unknown profile"):
        build_model(name, data(), profile="no_such_profile")


def a_wrong_type_gets_a_sentence(name: str) -> None:
    for key in list(parameters_of(model_card(name)))[:1]:
        wrong: dict[str, Any] = {key: ["surely not"]}
        with pytest.raises(InputError, match=rf"parameter '{key}' of {name} must be "):
            build_model(name, data(), **wrong)


def a_missing_need_gets_a_sentence(name: str) -> None:
    whole = data()
    without = {
        "features": replace(whole, features=None),
        "categories": replace(whole, categories=None, n_categories=0),
        "groups": replace(whole, groups=None),
        "timestamps": replace(whole, interactions=replace(whole.interactions, times=None)),
        "images": replace(whole, images=None),
        "attributes": replace(whole, attributes=pd.DataFrame(index=range(N_ITEMS))),
    }
    for need in model_card(name).needs:
        with pytest.raises(InputError, match=f"needs {need}") as caught:
            build_model(name, without[need])
        assert model_card(name).title in str(caught.value) and str(caught.value).endswith(".")


def what_is_not_needed_may_be_missing(name: str) -> None:
    whole, needs = data(), model_card(name).needs
    bare = TrainingData(
        interactions=whole.interactions if "timestamps" in needs else replace(whole.interactions, times=None),
        categories=whole.categories if "categories" in needs else None,
        n_categories=whole.n_categories if "categories" in needs else 0,
        groups=whole.groups if "groups" in needs else None,
        attributes=whole.attributes if "attributes" in needs else None,
        features=whole.features if "features" in needs else None,
        images=whole.images if "images" in needs else None,
    )
    check_needs(model_card(name), bare)
    model = small(name, bare)
    assert torch.isfinite(model.eval().scorer().block(torch.arange(N_USERS))).all()
    if is_trained(name):
        assert torch.isfinite(model.loss(batch_of(model, bare)))


def weights_round_trip(name: str) -> None:
    model = randomised(small(name, data()), seed=3)
    other = small(name, data(), seed=9)
    other.load_state_dict(model.state_dict())
    users, times = torch.arange(N_USERS), user_times()
    assert torch.equal(other.eval().scorer(times).block(users), model.scorer(times).block(users))


def the_seed_decides_the_initial_weights(name: str) -> None:
    torch.manual_seed(123)
    before = torch.get_rng_state()
    first, second, other = (small(name, data(), seed=seed).state_dict() for seed in (4, 4, 5))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], second[key]) for key in first)
    if is_trained(name):
        assert any(not torch.equal(first[key], other[key]) for key in first)


def a_checkpoint_holds_no_copy_of_the_data(name: str) -> None:
    model, features = small(name, data()), data().features
    assert features is not None
    assert not any(value.shape == features.shape for value in model.state_dict().values())
    assert set(model.state_dict()) >= {key for key, _ in model.named_parameters()}


def every_profile_is_sound(name: str) -> None:
    card, defaults = model_card(name), parameters_of(model_card(name))
    assert "default" in card.profiles
    assert card.fidelity in ("faithful", "reconstruction", "own") and card.source
    for profile, chosen in card.profiles.items():
        for key, value in chosen.parameters.items():
            assert defaults[key] is None or type(value) is type(defaults[key]), key
        resolved = resolve_profile(name, profile)
        assert dict(resolved.parameters) == defaults | dict(chosen.parameters)
        for phase in resolved.phases:
            assert phase.optimiser in ("adam", "sgd", "adagrad")
            assert phase.positives_by in ("user", "interaction", "user-without-replacement")
            assert phase.schedule in ("constant", "linear") and phase.learning_rate > 0
        build_model(name, data(), profile=profile, **({"size": SMALL["size"]} if "size" in defaults else {}))


def its_space_is_sound(name: str) -> None:
    """Every value that a search may try is one that the model takes, and the default's own are among them."""
    card = model_card(name)
    check_space(name, "default", card.space)
    if card.space:
        assert own_values(name, "default", card.space) is not None
        size = combinations(card.space)
        assert len(card.space) <= 6 and (size is None or size > 1)
        for of, distribution in distributions(name, "default", card.space).items():
            values = card.space[of]
            ends = (values.low, values.high) if isinstance(values, Range) else values
            assert all(distribution._contains(distribution.to_internal_repr(value)) for value in ends), of


EVERY_MODEL = (
    pairs_are_entries_of_block,
    scores_without_times,
    permuting_ids_permutes_scores,
    a_misspelt_parameter_gets_a_suggestion,
    a_wrong_type_gets_a_sentence,
    a_missing_need_gets_a_sentence,
    what_is_not_needed_may_be_missing,
    weights_round_trip,
    the_seed_decides_the_initial_weights,
    a_checkpoint_holds_no_copy_of_the_data,
    every_profile_is_sound,
    its_space_is_sound,
)


# --- Every model that is trained


def the_loss_is_a_mean_over_the_batch(name: str) -> None:
    """In whatever order its examples stand, and dealt out to as many processes as there are examples."""
    for negatives in (1, 3):
        penalties: dict[str, Any] = dict.fromkeys(penalties_of(name), 0.3)
        model = randomised(small(name, data(), **penalties)).double()
        batch = batch_of(model, data(), negatives=negatives)
        loss = model.loss(batch)
        assert loss.shape == () and torch.isfinite(loss)
        order = torch.tensor([4, 2, 6, 0, 1, 5, 3])
        torch.testing.assert_close(model.loss(rows(batch, order)), loss, rtol=1e-9, atol=0)
        parts = [model.shard(batch, rank, BATCH) for rank in range(BATCH)]
        shares = torch.stack([weight * model.loss(part) for part, weight in parts])
        torch.testing.assert_close(shares.sum(), loss, rtol=1e-9, atol=0)
        assert shares.std() > 0


def each_penalty_reaches_the_gradient(name: str) -> None:
    off: dict[str, Any] = dict.fromkeys(penalties_of(name), 0.0)
    for penalty in off:
        losses, grads = [], []
        for weight in (0.0, 0.5, 1.0):
            model = randomised(small(name, data(), **(off | {penalty: weight}))).double()
            batch = batch_of(model, data(), size=64)
            losses.append(model.loss(batch).item())
            grads.append(gradients(model, batch))
        assert losses[1] > losses[0], penalty
        assert losses[2] - losses[1] == pytest.approx(losses[1] - losses[0], rel=1e-6), penalty
        assert any(not torch.equal(grads[0][key], grads[1][key]) for key in grads[0]), penalty


def every_trained_weight_gets_a_gradient(name: str) -> None:
    model = randomised(small(name, data()))
    batch = batch_of(model, data(), size=200)
    dead = [
        key
        for key, gradient in gradients(model, batch).items()
        if model.get_parameter(key).requires_grad and not gradient.any()
    ]
    assert dead == []


def held_out_items_cannot_reach_the_weights(name: str) -> None:
    if "images" in model_card(name).needs:
        pytest.skip("the planted dataset has no pictures")
    dataset, features = planted_dataset(n_users=20, n_items=40)
    other = replace(
        dataset,
        validation=HeldOut(dataset.test.items, dataset.test.times),
        test=HeldOut((dataset.validation.items + 7) % 40, dataset.validation.times),
    )
    trained = []
    for version in (dataset, other):
        planted = version.training_data(features, in_order=True)
        model = small(name, planted)
        train(model, planted, steps=3, batch_size=16)
        trained.append(model.state_dict())
    for key, value in trained[0].items():
        assert torch.equal(value, trained[1][key])


def learns_planted_tastes(name: str) -> None:
    if "images" in model_card(name).needs:
        pytest.skip("the planted dataset has no pictures")
    dataset, features = planted_dataset()
    planted = dataset.training_data(features, in_order=True)
    # The constructor's own defaults: the default profile is tuned on another, far larger dataset.
    plain = {key: value for key, value in parameters_of(model_card(name)).items() if key not in SMALL}
    model = small(name, planted, **plain)
    train(model, planted, steps=250, batch_size=256)
    times = torch.as_tensor(dataset.test.times)
    scores = model.scorer(times).block(torch.arange(dataset.n_users)).numpy()
    popularity = np.tile(dataset.train.popularity, (dataset.n_users, 1))
    assert exact_auc(scores, dataset, dataset.test.items) > exact_auc(popularity, dataset, dataset.test.items) + 0.1


TRAINED_MODEL = (
    the_loss_is_a_mean_over_the_batch,
    each_penalty_reaches_the_gradient,
    every_trained_weight_gets_a_gradient,
    held_out_items_cannot_reach_the_weights,
    learns_planted_tastes,
)
