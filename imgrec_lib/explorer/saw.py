"""The view of what a model saw: the photograph, and the same with the region covered that raised the score."""

from __future__ import annotations

import base64
import io

import numpy as np
from markupsafe import Markup
from PIL import Image

from imgrec_lib.data.dataset import describe_item
from imgrec_lib.explorer.occlusion import Occlusion, occlude
from imgrec_lib.explorer.shown import Shown, Text, user_name
from imgrec_lib.gallery.thumbnails import data_uri
from imgrec_lib.serving import Trained

SIDE = 480
HEAT_SIDE = 84


def what_it_saw(opened: Trained, user: int, item: int) -> list[Shown]:
    """Which region of an item's photograph raised a user's score, checked by covering it.

    Raises:
        InputError: see `occlude`.
    """
    found = occlude(opened, user, item)
    images = opened.dataset.images
    assert images is not None  # else nothing was covered
    photograph = images.photograph(item, SIDE)
    left, top, right, bottom = found.boxes[found.best]
    name = describe_item(opened.dataset, item)[0]
    sides = (("left", left), ("top", top), ("width", right - left), ("height", bottom - top))
    box = ";".join(f"{side}:{100 * value:.1f}%" for side, value in sides)
    fall = found.score - found.covered
    where = _where((left + right) / 2, (top + bottom) / 2)
    if fall > 0:
        sentence = (
            f"What raised the score of {name} for {user_name(opened, user)} most lies {where}: with that region "
            f"covered {opened.title}'s score falls from {found.score:.3f} to {found.covered:.3f}, and the picture from "
            f"number {found.place:,} to number {found.covered_place:,}."
        )
    else:
        sentence = (
            f"No region of {name} raises its score for {user_name(opened, user)}: whichever is covered, "
            f"{opened.title}'s score does not fall below {found.score:.3f}."
        )
    figure = Markup(
        '<figure class="saw"><div><img src="{plain}" alt="{name}"></div>'
        "<figcaption>the photograph</figcaption></figure>"
        '<figure class="saw"><div><img src="{plain}" alt="{name}, with what raised the score in colour">'
        '<img class="heat" src="{heat}" alt=""><i style="{box}"></i></div>'
        "<figcaption>what a cover takes from the score: orange lowers it, blue raises it</figcaption></figure>"
        '<figure class="saw"><div><img src="{plain}" alt="{name}, the region covered">'
        '<i class="cover" style="{box}"></i></div>'
        "<figcaption>covered: score {covered:.3f}</figcaption></figure>"
    ).format(plain=data_uri(photograph), heat=_heat(found), name=name, box=box, covered=found.covered)
    note = (
        "The score is that of an item with this picture that nobody has bought. The cover has the picture's "
        "mean colour and two sevenths of its sides; the network sees the picture as a square."
    )
    return [Text(Markup('<p>{}</p><div class="saws">{}</div><p>{}</p>').format(sentence, figure, note))]


def _heat(found: Occlusion) -> str:
    """A picture to lay over the photograph: orange where a cover lowers the score, blue where it raises it.

    A point has the mean of all covers that lie over it.
    """
    total, count = np.zeros((HEAT_SIDE, HEAT_SIDE)), np.zeros((HEAT_SIDE, HEAT_SIDE))
    for drop, box in zip(found.drops.ravel(), found.boxes.reshape(-1, 4), strict=True):
        left, top, right, bottom = np.round(box * HEAT_SIDE).astype(int)
        total[top:bottom, left:right] += drop
        count[top:bottom, left:right] += 1
    mean = total / np.maximum(count, 1)
    share = mean / max(float(np.abs(mean).max()), 1e-12)
    colour = np.where(share[..., None] >= 0, (230, 120, 0), (0, 114, 178)).astype(np.uint8)
    opacity = (np.abs(share) * 190).astype(np.uint8)[..., None]
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate([colour, opacity], -1)).save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _where(x: float, y: float) -> str:
    rows, columns = ("at the top", "in the middle", "at the bottom"), ("left", "", "right")
    row, column = rows[min(2, int(3 * y))], columns[min(2, int(3 * x))]
    return f"{row} {column}".strip()
