"""The nodes and their links, events, checks, the audit, and access."""

from __future__ import annotations

from urllib.parse import urlencode

from msgspec import UNSET

from instep.api.access import (
    AuditCommand,
    CertificateListCommand,
    SessionListCommand,
    TokenListCommand,
    UserListCommand,
)
from instep.api.command import Role
from instep.api.filesets import FilesetListCommand
from instep.api.looking import EventsCommand
from instep.api.members import NodeListCommand, NodeMapCommand, PartnerListCommand
from instep.api.verifying import CheckCommand
from instep.panel.pages.drawing import draw
from instep.panel.pages.visit import PAGE, Page, Visit
from instep.panel.pages.words import now_iso_in

SOON_DAYS = 14
"""A certificate that ends within these is marked."""


async def map_of_nodes(visit: Visit) -> Page:
    told = await visit.ask(NodeMapCommand())
    context = {"drawing": draw(told), "links": told.links}
    return Page("map.html", "Map", context, same=("instep node map",))


async def nodes(visit: Visit) -> Page:
    told = await visit.ask(NodeListCommand())
    partners = await visit.ask(PartnerListCommand())
    context = {"nodes": told.nodes, "partners": partners.partners, "may": visit.may, "unset": UNSET}
    same = ("instep node list", "instep node drain --reason TEXT", "instep partner list")
    return Page("nodes.html", "Nodes", context, same=same)


async def events(visit: Visit) -> Page:
    """Newest first; the first page of all of them gets later ones by itself."""
    q, fileset, only = visit.query("q"), visit.query("fileset"), bool(visit.query("warnings"))
    told = await visit.ask(EventsCommand())
    chosen = [
        one
        for one in reversed(told.events)
        if (not only or one["level"] == "warning")
        and (not fileset or one["fileset"] == fileset)
        and q.lower() in f"{one['what']} {one['text']}".lower()
    ]
    first, shown = visit.page_of(chosen)
    asked = {"q": q, "fileset": fileset, **({"warnings": "on"} if only else {})}
    empty = {"at": "", "what": "", "fileset": "", "text": "", "level": "info"}
    context = {
        "events": shown, "q": q, "fileset": fileset, "warnings": only, "first": first, "page": PAGE,
        "total": len(chosen), "query": urlencode(asked), "empty": empty,
        "fresh": first == 0 and not (q or fileset or only),
    }  # fmt: skip
    return Page("events.html", "Events", context, same=("instep events --follow",), is_live=True)


async def checks(visit: Visit) -> Page:
    told = await visit.ask(CheckCommand())
    context = {"ok": told.ok, "checks": sorted(told.checks, key=lambda one: one.ok), "took": told.took_ms}
    return Page("checks.html", "Checks", context, same=("instep check",))


async def keys(visit: Visit) -> Page:
    told = await visit.ask(CertificateListCommand())
    soon = now_iso_in(SOON_DAYS)
    return Page(
        "keys.html", "Keys", {"told": told, "soon": soon}, same=("instep pki list", "instep pki renew")
    )


async def audit(visit: Visit) -> Page:
    told = await visit.ask(AuditCommand(before=visit.number("before")))
    return Page("audit.html", "Audit", {"rows": told.rows, "before": told.before}, same=("instep audit",))


async def access(visit: Visit) -> Page:
    """Everyone sees the own rights here, and admins of all filesets all of them."""
    is_admin = visit.caller.role is Role.ADMIN and visit.caller.filesets is None
    context: dict[str, object] = {"is_admin": is_admin}
    if is_admin:
        context |= {
            "users": (await visit.ask(UserListCommand())).users,
            "tokens": (await visit.ask(TokenListCommand())).tokens,
            "sessions": (await visit.ask(SessionListCommand())).sessions,
            "roles": [role.value for role in Role],
            "filesets": [one.name for one in (await visit.ask(FilesetListCommand())).filesets],
        }
    return Page(
        "access.html",
        "Access",
        context,
        same=("instep user list", "instep token list", "instep panel sessions"),
    )
