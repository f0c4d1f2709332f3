"""Nothing of a file is run, no name becomes markup or a path, no server listens to the world."""

from __future__ import annotations

import ast
import io
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from paths import ROOT
from toy import planted_dataset

from imgrec_lib.data.dataset import Dataset
from imgrec_lib.data.images import ImageStore
from imgrec_lib.figures import category_table, feature_map, item_gallery
from imgrec_lib.gallery import neighbour_gallery, recommendation_gallery
from imgrec_lib.gallery.live import LiveGallery
from imgrec_lib.models.base import InnerProduct
from imgrec_lib.notebooks import notebooks_folder

MODULES = {
    "pickle", "cPickle", "_pickle", "dill", "joblib", "cloudpickle", "marshal", "shelve",  # run what they read
    "subprocess", "pty", "commands",  # reach a shell
    "zipfile", "tarfile", "lzma", "bz2",  # archives
    "xml", "telnetlib", "ftplib", "requests", "httpx",
}  # fmt: skip
CALLS = {
    "eval", "exec", "compile", "__import__",
    "pd.read_pickle", "pandas.read_pickle", "pd.eval", "pd.read_html",
    "yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all",
    "os.system", "os.popen", "shutil.unpack_archive",
    "torch.hub.load", "torch.jit.load", "torch.package.PackageImporter",
    "tempfile.mktemp",
}  # fmt: skip


ALLOWED = {
    "imgrec_lib/data/formats.py": {"zipfile", "lzma", "bz2"},  # reads compressed tables as streams, unpacks nothing
    "imgrec_lib/kernel_server.py": {"subprocess"},  # starts Python on itself, without a shell
    "imgrec_lib/notebooks.py": {"subprocess"},  # starts JupyterLab, without a shell
}


def dotted(node: ast.expr) -> str:
    """The name of what is called: "np.load"; empty where it is no plain name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def faults(source: str) -> list[str]:
    """What in a piece of Python would run what it reads, or reach a shell."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            found += [module] if module.split(".")[0] in MODULES else []
            found += [f"{module}.{a.name}" for a in node.names if f"{module}.{a.name}" in CALLS]
        elif isinstance(node, ast.Call):
            name = dotted(node.func)
            given = {k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)}
            unsafe = {k.arg for k in node.keywords} & {"shell", "allow_pickle"}
            if name in CALLS or any(given.get(key) is not False for key in unsafe):
                found.append(name)
            if name == "torch.load" and given.get("weights_only") is not True:
                found.append("torch.load without weights_only=True")
            if name.endswith("download_url_to_file") and "hash_prefix" not in {k.arg for k in node.keywords}:
                found.append("a download without its hash")
    return found


def sources() -> dict[str, str]:
    """All Python of the project but the tests, which attack it: modules, scripts, cells of notebooks."""
    found = {}
    for folder in ("imgrec_lib", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            found[str(path.relative_to(ROOT))] = path.read_text(encoding="utf-8")
    for path in sorted(notebooks_folder().glob("*.ipynb")):
        cells = [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
        found[path.name] = re.sub(r"^%.*$", "", "\n".join(cells), flags=re.MULTILINE)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", sources())
def test_nothing_runs_what_it_reads(name: str) -> None:
    allowed = {"benchmarks": {"subprocess"}}.get(name.split("/")[0], set())  # peers run in processes of their own
    allowed |= ALLOWED.get(name, set())
    assert [fault for fault in faults(sources()[name]) if fault not in allowed] == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from pickle import loads", "np.load('x', allow_pickle=True)",
        "np.load('x', allow_pickle=flag)",
        "eval('1')", "exec('1')",
        "torch.load('x')", "torch.load('x', weights_only=False)", "yaml.load(text)", "os.system('ls')",
        "import subprocess", "run('ls', shell=True)", "read('x', allow_pickle=True)", "import tarfile",
        "torch.hub.download_url_to_file(url, path)", "from yaml import unsafe_load", "pd.read_pickle('x')",
    ],
)  # fmt: skip
def test_the_search_finds_what_it_should(source: str) -> None:
    assert faults(source)


def test_the_search_lets_harmless_code_pass() -> None:
    assert (
        faults(
            "model.eval()\ntorch.load('x', weights_only=True)\nyaml.safe_load(text)\nimport pickletools\nnp.load('x')"
        )
        == []
    )


# Names

TABLE = {"table", "thead", "tbody", "tr", "th", "td"}
EVIL = """<script>alert("1")</script><img src=x onerror='alert(2)'>"""


@pytest.fixture(scope="module")
def evil() -> Dataset:
    """A dataset whose every name is hostile."""
    dataset, _ = planted_dataset(n_users=12, n_items=30, history=5)
    items = dataset.items.assign(
        item=[f"{EVIL}{i}" for i in range(30)],
        name=[f"{EVIL} $\\frac$ {i}\x00\u202e" for i in range(30)],
        category=[f"{EVIL} $\\nosuch{{$ {i % 3}" for i in range(30)],
    )
    pixels = np.zeros((30, 8, 8, 3), np.uint8)
    present = np.arange(30) % 2 == 0
    users = np.array([f"{EVIL}{u}" for u in range(12)])
    return replace(dataset, name=EVIL, items=items, user_ids=users, images=ImageStore.from_array(pixels, present))


def assert_harmless(html: str) -> None:
    assert "&lt;script&gt;" in html

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            assert tag in {"style", "div", "p", "ul", "li", "figure", "figcaption", "img", "span", "br"} | TABLE
            assert not [name for name, _ in attributes if name.startswith("on")]
            assert (dict(attributes).get("src") or "data:image/jpeg").startswith("data:image/jpeg")

    Reader().feed(html)


@pytest.mark.slow
def test_galleries_and_tables_of_hostile_names(evil: Dataset, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(30, 4)).astype(np.float32)
    scorer = InnerProduct(torch.zeros(12, 4), torch.as_tensor(vectors))
    galleries = [
        item_gallery(evil),
        neighbour_gallery(evil, vectors, [0, 1], 3, EVIL),
        recommendation_gallery(evil, scorer, [0, 1], 3, EVIL),
    ]
    for number, gallery in enumerate(galleries):
        assert_harmless(gallery.html())
        assert_harmless(gallery._repr_html_())
        assert_harmless(LiveGallery(gallery).pictures.html)
        gallery.png(tmp_path / f"{number}.png")
    assert_harmless(category_table(evil)._repr_html_())  # type: ignore[operator]  # pandas-stubs take it for a column


def test_figures_of_hostile_names(evil: Dataset) -> None:
    """A formula that Matplotlib cannot read would stop the notebook."""
    vectors = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    for kind in ("svg", "png"):
        buffer = io.BytesIO()
        feature_map(evil, vectors).savefig(buffer, format=kind)
        assert kind == "png" or b"<script" not in buffer.getvalue()


# Servers

RECIPES = [
    line.strip().lstrip("@")
    for line in (ROOT / "Makefile").read_text().splitlines()
    if re.match(r"\t@?\$\(BIN\)/jupyter (lab|notebook|server)\b", line)
]


def test_servers_that_make_starts_listen_to_this_machine_with_a_token() -> None:
    assert RECIPES
    for recipe in RECIPES:
        words = shlex.split(recipe.replace("$(BIN)", "bin").replace("$(", "").replace(")", ""))
        loopback = any(a.endswith("ip") and b == "127.0.0.1" for a, b in pairwise(words))
        assert loopback or any(word.endswith("ip=127.0.0.1") for word in words), recipe
        assert not any(re.search(r"(token|password)=?$", word) for word in words), f"{recipe}: the token is taken away"
        assert "--allow-root" not in words and "0.0.0.0" not in recipe


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.slow
def test_jupyterlab_wants_its_token(tmp_path: Path) -> None:
    """As `make lab` starts it, on a free port."""
    (recipe,) = [line for line in RECIPES if "jupyter lab" in line and line.endswith(" notebooks")]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = shlex.split(recipe.split("jupyter lab", 1)[1].replace("notebooks", str(tmp_path)))
    environment = os.environ | {
        "HOME": str(tmp_path), "JUPYTER_CONFIG_DIR": str(tmp_path), "JUPYTER_RUNTIME_DIR": str(tmp_path),
        "JUPYTER_DATA_DIR": str(tmp_path),
    }  # fmt: skip
    root = ["--allow-root"] if os.geteuid() == 0 else []
    with open(tmp_path / "log", "w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyter", "lab", *arguments, "--no-browser", f"--port={port}", *root],
            stdout=log, stderr=log, env=environment, start_new_session=True,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + 60
            while not (links := re.findall(r"http://127\S+:(\d+)/\S*\?token=(\w+)", (tmp_path / "log").read_text())):
                assert server.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()
                time.sleep(0.2)
            token, port = links[0][1], int(links[0][0])  # not the one asked for, if that has been taken meanwhile
            base = f"http://127.0.0.1:{port}/api/contents"
            assert status(base) == 403
            assert status(f"{base}?token={'0' * len(token)}") == 403
            assert status(f"{base}?token={token}") == 200 and len(token) >= 32
            listening = Path("/proc/net/tcp")
            if listening.exists():
                places = {row.split()[1] for row in listening.read_text().splitlines()[1:] if row.split()[3] == "0A"}
                assert {p.split(":")[0] for p in places if int(p.split(":")[1], 16) == port} == {"0100007F"}
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(30)
