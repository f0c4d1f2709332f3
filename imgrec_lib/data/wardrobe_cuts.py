"""The cuts of the wardrobe's garments: each lays cloth, trimmings and seams on a sheet; `CUTS` names them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from imgrec_lib.data.wardrobe_drawing import (
    BLACK,
    LEATHER_SOLE,
    METAL,
    RUBBER,
    WHITE,
    Colour,
    Look,
    Point,
    Sheet,
    flipped,
    luminance,
    mix,
    seam_colour,
    sharp,
    symmetric,
)

# --- tops and dresses ---


@dataclass(frozen=True)
class Torso:
    """Half-widths and heights of a top's body."""

    neck: float = 0.09
    depth: float = 0.07
    pointed: bool = False
    shoulder: float = 0.225
    chest: float = 0.2
    waist: float = 0.195
    hem: float = 0.2
    bottom: float = 0.88

    def fitted(self, look: Look) -> Torso:
        """Apply the look's proportions."""
        wider, longer = 1 + 0.07 * look.width, 0.035 * look.length
        return Torso(
            self.neck,
            self.depth,
            self.pointed,
            self.shoulder * wider,
            self.chest * wider,
            self.waist * wider,
            self.hem * wider,
            min(0.93, self.bottom + longer),
        )

    def outline(self) -> list[Point]:
        """The closed outline of body and neckline."""
        neckline = sharp(0.5, 0.12 + self.depth) if self.pointed else [(0.5, 0.125 + self.depth)]
        if not self.pointed:
            neckline.append((0.5 + 0.75 * self.neck, 0.12 + 0.8 * self.depth))
        return symmetric(
            [
                *neckline,
                *sharp(0.5 + self.neck, 0.11),
                *sharp(0.5 + self.shoulder, 0.175),
                (0.5 + self.chest, 0.27),
                *sharp(0.5 + self.chest, 0.36),
                (0.5 + self.waist, 0.5),
                (0.5 + self.waist, 0.62),
                *sharp(0.5 + self.hem, self.bottom),
                (0.5, self.bottom + 0.012),
            ]
        )


def _sleeves(sheet: Sheet, torso: Torso, reach: float, end: float, cuff: bool = False, puffed: bool = False) -> None:
    """Sleeves of length `reach` and width `end` at the wrist: short ones stand out, long ones hang."""
    hang = min(1.0, max(0.0, (reach - 0.2) / 0.3))
    direction = np.array([0.66 - 0.44 * hang, 0.75 + 0.225 * hang])
    across = np.array([-direction[1], direction[0]])
    tip, pit = np.array([0.5 + torso.shoulder, 0.175]), np.array([0.5 + torso.chest, 0.36])
    outer = tip + reach * direction
    inner = outer + end * across
    bulge = tip + 0.5 * reach * direction - (0.06 if puffed else 0.005) * across
    sleeve = [
        *sharp(*tip),
        (bulge[0], bulge[1]),
        *sharp(*outer),
        *sharp(*inner),
        *sharp(pit[0], pit[1] + 0.01),
        (pit[0] - 0.05, pit[1] - 0.06),
    ]
    for part in (sleeve, flipped(sleeve)):
        sheet.cloth(part, darker=0.06)
    if cuff:
        band = [
            *sharp(*outer),
            *sharp(*inner),
            *sharp(*(inner - 0.045 * direction)),
            *sharp(*(outer - 0.045 * direction)),
        ]
        for part in (band, flipped(band)):
            sheet.solid(part, sheet.trim)
    else:
        hem = [tuple(outer - 0.02 * direction), tuple(inner - 0.02 * direction)]
        sheet.both(hem, 0.005)


def _collar_inside(sheet: Sheet, torso: Torso) -> None:
    """The back of the neck, seen through the neckline."""
    back = [
        *sharp(0.5 + torso.neck, 0.11),
        (0.5, 0.085),
        *sharp(0.5 - torso.neck, 0.11),
        (0.5, 0.14 + torso.depth),
    ]
    sheet.solid(back, sheet.inside)


def _ribbing(sheet: Sheet, torso: Torso, width: float = 0.02) -> None:
    """The band along the neckline."""
    edge: list[Point] = [(0.5 + torso.neck, 0.112), (0.5 + 0.75 * torso.neck, 0.12 + 0.8 * torso.depth)]
    middle = [(0.5, 0.125 + torso.depth)]
    if torso.pointed:
        edge, middle = [(0.5 + torso.neck, 0.112)], sharp(0.5, 0.12 + torso.depth)
    sheet.line(edge + middle + flipped(edge)[::-1], width, sheet.trim)


def _hem_band(sheet: Sheet, torso: Torso, height: float = 0.05) -> None:
    """Knitted band at the bottom of jumpers and hoodies."""
    left, right, low = 0.5 - torso.hem, 0.5 + torso.hem, torso.bottom
    sheet.solid(
        [
            *sharp(left, low - height),
            (0.5, low - height + 0.01),
            *sharp(right, low - height),
            *sharp(right - 0.01, low),
            (0.5, low + 0.012),
            *sharp(left + 0.01, low),
        ],
        sheet.trim,
    )
    for x in np.linspace(left + 0.02, right - 0.02, 13):
        sheet.line([(x, low - height + 0.01), (x, low)], 0.003, seam_colour(sheet.trim))


def _shirt_collar(sheet: Sheet, torso: Torso, colour: Colour) -> None:
    """Two collar points folded over the neckline."""
    flap = [
        *sharp(0.5 + 0.6 * torso.neck, 0.075),
        *sharp(0.5 + torso.neck + 0.005, 0.11),
        *sharp(0.5 + 0.09, 0.205),
        *sharp(0.5 + 0.004, 0.12 + torso.depth),
    ]
    for part in (flap, flipped(flap)):
        sheet.solid(part, colour)


def _buttons(sheet: Sheet, top: float, bottom: float, number: int, x: float = 0.5) -> None:
    light = mix(sheet.look.colour, WHITE, 0.75) if luminance(sheet.look.colour) < 150 else sheet.seam
    for y in np.linspace(top, bottom, number):
        sheet.dot(x, float(y), 0.011, light)


def _tee(sheet: Sheet, torso: Torso, reach: float = 0.22, end: float = 0.15) -> Torso:
    torso = torso.fitted(sheet.look)
    _sleeves(sheet, torso, reach * (1 + 0.12 * sheet.look.length), end)
    _collar_inside(sheet, torso)
    sheet.cloth(torso.outline())
    sheet.line(
        [(0.5 - torso.hem + 0.005, torso.bottom - 0.025), (0.5 + torso.hem - 0.005, torso.bottom - 0.025)],
        0.004,
    )
    return torso


def _crew_tee(sheet: Sheet) -> None:
    _ribbing(sheet, _tee(sheet, Torso()))


def _v_neck_tee(sheet: Sheet) -> None:
    _ribbing(sheet, _tee(sheet, Torso(depth=0.17, pointed=True)))


def _polo(sheet: Sheet) -> None:
    torso = _tee(sheet, Torso(depth=0.06))
    sheet.solid([*sharp(0.472, 0.17), *sharp(0.528, 0.17), *sharp(0.528, 0.36), *sharp(0.472, 0.36)], sheet.trim)
    _buttons(sheet, 0.23, 0.33, 3)
    _shirt_collar(sheet, torso, sheet.trim)


def _shirt(sheet: Sheet) -> None:
    torso = Torso(hem=0.21, bottom=0.87, depth=0.06).fitted(sheet.look)
    _sleeves(sheet, torso, 0.6, 0.1, cuff=True)
    _collar_inside(sheet, torso)
    sheet.cloth(torso.outline())
    sheet.line([(0.5, 0.19), (0.5, torso.bottom)])
    sheet.line([(0.53, 0.19), (0.53, torso.bottom)], 0.004)
    _buttons(sheet, 0.24, torso.bottom - 0.08, 6, 0.514)
    _shirt_collar(sheet, torso, mix(sheet.look.colour, WHITE, 0.2))
    pocket = [*sharp(0.57, 0.33), *sharp(0.66, 0.33), *sharp(0.66, 0.43), (0.615, 0.45), *sharp(0.57, 0.43)]
    sheet.cloth(pocket)


def _jumper(sheet: Sheet) -> None:
    torso = Torso(depth=0.055, chest=0.21, waist=0.21, hem=0.2, bottom=0.85).fitted(sheet.look)
    _sleeves(sheet, torso, 0.62, 0.11, cuff=True)
    _collar_inside(sheet, torso)
    sheet.cloth(torso.outline())
    _hem_band(sheet, torso)
    _ribbing(sheet, torso, 0.032)


def _hoodie(sheet: Sheet) -> None:
    torso = Torso(neck=0.1, depth=0.1, chest=0.22, waist=0.22, hem=0.2, bottom=0.86).fitted(sheet.look)
    _sleeves(sheet, torso, 0.6, 0.12, cuff=True)
    hood = symmetric([(0.5, 0.01), (0.59, 0.015), (0.66, 0.1), (0.645, 0.2), *sharp(0.5, 0.27)])
    sheet.cloth(torso.outline())
    sheet.cloth(hood, darker=0.08)
    sheet.solid(symmetric([(0.5, 0.06), (0.57, 0.065), (0.6, 0.13), *sharp(0.5, 0.25)]), sheet.inside)
    cord = mix(sheet.look.colour, WHITE, 0.8) if luminance(sheet.look.colour) < 170 else sheet.seam
    sheet.both([(0.535, 0.22), (0.55, 0.3), (0.54, 0.38)], 0.011, cord)
    pocket = symmetric(
        [*sharp(0.5, 0.58), *sharp(0.58, 0.58), *sharp(0.63, 0.7), *sharp(0.63, 0.78), *sharp(0.5, 0.78)]
    )
    sheet.cloth(pocket, darker=0.07)
    _hem_band(sheet, torso)


def _jacket(sheet: Sheet) -> None:
    torso = Torso(neck=0.085, depth=0.05, shoulder=0.235, chest=0.22, waist=0.215, hem=0.2, bottom=0.82).fitted(
        sheet.look
    )
    _sleeves(sheet, torso, 0.6, 0.115, cuff=True)
    sheet.cloth(torso.outline())
    sheet.solid(
        symmetric([*sharp(0.5, 0.06), (0.57, 0.065), *sharp(0.6, 0.12), (0.57, 0.17), *sharp(0.5, 0.19)]),
        sheet.trim,
    )
    _hem_band(sheet, torso)
    sheet.line([(0.5, 0.06), (0.5, torso.bottom)], 0.016, METAL)
    sheet.line([(0.5, 0.06), (0.5, torso.bottom)], 0.004, mix(METAL, BLACK, 0.6))
    sheet.both([(0.57, 0.62), (0.62, 0.53)], 0.013, sheet.seam)


def _vest(sheet: Sheet) -> None:
    torso = Torso(chest=0.19, waist=0.19, hem=0.195).fitted(sheet.look)
    low = torso.bottom
    sheet.solid(symmetric([(0.5, 0.13), *sharp(0.63, 0.1), *sharp(0.66, 0.12), (0.6, 0.3), (0.5, 0.33)]), sheet.inside)
    body = symmetric(
        [
            (0.5, 0.3),
            (0.58, 0.28),
            *sharp(0.6, 0.1),
            *sharp(0.665, 0.105),
            (0.645, 0.28),
            *sharp(0.5 + torso.chest, 0.38),
            (0.5 + torso.waist, 0.6),
            *sharp(0.5 + torso.hem, low),
            (0.5, low + 0.01),
        ]
    )
    sheet.cloth(body)
    sheet.line([(0.605, 0.11), (0.58, 0.28), (0.5, 0.3), (0.42, 0.28), (0.395, 0.11)], 0.016, sheet.trim)


def _scoop_tee(sheet: Sheet) -> None:
    torso = Torso(neck=0.125, depth=0.13, shoulder=0.2, chest=0.175, waist=0.145, hem=0.18, bottom=0.84)
    _ribbing(sheet, _tee(sheet, torso, reach=0.17, end=0.12), 0.012)


def _wrap_blouse(sheet: Sheet) -> None:
    torso = Torso(neck=0.1, depth=0.24, pointed=True, shoulder=0.2, chest=0.18, waist=0.13, hem=0.2, bottom=0.82)
    torso = torso.fitted(sheet.look)
    _sleeves(sheet, torso, 0.42, 0.15)
    _collar_inside(sheet, torso)
    sheet.cloth(torso.outline())
    sheet.line([(0.6, 0.112), (0.5, 0.36), (0.37, 0.56)], 0.012, sheet.trim)
    sheet.line([(0.4, 0.112), (0.5, 0.36)], 0.012, sheet.trim)
    belt = [*sharp(0.37, 0.55), *sharp(0.63, 0.55), *sharp(0.63, 0.6), *sharp(0.37, 0.6)]
    sheet.solid(belt, sheet.trim)
    sheet.line([(0.41, 0.6), (0.38, 0.68), (0.4, 0.75)], 0.02, sheet.trim)
    sheet.line([(0.42, 0.6), (0.44, 0.72)], 0.02, sheet.trim)


def _puff_blouse(sheet: Sheet) -> None:
    torso = Torso(neck=0.12, depth=0.09, shoulder=0.19, chest=0.175, waist=0.14, hem=0.2, bottom=0.8).fitted(sheet.look)
    _sleeves(sheet, torso, 0.3, 0.15, cuff=True, puffed=True)
    _collar_inside(sheet, torso)
    sheet.cloth(torso.outline())
    _ribbing(sheet, torso, 0.018)
    for x in np.linspace(0.4, 0.6, 6):
        sheet.line([(x, 0.56), (0.5 + 1.5 * (x - 0.5), 0.68)], 0.005)
    sheet.line([(0.365, 0.56), (0.635, 0.56)], 0.01)


def _camisole(sheet: Sheet) -> None:
    torso = Torso(chest=0.165, waist=0.14, hem=0.19, bottom=0.84).fitted(sheet.look)
    sheet.both([(0.6, 0.32), (0.585, 0.14), (0.55, 0.08)], 0.014, sheet.trim)
    body = symmetric(
        [
            (0.5, 0.37),
            *sharp(0.605, 0.29),
            *sharp(0.5 + torso.chest, 0.37),
            (0.5 + torso.waist, 0.55),
            *sharp(0.5 + torso.hem, torso.bottom),
            (0.5, torso.bottom + 0.015),
        ]
    )
    sheet.cloth(body)
    sheet.line([(0.605, 0.295), (0.5, 0.37), (0.5, 0.37), (0.395, 0.295)], 0.014, sheet.trim)


def _roll_neck(sheet: Sheet) -> None:
    torso = Torso(neck=0.085, depth=0.02, shoulder=0.195, chest=0.175, waist=0.15, hem=0.165, bottom=0.82).fitted(
        sheet.look
    )
    _sleeves(sheet, torso, 0.58, 0.085, cuff=True)
    sheet.cloth(torso.outline())
    _hem_band(sheet, torso, 0.04)
    sheet.cloth(
        symmetric([*sharp(0.5, 0.025), *sharp(0.58, 0.03), (0.575, 0.09), *sharp(0.59, 0.135), (0.5, 0.155)]),
        darker=0.1,
    )
    sheet.line([(0.415, 0.085), (0.5, 0.095), (0.585, 0.085)], 0.005)


def _cardigan(sheet: Sheet) -> None:
    torso = Torso(neck=0.1, depth=0.3, pointed=True, shoulder=0.2, chest=0.19, waist=0.18, hem=0.19, bottom=0.84)
    torso = torso.fitted(sheet.look)
    _sleeves(sheet, torso, 0.58, 0.1, cuff=True)
    _collar_inside(sheet, torso)
    sheet.cloth(torso.outline())
    _hem_band(sheet, torso, 0.04)
    for side in (1, -1):
        edge = [
            (0.5 + side * 0.1, 0.112),
            *sharp(0.5 + side * 0.012, 0.42),
            (0.5 + side * 0.012, torso.bottom),
        ]
        sheet.line(edge, 0.026, sheet.trim)
    sheet.line([(0.5, 0.42), (0.5, torso.bottom)], 0.006)
    _buttons(sheet, 0.46, torso.bottom - 0.05, 5, 0.513)


def _dress(sheet: Sheet, torso: Torso, hem: float, bottom: float) -> Torso:
    """A fitted body that widens below the waist to `hem` at `bottom`."""
    look = sheet.look
    torso = torso.fitted(look)
    hem, bottom = hem * (1 + 0.08 * look.width), min(0.95, bottom + 0.03 * look.length)
    top = torso.outline()
    # Keep the outline down to the waist on both sides and put the skirt between.
    keep = next(k for k, (_, y) in enumerate(top) if y > 0.45)
    skirt = [
        (0.5 + torso.waist, 0.46),
        (0.5 + torso.waist + 0.02, 0.52),
        *sharp(0.5 + hem, bottom),
        (0.5, bottom + 0.03),
    ]
    sheet.cloth(symmetric([*top[:keep], *skirt]))
    for share in (0.35, 0.75):
        sheet.both([(0.5 + share * torso.waist, 0.56), (0.5 + share * hem, bottom - 0.02)], 0.005)
    return torso


def _a_line_dress(sheet: Sheet) -> None:
    torso = Torso(neck=0.1, depth=0.09, shoulder=0.155, chest=0.15, waist=0.105)
    _collar_inside(sheet, torso)
    torso = _dress(sheet, torso, 0.29, 0.82)
    sheet.line([(0.5 - torso.waist, 0.46), (0.5 + torso.waist, 0.46)], 0.03, sheet.trim)


def _shift_dress(sheet: Sheet) -> None:
    torso = Torso(neck=0.085, depth=0.05, shoulder=0.185, chest=0.165, waist=0.155).fitted(sheet.look)
    _sleeves(sheet, torso, 0.2, 0.13)
    _collar_inside(sheet, torso)
    _ribbing(sheet, _dress(sheet, torso, 0.19, 0.8), 0.014)


def _maxi_dress(sheet: Sheet) -> None:
    sheet.both([(0.575, 0.25), (0.57, 0.12), (0.545, 0.05)], 0.012, sheet.trim)
    look, waist = sheet.look, 0.1
    hem = 0.25 * (1 + 0.1 * look.width)
    body = symmetric(
        [
            *sharp(0.5, 0.27),
            *sharp(0.58, 0.2),
            *sharp(0.63, 0.28),
            (0.5 + waist, 0.4),
            (0.5 + waist + 0.02, 0.46),
            *sharp(0.5 + hem, 0.95),
            (0.5, 0.96),
        ]
    )
    sheet.cloth(body)
    sheet.line([(0.395, 0.42), (0.605, 0.42)], 0.018, sheet.trim)
    for share in (0.25, 0.7):
        sheet.both([(0.5 + share * waist, 0.47), (0.5 + share * hem, 0.93)], 0.005)


def _wrap_dress(sheet: Sheet) -> None:
    torso = Torso(neck=0.09, depth=0.2, pointed=True, shoulder=0.18, chest=0.16, waist=0.12).fitted(sheet.look)
    _sleeves(sheet, torso, 0.5, 0.1, cuff=True)
    _collar_inside(sheet, torso)
    _dress(sheet, torso, 0.24, 0.86)
    sheet.line([(0.59, 0.112), (0.5, 0.32), (0.39, 0.47)], 0.01, sheet.trim)
    sheet.line([(0.41, 0.112), (0.5, 0.32)], 0.01, sheet.trim)
    sheet.line([(0.385, 0.48), (0.615, 0.48)], 0.035, sheet.trim)
    sheet.line([(0.41, 0.5), (0.36, 0.66), (0.38, 0.84)], 0.008)


# --- trousers and skirts ---


def _legs(sheet: Sheet, knee: float, ankle: float, bottom: float, waist: float = 0.15, hip: float = 0.195) -> Point:
    """Trousers with legs `knee` and `ankle` wide; returns the middle of the right leg's lower end."""
    look = sheet.look
    fuller = 1 + 0.1 * look.width
    knee, ankle, hip = knee * fuller, ankle * fuller, hip * (1 + 0.04 * look.width)
    bottom = min(0.95, bottom + 0.025 * look.length)
    middle = 0.5 + 0.11 + 0.05 * (bottom - 0.4)
    mid_knee = 0.5 * (middle + 0.5 + 0.1)
    at_knee = 0.5 * (0.4 + bottom)
    leg = [
        *sharp(0.5, 0.08),
        *sharp(0.5 + waist, 0.075),
        (0.5 + hip, 0.22),
        (0.5 + hip, 0.34),
        (mid_knee + knee / 2, at_knee),
        *sharp(middle + ankle / 2, bottom),
        *sharp(middle - ankle / 2, bottom + 0.005),
        (mid_knee - knee / 2, at_knee),
        *sharp(0.503, 0.37),
    ]
    sheet.solid(
        [*sharp(0.5 - waist + 0.01, 0.075), (0.5, 0.055), *sharp(0.5 + waist - 0.01, 0.075), (0.5, 0.12)],
        sheet.inside,
    )
    for part in (flipped(leg), leg):
        sheet.cloth(part)
    band = [
        *sharp(0.5 - waist, 0.075),
        (0.5, 0.09),
        *sharp(0.5 + waist, 0.075),
        *sharp(0.5 + waist + 0.008, 0.125),
        (0.5, 0.142),
        *sharp(0.5 - waist - 0.008, 0.125),
    ]
    sheet.cloth(band, darker=0.12)
    return middle, bottom


def _fly_and_pockets(sheet: Sheet, waist: float = 0.15, hip: float = 0.195) -> None:
    sheet.line([(0.53, 0.14), (0.53, 0.25), (0.5, 0.28)], 0.005)
    sheet.both([(0.5 + waist - 0.05, 0.14), (0.5 + waist - 0.02, 0.21), (0.5 + hip - 0.01, 0.23)], 0.006)
    sheet.dot(0.5, 0.11, 0.012, METAL)


def _slim_jeans(sheet: Sheet) -> None:
    middle, bottom = _legs(sheet, 0.125, 0.1, 0.93)
    _fly_and_pockets(sheet)
    stitches = mix(sheet.look.colour, (214, 160, 90), 0.6)
    sheet.both([(0.685, 0.3), (0.67, 0.6), (middle + 0.035, bottom - 0.01)], 0.004, stitches)
    sheet.both([(middle - 0.045, bottom - 0.02), (middle + 0.045, bottom - 0.02)], 0.005, stitches)


def _chinos(sheet: Sheet) -> None:
    middle, bottom = _legs(sheet, 0.165, 0.14, 0.92, hip=0.205)
    _fly_and_pockets(sheet, hip=0.205)
    sheet.both([(0.6, 0.16), (0.61, 0.5), (middle, bottom - 0.01)], 0.006)


def _joggers(sheet: Sheet) -> None:
    middle, bottom = _legs(sheet, 0.17, 0.09, 0.86, hip=0.205)
    cuff = [
        *sharp(middle - 0.05, bottom - 0.01),
        *sharp(middle + 0.05, bottom - 0.01),
        *sharp(middle + 0.04, bottom + 0.055),
        *sharp(middle - 0.04, bottom + 0.055),
    ]
    for part in (cuff, flipped(cuff)):
        sheet.solid(part, sheet.trim)
    cord = mix(sheet.look.colour, WHITE, 0.8) if luminance(sheet.look.colour) < 170 else sheet.seam
    sheet.both([(0.505, 0.12), (0.53, 0.17), (0.522, 0.25)], 0.012, cord)
    sheet.both([(0.655, 0.17), (0.695, 0.3)], 0.008)


def _shorts(sheet: Sheet) -> None:
    middle, bottom = _legs(sheet, 0.19, 0.2, 0.56, waist=0.17, hip=0.215)
    _fly_and_pockets(sheet, waist=0.17, hip=0.215)
    sheet.both([(middle - 0.09, bottom - 0.025), (middle + 0.095, bottom - 0.025)], 0.006)


def _cargo(sheet: Sheet) -> None:
    _legs(sheet, 0.18, 0.165, 0.92, hip=0.21)
    _fly_and_pockets(sheet, hip=0.21)
    pocket = [*sharp(0.63, 0.46), *sharp(0.725, 0.455), *sharp(0.725, 0.6), *sharp(0.635, 0.605)]
    for part in (pocket, flipped(pocket)):
        sheet.cloth(part, darker=0.1)
    sheet.both([(0.63, 0.5), (0.725, 0.495)], 0.006)


def _flared(sheet: Sheet) -> None:
    middle, bottom = _legs(sheet, 0.115, 0.235, 0.93, waist=0.135, hip=0.18)
    _fly_and_pockets(sheet, waist=0.135, hip=0.18)
    sheet.both([(0.6, 0.5), (middle + 0.01, bottom - 0.01)], 0.006)


def _leggings(sheet: Sheet) -> None:
    middle, bottom = _legs(sheet, 0.105, 0.065, 0.94, waist=0.13, hip=0.165)
    sheet.line([(0.5, 0.14), (0.5, 0.37)], 0.005)
    sheet.both([(0.65, 0.18), (0.645, 0.5), (middle + 0.02, bottom - 0.02)], 0.014, sheet.trim)


def _hot_pants(sheet: Sheet) -> None:
    middle, bottom = _legs(sheet, 0.19, 0.18, 0.48, waist=0.155, hip=0.21)
    _fly_and_pockets(sheet, waist=0.155, hip=0.2)
    sheet.both([(middle - 0.085, bottom - 0.02), (middle + 0.085, bottom - 0.02)], 0.02, sheet.trim)


def _skirt(sheet: Sheet, hem: float, bottom: float, belly: float = 0.0) -> tuple[float, float]:
    look, waist = sheet.look, 0.14
    hem, bottom = hem * (1 + 0.08 * look.width), min(0.94, bottom + 0.04 * look.length)
    sheet.solid([*sharp(0.36, 0.14), (0.5, 0.12), *sharp(0.64, 0.14), (0.5, 0.18)], sheet.inside)
    sheet.cloth(
        symmetric(
            [
                (0.5, 0.155),
                *sharp(0.5 + waist, 0.14),
                (0.5 + waist + 0.05 + belly, 0.3),
                *sharp(0.5 + hem, bottom),
                (0.5 + 0.5 * hem, bottom + 0.02),
                (0.5, bottom + 0.025),
            ]
        )
    )
    band = symmetric([(0.5, 0.155), *sharp(0.5 + waist, 0.14), *sharp(0.5 + waist + 0.012, 0.195), (0.5, 0.212)])
    sheet.solid(band, sheet.trim)
    return hem, bottom


def _mini_skirt(sheet: Sheet) -> None:
    _, bottom = _skirt(sheet, 0.25, 0.62)
    sheet.line([(0.5, 0.215), (0.5, bottom)], 0.006)
    _buttons(sheet, 0.26, bottom - 0.05, 5, 0.51)
    sheet.both([(0.56, 0.29), (0.63, 0.27)], 0.008)


def _pleated_skirt(sheet: Sheet) -> None:
    hem, bottom = _skirt(sheet, 0.36, 0.84)
    for share in np.linspace(-0.85, 0.85, 9):
        sheet.line([(0.5 + 0.14 * share, 0.21), (0.5 + hem * share, bottom + 0.015 * (1 - abs(share)))], 0.008)


def _pencil_skirt(sheet: Sheet) -> None:
    _, bottom = _skirt(sheet, 0.15, 0.84, belly=0.035)
    sheet.line([(0.56, bottom - 0.2), (0.57, bottom + 0.01)], 0.01)
    sheet.both([(0.57, 0.21), (0.58, 0.3)], 0.005)


# --- shoes, seen from the side ---


def _pair(sheet: Sheet, shoe: Callable[[Sheet], None]) -> None:
    """One shoe behind, darker and a little higher, and one in front."""
    shoe(sheet)
    front = sheet.image
    behind = Image.blend(front.convert("RGB"), Image.new("RGB", front.size), 0.22)
    behind.putalpha(front.getchannel("A"))
    step = round(0.1 * sheet.pixels)
    sheet.image = Image.new("RGBA", front.size, (*sheet.look.colour, 0))
    sheet.image.paste(behind, (step // 2, -step // 2 - step // 3))
    lower = Image.new("RGBA", front.size, (*sheet.look.colour, 0))
    lower.paste(front, (-step // 3, step // 2))
    sheet.image.alpha_composite(lower)


def _sneaker(sheet: Sheet) -> None:
    raised = 0.02 * sheet.look.length
    upper = [
        *sharp(0.13, 0.7),
        (0.1, 0.55),
        *sharp(0.15, 0.4 - raised),
        (0.22, 0.46),
        (0.32, 0.45),
        *sharp(0.41, 0.36 - raised),
        (0.46, 0.4),
        (0.58, 0.5),
        (0.74, 0.56),
        (0.88, 0.58),
        (0.92, 0.68),
        *sharp(0.9, 0.72),
    ]
    sheet.cloth(upper)
    sheet.solid([*sharp(0.73, 0.71), (0.74, 0.58), (0.85, 0.57), (0.91, 0.64), *sharp(0.9, 0.71)], sheet.trim)
    sheet.solid([*sharp(0.13, 0.69), (0.11, 0.5), *sharp(0.15, 0.41), (0.2, 0.5), *sharp(0.23, 0.69)], sheet.trim)
    sheet.line([(0.3, 0.65), (0.42, 0.66), (0.56, 0.53)], 0.03, sheet.look.accent)
    for k in range(4):
        x, y = 0.43 + 0.065 * k, 0.415 + 0.043 * k
        sheet.line(
            [(x, y), (x - 0.055, y + 0.065)],
            0.015,
            RUBBER if luminance(sheet.look.colour) < 190 else sheet.seam,
        )
    sheet.solid(
        [
            (0.1, 0.69),
            *sharp(0.12, 0.685),
            *sharp(0.91, 0.695),
            (0.945, 0.72),
            (0.93, 0.78),
            (0.5, 0.775),
            (0.11, 0.78),
        ],
        RUBBER,
    )
    sheet.line([(0.12, 0.745), (0.92, 0.75)], 0.008, sheet.trim)


def _high_top(sheet: Sheet) -> None:
    upper = [
        *sharp(0.14, 0.72),
        (0.13, 0.5),
        *sharp(0.16, 0.2),
        (0.26, 0.24),
        *sharp(0.4, 0.2),
        (0.42, 0.36),
        (0.5, 0.5),
        (0.7, 0.57),
        (0.86, 0.6),
        (0.9, 0.68),
        *sharp(0.88, 0.72),
    ]
    sheet.cloth(upper)
    sheet.solid([*sharp(0.75, 0.72), (0.76, 0.6), (0.86, 0.6), (0.9, 0.66), *sharp(0.88, 0.72)], RUBBER)
    sheet.dot(0.25, 0.38, 0.06, sheet.look.accent if sheet.look.pattern != "plain" else RUBBER)
    sheet.dot(0.25, 0.38, 0.03, sheet.look.colour)
    for k in range(6):
        x, y = 0.415 + 0.012 * k + 0.012 * max(0, k - 2) ** 1.5, 0.26 + 0.052 * k
        sheet.line(
            [(x, y), (x - 0.075, y + 0.025)],
            0.016,
            RUBBER if luminance(sheet.look.colour) < 190 else sheet.seam,
        )
    sheet.solid(
        [(0.11, 0.71), *sharp(0.13, 0.705), *sharp(0.89, 0.705), (0.92, 0.73), (0.9, 0.79), (0.12, 0.79)],
        RUBBER,
    )
    sheet.line([(0.13, 0.745), (0.9, 0.745)], 0.01, sheet.trim)


def _low_shoe(sheet: Sheet) -> None:
    upper = [
        *sharp(0.11, 0.7),
        (0.09, 0.56),
        *sharp(0.14, 0.45),
        (0.24, 0.53),
        (0.35, 0.52),
        *sharp(0.43, 0.44),
        (0.55, 0.53),
        (0.75, 0.58),
        (0.9, 0.6),
        (0.93, 0.68),
        *sharp(0.91, 0.71),
    ]
    sheet.cloth(upper)
    sole = [
        *sharp(0.1, 0.7),
        *sharp(0.92, 0.705),
        *sharp(0.92, 0.735),
        *sharp(0.34, 0.735),
        *sharp(0.34, 0.78),
        *sharp(0.1, 0.78),
    ]
    sheet.solid(sole, LEATHER_SOLE)


def _oxford(sheet: Sheet) -> None:
    _low_shoe(sheet)
    sheet.line([(0.73, 0.7), (0.7, 0.62), (0.74, 0.575)], 0.008)
    sheet.line([(0.3, 0.7), (0.36, 0.6), (0.5, 0.6), (0.55, 0.53)], 0.008)
    for k in range(3):
        x, y = 0.45 + 0.04 * k, 0.475 + 0.03 * k
        sheet.line([(x, y), (x - 0.04, y + 0.055)], 0.012, sheet.trim)


def _loafer(sheet: Sheet) -> None:
    _low_shoe(sheet)
    sheet.line([(0.42, 0.5), (0.62, 0.57), (0.85, 0.6), (0.9, 0.66)], 0.008)
    sheet.line([(0.44, 0.69), (0.49, 0.58), (0.54, 0.53)], 0.045, sheet.trim)
    sheet.dot(0.49, 0.59, 0.018, METAL)


def _shaft(sheet: Sheet, top: float, heel: float) -> None:
    """A boot's upper; `heel` is the height of its heel."""
    ground = 0.8
    sole = ground - heel
    toe = ground - 0.03
    upper = [
        *sharp(0.16, sole),
        (0.14, 0.56),
        *sharp(0.17, top),
        (0.28, top + 0.015),
        *sharp(0.42, top),
        (0.42, 0.42),
        (0.5, 0.52),
        (0.72, 0.6),
        (0.87, 0.65),
        (0.9, 0.72),
        *sharp(0.88, toe),
        (0.6, toe),
        *sharp(0.45, sole + 0.2 * heel),
    ]
    sheet.cloth(upper)


def _chelsea_boot(sheet: Sheet) -> None:
    _shaft(sheet, 0.2, 0.07)
    sheet.solid(
        [*sharp(0.25, 0.21), *sharp(0.36, 0.21), (0.34, 0.4), (0.31, 0.52), (0.28, 0.4)],
        mix(sheet.inside, BLACK, 0.3),
    )
    sheet.line([(0.17, 0.2), (0.14, 0.13), (0.19, 0.14), (0.2, 0.21)], 0.014, sheet.trim)
    sheet.solid(
        [
            *sharp(0.15, 0.725),
            *sharp(0.89, 0.765),
            *sharp(0.89, 0.8),
            *sharp(0.36, 0.79),
            *sharp(0.36, 0.82),
            *sharp(0.15, 0.82),
        ],
        LEATHER_SOLE,
    )


def _lace_boot(sheet: Sheet) -> None:
    _shaft(sheet, 0.18, 0.07)
    for k in range(6):
        x, y = 0.41 + 0.004 * k + 0.02 * max(0, k - 3), 0.23 + 0.055 * k
        sheet.line([(x, y), (x - 0.08, y + 0.03)], 0.013, sheet.trim)
        sheet.dot(x - 0.08, y + 0.03, 0.011, METAL)
    sheet.line([(0.17, 0.21), (0.42, 0.21)], 0.022, sheet.trim)
    sheet.solid(
        [*sharp(0.13, 0.725), *sharp(0.9, 0.75), (0.92, 0.79), *sharp(0.9, 0.82), *sharp(0.13, 0.82)],
        mix(LEATHER_SOLE, BLACK, 0.4),
    )


def _heeled_boot(sheet: Sheet) -> None:
    _shaft(sheet, 0.18, 0.17)
    sheet.line([(0.3, 0.2), (0.3, 0.56)], 0.008, METAL)
    sheet.solid([*sharp(0.15, 0.63), *sharp(0.3, 0.65), *sharp(0.27, 0.82), *sharp(0.18, 0.82)], LEATHER_SOLE)
    sheet.line([(0.3, 0.65), (0.45, 0.7), (0.6, 0.79), (0.88, 0.79)], 0.024, LEATHER_SOLE)


def _pump(sheet: Sheet) -> None:
    upper = [
        *sharp(0.12, 0.5),
        (0.1, 0.42),
        *sharp(0.13, 0.32),
        (0.2, 0.42),
        (0.36, 0.55),
        (0.52, 0.66),
        *sharp(0.66, 0.63),
        (0.82, 0.68),
        *sharp(0.95, 0.77),
        (0.8, 0.79),
        (0.58, 0.77),
        (0.4, 0.66),
        (0.25, 0.52),
    ]
    thin = 0.025 * (1.3 + sheet.look.width)
    sheet.solid(
        [
            *sharp(0.11, 0.45),
            *sharp(0.24, 0.52),
            (0.17, 0.62),
            *sharp(0.13 + thin, 0.8),
            *sharp(0.125, 0.8),
            (0.12, 0.6),
        ],
        sheet.seam,
    )
    sheet.cloth(upper)
    sheet.line([(0.25, 0.535), (0.42, 0.69), (0.58, 0.785), (0.94, 0.79)], 0.014, LEATHER_SOLE)


def _ballet_flat(sheet: Sheet) -> None:
    upper = [
        *sharp(0.09, 0.73),
        (0.07, 0.62),
        *sharp(0.12, 0.53),
        (0.2, 0.63),
        (0.4, 0.665),
        (0.56, 0.65),
        *sharp(0.66, 0.58),
        (0.84, 0.62),
        (0.94, 0.7),
        *sharp(0.92, 0.74),
    ]
    sheet.cloth(upper)
    for tip in ((0.6, 0.55), (0.61, 0.63), (0.72, 0.555), (0.72, 0.63)):
        sheet.line([(0.66, 0.59), tip], 0.032, sheet.trim)
    sheet.dot(0.66, 0.59, 0.02, sheet.seam)
    sheet.line([(0.09, 0.745), (0.92, 0.75)], 0.02, LEATHER_SOLE)


def _sandal(sheet: Sheet) -> None:
    sheet.solid(
        [*sharp(0.1, 0.66), (0.35, 0.7), (0.6, 0.72), *sharp(0.93, 0.71), (0.94, 0.77), *sharp(0.1, 0.77)],
        mix(LEATHER_SOLE, (200, 160, 110), 0.7),
    )
    back = [
        *sharp(0.12, 0.67),
        (0.08, 0.5),
        *sharp(0.13, 0.4),
        *sharp(0.19, 0.41),
        (0.17, 0.55),
        *sharp(0.25, 0.69),
    ]
    sheet.cloth(back)
    sheet.cloth(
        [
            *sharp(0.14, 0.42),
            (0.25, 0.47),
            *sharp(0.42, 0.39),
            *sharp(0.43, 0.44),
            (0.27, 0.53),
            *sharp(0.14, 0.47),
        ]
    )
    for x in (0.54, 0.68):
        sheet.cloth(
            [
                *sharp(x, 0.72),
                (x + 0.02, 0.6),
                (x + 0.07, 0.52),
                *sharp(x + 0.13, 0.53),
                (x + 0.1, 0.62),
                *sharp(x + 0.1, 0.73),
            ]
        )
    sheet.dot(0.36, 0.45, 0.02, METAL)


# --- bags ---


def _tote(sheet: Sheet) -> None:
    wider = 0.02 * sheet.look.width
    sheet.both([(0.62, 0.42), (0.61, 0.12), (0.5, 0.1)], 0.022, mix(sheet.trim, BLACK, 0.3))
    sheet.cloth(
        symmetric(
            [
                *sharp(0.5, 0.36),
                *sharp(0.8 + wider, 0.35),
                (0.78, 0.86),
                *sharp(0.74 + wider, 0.9),
                *sharp(0.5, 0.9),
            ]
        )
    )
    sheet.line([(0.21 - wider, 0.4), (0.79 + wider, 0.4)], 0.006)
    sheet.both([(0.64, 0.48), (0.63, 0.15), (0.5, 0.13)], 0.026, sheet.trim)


def _satchel(sheet: Sheet) -> None:
    sheet.both([(0.8, 0.5), (0.84, 0.14), (0.5, 0.1)], 0.022, sheet.trim)
    sheet.cloth(symmetric([*sharp(0.5, 0.4), *sharp(0.82, 0.4), (0.84, 0.84), (0.8, 0.86), *sharp(0.5, 0.86)]))
    sheet.cloth(
        symmetric([*sharp(0.5, 0.38), *sharp(0.83, 0.38), (0.82, 0.62), (0.7, 0.66), *sharp(0.5, 0.68)]),
        darker=0.12,
    )
    for x in (0.33, 0.67):
        sheet.line([(x, 0.4), (x, 0.74)], 0.034, sheet.trim)
        sheet.dot(x, 0.7, 0.022, METAL)


def _backpack(sheet: Sheet) -> None:
    sheet.both([(0.56, 0.13), (0.55, 0.06), (0.5, 0.05)], 0.024, sheet.trim)
    sheet.both([(0.72, 0.3), (0.83, 0.5), (0.76, 0.82)], 0.04, sheet.trim)
    sheet.cloth(symmetric([(0.5, 0.08), (0.68, 0.09), (0.76, 0.25), (0.77, 0.6), (0.78, 0.9), *sharp(0.5, 0.91)]))
    sheet.line([(0.26, 0.5), (0.29, 0.2), (0.5, 0.14), (0.71, 0.2), (0.74, 0.5)], 0.012, sheet.seam)
    sheet.cloth(symmetric([(0.5, 0.52), (0.68, 0.52), (0.7, 0.6), (0.7, 0.85), *sharp(0.5, 0.86)]), darker=0.14)
    sheet.line([(0.33, 0.59), (0.67, 0.59)], 0.012, METAL)


def _bucket_bag(sheet: Sheet) -> None:
    sheet.both([(0.7, 0.42), (0.68, 0.1), (0.5, 0.07)], 0.026, sheet.trim)
    sheet.cloth(symmetric([*sharp(0.5, 0.38), *sharp(0.72, 0.36), (0.76, 0.6), (0.8, 0.88), *sharp(0.5, 0.89)]))
    sheet.solid(symmetric([*sharp(0.5, 0.82), (0.79, 0.81), (0.79, 0.9), *sharp(0.5, 0.9)]), sheet.trim)
    sheet.line([(0.27, 0.45), (0.5, 0.48), (0.73, 0.45)], 0.014, sheet.trim)
    sheet.both([(0.5, 0.48), (0.54, 0.58), (0.52, 0.66)], 0.012, sheet.trim)


def _paired(shoe: Callable[[Sheet], None]) -> Callable[[Sheet], None]:
    return lambda sheet: _pair(sheet, shoe)


CUTS: dict[str, dict[str, Callable[[Sheet], None]]] = {
    "men's tops": {
        "crew-neck T-shirt": _crew_tee,
        "V-neck T-shirt": _v_neck_tee,
        "polo shirt": _polo,
        "shirt": _shirt,
        "jumper": _jumper,
        "hoodie": _hoodie,
        "jacket": _jacket,
        "vest": _vest,
    },
    "women's tops": {
        "scoop-neck T-shirt": _scoop_tee,
        "wrap blouse": _wrap_blouse,
        "puff-sleeve blouse": _puff_blouse,
        "camisole": _camisole,
        "roll-neck jumper": _roll_neck,
        "cardigan": _cardigan,
    },
    "men's bottoms": {
        "slim jeans": _slim_jeans,
        "chinos": _chinos,
        "joggers": _joggers,
        "shorts": _shorts,
        "cargo trousers": _cargo,
    },
    "women's bottoms": {
        "flared trousers": _flared,
        "leggings": _leggings,
        "hot pants": _hot_pants,
        "mini skirt": _mini_skirt,
        "pleated skirt": _pleated_skirt,
        "pencil skirt": _pencil_skirt,
    },
    "men's shoes": {
        "trainers": _paired(_sneaker),
        "high-tops": _paired(_high_top),
        "oxfords": _paired(_oxford),
        "loafers": _paired(_loafer),
        "Chelsea boots": _paired(_chelsea_boot),
    },
    "women's shoes": {
        "pumps": _paired(_pump),
        "ballet flats": _paired(_ballet_flat),
        "sandals": _paired(_sandal),
        "heeled boots": _paired(_heeled_boot),
        "lace-up boots": _paired(_lace_boot),
    },
    "dresses": {
        "A-line dress": _a_line_dress,
        "shift dress": _shift_dress,
        "maxi dress": _maxi_dress,
        "wrap dress": _wrap_dress,
    },
    "bags": {
        "tote bag": _tote,
        "satchel": _satchel,
        "backpack": _backpack,
        "bucket bag": _bucket_bag,
    },
}
