"""Fixtures that several test files share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import settings

from imgrec_lib.data.dataset import Dataset
from imgrec_lib.data.readers.wardrobe.world import load_wardrobe

# A drawn example may take longer than the library's fifth of a second where other work is under way. The same ones are
# drawn in every run, so that a suite fails where the code has changed and nowhere else; robustness/fuzz.py has others.
settings.register_profile("patient", deadline=None, derandomize=True)
settings.load_profile("patient")

pytest.register_assert_rewrite("conformance")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with many slow tests come first: short ones at the end let two workers end together."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session", autouse=True)
def _cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests neither read nor write the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMGREC_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def small_wardrobe(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """150 users, 120 items, pictures of 32 pixels. Shared: do not change it."""
    cache = tmp_path_factory.mktemp("wardrobe")
    return load_wardrobe(n_users=150, n_items=120, image_size=32, cache=cache, progress=False)
