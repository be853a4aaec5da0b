"""The whole cluster from this node: every node's standing in every fileset."""

from __future__ import annotations

from instep.panel.feed import StandingRowDocument
from instep.panel.pages.visit import PAGE, Page, Visit

EMPTY = StandingRowDocument("", "", "", "", "", "", "unknown", "", "", "", "")
"""A row without values: the script fills copies of it."""


async def overview(visit: Visit) -> Page:
    """Rows that are not in step come first, and are shown alone where there are any and nothing else is asked for."""
    rows = list((await visit.feed.rows(visit.caller)).values())
    troubled = [row for row in rows if row.standing != "in_step"]
    show = visit.query("show") or ("troubled" if troubled else "all")
    wanted = visit.query("q").lower()
    chosen = troubled if show == "troubled" else rows
    if wanted:
        chosen = [
            row for row in chosen if wanted in f"{row.fileset} {row.node} {row.standing} {row.reason}".lower()
        ]
    first, shown = visit.page_of(chosen)
    context = {
        "rows": shown, "total": len(rows), "troubled": len(troubled), "chosen": len(chosen),
        "show": show, "empty": EMPTY, "q": visit.query("q"), "first": first, "page": PAGE,
    }  # fmt: skip
    return Page("overview.html", "Overview", context, same=("instep status --watch",), is_live=True)
