"""The picture: one panel a row, one bar a tool, drawn by hand as SVG so that nothing has to be installed for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

__all__ = ["Panel", "draw"]

_LABEL, _BAR, _NUMBER, _LINE = 170, 420, 150, 20
_WIDTH = _LABEL + _BAR + _NUMBER
_CLIP = 3.0
_STYLE = """
text{font:12px system-ui,sans-serif;fill:#222}.title{font-weight:600;font-size:13px}.small{font-size:11px;fill:#666}
.us{fill:#1f7a5c}.peer{fill:#8a94a6}.floor{fill:#cfd4dc}.synced{fill-opacity:.35}.back{fill:#fff}.mark{stroke:#c33;stroke-dasharray:3 3}
@media(prefers-color-scheme:dark){text{fill:#ddd}.small{fill:#999}.back{fill:#16191d}.floor{fill:#4a505a}.us{fill:#3fb98f}}
"""


@dataclass(frozen=True)
class Panel:
    """``bars``: label, seconds as is, seconds with the sync, whether it is instep, whether it is a floor."""

    title: str
    bars: tuple[tuple[str, float, float | None, bool, bool], ...]
    reference: float | None


def draw(panels: Sequence[Panel], caption: str) -> str:
    """Bars are linear within a panel; one longer than three times rsync over ssh is cut, with an arrow, its number told."""
    body: list[str] = []
    y = 46
    for panel in panels:
        body.append(f'<text class="title" x="8" y="{y}">{escape(panel.title)}</text>')
        y += 8
        body += _bars(panel, y)
        y += _LINE * len(panel.bars) + 26
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{y + 8}" viewBox="0 0 {_WIDTH} {y + 8}" role="img">'
        f'<style>{_STYLE}</style><rect class="back" width="100%" height="100%"/>'
        '<text class="small" x="8" y="16">Seconds, less is better. Full bar: as is; pale: with sync -f of the target. '
        "Dashed: rsync over ssh. Arrow: cut.</text>"
        f'<text class="small" x="8" y="{y}">{escape(caption)}</text>'
    )
    return head + "\n".join(body) + "</svg>\n"


def _bars(panel: Panel, top: int) -> list[str]:
    longest = max(max(wall, synced or 0.0) for _, wall, synced, _, _ in panel.bars)
    full = min(longest, panel.reference * _CLIP) if panel.reference else longest
    drawn = []
    for line, (label, wall, synced, is_us, is_floor) in enumerate(panel.bars):
        y = top + line * _LINE
        kind = "us" if is_us else "floor" if is_floor else "peer"
        total = max(wall, synced or 0.0)
        drawn.append(f'<text x="{_LABEL - 8}" y="{y + 14}" text-anchor="end">{escape(label)}</text>')
        for seconds, style in ((total, f"{kind} synced"), (wall, kind)):
            length = max(2.0, _BAR * min(1.0, seconds / full))
            drawn.append(f'<rect class="{style}" x="{_LABEL}" y="{y + 3}" width="{length:.1f}" height="14"/>')
        cut = "\u25b8 " if total > full * 1.001 else ""
        number = f"{cut}{_short(wall)}" + (f" / {_short(synced)}" if synced is not None else "")
        at = _LABEL + max(2.0, _BAR * min(1.0, total / full)) + 6
        drawn.append(f'<text x="{at:.1f}" y="{y + 14}">{number}</text>')
    if panel.reference:
        x = _LABEL + _BAR * panel.reference / full
        drawn.append(
            f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{top + _LINE * len(panel.bars)}"/>'
        )
    return drawn


def _short(seconds: float) -> str:
    return (
        f"{seconds * 1e3:.0f} ms" if seconds < 0.1 else f"{seconds:.2f}" if seconds < 10 else f"{seconds:.0f}"
    )
