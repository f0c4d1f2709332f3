"""The image store: decoding, the on-disk format, refusal of what does not fit."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from imgrec_lib.data import decoding, storing
from imgrec_lib.data.decoding import Decoded, FileSlice, decode, decode_and_repair
from imgrec_lib.data.images import ImageStore, open_images
from imgrec_lib.data.storing import prepare_images, resized
from imgrec_lib.errors import InputError


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def photo() -> Image.Image:
    """A 30 x 20 picture, smooth enough to survive JPEG: red grows to the right, green downwards."""
    y, x = np.mgrid[0:20, 0:30]
    return Image.fromarray(np.stack([x * 8, y * 12, np.full_like(x, 60)], axis=2).astype(np.uint8))


@pytest.mark.parametrize("resample", ["bicubic", "bilinear", "nearest"])
def test_squash_is_pillows_resize(photo: Image.Image, resample: str) -> None:
    expected = photo.resize((8, 8), decoding.RESAMPLING[resample])
    np.testing.assert_array_equal(decode(encoded(photo), 8, "squash", resample), np.asarray(expected))


def test_pad_and_crop_keep_the_aspect_ratio(photo: Image.Image) -> None:
    padded = decode(encoded(photo), 30, "pad", "nearest")
    np.testing.assert_array_equal(padded[5:25], np.asarray(photo))
    assert (padded[:5] == 255).all() and (padded[25:] == 255).all()
    np.testing.assert_array_equal(decode(encoded(photo), 20, "crop", "nearest"), np.asarray(photo)[:, 5:25])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF", "TIFF"])
def test_formats(photo: Image.Image, kind: str) -> None:
    grey = Image.new("RGB", (16, 16), (120, 120, 120))
    assert np.abs(decode(encoded(grey, kind), 16).astype(int) - 120).max() <= 2
    assert decode(encoded(photo, kind), 5).shape == (5, 5, 3)


def test_reduced_jpeg_decoding_stays_close() -> None:
    y, x = np.mgrid[0:640, 0:640]
    smooth = Image.fromarray(
        np.stack([127 + 100 * np.sin(x / 70), 127 + 100 * np.cos(y / 60), x / 4], 2).astype(np.uint8)
    )
    data = encoded(smooth, "JPEG", quality=95)
    full = Image.open(io.BytesIO(data)).convert("RGB").resize((32, 32), Image.Resampling.BICUBIC)
    assert np.abs(decode(data, 32).astype(int) - np.asarray(full)).mean() < 1.5
    nearest = Image.open(io.BytesIO(data)).convert("RGB").resize((32, 32), Image.Resampling.NEAREST)
    np.testing.assert_array_equal(decode(data, 32, resample="nearest"), np.asarray(nearest))


@pytest.mark.parametrize(
    ("image", "pixel"),
    [
        (Image.new("L", (4, 4), 77), (77, 77, 77)),
        (Image.new("1", (4, 4), 1), (255, 255, 255)),
        (Image.new("RGBA", (4, 4), (200, 0, 0, 0)), (255, 255, 255)),
        (Image.new("RGBA", (4, 4), (255, 0, 0, 255)), (255, 0, 0)),
        (Image.new("LA", (4, 4), (0, 0)), (255, 255, 255)),
        (Image.new("RGB", (4, 4), (0, 90, 0)).quantize(4), (0, 90, 0)),
        (Image.fromarray(np.full((4, 4), 257 * 40, np.uint16)), (40, 40, 40)),
        (Image.new("CMYK", (4, 4), (0, 255, 255, 0)), (255, 0, 0)),
    ],
)
def test_modes_become_rgb_on_white(image: Image.Image, pixel: tuple[int, int, int]) -> None:
    np.testing.assert_array_equal(decode(image, 4), np.broadcast_to(np.array(pixel, np.uint8), (4, 4, 3)))
    if image.mode != "CMYK":
        np.testing.assert_array_equal(decode(encoded(image), 4), np.broadcast_to(np.array(pixel, np.uint8), (4, 4, 3)))


def test_transparent_palette_and_cmyk_jpeg() -> None:
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 0, 200, 0])
    assert (decode(encoded(palette, transparency=1), 4) == 255).all()
    cmyk = decode(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95), 16)
    assert cmyk[8, 8, 0] > 240 and cmyk[8, 8, 1:].max() < 15


def test_first_frame_and_exif_orientation(photo: Image.Image) -> None:
    red, blue = Image.new("RGB", (4, 4), (255, 0, 0)), Image.new("RGB", (4, 4), (0, 0, 255))
    animated = encoded(red, "GIF", save_all=True, append_images=[blue], duration=10)
    np.testing.assert_array_equal(decode(animated, 4)[0, 0], (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    upright = np.asarray(photo.rotate(-90, expand=True).resize((10, 10), Image.Resampling.NEAREST))
    np.testing.assert_array_equal(decode(encoded(photo, exif=exif), 10, resample="nearest"), upright)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (None, "no picture"),
        (b"", "broken"),
        (b"not a picture at all", "broken"),
        (encoded(Image.new("RGB", (4, 4)), "PPM"), "no JPEG, PNG, WebP, GIF, BMP, AVIF or TIFF file"),
        (encoded(Image.new("F", (4, 4)), "TIFF"), "decimal numbers"),
        (encoded(Image.effect_noise((64, 64), 50), "JPEG")[:600], "broken"),
        (encoded(Image.new("1", (12_000, 9_000))), "108,000,000|12000 x 9000"),
        (Path("nowhere.jpg"), "no file nowhere.jpg"),
        (FileSlice(Path("nowhere.npy"), 5, 10), "cannot be read"),
        (np.zeros((4, 4, 3)), "float64"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_is_no_picture_says_why(source: decoding.Source, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        decode(source, 4)


def test_files_beyond_the_limit_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "big.png"
    path.write_bytes(encoded(Image.new("RGB", (4, 4))))
    monkeypatch.setattr(decoding, "MAX_BYTES", 10)
    for source in (path, path.read_bytes(), FileSlice(path, 0, 50)):
        with pytest.raises(ValueError, match="MB"):
            decode(source, 4)


def test_store_follows_its_specification(tmp_path: Path, photo: Image.Image) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(encoded(photo))
    packed = tmp_path / "packed.bin"
    packed.write_bytes(b"head" + path.read_bytes() + b"tail")
    text = tmp_path / "text.bin"
    text.write_bytes(b"xy" + path.read_bytes().decode("latin-1").encode())
    sources: list[Any] = [
        path,
        path.read_bytes(),
        photo,
        np.asarray(photo),
        FileSlice(packed, 4, path.stat().st_size),
        FileSlice(text, 2, text.stat().st_size - 2, as_text=True),
        None,
        b"broken",
    ]
    folder = tmp_path / "store"
    with pytest.warns(UserWarning, match="2 of 8 items have no usable picture"):
        store = prepare_images(sources, list("abcdefgh"), folder, size=6, progress=False)

    expected = np.asarray(photo.resize((6, 6), Image.Resampling.BICUBIC))
    assert isinstance(store.pixels, np.memmap) and not store.pixels.flags.writeable
    assert (len(store), store.size) == (8, 6)
    for row in range(6):
        np.testing.assert_array_equal(store.pixels[row], expected)
    assert (store.pixels[6:] == 255).all()
    assert store.present.tolist() == [True] * 6 + [False] * 2
    assert [item for item, _ in store.problems] == ["g", "h"]
    assert "no picture" in store.problems[0][1] and "broken" in store.problems[1][1]

    raw = np.load(folder / "pixels.npy")
    index = json.loads((folder / "index.json").read_text())
    digest = hashlib.sha256(b"8 6" + raw.tobytes() + bytes([1] * 6 + [0] * 2)).hexdigest()[:16]
    assert store.fingerprint == index["fingerprint"] == digest
    assert index["ids"] == list("abcdefgh") and [row for row, _ in index["problems"]] == [6, 7]
    assert ImageStore.from_array(raw, store.present).fingerprint == digest
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.endswith(".part")) == []


@pytest.mark.parametrize("fit", ["squash", "pad", "crop"])
def test_pictures_are_kept_no_larger_than_they_were(tmp_path: Path, photo: Image.Image, fit: str) -> None:
    small, wide, large = photo.resize((5, 7)), photo.resize((30, 2)), photo.resize((40, 30))
    with pytest.warns(UserWarning, match="1 of 4 items have no usable picture"):
        store = prepare_images(
            [small, None, wide, large], list("abcd"), tmp_path / "s", size=12, fit=fit, progress=False
        )
    method = Image.Resampling.BICUBIC
    squares = {
        "squash": lambda image: image.resize((12, 12), method),
        "pad": lambda image: ImageOps.pad(image, (12, 12), method, (255, 255, 255)),
        "crop": lambda image: ImageOps.fit(image, (12, 12), method),
    }
    white = np.full((12, 12, 3), 255, np.uint8)
    small_, wide_, large_ = (np.asarray(squares[fit](image)) for image in (small, wide, large))
    expected = np.stack([small_, white, wide_, large_])
    assert np.load(tmp_path / "s" / "pixels.npy").shape == (3 * (5 * 7 + 12 * 12 + 30 * 2 + 12 * 12),)
    # Who looks sees, in any way that arrays are read, what was stored before, and what a run calls it is recognised.
    pixels: Any = store.pixels
    as_array = ImageStore.from_array(expected, np.array([True, False, True, True]))
    assert store.size == 12 and pixels.shape == expected.shape
    changed = ImageStore.from_array(expected ^ np.uint8(1), as_array.present)
    assert [store.is_known_as(each.fingerprint) for each in (store, as_array, changed)] == [True, True, False]
    for key in (
        2,
        -1,
        slice(1, None),
        [3, 0, 0],
        np.array([[1, 2], [0, 3]]),
        np.arange(4) > 1,
        (slice(None), 4, 4, 0),
        [],
    ):
        np.testing.assert_array_equal(pixels[key], expected[key])
    np.testing.assert_array_equal(np.array(pixels), expected)
    np.testing.assert_array_equal(np.stack(list(pixels)), expected)
    np.testing.assert_array_equal(
        resized(store, 6, cache=tmp_path).pixels, resized(as_array, 6, cache=tmp_path / "b").pixels
    )

    # A store of the same pictures takes them over as they are kept.
    again = [Path(tmp_path / f"{name}.png") for name in "abc"]
    for path, image in zip(again, (small, wide, large), strict=True):
        image.save(path)
    first = prepare_images(again, list("abc"), tmp_path / "first", size=12, fit=fit, progress=False)
    both = prepare_images(
        again[:2], list("ab"), tmp_path / "second", size=12, fit=fit, progress=False, alike=[tmp_path / "first"]
    )
    assert [earlier.rows.tolist() for earlier in both.earlier] == [[0, 1]]
    np.testing.assert_array_equal(both.pixels, first.pixels[:2])
    assert np.load(tmp_path / "second" / "pixels.npy").shape == (3 * (5 * 7 + 30 * 2),)

    index = json.loads((tmp_path / "s" / "index.json").read_text())
    (tmp_path / "s" / "index.json").write_text(json.dumps(index | {"shapes": [*index["shapes"][:3], [12, 13]]}))
    with pytest.raises(InputError, match="its index speaks of 4 pictures of 12 pixels"):
        open_images(tmp_path / "s")


def test_thumbnail(photo: Image.Image) -> None:
    store = ImageStore.from_array(np.asarray(photo.resize((8, 8)))[None])
    np.testing.assert_array_equal(np.asarray(store.thumbnail(0)), store.pixels[0])
    assert store.thumbnail(0, 3).size == (3, 3)


@pytest.mark.parametrize(
    "array", [np.zeros((2, 4, 4, 3)), np.zeros((2, 4, 5, 3), np.uint8), np.zeros((4, 4), np.uint8)]
)
def test_only_square_uint8_pictures_make_a_store(array: np.ndarray) -> None:
    with pytest.raises(InputError, match="image store needs"):
        ImageStore.from_array(array)


def test_fingerprint_tells_pixels_order_and_presence_apart() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)
    stores = [
        ImageStore.from_array(pixels),
        ImageStore.from_array(pixels[::-1]),
        ImageStore.from_array(pixels, np.array([True, False, True])),
        ImageStore.from_array(pixels[:2]),
    ]
    assert len({store.fingerprint for store in stores}) == 4
    assert ImageStore.from_array(pixels.copy()).fingerprint == stores[0].fingerprint


def noting(calls: list[object]) -> Callable[..., Decoded]:
    """`decode_and_repair`, which notes what it is asked for."""

    def noted(source: Any, *rest: Any) -> Decoded:
        calls.append(source)
        return decode_and_repair(source, *rest)

    return noted


def test_prepared_once_and_again_when_a_source_or_setting_changes(
    tmp_path: Path, photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, folder = tmp_path / "a.png", tmp_path / "store"
    path.write_bytes(encoded(photo))
    calls: list[object] = []
    monkeypatch.setattr(storing, "decode_and_repair", noting(calls))

    def prepare(**options: Any) -> ImageStore:
        return prepare_images([path], ["a"], folder, **{"size": 4, "progress": False, **options})

    first = prepare()
    assert prepare().fingerprint == first.fingerprint and len(calls) == 1
    path.write_bytes(encoded(photo.rotate(180)))
    assert prepare().fingerprint != first.fingerprint and len(calls) == 2
    assert prepare(fit="pad").fingerprint != first.fingerprint and len(calls) == 3
    assert prepare(size=5).size == 5 and len(calls) == 4
    path.unlink()
    with pytest.warns(UserWarning, match="no usable picture"):
        assert not prepare(size=5).present[0]


def test_two_at_once_do_the_work_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    monkeypatch.setattr(storing, "decode_and_repair", noting(calls))
    pictures = [Image.new("RGB", (9, 9), (i, i, i)) for i in range(20)]
    prints: list[str] = []

    def work() -> None:
        store = prepare_images(pictures, [str(i) for i in range(20)], tmp_path / "s", size=4, progress=False)
        prints.append(store.fingerprint)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 20 and len(set(prints)) == 1 and len(prints) == 3


def test_sources_stream_in_order_through_a_bounded_window() -> None:
    pulled = 0

    def sources() -> Iterator[np.ndarray]:
        nonlocal pulled
        for i in range(200):
            pulled += 1
            yield np.full((3, 3, 3), i, np.uint8)

    stream = storing._decoded(sources(), [], storing._Form(3, "squash", "nearest"), [], workers=2)
    for i, (pixels, problem, repair) in enumerate(stream):
        assert problem == repair == "" and (np.asarray(pixels) == i).all()
        assert pulled - i <= 4 * 2 + 1


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    def sources() -> Iterator[Image.Image]:
        yield Image.new("RGB", (4, 4))
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        prepare_images(sources(), ["a", "b"], tmp_path / "s", size=4, progress=False, source_key="k")
    assert [p.name for p in tmp_path.iterdir() if not p.name.endswith(".lock")] == []


@pytest.mark.parametrize(("n", "found"), [(1, "1 image sources"), (3, "more image sources")])
def test_as_many_sources_as_ids(tmp_path: Path, n: int, found: str) -> None:
    with pytest.raises(InputError, match=f"2 item ids but {found}"):
        prepare_images([np.zeros((2, 2, 3), np.uint8)] * n, ["a", "b"], tmp_path / "s", size=2, progress=False)


def test_settings_are_checked(tmp_path: Path) -> None:
    refused: list[tuple[dict[str, Any], str]] = [
        ({"fit": "squish"}, "did you mean 'squash'"),
        ({"resample": "bicubik"}, "did you mean 'bicubic'"),
        ({"size": 0}, "at least 1 pixel"),
    ]
    for options, message in refused:
        with pytest.raises(InputError, match=message):
            prepare_images([], [], tmp_path / "s", **options)
    with pytest.raises(InputError, match="GB are free"):
        prepare_images([None] * 1000, ["a"] * 1000, tmp_path / "s", size=1_000_000)


def test_a_store_that_does_not_fit_its_index_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    with pytest.raises(InputError, match="no image store"):
        open_images(folder)

    def fresh() -> dict[str, object]:
        pictures = [Image.new("RGB", (4, 4))] * 3
        prepare_images(pictures, list("abc"), folder, size=4, progress=False)
        return json.loads((folder / "index.json").read_text())

    def refused(index: object, message: str) -> None:
        (folder / "index.json").write_text(json.dumps(index))
        with pytest.raises(InputError, match=message):
            open_images(folder)

    index = fresh()
    refused(index | {"ids": ["a", "b"]}, "2 pictures of 4 pixels")
    refused(index | {"size": 5}, "3 pictures of 5 pixels")
    refused(index | {"version": 2}, "not of version 1")
    refused({}, "not of version 1")
    refused([], "not of version 1")
    refused(index | {"problems": [[9, "?"]]}, "not of version 1")
    (folder / "index.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        open_images(folder)
    fresh()
    data = (folder / "pixels.npy").read_bytes()
    (folder / "pixels.npy").write_bytes(data[:-1])
    with pytest.raises(InputError, match="cannot be read"):
        open_images(folder)


def test_an_empty_catalogue(tmp_path: Path) -> None:
    assert prepare_images([], [], tmp_path / "s", size=4, progress=False).pixels.shape == (0, 4, 4, 3)
