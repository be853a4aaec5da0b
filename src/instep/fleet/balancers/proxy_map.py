"""The lines that make a security proxy in front send an application's path to the balancer (G13):
``geoserver=URL``, as in geOrchestra's ``targets-mapping.properties``. The rest of that file belongs to others and
stays."""

from __future__ import annotations

import re
from collections.abc import Sequence

from instep.errors import RefusedError
from instep.fleet.balancers.plan import BalancerPlan, DoorKind, require_writable

_KEY = re.compile(r"[ \t\f]*((?:[^=: \t\f\\]|\\.)+)[ \t\f]*[=:]?")


def targets(plans: Sequence[BalancerPlan]) -> dict[str, str]:
    """First part of the path to the URL at the balancer. ``RefusedError`` for an application that has no path, or whose
    address in the balancer no proxy could dial."""
    found: dict[str, str] = {}
    for plan in plans:
        require_writable(plan)
        service = next((s for s in plan.services if s.kind is DoorKind.HTTP), plan.services[0])
        at = plan.front or service.listen
        paths = [path.strip("/") for path in plan.paths if path.strip("/")]
        if not paths or at.is_wildcard:
            missing = "paths" if not paths else "front"
            what = "no path of its own" if not paths else f"only {at}, which cannot be dialled"
            raise RefusedError(
                f"balancer {plan.name} has {what}, so no proxy in front can be pointed at it",
                hint=f"set {missing} in [balancers.{plan.name}]",
                code="no_target",
                balancer=plan.name,
            )
        scheme = "https" if service.kind is DoorKind.HTTPS else "http"
        for path in paths:
            found[path] = f"{scheme}://{at}/{path}/"
    return found


def proxy_map(plans: Sequence[BalancerPlan]) -> str:
    return "".join(f"{key}={url}\n" for key, url in sorted(targets(plans).items()))


def merged(text: str, plans: Sequence[BalancerPlan]) -> str:
    """The file with the lines of these applications set: each of them once, in its old place or at the end."""
    left = targets(plans)
    ours = dict(left)
    rows: list[str] = []
    is_continued = is_dropping = False
    for row in text.splitlines():
        if is_continued:
            if not is_dropping:
                rows.append(row)
        else:
            key = _key(row)
            is_dropping = key in ours
            if not is_dropping:
                rows.append(row)
            elif key in left:
                rows.append(f"{key}={left.pop(key)}")
        stripped = row.rstrip("\\")
        is_comment = not is_continued and row.lstrip()[:1] in ("#", "!")
        is_continued = (len(row) - len(stripped)) % 2 == 1 and not is_comment
    rows += [f"{key}={url}" for key, url in sorted(left.items())]
    return "\n".join(rows) + "\n"


def _key(row: str) -> str:
    if row.lstrip()[:1] in ("#", "!", ""):
        return ""
    found = _KEY.match(row)
    return re.sub(r"\\(.)", r"\1", found[1]) if found is not None else ""
