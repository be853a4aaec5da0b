"""A session of commands as a picture of a terminal: SVG text, so that it is sharp, small and can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Typed", "terminal_picture"]

_CHARACTER, _LINE, _EDGE, _TOP = 7.8, 19, 18, 46
_COLUMNS_MIN = 72
_FONT = "ui-monospace, 'DejaVu Sans Mono', 'Liberation Mono', Menlo, Consolas, monospace"
_WORDS = {"IN STEP": "good", "NOT IN STEP": "bad", "BLOCKED": "bad", "next:": "hint"}


@dataclass(frozen=True)
class Typed:
    """One command as it was typed on a node, and everything that it printed."""

    node: str
    command: str
    printed: str


def terminal_picture(title: str, session: Sequence[Typed]) -> str:
    """The session as one SVG document; the same session gives the same bytes."""
    rows: list[str] = []
    for typed in session:
        rows.append(
            f'<tspan class="node">{escape(typed.node)}$</tspan> <tspan class="typed">{escape(typed.command)}</tspan>'
        )
        rows += [_coloured(line) for line in typed.printed.rstrip("\n").split("\n") if line]
        rows.append("")
    lines = [typed.command for typed in session] + [
        line for one in session for line in one.printed.split("\n")
    ]
    width = round(2 * _EDGE + _CHARACTER * max(_COLUMNS_MIN, *(len(line) + 8 for line in lines)))
    height = _TOP + _LINE * (len(rows) - 1) + _EDGE
    texts = "\n".join(
        f'  <text x="{_EDGE}" y="{_TOP + 12 + _LINE * at}" xml:space="preserve">{row}</text>'
        for at, row in enumerate(rows)
        if row
    )
    buttons = "".join(f'<circle cx="{_EDGE + 18 * at}" cy="18" r="5.5" fill="#475569"/>' for at in range(3))
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img"
     aria-labelledby="title" font-family="{_FONT}" font-size="13">
  <title id="title">{escape(title)}</title>
  <style>
    text {{ fill: #cbd5e1 }} .node {{ fill: #7dd3fc }} .typed {{ fill: #ffffff; font-weight: bold }}
    .good {{ fill: #86efac }} .bad {{ fill: #fca5a5 }} .hint {{ fill: #fde68a }}
  </style>
  <rect width="{width}" height="{height}" rx="10" fill="#0f172a"/>
  {buttons}
{texts}
</svg>
"""


def _coloured(line: str) -> str:
    word = next((word for word in sorted(_WORDS, key=len, reverse=True) if word in line), None)
    if word is None:
        return escape(line)
    before, _, after = line.partition(word)
    return f'{escape(before)}<tspan class="{_WORDS[word]}">{escape(word)}</tspan>{escape(after)}'
