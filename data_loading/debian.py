"""Packages of Debian, fetched from the mirror that apt uses: nothing is installed, and apt is neither needed nor run.

A suite's files change, if seldom: the mirror's `Release` names the sha256 of its index, the index that of the package,
which proves an unbroken transfer and not the content; whoever reads the package checks what it found.
"""

import lzma
import os
import re
from collections.abc import Iterator
from pathlib import Path

from timetrial.data_loading.download import download, read_text, shown
from timetrial.engine.errors import DataError

MIRROR_VARIABLE = "TIMETRIAL_DEBIAN_MIRROR"  # the address that holds `dists` and `pool`; goes before apt's
APT_FOLDER = Path("/etc/apt")
INDEX = "main/binary-amd64/Packages.xz"  # it lists what is for all architectures too
ONE_LINE = re.compile(r"^\s*deb\s+(?:\[[^\]]*\]\s+)?(?P<addresses>\S+)")
STANZA_LINE = re.compile(r"^URIs:(?P<addresses>.*)$", re.IGNORECASE)
READABLE = ("http://", "https://", "file:")


def mirrors() -> list[str]:
    """The addresses of the Debian mirror: `TIMETRIAL_DEBIAN_MIRROR`, else all of apt's sources."""
    if configured := os.environ.get(MIRROR_VARIABLE):
        return [configured]
    return list(dict.fromkeys(address for address in _of_apt() if address.startswith(READABLE)))


def fetch_package(package: str, suite: str, folder: Path) -> Path:
    """The file of a package in the suite's section main, in `folder`, under its name on the mirror.

    DataError where no mirror has it, and as `download`.
    """
    missed = []
    for mirror in mirrors():
        try:
            name, sha256 = _listed(package, _index(mirror, suite, folder))
        except DataError as error:
            missed.append(str(error))
            continue
        return download(f"{mirror.rstrip('/')}/{name}", folder / name.rpartition("/")[2], sha256)
    where = ", ".join(shown(mirror) for mirror in mirrors()) or "apt's sources"
    problem = f"no Debian mirror in {where} has {package} of {suite}; {MIRROR_VARIABLE} may name another one"
    raise DataError("; ".join([problem, *missed]))


def _of_apt() -> Iterator[str]:
    """The addresses in apt's lists of sources, of both of their formats."""
    for path in (APT_FOLDER / "sources.list", *sorted((APT_FOLDER / "sources.list.d").glob("*"))):
        pattern = {".list": ONE_LINE, ".sources": STANZA_LINE}.get(path.suffix)
        if pattern is not None and path.is_file():
            for line in path.read_text(errors="replace").splitlines():
                if match := pattern.match(line):
                    yield from match["addresses"].split()


def _index(mirror: str, suite: str, folder: Path) -> str:
    """The list of the suite's packages, fetched unless the one in `folder` is the mirror's."""
    root = f"{mirror.rstrip('/')}/dists/{suite}"
    release, _ = read_text(f"{root}/Release")
    stated = re.search(rf"^ ([0-9a-f]{{64}}) +\d+ {re.escape(INDEX)}$", release, re.MULTILINE)
    if stated is None:
        raise DataError(f"{shown(root)}/Release does not state the sha256 of {INDEX}")
    path = download(f"{root}/{INDEX}", folder / f"{suite}-Packages.xz", stated[1])
    return lzma.decompress(path.read_bytes()).decode()


def _listed(package: str, index: str) -> tuple[str, str]:
    """Where on the mirror a package is, and its sha256. DataError where it is not listed."""
    for stanza in re.split(r"\n\n+", index):
        if stanza.startswith(f"Package: {package}\n"):
            fields = dict(re.findall(r"^(Filename|SHA256): (.+)$", stanza, re.MULTILINE))
            if len(fields) == 2:
                return fields["Filename"], fields["SHA256"]
    raise DataError(f"its index does not list {package}")
