"""Searches: their draws, journals and choice, held against fixed values; what is left when one is killed."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from paths import TESTS
from toy import planted_dataset

from imgrec_lib import InputError, Request, find_runs
from imgrec_lib.data.dataset import HeldOut
from imgrec_lib.figures import best_so_far, importance, search_curves, slices
from imgrec_lib.models import model_card
from imgrec_lib.models.base import Range, Space
from imgrec_lib.search import Search, Study, read_search, read_studies, search, space_of
from imgrec_lib.search import study as study_module
from imgrec_lib.search.study import STARTUP

SPACE: Space = {"l2": Range(1e-3, 1.0, log=True), "factors": [32, 64], "learning_rate": Range(1e-3, 3e-2, log=True)}


def reached(point: dict[str, Any]) -> float:
    """What a configuration is pretended to reach: best at l2 .03 and rate .01."""
    return 0.8 - abs(math.log10(point["l2"] / 0.03)) / 10 - abs(math.log10(point["learning_rate"] / 0.01)) / 10


def points(study: Study, number: int, forget: bool = False) -> list[dict[str, Any]]:
    """Draw so many, each told before the next; `forget`: as another process would, that has read nothing yet."""
    for _ in range(number):
        if forget:
            study_module._storages.clear()
        drawn = study.draw()
        study.tell(drawn.number, reached(drawn.params))
    return [trial.params for trial in study.drawn()]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_who_draws_makes_no_difference(tmp_path: Path, sampler: Any) -> None:
    how = Search(SPACE, sampler=sampler)
    one = points(Study(tmp_path / "a", "s", "bpr-mf", search=how), 9)
    assert points(Study(tmp_path / "b", "s", "bpr-mf", search=how), 9, forget=True) == one
    assert points(Study(tmp_path / "c", "s", "bpr-mf", search=replace(how, seed=1)), 9) != one
    # First comes the default's own configuration, then points of the space, no two of them the same.
    assert one[0] == {"l2": 0.1, "factors": 64, "learning_rate": 0.01}
    assert len({tuple(point.values()) for point in one}) == 9
    assert all(1e-3 <= point["l2"] <= 1 and point["factors"] in (32, 64) for point in one)


def test_tpe_learns_from_what_it_is_told(tmp_path: Path) -> None:
    """Where all values are reversed, TPE draws otherwise once it has seen enough, and a random sampler the same."""
    for sampler, learns in (("tpe", True), ("random", False)):
        how = Search(SPACE, sampler=cast(Any, sampler))
        studies = [Study(tmp_path / f"{sampler}{sign}", "s", "bpr-mf", search=how) for sign in (1, -1)]
        for study, sign in zip(studies, (1, -1), strict=True):
            for _ in range(STARTUP + 3):
                drawn = study.draw()
                study.tell(drawn.number, sign * reached(drawn.params))
        one, other = ([trial.params for trial in study.drawn()] for study in studies)
        assert one[:STARTUP] == other[:STARTUP] and (one != other) == learns


def test_a_grid_and_a_small_space_are_tried_whole(tmp_path: Path) -> None:
    space = {"similarity": ["cosine", "euclidean"], "aggregate": ["mean", "max"]}
    for how in (Search(space, trials=None, sampler="grid"), Search(space, trials=10)):
        study = Study(tmp_path / how.sampler, "s", "visrank", search=how)
        assert how.most == 4 and how.left(4, 0.0) == 0
        for _ in range(4):
            study.tell(study.draw().number, 0.5)
        found = {(trial.params["similarity"], trial.params["aggregate"]) for trial in study.drawn()}
        assert found == {(a, b) for a in ("cosine", "euclidean") for b in ("mean", "max")}
    with pytest.raises(InputError, match="'grid' tries every value: make 'l2' a list"):
        Search(SPACE, sampler="grid").check()
    with pytest.raises(InputError, match="needs a budget"):
        Search(SPACE, trials=None).check()


def test_a_search_is_read_as_people_write_it() -> None:
    assert read_search("bpr-mf", {"trials": 3}, "m") == Search(space_of("bpr-mf"), trials=3)
    written = {"minutes": 2, "space": {"l2": {"low": 0.1, "high": 1.0}}}
    assert read_search("bpr-mf", written, "m", "paper") == Search({"l2": Range(0.1, 1.0)}, trials=None, minutes=2.0)
    refused: list[tuple[str, dict[str, Any], str, str]] = [
        ("bpr-mf", {"trails": 3}, "default", "unknown parameter of the search of bpr-mf in m 'trails': did you mean"),
        ("bpr-mf", {"sampler": "grid"}, "default", "the sampler 'grid' tries every value"),
        ("bpr-mf", {"trials": 3}, "paper", "m asks for a search of bpr-mf, which has nothing to search"),
        ("poprank", {}, "default", "m asks for a search of poprank, which has nothing to search"),
    ]
    for model, values, profile, sentence in refused:
        with pytest.raises(InputError, match=sentence):
            read_search(model, values, "m", profile)


def test_what_a_killed_writer_leaves_is_mended(tmp_path: Path) -> None:
    study = Study(tmp_path / "j", "s", "bpr-mf", search=Search(SPACE))
    before = points(study, 2)
    whole = study.path.read_bytes()
    study.path.write_bytes(whole + b'{"op_code": 4, "wor')
    lock = study.path.with_name("j.lock")
    lock.symlink_to(study.path)
    study_module._storages.clear()
    study.mend()
    assert study.path.read_bytes() == whole
    assert lock.is_symlink()  # it may be held: it is too young to have been left behind
    os.utime(lock, (1, 1), follow_symlinks=False)
    study.mend()
    assert not lock.is_symlink() and [trial.params for trial in study.drawn()] == before
    assert len(points(study, 1)) == 3


@pytest.mark.parametrize("content", [b"garbage\n{}\n", b"[1, 2]\n", b'{"op_code": 99}\n', b"\xff\xfe\n{}\n"])
def test_a_damaged_journal_gets_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "j"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"the journal .*j is damaged .*: delete it"):
        Study(path, "s", "bpr-mf", search=Search(SPACE)).drawn()
    with pytest.raises(InputError, match="there is no journal"):
        read_studies(tmp_path / "missing")


def test_a_pruner_ends_what_lags_behind(tmp_path: Path) -> None:
    how = Search({"l2": Range(1e-3, 1.0)}, pruner="median", sampler="random")
    study = Study(tmp_path / "j", "s", "bpr-mf", search=how)
    for _ in range(5):  # as many as the median pruner watches before it acts
        drawn = study.draw()
        observe = study.observer(drawn.number)
        assert not any(observe({"validation_auc": 0.6 + step / 100, "trained": step}) for step in (1, 2))
        study.tell(drawn.number, 0.62)
    drawn = study.draw()
    observe = study.observer(drawn.number)
    assert not observe({"validation_auc": float("nan"), "trained": 1})  # not validated in this epoch
    assert observe({"validation_auc": 0.55, "trained": 2})
    study.tell(drawn.number, 0.99, pruned=True)
    assert study.table()["state"].tolist() == ["done"] * 5 + ["ended early"]
    assert study.table()["value"].iloc[5] == 0.55  # its last, and never chosen
    drawn = study.draw()
    assert not study.observer(drawn.number)({"validation_auc": 0.7, "trained": 1})
    study.tell(drawn.number, float("nan"))
    assert study.table()["state"].iloc[6] == "failed"


FIXED = {"epochs": 2, "batch_size": 256}


def test_the_test_items_take_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another test set, and an evaluation that fails, change nothing of a search."""
    dataset = planted_dataset(n_users=40, n_items=30)[0]
    swapped = replace(dataset, test=HeldOut((dataset.test.items + 7) % dataset.n_items))

    def fails(*arguments: Any, **options: Any) -> None:
        raise AssertionError("a search evaluated test items")

    monkeypatch.setattr("imgrec_lib.runs.train.evaluate", fails)
    how = Search(space_of("bpr-mf"), trials=3, sampler="random")
    tables = []
    for name, data in (("one", dataset), ("other", swapped)):
        study, best = search(data, Request("bpr-mf", parameters=FIXED), how, tmp_path / name, progress=False)
        tables.append(study.table())
        runs = find_runs(tmp_path / name, stage="search")
        assert len(runs) == 3 and all(run.metrics == {} and not run.record.tested for run in runs)
        table = study.table()
        top = table.iloc[int(table["value"].to_numpy().argmax())]
        assert best.searched == {key: top[key] for key in how.space} and best.parameters == FIXED | {
            "choose_by": "auc", **best.searched
        }  # fmt: skip
        # The curve of each is in the journal, the value the best of it.
        for trial in study.drawn():
            assert trial.value == pytest.approx(max(trial.intermediate_values.values()))
    assert tables[0].equals(tables[1])
    extended, _ = search(
        dataset, Request("bpr-mf", parameters=FIXED), replace(how, trials=4), tmp_path / "one", progress=False
    )
    assert extended.table().head(3).equals(tables[0]) and len(extended.table()) == 4
    with pytest.raises(InputError, match="no validation items"):
        nothing = replace(dataset, validation=HeldOut(np.full(dataset.n_users, -1)))
        search(nothing, Request("bpr-mf"), how, tmp_path / "nothing", progress=False)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_killed_search_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    script = tmp_path / "drive.py"
    script.write_text(
        "import sys\n"
        f"sys.path.append({str(TESTS)!r})\n"
        "from pathlib import Path\n"
        "from toy import planted_dataset\n"
        "from imgrec_lib import Request\n"
        "from imgrec_lib.search import Search, search, space_of\n"
        "request = Request('bpr-mf', parameters={'epochs': 12, 'patience': 0, 'batch_size': 64})\n"
        "dataset = planted_dataset(n_users=40, n_items=30)[0]\n"
        "def run(out):\n"
        "    return search(dataset, request, Search(space_of('bpr-mf'), trials=4), Path(out), progress=False)\n"
        "if __name__ == '__main__':\n"
        "    run(sys.argv[1])\n"
    )
    process = subprocess.Popen([sys.executable, str(script), str(tmp_path / "killed")])
    while (
        len(list((tmp_path / "killed").glob("*/training.safetensors"))) == 0
        or len(list((tmp_path / "killed").glob("*/run.json"))) < 1
    ):
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    namespace: dict[str, Any] = {"__name__": "drive"}
    exec(script.read_text(), namespace)
    before = len(list((tmp_path / "killed").glob("*/run.json")))
    resumed, best = namespace["run"](tmp_path / "killed")
    undisturbed, same = namespace["run"](tmp_path / "undisturbed")
    assert 1 <= before < 4 and best == same
    assert resumed.table().equals(undisturbed.table()) and (resumed.table()["state"] == "done").all()
    assert [t.intermediate_values for t in resumed.drawn()] == [t.intermediate_values for t in undisturbed.drawn()]


def test_figures_say_what_the_journal_says(tmp_path: Path) -> None:
    study = Study(tmp_path / "j", "s", "bpr-mf", search=Search(SPACE), choose_by="ndcg@10")
    assert importance(study) is None
    for _ in range(12):
        drawn = study.draw()
        study.observer(drawn.number)({"validation_ndcg@10": 0.1, "trained": 1})
        study.tell(drawn.number, 0.5 - abs(math.log10(drawn.params["l2"] / 0.03)))
    table = study.table()
    best = int(table["value"].to_numpy().argmax())
    history = best_so_far(study)
    assert history.alt.startswith("12 configurations by validation NDCG@10: 12 trained to their end, 0 ended early")
    assert history.alt.endswith(f"Best: number {best + 1}, {table['value'].max():.4f}.")
    (line,) = [line for line in history.axes[0].lines if line.get_label() == "best so far"]
    np.testing.assert_allclose(np.asarray(line.get_ydata(), float), np.maximum.accumulate(table["value"]))
    assert "12 learning curves" in search_curves(study).alt
    shares = importance(study)
    assert shares is not None and shares.alt.startswith("How much each setting explains: l2 ")
    drawn_slices = slices(table[list(SPACE)], table["value"])
    assert drawn_slices is not None and len(drawn_slices.axes) == len(SPACE)
    assert drawn_slices.axes[0].get_xscale() == "log" and f"l2 {table['l2'][best]:.3g}" in drawn_slices.alt
    (again,) = read_studies(study.path)
    assert again.table().equals(table) and again.search.space == study.search.space
    assert model_card(again.model).title == "BPR-MF" and again.choose_by == "ndcg@10"
