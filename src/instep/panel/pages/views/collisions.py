"""Collisions: the list, one of them with both sides, and its review."""

from __future__ import annotations

from urllib.parse import urlencode

from instep.api.changes.collisions import (
    CollisionsListCommand,
    CollisionsReviewedCommand,
    CollisionsShowCommand,
)
from instep.panel.pages.visit import PAGE, Page, Visit


async def collisions(visit: Visit) -> Page:
    """Those that no person has reviewed, or all of them."""
    fileset, is_all = visit.query("fileset"), bool(visit.query("all"))
    told = await visit.ask(CollisionsListCommand(fileset=fileset or None, all=is_all))
    first, shown = visit.page_of(told.collisions)
    asked = {"fileset": fileset, **({"all": "on"} if is_all else {})}
    context = {
        "collisions": shown, "fileset": fileset, "all": is_all, "first": first, "page": PAGE,
        "total": len(told.collisions), "query": urlencode(asked), "left_out": told.left_out,
        "not_asked": told.not_asked, "may": visit.may,
    }  # fmt: skip
    same = (f"instep collisions list {fileset}".strip(), "instep collisions list --all")
    return Page("collisions.html", "Collisions", context, same=same)


async def collision(visit: Visit) -> Page:
    collision_id, fileset = visit.found["id"], visit.query("fileset") or None
    told = await visit.ask(CollisionsShowCommand(id=collision_id, fileset=fileset))
    context = {"one": told, "may": visit.may}
    same = (f"instep collisions show {collision_id}", f"instep collisions reviewed {collision_id}")
    return Page("collision.html", f"Collision {collision_id}", context, same=same)


async def reviewed(visit: Visit) -> str:
    await visit.ask(CollisionsReviewedCommand(id=visit.field("id"), fileset=visit.field("fileset") or None))
    return "/collisions"
