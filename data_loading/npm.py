"""Files of npm packages, read straight from the configured registry: no npm client is needed or run."""

import os
import re
from pathlib import Path

from timetrial.data_loading.download import download

# What npm itself uses where nothing is configured.
DEFAULT_REGISTRY = "https://registry.npmjs.org/"
REGISTRY_LINE = re.compile(r"^\s*registry\s*=\s*[\"']?([^\"'\s]+)", re.MULTILINE)


def registry() -> str:
    """The registry's address: `npm_config_registry`, else the user's .npmrc, else npm's own default."""
    environment = {name.lower(): value for name, value in os.environ.items() if value}
    if configured := environment.get("npm_config_registry"):
        return configured
    user_file = Path(environment.get("npm_config_userconfig", Path.home() / ".npmrc"))
    if user_file.is_file() and (line := REGISTRY_LINE.search(user_file.read_text())):
        return os.path.expandvars(line[1])
    return DEFAULT_REGISTRY


def fetch_tarball(package: str, version: str, sha256: str, folder: Path) -> Path:
    """The tarball of one version (its files lie under `package/`), in `folder`. DataError as `download`."""
    file_name = f"{package}-{version}.tgz"
    return download(f"{registry().rstrip('/')}/{package}/-/{file_name}", folder / file_name, sha256)
