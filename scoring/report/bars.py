"""Stacked bars of time, as HTML: every part has a colour and a pattern of its own, named in a legend."""

from collections.abc import Iterable, Mapping

from timetrial.scoring.report.markup import Html, html, join, keys, name


def bar_legend(names: Mapping[str, str]) -> Html:
    """`names`: what each part is called, by its class in the style sheet."""
    return keys((Html(f'<span class="swatch {part}"></span>'), text) for part, text in names.items())


def segment(part: str, share: float, title: str, attributes: str = "") -> Html:
    """A part of a bar, `share` of the page's longest bar wide."""
    return Html(
        f'<span class="{part}"{attributes} style="width:{100 * share:.4f}%" title="{html(title)}"></span>'
    )


def bar(label: object, segments: Iterable[Html], total: object, attributes: str = "") -> Html:
    return Html(
        f'<div class="bars"{attributes}><span>{name(label)}</span><div class="bar">{join(segments)}</div>'
        f'<span class="wall">{html(total)}</span></div>'
    )
