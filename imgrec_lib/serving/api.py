"""The HTTP interface of a trained model: FastAPI in front of the workers that hold it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
from pathlib import Path
from typing import Annotated, Any, Literal

from imgrec_lib.extras import require

require("serve")

import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Query, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imgrec_lib import __version__
from imgrec_lib.data.decoding import MAX_BYTES
from imgrec_lib.errors import InputError
from imgrec_lib.request import Moved
from imgrec_lib.serving.pool import Busy, Pool

LOOPBACK = "127.0.0.1"
MOST_ITEMS = 10_000
"""Ids in a condition, and of a basket."""
LONGEST_LIST = 1_000
BODY_BYTES = 1_000_000
"""Of a body without a picture; one with a picture may be larger by the largest picture."""
OPEN = ("/health", "/docs", "/docs/oauth2-redirect", "/openapi.json")
"""What is shown to those who have no token, beside the files of the page: nothing of it is about the data."""
FILES = "/static-offline-docs"

Id = Annotated[str | int, Field(union_mode="left_to_right")]
Ids = Annotated[list[Id], Field(max_length=MOST_ITEMS)]
Length = Annotated[int, Field(ge=1, le=LONGEST_LIST, description="Items of the list.")]
By = Annotated[
    str,
    Query(
        max_length=100,
        description="learned: as the model has learnt them; picture: by visual features; or a set of features by name.",
    ),
]


class Wanted(BaseModel):
    """Whom to recommend to, and what may be recommended."""

    model_config = ConfigDict(extra="forbid")

    user: Annotated[Id | None, Field(description="A known user; or give a basket.")] = None
    basket: Annotated[Ids | None, Field(description="Items that a customer has bought whom the model never saw.")] = (
        None
    )
    k: Length = 10
    include_owned: Annotated[bool, Field(description="Also what the user has bought.")] = False
    items: Annotated[Ids | None, Field(description="Only these.")] = None
    without: Annotated[Ids, Field(description="Not these.")] = []
    where: Annotated[
        dict[str, str | list[str]], Field(max_length=100, description="Values of columns of the item table.")
    ] = {}
    one_per_group: Annotated[bool, Field(description="Of the variants of a product only the best.")] = False

    @model_validator(mode="after")
    def _one_of_both(self) -> Wanted:
        if (self.user is None) == (self.basket is None):
            raise ValueError("give either a user or a basket")
        return self


class Recommended(BaseModel):
    """An item of a list."""

    item: str
    rank: int
    score: float
    name: str | None = None
    by: Annotated[str, Field(description="The model's name, or popularity.")]


class Similar(BaseModel):
    """An item and how alike it is, by cosine."""

    item: str
    rank: int
    similarity: float
    name: str | None = None


class Recommendations(BaseModel):
    """A list, best first, and what there is to say about it."""

    items: list[Recommended]
    notes: list[str]


class SimilarItems(BaseModel):
    """Similar items, the most similar first."""

    items: list[Similar]
    notes: list[str]


class PictureScore(BaseModel):
    """The score of a picture, and where it would stand among the items that the user does not have, from 1."""

    user: str
    score: float
    place: int
    notes: list[str]


class Model(BaseModel):
    """What is served."""

    model: str
    run: str
    identity: str
    finished: str
    dataset: str
    users: int
    items: int
    version: str


class Health(BaseModel):
    """Whether questions are answered."""

    status: Literal["ok", "no worker is ready"]
    workers: int


class Problem(BaseModel):
    """What is wrong, in one sentence."""

    detail: str


class Guard:
    """Refuses, before a body is read, who has no token, and bodies that are too large."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = {name.lower(): value for name, value in scope["headers"]}
        path = scope["path"]
        if path not in OPEN and not path.startswith(f"{FILES}/"):
            given = headers.get(b"authorization", b"")
            if not secrets.compare_digest(given, f"Bearer {self.token}".encode()):
                sentence = (
                    "this needs the header 'Authorization: Bearer TOKEN', with the token that the server printed."
                )
                refused = JSONResponse({"detail": sentence}, 401, {"WWW-Authenticate": "Bearer"})
                return await refused(scope, receive, send)
        most = BODY_BYTES + (MAX_BYTES if path.endswith("/picture") else 0)
        announced = headers.get(b"content-length", b"0")
        too_large = HTTPException(413, f"the body has more than {most:,} bytes: send less.")
        if announced.isdigit() and int(announced) > most:
            refused = JSONResponse({"detail": too_large.detail}, 413, {"Connection": "close"})
            return await refused(scope, receive, send)
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > most:
                raise too_large
            return message

        await self.app(scope, counted, send)


def create_app(pool: Pool, token: str) -> FastAPI:
    """The application: every answer comes from the pool's workers.

    Args:
        pool: the workers, started by whoever runs the application.
        token: what a request must carry.
    """
    problems: dict[int | str, dict[str, Any]] = {
        401: {"model": Problem, "description": "No token, or another"},
        413: {"model": Problem, "description": "The body is too large"},
        422: {"model": Problem, "description": "The question cannot be answered: the sentence says why"},
        503: {"model": Problem, "description": "All workers are busy: ask again later"},
    }
    app = FastAPIOffline(
        title="imgrec",
        version=__version__,
        description="Recommendations, similar items and scores of pictures by a trained model.",
        redoc_url=None,
        static_url=FILES,
    )
    app.add_middleware(Guard, token=token)
    options: dict[str, Any] = {
        "responses": problems,
        "dependencies": [Depends(HTTPBearer(auto_error=False, description="The token that the server printed."))],
    }

    async def ask(name: str, question: dict[str, Any], picture: UploadFile | None = None) -> Response:
        read = None if picture is None else picture.file.read
        try:
            status, content = await pool.ask({"name": name, **question}, read)
        except Busy:
            detail = "all workers are busy: ask again later."
            return JSONResponse({"detail": detail}, 503, {"Retry-After": "1"})
        return Response(content, status, media_type="application/json")

    @app.exception_handler(RequestValidationError)
    async def in_one_sentence(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return JSONResponse({"detail": str(InputError(f"{place}: {first['msg'].removeprefix('Value error, ')}."))}, 422)

    @app.get("/health", response_model=Health, responses={503: {"model": Health}})
    async def health() -> Response:
        """Whether questions are answered; needs no token."""
        ready = pool.ready
        status = "ok" if ready else "no worker is ready"
        return JSONResponse({"status": status, "workers": ready}, 200 if ready else 503)

    @app.get("/model", response_model=Model, **options)
    async def model() -> Response:
        """Which run is served."""
        return await ask("model", {})

    @app.post("/recommend", response_model=Recommendations, **options)
    async def recommend(wanted: Wanted) -> Response:
        """The best items for a known user, or for a basket."""
        return await ask("recommend", wanted.model_dump())

    @app.get("/similar", response_model=SimilarItems, **options)
    async def similar(item: str, k: Length = 10, by: By = "learned") -> Response:
        """The items most similar to an item."""
        return await ask("similar", {"item": item, "k": k, "by": by})

    @app.post("/similar/picture", response_model=SimilarItems, **options)
    async def similar_to_picture(picture: UploadFile, k: Length = 10, by: By = "picture") -> Response:
        """The items most similar to a picture."""
        return await ask("similar-to-picture", {"k": k, "by": by}, picture)

    @app.post("/score/picture", response_model=PictureScore, **options)
    async def score_picture(picture: UploadFile, user: str) -> Response:
        """What a picture would score for a user, as an item that nobody has bought."""
        return await ask("score-picture", {"user": user}, picture)

    return app


def serve(
    run: Path,
    *,
    host: str = LOOPBACK,
    port: int = 8000,
    token: str | None = None,
    workers: int = 2,
    root: Moved = None,
    pictures: bool = False,
) -> None:
    """Serve a run over HTTP until the process is told to stop (Ctrl-C, SIGTERM).

    Args:
        run: the folder of a finished run, or a link to it. A run that takes its place is served as soon as it is open,
            without a pause.
        host: the address to listen at; by default this machine alone can ask.
        port: 0 takes any that is free.
        token: what requests must carry; None makes one and prints it.
        workers: processes that answer, each with the model and its data in memory.
        root, pictures: see `open_trained`.

    Raises:
        InputError: no finished run, its data cannot be opened, or the address cannot be listened at.
    """
    if workers < 1:
        raise InputError(f"workers must be at least 1, not {workers}.")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(
            _serve(Pool(run, workers, root=root, pictures=pictures), host, port, token or secrets.token_urlsafe(24))
        )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        raise InputError(f"{host}:{port} cannot be listened at ({error}): choose another port or host.") from None
    # asyncio sets this for sockets that it makes itself. Without it the second part of an answer, its body, may wait
    # for 40 ms until the client has confirmed the first. Connections inherit it.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


async def _serve(pool: Pool, host: str, port: int, token: str) -> None:
    listening = _listen(host, port)
    try:
        await pool.start()
        place = f"[{host}]" if ":" in host else host
        address = f"http://{place}:{listening.getsockname()[1]}"
        print(f"open {address}/docs, with the token {token}", flush=True)
        config = uvicorn.Config(create_app(pool, token), log_config=None, log_level="warning", access_log=False)
        await uvicorn.Server(config).serve(sockets=[listening])
    finally:
        await pool.close()
        listening.close()
