"""HTML in pieces: finished markup is `Html`, and every other text is escaped on its way into the page."""

import re
from collections.abc import Iterable, Sequence
from html import escape

MISSING = "-"


class Html(str):
    """Finished markup. Only literals of this package and what `html` returned may go into one."""


def html(value: object) -> Html:
    """The value as markup: as it is if it is `Html`, else its text, escaped."""
    return value if isinstance(value, Html) else Html(escape(str(value)))


def join(parts: Iterable[object], separator: str = "") -> Html:
    return Html(separator.join(html(part) for part in parts))


def name(value: object) -> Html:
    """A name from the logs, which may break after an underscore or a slash where there is no room."""
    return value if isinstance(value, Html) else Html(re.sub(r"([_/])(?=.)", r"\1<wbr>", html(value)))


def paragraph(*sentences: object) -> Html:
    """An explanation; sentences that are empty are left out."""
    return Html(f"<p>{join((part for part in sentences if part), ' ')}</p>")


def note(*sentences: object) -> Html:
    """What is to be said below a table or a plot, smaller; nothing if all sentences are empty."""
    text = join((part for part in sentences if part), " ")
    return Html(f'<p class="note">{text}</p>') if text else Html()


def heading(text: object) -> Html:
    return Html(f"<h3>{html(text)}</h3>")


def figure(title: object, content: Html, kind: str = "") -> Html:
    """A plot below its title."""
    css = f' class="{kind}"' if kind else ""
    return Html(f"<figure{css}><h4>{name(title)}</h4>{content}</figure>")


def figures(parts: Iterable[Html], kind: str) -> Html:
    """Figures side by side, as many in a row as there is room for. `kind`: plots, small or heats."""
    return Html(f'<div class="{kind}">{join(parts, chr(10))}</div>')


def keys(samples: Iterable[tuple[Html, object]]) -> Html:
    """A legend: samples and what they stand for."""
    items = join(Html(f"<li>{sample}<span>{name(text)}</span></li>") for sample, text in samples)
    return Html(f'<ul class="keys">{items}</ul>')


def definitions(items: Iterable[tuple[object, object]]) -> Html:
    """Terms and what is to be said of each."""
    rows = join(Html(f"<dt>{html(term)}</dt><dd>{html(text)}</dd>") for term, text in items)
    return Html(f'<dl class="facts">{rows}</dl>')


def folded(summary: str, content: Html) -> Html:
    """The content behind a line that opens it."""
    return Html(f"<details><summary>{html(summary)}</summary>{content}</details>")


def counted(number: int, noun: str, plural: str = "") -> str:
    """Such as "1 study", "1,200 trials"."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def listed(names: Sequence[object]) -> str:
    """Such as "a", "a and b", "a, b and c"."""
    texts = [str(text) for text in names]
    return " and ".join(filter(None, [", ".join(texts[:-1]), *texts[-1:]]))
