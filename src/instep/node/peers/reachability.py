"""Whether a token could work at all: a node that no peer can reach, or that admits no peer, prints none.

See docs/decisions/loopback-first.md.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from instep.errors import RefusedError
from instep.node.config.settings import Settings
from instep.node.config.values import IpNetwork


def is_covered(allowed: Sequence[IpNetwork], wanted: IpNetwork) -> bool:
    """Whether ``wanted`` may connect as things are; an empty list means loopback."""
    if not allowed:
        return wanted.is_loopback
    for one in allowed:
        low, high = wanted.network_address, wanted.broadcast_address
        if one.version == wanted.version and low in one and high in one:
            return True
    return False


def check_invitation(
    settings: Settings, names: Sequence[str], source: IpNetwork | None, directory: Path
) -> None:
    """``RefusedError`` with the command to type when tokens for ``names`` could not work.

    A loopback address works for nodes of this machine. The operator says that they are meant by ``--from
    127.0.0.1``, by a network of ``allow`` that is loopback, or by writing ``advertise`` herself.
    """
    listen, advertise = settings.listen, settings.advertise
    where = shlex.quote(str(directory))
    typed = " ".join(["instep", "--dir", where, "invite", *names])
    opens = f"instep --dir {where} node set-address {settings.name} HOST:PORT"
    is_local = (
        (source is not None and source.is_loopback)
        or any(network.is_loopback for network in settings.allow)
        or settings.is_advertise_written
    )
    facts = {"listen": str(listen), "advertise": str(advertise)}
    if advertise.is_wildcard:
        raise RefusedError(
            f"{advertise} cannot be dialled",
            hint=f"{opens}, then: {typed}",
            code="wildcard_address",
            **facts,
        )
    if listen.is_loopback and not advertise.is_loopback:
        raise RefusedError(
            f"this node listens on {listen}, so no peer can reach {advertise}",
            hint=f"instep --dir {where} node set-address {settings.name} {advertise}, then: {typed}",
            code="loopback_address",
            **facts,
        )
    if advertise.is_loopback and not is_local:
        raise RefusedError(
            f"this node is reached at {advertise} only, so a token would work on this machine alone",
            hint=f"for a node on this machine: {typed} --from 127.0.0.1; for others: {opens}",
            code="loopback_address",
            **facts,
        )
    if not advertise.is_loopback and not settings.allow and source is None:
        raise RefusedError(
            "peers may connect from this machine only: allow is empty",
            hint=f"{typed} --from ADDR, or: instep allow add CIDR",
            code="address_not_allowed",
            allow=[],
        )
