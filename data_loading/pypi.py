"""Files of Python packages, read straight from the configured simple index: nothing is installed or built."""

import configparser
import os
import sys
import urllib.parse
from html.parser import HTMLParser
from pathlib import Path

from timetrial.data_loading.download import download, read_text, shown
from timetrial.engine.errors import DataError

# What pip itself uses where nothing is configured.
DEFAULT_INDEX = "https://pypi.org/simple/"
MACHINE_FILE = Path("/etc/pip.conf")


def indexes() -> list[str]:
    """The addresses of pip's index and extra indexes: from the environment, else from pip's files."""
    configured = _configured()
    extra = os.environ.get("PIP_EXTRA_INDEX_URL") or configured.get("extra-index-url", "")
    return [os.environ.get("PIP_INDEX_URL") or configured.get("index-url", DEFAULT_INDEX), *extra.split()]


def fetch_file(package: str, file_name: str, sha256: str, folder: Path) -> Path:
    """One file of the package, in `folder`. DataError where no index links to it, and as `download`."""
    unread = []
    for index in indexes():
        try:
            address = _link(index, package, file_name)
        except DataError as error:
            unread.append(str(error))
            continue
        if address is not None:
            return download(address, folder / file_name, sha256)
    where = ", ".join(shown(index) for index in indexes())
    raise DataError("; ".join([f"no index of {where} has {file_name}", *unread]))


def _configured() -> dict[str, str]:
    """pip's settings for all commands; the later file wins: machine, user, environment."""
    home = Path.home()
    user = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    files = [
        Path("/etc/pip.conf"),
        home / ".pip/pip.conf",
        user / "pip/pip.conf",
        Path(sys.prefix, "pip.conf"),
    ]
    if named := os.environ.get("PIP_CONFIG_FILE"):
        files.append(Path(named))
    parser = configparser.RawConfigParser()
    try:
        parser.read(files)
    except configparser.Error as error:
        raise DataError(f"pip's configuration cannot be read: {error}") from error
    return dict(parser["global"]) if parser.has_section("global") else {}


class _Links(HTMLParser):
    """Collects `href` of every anchor of a simple index page (PEP 503)."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.targets += [value for name, value in attrs if tag == "a" and name == "href" and value]


def _link(index: str, package: str, file_name: str) -> str | None:
    """The address of a file on the package's page, or None where the page does not list it."""
    page = f"{index.rstrip('/')}/{package}/"
    text, base = read_text(f"{page}index.html" if page.startswith("file:") else page)
    links = _Links()
    links.feed(text)
    for target in links.targets:
        address = urllib.parse.urldefrag(urllib.parse.urljoin(base, target)).url
        if urllib.parse.unquote(urllib.parse.urlsplit(address).path).endswith(f"/{file_name}"):
            return address
    return None
