"""The cuts of the wardrobe's garments: `CUTS` names them, `outlines.json` holds their outlines.

The file has two objects. `cuts` gives for each category, and each cut in it, a list of steps; `parts` gives steps that
several cuts share, with `defaults` for the measures that they use. A step is one of

- `cloth`, `solid` or `line`: a list of points [x, y], or [x, y, "corner"] where an outline is not rounded. `symmetric`
  closes the right half of an outline by its mirror image; `mirrored` lays the mirror image too, "before" or "after".
  `colour`, `darker` and `width` are those of the methods of `Sheet`;
- `dot`: a point, with `radius` and `colour`;
- `part`: the name of a part, and the measures that it is given;
- `set`: measures, computed one after the other;
- `repeat`: steps done `times` times, while the measure of that name counts from 0;
- `pair`: what was laid is a shoe, and there are two of it.

A number may be written as arithmetic on measures. The look's `width` and `length` (from -1 to 1) are measures too, and
a measure that a part sets is known to all later steps.
"""

from __future__ import annotations

import ast
import json
import operator
from collections.abc import Callable
from functools import cache, partial
from importlib import resources
from typing import Any

from imgrec_lib.data.readers.wardrobe.drawing import (
    BLACK,
    LEATHER_SOLE,
    METAL,
    RUBBER,
    WHITE,
    Colour,
    Point,
    Sheet,
    flipped,
    luminance,
    mix,
    seam_colour,
    sharp,
    symmetric,
)

Measures = dict[str, float]
Steps = list[dict[str, Any]]

_OPERATIONS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_FUNCTIONS = {"min": min, "max": max}


def _lay(steps: Steps, sheet: Sheet, measures: Measures | None = None) -> None:
    """Lay a garment out, step by step."""
    measures = {"width": sheet.look.width, "length": sheet.look.length} if measures is None else measures
    for step in steps:
        if "part" in step:
            part = _OUTLINES["parts"][step["part"]]
            given = {name: _number(value, measures) for name, value in step.items() if name != "part"}
            measures |= part.get("defaults", {}) | given
            _lay(part["steps"], sheet, measures)
        elif "set" in step:
            for name, value in step["set"].items():
                measures[name] = _number(value, measures)
        elif "repeat" in step:
            for count in range(int(_number(step["times"], measures))):
                _lay(step["steps"], sheet, measures | {step["repeat"]: count})
        elif "pair" in step:
            sheet.pair()
        else:
            _draw(step, sheet, measures)


def _draw(step: dict[str, Any], sheet: Sheet, measures: Measures) -> None:
    """One step that leaves something on the sheet."""
    colour = _colours(sheet)[step.get("colour", "seam")]
    if "dot" in step:
        x, y, radius = (_number(value, measures) for value in (*step["dot"], step["radius"]))
        sheet.dot(x, y, radius, colour)
        return
    (kind,) = step.keys() & {"cloth", "solid", "line"}
    points = _points(step[kind], measures)
    both = {"before": [flipped(points), points], "after": [points, flipped(points)]}
    for outline in both[step["mirrored"]] if "mirrored" in step else [points]:
        whole = symmetric(outline) if "symmetric" in step else outline
        if kind == "cloth":
            sheet.cloth(whole, step.get("darker", 0.0))
        elif kind == "solid":
            sheet.solid(whole, colour)
        else:
            sheet.line(whole, _number(step.get("width", 0.007), measures), colour)


def _points(listed: list[list[Any]], measures: Measures) -> list[Point]:
    """The points of an outline, those of its corners twice."""
    points: list[Point] = []
    for x, y, *corner in listed:
        point = (_number(x, measures), _number(y, measures))
        points += sharp(*point) if corner else [point]
    return points


def _number(written: float | str, measures: Measures) -> float:
    """A number as it stands in the file, or the value of its arithmetic."""
    return _value(_parsed(written), measures) if isinstance(written, str) else written


@cache
def _parsed(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


def _value(node: ast.expr, measures: Measures) -> float:
    match node:
        case ast.Constant(value=float() | int() as number):
            return number
        case ast.Name(id=name):
            return measures[name]
        case ast.BinOp(left=left, op=op, right=right):
            return _OPERATIONS[type(op)](_value(left, measures), _value(right, measures))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, measures)
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return _FUNCTIONS[name](_value(argument, measures) for argument in arguments)
    raise ValueError(f"{ast.unparse(node)} is no arithmetic")


def _colours(sheet: Sheet) -> dict[str, Colour]:
    """The colours that the file names, on this sheet; those of small things depend on how dark the cloth is."""
    look = sheet.look
    brightness = luminance(look.colour)
    return {
        "cloth": look.colour,
        "accent": look.accent,
        "seam": sheet.seam,
        "inside": sheet.inside,
        "trim": sheet.trim,
        "ribs": seam_colour(sheet.trim),
        "handle": mix(sheet.trim, BLACK, 0.3),
        "elastic": mix(sheet.inside, BLACK, 0.3),
        "collar": mix(look.colour, WHITE, 0.2),
        "stitches": mix(look.colour, (214, 160, 90), 0.6),
        "button": mix(look.colour, WHITE, 0.75) if brightness < 150 else sheet.seam,
        "cord": mix(look.colour, WHITE, 0.8) if brightness < 170 else sheet.seam,
        "lace": RUBBER if brightness < 190 else sheet.seam,
        "badge": RUBBER if look.pattern == "plain" else look.accent,
        "metal": METAL,
        "teeth": mix(METAL, BLACK, 0.6),
        "rubber": RUBBER,
        "leather": LEATHER_SOLE,
        "dark leather": mix(LEATHER_SOLE, BLACK, 0.4),
        "footbed": mix(LEATHER_SOLE, (200, 160, 110), 0.7),
    }


_OUTLINES = json.loads(resources.files(__package__).joinpath("outlines.json").read_text(encoding="utf-8"))

CUTS: dict[str, dict[str, Callable[[Sheet], None]]] = {
    category: {name: partial(_lay, steps) for name, steps in cuts.items()}
    for category, cuts in _OUTLINES["cuts"].items()
}
