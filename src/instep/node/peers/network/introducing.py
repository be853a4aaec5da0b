"""Introductions: which key a node of another cluster signs with, by the word of the hub that passes its line on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Protocol

from instep.errors import PeerError
from instep.model.generation import Signature
from instep.model.ids import LineId, NodeName
from instep.model.replication.introduction import (
    VERSION,
    IntroductionBody,
    SignedIntroduction,
    introduction_id,
)
from instep.net.messages import messages as m
from instep.net.trust.pins import Introduced
from instep.node.lines.line_service import LineService
from instep.node.runtime.driver import wall_ms
from instep.node.runtime.runtime import Runtime
from instep.node.runtime.signers import verdict_on

NAMES_MAX = 256
"""Most nodes that one partner may introduce, and most introductions of one partner that wait for their lines."""


class KnownNodes(Protocol):
    """The nodes that this one has heard of."""

    members: dict[NodeName, m.Member]

    def is_ours(self, name: NodeName) -> bool:
        """Whether a node of this cluster has the name."""
        ...


class Introducing:
    """Both sides of it: a node introduces the signers of the lines that it passes on, and keeps the keys that
    partners name which it believes."""

    def __init__(self, runtime: Runtime, nodes: KnownNodes) -> None:
        self._runtime = runtime
        self._nodes = nodes
        self._made: dict[tuple[LineId, NodeName, bytes], SignedIntroduction] = {}
        self._waiting: dict[NodeName, dict[LineId, list[IntroductionBody]]] = {}
        """By partner: introductions for lines that are not followed here, or not yet."""

    # The hub --------------------------------------------------------------------------------------------------

    def of_line(self, service: LineService) -> m.Introductions | None:
        """The signers of a line that this node passes on, each with the key that was verified here; None where there
        is none but this node."""
        me, line = self._runtime.name, service.line
        if service.is_written_here:
            return None
        found: dict[NodeName, bytes] = {}
        for signature in self._signatures(service):
            if signature.chain and signature.signer != me:  # a promotion is signed by a CA, which is no node
                found[signature.signer] = signature.key
        records = tuple(self._record(line, name, key) for name, key in sorted(found.items()))
        return m.Introductions(line, records[: m.INTRODUCED_MAX]) if records else None

    def _signatures(self, service: LineService) -> list[Signature]:
        message = service.head_message(None, with_bundle=False)
        if message is None:
            return []
        return [*(epoch.signature for epoch in message.epochs), message.generation.signature]

    def _record(self, line: LineId, name: NodeName, key: bytes) -> SignedIntroduction:
        """Signed once: the time in it would make each a new one."""
        made = self._made.get((line, name, key))
        if made is None:
            raw = IntroductionBody(VERSION, line.fileset, name, key, wall_ms()).encoded()
            made = SignedIntroduction(raw, self._runtime.pki.sign(introduction_id(raw)))
            self._made[line, name, key] = made
        return made

    # The partner ----------------------------------------------------------------------------------------------

    def heard(self, source: NodeName, message: m.Introductions, *, is_followed: bool) -> None:
        """Keep the keys of nodes that are known by no other means, where this node believes ``source``: at once, or
        once the line is followed here. ``PeerError`` for a record that ``source`` did not sign as it says."""
        if not self._is_believed(source):
            return
        bodies = []
        for record in message.records:
            body = record.body()
            verdict = verdict_on(self._runtime, record.signature, record.id)
            if not verdict.is_valid or verdict.signer != source or body.fileset != message.line.fileset:
                raise PeerError(f"{source} sent an introduction that is not its own", code="bad_introduction")
            bodies.append(body)
        waiting = self._waiting.setdefault(source, {})
        waiting.pop(message.line, None)
        if not bodies:
            return
        if sum(map(len, waiting.values())) + len(bodies) > NAMES_MAX and not is_followed:
            return  # it comes again with the next connection
        waiting[message.line] = bodies
        if is_followed:
            self.begun(source, message.line)

    def begun(self, source: NodeName, line: LineId) -> None:
        """A line that ``source`` passes on is followed here."""
        bodies, introduced = self._waiting.get(source, {}).pop(line, ()), self._runtime.pki.pins.introduced()
        for body in bodies if self._is_believed(source) else ():
            taken = self._taken(source, body, introduced)
            if taken is not None:
                introduced[body.origin] = taken

    def lost(self, source: NodeName) -> None:
        """The connection ended; the next one begins with all introductions."""
        self._waiting.pop(source, None)

    def _is_believed(self, source: NodeName) -> bool:
        row = self._runtime.settings.partners.get(source)
        return row is not None and row.introduces

    def _taken(
        self, source: NodeName, body: IntroductionBody, introduced: Mapping[NodeName, Introduced]
    ) -> Introduced | None:
        """The knowledge that this introduction adds about a node; None where it changes nothing. ``introduced`` are
        the nodes that were introduced before."""
        name, runtime, pins = body.origin, self._runtime, self._runtime.pki.pins
        before = introduced.get(name)
        if before is not None and before.raw == body.key:
            return None
        if name == runtime.name or self._nodes.is_ours(name):
            return None  # the certificates of this cluster say it
        member = self._nodes.members.get(name)
        known = pins.sign_key(name) or (before.raw if before is not None else None)
        known = known or (member.sign_key if member is not None and member.sign_key else None)
        if known is not None and known != body.key:
            text = (
                f"{source} says that {name} signs with the key {shown_key(body.key)}, and here it is known with "
                f"{shown_key(known)}: nothing changes"
            )
            runtime.note_of_peer(source, "key_changed", text, node=name)
            return None
        if pins.sign_key(name) is not None or pins.is_introduced(name):
            return None
        if sum(each.by == source for each in introduced.values()) >= NAMES_MAX:
            text = (
                f"{source} introduced {name}, and has introduced {NAMES_MAX} nodes, the most of one partner: {name} "
                "is not known by it; one that is gone: instep pki trust forget NAME"
            )
            runtime.note_of_peer(source, "introduced_too_many", text, node=name)
            return None
        found = Introduced(body.key.hex(), source, wall_ms())
        pins.introduce(name, found)
        text = f"{source} introduced {name}, which signs with the key {shown_key(body.key)}"
        runtime.note_of_peer(source, "introduced", text, node=name)
        return found


def shown_key(key: bytes) -> str:
    """The fingerprint of a signing key, for people."""
    return hashlib.sha256(key).hexdigest()
