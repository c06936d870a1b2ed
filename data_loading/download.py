"""Fetching one pinned file over HTTP: resumed where it broke off, checked, renamed into place whole."""

import base64
import http.client
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from timetrial.data_loading.checksum import sha256_of
from timetrial.engine.clock import sleep
from timetrial.engine.errors import DataError

CHUNK_BYTES = 1 << 20
TIMEOUT_SECONDS = 60
PAUSES_SECONDS = (1.0, 4.0, 15.0)  # before the second, third and fourth attempt
TRANSIENT = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)

# Called with (file name, bytes so far, bytes in all or None) after every chunk. A command line that shows
# progress sets it; preparing a workload's data has no argument for it.
Progress = Callable[[str, int, int | None], None]
progress: ContextVar[Progress | None] = ContextVar("progress", default=None)


def download(url: str, path: Path, sha256: str) -> Path:
    """Make `path` the file of this checksum, fetching it unless it is there; returns `path`.

    What an interrupted fetch left in `path`.part is continued. DataError where the server refuses, stays
    unreachable, or sends a file of another checksum.
    """
    if path.is_file() and sha256_of(path) == sha256:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    _fetch(url, part)
    found = sha256_of(part)
    if found != sha256:
        part.unlink()
        raise DataError(f"{shown(url)} has sha256 {found}, not {sha256}; the mirror serves another file")
    return part.replace(path)


def read_text(url: str) -> tuple[str, str]:
    """A small page: its text, and its address after redirection. DataError as `download`."""
    try:
        with _open(url, {}) as response:
            # Where credentials were in the address, relative links need them too: keep it unless redirected.
            here = response.geturl()
            return response.read().decode(), url if shown(url) == here else here
    except TRANSIENT as error:
        raise DataError(f"cannot read {shown(url)}: {error}") from error


def shown(url: str) -> str:
    """The address without the user name and password that it may hold."""
    parts = urllib.parse.urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _fetch(url: str, part: Path) -> None:
    """Complete `part`, in several attempts."""
    for pause in (*PAUSES_SECONDS, None):
        try:
            return _attempt(url, part)
        except urllib.error.HTTPError as error:
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                part.unlink(missing_ok=True)
            elif error.code < 500:
                raise DataError(f"{shown(url)} is refused: {error}") from error
            failure: Exception = error
        except TRANSIENT as error:
            failure = error
        if pause is None:
            raise DataError(f"cannot fetch {shown(url)}: {failure}") from failure
        sleep(pause)


def _attempt(url: str, part: Path) -> None:
    """One request for what is missing; a server that ignores the range sends the whole file anew."""
    have = part.stat().st_size if part.is_file() else 0
    with _open(url, {"Range": f"bytes={have}-"} if have else {}) as response:
        if getattr(response, "status", None) != http.client.PARTIAL_CONTENT:
            have = 0
        length = response.headers.get("Content-Length")
        total = None if length is None else have + int(length)
        report, name = progress.get(), part.name.removesuffix(".part")
        with part.open("ab" if have else "wb") as file:
            while chunk := response.read(CHUNK_BYTES):
                file.write(chunk)
                have += len(chunk)
                if report is not None:
                    report(name, have, total)
    if total is not None and have < total:
        raise ConnectionError(f"the connection closed after {have} of {total} bytes")


def _open(url: str, headers: dict[str, str]) -> Any:
    parts = urllib.parse.urlsplit(url)
    request = urllib.request.Request(shown(url), headers=headers)
    if parts.username is not None:
        pair = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        # Not repeated to a host that the server redirects to.
        request.add_unredirected_header("Authorization", f"Basic {base64.b64encode(pair.encode()).decode()}")
    try:
        return urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()  # an answer with a body of its own
        raise
