"""Which kernels this process used, in which form and launched how: what the record of a race says of them."""

_uses: dict[str, dict[str, None]] = {}  # dictionaries keep the order in which things came first


def note_form(kernel: str, why_plain: str | None) -> None:
    """`kernel` was called: fused, or plain, and why."""
    _note(kernel, "fused" if why_plain is None else f"plain: {why_plain}")


def note_option(kernel: str, launch: str, element_size: int, option: tuple[int, ...]) -> None:
    """A launch of `kernel` took this option (`choice.py`) for elements of so many bytes."""
    _note(kernel, f"{launch}, {element_size} bytes: {' '.join(map(str, option))}")


def uses() -> dict[str, list[str]]:
    """What is noted of each kernel so far, each thing once; of compiled code, what was found when it was traced."""
    return {kernel: list(noted) for kernel, noted in _uses.items()}


def _note(kernel: str, what: str) -> None:
    _uses.setdefault(kernel, {})[what] = None
