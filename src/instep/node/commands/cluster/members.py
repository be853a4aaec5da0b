"""Members: invitations, partners, certificates, facts, and the preflight."""

from __future__ import annotations

import asyncio
import logging

from msgspec import UNSET

from instep.api import members as api
from instep.api.verifying import CheckCommand, CheckDocument
from instep.errors import InstepError, NotAllowedError, RefusedError, UnavailableError
from instep.model.ids import LineId, NodeName, node_name
from instep.model.link import Link
from instep.model.standing import Standing
from instep.net.connections.dial import split_address
from instep.net.connections.presented import trust_fetch
from instep.net.messages.messages import DRAIN_MS_MAX, HeadsRequest, KnownLine
from instep.net.service import HEADS
from instep.net.task_group import TaskGroup
from instep.net.trust.pki import Pki
from instep.node.commands.cluster.checking import Preflight
from instep.node.commands.context import CommandHandlers
from instep.node.commands.control import Speaker
from instep.node.commands.outcomes import author
from instep.node.commands.targets import current_reports, is_connected, session_of
from instep.node.config.editing import edits
from instep.node.facts.facts import told
from instep.node.lines.snapshot import moment, reports_of
from instep.node.peers.network.federation import require_free_name
from instep.node.runtime.draining import OPERATOR, REASON_MAX
from instep.node.runtime.driver import wall_ms

TTL_S = 3_600.0
FETCH_S = 10.0
FACTS_S = 20.0
DRAIN_S = 10.0
POLL_S = 30.0
OF_A_FILESET = ("path", "mount", "service", "access")
log = logging.getLogger(__name__)


def would_revoke(pki: Pki, name: NodeName) -> api.RevokeDocument:
    """The answer of a dry run."""
    current, names = pki.revocable(name, wall_ms())
    serials = tuple(one.serial for one in current)
    return api.RevokeDocument(name, bool(current or names), dry_run=True, certificates=serials)


class MemberCommands(CommandHandlers):
    async def invite(self, asked: api.InviteCommand, speaker: Speaker) -> api.InviteDocument:
        link = Link(replicate=asked.replicate, data=asked.data, hub=asked.hub)
        if asked.other_cluster:
            require_free_name(
                node_name(asked.name), is_ours=self._node.membership.is_ours(node_name(asked.name))
            )
        ttl_ms = int((asked.ttl_s or TTL_S) * 1000)
        invited = self._node.membership.invitations.invite(
            node_name(asked.name), link, ttl_ms, is_federation=asked.other_cluster
        )
        name = node_name(asked.name)
        warning = (
            f"{name} is connected now: a join with this token gives its name to another machine and revokes its keys. "
            f"For other rights of the present one: instep partner set {name}"
        )
        is_taken = is_connected(self._node, name) and not asked.other_cluster
        return api.InviteDocument(
            invited.token,
            moment(invited.expires_at_ms),
            invited.address,
            warning if is_taken else UNSET,
        )

    # Partners -------------------------------------------------------------------------------------------------

    async def partner_list(self, asked: api.PartnerListCommand, speaker: Speaker) -> api.PartnersDocument:
        rows: list[api.PartnerRowDocument] = []
        for name, partner in sorted(self._node.runtime.settings.partners.items()):
            uplink, link = self._node.peers.uplinks.get(name), partner.link
            is_up, reason = is_connected(self._node, name), None
            if not is_up:
                error = uplink.error if uplink is not None else None
                reason = error.reason if error is not None else f"{name} has not connected"
            last = moment(self._last_checked(name))
            rows.append(
                api.PartnerRowDocument(
                    name, self._address(name), link.replicate, link.data, link.hub, last, is_up, reason
                )
            )
        return api.PartnersDocument(partners=tuple(rows))

    def _address(self, name: NodeName) -> str | None:
        partner = self._node.runtime.settings.partners.get(name)
        if partner is not None and partner.address is not None:
            return str(partner.address)
        member = self._node.membership.members.get(name)
        return member.address or None if member is not None else None

    def _last_checked(self, name: NodeName) -> int | None:
        """By this node's clock. A report has its sender's time: the skew that was measured last is taken off, and no
        partner was checked later than now."""
        node = self._node
        heard_ms, now_ms = node.peers.heard_ms(name), wall_ms()
        if heard_ms is not None:
            return min(heard_ms, now_ms)
        skew_ms = node.peers.skews_ms().get(name, 0)
        reports = (reports_of(node.runtime.store, each.line).get(name) for each in node.services.values())
        return max((min(each.at_ms - skew_ms, now_ms) for each in reports if each is not None), default=None)

    async def partner_add(self, asked: api.PartnerAddCommand, speaker: Speaker) -> api.PartnerAddDocument:
        """Pin a node of another cluster: its certificate is fetched and must have the fingerprint that was typed."""
        node = self._node
        name, address = node_name(asked.name), asked.address
        pin = asked.pin.lower().replace(":", "")
        require_free_name(name, is_ours=node.membership.is_ours(name))
        host, port = split_address(address)
        async with asyncio.timeout(FETCH_S):
            chain = await asyncio.to_thread(trust_fetch, host, port, server_name=name)
        if chain.pin != pin:
            raise NotAllowedError(
                f"{address} shows the fingerprint {chain.pin}, not {pin}",
                hint=f"compare; on {name}: instep node list",
                code="wrong_pin",
                shown=chain.pin,
                typed=pin,
            )
        node.pki.pins.pin(name, chain.own)
        flags = {"replicate": asked.replicate, "data": asked.data, "hub": asked.hub}
        given = {key: value for key, value in flags.items() if value is not None}
        changed = edits.set_partner(node.directory, name, {"address": address, "pin": pin, **given})
        await node.trust_changed()
        if changed:
            node.reload()
        return api.PartnerAddDocument(name, address, pin, changed)

    async def partner_resend(
        self, asked: api.PartnerResendCommand, speaker: Speaker
    ) -> api.PartnerResendDocument:
        name = node_name(asked.name)
        session = session_of(self._node, name, f"on {name}: instep status")
        return api.PartnerResendDocument(name, True, session.resend())

    async def partner_poll(self, asked: api.PartnerPollCommand, speaker: Speaker) -> api.PartnerPollDocument:
        """Over a link that is up: a partner that only dials here announces each head by itself."""
        name, node = node_name(asked.name), self._node
        uplink = node.peers.uplinks.get(name)
        if uplink is None or not uplink.is_up:
            why = (
                uplink.error.reason
                if uplink is not None and uplink.error is not None
                else "it is not dialled"
            )
            raise UnavailableError(
                f"{name} cannot be asked now: {why}",
                hint=f"instep partner list; instep partner set {name} --address HOST:PORT",
                code="not_connected",
                node=name,
            )
        lines = [each for each in node.peers.lines.values() if name in each.sources]
        request = HeadsRequest(tuple(KnownLine(each.line, each.head) for each in lines))
        reply = await uplink.client.call(HEADS, request, total_s=asked.timeout_s or POLL_S)
        for head in reply.heads:
            service = node.peers.service(head.line)
            if service is not None and name in service.sources:
                service.head_seen(name, head)
        return api.PartnerPollDocument(name, len(lines), len(reply.heads))

    # Nodes ----------------------------------------------------------------------------------------------------

    async def node_list(self, asked: api.NodeListCommand, speaker: Speaker) -> api.NodesDocument:
        node, order = self._node, list(Standing)
        me, is_drained = node.membership.me(), node.runtime.draining.is_drained
        standings = [service.standing.standing for service in node.services.values()]
        own = max(standings, key=order.index, default=Standing.IN_STEP).value
        drains = tuple(each.reason for each in node.runtime.draining.reasons())
        ours = (me.name, True, me.address, me.pin, await self._own_facts(), own, is_drained)
        rows = [api.NodeRowDocument(*ours, drains=drains)]
        known = set(node.membership.members) | set(node.runtime.settings.partners)
        facts = await self._facts_of(sorted(known - {me.name})) if asked.facts else {}
        for name in sorted(known - {me.name}):
            member = node.membership.members.get(name)
            pin = member.pin or None if member is not None else None
            is_drained = bool(member and member.serving and member.serving.is_drained)
            seen_at = member.seen_at if member is not None and member.seen_at else UNSET
            known_as = (name, False, self._address(name), pin)
            rows.append(
                api.NodeRowDocument(*known_as, facts.get(name, {}), self._standing(name), is_drained, seen_at)
            )
        for name, at_ms in sorted(node.pki.revoked_names().items()):
            if name not in known:
                ended = moment(at_ms) or UNSET
                rows.append(
                    api.NodeRowDocument(name, False, None, None, {}, Standing.UNKNOWN.value, revoked_at=ended)
                )
        return api.NodesDocument(nodes=tuple(rows))

    async def _facts_of(self, names: list[NodeName]) -> dict[NodeName, dict[str, str]]:
        """The facts of the nodes that send some here, asked at the same time."""
        found: dict[NodeName, dict[str, str]] = {}

        async def ask(name: NodeName) -> None:
            try:
                async with asyncio.timeout(FACTS_S):
                    found[name] = await self._facts_about(name, self._followed_by(name))
            except (InstepError, TimeoutError) as error:
                log.info("%s sent no facts: %s", name, error)

        async with TaskGroup() as asking:
            for name in names:
                asking.create_task(ask(name))
        return found

    def _standing(self, name: NodeName) -> str:
        """The worst standing that a connected node reports now; reports from before a change of writer have ended."""
        node, order = self._node, list(Standing)
        if not is_connected(self._node, name):
            is_partner = name in node.runtime.settings.partners
            return Standing.UNREACHABLE.value if is_partner else Standing.UNKNOWN.value
        found = [Standing.IN_STEP for service in node.services.values() if service.writer == name]
        reports = (current_reports(node, service).get(name) for service in node.services.values())
        found += [report.standing.standing for report in reports if report is not None]
        return max(found, key=order.index, default=Standing.UNKNOWN).value

    async def node_facts(self, asked: api.NodeFactsCommand, speaker: Speaker) -> api.FactsDocument:
        me = self._node.runtime.name
        if asked.node is not None and asked.node != me:
            return api.FactsDocument(asked.node, await self._facts_of_partner(NodeName(asked.node)))
        return api.FactsDocument(me, await self._own_facts())

    async def _own_facts(self) -> dict[str, str]:
        """Under this daemon's key: a fingerprint equals one that a partner sends to this node."""
        runtime = self._node.runtime
        return told(await runtime.facts.of_node(runtime.settings), runtime.facts.key)

    async def _facts_of_partner(self, name: NodeName) -> dict[str, str]:
        lines = self._followed_by(name)
        if not lines:
            raise UnavailableError(
                f"{name} follows nothing of this node over a connection now, so it sends no facts here",
                hint=f"on {name}: instep node facts",
                code="not_connected",
                node=name,
            )
        return await self._facts_about(name, lines)

    def _followed_by(self, name: NodeName) -> list[LineId]:
        """The lines that are written here and that a partner follows over a connection now."""
        session, services = self._node.peers.sessions.get(name), self._node.services.values()
        accepted = session.accepted if session is not None else ()
        return [each.line for each in services if each.is_written_here and each.line in accepted]

    async def _facts_about(self, name: NodeName, lines: list[LineId]) -> dict[str, str]:
        """The facts that a partner sends about these; facts of one fileset alone, such as ``path``, with its name."""
        found: dict[str, str] = {}
        session = self._node.peers.sessions.get(name)
        if session is None:
            return found  # the link went a moment ago
        for line in lines:
            for fact, value in (await session.facts(line, FACTS_S)).facts:
                found[f"{fact} of {line.fileset}" if fact in OF_A_FILESET else fact] = value
        return found

    async def drain(self, asked: api.DrainCommand, speaker: Speaker) -> api.DrainDocument:
        """Say that a node should get no new work: this one, or a connected partner that lets us."""
        reason, runtime = asked.reason or "", self._node.runtime
        if asked.node is not None and asked.node != runtime.name:
            return await self._drain_partner(asked.node, reason, asked.for_s, is_drained=True)
        until = wall_ms() + int(asked.for_s * 1000) if asked.for_s else None
        changed = runtime.draining.begin(OPERATOR, reason, until)
        if changed:
            runtime.note("drained", f"{runtime.name} is drained", reason=reason or None)
        return api.DrainDocument(runtime.name, changed, True, moment(until))

    async def undrain(self, asked: api.UndrainCommand, speaker: Speaker) -> api.DrainDocument:
        """Take back what people asked for; a rollout's drain goes on until it returns the node."""
        runtime = self._node.runtime
        if asked.node is not None and asked.node != runtime.name:
            return await self._drain_partner(asked.node, "", None, is_drained=False)
        changed = runtime.draining.end_asked()
        if changed:
            runtime.note("undrained", f"{runtime.name} is not drained any more")
        return api.DrainDocument(runtime.name, changed, runtime.draining.is_drained)

    async def read_only(self, asked: api.ReadOnlyCommand, speaker: Speaker) -> api.ReadOnlyDocument:
        """Each line looks at it anew: what waited for the end goes on at once."""
        runtime = self._node.runtime
        state = runtime.read_only
        changed = state.begin(author() or "", asked.reason) if asked.on else state.end()
        if changed:
            words = (
                state.now.words(runtime.name)
                if state.now is not None
                else f"{runtime.name} takes edits again" + (f": {asked.reason}" if asked.reason else "")
            )
            runtime.note("read_only", words)
            for service in self._node.services.values():
                for line in (service, *service.beside):
                    if line.elsewhere is None:
                        line.reconfigure(line.fileset)
                    else:
                        line.elsewhere.retry()
                await service.driver.settled()
        now = state.now
        since, by, reason = (
            (moment(now.since_ms), now.by, now.reason) if now is not None else (None, None, None)
        )
        return api.ReadOnlyDocument(runtime.name, changed, now is not None, since, by, reason)

    async def _drain_partner(
        self, node: str, reason: str, for_s: float | None, *, is_drained: bool
    ) -> api.DrainDocument:
        """Over the connection that the partner keeps open; its own ``allow_drain`` decides."""
        name, verb = node_name(node), "drain" if is_drained else "undrain"
        so = f" to {self._node.runtime.name}, so it cannot be asked to {verb}"
        session = session_of(self._node, name, f"on {name}: instep node {verb}", so)
        for_ms = min(int(for_s * 1000), DRAIN_MS_MAX) if for_s else 0
        reply = await session.drain(
            is_drained=is_drained, reason=reason[:REASON_MAX], for_ms=for_ms, within_s=DRAIN_S
        )
        until = moment(wall_ms() + for_ms) if for_ms else None
        return api.DrainDocument(name, reply.changed, reply.is_drained, until)

    # Certificates ---------------------------------------------------------------------------------------------

    async def revoke(self, asked: api.RevokeCommand, speaker: Speaker) -> api.RevokeDocument:
        node = self._node
        name = node_name(asked.name)
        self._require_ca(f"instep pki revoke {name}")
        if asked.dry_run:
            return would_revoke(node.pki, name)
        changed = node.pki.revoke(name, wall_ms())
        node.peers.new_names.revoked(name)
        if edits.remove_partner(node.directory, name):
            node.reload()
        node.membership.forget(name)
        node.runtime.store.delete_reports(name)
        await self._cut(name)
        node.runtime.note("revoked", f"the certificates of {name} were revoked", name=name)
        return api.RevokeDocument(name, changed)

    async def node_remove(self, asked: api.NodeRemoveCommand, speaker: Speaker) -> api.NodeRemoveDocument:
        """A node of another cluster only has to be unpinned; one of ours is named in the revocation list."""
        node, me = self._node, self._node.runtime.name
        name = node_name(asked.name)
        for service in node.services.values():
            if service.writer == name != me:
                fileset = service.fileset.name
                raise RefusedError(
                    f"{name} writes {fileset}",
                    hint=f"on {name}: instep handover {fileset} {me}; when it is dead, here: "
                    f"instep promote {fileset} --home-is-dead",
                    code="still_writes", node=name, fileset=fileset,
                )  # fmt: skip
        changed = node.pki.pins.unpin(name)
        if not changed:
            self._require_ca(f"instep node remove {name}")
            known = {*node.runtime.settings.partners, *node.membership.members, *node.pki.crl().names}
            if name not in known:
                node.pki.revocable(name, wall_ms())  # refuses a name that was mistyped
            changed = node.pki.revoke(name, wall_ms(), for_good=True)
            node.peers.new_names.revoked(name)
        if changed or name in node.runtime.settings.partners:
            node.membership.removed(name)
        await self._cut(name)
        return api.NodeRemoveDocument(name, changed)

    def _require_ca(self, typed: str) -> None:
        if not self._node.pki.is_ca:
            raise RefusedError(
                f"{self._node.runtime.name} does not hold the cluster's CA key",
                hint=f"on the node that holds the CA key: {typed}",
                code="no_ca",
            )

    async def _cut(self, name: NodeName) -> None:
        """A node is trusted no more: end what runs with it, here and at every peer."""
        self._node.peers.cut(name)
        await self._node.trust_changed()
        self._node.peers.tell_revocations()

    async def renew(self, asked: api.RenewCommand, speaker: Speaker) -> api.RenewDocument:
        await self._node.renew(by_hand=True)
        return api.RenewDocument(self._node.runtime.name, True)

    async def check(self, asked: CheckCommand, speaker: Speaker) -> CheckDocument:
        now, look = asyncio.get_running_loop().time, Preflight(self._context, speaker)
        started = now()
        await look.run(asked.max_behind_ms)
        took_ms = round((now() - started) * 1000)
        return CheckDocument(all(row.ok for row in look.rows), tuple(look.rows), took_ms)
