"""Seats: taken, released and shown."""

from __future__ import annotations

import msgspec

from instep.api.shared_parts import seats as api
from instep.core.cluster.seats import PoolRules, SeatVerdict
from instep.errors import ContentionError, RefusedError
from instep.node.cluster.licence_servers import LicenceServers
from instep.node.cluster.seat_desk import SeatAnswer, rules_of
from instep.node.commands.context import CommandContext, CommandHandlers
from instep.node.commands.control import Speaker
from instep.node.lines.snapshot import moment
from instep.node.runtime.driver import monotonic_ms, wall_ms
from instep.store.cluster import agreements, seats
from instep.store.cluster.seats import SeatedUser

_POOL = seats.subject_of("")


class Seats(CommandHandlers):
    def __init__(self, context: CommandContext) -> None:
        super().__init__(context)
        self._service, self._desk = context.cluster, context.seat_desk
        self._maintenance = context.shared_work.maintenance
        self._servers = LicenceServers()

    async def acquire(self, asked: api.SeatAcquireCommand, speaker: Speaker) -> api.SeatAnswerDocument:
        """Seat a user here."""
        if self._maintenance.is_on:
            raise RefusedError(
                "this node is in maintenance, and no user gets a seat here",
                code="maintenance",
                hint=f"ask at another node, or end it: {self._maintenance.ending}",
            )
        answer = await self._desk.sit_down(asked.pool, asked.user)
        if answer.verdict not in (SeatVerdict.SEATED, SeatVerdict.ALREADY):
            raise _refusal(asked, answer, self._settings_kind(asked.pool))
        pool = self._node.runtime.settings.pools.get(asked.pool)
        servers = await self._servers.in_order(() if pool is None else pool.servers)
        until_ms = answer.kept_until_ms
        is_away = until_ms is not None
        return api.SeatAnswerDocument(
            pool=asked.pool,
            user=asked.user,
            changed=answer.verdict is SeatVerdict.SEATED,
            taken=None if is_away else answer.taken,
            places=None if answer.rules is None else answer.rules.places,
            until=None if until_ms is None else moment(wall_ms() + until_ms - monotonic_ms()),
            servers=tuple(map(str, servers)),
        )

    def _settings_kind(self, pool: str) -> str:
        settings = self._node.runtime.settings.pools.get(pool)
        return "" if settings is None else settings.kind

    async def release(self, asked: api.SeatReleaseCommand, speaker: Speaker) -> api.SeatReleaseDocument:
        """End a use of a user."""
        answer = await self._desk.stand_up(asked.pool, asked.user, is_all=asked.all)
        changed = answer.verdict is not SeatVerdict.FREE
        if asked.all and changed:
            text = f"an operator released all uses of {asked.user} in pool {asked.pool}"
            self._node.runtime.note("seat_released", text, pool=asked.pool, user=asked.user)
        return api.SeatReleaseDocument(asked.pool, asked.user, changed)

    async def show(self, asked: api.SeatListCommand, speaker: Speaker) -> api.SeatsDocument:
        async with self._service.transaction() as (transaction, _):
            declared = await agreements.declared(transaction, _POOL)
            names = sorted({subject.removeprefix(_POOL) for subject, _, _ in declared})
            agreed = {name: await agreements.agreed(transaction, seats.subject_of(name)) for name in names}
            users = await seats.seated_users(transaction)
        found = []
        for name, value in agreed.items():
            if value is not None:
                rules = msgspec.json.decode(value.value, type=PoolRules)
                nodes = tuple(node for subject, node, _ in declared if subject == seats.subject_of(name))
                seated = [user for user in users if user.pool == name]
                own = self._node.runtime.settings.pools.get(name)
                differs = own is not None and rules_of(own) != rules
                found.append(
                    api.PoolDocument(
                        name=name, kind=rules.kind, places=rules.places, taken=len(seated),
                        linger_ms=rules.linger_ms, grace_ms=rules.grace_ms, nodes=nodes,
                        differs_from=value.node if differs else None, seats=tuple(map(_seat, seated)),
                    )
                )  # fmt: skip
        return api.SeatsDocument(tuple(found))


def _seat(user: SeatedUser) -> api.SeatDocument:
    uses = tuple(api.UseDocument(use.node, use.times, moment(use.ends_at_ms) or "") for use in user.uses)
    return api.SeatDocument(user.user_name, moment(user.since_ms) or "", moment(user.ends_at_ms) or "", uses)


def _refusal(asked: api.SeatAcquireCommand, answer: SeatAnswer, kind: str) -> ContentionError | RefusedError:
    rules = answer.rules
    assert rules is not None, "only the database refuses"
    if answer.verdict is SeatVerdict.OTHER_KIND:
        return RefusedError(
            f"pool {asked.pool} counts licences of kind {rules.kind}, and this node has kind {kind}: kinds do not mix",
            code="seat_kind",
            hint=f"give [pools.{asked.pool}] of instep.toml the kind {rules.kind}, or free its places first",
            pool=asked.pool,
            kind=rules.kind,
            ours=kind,
        )
    if answer.verdict is SeatVerdict.QUIET:
        return ContentionError(
            f"the cluster database has another server, to which the nodes are reporting their seats: pool {asked.pool}"
            f" takes no new user for at most {rules.grace_ms / 1000:g} s",
            code="seats_quiet",
            hint="repeat the command then",
            pool=asked.pool,
        )
    return ContentionError(
        f"all {rules.places} places of pool {asked.pool} are taken",
        code="seats_full",
        hint="see its users: instep seat list",
        pool=asked.pool,
        places=rules.places,
    )
