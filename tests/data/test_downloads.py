"""Downloading pictures from a server on loopback that stalls, cuts short, redirects and lies."""

from __future__ import annotations

import io
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from commands import call
from PIL import Image

from imgrec_lib import InputError, load_dataset
from imgrec_lib.data import downloads
from imgrec_lib.data.downloads import download_pictures, is_public


def picture(kind: str, size: int = 40) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((size, size), 90).convert("RGB").save(buffer, kind)
    return buffer.getvalue()


JPEG, PNG = picture("JPEG"), picture("PNG")


class Server(ThreadingHTTPServer):
    """Answers by the first part of a path, and remembers what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("0.0.0.0", 0), Handler)
        self.asked: list[str] = []
        self.hosts: list[str] = []
        self.at_once = self.most_at_once = 0
        self.counting = threading.Lock()
        self.open = threading.Event()

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.server_address[1]}/{path}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, what = self.server, self.path.strip("/").split("/")[0].split("?")[0]
        with server.counting:
            server.asked.append(self.path)
            server.hosts.append(self.headers["host"])
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
        try:
            self.answer(what)
        except OSError:
            pass  # the client went away
        finally:
            with server.counting:
                server.at_once -= 1

    def answer(self, what: str) -> None:
        place = {"redirect": "/jpeg/1", "loop": self.path, "file": "file:///etc/passwd", "nowhere": ""}.get(what)
        if what == "private":
            place = self.server.url("jpeg", "127.0.0.2")
        if place is not None:
            return self.send(b"", status=302, location=place)
        times = Counter(path.strip("/").split("/")[0] for path in self.server.asked)
        if what == "busy" and times["busy"] < 3:
            return self.send(b"", status=503, **{"retry-after": "0"})
        if what == "missing":
            return self.send(b"", status=404)
        if what == "page":
            return self.send(b"<html>", kind="text/html; charset=utf-8")
        if what == "garbage":
            return self.send(b"no picture at all")
        if what == "svg":
            return self.send(b"<svg xmlns='http://www.w3.org/2000/svg'/>", kind="image/svg+xml")
        if what == "short":  # it announces more than it sends
            return self.send(PNG[:-20], length=len(PNG))
        if what == "long":  # it announces less than it sends
            return self.send(PNG, length=len(PNG) - 20)
        if what == "cut":  # no length is announced, and the connection ends in the middle
            return self.send(PNG[: len(PNG) // 2], length=None)
        if what == "unsaid":
            return self.send(PNG, length=None)
        if what == "huge":
            return self.send(b"", length=10**9)
        if what == "endless":
            return self.send(b"x" * 300_000, length=None)
        if what == "stall":
            self.send(PNG[:50], length=len(PNG))
            self.server.open.wait(5)
            return None
        if what == "slow":
            time.sleep(0.05)
        return self.send(JPEG if what != "png" else PNG)

    def send(
        self, body: bytes, *, status: int = 200, kind: str = "image/jpeg", length: Any = 0, **headers: str
    ) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        if length is not None:
            self.send_header("content-length", str(length or len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(downloads, "BACKOFF", 0.005)
    serving = Server()
    thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield serving
    serving.open.set()
    serving.shutdown()
    thread.join()
    serving.server_close()


OPTIONS: dict[str, Any] = {"private": True, "timeout": 0.4, "per_second": 1000.0, "attempts": 2, "progress": False}


def reasons(table: pd.DataFrame) -> dict[str, str]:
    return dict(zip(table["item"], table["reason"], strict=True))


def test_what_is_whole_appears_and_the_rest_is_listed(server: Server, tmp_path: Path) -> None:
    good = ["jpeg", "png", "redirect", "busy", "unsaid"]
    bad = {
        "missing": "answers 404", "page": "it is text/html, and no picture", "garbage": "no whole picture",
        "svg": "no whole picture", "short": "", "long": "no whole picture", "cut": "no whole picture",
        "huge": "more than 200,000 bytes", "endless": "more than 200,000 bytes", "stall": "",
        "loop": "redirected more than 5 times", "file": "no address of http or https",
        "nowhere": "redirected more than 5 times",
    }  # fmt: skip
    addresses = {name: [server.url(name)] for name in [*good, *bad]}
    addresses["no-host"] = ["http://host.invalid/a.jpg"]
    addresses["ftp"] = ["ftp://127.0.0.1/a.jpg"]
    addresses["user"] = [server.url("jpeg").replace("//", "//me:secret@")]
    addresses["a/b:c"] = [server.url("jpeg/ü b?x=ü 1")]
    found = download_pictures(addresses, tmp_path, largest=200_000, **OPTIONS | {"attempts": 3})
    assert found.done == len(good) + 1 and found.there == 0
    failed = reasons(found.failed)
    assert failed.keys() == {*bad, "no-host", "ftp", "user"}
    for name, reason in bad.items():
        assert failed[name] and reason in failed[name], (name, failed[name])
    assert "there is no host host.invalid" in failed["no-host"] and "may not name a user" in failed["user"]
    pictures = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix in (".jpg", ".png")}
    assert pictures == {
        "jpeg.jpg": JPEG, "png.png": PNG, "redirect.jpg": JPEG, "busy.jpg": JPEG, "unsaid.png": PNG,
        "a%2Fb%3Ac.jpg": JPEG,
    }  # fmt: skip
    listed = pd.read_csv(tmp_path / "failed.csv")
    assert set(listed["item"]) == failed.keys() and listed["address"].str.contains("://").all()
    assert "/jpeg/%C3%BC%20b?x=%C3%BC%201" in server.asked


def test_a_download_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    addresses = {"a": [server.url("jpeg/a"), server.url("png/a2")], "b": [server.url("missing/b")]}
    first = download_pictures(addresses, tmp_path, most=2, **OPTIONS)
    assert (first.done, first.there, len(first.failed)) == (2, 0, 1)
    assert sorted(path.name for path in tmp_path.glob("a*")) == ["a.jpg", "a_2.png"]
    # A run that was killed leaves a line cut short, and what it was writing.
    with open(tmp_path / downloads.RECORD, "a") as record:
        record.write('\n{"item": "b", "pict')  # a line begins with its break, so the one before is whole
    (tmp_path / "own.webp").write_bytes(b"the owner's own")
    (tmp_path / "a_2.png").unlink()
    server.asked.clear()
    moved = addresses | {"b": [server.url("png/b")], "own": [server.url("jpeg/own")]}
    second = download_pictures(moved, tmp_path, most=2, **OPTIONS)
    assert (second.done, second.there, len(second.failed)) == (2, 2, 0)
    assert sorted(server.asked) == ["/png/a2", "/png/b"]
    assert pd.read_csv(tmp_path / "failed.csv").empty
    assert downloads._known(tmp_path).keys() == {
        ("a", 1),
        ("a", 2),
        ("b", 1),
    }  # no line was joined to the one cut short
    server.asked.clear()
    assert download_pictures(moved, tmp_path, most=2, **OPTIONS).there == 4 and server.asked == []
    # Another address is another picture, and the one of the former format goes.
    third = download_pictures(moved | {"b": [server.url("jpeg/new")]}, tmp_path, most=2, **OPTIONS)
    assert third.done == 1 and [path.name for path in tmp_path.glob("b.*")] == ["b.jpg"]
    with pytest.raises(InputError, match=r"no addresses of pictures: .* whose option image_column names"):
        download_pictures({}, tmp_path)


def test_connections_and_rate_are_bounded(server: Server, tmp_path: Path) -> None:
    addresses = {str(k): [server.url(f"slow/{k}")] for k in range(12)}
    began = time.monotonic()
    found = download_pictures(addresses, tmp_path, **OPTIONS | {"connections": 3, "per_second": 40.0})
    assert found.done == 12 and server.most_at_once <= 3
    assert time.monotonic() - began >= 11 / 40


@pytest.mark.parametrize(
    ("number", "public"),
    [
        ("93.184.216.34", True), ("127.0.0.1", False), ("10.1.2.3", False), ("192.168.0.1", False),
        ("169.254.169.254", False), ("100.64.0.1", False), ("0.0.0.0", False), ("224.0.0.1", False),
        ("255.255.255.255", False), ("2606:2800:220:1:248:1893:25c8:1946", True), ("::1", False), ("fe80::1", False),
        ("fd00::1", False), ("::ffff:127.0.0.1", False), ("::ffff:93.184.216.34", True), ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False), ("ff02::1", False), ("::", False),
    ],
)  # fmt: skip
def test_public_addresses(number: str, public: bool) -> None:
    assert is_public(number) is public


def test_only_public_hosts_are_asked(server: Server, tmp_path: Path) -> None:
    port = server.server_address[1]
    hosts = ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "127.1"]
    addresses = {str(k): [f"http://{host}:{port}/jpeg"] for k, host in enumerate(hosts)}
    found = download_pictures(addresses, tmp_path, **OPTIONS | {"private": False})
    assert found.done == 0 and server.asked == []
    assert all("is not public" in reason or "there is no host" in reason for reason in found.failed["reason"])


def test_neither_a_redirection_nor_a_second_answer_leads_to_a_private_host(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here 127.0.0.1 plays a public address, and 127.0.0.2 a private one."""
    answers = iter(["127.0.0.1", "127.0.0.2"])
    looked_up: list[str] = []
    genuine = socket.getaddrinfo

    def lookup(host: Any, *arguments: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name == "rebound.example":
            looked_up.append(name)
            return genuine(next(answers), *arguments, **options)
        return genuine(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    monkeypatch.setattr(downloads, "is_public", lambda number: number == "127.0.0.1")
    options = OPTIONS | {"private": False, "connections": 1}
    found = download_pictures({"a": [server.url("private")]}, tmp_path, **options)
    assert "the host 127.0.0.2 is not public (127.0.0.2)" in reasons(found.failed)["a"]
    assert server.asked == ["/private"]
    first = download_pictures({"b": [server.url("jpeg", "rebound.example")]}, tmp_path, **options)
    # One look-up, and the connection went to what it found; the host is called by its name.
    assert first.done == 1 and looked_up == ["rebound.example"] and server.hosts[-1].startswith("rebound.example")
    second = download_pictures({"c": [server.url("jpeg", "rebound.example")]}, tmp_path, **options)
    assert "the host rebound.example is not public (127.0.0.2)" in reasons(second.failed)["c"]


def test_records_name_no_file_elsewhere(server: Server, tmp_path: Path) -> None:
    """A record that somebody else wrote cannot make a download delete or trust a file outside its folder."""
    folder = tmp_path / "images"
    folder.mkdir()
    outside = tmp_path / "outside.png"
    outside.write_bytes(PNG)
    line = {"item": "a", "picture": 1, "address": server.url("jpeg/a"), "file": "../outside.png"}
    (folder / downloads.RECORD).write_text(json.dumps(line) + "\n")
    assert download_pictures({"a": [server.url("jpeg/a")]}, folder, **OPTIONS).done == 1
    assert outside.read_bytes() == PNG and (folder / "a.jpg").read_bytes() == JPEG


def test_from_the_command_line_to_a_dataset_with_pictures(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "".join(f"u{u},{item}\n" for u in range(3) for item in "abc")
    (tmp_path / "interactions.csv").write_text("user,item\n" + rows)
    table = pd.DataFrame({"item": ["a", "b", "c"], "image_url": [
        json.dumps([server.url("jpeg/1"), server.url("png/2")]), server.url("missing"), "",
    ]})  # fmt: skip
    table.to_csv(tmp_path / "items.csv", index=False)
    command = ["pictures", "table", "--root", str(tmp_path), "-o", "min_interactions=3", "--most", "2", "--quiet"]
    status, _, err = call(monkeypatch, capsys, *command)
    assert status == 1 and "3 failed: see" in err and server.asked == []
    monkeypatch.setattr(downloads, "is_public", lambda number: True)
    status, out, err = call(monkeypatch, capsys, *command)
    assert status == 0 and "2 pictures were downloaded to" in out and "1 failed: see" in err
    with pytest.warns(UserWarning, match="2 of 3 items have no usable picture|1 further pictures"):
        dataset = load_dataset("table", tmp_path, min_interactions=3, image_size=8, progress=False)
    assert [len(dataset.pictures_of(row)) for row in range(3)] == [2, 0, 0]
