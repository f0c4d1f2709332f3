"""Pictures that browsers show and Pillow refuses: what is there of them is used, and it is said."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from imgrec_lib.data.decoding import decode_and_repair
from imgrec_lib.data.storing import prepare_images

SIDE = 64
BLOCKS = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
PICTURE = Image.fromarray(np.kron(BLOCKS, np.ones((40, 40, 1), np.uint8)))


def encoded(kind: str, image: Image.Image = PICTURE, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def rows_as_whole(data: bytes, whole: bytes) -> tuple[float, str]:
    """The share of rows that look as in the undamaged picture, from the top, and what was repaired."""
    pixels, repair = decode_and_repair(data, SIDE)
    expected = decode_and_repair(whole, SIDE).pixels
    same = np.abs(pixels.astype(int) - expected).max(axis=(1, 2)) <= 3
    return float(np.append(same, False).argmin()) / SIDE, repair


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_without_its_end_marker_is_whole(mode: str, options: dict[str, Any]) -> None:
    whole = encoded("JPEG", PICTURE.convert(mode), **options)
    same, repair = rows_as_whole(whole[:-2], whole)
    # A short one Pillow decodes to its end before it misses the marker.
    assert same == 1.0 and repair in ("its end is missing", "")


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_of_a_jpeg_that_ends_early_the_upper_rows_are_used(mode: str) -> None:
    whole = encoded("JPEG", PICTURE.convert(mode))
    same, repair = rows_as_whole(whole[: len(whole) * 4 // 5], whole)
    assert 0.6 < same < 0.95 and "of its rows are missing" in repair
    with pytest.raises(ValueError, match=r"ends early, and \d\d% of its rows are missing"):
        decode_and_repair(whole[: len(whole) // 3], SIDE)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_what_is_missing_is_white_where_the_format_leaves_it_open(kind: str) -> None:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 250, (SIDE, SIDE, 3), dtype=np.uint8))
    whole = encoded(kind, noise)
    pixels, repair = decode_and_repair(whole[: len(whole) * 3 // 4], SIDE, resample="nearest")
    there = (pixels != 255).all(axis=(1, 2))
    assert 0.7 < there.mean() < 0.8 and (pixels[~there] == 255).all() and "2" in repair
    np.testing.assert_array_equal(pixels[there], np.asarray(noise)[there])
    with pytest.raises(ValueError, match="rows are missing"):
        decode_and_repair(whole[: len(whole) // 3], SIDE)


def test_a_picture_that_is_white_below_counts_as_there() -> None:
    """Rows that are white in the picture itself are not taken for missing ones."""
    image = Image.fromarray(np.vstack([np.asarray(PICTURE)[:80], np.full((240, 320, 3), 255, np.uint8)]))
    for kind in ("JPEG", "PNG"):
        whole = encoded(kind, image)
        damaged = whole[:-2] if kind == "JPEG" else wrong_checksum(whole)
        assert rows_as_whole(damaged, whole)[0] == 1.0


def wrong_checksum(png: bytes) -> bytes:
    at = png.index(b"IDAT") + 4 + struct.unpack(">I", png[png.index(b"IDAT") - 4 : png.index(b"IDAT")])[0]
    return png[:at] + bytes([png[at] ^ 1]) + png[at + 1 :]


def large_text() -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "x" * 1_200_000, zip=True)
    return encoded("PNG", pnginfo=info)


@pytest.mark.parametrize(
    "data",
    [large_text(), encoded("PNG", icc_profile=b"\0" * 1_200_000), wrong_checksum(encoded("PNG"))],
    ids=["text", "profile", "checksum"],
)
def test_what_stands_beside_a_png_is_no_reason_to_refuse_it(data: bytes) -> None:
    same, _ = rows_as_whole(data, encoded("PNG"))
    assert same == 1.0


def test_the_orientation_stays_when_other_chunks_are_left_out() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "x" * 1_200_000, zip=True)
    pixels, repair = decode_and_repair(encoded("PNG", pnginfo=info, exif=exif), SIDE)
    turned = PICTURE.rotate(-90).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(pixels, np.asarray(turned))
    assert "too large" in repair


@pytest.mark.parametrize("kind", ["WEBP", "AVIF"])
def test_what_cannot_be_decoded_in_part_is_refused(kind: str) -> None:
    whole = encoded(kind)
    with pytest.raises(ValueError, match="the picture is broken"):
        decode_and_repair(whole[: len(whole) // 2], SIDE)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_repairs_keep_the_bounds() -> None:
    header = encoded("PNG", Image.new("1", (12_000, 9_000)))
    with pytest.raises(ValueError, match="12000 x 9000 pixels are more than"):
        decode_and_repair(header[:200] + b"IDAT" + header[204:], SIDE)


def test_the_store_lists_what_was_repaired(tmp_path: Path) -> None:
    sources = [encoded("JPEG"), encoded("JPEG")[:-2], large_text(), b"no picture"]
    with pytest.warns(UserWarning) as told:
        store = prepare_images(sources, list("abcd"), tmp_path / "store", size=8, progress=False)
    assert [item for item, _ in store.repairs] == ["b", "c"] and [item for item, _ in store.problems] == ["d"]
    sentences = " ".join(str(warning.message) for warning in told)
    assert "2 of 4 pictures are damaged and were repaired; the first is that of item b" in sentences
    assert store.present.tolist() == [True, True, True, False]
