"""Values as the pages show them. Names, messages and outputs of others stay text: one line, nothing hidden in it."""

from __future__ import annotations

import base64
import datetime as dt
import unicodedata
from urllib.parse import quote

from msgspec import UNSET

from instep.api.looking import ChangeDocument

STANDINGS = frozenset(
    {
        "in_step", "behind", "applying", "held", "blocked", "failing", "drifted", "damaged", "observing", "paused",
        "unreachable", "unknown",
    }
)  # fmt: skip
_SHAPES = {
    "in_step": "●", "behind": "◐", "applying": "◑", "held": "▮", "paused": "▮", "observing": "○", "blocked": "■",
    "failing": "▲", "drifted": "◆", "damaged": "✖", "unreachable": "✕", "unknown": "?",
}  # fmt: skip


def visible(value: object) -> str:
    """Control characters, marks of direction and other characters that show nothing are written out; a terminal, a page
    and a mail then show the same."""
    if value is None:
        return ""
    text = str(value)
    return "".join(c if c in "\n\t" or _shows(c) else f"\\u{ord(c):04x}" for c in text)


def _shows(character: str) -> bool:
    return unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")


def path_b64(change: ChangeDocument) -> str:
    """The exact path of a change for a link."""
    return (
        base64.b64encode(change.path.encode()).decode() if change.path_b64 is UNSET else str(change.path_b64)
    )


def line_of(value: object) -> str:
    """The first line."""
    return visible(value).strip().partition("\n")[0]


def standing_class(standing: object) -> str:
    """One of a fixed list, whatever another node says."""
    return f"s-{standing}" if standing in STANDINGS else "s-unknown"


def shape(standing: object) -> str:
    """A shape beside the word and the colour: none of them alone carries the meaning."""
    return _SHAPES.get(str(standing), "?")


def spoken(standing: object) -> str:
    return visible(standing).replace("_", " ")


def moment(iso: object) -> str:
    """To the second, with its time zone named."""
    text = visible(iso)
    return f"{text[:10]} {text[11:19]} UTC" if len(text) >= 20 and text[10] == "T" else text


def sized(count: object) -> str:
    """Bytes in the unit that leaves few digits."""
    if not isinstance(count, int):
        return ""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def segment(name: object) -> str:
    """A name as one segment of a path: links are built here and nowhere from data."""
    return quote(str(name), safe="")


def now_iso() -> str:
    return now_iso_in(0)


def now_iso_in(days: int) -> str:
    """This moment, or the same one in some days."""
    at = dt.datetime.now(dt.UTC) + dt.timedelta(days=days)
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")
