"""P7: nothing that a peer can say adds or alters a hook, a fact or a gate's program; only ``instep.toml`` names
them."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from instep.errors import InstepError
from instep.model.definition import Definition
from instep.model.generation import UNSIGNED, SignedGeneration
from instep.model.ids import HeadRef, LineId, fileset_name, node_name
from instep.model.rollout import Order, Verdict
from instep.model.standing import Standing, StandingRecord
from instep.net.client import PeerClient
from instep.net.connections.stream import SocketStream
from instep.net.connections.tls import TlsContexts
from instep.net.messages import messages as m
from instep.net.trust.pki import Pki
from tests.cluster.test_hooks import _hooks, _script
from tests.property.test_hostile_bytes import HEAD as STREAM_HEAD
from tests.property.test_hostile_bytes import STREAM
from tests.support import peers
from tests.support.fleet import SOURCE, Fleet
from tests.support.hostile import HostileWriter, Looped, Victim, file, look, wall_ms
from tests.support.waiting import eventually

SENT_DOWN = (m.Offer, m.Head, m.Members, m.FactsRequest, m.Nudge, m.PagesRequest, m.OrderMessage)
"""The messages that a writer sends: any other kind cuts the stream, which one example shows."""
LINE = LineId(fileset_name("data"), node_name("main"))


def _smuggled(evil: Path) -> list[object]:
    """Fields that an attacker would like to be taken for a hook, a fact or a gate."""
    run = {"run": [str(evil)]}
    hooks = dict.fromkeys(("validate", "reload", "probe", "freeze", "thaw", "repair", "on_failure"), run)
    return [
        {"hooks": hooks, "facts": {"java": run}, "golden": [run], "balancers": {"x": run}},
        ["hooks", "reload", ["run", [str(evil)]]],
        f"hooks.reload.run={evil}",
    ]


def _with_tail(message: msgspec.Struct, tail: list[object]) -> bytes:
    """The message with fields behind its own: to the other side it looks like a later version's."""
    fields = msgspec.msgpack.decode(m.encode(message))
    return msgspec.msgpack.encode([*fields, *tail])


def _messages(evil: Path) -> Iterator[bytes]:
    tail = _smuggled(evil)
    for message in STREAM:
        yield _with_tail(message, tail)
    yield msgspec.msgpack.encode(["hook", LINE, *tail])
    standing = StandingRecord(Standing.IN_STEP, 1, f"$({evil})", f"; {evil}", (str(evil),))
    yield _with_tail(m.Report(LINE, node_name("eve"), None, None, standing), tail)
    yield m.encode(m.FactsReply((("java", str(evil)), ("run", str(evil))), wall_ms(), 1))
    yield from _sent_down(evil)


def _sent_down(evil: Path) -> Iterator[bytes]:
    tail = _smuggled(evil)
    for message in STREAM:
        if isinstance(message, SENT_DOWN):
            yield _with_tail(message, tail)
    base = msgspec.msgpack.decode(Definition().encoded())
    definition = msgspec.msgpack.encode([*base, *tail])
    gates = Definition(gates=("java", f"run contains {evil}")).encoded()
    for each in (definition, gates):
        yield m.encode(m.Offer(LINE, node_name("main"), "mirror", "metadata", definition=each))
    reload = Order(STREAM_HEAD, 9, Verdict.RELOAD, True, 1_000, 1_000)
    fields = msgspec.msgpack.decode(msgspec.msgpack.encode(reload))
    yield _with_tail(m.OrderMessage(LINE, reload), tail)
    yield msgspec.msgpack.encode(["order", LINE, [*fields, *tail]])
    for what in ("reload", "hook", f"run:{evil}", "retry", "resend"):
        yield _with_tail(m.Nudge(LINE, what), tail)
    yield _with_tail(m.FactsRequest(LINE, 1), [["java", *tail]])


def test_no_message_adds_or_alters_a_hook(fleet: Fleet) -> None:
    """Goal: P7. Method: first a partner with real keys, then the writer itself, speaks the protocol directly and puts
    hook-like fields into every message, into offers, definitions, reports, facts, nudges and the generation. Nothing of
    it runs, ``instep.toml`` stays as it was, and of honest generations exactly the node's own hooks run."""
    evil = _script(fleet.base / "evil", f"touch {fleet.base}/pwned")
    ours = _script(fleet.base / "ours", f'echo "$0 $INSTEP_HOOK $INSTEP_GENERATION" >> {fleet.base}/ran.$1')
    tree = fleet.tree("main")
    tree.mkdir(parents=True)
    (tree / "file").write_text("first")
    fleet.make(1, poll="200ms")  # each message that ends the stream costs a pause before it is dialled again
    toml = fleet.main.directory / "instep.toml"
    toml.write_text(toml.read_text() + "\n[partners.eve]\nreplicate = true\ndata = true\nhub = true\n")
    _hooks(fleet.main, validate=f'run = ["{ours}", "main"]')
    _hooks(fleet["s1"], reload=f'run = ["{ours}", "s1"]')
    files = [fleet[name].directory / "instep.toml" for name in ("main", "s1")]
    kept = [look(path) for path in files]
    looped = Looped()
    try:
        _as_partner(fleet, looped, evil, ours)
        _as_writer(fleet, evil, ours, {files[1]: kept[1]})
    finally:
        looped.close()  # late: connections of the loop that are being closed need their time
    assert [look(path) for path in files] == kept
    assert not (fleet.base / "pwned").exists()


def _as_partner(fleet: Fleet, looped: Looped, evil: Path, ours: Path) -> None:
    """``eve`` says it all to the writer, which then publishes with its own hook and no other."""
    eve = peers.member(Pki(fleet.main.directory / "pki"), fleet.base / "eve-pki", "eve", life_s=86_400)
    ends = [looped.run(_said(eve, f"127.0.0.1:{fleet.main.port}", raw)) for raw in _messages(evil)]
    assert {"open", "unexpected_message", "bad_message"} <= set(ends), ends
    (fleet.tree("main") / "file").write_text("second")
    fleet.wait("--node", "s1")
    assert set((fleet.base / "ran.main").read_text().splitlines()) == {f"{ours} validate "}


def _as_writer(fleet: Fleet, evil: Path, ours: Path, outside: dict[Path, object]) -> None:
    """``main``'s own place is taken: its records and messages reach ``s1``, which runs its own hook and no other."""
    number = fleet.main.line()["head"]["number"]
    fleet.main.stop()
    writer = HostileWriter(fleet.main)
    try:
        victim = Victim(fleet["s1"], fleet.tree("s1"), outside)
        root = writer.craft.honest([file(b"file", b"third")])
        for raw in (*_sent_down(evil), msgspec.msgpack.encode(["hook", LINE, *_smuggled(evil)])):
            writer.await_streams("s1")
            writer.push_raw(raw)
        writer.await_streams("s1")
        base = msgspec.msgpack.decode(writer.definition)
        hooked = msgspec.msgpack.encode([*base, *_smuggled(evil)])
        gated = Definition(gates=("java", "run")).encoded()
        for definition, code in ((hooked, "bad_definition"), (gated, "no_such_fact")):
            since = wall_ms()
            writer.announce(writer.generation(root, definition=definition), definition=definition)
            victim.await_code(since, code)
        honest = writer.generation(root)
        body = msgspec.msgpack.encode([*msgspec.msgpack.decode(honest.raw), *_smuggled(evil)])
        unsigned = SignedGeneration(body, UNSIGNED)
        since = wall_ms()
        writer.announce_raw(SignedGeneration(body, writer.pki.sign(unsigned.id)))
        victim.await_code(since, "bad_record")
        head = writer.publish([file(b"file", b"third")])
        _permitted(writer, victim, head)
        victim.assert_unharmed()
        ran = (fleet.base / "ran.s1").read_text().splitlines()
        assert ran[-1] == f"{ours} reload {head.number}", ran
        assert {line.split()[1] for line in ran} == {"reload"}
        assert {int(line.split()[2]) for line in ran} <= {*range(number + 1), head.number}, ran
    finally:
        writer.close()


def _permitted(writer: HostileWriter, victim: Victim, head: HeadRef) -> None:
    """A node with a reload hook waits for its turn: it is given, as often as it takes, until the head is live."""
    order = m.OrderMessage(LINE, Order(head, 1, Verdict.SWITCH, False, 60_000))

    def is_live() -> bool:
        writer.push(order)
        return bool((victim.line()["live"] or {}).get("id") == head.id.hex())

    eventually(is_live, 30, lambda: f"{victim.line()}\n{victim.node.log()}")


async def _said(pki: Pki, address: str, raw: bytes) -> str:
    """Say hello, then this; the code with which the stream ends, or ``open``."""
    client = PeerClient(TlsContexts(pki), node_name("main"), address)
    try:
        async with client.stream(m.Hello(m.VERSIONS, node_name("eve"), os.urandom(8))) as (_, stream):
            assert isinstance(stream, SocketStream)
            await stream._socket.send_bytes(raw)
            await stream.send(m.Ping(77))
            while (message := await stream.receive()) is not None:
                if isinstance(message, m.ErrorReply):
                    return message.code
                if isinstance(message, m.Pong):
                    return "open"
            return "closed"
    except InstepError as error:
        return error.error_code
    finally:
        await client.close()


def test_only_the_configuration_makes_hooks() -> None:
    """Goal: P7, in the code. Only the reader of ``instep.toml`` makes hook and fact settings, only the runner of a
    node's own slots makes what is run, and no message or travelling noun mentions them."""
    makers: dict[str, set[str]] = {"HookSettings": set(), "FactSettings": set(), "HookSpec": set()}
    for path in sorted(Path(SOURCE, "instep").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in makers:
                makers[node.func.id].add(str(path.relative_to(Path(SOURCE, "instep"))))
    assert makers["HookSettings"] <= {"node/config/hooks.py"}, makers
    assert makers["FactSettings"] <= {"node/config/facts.py"}, makers
    assert makers["HookSpec"] <= {
        "node/lines/hook_calls.py", "node/config/hooks.py", "node/lines/golden_answers.py", "node/config/golden.py",
    }, makers  # fmt: skip
    kinds: list[type[msgspec.Struct]] = [*m.StreamMessage.__subclasses__(), Definition]
    travelling = {field for kind in kinds for field in kind.__struct_fields__}
    assert not {f for f in travelling if "hook" in f or f in ("run", "command", "facts_run")}, travelling
