"""A worker of the server: a process that holds one opened run and answers one question after another.

`python -m imgrec_lib.serving.worker DESCRIPTOR ARGUMENTS` talks over an open socket, see `messages`; the arguments are
those of `open_trained`, as JSON. It first says which run it holds, or why it cannot, and ends when the other side of
the socket is gone, however that ended.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import socket
import sys
import threading

import torch

from imgrec_lib.errors import InputError
from imgrec_lib.serving.answers import answer
from imgrec_lib.serving.messages import HEADER, packed
from imgrec_lib.serving.trained import Trained, open_trained

OK, BAD_INPUT, FAILED = 200, 422, 500


def main() -> None:
    """Open the run, then answer until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which then ends its workers
    descriptor, arguments = sys.argv[1:]
    torch.set_num_threads(1)  # the workers are the threads
    with socket.socket(fileno=int(descriptor)) as channel, channel.makefile("rb") as stream:
        threading.Thread(target=_end_with_the_server, args=[channel], daemon=True).start()
        try:
            trained = open_trained(**json.loads(arguments), progress=False)
            about = answer(trained, "model", {})
            _warm(trained)
        except InputError as error:
            _send(channel, BAD_INPUT, {"detail": str(error)})
            return
        _send(channel, OK, about)
        while header := stream.read(HEADER.size):
            text_length, picture_length = HEADER.unpack(header)
            question = json.loads(stream.read(text_length))
            _send(channel, *_answered(trained, question, stream.read(picture_length)))


def _end_with_the_server(channel: socket.socket) -> None:
    """End the process, which may be in the middle of opening a large run, if the server is gone before it asks."""
    if not channel.recv(1, socket.MSG_PEEK):
        os._exit(0)


def _warm(trained: Trained) -> None:
    """Make what the first questions would wait for: the scorer, indices of ids, compiled loops."""
    answer(trained, "recommend", {"user": trained.dataset.user_ids[0], "k": 1})
    _ = trained.items, trained.learned
    gc.freeze()  # what is here stays: a collection that goes through all of it would make a question wait


def _answered(trained: Trained, question: dict[str, object], picture: bytes) -> tuple[int, dict[str, object]]:
    name = str(question.pop("name"))
    try:
        return OK, answer(trained, name, question, picture)
    except InputError as error:
        return BAD_INPUT, {"detail": str(error)}
    except Exception:
        logging.getLogger("imgrec").exception("question %r failed", name)
        return FAILED, {"detail": "this question could not be answered: the server's log says why."}


def _send(channel: socket.socket, status: int, content: dict[str, object]) -> None:
    channel.sendall(packed(content, status.to_bytes(2)))


if __name__ == "__main__":
    try:
        main()
    except (BrokenPipeError, ConnectionResetError):
        sys.exit(0)
