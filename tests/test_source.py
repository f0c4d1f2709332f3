"""Which code made a result: edits that matter change the fingerprint, others do not."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imgrec_lib import InputError, source, train_run
from imgrec_lib.data import list_datasets, register_dataset
from imgrec_lib.data.dataset import Dataset
from imgrec_lib.models import list_models, model_card, register_model
from imgrec_lib.source import run_fingerprint, source_fingerprint

FUTURE = "from __future__ import annotations"
ANSWER = f"{FUTURE}\n\nANSWER = 42"


@pytest.fixture
def edited_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """A function that edits a copy of the library, and returns a model's fingerprint by that copy."""
    copy = tmp_path / "imgrec_lib"
    shutil.copytree(Path(source.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(source, "__file__", str(copy / "source.py"))

    def forget() -> None:
        for kept in (source._source, source._origins, source._path):
            kept.cache_clear()

    def edit(path: str, old: str, new: str, fingerprint: Callable[[], str]) -> str:
        file = copy / path
        before = file.read_text()
        assert old in before, path
        file.write_text(before.replace(old, new, 1))
        forget()
        digits = fingerprint()
        file.write_text(before)
        forget()
        return digits

    forget()
    yield edit
    monkeypatch.undo()
    forget()


MATTERS = [
    ("vbpr", "models/vbpr.py", FUTURE, ANSWER),
    ("vbpr", "models/parts/visual.py", FUTURE, ANSWER),
    ("vbpr", "features/extraction.py", FUTURE, ANSWER),
    ("warp", "models/parts/warp_search.py", "- 1\n", "- 2\n"),
    *(
        (model, *edit)
        for model in ("vbpr", "bpr-mf", "poprank")
        for edit in [
            ("models/build.py", FUTURE, ANSWER),
            ("training/trainer.py", "NotNegative = 30.0", "NotNegative = 31.0"),
            ("training/compiled.py", FUTURE, ANSWER),
            ("evaluation/metrics.py", FUTURE, ANSWER),
            ("evaluation/compiled.py", FUTURE, ANSWER),
            ("data/sampler.py", FUTURE, ANSWER),
            ("runs/train.py", FUTURE, ANSWER),
        ]
    ),
]
MATTERS_NOT = [
    ("vbpr", "models/vbpr.py", "import torch", "import torch  # a comment"),
    ("vbpr", "models/vbpr.py", '"""', '"""A docstring. '),
    ("vbpr", "models/deepstyle.py", FUTURE, ANSWER),  # another model
    ("vbpr", "models/parts/warp_search.py", FUTURE, ANSWER),  # the compiled loop of another model
    ("bpr-mf", "features/extraction.py", FUTURE, ANSWER),  # it reads no features
    *(
        (model, *edit)
        for model in ("vbpr", "bpr-mf", "poprank")
        for edit in [
            ("models/registry.py", "    poprank.CARD,\n", "    poprank.CARD,\n    another.CARD,\n"),
            ("data/__init__.py", FUTURE, ANSWER),  # the registry of readers
            ("data/readers/table.py", FUTURE, ANSWER),  # a reader: what it has read has a fingerprint of its own
            ("runs/record.py", FUTURE, ANSWER),  # the reader of records
            ("runs/load.py", FUTURE, ANSWER),
            ("request.py", FUTURE, ANSWER),
            ("errors.py", FUTURE, ANSWER),
            ("results/tables.py", FUTURE, ANSWER),
            ("cli.py", FUTURE, ANSWER),
        ]
    ),
]


@pytest.mark.slow
def test_a_run_is_stale_by_code_that_makes_its_numbers_and_by_no_other(edited_library: Callable[..., str]) -> None:
    original = {model: run_fingerprint(model) for model in ("vbpr", "bpr-mf", "poprank", "warp")}
    for model, *edit in MATTERS:
        assert edited_library(*edit, lambda model=model: run_fingerprint(model)) != original[model], (model, edit)
    for model, *edit in MATTERS_NOT:
        assert edited_library(*edit, lambda model=model: run_fingerprint(model)) == original[model], (model, edit)


@pytest.mark.slow
def test_a_package_as_a_root_counts_with_all_that_it_passes_on(edited_library: Callable[..., str]) -> None:
    def report() -> str:
        return source_fingerprint(["imgrec_lib.report"])

    original = report()
    assert edited_library("report/page.py", FUTURE, ANSWER, report) != original
    assert edited_library("results/tables.py", FUTURE, ANSWER, report) != original


def test_a_run_is_not_opened_for_new_by_other_code(
    small_wardrobe: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train_run(small_wardrobe, "poprank", tmp_path, progress=False)
    assert run.record.source == run_fingerprint("poprank") != run_fingerprint("vbpr")
    assert train_run(small_wardrobe, "poprank", tmp_path, progress=False).record == run.record
    monkeypatch.setattr("imgrec_lib.runs.train.run_fingerprint", lambda model: "edited")
    with pytest.raises(InputError, match="was made by other code of imgrec"):
        train_run(small_wardrobe, "poprank", tmp_path, progress=False)


MODEL = '''"""A model of another package."""

from dataclasses import replace

from imgrec_lib.models.bprmf import BPRMF, CARD as BPR

from .helper import SCALE


class Halved(BPRMF):
    """BPR-MF with a loss of half the size."""

    def loss(self, batch):
        return SCALE * super().loss(batch)


CARD = replace(BPR, name="halved-bpr", title="Halved BPR", build=Halved)
'''


@pytest.fixture
def other_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package that announces a model and a reader by entry points, as installed."""
    package = tmp_path / "site" / "shop_models"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "helper.py").write_text("SCALE = 0.5\n")
    (package / "halved.py").write_text(MODEL)
    (package / "reader.py").write_text(
        "from imgrec_lib.data import DatasetCard\n"
        "from imgrec_lib.data.readers.wardrobe.world import load_wardrobe\n\n\n"
        "def load_shop(*, n_users: int = 40):\n    return load_wardrobe("
        "n_users=n_users, n_items=50, image_size=32)\n\n\n"
        "CARD = DatasetCard('shop', 'a shop', '', 'shop_models.reader', 'load_shop')\n"
    )
    info = tmp_path / "site" / "shop_models-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shop-models\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[imgrec.models]\nhalved = shop_models.halved:CARD\n\n[imgrec.datasets]\nshop = shop_models.reader:CARD\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setattr("imgrec_lib.models.registry._added._announced", None)
    monkeypatch.setattr("imgrec_lib.data._added._announced", None)
    source._origins.cache_clear()
    yield package
    for name in [name for name in sys.modules if name.partition(".")[0] == "shop_models"]:
        del sys.modules[name]
    for kept in (source._source, source._origins, source._path):
        kept.cache_clear()


def test_models_and_readers_of_another_package_are_found_and_count_by_their_own_source(
    other_package: Path, tmp_path: Path
) -> None:
    from imgrec_lib import load_dataset

    assert list(list_models())[-1] == "halved-bpr" and list(list_datasets())[-1] == "shop"
    dataset = load_dataset("shop", n_users=45)
    run = train_run(dataset, "halved-bpr", tmp_path / "run", parameters={"epochs": 1, "factors": 4}, progress=False)
    assert (dataset.n_users, run.record.title) == (45, "Halved BPR")
    digits = {run.record.source}
    for file, old, new in [("helper.py", "0.5", "0.25"), ("halved.py", "SCALE *", "2 * SCALE *")]:
        (other_package / file).write_text((other_package / file).read_text().replace(old, new))
        source._source.cache_clear()
        digits.add(run_fingerprint("halved-bpr"))
    assert len(digits) == 3


def test_what_is_no_card_and_names_that_are_taken_are_refused(other_package: Path) -> None:
    halved = model_card("halved-bpr")
    register_model(halved)
    module = importlib.import_module("shop_models.halved")
    with pytest.raises(InputError, match="must be ModelCard, not <class"):
        register_model(module.Halved)
    with pytest.raises(InputError, match=r"'bpr-mf', as one of imgrec's own is: choose another name"):
        register_model(module.BPR)
    with pytest.raises(InputError, match="must be DatasetCard, not ModelCard"):
        register_dataset(halved)  # type: ignore[arg-type]


def test_an_announced_model_that_cannot_be_imported_is_named(other_package: Path) -> None:
    (other_package / "halved.py").write_text("import no_such_package\n")
    with pytest.raises(
        InputError, match=r"the entry point 'halved' of imgrec.models cannot be imported .*no_such_package"
    ):
        list_models()
