"""The embedded default dataset: a drawn catalogue and simulated users whose tastes are known.

The world is a generative model with a seed. An item has what its picture shows (cut, colour, pattern, tone) and what
it does not (a brand's and its own hidden qualities, and popularity). A user's taste is that of one of a few style
groups plus an individual part; its preference for an item, a logit, is linear in the item's factors. A user's items
are drawn without replacement with probability proportional to exp(logit) (the Gumbel top-k trick), so the logits rank
as well as any model can: they are the dataset's `oracle`.

Popularity follows Zipf's law; history lengths have a Pareto tail. A share of the catalogue are new arrivals: their
interactions are only ever held out, never in training, so that cold items are tested at all. Times spread over two
years; an item is bought after its launch, sooner rather than later, and in its season.
"""

from __future__ import annotations

import colorsys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import PIL
from annotated_types import Ge, Le
from PIL import Image

from imgrec_lib.data.dataset import Columns, Dataset, Interactions, Oracle
from imgrec_lib.data.images import ImageStore
from imgrec_lib.data.readers.wardrobe.cuts import CUTS
from imgrec_lib.data.readers.wardrobe.drawing import PATTERNS, WHITE, Colour, Look, draw, luminance
from imgrec_lib.data.split import leave_two_out
from imgrec_lib.data.storing import prepare_images
from imgrec_lib.errors import InputError
from imgrec_lib.files import cache_folder, fingerprint
from imgrec_lib.options import Count, CountOrNone, checked

DRAWING_VERSION = 1
"""To be raised whenever the drawing changes, so that cached pictures are drawn again."""

# Hue in degrees, saturation and value from 0 to 1: lowest and highest of each family.
COLOURS: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "black": ((0, 360), (0.0, 0.15), (0.10, 0.18)),
    "white": ((30, 60), (0.0, 0.05), (0.92, 0.98)),
    "grey": ((200, 240), (0.0, 0.08), (0.45, 0.68)),
    "beige": ((32, 44), (0.18, 0.32), (0.80, 0.90)),
    "brown": ((18, 30), (0.50, 0.70), (0.35, 0.52)),
    "red": ((352, 366), (0.75, 0.92), (0.65, 0.85)),
    "pink": ((325, 348), (0.25, 0.50), (0.85, 0.96)),
    "orange": ((20, 30), (0.75, 0.90), (0.85, 0.97)),
    "yellow": ((44, 54), (0.60, 0.85), (0.88, 0.98)),
    "green": ((95, 155), (0.40, 0.70), (0.40, 0.65)),
    "blue": ((198, 216), (0.45, 0.75), (0.70, 0.92)),
    "navy": ((218, 234), (0.60, 0.80), (0.24, 0.38)),
    "purple": ((265, 288), (0.40, 0.65), (0.45, 0.68)),
}
COLOUR_WEIGHTS = np.array([2.0, 2.0, 1.5, 1, 1, 1, 1, 0.7, 0.7, 1, 1.3, 1.5, 0.8])
PATTERN_WEIGHTS = np.array([9.0, 2.5, 1.5, 2, 1.5, 2, 1.5])
PLAIN_PREFERRED = ("men's shoes", "women's shoes", "bags")
BRANDS = ("Alder", "Aspen", "Birch", "Cedar", "Elm", "Hazel", "Juniper", "Larch", "Maple", "Rowan", "Spruce", "Willow")
SUMMER = ("vest", "camisole", "shorts", "hot pants", "mini skirt", "sandals", "maxi dress", "A-line dress")
WINTER = ("jumper", "hoodie", "jacket", "roll-neck jumper", "cardigan", "Chelsea boots", "lace-up boots")

# How much each kind of property matters: standard deviations of its part of the logit.
TASTE = {"audience": 1.2, "category": 0.7, "cut": 0.7, "colour": 0.8, "tone": 0.9, "pattern": 0.8, "hidden": 0.7}
GROUPS = 5
GROUP_SHARE = 0.85
"""Share of a taste's variance that is the style group's; the rest is the user's own."""
HIDDEN = 4
"""Dimensions of the qualities that no picture shows."""
BRAND_SHARE = 0.6
TREND_SHARE = 0.5
"""Share of the appeal behind an item's popularity that its looks explain."""
ZIPF_EXPONENT = 0.8
LENGTH_TAIL, LENGTH_SCALE = 1.8, 5.0
"""Shape and scale of the Pareto (Lomax) distribution of what a user has beyond the minimum."""
START, DAY, DAYS = 1_672_531_200, 86_400, 730
"""First second (1 January 2023, UTC), seconds a day, and days that the interactions span."""
USERS_AT_ONCE = 1024


@checked
def load_wardrobe(
    *,
    n_users: Count = 1000,
    n_items: Count = 800,
    image_size: Annotated[int, Ge(8)] = 96,
    seed: CountOrNone = 0,
    split: str = "random",
    split_seed: CountOrNone = 0,
    min_interactions: Annotated[int, Ge(3)] = 5,
    new_arrivals: Annotated[float, Ge(0), Le(0.5)] = 0.08,
    cache: str | Path | None = None,
    progress: bool = True,
) -> Dataset:
    """Simulate the wardrobe and draw its pictures, or take them from the cache.

    Users, items and interactions come from NumPy's PCG64 and are the same everywhere; pixels also depend on Pillow's
    version. The same seed gives the same world at every image size.

    Args:
        n_users, n_items: size of the world; at least 1 user and four times `min_interactions` items.
        image_size: side of the pictures in pixels.
        seed: seeds the world (catalogue, users, interactions, pictures).
        split: "random" or "time", see `leave_two_out`.
        split_seed: seeds the split.
        min_interactions: each user has at least so many items after the new arrivals have left training; at least 3.
        new_arrivals: share of the catalogue without training interaction.
        cache: cache folder; by default `default_cache()`.
        progress: whether to show a progress bar while drawing.

    Returns:
        The dataset, with categories, groups (items alike in all but colour), attributes (colour, pattern, cut,
        audience, brand), names, descriptions, timestamps, images and the oracle, whose scores are the very logits the
        interactions were drawn from.

    Raises:
        InputError: a parameter is out of range.
    """
    if n_items < 4 * min_interactions:
        raise InputError(
            f"wardrobe: n_items must be at least {4 * min_interactions}, four times min_interactions, not {n_items}."
        )
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(4)]
    catalogue = _catalogue(streams[0], n_items)
    oracle = _tastes(streams[1], catalogue, n_users)
    arrival = np.zeros(n_items, dtype=bool)
    arrival[streams[2].permutation(n_items)[: round(new_arrivals * n_items)]] = True
    users, items = _choices(streams[2], oracle, arrival, min_interactions)
    table = pd.DataFrame({Columns.USER: users, Columns.ITEM: items})
    table[Columns.TIME] = _times(streams[3], users, items, n_users, catalogue.items["cut"], arrival)

    train, validation, test = leave_two_out(table, n_users, n_items, split, split_seed)
    return Dataset(
        name="wardrobe",
        user_ids=_ids("user", n_users),
        items=catalogue.items,
        train=_without(train, arrival),
        validation=validation,
        test=test,
        images=_pictures(catalogue, image_size, cache, progress),
        oracle=oracle,
        split={"kind": split, "seed": split_seed, "min_interactions": min_interactions, "new_arrivals": new_arrivals},
    )


@dataclass(frozen=True)
class _Catalogue:
    """The item table, the looks of the pictures, and the factors of each kind that preferences are linear in."""

    items: pd.DataFrame
    looks: list[Look]
    factors: dict[str, np.ndarray]
    log_popularity: np.ndarray


def _ids(kind: str, number: int) -> np.ndarray:
    """(number,) ids "kind-0001", ... in an order that is also alphabetical."""
    digits = max(4, len(str(number)))
    return np.array([f"{kind}-{k:0{digits}d}" for k in range(1, number + 1)], dtype=object)


# --- catalogue ---


def _catalogue(rng: np.random.Generator, n_items: int) -> _Catalogue:
    cuts = [(category, cut) for category, named in CUTS.items() for cut in named]
    families = list(COLOURS)
    rows, looks, tones = [], [], []
    # Equally many items of each cut, as far as the numbers allow.
    for number in rng.permutation(np.resize(rng.permutation(len(cuts)), n_items)):
        category, cut = cuts[number]
        family = str(rng.choice(families, p=COLOUR_WEIGHTS / COLOUR_WEIGHTS.sum()))
        weights = PATTERN_WEIGHTS * np.where(np.arange(len(PATTERNS)) == 0, 3 if category in PLAIN_PREFERRED else 1, 1)
        pattern = str(rng.choice(PATTERNS, p=weights / weights.sum()))
        brand = BRANDS[rng.integers(len(BRANDS))]
        look = _look(rng, family, pattern)
        worn = {"men's": "men", "women's": "women", "dresses": "women"}.get(category.split()[0], "everyone")
        description = cut if pattern == "plain" else f"{pattern} {cut}"
        rows.append((f"{family.capitalize()} {description} ({category})", category, family, pattern, cut, worn, brand))
        looks.append(look)
        tones.append(_tone(look.colour))
    columns = [Columns.NAME, Columns.CATEGORY, "colour", "pattern", "cut", "audience", "brand"]
    items = pd.DataFrame(rows, columns=columns)
    items.insert(0, Columns.ITEM, _ids("item", n_items))
    # Drawn from no random stream: worlds of earlier versions stay what they were.
    items[Columns.DESCRIPTION] = [_description(row, number) for number, row in enumerate(items.itertuples())]
    items[Columns.GROUP] = items[[Columns.CATEGORY, "brand", "pattern", "cut"]].agg(" ".join, axis=1)

    factors = {name: _one_hot(items[name]) for name in ("category", "cut", "colour", "pattern")}
    factors["audience"] = items["audience"].map({"men": -1.0, "women": 1.0, "everyone": 0.0}).to_numpy()[:, None]
    factors["tone"] = _standardised(np.array(tones)) / np.sqrt(len(tones[0]))
    brands = rng.normal(size=(len(BRANDS), HIDDEN))[[BRANDS.index(b) for b in items["brand"]]]
    own = rng.normal(size=(n_items, HIDDEN))
    factors["hidden"] = (np.sqrt(BRAND_SHARE) * brands + np.sqrt(1 - BRAND_SHARE) * own) / np.sqrt(HIDDEN)

    visible = np.concatenate([factors[name] for name in ("cut", "colour", "pattern")], axis=1)
    trend = _standardised(visible @ rng.normal(size=(visible.shape[1], 1)))[:, 0]
    appeal = np.sqrt(TREND_SHARE) * trend + np.sqrt(1 - TREND_SHARE) * rng.normal(size=n_items)
    rank = np.empty(n_items)
    rank[np.argsort(-appeal, kind="stable")] = np.arange(1, n_items + 1)
    log_popularity = -ZIPF_EXPONENT * np.log(rank)
    return _Catalogue(items, looks, factors, log_popularity - log_popularity.mean())


def _description(item: Any, number: int) -> str:
    """What a shop would write of an item: what its picture shows, for whom it is, and its brand."""
    garment, colour = str(item.cut), str(item.colour)
    look = f"in {colour}" if item.pattern == "plain" else f"with a {item.pattern} pattern, mostly {colour}"
    wearer = "" if item.audience == "everyone" else f" for {item.audience}"
    season = " Light, for the summer." if garment in SUMMER else " Warm, for the winter." if garment in WINTER else ""
    first = (
        f"{garment[:1].upper()}{garment[1:]} {look}{wearer}, by {item.brand}.",
        f"{item.brand}: {garment} {look}{wearer}.",
        f"From {item.brand}'s {item.category}, a {garment} {look}{wearer}.",
    )[number % 3]
    return first + season


def _one_hot(values: pd.Series) -> np.ndarray:
    """(n, number of different values, alphabetically) float64."""
    return pd.get_dummies(values).to_numpy(dtype=np.float64)


def _standardised(values: np.ndarray) -> np.ndarray:
    """Columns with mean 0 and standard deviation 1."""
    return (values - values.mean(axis=0)) / values.std(axis=0)


def _look(rng: np.random.Generator, family: str, pattern: str) -> Look:
    """A look of the given colour family and pattern; all else at random."""
    colour = _colour(rng, family)
    # Of a few colours the one that stands out best.
    others = [_colour(rng, str(name)) for name in rng.choice(list(COLOURS), size=3)] + [_colour(rng, "white")]
    accent = max(others, key=lambda other: abs(luminance(other) - luminance(colour)) + 60 * rng.random())
    return Look(
        pattern=pattern,
        colour=colour,
        accent=accent,
        pattern_scale=float(rng.uniform(0.75, 1.35)),
        length=float(rng.uniform(-1, 1)),
        width=float(rng.uniform(-1, 1)),
        rotation=float(np.clip(rng.normal(0, 8), -25, 25)),
        mirrored=bool(rng.random() < 0.5),
        scale=float(rng.uniform(0.82, 1.04)),
        shift=(float(rng.normal(0, 0.02)), float(rng.normal(0, 0.02))),
        background=_background(rng),
        seed=int(rng.integers(2**31)),
    )


def _colour(rng: np.random.Generator, family: str) -> Colour:
    hue, saturation, value = (float(rng.uniform(low, high)) for low, high in COLOURS[family])
    return _rgb(hue, saturation, value)


def _rgb(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = (round(255 * c) for c in colorsys.hsv_to_rgb(hue % 360 / 360, saturation, value))
    return red, green, blue


def _tone(colour: Colour) -> tuple[float, float, float]:
    """Brightness, and warmth against coolness in two directions (red to green, yellow to blue)."""
    red, green, blue = colour
    return luminance(colour), red - green, (red + green) / 2 - blue


def _background(rng: np.random.Generator) -> tuple[Colour, Colour]:
    """White, light grey, a soft colour, or a soft gradient: colours at the top and at the bottom."""
    kind = rng.choice(["white", "grey", "coloured", "gradient"], p=[0.35, 0.2, 0.2, 0.25])
    if kind == "white":
        return WHITE, WHITE
    hue, saturation = float(rng.uniform(0, 360)), 0.0 if kind == "grey" else float(rng.uniform(0.03, 0.14))
    value = float(rng.uniform(0.86, 0.97))
    top = _rgb(hue, saturation, value)
    return (top, _rgb(hue, saturation, value - 0.14)) if kind == "gradient" else (top, top)


def _pictures(catalogue: _Catalogue, size: int, cache: str | Path | None, progress: bool) -> ImageStore:
    """Draw the catalogue, unless the cache holds these very pictures."""
    ids = list(catalogue.items[Columns.ITEM])
    cuts = [CUTS[c][n] for c, n in zip(catalogue.items[Columns.CATEGORY], catalogue.items["cut"], strict=True)]
    names = catalogue.items["cut"].to_numpy()
    key = fingerprint(DRAWING_VERSION, PIL.__version__, names, [asdict(look) for look in catalogue.looks], size)

    def drawn() -> Iterator[Image.Image]:
        for cut, look in zip(cuts, catalogue.looks, strict=True):
            yield draw(cut, look, size)

    folder = cache_folder(cache, "images") / f"wardrobe-{size}-{key}"
    return prepare_images(drawn(), ids, folder, size=size, progress=progress, source_key=key)


# --- users and interactions ---


def _tastes(rng: np.random.Generator, catalogue: _Catalogue, n_users: int) -> Oracle:
    """Factors whose product is the logits: one column a property, and the item's log-popularity for all users alike."""
    group = rng.integers(GROUPS, size=n_users)
    blocks = []
    for name, factors in catalogue.factors.items():
        width = factors.shape[1]
        if name == "audience":
            # Nobody dresses half for men: a taste for one is a distaste for the other.
            taste = np.where(rng.random((n_users, width)) < 0.5, 1.0, -1.0)
        else:
            shared, own = rng.normal(size=(GROUPS, width)), rng.normal(size=(n_users, width))
            taste = np.sqrt(GROUP_SHARE) * shared[group] + np.sqrt(1 - GROUP_SHARE) * own
        blocks.append(TASTE[name] * taste)
    users = np.concatenate([*blocks, np.ones((n_users, 1))], axis=1)
    items = np.concatenate([*catalogue.factors.values(), catalogue.log_popularity[:, None]], axis=1)
    return Oracle(users.astype(np.float32), items.astype(np.float32))


def _choices(
    rng: np.random.Generator, oracle: Oracle, arrival: np.ndarray, min_interactions: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw every user's items without replacement with probability proportional to exp(logit).

    Adding Gumbel noise to the logits and sorting is that draw (Kool, van Hoof and Welling 2019, section 2). A user
    whose draw holds fewer than `min_interactions` items other than new arrivals goes on until it does.

    Returns:
        Users and items, (n_interactions,) int64 each.
    """
    n_users, n_items = len(oracle.users), len(oracle.items)
    beyond = np.floor(LENGTH_SCALE * rng.pareto(LENGTH_TAIL, n_users)).clip(0, n_items)
    lengths = np.minimum(min_interactions + beyond.astype(np.int64), n_items // 4)
    items = oracle.items.astype(np.float64)
    chosen = []
    for start in range(0, n_users, USERS_AT_ONCE):
        block = slice(start, start + USERS_AT_ONCE)
        logits = oracle.users[block].astype(np.float64) @ items.T
        order = np.argsort(-(logits + rng.gumbel(size=logits.shape)), axis=1, kind="stable")
        enough = np.argmax(np.cumsum(~arrival[order], axis=1) >= min_interactions, axis=1) + 1
        lengths[block] = np.maximum(lengths[block], enough)
        chosen += [row[:length] for row, length in zip(order, lengths[block], strict=True)]
    return np.repeat(np.arange(n_users), lengths), np.concatenate(chosen)


def _times(
    rng: np.random.Generator,
    users: np.ndarray,
    items: np.ndarray,
    n_users: int,
    cuts: pd.Series,
    arrival: np.ndarray,
) -> np.ndarray:
    """When each interaction happened, (n_interactions,) int64 Unix seconds.

    After the user joined and the item was launched; of several such moments one is drawn that favours items just
    launched and the item's season. New arrivals were launched in the last tenth of the time.
    """
    old = np.where(rng.random(len(cuts)) < 0.4, 0.0, rng.uniform(0, 0.85 * DAYS, len(cuts)))
    launched = np.where(arrival, rng.uniform(0.9 * DAYS, 0.97 * DAYS, len(cuts)), old)[items]
    joined = rng.uniform(0, 0.7 * DAYS, n_users)[users]
    first = np.maximum(launched, joined)[:, None]
    moments = first + rng.random((len(items), 12)) * (DAYS - first)
    season = cuts.map(lambda cut: (cut in SUMMER) - (cut in WINTER)).to_numpy(np.float64)[items]
    # The year is at its warmest at the end of July.
    warmth = -np.cos(2 * np.pi * (moments - 25) / 365)
    log_weight = 1.2 * season[:, None] * warmth - (moments - launched[:, None]) / 200
    best = np.argmax(log_weight + rng.gumbel(size=moments.shape), axis=1)
    return START + np.floor(moments[np.arange(len(items)), best] * DAY).astype(np.int64)


def _without(train: Interactions, arrival: np.ndarray) -> Interactions:
    """The training interactions but for those with new arrivals."""
    kept = ~arrival[train.items]
    times = None if train.times is None else train.times[kept]
    return Interactions.from_pairs(train.users[kept], train.items[kept], train.n_users, train.n_items, times)
