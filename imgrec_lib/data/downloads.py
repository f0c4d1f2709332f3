"""Pictures downloaded from the addresses of an item table: politely, from public hosts alone, whole or not at all."""

from __future__ import annotations

import asyncio
import io
import ipaddress
import json
import socket
import time
import warnings
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import httpcore
import pandas as pd
from PIL import Image

from imgrec_lib import __version__
from imgrec_lib.data.decoding import FORMATS, MAX_BYTES, MAX_PIXELS
from imgrec_lib.data.pictures import file_name_of, list_pictures
from imgrec_lib.errors import InputError, one_line
from imgrec_lib.files import locked, make_folder, remove_abandoned, replacing
from imgrec_lib.options import Count, Positive
from imgrec_lib.progress import progress_bar

SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif"}
"""Endings of the files by what Pillow calls their formats; of others it is the format's name."""
HEADERS: dict[bytes | str, bytes | str] = {
    "user-agent": f"imgrec/{__version__} (pictures of a catalogue)",
    "accept": "image/*",
    "accept-encoding": "identity",
}
ANY_BYTES = ("application/octet-stream", "binary/octet-stream")
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

REDIRECTS = 5
LONGEST_NAME = 200
"""Bytes of a file's name."""
BUSY = frozenset({429, 500, 502, 503, 504})
"""Answers after which it is worth to ask again."""
BACKOFF = 0.5
"""Seconds before a picture is asked for again, which double with each attempt."""
LONGEST_WAIT = 60.0
"""Seconds that a busy host may ask to wait."""
RECORD, FAILED = "downloads.jsonl", "failed.csv"

Wanted = tuple[str, int, str]
"""An item, the number of its picture, from 1, and the address."""
Known = dict[tuple[str, int], tuple[str, str]]
"""Address and file of what was downloaded, by item and number."""


@dataclass(frozen=True)
class Downloads:
    """What a download left behind.

    Attributes:
        done: pictures that were downloaded.
        there: pictures that had been downloaded before.
        failed: columns `item`, `picture` (its number, from 1), `address` and `reason` of those that failed.
    """

    done: int
    there: int
    failed: pd.DataFrame


class _Refused(Exception):
    """A picture that is not had; the message says why, and `wait` in how many seconds it may be had, if ever."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


def download_pictures(
    addresses: Mapping[str, Sequence[str]],
    folder: str | Path,
    *,
    most: Count = 1,
    connections: Count = 8,
    per_second: Positive = 20.0,
    timeout: Positive = 30.0,
    attempts: Count = 3,
    largest: Count = MAX_BYTES,
    private: bool = False,
    progress: bool = True,
) -> Downloads:
    """Download the pictures of items, named after them: `X.jpg`, further ones `X_2.jpg`, `X_3.jpg`, ...

    What is there is not asked for again, so a download that was stopped goes on; what failed is asked for again, and
    listed in `failed.csv` of the folder. A file appears when it is whole: its length is the announced one, and Pillow
    reads it as a picture.

    Only http and https addresses are followed, to public hosts: a name is looked up once, all that it stands for must
    be public, and the connection is made to what was looked up, so that a second answer cannot lead elsewhere; the same
    holds for every redirection. No proxy of the environment is used, which would look names up by itself.

    Args:
        addresses: of each item's pictures, its first one first.
        folder: where they go.
        most: pictures of an item, at most.
        connections: open at a time.
        per_second: requests a second, at most.
        timeout: seconds without a byte, and for ten times as long a picture may take in all.
        attempts: how often a picture is asked for where the host is busy or the connection breaks.
        largest: bytes of a picture, at most.
        private: whether hosts that are not public are asked too, such as one's own server.
        progress: whether to show a progress bar.

    Raises:
        InputError: there is no address, or the folder cannot be written to.
    """
    wanted = [
        (item, number, address)
        for item, listed in addresses.items()
        for number, address in enumerate(list(listed)[:most], 1)
    ]
    if not wanted:
        raise InputError(
            "there are no addresses of pictures: they come from an item table that is read by 'table', whose option "
            "image_column names their column, or by 'amazon2023'."
        )
    folder = Path(folder)
    make_folder(folder)
    fetcher = _Fetcher(folder, connections, per_second, timeout, attempts, largest, private)
    with locked(folder / RECORD):
        remove_abandoned(folder)
        known = _known(folder)
        own = {path.stem for path in list_pictures(folder)} - {Path(file).stem for _, file in known.values()}
        missing = [each for each in wanted if not _is_there(folder, known, own, *each)]
        failed = _run(fetcher.fetch(missing, known, progress))
    table = pd.DataFrame(failed, columns=["item", "picture", "address", "reason"])
    with replacing(folder / FAILED) as temporary:
        table.to_csv(temporary, index=False)
    return Downloads(len(missing) - len(failed), len(wanted) - len(missing), table)


def _run(work: Coroutine[Any, Any, list[tuple[str, int, str, str]]]) -> list[tuple[str, int, str, str]]:
    """Run to its end in a thread of its own: notebooks have a loop that runs already."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


def _known(folder: Path) -> Known:
    """What was downloaded before. A line that was cut short does not count."""
    known = {}
    with suppress(FileNotFoundError):
        for line in (folder / RECORD).read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError, KeyError, TypeError):
                found = json.loads(line)
                known[str(found["item"]), int(found["picture"])] = str(found["address"]), str(found["file"])
    return known


def _is_there(folder: Path, known: Known, own: set[str], item: str, number: int, address: str) -> bool:
    """Whether a picture lies in the folder: downloaded from this address, or put there by somebody else."""
    before, file = known.get((item, number), ("", ""))
    if before:
        return before == address and Path(file).name == file and (folder / file).is_file()
    return file_name_of(item) + (f"_{number}" if number > 1 else "") in own


class _Fetcher:
    """One download, with its limits."""

    def __init__(
        self,
        folder: Path,
        connections: int,
        per_second: float,
        timeout: float,
        attempts: int,
        largest: int,
        private: bool,
    ) -> None:
        self.folder, self.timeout, self.attempts, self.largest = folder, timeout, attempts, largest
        self.connections, self.pause, self.next_turn = connections, 1 / per_second, 0.0
        self.network = _PublicNetwork(private)

    async def fetch(self, wanted: Sequence[Wanted], known: Known, progress: bool) -> list[tuple[str, int, str, str]]:
        """Download pictures; those that failed, and why, in the order in which they were wanted."""
        reasons: dict[int, str] = {}
        todo = iter(enumerate(wanted))
        with (
            open(self.folder / RECORD, "a", encoding="utf-8") as record,
            progress_bar(total=len(wanted), desc="pictures", unit="picture", disable=not progress) as bar,
        ):
            async with httpcore.AsyncConnectionPool(
                max_connections=self.connections, keepalive_expiry=5.0, network_backend=self.network
            ) as pool:

                async def work() -> None:
                    for place, (item, number, address) in todo:
                        try:
                            file = await self._download(pool, item, number, address)
                        except _Refused as refusal:
                            reasons[place] = str(refusal)
                        else:
                            before = known.get((item, number), ("", file))[1]
                            if before != file:  # the picture was of another format, and would be a second one
                                (self.folder / Path(before).name).unlink(missing_ok=True)
                            line = {"item": item, "picture": number, "address": address, "file": file}
                            record.write("\n" + json.dumps(line))  # the line before may have been cut short
                            record.flush()
                        bar.update()

                async with asyncio.TaskGroup() as group:
                    for _ in range(min(self.connections, len(wanted))):
                        group.create_task(work())
        return [(*wanted[place], reasons[place]) for place in sorted(reasons)]

    async def _download(self, pool: httpcore.AsyncConnectionPool, item: str, number: int, address: str) -> str:
        """Download one picture, several times where that may help; the name of its file."""
        stem = _stem(item, number)
        for attempt in range(1, self.attempts + 1):
            try:
                async with asyncio.timeout(10 * self.timeout):
                    data = await self._content(pool, address)
                suffix = await asyncio.to_thread(_checked, data)
                break
            except _Refused as refusal:
                if refusal.wait is None or attempt == self.attempts:
                    raise
                await asyncio.sleep(max(refusal.wait, BACKOFF * 2**attempt))
            except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, TimeoutError) as error:
                if attempt == self.attempts:
                    raise _Refused(_in_words(error)) from None
                await asyncio.sleep(BACKOFF * 2**attempt)
            except (httpcore.UnsupportedProtocol, ValueError, OSError) as error:
                raise _Refused(_in_words(error)) from None
        with replacing(self.folder / f"{stem}{suffix}") as temporary:
            temporary.write_bytes(data)
        return f"{stem}{suffix}"

    async def _content(self, pool: httpcore.AsyncConnectionPool, address: str) -> bytes:
        """What lies at an address, after its redirections."""
        for _ in range(REDIRECTS + 1):
            url = _checked_address(address)
            await self._turn()
            times = dict.fromkeys(("connect", "read", "write", "pool"), self.timeout)
            async with pool.stream("GET", url, headers=HEADERS, extensions={"timeout": times}) as response:
                headers = {name.lower(): value.decode("latin-1") for name, value in response.headers}
                if response.status in (301, 302, 303, 307, 308):
                    address = urljoin(address, headers.get(b"location", ""))
                    continue
                if response.status != 200:
                    wait = _seconds(headers.get(b"retry-after", "")) if response.status in BUSY else None
                    raise _Refused(f"the host answers {response.status}", wait)
                kind = headers.get(b"content-type", "").partition(";")[0].strip().lower()
                if kind and not kind.startswith("image/") and kind not in ANY_BYTES:
                    raise _Refused(f"it is {kind}, and no picture")
                if int(headers.get(b"content-length", 0)) > self.largest:
                    raise _Refused(f"it has more than {self.largest:,} bytes")
                parts, size = [], 0
                async for part in response.aiter_stream():
                    size += len(part)
                    if size > self.largest:
                        raise _Refused(f"it has more than {self.largest:,} bytes")
                    parts.append(part)
                return b"".join(parts)
        raise _Refused(f"it is redirected more than {REDIRECTS} times")

    async def _turn(self) -> None:
        """Wait until another request may be sent."""
        now = time.monotonic()
        self.next_turn = max(self.next_turn, now)
        wait, self.next_turn = self.next_turn - now, self.next_turn + self.pause
        await asyncio.sleep(wait)


class _PublicNetwork(httpcore.AsyncNetworkBackend):
    """Connections to hosts all of whose addresses are public.

    A name is looked up here, once for each connection, and the connection is made to what was found: no later answer
    of a name server can lead it elsewhere.
    """

    def __init__(self, private: bool) -> None:
        self.private, self.network = private, httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        loop = asyncio.get_running_loop()
        try:
            found = await asyncio.wait_for(loop.getaddrinfo(host, port, type=socket.SOCK_STREAM), timeout)
        except OSError:
            raise _Refused(f"there is no host {host}") from None
        numbers = list(dict.fromkeys(str(address[0]).partition("%")[0] for *_, address in found))
        if not self.private:
            for number in numbers:
                if not is_public(number):
                    raise _Refused(f"the host {host} is not public ({number})")
        problem: Exception = _Refused(f"there is no host {host}")
        for number in numbers:
            try:
                return await self.network.connect_tcp(number, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                problem = error
        raise problem

    async def connect_unix_socket(self, *arguments: Any, **options: Any) -> httpcore.AsyncNetworkStream:
        raise _Refused("it is no address of a public host")

    async def sleep(self, seconds: float) -> None:
        await self.network.sleep(seconds)


def is_public(number: str) -> bool:
    """Whether an IP address is one of the public internet, and so is what it stands for in another form.

    IPv6 addresses may hold one of IPv4, to which a gateway may lead: mapped ones, 6to4, Teredo and NAT64.
    """
    address = ipaddress.ip_address(number)
    if isinstance(address, ipaddress.IPv6Address):
        inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if address in NAT64:
            inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if address.ipv4_mapped is not None:
            return is_public(str(address.ipv4_mapped))
        if not all(is_public(str(each)) for each in inner if each is not None):
            return False
    return address.is_global and not address.is_multicast


def _checked_address(address: str) -> str:
    """The address in ASCII; refused where it is none of http or https, or names a user."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise _Refused("it is no address of http or https")
    if parts.username is not None or parts.password is not None:
        raise _Refused("an address may not name a user")
    host = parts.hostname.encode("idna").decode() if not parts.hostname.isascii() else parts.hostname
    host = f"[{host}]" if ":" in host else host
    port = f":{parts.port}" if parts.port else ""
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    query = f"?{quote(parts.query, safe='/%:@!$&()*+,;=~-._?')}" if parts.query else ""
    return f"{parts.scheme}://{host}{port}{path}{query}"


def _checked(data: bytes) -> str:
    """The ending for the file of a picture, which is decoded whole; refused where it is none."""
    Image.init()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=[name for name in FORMATS if name in Image.OPEN])
            if image.width * image.height > MAX_PIXELS:
                raise _Refused(f"it has more than {MAX_PIXELS:,} pixels")
            image.load()
        if not _has_its_end(data, str(image.format)):
            raise _Refused("it is no whole picture (its end is missing)", 0.0)
    except _Refused:
        raise
    # Pillow's decoders raise nearly anything on damaged data, of which a transfer that was cut short is one kind.
    except Exception as error:
        raise _Refused(f"it is no whole picture ({one_line(error)[:100]})", 0.0) from None
    return SUFFIXES.get(str(image.format), f".{str(image.format).lower()}")


def _has_its_end(data: bytes, kind: str) -> bool:
    """Whether an encoded picture ends as its format says: Pillow does without the last bytes of some."""
    if kind == "PNG":
        return b"IEND" in data
    if kind in ("JPEG", "MPO"):
        return data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda")  # the end of the picture behind the start of a scan
    if kind == "WEBP":
        return len(data) >= 8 + int.from_bytes(data[4:8], "little")
    return kind != "GIF" or data.rstrip(b"\0").endswith(b";")


def _stem(item: str, number: int) -> str:
    stem = file_name_of(item) + (f"_{number}" if number > 1 else "")
    if len(stem.encode()) > LONGEST_NAME:
        raise _Refused("the item's id is too long for the name of a file")
    return stem


def _seconds(text: str) -> float:
    """What a host asks to wait, bounded; a date counts as nothing."""
    return min(float(text), LONGEST_WAIT) if text.strip().isdigit() else 0.0


def _in_words(error: BaseException) -> str:
    return one_line(error)[:200] or type(error).__name__
