from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
from narrow import not_none
from PIL import Image
from sklearn.metrics import roc_auc_score

from imgrec_lib.data.dataset import Dataset
from imgrec_lib.data.readers.wardrobe import cuts
from imgrec_lib.data.readers.wardrobe import world as wardrobe
from imgrec_lib.data.readers.wardrobe.cuts import CUTS
from imgrec_lib.data.readers.wardrobe.drawing import PATTERNS, Look, Sheet, draw, rounded, sharp
from imgrec_lib.data.readers.wardrobe.world import BRANDS, COLOURS, load_wardrobe
from imgrec_lib.errors import InputError
from imgrec_lib.files import fingerprint

TINY: dict[str, Any] = {"n_users": 20, "n_items": 60, "image_size": 12, "progress": False}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Large enough for statistics, with pictures too small to matter."""
    cache = tmp_path_factory.mktemp("world")
    return load_wardrobe(n_users=400, n_items=300, image_size=8, seed=3, cache=cache, progress=False)


def pairs(data: Dataset) -> set[tuple[int, int]]:
    """All (user, item) pairs, held out or not."""
    found = set(zip(data.train.users.tolist(), data.train.items.tolist(), strict=True))
    for held_out in (data.validation, data.test):
        found |= set(enumerate(held_out.items.tolist()))
    return found


def mean_auc(data: Dataset, scores: np.ndarray) -> float:
    """Test AUC of the first users by scikit-learn, one by one; the user's other items are no candidates."""
    values = []
    for user, positive in enumerate(data.test.items[:150]):
        candidate = np.ones(data.n_items, dtype=bool)
        candidate[data.train.of(user)] = candidate[data.validation.items[user]] = False
        items = np.flatnonzero(candidate)
        values.append(roc_auc_score(items == positive, scores[user, items]))
    return float(np.mean(values))


def test_same_seed_same_world(tmp_path: Path) -> None:
    first, second = (load_wardrobe(**TINY, seed=5, cache=tmp_path / name) for name in "ab")
    assert first.fingerprint == second.fingerprint
    assert first.items.equals(second.items)
    np.testing.assert_array_equal(not_none(first.images).pixels, not_none(second.images).pixels)
    np.testing.assert_array_equal(first.train.times, second.train.times)
    np.testing.assert_array_equal(not_none(first.oracle).users, not_none(second.oracle).users)


def test_another_seed_another_world_and_another_split_the_same_world(tmp_path: Path) -> None:
    base = load_wardrobe(**TINY, seed=5, cache=tmp_path, new_arrivals=0)
    other = load_wardrobe(**TINY, seed=6, cache=tmp_path, new_arrivals=0)
    assert not base.items.equals(other.items)
    assert pairs(base) != pairs(other)
    assert (np.asarray(not_none(base.images).pixels) != not_none(other.images).pixels).mean() > 0.3

    resplit = load_wardrobe(**TINY, seed=5, split_seed=1, cache=tmp_path, new_arrivals=0)
    assert (base.test.items != resplit.test.items).any()
    assert pairs(base) == pairs(resplit)
    np.testing.assert_array_equal(not_none(base.images).pixels, not_none(resplit.images).pixels)


def test_image_size_does_not_change_the_world(tmp_path: Path) -> None:
    small = load_wardrobe(**TINY, cache=tmp_path)
    large = load_wardrobe(**{**TINY, "image_size": 24}, cache=tmp_path)
    assert pairs(small) == pairs(large)
    assert (not_none(small.images).size, not_none(large.images).size) == (12, 24)


def test_second_load_draws_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_wardrobe(**TINY, cache=tmp_path)
    pixels = np.array(not_none(first.images).pixels)

    def fail(*_: object) -> None:
        raise AssertionError("drawn again")

    monkeypatch.setattr(wardrobe, "draw", fail)
    second = load_wardrobe(**TINY, cache=tmp_path)
    assert second.fingerprint == first.fingerprint
    np.testing.assert_array_equal(not_none(second.images).pixels, pixels)
    # Another drawing is another cache entry: it must be drawn.
    monkeypatch.setattr(wardrobe, "DRAWING_VERSION", wardrobe.DRAWING_VERSION + 1)
    with pytest.raises(AssertionError, match="drawn again"):
        load_wardrobe(**TINY, cache=tmp_path)


def test_every_user_has_the_minimum(world: Dataset) -> None:
    # Two are held out.
    assert (world.train.history_lengths + 2 >= 5).all()
    assert (world.validation.items >= 0).all() and (world.test.items >= 0).all()
    assert (world.validation.items != world.test.items).all()
    held_out = set(enumerate(world.test.items)) | set(enumerate(world.validation.items))
    assert not held_out & set(zip(world.train.users, world.train.items, strict=True))


def test_minimum_holds_with_many_new_arrivals(tmp_path: Path) -> None:
    data = load_wardrobe(**TINY, min_interactions=8, new_arrivals=0.5, cache=tmp_path)
    assert (data.train.history_lengths + 2 >= 8).all()


def test_history_lengths_have_a_long_tail(world: Dataset) -> None:
    lengths = world.train.history_lengths + 2
    assert lengths.max() > 5 * np.median(lengths)
    assert lengths.mean() > 1.1 * np.median(lengths)


def test_popularity_is_zipfian(world: Dataset) -> None:
    popularity = np.sort(world.train.popularity)[::-1]
    # Uniform popularity would give the top decile about a sixth (Poisson noise), Zipf's law far more.
    assert popularity[: len(popularity) // 10].sum() > 0.3 * popularity.sum()
    # The popularity term itself is a straight line of rank against popularity on logarithmic axes.
    oracle = not_none(world.oracle)
    term = np.sort(oracle.items[:, -1].astype(float))[::-1]
    slopes = np.diff(term) / np.diff(np.log(np.arange(1, len(term) + 1)))
    np.testing.assert_allclose(slopes, -wardrobe.ZIPF_EXPONENT, rtol=1e-2)
    assert (oracle.users[:, -1] == 1).all()


def test_cold_items_are_tested(world: Dataset) -> None:
    cold = world.train.popularity == 0
    assert 0.07 < cold.mean() < 0.25
    held_out = np.concatenate([world.validation.items, world.test.items])
    assert 0.02 < cold[held_out].mean() < 0.2


def test_times(world: Dataset) -> None:
    start, end = wardrobe.START, wardrobe.START + wardrobe.DAYS * wardrobe.DAY
    train_times = not_none(world.train.times)
    for times in (train_times, not_none(world.validation.times), not_none(world.test.times)):
        assert times.dtype == np.int64
        assert start <= times.min() and times.max() < end
    assert np.ptp(train_times) > 0.8 * (end - start)
    summer = world.items["cut"].isin(wardrobe.SUMMER).to_numpy()[world.train.items]
    winter = world.items["cut"].isin(wardrobe.WINTER).to_numpy()[world.train.items]
    month = train_times.astype("datetime64[s]").astype("datetime64[M]").astype(int) % 12 + 1
    warm = (month >= 5) & (month <= 9)
    assert warm[summer].mean() > warm[winter].mean() + 0.2


def test_split_by_time_holds_out_the_latest(tmp_path: Path) -> None:
    data = load_wardrobe(**TINY, split="time", cache=tmp_path)
    times = not_none(data.train.times)
    last = np.array([times[a:b].max() for a, b in pairwise(data.train.indptr)])
    assert (last <= not_none(data.validation.times)).all()
    assert (not_none(data.validation.times) <= not_none(data.test.times)).all()


def test_interactions_follow_the_oracle(tmp_path: Path) -> None:
    """The first item of a Gumbel top-k draw has the softmax distribution; so the share of draws matches it."""
    oracle = wardrobe.Oracle(
        np.tile(np.array([[1.0, 0.5]], np.float32), (20_000, 1)),
        np.random.default_rng(0).normal(size=(12, 2)).astype(np.float32),
    )
    users, items = wardrobe._choices(np.random.default_rng(1), oracle, np.zeros(12, dtype=bool), 3)
    assert len(set(zip(users.tolist(), items.tolist(), strict=True))) == len(users)
    firsts = items[np.searchsorted(users, np.arange(20_000))]
    logits = oracle.items @ oracle.users[0]
    expected = np.exp(logits) / np.exp(logits).sum()
    observed = np.bincount(firsts, minlength=12) / 20_000
    # Five standard errors of a share.
    assert (np.abs(observed - expected) < 5 * np.sqrt(expected * (1 - expected) / 20_000)).all()


def test_oracle_factors_are_the_taste_and_what_the_item_is(world: Dataset) -> None:
    """Recompute one kind of preference from the item table: same cut, colour, ... same part of the logit."""
    oracle = not_none(world.oracle)
    scores = oracle.users @ oracle.items.T
    assert scores.shape == (world.n_users, world.n_items)
    assert oracle.users.dtype == oracle.items.dtype == np.float32
    kinds = ["category", "cut", "colour", "pattern"]
    start = 0
    for kind in kinds:
        width = world.items[kind].nunique()
        block = oracle.items[:, start : start + width]
        start += width
        assert (block.sum(axis=1) == 1).all()
        for column, value in enumerate(sorted(world.items[kind].unique())):
            assert set(world.items.loc[block[:, column] == 1, kind]) == {value}
        spread = oracle.users[:, start - width : start].std()
        np.testing.assert_allclose(spread, wardrobe.TASTE[kind], rtol=0.25)


@pytest.mark.slow
def test_the_oracle_is_a_ceiling_well_above_popularity(world: Dataset) -> None:
    users, items = not_none(world.oracle).users, not_none(world.oracle).items
    oracle = mean_auc(world, users @ items.T)
    popularity = mean_auc(world, np.tile(world.train.popularity, (world.n_users, 1)))
    visible = mean_auc(world, users[:, : -1 - wardrobe.HIDDEN] @ items[:, : -1 - wardrobe.HIDDEN].T)
    assert 0.86 < oracle < 0.97
    assert 0.6 < popularity < oracle - 0.1
    # What pictures show is most, but not all, of what there is to learn.
    assert 0.75 < visible < oracle - 0.02


def test_pictures_show_the_colour(small_wardrobe: Dataset) -> None:
    images = not_none(small_wardrobe.images)
    size = images.size
    middle = slice(size // 2 - size // 8, size // 2 + size // 8)
    plain = (small_wardrobe.items["pattern"] == "plain").to_numpy()
    families = small_wardrobe.items["colour"].to_numpy()[plain]
    patches = np.asarray(images.pixels)[plain][:, middle, middle].reshape(plain.sum(), -1, 3)
    colours = np.median(patches, axis=1)
    distances = np.linalg.norm(colours[:, None] - colours[None], axis=2)
    same = families[:, None] == families[None]
    np.fill_diagonal(same, False)
    other = families[:, None] != families[None]
    assert distances[same].mean() < 0.5 * distances[other].mean()


def test_item_table(small_wardrobe: Dataset) -> None:
    items = small_wardrobe.items
    assert set(items["category"]) == set(CUTS)
    assert set(items["colour"]) <= set(COLOURS)
    assert set(items["pattern"]) <= set(PATTERNS)
    assert set(items["brand"]) <= set(BRANDS)
    assert set(small_wardrobe.attribute_columns) == {"colour", "pattern", "cut", "audience", "brand"}
    for _, variants in items.groupby("group"):  # one product in several colours
        assert all(variants[column].nunique() == 1 for column in ("category", "pattern", "cut", "brand"))
    assert items["group"].nunique() < len(items)
    for name, category, cut, colour in items[["name", "category", "cut", "colour"]].itertuples(index=False):
        assert cut in CUTS[category]
        assert name.lower().startswith(colour) and name.endswith(f"{cut} ({category})")
    assert items["item"].is_unique and items["item"].is_monotonic_increasing
    assert not_none(small_wardrobe.images).present.all()


CUT_NAMES = [(category, cut) for category, cuts in CUTS.items() for cut in cuts]
CASES = [(c, n, PATTERNS[k % len(PATTERNS)]) for k, (c, n) in enumerate(CUT_NAMES)]


@pytest.mark.parametrize(("category", "cut", "pattern"), CASES)
def test_each_cut_fits_the_picture(category: str, cut: str, pattern: str) -> None:
    look = Look(pattern, colour=(200, 30, 40), accent=(20, 40, 90), length=1, width=1, rotation=20)
    picture = draw(CUTS[category][cut], look, 48)
    pixels = np.asarray(picture).astype(int)
    assert picture.mode == "RGB" and picture.size == (48, 48)
    # Saturated pixels are cloth; the background is white and the shadow grey.
    cloth = np.ptp(pixels, axis=2) > 40
    assert 0.05 < cloth.mean() < 0.7
    assert not cloth[[0, -1]].any() and not cloth[:, [0, -1]].any()


@pytest.mark.skipif(PIL.__version__.split(".")[0] != "13", reason="another Pillow may draw other edges")
def test_the_outlines_are_those_that_were_drawn_when_they_were_code() -> None:
    """The digits were taken from the functions that drew the cuts before their outlines became data."""
    looks = (
        Look("striped", (40, 40, 60), (200, 30, 90), length=0.35, width=-0.8),
        Look("plain", (220, 200, 170), (30, 90, 60), length=-0.6, width=0.45),
    )
    sheets = []
    for look in looks:
        for category, cut in CUT_NAMES:
            sheet = Sheet(96, look, np.random.default_rng(0))
            CUTS[category][cut](sheet)
            sheets.append(np.asarray(sheet.image))
    assert fingerprint(*sheets) == "a6906b6742c95e70"


@pytest.mark.parametrize(
    ("written", "value"), [(0.5, 0.5), ("a - 2 * b", -4), ("min(a, b) / 4", 0.5), ("-max(1, a + b)", -5)]
)
def test_numbers_of_the_outlines_are_arithmetic(written: str | float, value: float) -> None:
    assert cuts._number(written, {"a": 2, "b": 3}) == value


@pytest.mark.parametrize("written", ["a.b", "open('x')", "[a]", "a if b else 1", "'text'", "a // b", "c"])
def test_what_is_no_arithmetic_is_refused(written: str) -> None:
    with pytest.raises((ValueError, KeyError)):
        cuts._number(written, {"a": 2, "b": 3})


def test_cuts_and_patterns_differ() -> None:
    look: dict[str, Any] = {"colour": (200, 30, 40), "accent": (20, 40, 90)}
    pictures = [draw(CUTS[c][n], Look("plain", **look), 24) for c, n in CUT_NAMES]
    pictures += [draw(CUTS["dresses"]["maxi dress"], Look(p, **look), 24) for p in PATTERNS[1:]]
    assert len({p.tobytes() for p in pictures}) == len(pictures)


def test_pose() -> None:
    look: dict[str, Any] = {"pattern": "plain", "colour": (200, 30, 40), "accent": (20, 40, 90)}

    def cloth(**pose: Any) -> np.ndarray:
        picture = draw(CUTS["women's shoes"]["pumps"], Look(**look, **pose), 64)
        return np.ptp(np.asarray(picture).astype(int), axis=2) > 60

    upright = cloth()
    assert (cloth(mirrored=True) == upright[:, ::-1]).mean() > 0.98
    assert cloth(scale=0.5).sum() == pytest.approx(0.25 * upright.sum(), rel=0.15)
    turned = np.asarray(Image.fromarray(upright).rotate(20))
    assert (cloth(rotation=20) == turned).mean() > 0.97
    assert (cloth(shift=(0.125, 0)) == np.roll(upright, 8, axis=1)).mean() > 0.98


def test_rounded_keeps_sharp_corners() -> None:
    square = rounded([*sharp(0, 0), (1, 0), (1, 1), (0, 1)])
    assert (0.0, 0.0) in square
    assert (1.0, 0.0) not in square and (1.0, 1.0) not in square
    line = rounded([(0, 0), (1, 0), (1, 1)], closed=False)
    assert line[0] == (0, 0) and line[-1] == (1, 1)


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"n_items": 3}, "n_items"),
        ({"n_users": 0}, "n_users"),
        ({"image_size": 0}, "image_size"),
        ({"min_interactions": 2}, "min_interactions"),
        ({"min_interactions": 40}, "n_items"),
        ({"seed": -1}, "seed"),
        ({"new_arrivals": 0.9}, "new_arrivals"),
        ({"split": "tiem"}, "did you mean 'time'"),
    ],
)
def test_bad_parameters(parameters: dict[str, Any], named: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=named):
        load_wardrobe(**{**TINY, **parameters}, cache=tmp_path)
    assert not (tmp_path / "images").exists()


def test_one_user_and_few_items(tmp_path: Path) -> None:
    data = load_wardrobe(n_users=1, n_items=20, image_size=8, cache=tmp_path, progress=False)
    assert (data.n_users, data.n_items) == (1, 20)
    assert len(pairs(data)) >= 5
