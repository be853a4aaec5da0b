"""Members: invitations, partners, certificates, facts, and the preflight."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from instep.errors import NotAllowedError, RefusedError, UnavailableError
from instep.model.ids import NodeName, node_name
from instep.model.link import Link
from instep.net.client import split_address
from instep.net.messages import DRAIN_MS_MAX
from instep.net.tls import trust_fetch
from instep.node.checking import check_node
from instep.node.config import edits
from instep.node.control import Command, Params, Speaker
from instep.node.draining import OPERATOR, REASON_MAX
from instep.node.driver import wall_ms
from instep.node.facts import told
from instep.node.snapshot import moment, reports_of

if TYPE_CHECKING:
    from instep.node.daemon import Daemon

__all__ = ["commands"]

FETCH_S = 10.0
FACTS_S = 20.0
DRAIN_S = 10.0
OF_A_FILESET = ("path", "mount", "service", "access")


def commands(daemon: Daemon) -> Mapping[str, Command]:
    members = Members(daemon)
    return {
        "invite": members.invite,
        "partner_list": members.partner_list,
        "partner_add": members.partner_add,
        "partner_resend": members.partner_resend,
        "node_list": members.node_list,
        "node_facts": members.node_facts,
        "revoke": members.revoke,
        "renew": members.renew,
        "check": members.check,
        "drain": members.drain,
        "undrain": members.undrain,
    }


class Members:
    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    async def invite(self, params: Params, speaker: Speaker) -> Mapping[str, Any]:
        link = Link(
            replicate=bool(params.get("replicate", True)),
            data=bool(params.get("data", True)),
            hub=bool(params.get("hub", False)),
        )
        name = node_name(str(params["name"]))
        ttl_ms = int(float(params.get("ttl_s") or 3_600.0) * 1000)
        invited = self._daemon.membership.invite(name, link, ttl_ms)
        return {
            "token": invited.token,
            "expires_at": moment(invited.expires_at_ms),
            "address": invited.address,
        }

    # Partners -------------------------------------------------------------------------------------------------

    async def partner_list(self, params: Params, speaker: Speaker) -> Mapping[str, Any]:
        daemon = self._daemon
        rows: list[dict[str, Any]] = []
        for name, partner in sorted(daemon.runtime.settings.partners.items()):
            session = daemon.peers.sessions.get(name)
            uplink = daemon.peers.uplinks.get(name)
            is_up = session is not None or (uplink is not None and uplink.is_up)
            reason = None
            if not is_up and uplink is not None and uplink.error is not None:
                reason = uplink.error.reason
            elif not is_up:
                reason = f"{name} has not connected"
            rows.append(
                {
                    "name": name,
                    "address": self._address(name),
                    "replicate": partner.link.replicate,
                    "data": partner.link.data,
                    "hub": partner.link.hub,
                    "last_checked": moment(self._last_checked(name)),
                    "reachable": is_up,
                    "reason": reason,
                }
            )
        return {"partners": rows}

    def _address(self, name: NodeName) -> str | None:
        partner = self._daemon.runtime.settings.partners.get(name)
        if partner is not None and partner.address is not None:
            return str(partner.address)
        member = self._daemon.membership.members.get(name)
        return member.address or None if member is not None else None

    def _last_checked(self, name: NodeName) -> int | None:
        daemon = self._daemon
        uplink = daemon.peers.uplinks.get(name)
        moments = [uplink.last_heard_ms] if uplink is not None and uplink.last_heard_ms is not None else []
        for service in daemon.services.values():
            report = reports_of(daemon.runtime.store, service.line).get(name)
            if report is not None:
                moments.append(report.at_ms)
        if name in daemon.peers.sessions:
            moments.append(daemon.peers.sessions[name].last_heard_ms)
        return max(moments, default=None)

    async def partner_add(self, params: Params, speaker: Speaker) -> Mapping[str, Any]:
        """Pin a node of another cluster: its certificate is fetched and must have the fingerprint that was typed."""
        daemon = self._daemon
        name = node_name(str(params["name"]))
        address, pin = str(params["address"]), str(params["pin"]).lower().replace(":", "")
        host, port = split_address(address)
        async with asyncio.timeout(FETCH_S):
            chain = await asyncio.to_thread(trust_fetch, host, port, server_name=name)
        if chain.pin != pin:
            raise NotAllowedError(
                f"{address} shows the fingerprint {chain.pin}, not {pin}",
                hint=f"compare with: instep node list, on {name}",
                code="wrong_pin",
                shown=chain.pin,
                typed=pin,
            )
        daemon.pki.pin_partner(name, chain.certificates[0])
        given = {"address": address, "pin": pin, **_flags(params)}
        changed = edits.set_partner(daemon.directory, name, given)
        await daemon.trust_changed()
        if changed:
            daemon.reload()
        return {"name": name, "address": address, "pin": pin, "changed": changed}

    async def partner_resend(self, params: Params, speaker: Speaker) -> Mapping[str, Any]:
        name = node_name(str(params["name"]))
        session = self._daemon.peers.sessions.get(name)
        if session is None:
            raise UnavailableError(
                f"{name} is not connected", hint=f"on {name}: instep status", code="not_connected", node=name
            )
        heads = session.resend()
        return {"name": name, "changed": True, "heads": heads}

    # Nodes ----------------------------------------------------------------------------------------------------

    async def node_list(self, params: Params, speaker: Speaker) -> Mapping[str, Any]:
        daemon = self._daemon
        me = daemon.membership.me()
        rows: list[dict[str, Any]] = [
            {
                "name": me.name,
                "self": True,
                "address": me.address,
                "pin": me.pin,
                "facts": await self._own_facts(),
                "standing": self._own_standing(),
                "drained": daemon.runtime.draining.is_drained,
            }
        ]
        known = set(daemon.membership.members) | set(daemon.runtime.settings.partners)
        for name in sorted(known - {me.name}):
            member = daemon.membership.members.get(name)
            rows.append(
                {
                    "name": name,
                    "self": False,
                    "address": self._address(name),
                    "pin": member.pin or None if member is not None else None,
                    "facts": {},
                    "standing": self._standing(name),
                    "drained": bool(member and member.serving and member.serving.is_drained),
                }
            )
        return {"nodes": rows}

    def _own_standing(self) -> str:
        from instep.model.standing import Standing

        order = list(Standing)
        standings = [service.standing.standing for service in self._daemon.services.values()]
        return max(standings, key=order.index, default=Standing.IN_STEP).value

    def _standing(self, name: NodeName) -> str:
        from instep.model.standing import Standing

        daemon = self._daemon
        order = list(Standing)
        found: list[Standing] = []
        for service in daemon.services.values():
            report = reports_of(daemon.runtime.store, service.line).get(name)
            if report is not None:
                found.append(report.standing.standing)
        uplink = daemon.peers.uplinks.get(name)
        is_up = name in daemon.peers.sessions or (uplink is not None and uplink.is_up)
        if not is_up:
            return (
                Standing.UNREACHABLE.value
                if name in daemon.runtime.settings.partners
                else Standing.UNKNOWN.value
            )
        return max(found, key=order.index, default=Standing.IN_STEP).value

    async def node_facts(self, params: Params, speaker: Speaker) -> Mapping[str, Any]:
        node = params.get("node")
        me = self._daemon.runtime.name
        if node is not None and node != me:
            return {"node": node, "facts": await self._facts_of_partner(NodeName(str(node)))}
        return {"node": me, "facts": await self._own_facts()}

    async def _own_facts(self) -> dict[str, str]:
        """Under this daemon's key: a fingerprint equals one that a partner tells this node."""
        runtime = self._daemon.runtime
        return told(await runtime.facts.of_node(runtime.settings), runtime.facts.key)

    async def _facts_of_partner(self, name: NodeName) -> dict[str, str]:
        """What a connected partner tells about the filesets that are written here; those of one fileset alone, such as
        ``path``, with its name."""
        peers = self._daemon.peers
        session = peers.sessions.get(name)
        lines = [
            service.line
            for service in self._daemon.services.values()
            if session is not None and service.is_written_here and service.line in session.accepted
        ]
        if session is None or not lines:
            raise UnavailableError(
                f"{name} follows nothing of this node over a connection now, so it tells no facts here",
                hint=f"on {name}: instep node facts",
                code="not_connected",
                node=name,
            )
        found: dict[str, str] = {}
        for line in lines:
            for fact, value in (await session.facts(line, FACTS_S)).facts:
                found[f"{fact} of {line.fileset}" if fact in OF_A_FILESET else fact] = value
        return found

    # Drain ----------------------------------------------------------------------------------------------------

    async def drain(self, params: Params, speaker: Speaker) -> Mapping[str, Any]:
        """Say that a node should get no new work: this one, or a connected partner that lets us."""
        for_s = float(params["for_s"]) if params.get("for_s") else None
        reason = str(params.get("reason") or "")
        other = self._other(params)
        if other is not None:
            return await self._drain_partner(other, reason, for_s, is_drained=True)
        runtime = self._daemon.runtime
        until = wall_ms() + int(for_s * 1000) if for_s else None
        changed = runtime.draining.begin(OPERATOR, reason, until)
        runtime.note("drained", f"{runtime.name} is drained", reason=reason or None)
        return {"node": runtime.name, "changed": changed, "drained": True, "until": moment(until)}

    async def undrain(self, params: Params, speaker: Speaker) -> Mapping[str, Any]:
        """Take back what people asked for; a rollout's drain goes on until it returns the node."""
        other = self._other(params)
        if other is not None:
            return await self._drain_partner(other, "", None, is_drained=False)
        runtime = self._daemon.runtime
        changed = runtime.draining.end_asked()
        if changed:
            runtime.note("undrained", f"{runtime.name} is not drained any more")
        return {"node": runtime.name, "changed": changed, "drained": runtime.draining.is_drained}

    def _other(self, params: Params) -> NodeName | None:
        node = params.get("node")
        return node_name(str(node)) if node is not None and node != self._daemon.runtime.name else None

    async def _drain_partner(
        self, name: NodeName, reason: str, for_s: float | None, *, is_drained: bool
    ) -> Mapping[str, Any]:
        """Over the connection that the partner keeps open; its own ``allow_drain`` decides."""
        session = self._daemon.peers.sessions.get(name)
        verb = "drain" if is_drained else "undrain"
        if session is None:
            raise UnavailableError(
                f"{name} is not connected to {self._daemon.runtime.name}, so it cannot be told to {verb}",
                hint=f"on {name}: instep node {verb}",
                code="not_connected",
                node=name,
            )
        for_ms = min(int(for_s * 1000), DRAIN_MS_MAX) if for_s else 0
        reply = await session.drain(
            is_drained=is_drained, reason=reason[:REASON_MAX], for_ms=for_ms, within_s=DRAIN_S
        )
        until = moment(wall_ms() + for_ms) if for_ms else None
        return {"node": name, "changed": reply.changed, "drained": reply.is_drained, "until": until}

    # Certificates ---------------------------------------------------------------------------------------------

    async def revoke(self, params: Params, speaker: Speaker) -> Mapping[str, Any]:
        daemon = self._daemon
        name = node_name(str(params["name"]))
        if not daemon.pki.is_ca:
            raise RefusedError(
                f"{daemon.runtime.name} does not hold the cluster's CA key",
                hint="run this on the node where instep init ran",
                code="no_ca",
            )
        changed = daemon.pki.revoke(name, wall_ms())
        if edits.remove_partner(daemon.directory, name):
            daemon.reload()
        daemon.peers.cut(name)
        daemon.membership.forget(name)
        daemon.runtime.store.delete_reports(name)
        await daemon.trust_changed()
        daemon.peers.tell_revocations()
        daemon.runtime.note("revoked", f"the certificates of {name} were revoked", name=name)
        return {"name": name, "changed": changed}

    async def renew(self, params: Params, speaker: Speaker) -> Mapping[str, Any]:
        await self._daemon.renew(force=True)
        return {"node": self._daemon.runtime.name, "changed": True}

    # Check ----------------------------------------------------------------------------------------------------

    async def check(self, params: Params, speaker: Speaker) -> Mapping[str, Any]:
        started = time.monotonic()
        checks: list[dict[str, Any]] = []
        async for each in check_node(self._daemon):
            checks.append(each)
            await speaker.progress(str(each["name"]), len(checks), None, "checks", None)
        return {
            "ok": all(bool(each["ok"]) for each in checks),
            "checks": checks,
            "took_ms": round((time.monotonic() - started) * 1000),
        }


def _flags(params: Params) -> dict[str, bool]:
    return {key: bool(params[key]) for key in ("replicate", "data", "hub") if params.get(key) is not None}
