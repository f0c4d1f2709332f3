"""What users attend to: the regions of an item's attributes, and how much of a user's attention each of them gets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageDraw

from imgrec_lib.data.dataset import Dataset, describe_item
from imgrec_lib.data.images import ImageStore
from imgrec_lib.errors import InputError
from imgrec_lib.figures.curves import COLOURS, INK
from imgrec_lib.figures.named import Figure
from imgrec_lib.gallery.gallery import Gallery
from imgrec_lib.gallery.rows import Cell, Row
from imgrec_lib.models.base import AttributeAttention, AttributeRegions

SIDE = 224
"""Side in pixels of the pictures that boxes are drawn on."""
BOXES = 3
"""Boxes on the picture that stands for the whole item: those of the attributes with the most attention."""


def region_gallery(
    dataset: Dataset, model: AttributeRegions, items: Sequence[int], title: str = "What the network sees, and where"
) -> Gallery:
    """Each item as it is, then once for each attribute: its box, the rest faded as far as the activation map is weak.

    Args:
        dataset: gives names and pictures.
        model: a model that has learnt its attributes.
        items: item indices, one row each.
        title: the gallery's title.

    Raises:
        InputError: an item index that does not exist, or a dataset without pictures.
    """
    return _gallery(dataset, model, title, [(None, item) for item in items])


def attention_gallery(
    dataset: Dataset, model: AttributeRegions, pairs: Sequence[tuple[int, int]], title: str = "Who looks at what"
) -> Gallery:
    """The same for users: the attributes in order of the attention that the user pays them.

    The first picture has the boxes of the three most attended attributes, the thicker the more attention.

    Args:
        dataset, model: see `region_gallery`.
        pairs: (user, item) indices, one row each.
        title: the gallery's title.

    Raises:
        InputError: see `region_gallery`; or a user index that does not exist.
    """
    return _gallery(dataset, model, title, pairs)


@torch.no_grad()
def _gallery(dataset: Dataset, model: AttributeRegions, title: str, pairs: Sequence[tuple[int | None, int]]) -> Gallery:
    if dataset.images is None:
        raise InputError(f"dataset {dataset.name!r} has no pictures to draw boxes on: load it with its images.")
    for kind, limit, indices in (
        ("user", dataset.n_users, [user for user, _ in pairs if user is not None]),
        ("item", dataset.n_items, [item for _, item in pairs]),
    ):
        for index in indices:
            if not 0 <= index < limit:
                raise InputError(f"{kind} index {index} does not exist: choose from 0 to {limit - 1}.")
    pictures: list[Image.Image] = []
    present: list[bool] = []
    rows: list[Row] = []
    for user, item in pairs:
        seen = model.seen_attributes(item)
        attention: np.ndarray | None = None
        if user is not None:
            shares = model.attribute_attention(torch.tensor([user]), torch.tensor([[item]]))
            attention = np.array([float(share) for share in shares.values()])
        order = np.arange(len(seen)) if attention is None else np.argsort(-attention, kind="stable")
        plain = dataset.images.thumbnail(item, SIDE)
        overview = plain.copy()
        if attention is not None:
            for a in order[:BOXES]:
                _draw_box(overview, seen[a].box, COLOURS[1 + a % 6], 2 + round(12 * float(attention[a])))
        name = describe_item(dataset, item)
        cells = [Cell(len(pictures), name)]
        pictures.append(overview)
        for a in order:
            faded = _faded(plain, seen[a].strength)
            _draw_box(faded, seen[a].box, COLOURS[1 + a % 6], 3)
            share = "" if attention is None else f"attention {attention[a]:.0%}"
            caption = (f"{_words(seen[a].name)}: {seen[a].value}", share, _place(seen[a].box))
            cells.append(Cell(len(pictures), caption))
            pictures.append(faded)
        present += [bool(dataset.images.present[item])] * len(cells)
        heading = name[0] if user is None else f"User {dataset.user_ids[user]} looks at {name[0]}"
        rows.append(Row(heading, tuple(cells)))
    drawn = np.stack([np.asarray(picture) for picture in pictures]) if pictures else np.zeros((0, 1, 1, 3), np.uint8)
    return Gallery(title, tuple(rows), ImageStore.from_array(drawn, np.array(present, dtype=bool)))


def _draw_box(picture: Image.Image, box: np.ndarray, colour: str, width: int) -> None:
    """A frame inside the box, with a white rim that keeps it visible on any colour."""
    left, top, right, bottom = (round(float(share) * SIDE) for share in box)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((left, top, right - 1, bottom - 1), outline="#ffffff", width=width + 2)
    draw.rectangle((left + 1, top + 1, right - 2, bottom - 2), outline=colour, width=width)


def _faded(picture: Image.Image, strength: np.ndarray) -> Image.Image:
    """The picture, towards light grey where the map is weak."""
    mask = Image.fromarray(np.uint8(255 * (0.15 + 0.85 * strength))).resize(picture.size, Image.Resampling.BILINEAR)
    return Image.composite(picture, Image.new("RGB", picture.size, "#e9ebee"), mask)


def _place(box: np.ndarray) -> str:
    """Where a box is and its share of the picture, in words: "top left, 18%"."""
    left, top, right, bottom = (float(share) for share in box)
    area = (right - left) * (bottom - top)
    if area > 0.99:
        return "whole picture"
    sides = (("top", "", "bottom"), ("left", "", "right"))
    middles = ((top + bottom) / 2, (left + right) / 2)
    words = [names[min(2, int(3 * at))] for names, at in zip(sides, middles, strict=True)]
    return f"{' '.join(word for word in words if word) or 'centre'}, {area:.0%}"


def _words(column: str) -> str:
    """A column's name as words: "garment_group_name" -> "garment group"."""
    return column.replace("_", " ").removesuffix(" name")


@torch.no_grad()
def attention_by_user(dataset: Dataset, model: AttributeAttention) -> pd.DataFrame:
    """The attention that each user pays each attribute, averaged over the user's training items.

    Args:
        dataset: gives the histories.
        model: a trained model.

    Returns:
        One row a user that has a training item, indexed by user index; one column an attribute; rows sum to 1.
    """
    users, items = torch.from_numpy(dataset.train.users), torch.from_numpy(dataset.train.items)
    tables = []
    for some, bought in zip(users.split(4096), items.split(4096), strict=True):
        shares = model.attribute_attention(some, bought.unsqueeze(1))
        tables.append(pd.DataFrame({name: share[:, 0].float().cpu().numpy() for name, share in shares.items()}))
    return pd.concat(tables, ignore_index=True).groupby(dataset.train.users).mean().rename_axis("user")


def attention_figure(table: pd.DataFrame) -> Figure:
    """How users differ: the distribution over users of the attention to each attribute, the most attended on top.

    Boxes hold the middle half of the users, whiskers 90 % of them; the dashed line is equal attention to all.

    Args:
        table: as `attention_by_user` gives it.

    Raises:
        InputError: the table is empty.
    """
    if table.empty:
        raise InputError("there is no user to show the attention of: give a table with at least one row.")
    order = table.median().sort_values().index
    figure = Figure(figsize=(7, 0.8 + 0.42 * len(order)), layout="constrained")
    axes = figure.subplots()
    axes.boxplot(
        [table[name].to_numpy() for name in order],
        orientation="horizontal",
        whis=(5, 95),
        showfliers=False,
        widths=0.6,
        patch_artist=True,
        boxprops={"facecolor": COLOURS[1], "alpha": 0.35, "edgecolor": INK},
        medianprops={"color": COLOURS[2], "lw": 2},
        whiskerprops={"color": INK},
        capprops={"color": INK},
    )
    axes.axvline(1 / len(order), color=INK, lw=1, ls="--", label="equal attention")
    axes.set_yticks(range(1, len(order) + 1), [_words(name) for name in order])
    axes.set_xlabel(f"Attention, mean over a user's training items ({len(table):,} users)", color=INK)
    axes.set_xlim(left=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False)
    return figure
