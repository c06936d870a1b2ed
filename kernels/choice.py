"""What a kernel may choose: a few ways to launch one of its functions, of which a GPU likes one best.

The first option, chosen on an H200, is taken until `timetrial tune` has measured all of them on a GPU
(`tuning_torch.py`) and kept the fastest in a file of that GPU and this version of Triton, which each later process on
such a GPU reads. No process measures by itself: what a race takes is decided before it begins, and its record says what
that was.
"""

import functools
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Literal

import msgspec

from timetrial.kernels.used import note_option

Option = tuple[int, ...]
Kept = dict[str, dict[str, list[int]]]  # name of a choice, then size of an element in bytes, to an option

_folder: Path | None = None


class KeptFile(msgspec.Struct):
    """What a file of tuned options holds."""

    options: Kept


@dataclass(frozen=True, kw_only=True, eq=False)
class Choice:
    """Options of one launch, by the size of an element in bytes; what their numbers mean, the kernel's file says."""

    kernel: str
    launch: str
    passes: Literal["forward", "both"]  # what must run for it to be seen
    options: Mapping[int, tuple[Option, ...]]
    _tried: dict[int, Option] = field(default_factory=dict, init=False)

    @property
    def name(self) -> str:
        """In files and tables."""
        return f"{self.kernel}.{self.launch}"

    def __getitem__(self, element_size: int) -> Option:
        """The option in force: that which is being tried, or this GPU's, or the first."""
        option = self._tried.get(element_size) or self._kept(element_size) or self.options[element_size][0]
        note_option(self.kernel, self.launch, element_size, option)
        return option

    def _kept(self, element_size: int) -> Option | None:
        """None too for what another version's file has and this one does not offer."""
        option = tuple(kept().get(self.name, {}).get(str(element_size), ()))
        return option if option in self.options[element_size] else None

    @contextmanager
    def trying(self, element_size: int, option: Option) -> Iterator[None]:
        """This option is in force meanwhile."""
        self._tried[element_size] = option
        try:
            yield
        finally:
            del self._tried[element_size]


@contextmanager
def trying_each_nth(choices: tuple[Choice, ...], n: int) -> Iterator[None]:
    """The n-th option of every choice is in force meanwhile, the last where there are fewer."""
    with ExitStack() as stack:
        for choice in choices:
            for element_size, options in choice.options.items():
                stack.enter_context(choice.trying(element_size, options[min(n, len(options) - 1)]))
        yield


def most_options(choices: tuple[Choice, ...]) -> int:
    """Of any of them; 1 if there are none."""
    return max((len(options) for choice in choices for options in choice.options.values()), default=1)


def keep_in(folder: Path) -> None:
    """Files of tuned options lie there, from now on."""
    global _folder
    _folder = folder
    kept.cache_clear()


def file_of_this_gpu(folder: Path) -> Path:
    """Named after the GPU and Triton's version, either of which decides what is fastest."""
    import torch

    gpu = torch.cuda.get_device_name().replace(" ", "_")
    return folder / f"{gpu}_triton_{metadata.version('triton')}.json"


@functools.cache
def kept() -> Kept:
    """The tuned options of this process's GPU; nothing where there is none or where it was not tuned."""
    import torch

    if _folder is None or not torch.cuda.is_available():
        return {}
    path = file_of_this_gpu(_folder)
    return read(path) if path.exists() else {}


def read(path: Path) -> Kept:
    """The options in a file. ValueError if it is damaged."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=KeptFile).options
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} does not hold tuned options of kernels: remove it, or let `timetrial tune` write it anew"
        ) from error
