"""What is shown of generated garments: the right pictures at the right places, with their own numbers."""

from __future__ import annotations

import numpy as np
import pytest
from narrow import not_none

from imgrec_lib.data.dataset import Dataset
from imgrec_lib.figures import (
    best_pictures,
    design_gallery,
    nearest_items_gallery,
    picture_grid,
    preference_figure,
    progress_grid,
    steps_grid,
)
from imgrec_lib.generation import Design, Pictures, class_pictures


@pytest.fixture(scope="module")
def pictures(small_wardrobe: Dataset) -> Pictures:
    return class_pictures(small_wardrobe, 16, classes=2)[0]


def toy_design(user: int, seed: int = 0) -> Design:
    """Three starts, four steps after the first; the second start ends best."""
    rng = np.random.default_rng(seed)
    preference = rng.normal(size=(5, 3))
    objective = preference - 0.5
    objective[-1] = [0.1, 0.9, 0.3]
    pixels = rng.integers(0, 256, (5, 3, 16, 16, 3), dtype=np.uint8)
    return Design(user, 1, pixels, preference, np.full((5, 3), 0.5), objective, rng.normal(size=(5, 3, 4)))


def test_grid_shows_each_picture_at_its_place() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 4, 3), dtype=np.uint8)
    figure = picture_grid(pixels, ["tops", "shoes"], ["a", "b", "c"], title="Sheet")
    assert len(figure.axes) == 6
    for number, axes in enumerate(figure.axes):
        assert np.array_equal(not_none(axes.images[0].get_array()), pixels[number // 3, number % 3])
    assert [axes.get_ylabel() for axes in figure.axes[::3]] == ["tops", "shoes"]
    assert [axes.get_title() for axes in figure.axes[:3]] == ["a", "b", "c"]


def test_progress_goes_from_untrained_to_the_last_epoch() -> None:
    progress = np.random.default_rng(0).integers(0, 256, (11, 2, 8, 4, 4, 3), dtype=np.uint8)
    figure = progress_grid(progress, ["tops", "shoes"], moments=3)
    assert [axes.get_title() for axes in figure.axes[:3]] == ["untrained", "epoch 5", "epoch 10"]
    assert np.array_equal(not_none(figure.axes[5].images[0].get_array()), progress[10, 1, 0])
    assert len(progress_grid(progress[:2], ["tops", "shoes"]).axes) == 4


def test_history_beside_the_design(small_wardrobe: Dataset, pictures: Pictures) -> None:
    designs = [toy_design(4), toy_design(9, seed=1)]
    gallery = design_gallery(small_wardrobe, pictures, designs, k=3)
    assert gallery.images is not None and small_wardrobe.images is not None
    codes, names = not_none(small_wardrobe.categories)
    for row, one in zip(gallery.rows, designs, strict=True):
        *bought, start, designed = row.cells
        history = small_wardrobe.train.of(one.user)
        of_class = [item for item in history if names[codes[item]] == pictures.names[1]]
        expected = f"bought {len(history)} items, {len(of_class)} of them {pictures.names[1]}"
        assert row.title == f"User {small_wardrobe.user_ids[one.user]} {expected}"
        assert len(bought) == min(3, len(history))
        shown = [np.asarray(gallery.images.thumbnail(cell.item)) for cell in bought]
        own = [np.asarray(small_wardrobe.images.thumbnail(int(item))) for item in history]
        assert all(any(np.array_equal(picture, other) for other in own) for picture in shown)
        # A name that says the category is not followed by it: both are looked for in the whole caption.
        first = [pictures.names[1] in " ".join(cell.caption).lower() for cell in bought]
        assert sum(first) == min(3, len(of_class)) and first == sorted(first, reverse=True)
        assert (start.mark, designed.mark) == ("start", "designed")
        assert (start.score, designed.score) == (one.preference[0, 1], one.preference[-1, 1])
        enlarged = np.asarray(gallery.images.thumbnail(designed.item, 16)).astype(int)
        assert np.abs(enlarged - one.pictures[-1, 1]).mean() < np.abs(enlarged - one.pictures[-1, 0]).mean() / 2
    assert "designed for this user" in gallery.html()


def test_nearest_items_are_real_and_nearest(small_wardrobe: Dataset) -> None:
    rng = np.random.default_rng(0)
    items = rng.normal(size=(small_wardrobe.n_items, 6)).astype(np.float32)
    designs = [toy_design(4), toy_design(9, seed=1)]
    designed = np.stack([items[17] * 3, items[17] + 0.1 * items[30]])  # close to each other, and to item 17
    gallery = nearest_items_gallery(small_wardrobe, designs, designed, items, k=4)
    assert gallery.images is not None and small_wardrobe.images is not None
    for row, vector in zip(gallery.rows, designed, strict=True):
        query, *real = row.cells
        assert query.mark == "designed" and len(real) == 4
        cosines = items @ vector / np.linalg.norm(items, axis=1) / np.linalg.norm(vector)
        np.testing.assert_allclose([not_none(cell.score) for cell in real], np.sort(cosines)[::-1][:4], rtol=1e-4)
        picture = np.asarray(gallery.images.thumbnail(real[0].item))
        assert np.array_equal(picture, small_wardrobe.images.pixels[17])


def test_preference_along_the_steps(small_wardrobe: Dataset) -> None:
    one, scores = toy_design(4), np.linspace(-1, 2, 11)
    (axes,) = preference_figure(small_wardrobe, [one], [scores]).axes
    lines = [np.asarray(line.get_ydata()) for line in axes.lines]
    for start in range(3):
        np.testing.assert_allclose(lines[start], one.preference[:, start])
    np.testing.assert_allclose(lines[3], one.preference.mean(1))
    assert [line[0] for line in lines[4:]] == pytest.approx([2.0, 1.7, 0.5])
    assert axes.get_xlabel() == "Step" and "Preference" in axes.get_ylabel()


def test_the_best_start_is_shown(small_wardrobe: Dataset) -> None:
    designs = [toy_design(4), toy_design(9, seed=1)]
    assert np.array_equal(best_pictures(designs), np.stack([one.pictures[-1, 1] for one in designs]))
    figure = steps_grid(small_wardrobe, designs, moments=2)
    assert [axes.get_title() for axes in figure.axes[:2]] == ["step 0", "step 4"]
    assert np.array_equal(not_none(figure.axes[3].images[0].get_array()), designs[1].pictures[4, 1])
