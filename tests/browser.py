"""Pages in a real browser, and a JupyterLab of their own; tests are skipped where there is no browser."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def chromium() -> Iterator[Any]:
    """A playwright browser; the test is skipped, with a reason, where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'imgrec[browser]'")
    path = next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
    )
    if not path:
        pytest.skip("needs a browser: no chromium is installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@contextmanager
def offline_page(browser: Any, path: Path, scheme: str = "light", width: int = 1280) -> Iterator[tuple[Any, list[str]]]:
    """A local page without network, and the list of what it asked for beyond itself and of what went wrong.

    Args:
        browser: see `chromium`.
        path: the page.
        scheme: "light" or "dark".
        width: of the window, in CSS pixels.
    """
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900}, offline=True)
    try:
        page = context.new_page()
        problems: list[str] = []
        address = path.resolve().as_uri()
        page.on("request", lambda r: None if r.url == address or r.url[:5] == "data:" else problems.append(r.url))
        page.on("console", lambda m: problems.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(address)
        yield page, problems
    finally:
        context.close()


@contextmanager
def explored(runs: Path) -> Iterator[str]:
    """What `imgrec explore` prints for runs, while it runs."""
    command = [sys.executable, "-c", "from imgrec_lib.cli import main; main()", "explore", str(runs)]
    command += ["--no-open", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().split()[-1]
        process.terminate()


def axe_violations(page: Any) -> list[str]:
    """What axe-core, which comes inside the Python package, finds wrong: rule, and the first elements it is about."""
    missing = "needs axe-core: pip install 'imgrec[browser]'"
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason=missing)
    found = axe.Axe().run(page).response["violations"]
    return [
        f"{each['id']} ({each['impact']}): {each['help']}: {[node['html'][:160] for node in each['nodes'][:3]]}"
        for each in found
    ]


@contextmanager
def jupyterlab(folder: Path) -> Iterator[str]:
    """JupyterLab on a folder, on the loopback interface and with a token.

    Yields:
        The address with `{}` where a file's path goes.
    """
    settings = {
        # With windowing, outputs out of sight are not in the page.
        "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
        "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    }
    state = folder / ".jupyter"
    for name, values in settings.items():
        path = state / "settings" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = os.urandom(16).hex()
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
        f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}", "--LabApp.expose_app_in_browser=True",
        f"--LabApp.user_settings_dir={state / 'settings'}", f"--LabApp.workspaces_dir={state / 'workspaces'}",
    ]  # fmt: skip
    own = {name: str(state / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")}
    with open(folder / "jupyterlab.log", "w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | own)
    try:
        for _ in range(600):
            assert server.poll() is None, (folder / "jupyterlab.log").read_text()
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api?token={token}", timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/lab/tree/{{}}?token={token}"
    finally:
        server.terminate()
        server.wait(20)


def run_all_cells(page: Any, timeout: float = 120) -> None:
    """Run the open notebook from top to bottom.

    Args:
        page: a page of JupyterLab with one notebook open.
        timeout: seconds to wait for the page.
    """
    page.wait_for_function(
        "() => window.jupyterapp?.shell?.currentWidget?.sessionContext?.isReady", timeout=1000 * timeout
    )
    page.evaluate("async () => { await window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
