"""Pictures that are no item's: decoded as the catalogue's were, embedded, compared and scored, without training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from imgrec_lib.data.dataset import Columns
from imgrec_lib.data.decoding import FORMATS_IN_WORDS, MAX_BYTES, decode
from imgrec_lib.errors import InputError, unknown_name
from imgrec_lib.evaluation.neighbours import nearest_to
from imgrec_lib.features import Backbone, build_backbone
from imgrec_lib.features.extraction import fold_batch_norms
from imgrec_lib.features.sets import OF_TABLE, PICTURES
from imgrec_lib.files import fingerprint
from imgrec_lib.models import list_models
from imgrec_lib.models.base import Extensible, InnerProduct, PictureEmbedding, Recommender, Scorer
from imgrec_lib.options import Count
from imgrec_lib.serving.ids import positions
from imgrec_lib.serving.trained import Trained

PICTURES_AT_ONCE = 32
TRIED = 16
"""Pictures of the catalogue by which a network is known as the encoder of vectors from a file."""
AS_MADE = 0.5
"""How far from what the network makes of them such vectors may be, as a share of the spread between items: whoever made
them may have decoded and resized the pictures otherwise."""
BACKBONE_OPTIONS = ("pooling", "size", "stride", "preprocessing", "crop", "seed")


def read_picture(trained: Trained, source: Path | bytes) -> np.ndarray:
    """Decode a picture as the dataset's reader does.

    Args:
        trained: an opened run, which gives size and fit of the image store.
        source: a file, or the bytes of one; at most 64 MB and 100 megapixels, of a format that the store reads.

    Returns:
        (size, size, 3) uint8.

    Raises:
        InputError: the dataset has no pictures, or this is no picture that can be read.
    """
    images, options = trained.dataset.images, trained.run.request.dataset_options
    if images is None:
        raise InputError(f"dataset {trained.dataset.name!r} has no pictures: a picture can be compared with nothing.")
    fit, resample = options.get("image_fit", "squash"), options.get("image_resample", "bicubic")
    try:
        return decode(source, images.size, fit, resample)
    except ValueError as error:
        raise InputError(f"{error}: choose a {FORMATS_IN_WORDS} below {MAX_BYTES // 10**6} MB.") from None


def backbone_of(trained: Trained) -> Backbone:
    """The backbone that an opened run's features of pictures come from.

    Raises:
        InputError: see `picture_set`.
    """
    picture_set(trained)
    return _backbone(trained)


def _backbone(trained: Trained) -> Backbone:
    request = trained.run.request
    options = {key: value for key, value in request.feature_options.items() if key in BACKBONE_OPTIONS}
    return _built(request.backbone, request.weights, tuple(sorted(options.items())))


def picture_set(trained: Trained) -> str:
    """The name of the set of features that can be made of a picture that is no item's: "picture" where it has none.

    Raises:
        InputError: the dataset has no pictures, or none of the run's sets is computed from them, or comes from a file
            of what the run's backbone makes of them.
    """
    if trained.dataset.images is None:
        raise InputError(f"dataset {trained.dataset.name!r} has no pictures: a picture can be compared with nothing.")
    name = _encoded_set(trained)
    if name is None:
        sets = " and ".join(trained.run.request.feature_files)
        raise InputError(
            f"run {trained.run.name} knows items by {sets} and computes none of it from pictures: what it would be of "
            "a new picture is unknown; train with a set of features that is 'pictures' or, where an encoder of "
            "pictures made the vectors of a file, with that encoder as the backbone."
        )
    return name


def other_sets(trained: Trained) -> list[str]:
    """The names of the sets that the model needs of an item beside `picture_set`, which no picture tells."""
    if trained.run.record.features is None:
        return []
    return [name for name in trained.run.request.feature_files if name != _encoded_set(trained)]


@lru_cache(16)
def _encoded_set(trained: Trained) -> str | None:
    """The name of the set that is made of pictures, here or by who wrote a file; None where there is none."""
    sets = trained.run.request.feature_files
    if not sets:
        return "picture"
    of_files = (name for name, source in sets.items() if source not in OF_TABLE and _is_encoder_of(trained, name))
    return next((name for name, source in sets.items() if source == PICTURES), None) or next(of_files, None)


def _is_encoder_of(trained: Trained, name: str) -> bool:
    """Whether the run's backbone makes of some of the catalogue's pictures what a set of features has of them."""
    images, values = trained.dataset.images, trained.feature_sets.get(name)
    if images is None or values is None or not images.present.any():
        return False
    items = np.flatnonzero(images.present)[:TRIED]
    try:
        found = _encoded(trained, torch.from_numpy(np.array(images.pixels[items])), name).numpy()
    except ValueError:  # of a network that cannot be had here, or of vectors that are prepared in other dimensions
        return False
    if found.shape[1] != values.shape[1]:
        return False
    distance = np.linalg.norm(found - values[items], axis=1)
    return bool(np.median(distance) < AS_MADE * np.sqrt(values.var(axis=0).sum()))


def features_of(trained: Trained, pixels: Tensor) -> Tensor:
    """What the run's features of pictures would be of others.

    Args:
        trained: an opened run.
        pixels: (P, size, size, 3) uint8, as in the image store.

    Returns:
        (P, d) float32, as in `Trained.feature_sets[picture_set(trained)]`.

    Raises:
        InputError: see `picture_set`.
    """
    return _encoded(trained, pixels, picture_set(trained))


@torch.no_grad()
def _encoded(trained: Trained, pixels: Tensor, name: str) -> Tensor:
    """Pictures through the run's backbone, then prepared as a set of features was."""
    network = _backbone(trained)
    features = torch.cat([network(part) for part in pixels.split(PICTURES_AT_ONCE)])
    prepare = None if trained.features is None else trained.features.preparations.get(name)
    return features if prepare is None else torch.from_numpy(prepare(features.numpy()))


@lru_cache(2)
def _built(name: str, weights: str, options: tuple[tuple[str, object], ...]) -> Backbone:
    network = build_backbone(name, weights=weights, **dict(options))  # type: ignore[arg-type]
    fold_batch_norms(network)  # as where features are extracted
    return network


def similar_to_picture(trained: Trained, picture: Path | bytes, k: Count = 10, *, by: str = "picture") -> pd.DataFrame:
    """The k items most similar to a picture, by cosine.

    Args:
        trained: an opened run.
        picture: a file, or the bytes of one, see `read_picture`.
        k: length of the list.
        by: "picture", the features of pictures, also by the name of their set; or "learned", the items as the model has
            learnt them, the picture as an item that nobody has bought.

    Returns:
        Columns `similar`, `rank`, `similarity` and, where the item table has names, `name`.

    Raises:
        InputError: see `read_picture` and `backbone_of`; `k` below 1; the model was not opened from a run, was given no
            visual features, or, by "learned", cannot embed a picture.

    Example:
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from imgrec_lib import Request, open_trained, train_run
        >>> from imgrec_lib.serving.pictures import similar_to_picture
        >>> small = {"n_users": 40, "n_items": 50, "image_size": 32}
        >>> request = Request("visrank", dataset="wardrobe", dataset_options=small)
        >>> data, features = request.load(progress=False)
        >>> run = train_run(data, request, Path("run"), features=features, progress=False)
        >>> Image.fromarray(data.images.pixels[7]).save("mine.png")
        >>> similar = similar_to_picture(open_trained(run, progress=False), Path("mine.png"), k=3)
        >>> similar["similar"][0] == data.items["item"][7]
        True
    """
    name = picture_set(trained)
    if by not in ("picture", "learned", name):
        raise unknown_name("kind of item vectors", by, dict.fromkeys(("learned", "picture", name)))
    vectors = trained.item_vectors("learned" if by == "learned" else name)
    pixels, feature = _feature(trained, picture)
    query = _learned(trained, pixels, feature) if by == "learned" else feature[0]
    items, similarity = nearest_to(vectors, query, k)
    table = {"similar": trained.item_ids[items], "rank": np.arange(1, len(items) + 1), "similarity": similarity}
    names = {} if trained.item_names is None else {"name": trained.item_names[items]}
    return pd.DataFrame(table | names)


@torch.no_grad()
def score_picture(trained: Trained, picture: Path | bytes, users: Iterable[Any]) -> pd.DataFrame:
    """What a picture would score, as an item that nobody has bought.

    Args:
        trained: an opened run.
        picture: a file, or the bytes of one, see `read_picture`.
        users: ids of known users.

    Returns:
        Columns `user`, `score`, and `place`: where it would stand among the items that the user does not have, from 1;
        ties count half, rounded down, as in the explorer.

    Raises:
        InputError: an unknown user, see `read_picture` and `backbone_of`, or a model that cannot score pictures.
    """
    known = positions("user", trained.users, users)
    if not isinstance(trained.model, PictureEmbedding) or not isinstance(trained.scorer, Extensible):
        raise InputError(f"{trained.title} cannot score a picture that is no item's: open a visual model.")
    _refuse_other_sets(trained)
    pixels, feature = _feature(trained, picture)
    scorer = trained.scorer.extended(trained.model.embed_pictures(pixels, feature))
    rows = []
    for user in known:
        scores = scorer.block(torch.tensor([user]))[0].float()
        others = scores[:-1].clone()
        others[torch.from_numpy(trained.owned.of(user))] = -torch.inf
        higher, tied = int((others > scores[-1]).sum()), int((others == scores[-1]).sum())
        rows.append((float(scores[-1]), higher + tied // 2 + 1))
    return pd.DataFrame(rows, columns=["score", "place"]).assign(user=trained.users[known])[["user", "score", "place"]]


def with_pictures(trained: Trained, pictures: Mapping[str, Path | bytes]) -> Trained:
    """The same model, with new items beside the catalogue, of each of which there is a picture alone.

    Nobody has bought them. What belongs to an item's id counts as it does in the mean over the catalogue (for a model
    that learns without ids: not at all). They have no attributes, and each is a product of its own.

    Args:
        trained: an opened run of a model that scores pictures (`PictureEmbedding`).
        pictures: a file, or the bytes of one, by the id of each new item.

    Returns:
        What recommends, scores and compares the new items with all others.

    Raises:
        InputError: see `read_picture` and `backbone_of`; the model cannot score pictures; an id that the catalogue has;
            no picture at all.

    Example:
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from imgrec_lib import Request, open_trained, train_run, with_pictures
        >>> tiny = {"n_users": 40, "n_items": 50, "image_size": 32}
        >>> request = Request("visrank", dataset="wardrobe", dataset_options=tiny, feature_options={"size": 32})
        >>> dataset, features = request.load(progress=False)
        >>> run = train_run(dataset, request, Path("runs/looks"), features=features, progress=False)
        >>> Image.fromarray(dataset.images.pixels[3]).save("dress.png")
        >>> more = with_pictures(open_trained(run, progress=False), {"dress": Path("dress.png")})
        >>> more.recommend(["user-0007"], k=1, items=["dress"])["item"].tolist()
        ['dress']
    """
    model, scorer = trained.model, trained.scorer
    if not isinstance(model, PictureEmbedding) or not isinstance(scorer, Extensible):
        able = [name for name, card in list_models().items() if hasattr(card.build, "embed_pictures")]
        raise InputError(
            f"{trained.title} cannot score an item by its picture alone, for it needs the item's id: train it again "
            f"with the item, or take one of {', '.join(able)}."
        )
    _refuse_other_sets(trained)
    known = [name for name in pictures if name in trained.items]
    if known:
        raise InputError(f"the catalogue has an item {known[0]!r} already: give the new one another id.")
    if not pictures:
        raise InputError("there is no picture of a new item: give one or more.")
    decoded = []
    for name, picture in pictures.items():
        try:
            decoded.append(read_picture(trained, picture))
        except InputError as error:
            raise InputError(f"the picture of the new item {name!r} cannot be used: {error}") from None
    pixels = torch.from_numpy(np.stack(decoded))
    with torch.no_grad():
        features = features_of(trained, pixels)
        rows = model.embed_pictures(pixels, features)
    dataset, ids = trained.dataset, np.array(list(pictures), object)
    new = pd.DataFrame({Columns.ITEM: ids, Columns.NAME: ids, Columns.GROUP: ids})
    table = pd.concat([dataset.items, new[[c for c in new if c in dataset.items]]], ignore_index=True).fillna("")
    train = replace(dataset.train, n_items=dataset.n_items + len(ids))
    grown = replace(dataset, items=table, train=train, images=None, further_pictures=None, oracle=None)
    looks = trained.features
    if looks is not None:
        both = np.concatenate([looks.values, features.numpy()])
        looks = replace(looks, values=both, fingerprint=fingerprint(looks.fingerprint, features.numpy()))
    return Trained(_Extended(scorer, rows), grown, looks, trained.finished, trained.title)


class _Extended(Recommender):
    """A model with the rows of new items behind those of the catalogue."""

    def __init__(self, inner: Extensible, rows: Tensor) -> None:
        super().__init__()
        self.inner, self.rows = inner, rows

    def scorer(self, times: Tensor | None = None) -> Scorer:
        return self.inner.extended(self.rows)


def _feature(trained: Trained, picture: Path | bytes) -> tuple[Tensor, Tensor]:
    """(1, size, size, 3) uint8 pixels and their (1, n_features) float32 feature."""
    pixels = torch.from_numpy(read_picture(trained, picture)[None].copy())
    return pixels, features_of(trained, pixels)


def _refuse_other_sets(trained: Trained) -> None:
    if others := other_sets(trained):
        raise InputError(
            f"{trained.title} knows an item also by {' and '.join(others)}, which a picture does not tell: train it on "
            "pictures alone to score one, or ask for what is similar to it."
        )


@torch.no_grad()
def _learned(trained: Trained, pixels: Tensor, feature: Tensor) -> Tensor:
    if not isinstance(trained.model, PictureEmbedding) or not isinstance(trained.scorer, InnerProduct):
        raise InputError(f"{trained.title} has learnt nothing of pictures that are no item's: ask by 'picture'.")
    _refuse_other_sets(trained)
    return trained.model.embed_pictures(pixels, feature)[0] * trained.scorer.personal()
