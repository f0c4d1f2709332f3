"""No card, profile or shipped matrix claims what the run would not keep.

Every number in a profile's note must be a value of the profile, and its words about epochs, penalties and pooling must
hold. What a matrix would build must be what its file says: the network that looks at pictures, the size of the
pictures, the profile that belongs to the dataset, the number of trials.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import yaml
from conformance import CARDS, data, small
from paths import ROOT
from plans import planned

from imgrec_lib import InputError
from imgrec_lib.data import list_datasets
from imgrec_lib.features import list_backbones
from imgrec_lib.matrix.definition import read_matrix
from imgrec_lib.models import build_model, network_parameters, resolve_profile
from imgrec_lib.models.base import Profile
from imgrec_lib.models.parts.encoder import TrainedEncoder
from imgrec_lib.models.saers import SAERS
from imgrec_lib.request import Request

PROFILES = [(name, profile) for name, card in CARDS.items() for profile in card.profiles]
MATRICES = sorted((ROOT / "matrices").glob("*.yaml"))

# --- Profiles

NO_VALUE = (
    r"4096-d features",  # those that the authors used
    r"the published 0\.7093 and 0\.6654",
    r"the published 0\.6065 and 0\.6081",
    r"NDCG@10",
    r"MovieLens-\w+",
    r"printed L2 of 0\.1",
    r"phase 2",
    r"EfficientNet-Lite0",
    r"resnet50",
    r"K2\b|lambda[12]\b|l2\w*",  # names
)
"""What looks like a number in a note and is no value of the profile."""


def numbers(profile: Profile) -> set[float]:
    """The numbers of a profile: its values, and those of a summed loss, of which ours is the mean."""
    found = {float(v) for v in profile.parameters.values() if isinstance(v, int | float)}
    for phase in profile.phases:
        values = {float(v) for v in asdict(phase).values() if isinstance(v, int | float)}
        found |= values | {value * phase.batch_size for value in found} | {phase.learning_rate / phase.batch_size}
    return found


def is_in(number: float, values: set[float]) -> bool:
    return bool(np.isclose(number, list(values), rtol=1e-6, atol=0).any())


@pytest.mark.parametrize(("name", "profile"), PROFILES)
def test_every_number_of_a_note_is_a_value_of_its_profile(name: str, profile: str) -> None:
    note = re.sub(r"(?<=\d),(?=\d{3})", "", CARDS[name].profiles[profile].note)
    for words in NO_VALUE:
        note = re.sub(words, "", note)
    values = numbers(resolve_profile(name, profile))
    claimed = [float(text) for text in re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?:e-?\d+)?", note)]
    tried = "best of three strengths" in note  # of which one was chosen
    wrong = [number for number in claimed if not is_in(number, values)]
    assert not wrong or (tried and len(wrong) < len(claimed)), f"{name}:{profile} does not keep {wrong}"


def penalties(profile: Profile) -> list[float]:
    return [value for key, value in profile.parameters.items() if key.startswith(("l2", "phase2_l2"))]


WORDS: dict[str, Callable[[Profile], bool]] = {
    r"the weights of the last epoch": lambda p: all(phase.restore == "last" for phase in p.phases),
    r"the best epoch by validation": lambda p: all(phase.restore == "best" for phase in p.phases),
    r"until convergence": lambda p: all(phase.restore == "best" and phase.patience for phase in p.phases),
    r"no effective L2|without the printed L2|no L2": lambda p: not any(penalties(p)),
    r"L2 of 0\.1 really applied": lambda p: p.parameters["l2"] == 0.1 and p.parameters.get("l2_layer", 0.1) == 0.1,
    r"L2 1e-6 then 5e-5": lambda p: (p.parameters["l2"], p.parameters["phase2_l2"]) == (1e-6, 5e-5),
    r"maximum pooling": lambda p: p.parameters["pooling"] == "max",
    r"with CReLU": lambda p: p.parameters["crelu"] is True,
    r"without CReLU": lambda p: not p.parameters.get("crelu", False),
    r"two phases": lambda p: len(p.phases) == 2,
    r"\bSGD\b": lambda p: all(phase.optimiser == "sgd" for phase in p.phases),
    r"\bAdam\b": lambda p: all(phase.optimiser == "adam" for phase in p.phases),
    r"\bAdagrad\b": lambda p: all(phase.optimiser == "adagrad" for phase in p.phases),
    r"no penalty on E|E without penalty": lambda p: not p.parameters["l2_visual"],
    r"a strong penalty on E": lambda p: p.parameters["l2_visual"] > 0,
    r"user-uniform": lambda p: all(phase.positives_by == "user" for phase in p.phases),
    r"one negative": lambda p: all(phase.negatives == 1 for phase in p.phases),
    r"no item offset": lambda p: p.parameters["item_bias"] is False,
    r"batch norms keep their statistics": lambda p: p.parameters["batch_statistics"] is False,
    r"the backbone is EfficientNet-Lite0": lambda p: p.parameters["backbone"] == "efficientnet-lite0",
    r"six layers": lambda p: p.parameters["factors"] == 2**6,
    r"unit ball": lambda p: p.parameters["max_norm"] == 1.0,
    r"harmonic weight": lambda p: p.parameters["weighting"] == "wsabie",
    r"10 trials": lambda p: p.parameters["max_trials"] == 10,
    r"validation every 20 iterations": lambda p: p.phases[0].evaluate_every == 20,
    r"a patience of 20 iterations": lambda p: p.phases[0].patience * p.phases[0].evaluate_every == 20,
}
"""What notes say in words, and whether it holds."""


@pytest.mark.parametrize("words", WORDS)
def test_what_a_note_says_in_words_holds(words: str) -> None:
    saying = [pair for pair in PROFILES if re.search(words, CARDS[pair[0]].profiles[pair[1]].note)]
    assert saying, "no note says so any more: take it out of the list"
    for name, profile in saying:
        assert WORDS[words](resolve_profile(name, profile)), f"{name}:{profile}"


@pytest.mark.parametrize(("name", "profile"), PROFILES)
def test_notes_name_profiles_that_there_are(name: str, profile: str) -> None:
    card = CARDS[name]
    note = card.profiles[profile].note
    for other in re.findall(r"`([\w-]+)`", note):
        assert other in card.profiles
    for network in re.findall(r"backbone='([\w-]+)'", note):
        assert network in list_backbones()


def difference(name: str, one: str, other: str) -> set[str]:
    """The parameters and settings in which two profiles of a model differ."""
    a, b = (resolve_profile(name, profile) for profile in (one, other))
    changed = {key for key in a.parameters if a.parameters[key] != b.parameters[key]}
    phases = zip(a.phases, b.phases, strict=True)
    return changed | {key for x, y in phases for key in asdict(x) if asdict(x)[key] != asdict(y)[key]}


def test_profiles_that_are_said_to_be_alike_differ_in_what_is_said() -> None:
    assert difference("dvbpr", "paper", "code") == {"factors", "restore"}
    first_phase = {"learning_rate", "batch_size", "epsilon"}  # that of Men's FT
    assert difference("imgrec-ete", "code-men", "code") == {"factors", "epochs"} | first_phase
    for name in ("imgrec-dir", "imgrec-ft"):
        assert difference(name, "literal", "paper") <= {"l2", "l2_layer"}


def test_profiles_taken_from_a_summed_loss_divide_what_is_not_a_mean() -> None:
    """Of a batch of B triples: penalties on whole matrices, and Adam's epsilon."""
    for name, profile, key, theirs in [
        ("vbpr", "elliot", "l2_visual", 2e-3),
        ("dvbpr", "code", "l2_network", 1e-3),
        ("dvbpr", "paper", "l2_network", 1e-3),
    ]:
        resolved = resolve_profile(name, profile)
        assert resolved.parameters[key] * resolved.phases[0].batch_size == pytest.approx(theirs)
    for name, profile, terms, theirs in [
        ("vbpr", "elliot", 1, 1e-7),
        ("deepstyle", "elliot", 1, 1e-7),
        ("dvbpr", "code", 1, 1e-8),
        ("dvbpr", "paper", 1, 1e-8),
        ("imgrec-dir", "code", 2, 1e-8),
        ("imgrec-ft", "code-men", 2, 1e-8),
        ("graphrec", "paper", 2, 1e-8),
    ]:
        phase = resolve_profile(name, profile).phases[0]
        assert phase.epsilon * terms * phase.batch_size == pytest.approx(theirs)


# --- What looks at pictures


def own_network(name: str) -> bool:
    return "backbone" in resolve_profile(name).parameters


def test_the_models_that_look_at_pictures_by_a_network_of_their_own() -> None:
    assert {name for name in CARDS if own_network(name)} == {"imgrec-ete", "saers", "two-tower-ete"}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CARDS if own_network(name)])
def test_one_option_reaches_features_and_models(name: str) -> None:
    asked = Request(name, backbone="resnet50", weights="random", feature_options={"size": 64})
    chosen = asked.resolved.parameters
    assert (chosen["backbone"], chosen["weights"], chosen["size"]) == ("resnet50", "random", 64)
    network = small(name, data(), **asked.overrides)
    assert isinstance(network, TrainedEncoder | SAERS)
    backbone = network.backbone if isinstance(network, TrainedEncoder) else network.maps.backbone
    assert (backbone.spec.name, backbone.size) == ("resnet50", 64)
    other = Request(name, parameters={"size": 96}, feature_options={"size": 64}).resolved.parameters
    assert other["size"] == 96  # what a user says of one model holds for that model


@pytest.mark.parametrize("name", [name for name in CARDS if own_network(name)])
@pytest.mark.parametrize("option", [{"stride": "keras-v1"}, {"preprocessing": "caffe"}, {"seed": 3}])
def test_an_option_that_a_model_cannot_follow_is_refused(name: str, option: dict[str, object]) -> None:
    with pytest.raises(InputError, match=f"cannot follow the feature option '{next(iter(option))}'"):
        Request(name, feature_options=dict(option)).check()
    Request("vbpr", feature_options=dict(option)).check()


def test_models_that_take_features_are_asked_nothing() -> None:
    assert network_parameters("imgrec-ft", "resnet50", "random", {"size": 64}) == {}
    assert network_parameters("dvbpr", "resnet50", "random", {"size": 64}) == {}  # it has its own network, from scratch


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["code", "code-men"])
def test_a_profile_that_wants_a_size_says_what_to_give(profile: str) -> None:
    with pytest.raises(InputError, match=r"looks at pictures of 244 pixels, .* stored with 8: load .* image_size=244"):
        build_model("imgrec-ete", data(), profile=profile)
    build_model("imgrec-ete", data(), profile=profile, size=32)


def test_a_control_of_a_model_without_features_is_refused() -> None:
    with pytest.raises(InputError, match="ImgRec-EtE uses no features, which the control 'shuffled pictures' changes"):
        Request("imgrec-ete", control="shuffled pictures").check()


# --- Matrices


def requests_of(path: Path, place: Path) -> Iterator[tuple[dict[str, str], Request]]:
    """Each run that a matrix would make: its labels and what it asks for."""
    for task in planned(read_matrix(path), place).runs:
        yield dict(task.labels), Request.from_parameters(task.parameters)


@pytest.mark.slow
@pytest.mark.parametrize("path", MATRICES, ids=lambda path: path.stem)
def test_runs_of_a_matrix_look_at_pictures_as_it_says(path: Path, tmp_path: Path) -> None:
    matrix = read_matrix(path)
    for labels, asked in requests_of(path, tmp_path):
        chosen = asked.resolved.parameters
        assert asked.backbone == matrix.backbone
        if not own_network(asked.model):
            continue
        named, turned = matrix.parameters.get(asked.model, {}), matrix.ablations.get(asked.model, [])
        assert chosen["backbone"] in {matrix.backbone, *(each.get("backbone", matrix.backbone) for each in turned)}, (
            labels
        )
        assert chosen["weights"] == matrix.weights, labels
        assert chosen["size"] == named.get("size", matrix.feature_options.get("size", chosen["size"])), labels
        options = list_datasets()[asked.dataset or ""].options
        stored = asked.dataset_options.get("image_size", options["image_size"].default)
        assert asked.dataset == "wardrobe" or chosen["size"] <= stored, f"{labels}: pictures would be enlarged"


PAPERS = [path for path in MATRICES if path.stem.startswith("paper")]


@pytest.mark.parametrize("path", PAPERS, ids=lambda path: path.stem)
def test_the_papers_matrices_keep_what_they_say(path: Path, tmp_path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    matrix = read_matrix(path)
    if "five trials" in text:
        assert len(set(matrix.seeds)) == 5
    assert (matrix.backbone == "resnet50" and "ResNet50" in text) or "resnet50" in text
    for name, root in re.findall(r"--root (\w+)=<(\w+\.npy)>", text):
        assert matrix.datasets[name].root == root
    scripts = {"fashion": "code", "men": "code-men"}
    seen = set()
    for labels, asked in requests_of(path, tmp_path):
        seen.add((asked.profile, labels["dataset"]))
        assert asked.dataset == "dvbpr" and asked.profile != "default"
        assert asked.feature_options == {"size": 244, "pooling": "max"} and asked.dataset_options["image_size"] == 244
        if asked.model.startswith("imgrec") and path.stem != "paper-grid":
            assert asked.profile in (scripts[labels["dataset"]], "paper")
            # The paper's rows use what the scripts did: no run applies the L2 that leaves nothing of the users.
            assert asked.resolved.parameters["l2"] <= 1e-6
    if path.stem != "paper-grid":
        assert {(scripts[name], name) for name in matrix.datasets} <= seen


@pytest.mark.parametrize("path", MATRICES, ids=lambda path: path.stem)
def test_a_matrix_says_how_it_is_run(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for named in re.findall(r"matrices/[\w.-]+", text):
        assert (ROOT / named).is_file() and named == f"matrices/{path.name}"
    for named in re.findall(r"(?<![\w/-])([\w-]+\.yaml)", text):
        assert (ROOT / "matrices" / named).is_file()
    if "three seeds" in text:
        assert len(yaml.safe_load(text)["seeds"]) == 3
    if "every model" in text:
        assert yaml.safe_load(text)["models"] == ["all"]


def test_a_control_in_a_matrix_needs_features(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text("models: [poprank]\ncontrols: [bpr-mf]\nseeds: [0]\n", encoding="utf-8")
    with pytest.raises(InputError, match="BPR-MF uses no features"):
        read_matrix(path)


def test_profiles_may_follow_the_dataset(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(
        "datasets:\n  one: {dataset: wardrobe, profiles: [code, paper]}\n  two: {dataset: wardrobe}\n"
        "models: [imgrec-ft, 'bpr-mf:default']\nprofiles: [code-men]\nseeds: [0]\n",
        encoding="utf-8",
    )
    matrix = read_matrix(path)
    found = {name: matrix.profiles_of(matrix.models, given) for name, given in matrix.datasets.items()}
    assert found == {
        "one": [("imgrec-ft", "code"), ("imgrec-ft", "paper"), ("bpr-mf", "default")],
        "two": [("imgrec-ft", "code-men"), ("bpr-mf", "default")],
    }
    path.write_text("datasets: {one: {dataset: wardrobe, profiles: [3]}}\nmodels: [imgrec-ft]\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"'profiles' of .* must be list of str, not "):
        read_matrix(path)
