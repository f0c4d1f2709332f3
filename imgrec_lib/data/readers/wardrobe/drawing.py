"""Pictures of garments, drawn with Pillow: cloth, colour, pattern, light, pose, background.

Coordinates are fractions of the picture's side, x to the right and y downwards. An outline is a list of points
whose corners are rounded, except where a point stands twice in a row (`sharp`). A cut is a function that lays
cloth, trimmings and seams on a `Sheet`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Point = tuple[float, float]
Colour = tuple[int, int, int]

BLACK: Colour = (0, 0, 0)
WHITE: Colour = (255, 255, 255)
METAL: Colour = (196, 186, 160)
RUBBER: Colour = (238, 236, 230)
LEATHER_SOLE: Colour = (64, 48, 40)

PATTERNS = ("plain", "striped", "pinstriped", "checked", "dotted", "floral", "colour-block")


@dataclass(frozen=True)
class Look:
    """All that a picture shows, but for the cut.

    Attributes:
        pattern: one of `PATTERNS`.
        colour, accent: RGB of the cloth, and of pattern and trimmings.
        pattern_scale: size of the pattern's repeat relative to the usual one.
        length, width: the garment's proportions, from -1 (short, narrow) to 1.
        rotation: degrees, anticlockwise.
        mirrored: left and right are exchanged.
        scale: size relative to the picture.
        shift: (right, down) from the centre, in fractions of the side.
        background: RGB at the top and at the bottom.
        seed: of folds in the cloth and of scattered flowers.
    """

    pattern: str
    colour: Colour
    accent: Colour
    pattern_scale: float = 1.0
    length: float = 0.0
    width: float = 0.0
    rotation: float = 0.0
    mirrored: bool = False
    scale: float = 1.0
    shift: Point = (0.0, 0.0)
    background: tuple[Colour, Colour] = (WHITE, WHITE)
    seed: int = 0


def draw(cut: Callable[[Sheet], None], look: Look, size: int) -> Image.Image:
    """Draw one picture.

    Args:
        cut: lays out the garment.
        look: its colours and pattern, pose and background.
        size: side in pixels.

    Returns:
        An RGB image of (size, size) pixels. The same look gives the same pixels with one version of Pillow.
    """
    oversampling = 3 if size <= 128 else 2
    pixels = size * oversampling
    rng = np.random.default_rng(look.seed)
    sheet = Sheet(pixels, look, rng)
    cut(sheet)
    garment = _posed(_lit(sheet.image, rng), look).reduce(oversampling)

    picture = _background(size, look.background).convert("RGBA")
    alpha = garment.getchannel("A")
    shadow = Image.new("L", alpha.size, 0)
    shadow.paste(alpha.point(lambda a: a * 3 // 10), (round(0.012 * size), round(0.022 * size)))
    picture.paste(BLACK, mask=shadow.filter(ImageFilter.GaussianBlur(0.018 * size)))
    return Image.alpha_composite(picture, garment).convert("RGB")


def mix(colour: Colour, other: Colour, share: float) -> Colour:
    """`colour` with `share` (0 to 1) of `other` blended in."""
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(colour, other, strict=True))
    return red, green, blue


def luminance(colour: Colour) -> float:
    """Brightness from 0 to 255 (ITU-R BT.601 weights)."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def seam_colour(colour: Colour) -> Colour:
    """A colour in which lines show on `colour`: darker, or lighter on dark cloth."""
    return mix(colour, WHITE, 0.3) if luminance(colour) < 70 else mix(colour, BLACK, 0.4)


def sharp(x: float, y: float) -> list[Point]:
    """A corner that is not rounded."""
    return [(x, y), (x, y)]


def rounded(points: list[Point], closed: bool = True, rounds: int = 3) -> list[Point]:
    """Round an outline's corners by Chaikin's corner cutting; a point listed twice stays a corner."""
    line = np.asarray(points, dtype=float)
    for _ in range(rounds):
        start, end = (line, np.roll(line, -1, axis=0)) if closed else (line[:-1], line[1:])
        cut = np.stack([0.75 * start + 0.25 * end, 0.25 * start + 0.75 * end], axis=1).reshape(-1, 2)
        line = cut if closed else np.concatenate([line[:1], cut, line[-1:]])
    return [(float(x), float(y)) for x, y in line]


def flipped(points: list[Point]) -> list[Point]:
    """The mirror image about the vertical middle line."""
    return [(1 - x, y) for x, y in points]


def symmetric(half: list[Point]) -> list[Point]:
    """Close the right half of an outline, given from its upper to its lower end, with its mirror image."""
    return half + flipped(half)[::-1]


class Sheet:
    """A transparent square on which one upright garment is laid out, part over part.

    Args:
        pixels: its side.
        look: supplies colours, pattern and proportions.
        rng: places what is scattered at random.
    """

    def __init__(self, pixels: int, look: Look, rng: np.random.Generator) -> None:
        self.pixels, self.look = pixels, look
        self.image = Image.new("RGBA", (pixels, pixels), (*look.colour, 0))
        self.fabric = _fabric(pixels, look, rng)
        self.seam = seam_colour(look.colour)
        self.inside = mix(look.colour, BLACK, 0.45)
        self.trim = look.accent if look.pattern != "plain" else mix(look.colour, self.seam, 0.45)

    def cloth(self, outline: list[Point], darker: float = 0.0, outlined: bool = True) -> None:
        """Lay a part cut from the patterned cloth, darkened by a share."""
        fabric = self.fabric if not darker else Image.blend(self.fabric, Image.new("RGB", self.fabric.size), darker)
        self._lay(outline, fabric, self.seam if outlined else None)

    def solid(self, outline: list[Point], colour: Colour, outlined: bool = True) -> None:
        """Lay a part of one colour."""
        self._lay(outline, colour, seam_colour(colour) if outlined else None)

    def line(self, points: list[Point], width: float = 0.007, colour: Colour | None = None) -> None:
        """Draw a seam, lace, strap or fold; the points are followed with rounded corners."""
        path = self._scaled(rounded(points, closed=False))
        ImageDraw.Draw(self.image).line(path, colour or self.seam, max(1, round(width * self.pixels)), "curve")

    def dot(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """Draw a button, eyelet or buckle."""
        box = [(c * self.pixels) for c in (x - radius, y - radius, x + radius, y + radius)]
        ImageDraw.Draw(self.image).ellipse(box, fill=colour)

    def pair(self) -> None:
        """Make two shoes of one: one in front, and one behind it, darker and a little higher."""
        front = self.image
        behind = Image.blend(front.convert("RGB"), Image.new("RGB", front.size), 0.22)
        behind.putalpha(front.getchannel("A"))
        step = round(0.1 * self.pixels)
        self.image = Image.new("RGBA", front.size, (*self.look.colour, 0))
        self.image.paste(behind, (step // 2, -step // 2 - step // 3))
        lower = Image.new("RGBA", front.size, (*self.look.colour, 0))
        lower.paste(front, (-step // 3, step // 2))
        self.image.alpha_composite(lower)

    def _lay(self, outline: list[Point], filling: Image.Image | Colour, edge: Colour | None) -> None:
        path = self._scaled(rounded(outline))
        if isinstance(filling, Image.Image):
            mask = Image.new("1", self.image.size, 0)
            ImageDraw.Draw(mask).polygon(path, fill=1)
            self.image.paste(filling, mask=mask)
        else:
            ImageDraw.Draw(self.image).polygon(path, fill=filling)
        if edge is not None:
            ImageDraw.Draw(self.image).line([*path, path[0]], edge, max(1, round(0.006 * self.pixels)), "curve")

    def _scaled(self, points: list[Point]) -> list[Point]:
        return [(x * self.pixels, y * self.pixels) for x, y in points]


def _fabric(pixels: int, look: Look, rng: np.random.Generator) -> Image.Image:
    """A square of patterned cloth."""
    fabric = Image.new("RGB", (pixels, pixels), look.colour)
    pen = ImageDraw.Draw(fabric)
    step = look.pattern_scale * pixels
    if look.pattern == "striped":
        for y in np.arange(0, pixels, 0.075 * step):
            pen.rectangle([0, y, pixels, y + 0.033 * step], fill=look.accent)
    elif look.pattern == "pinstriped":
        for x in np.arange(0, pixels, 0.05 * step):
            pen.rectangle([x, 0, x + 0.011 * step, pixels], fill=look.accent)
    elif look.pattern == "checked":
        half, full = mix(look.colour, look.accent, 0.5), look.accent
        starts, wide = np.arange(0, pixels, 0.11 * step), 0.05 * step
        for c in starts:
            pen.rectangle([c, 0, c + wide, pixels], fill=half)
            pen.rectangle([0, c, pixels, c + wide], fill=half)
        for x in starts:
            for y in starts:
                pen.rectangle([x, y, x + wide, y + wide], fill=full)
    elif look.pattern == "dotted":
        radius = 0.022 * step
        for row, y in enumerate(np.arange(0, pixels + radius, 0.075 * step)):
            for x in np.arange(0.05 * step * (row % 2), pixels + radius, 0.1 * step):
                pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=look.accent)
    elif look.pattern == "floral":
        leaf, heart = mix(look.accent, (40, 120, 60), 0.7), mix(look.accent, (250, 220, 90), 0.75)
        step *= 0.13
        for row, y in enumerate(np.arange(0, pixels + step, step)):
            for x in np.arange(0.5 * step * (row % 2), pixels + step, step):
                centre = np.array([x, y]) + rng.uniform(-0.2, 0.2, 2) * step
                turn, radius = rng.uniform(0, 2 * np.pi), step * rng.uniform(0.15, 0.22)
                for k in range(7):
                    angle = turn + 2 * np.pi * k / 5
                    colour, reach, r = (leaf, 2.2, 0.6 * radius) if k < 2 else (look.accent, 1.0, radius)
                    cx, cy = centre + reach * radius * np.array([np.cos(angle), np.sin(angle)])
                    pen.ellipse([cx - r, cy - r, cx + r, cy + r], fill=colour)
                cx, cy, r = *centre, 0.7 * radius
                pen.ellipse([cx - r, cy - r, cx + r, cy + r], fill=heart)
    elif look.pattern == "colour-block":
        pen.rectangle([0, 0.5 * pixels, pixels, pixels], fill=look.accent)
    return fabric


def _lit(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Shade towards the edges, light from the upper left, and add soft vertical folds."""
    pixels = image.width
    alpha = image.getchannel("A")
    # A blur this wide loses nothing at half the resolution.
    inner = (
        alpha.reduce(2).filter(ImageFilter.GaussianBlur(0.0125 * pixels)).resize(alpha.size, Image.Resampling.BILINEAR)
    )
    coarse = Image.fromarray(rng.normal(size=(4, 9)).astype(np.float32))
    folds = np.asarray(coarse.resize(image.size, Image.Resampling.BICUBIC))
    ramp = np.linspace(0.5, -0.5, pixels, dtype=np.float32)
    light = (
        0.76
        + 0.26 / 255 * np.asarray(inner, dtype=np.float32)
        + 0.035 * folds
        + 0.09 * ramp[:, None]
        + 0.09 * ramp[None, :]
    )
    rgb = np.asarray(image.convert("RGB"), dtype=np.float32) * light[:, :, None]
    # A little light is added as well as multiplied, so that black cloth has folds too.
    rgb += (14 * (light - 0.8))[:, :, None]
    lit = Image.fromarray(np.clip(rgb, 0, 255).astype(np.uint8))
    lit.putalpha(alpha)
    return lit


def _posed(garment: Image.Image, look: Look) -> Image.Image:
    """Centre and fit into the picture (small garments fill less of it), then mirror, rotate, scale, shift."""
    pixels = garment.width
    left, top, right, bottom = garment.getbbox() or (0, 0, pixels, pixels)
    width, height = right - left, bottom - top
    angle = np.deg2rad(look.rotation)
    # Turned, the bounding box must not leave the picture.
    across = width * abs(np.cos(angle)) + height * abs(np.sin(angle))
    down = width * abs(np.sin(angle)) + height * abs(np.cos(angle))
    zoom = min(look.scale * min(1.25, 0.84 * pixels / max(width, height)), 0.96 * pixels / max(across, down))
    cos, sin, flip = np.cos(angle) / zoom, np.sin(angle) / zoom, -1.0 if look.mirrored else 1.0
    # Pillow wants the map from output to input coordinates.
    x0, y0 = pixels / 2 + look.shift[0] * pixels, pixels / 2 + look.shift[1] * pixels
    a, b, d, e = flip * cos, -flip * sin, sin, cos
    data = (a, b, (left + right) / 2 - a * x0 - b * y0, d, e, (top + bottom) / 2 - d * x0 - e * y0)
    return garment.transform(garment.size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)


def _background(pixels: int, ends: tuple[Colour, Colour]) -> Image.Image:
    ramp = np.linspace(0, 1, pixels)[:, None, None]
    column = (1 - ramp) * np.array(ends[0]) + ramp * np.array(ends[1])
    return Image.fromarray(np.broadcast_to(np.round(column), (pixels, pixels, 3)).astype(np.uint8))
