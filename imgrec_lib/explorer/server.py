"""The page of `imgrec explore`: the explorer in a browser, on this machine alone, with no notebook around it.

Nothing that takes long is imported here: the page stands there while the runs are being opened.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import os
import secrets
import webbrowser
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tornado.httpserver
import tornado.netutil
import tornado.web

from imgrec_lib.errors import InputError
from imgrec_lib.explorer.assets import library, script
from imgrec_lib.files import cache_folder, make_folder

if TYPE_CHECKING:
    from imgrec_lib.explorer.opened import Runs

HERE = Path(__file__).parent
LOOPBACK = "127.0.0.1"
PORT = 8642
"""The port where there is no reason for another one: an address that somebody has kept stays good."""
SCRIPTS = ("explorer.js", "page.js", "deck.js")
MAX_UPLOAD = 64_000_000

_SHELL = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>imgrec</title><link rel="icon" href="data:,"><link rel="stylesheet" href="style.css"></head>
<body><main id="explorer"><h1 class="unseen">imgrec: what recommenders do</h1></main>
<script type="module" src="page.js"></script></body></html>
"""
_PAGE_STYLE = """
:root { color-scheme: light dark; }
body { margin: 0; background: light-dark(#ffffff, #15181c); }
#explorer { max-width: 1600px; margin: 0 auto; }
"""
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src data: blob:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


class Site:
    """What the page's requests share: the runs, as soon as they are open, and who may ask.

    Args:
        load: opens the runs; it is called at once, in a thread of its own.
        token: what a browser must have shown once.
    """

    def __init__(self, load: Callable[[], Runs], token: str) -> None:
        self.token, self.port = token, 0
        self.workers = ThreadPoolExecutor(4)
        self.runs: Future[Runs] = self.workers.submit(self._opened, load)

    @staticmethod
    def _opened(load: Callable[[], Runs]) -> Runs:
        from imgrec_lib.explorer.page import answer  # noqa: F401  # what the first answer needs is imported by then

        runs = load()
        with suppress(InputError):  # the page says it, beside the list of the other runs
            runs.open("")
        return runs

    async def do(self, work: Callable[[Runs], Any]) -> Any:
        """Do something with the runs, in a thread."""
        return await asyncio.wrap_future(self.workers.submit(lambda: work(self.runs.result())))


class _Handler(tornado.web.RequestHandler):
    site: Site

    def initialize(self, site: Site) -> None:
        self.site = site

    def set_default_headers(self) -> None:
        self.set_header("Content-Security-Policy", _POLICY)
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Cache-Control", "no-store")

    def prepare(self) -> None:
        # Another host's name that leads here, as an attacker's might, is refused.
        if self.request.host not in {f"{LOOPBACK}:{self.site.port}", f"localhost:{self.site.port}"}:
            raise tornado.web.HTTPError(403)
        shown = self.get_query_argument("token", "") or self.get_cookie(self.cookie) or ""
        if not hmac.compare_digest(shown.encode(), self.site.token.encode()):
            self.set_status(403)
            self.finish("This page belongs to another start of imgrec: open the address that 'imgrec explore' printed.")

    @property
    def cookie(self) -> str:
        return f"imgrec-{self.site.port}"

    @property
    def address(self) -> str:
        return self.request.query

    def write_error(self, status_code: int, **details: Any) -> None:
        error = details.get("exc_info", (None, None))[1]
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(str(error) if isinstance(error, InputError) else f"imgrec cannot answer ({status_code}): {error}")

    def log_exception(self, *details: Any) -> None:
        if not isinstance(details[1], InputError):
            super().log_exception(*details)


class _Page(_Handler):
    def get(self) -> None:
        if self.get_query_argument("token", ""):
            # The token leaves the address, which may be shown to others.
            self.set_cookie(self.cookie, self.site.token, httponly=True, samesite="Strict")
            rest = "&".join(part for part in self.address.split("&") if not part.startswith("token="))
            self.redirect(f"/?{rest}" if rest else "/")
            return
        self.finish(_SHELL)


class _Style(_Handler):
    def get(self) -> None:
        self.set_header("Content-Type", "text/css; charset=utf-8")
        # The style of galleries comes with the first answer.
        self.finish(_PAGE_STYLE + (HERE / "explorer.css").read_text(encoding="utf-8"))


class _Script(_Handler):
    def get(self, name: str) -> None:
        self.set_header("Content-Type", "text/javascript; charset=utf-8")
        if name == "deck.js":
            # It is the same until another pydeck is installed, and large.
            self.set_header("Cache-Control", "private, max-age=86400")
            self.finish(library())
        else:
            self.finish(script() if name == "explorer.js" else (HERE / name).read_text(encoding="utf-8"))


class _Answer(_Handler):
    async def get(self) -> None:
        def work(runs: Runs) -> dict[str, str]:
            from imgrec_lib.explorer.page import answer, gallery_style
            from imgrec_lib.explorer.state import State

            found = answer(runs, State.at(self.address))
            return {"html": gallery_style() + found.html, "shown": found.state.address()}

        self.finish(json.dumps(await self.site.do(work)))


class _Points(_Handler):
    async def get(self) -> None:
        def work(runs: Runs) -> bytes:
            from imgrec_lib.explorer.dots import points
            from imgrec_lib.explorer.page import settled
            from imgrec_lib.explorer.state import State
            from imgrec_lib.explorer.views import user_of

            state, _ = settled(runs, State.at(self.address))
            opened = runs.open(state.run)
            return points(opened, user_of(opened, state), state)

        self.set_header("Content-Type", "application/octet-stream")
        self.finish(await self.site.do(work))


class _Pictures(_Handler):
    async def get(self) -> None:
        def work(runs: Runs) -> dict[str, tuple[str, str, str]]:
            from imgrec_lib.explorer.dots import pictures

            items = self.get_query_argument("items", "").split(",")
            return pictures(runs.open(self.get_query_argument("run", "")), [int(i) for i in items if i.isdecimal()])

        self.finish(json.dumps(await self.site.do(work)))


class _Picture(_Handler):
    async def post(self) -> None:
        def work(_: Runs) -> str:
            from imgrec_lib.explorer.new_item import keep_picture
            from imgrec_lib.explorer.state import State

            return State.at(self.address).address(picture=keep_picture(self.request.body), view="new picture")

        self.finish(await self.site.do(work))


class _Share(_Handler):
    async def get(self) -> None:
        def work(runs: Runs) -> str:
            from imgrec_lib.explorer.share import shared_page
            from imgrec_lib.explorer.state import State

            return shared_page(runs, State.at(self.address))

        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(await self.site.do(work))


def application(site: Site) -> tornado.web.Application:
    """The page's addresses."""
    shared = {"site": site}
    scripts = "|".join(name.replace(".", r"\.") for name in SCRIPTS)
    return tornado.web.Application(
        [
            ("/", _Page, shared), ("/style.css", _Style, shared), (f"/({scripts})", _Script, shared),
            ("/answer", _Answer, shared), ("/points", _Points, shared),
            ("/pictures", _Pictures, shared), ("/picture", _Picture, shared), ("/share", _Share, shared),
        ]
    )  # fmt: skip


def serve(
    load: Callable[[], Runs],
    *,
    address: str = "",
    port: int = PORT,
    open_it: bool = True,
    say: Callable[[str], None] = print,
) -> None:
    """Show the explorer in the browser until Ctrl-C.

    It listens on the loopback interface alone and answers only who has the token in the address that it prints. Port
    and token are the same at the next start, so that an address that somebody has kept stays good.

    Args:
        load: opens the runs, while the page stands there already.
        address: what to show first, see `State.address`.
        port: where to listen; where it is taken, on any that is free.
        open_it: open the browser.
        say: called with the address.

    Raises:
        InputError: what `load` raises.
    """
    asyncio.run(_serve(load, address, port, open_it, say))


async def _serve(load: Callable[[], Runs], address: str, port: int, open_it: bool, say: Callable[[str], None]) -> None:
    logging.getLogger("tornado.access").setLevel(logging.ERROR)
    site = Site(load, _token())
    server = tornado.httpserver.HTTPServer(application(site), max_body_size=MAX_UPLOAD)
    try:
        sockets = tornado.netutil.bind_sockets(port, LOOPBACK)
    except OSError:
        sockets = tornado.netutil.bind_sockets(0, LOOPBACK)
    site.port = sockets[0].getsockname()[1]
    server.add_sockets(sockets)
    where = f"http://{LOOPBACK}:{site.port}/?token={site.token}{'&' + address if address else ''}"
    say(f"The explorer is at {where}\nCtrl-C stops it.")
    if open_it:
        webbrowser.open(where)
    try:
        # Without runs there is nothing to show: the command ends with the sentence that says why.
        await asyncio.wrap_future(site.runs)
        await asyncio.Event().wait()
    finally:
        server.stop()
        site.workers.shutdown(wait=False, cancel_futures=True)


def _token() -> str:
    """A secret that nobody else on this machine can read, the same at each start."""
    path = cache_folder(None, "explore") / "token"
    make_folder(path.parent)
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(16))
    except FileExistsError:
        pass
    kept = path.read_text(encoding="ascii").strip()
    return kept if len(kept) == 32 else secrets.token_hex(16)
