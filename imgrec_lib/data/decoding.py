"""One picture: from wherever it lies to pixels, upright, in RGB, resized; what browsers show is repaired."""

from __future__ import annotations

import io
import os
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF", "TIFF")
FORMATS_IN_WORDS = "JPEG, PNG, WebP, GIF, BMP, AVIF or TIFF"
MAX_PIXELS = 100_000_000
MAX_BYTES = 64_000_000
LARGE = 16_000_000
"""Pictures of more pixels are decoded one at a time, so that sixteen threads do not need sixteen times the memory."""
_large = threading.Lock()
RESAMPLING = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
}
Fit = Literal["squash", "pad", "crop"]
Resample = Literal["bicubic", "bilinear", "nearest"]
FITS = get_args(Fit)
WHITE = (255, 255, 255)

JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
JPEG_GREYS = (127, 128)
"""What the JPEG decoder fills in where the data end early: grey, and grey of inverted inks."""
PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
"""The chunks that a PNG needs to be shown; the orientation, in b"eXIf", is kept where it is small."""
LARGEST_ORIENTATION = 1 << 16
MOST_MISSING = 0.5
"""Share of its rows that a picture may lack."""


@dataclass(frozen=True)
class FileSlice:
    """An encoded picture inside a larger file.

    Attributes:
        path: the file.
        offset: first byte.
        length: number of bytes.
        as_text: whether the file holds UTF-8 text whose code points are the bytes (Python 3 writes bytes so at
            pickle protocol 2).
    """

    path: Path
    offset: int
    length: int
    as_text: bool = False


Source = Path | FileSlice | bytes | Image.Image | np.ndarray | None
"""Where one picture comes from; None means that the item has none."""


class Decoded(NamedTuple):
    """A decoded picture.

    Attributes:
        pixels: (size, size, 3) uint8; or (height, width, 3) of a picture of fewer pixels, as it was: see `fitted`.
        repair: what was amiss with the file and was repaired; empty where nothing was.
    """

    pixels: np.ndarray
    repair: str = ""


def decode(source: Source, size: int, fit: str = "squash", resample: str = "bicubic") -> np.ndarray:
    """One picture as networks see it: the pixels of `decode_and_repair`, `fitted`."""
    return fitted(decode_and_repair(source, size, fit, resample).pixels, size, fit, resample)


def fitted(pixels: np.ndarray, size: int, fit: str = "squash", resample: str = "bicubic") -> np.ndarray:
    """A picture of any size as a square: (height, width, 3) -> (size, size, 3) uint8.

    Args:
        pixels: RGB, uint8; what is that square already is returned as it is.
        size, fit, resample: see `decode_and_repair`.
    """
    if pixels.shape[:2] == (size, size):
        return pixels
    return np.asarray(_fitted(Image.fromarray(pixels), size, fit, resample))


def _fitted(image: Image.Image, size: int, fit: str, resample: str) -> Image.Image:
    method = RESAMPLING[resample]
    if fit == "pad":
        return ImageOps.pad(image, (size, size), method, WHITE)
    if fit == "crop":
        return ImageOps.fit(image, (size, size), method)
    return image.resize((size, size), method)


def decode_and_repair(source: Source, size: int, fit: str = "squash", resample: str = "bicubic") -> Decoded:
    """One picture as it lies in the store, and what had to be repaired.

    A picture of fewer pixels than the square has is kept as it was: enlarging it adds nothing and is left to readers.
    A picture that Pillow refuses and browsers show is repaired: a JPEG without its end marker, a PNG whose text or
    colour profile is too large or whose checksums are wrong, and a file that ends early, of which at least half of the
    rows must be there. The bounds are the same as of any picture.

    Args:
        source: where the picture comes from.
        size: height and width, in pixels.
        fit: "squash" changes the aspect ratio, "pad" adds white, "crop" keeps the centre.
        resample: "bicubic", "bilinear" or "nearest".

    Raises:
        ValueError: the picture is missing or broken; the message says why.
    """

    def kept(image: Image.Image) -> Image.Image:
        return image if image.width * image.height < size * size else _fitted(image, size, fit, resample)

    image, repair = _decode(source, None if resample == "nearest" else 2 * size, kept)
    return Decoded(np.asarray(image), repair)


def original_picture(source: Source, size: int) -> Image.Image:
    """One picture in its own proportions, upright, in RGB.

    Args:
        source: where the picture comes from.
        size: the longer side at most, in pixels; a smaller picture is not enlarged.

    Raises:
        ValueError: the picture is missing or broken; the message says why.
    """

    def within(image: Image.Image) -> Image.Image:
        image.thumbnail((size, size), Image.Resampling.BICUBIC)
        return image

    return _decode(source, size, within)[0]


def _decode(
    source: Source, at_least: int | None, then: Callable[[Image.Image], Image.Image]
) -> tuple[Image.Image, str]:
    """One picture, decoded at not less than `at_least` pixels a side, upright, in RGB.

    Returns:
        What `then` makes of it, and what was repaired.
    """
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim not in (2, 3) or 0 in source.shape:
            raise ValueError(f"an array of {source.dtype} and shape {source.shape} is no picture")
        source = Image.fromarray(source)

    def finished(image: Image.Image) -> Image.Image:
        with _large if image.width * image.height > LARGE else nullcontext():
            return then(_upright_rgb(image))

    data = source if isinstance(source, Image.Image) else _read(source)
    try:
        return finished(data if isinstance(data, Image.Image) else _open(data, at_least)), ""
    # Pillow's decoders raise nearly anything on damaged data.
    except Exception as error:
        reason = str(error) or type(error).__name__
    try:
        if isinstance(data, bytes):
            image, repair = _repaired(data, at_least)
            return finished(image), repair
    except _TooMuchIsMissing as refusal:
        reason = str(refusal)
    except Exception:  # what was wrong at first says more
        pass
    raise ValueError(f"the picture is broken: {reason}")


class _TooMuchIsMissing(ValueError):
    """A picture that ends so early that a repair would invent it."""


def _read(source: Path | FileSlice | bytes | None) -> bytes:
    """The encoded picture; ValueError says why there is none."""
    if source is None:
        raise ValueError("the item has no picture")
    if isinstance(source, bytes):
        length = len(source)
    elif isinstance(source, FileSlice):
        length = source.length
    elif os.path.isfile(source):  # unlike the method of Path it takes any name, however long or odd
        length = source.stat().st_size
    else:
        raise ValueError(f"there is no file {source}")
    if length > MAX_BYTES:
        raise ValueError(f"the picture has {length / 1e6:.0f} MB, more than the {MAX_BYTES / 1e6:.0f} admitted")
    if isinstance(source, bytes):
        return source
    try:
        with open(source.path if isinstance(source, FileSlice) else source, "rb") as file:
            file.seek(source.offset if isinstance(source, FileSlice) else 0)
            data = file.read(length)
        return data.decode().encode("latin-1") if isinstance(source, FileSlice) and source.as_text else data
    except (OSError, UnicodeError) as error:
        raise ValueError(f"the picture cannot be read: {error}") from None


def _open(data: bytes, at_least: int | None) -> ImageFile.ImageFile:
    """The picture, not decoded yet. A JPEG may come in at reduced scale, but not below `at_least` pixels a side."""
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise ValueError(f"it is no {FORMATS_IN_WORDS} file") from None
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width} x {image.height} pixels are more than the {MAX_PIXELS:,} admitted")
    if at_least is not None:
        image.draft(None, (at_least, at_least))
    return image


def _upright_rgb(image: Image.Image) -> Image.Image:
    """Decode to upright RGB, with white where the picture is transparent."""
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ValueError("its pixels are decimal numbers, of which nobody knows what is white")
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip
        return Image.fromarray((np.asarray(image) // 257).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, (*WHITE, 255)), image).convert("RGB")
    return image.convert("RGB")


# Repairs


def _repaired(data: bytes, at_least: int | None) -> tuple[Image.Image, str]:
    """A picture that cannot be decoded as it is, and what was amiss.

    Raises:
        _TooMuchIsMissing: too few of its rows are there.
        Exception: nearly anything, where nothing helps.
    """
    if data.startswith(PNG_START):
        data = PNG_START + b"".join(_needed_chunks(data))
        repair = "it has text or a colour profile too large to be read, or a wrong checksum"
    elif data.startswith(JPEG_START):
        data, repair = data + JPEG_END, "its end is missing"
    else:
        repair = ""
    image = _open(data, at_least)
    with _large if image.width * image.height > LARGE else nullcontext():
        return _with_known_rows(image, data, at_least, repair)


def _with_known_rows(
    image: ImageFile.ImageFile, data: bytes, at_least: int | None, repair: str
) -> tuple[Image.Image, str]:
    """Whatever can be decoded of a picture, on white.

    A row that nothing is decoded into is known by this, that it keeps whatever colour was there before.
    """
    whole = _decoded_onto(image, 255)
    if whole:
        missing = np.zeros(image.height, dtype=bool)
    else:
        other = _open(data, at_least)
        _decoded_onto(other, 0)
        pixels, others = (np.asarray(each).reshape(image.height, -1) for each in (image, other))
        missing = (pixels != others).any(axis=1)
    if data.startswith(JPEG_START):
        grey = np.asarray(np.isin(np.asarray(image).reshape(image.height, -1), JPEG_GREYS).all(axis=1))
        missing |= np.minimum.accumulate(grey[::-1])[::-1]
    if not missing.any():
        return image, repair or "its data are damaged"
    reason = f"it ends early, and {max(float(missing.mean()), 0.01):.0%} of its rows are missing"
    if missing.mean() > MOST_MISSING:
        raise _TooMuchIsMissing(reason)
    if image.mode == "P":  # in which no number stands for white
        colours = np.array(image.convert("RGBA"))
        colours[missing] = 255
        return Image.fromarray(colours), reason
    return image, reason


def _decoded_onto(image: ImageFile.ImageFile, shade: int) -> bool:
    """Decode a picture as far as it goes onto one shade (0 to 255); returns whether all went well."""
    bands = len(image.getbands())
    image.im = Image.new(image.mode, image.size, shade if bands == 1 else (shade,) * bands).im
    try:
        image.load()
        return True
    except Exception:
        # Without tiles to decode, Pillow takes what there is for the picture.
        image.tile = []
        image.load()
        return False


def _needed_chunks(data: bytes) -> Iterator[bytes]:
    """The chunks of a PNG that are needed to show it, with their checksums made anew."""
    position = len(PNG_START)
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        content = data[position + 8 : position + 8 + length]
        position += length + 12
        if kind in PNG_CHUNKS or (kind == b"eXIf" and length <= LARGEST_ORIENTATION):
            yield struct.pack(">I4s", len(content), kind) + content + struct.pack(">I", zlib.crc32(kind + content))
