"""A listed writer with real keys turns hostile: its records and messages are refused with a name, change
nothing outside the root, and the next honest generation arrives (P1, P4, P7)."""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from backports import zstd

from instep.model.definition import Definition, Mode, Preserve
from instep.model.generation import SignedGeneration
from instep.model.ids import Digest, HeadRef, LineId, fileset_name, node_name
from instep.model.manifest.entry import Entry, Extra
from instep.model.manifest.pages import encode_page
from instep.net.messages import messages as m
from instep.net.transfer import AnswerStatus, TransferAnswer
from instep.net.trust.pki import Pki
from tests.support import peers
from tests.support.fleet import Fleet, tree_of
from tests.support.hostile import (
    Craft,
    HostileWriter,
    Victim,
    directory,
    file,
    forged,
    frame,
    look,
    symlink,
    wall_ms,
)
from tests.support.waiting import eventually

pytestmark = pytest.mark.usefixtures("healed")
Things = list[tuple[Entry, bytes]]


@dataclass
class Scene:
    """The victim ``s1`` follows ``main``, whose place the test has taken."""

    base: Path
    outside: Path
    writer: HostileWriter
    victim: Victim
    count: int = 0

    def honest_things(self) -> Things:
        self.count += 1
        return [
            file(b"a", b"%d\n" % self.count),
            directory(b"sub"),
            file(b"sub/b", b"b%d\n" % self.count),
            symlink(b"escape", os.fsencode(self.outside)),
        ]

    def heal(self) -> HeadRef:
        """Afterwards an honest generation still arrives, exactly."""
        things = self.honest_things()
        head = self.writer.publish(things)
        self.victim.await_live(head)
        found = tree_of(self.victim.root, with_times=False)
        assert set(found) == {entry.path for entry, _ in things}
        for entry, data in things:
            assert data in found[entry.path] or not data
        self.victim.assert_unharmed()
        return head

    def refuses(self, *codes: str, attack: Callable[[], object]) -> None:
        """The attack is named with one of these codes and the served tree stays what it was."""
        before = tree_of(self.victim.root)
        since = wall_ms()
        attack()
        self.victim.await_code(since, *codes)
        assert tree_of(self.victim.root) == before
        self.victim.assert_unharmed()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    base = tmp_path_factory.mktemp("hostile")
    outside = base / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "keep").write_text("keep me")
    (outside / "deep" / "keep").write_text("and me")
    os.chmod(outside / "keep", 0o640)
    fleet = Fleet(base)
    fleet.tree("main").mkdir(parents=True)
    (fleet.tree("main") / "a").write_text("0\n")
    os.symlink(outside, fleet.tree("main") / "escape")
    writer: HostileWriter | None = None
    try:
        fleet.make(1)
        fleet["s1"].run("fileset", "set", "data", "owners=[]")  # else it gives files to names that exist here
        fleet.wait()
        fleet.main.stop()
        writer = HostileWriter(fleet.main)
        config = fleet["s1"].directory / "instep.toml"
        victim = Victim(fleet["s1"], fleet.tree("s1"), {outside: look(outside), config: look(config)})
        writer.await_streams("s1")
        made = Scene(base, outside, writer, victim)
        made.heal()
        yield made
    finally:
        if writer is not None:
            writer.close()
        fleet.close()


# Manifests ----------------------------------------------------------------------------------------------------


def _leaf(*things: tuple[Entry, bytes]) -> Callable[[Craft], Digest]:
    return lambda craft: craft.leaf(things)


def _numbers(count: int) -> Things:
    return [file(b"f%06d" % number, b"") for number in range(count)]


def _second_encoding(craft: Craft) -> Digest:
    return craft.raw(encode_page(0, [file(b"a")[0]]) + b"\xc0")


def _deep(craft: Craft) -> Digest:
    below = craft.leaf([file(b"a")])
    for level in range(1, 32):
        below = craft.inner(level, [(b"a", below)])
    return below


def _same_again_and_again(craft: Craft) -> Digest:
    """A few pages that name each other so often that a naive walk never ends."""
    below = craft.leaf([file(b"a")])
    for level in range(1, 32):
        below = craft.inner(level, [(b"a%03d" % number, below) for number in range(512)])
    return below


def _more_pages_than_entries(craft: Craft) -> Digest:
    leaves = [(b"f%06d" % n, craft.leaf([file(b"f%06d" % n, b"")])) for n in range(3_000)]
    return craft.inner(
        2, [(row[-1][0], craft.inner(1, row)) for row in (leaves[i : i + 300] for i in range(0, 3000, 300))]
    )


MANIFESTS: dict[str, tuple[Callable[[Craft], Digest], str]] = {
    "dot dot": (_leaf(file(b"../evil")), "bad_path"),
    "dot dot inside": (_leaf(directory(b"sub"), file(b"sub/../../evil")), "bad_path"),
    "dot": (_leaf(file(b"./evil")), "bad_path"),
    "absolute": (_leaf(file(b"/etc/evil")), "bad_path"),
    "nothing": (_leaf(file(b"")), "bad_path"),
    "slash at the end": (_leaf(file(b"evil/")), "bad_path"),
    "nul": (_leaf(file(b"e\0vil")), "bad_path"),
    "long name": (_leaf(file(b"n" * 256)), "bad_path"),
    "long path": (_leaf(file(b"/".join([b"n" * 200] * 21))), "bad_path"),
    "control folder": (_leaf(directory(b".instep"), file(b".instep/id")), "bad_path"),
    "control folder, in capitals": (_leaf(directory(b".INSTEP"), file(b".INSTEP/id")), "bad_path"),
    "control folder beside": (_leaf(directory(b".Instep-data")), "bad_path"),
    "twice": (_leaf(file(b"a"), file(b"a", b"y")), "bad_order"),
    "wrong order": (_leaf(file(b"b"), file(b"a")), "bad_order"),
    "below a symlink": (
        lambda craft: craft.leaf([symlink(b"escape", b"/"), file(b"escape/evil")]),
        "bad_parent",
    ),
    "below a file": (_leaf(file(b"a"), file(b"a/b")), "bad_parent"),
    "below nothing": (_leaf(file(b"x/y")), "bad_parent"),
    "hard link of nothing": (
        _leaf(file(b"a", extra=Extra(link_group=b"../evil"))),
        "bad_entry,bad_path,bad_link_group",
    ),
    "long target": (_leaf((msgspec.structs.replace(symlink(b"l", b"x")[0], size=5_000), b"x")), "bad_entry"),
    "size without chunks": (_leaf((msgspec.structs.replace(file(b"a")[0], size=1 << 40), b"x")), "bad_entry"),
    "too many entries": (lambda craft: craft.leaf(_numbers(513)), "bad_page"),
    "too large": (
        lambda craft: craft.leaf([file(b"%03d" % n + b"n" * 250, b"") for n in range(5_000)]),
        "bad_page",
    ),
    "not canonical": (_second_encoding, "bad_page"),
    "not msgpack": (lambda craft: craft.raw(b"\x92\x00" + b"\x91" * 400), "bad_page"),
    "empty inner page": (lambda craft: craft.page(1, []), "bad_page"),
    "mode with more bits": (lambda craft: craft.page(0, [_odd_entry(mode=0o100000)]), "bad_page"),
    "kind of a device": (lambda craft: craft.page(0, [_odd_entry(kind=7)]), "bad_page"),
    "deep": (_deep, "bad_shape"),
    "the same again and again": (_same_again_and_again, "bad_order,bad_shape,bad_page"),
    "more pages than entries": (_more_pages_than_entries, "endless_manifest"),
    "other cuts": (
        lambda craft: craft.inner(1, [(b"a", craft.leaf([file(b"a")])), (b"b", craft.leaf([file(b"b")]))]),
        "bad_shape",
    ),
}


class _Odd(msgspec.Struct, array_like=True):
    path: bytes
    kind: int
    mode: int
    size: int
    mtime_ns: int
    digest: bytes
    born_ms: int


def _odd_entry(kind: int = 0, mode: int = 0o644) -> _Odd:
    return _Odd(b"a", kind, mode, 1, 0, bytes(32), 0)


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_crafted_manifest_is_refused(scene: Scene, name: str) -> None:
    craft, codes = MANIFESTS[name]
    root = craft(scene.writer.craft)
    scene.refuses(
        *codes.split(","), attack=lambda: scene.writer.announce(scene.writer.generation(root, entries=10))
    )


def test_after_all_those_manifests_an_honest_one_arrives(scene: Scene) -> None:
    scene.heal()


def test_pages_that_are_not_what_was_asked_for(scene: Scene) -> None:
    craft = scene.writer.craft
    root = craft.honest(scene.honest_things())
    other = craft.pages[craft.leaf([file(b"other")])]
    scene.writer.on_pages = lambda request: m.PagesReply((other,) * len(request.digests))
    scene.refuses("page_mismatch", attack=lambda: scene.writer.announce(scene.writer.generation(root)))
    scene.writer.on_pages = lambda request: m.PagesReply((bytes(8 << 20),) * 8)
    scene.refuses(
        "too_large", "bad_answer", attack=lambda: scene.writer.announce(scene.writer.generation(root))
    )
    scene.writer.on_pages = lambda request: m.PagesReply(())
    scene.refuses("bad_answer", attack=lambda: scene.writer.announce(scene.writer.generation(root)))
    scene.heal()


def test_a_symlink_leads_nowhere(scene: Scene) -> None:
    """A directory takes the place of a live symlink to the outside, and one that a local user put there."""
    things = [
        file(b"a"),
        directory(b"escape"),
        file(b"escape/keep", b"evil"),
        directory(b"sub"),
        file(b"sub/b"),
    ]
    scene.victim.await_live(scene.writer.publish(things))
    assert (scene.victim.root / "escape").is_dir()
    assert not (scene.victim.root / "escape").is_symlink()
    scene.victim.assert_unharmed()
    os.rename(scene.victim.root / "escape", scene.base / "moved-away")
    os.symlink(scene.outside, scene.victim.root / "escape")
    head = scene.writer.publish([*things, file(b"escape/new", b"evil")])
    scene.victim.await_live(head)
    scene.victim.assert_unharmed()
    eventually(lambda: (scene.victim.root / "escape" / "new").read_bytes() == b"evil", 20)
    scene.victim.assert_unharmed()
    scene.heal()


def test_rights_that_this_node_does_not_allow_are_left_out(scene: Scene) -> None:
    """Setuid, setgid, owners and ``security.*``: applied without them, and the tree counts as in step."""
    extra = Extra(owner="daemon", group="daemon", xattrs=((b"security.evil", b"1"), (b"trusted.evil", b"1")))
    things = [file(b"tool", b"#!/bin/sh\n", 0o6755, extra=extra), directory(b"d", 0o2775)]
    writer = scene.writer
    definition = Definition(preserve=(Preserve.OWNER, Preserve.XATTR)).encoded()
    root = writer.craft.honest(things)
    head = writer.announce(writer.generation(root, definition=definition), definition=definition)
    scene.victim.await_live(head)
    tool = scene.victim.root / "tool"
    assert stat.S_IMODE(tool.stat().st_mode) == 0o755
    assert stat.S_IMODE((scene.victim.root / "d").stat().st_mode) == 0o775
    assert tool.stat().st_uid == os.getuid()
    assert not [name for name in os.listxattr(tool) if not name.startswith("user.")]
    verified = scene.victim.call("verify", fileset="data", deep=True)
    assert verified["identical"], verified
    scene.victim.assert_unharmed()
    scene.heal()


# Records ------------------------------------------------------------------------------------------------------


def test_signatures_that_do_not_count(scene: Scene, tmp_path: Path) -> None:
    writer, ca = scene.writer, scene.writer.pki
    root = writer.craft.honest(scene.honest_things())

    def signed_by(signer: Pki) -> SignedGeneration:
        return writer.generation(root, signer=signer)

    bad = writer.generation(root)
    bad = msgspec.structs.replace(bad, signature=forged(bad.signature))
    scene.refuses("bad_signature", attack=lambda: writer.announce(bad))
    other = peers.member(ca, tmp_path / "s8", "s8")
    scene.refuses("not_the_writer", attack=lambda: writer.announce(signed_by(other)))
    liar = signed_by(other)
    liar = msgspec.structs.replace(
        liar, signature=msgspec.structs.replace(liar.signature, signer=writer.name)
    )
    scene.refuses("signer_unknown", attack=lambda: writer.announce(liar))
    foreign = Pki.create(tmp_path / "foreign", "c", writer.name, wall_ms())
    scene.refuses("signer_unknown", attack=lambda: writer.announce(signed_by(foreign)))
    old = peers.member(ca, tmp_path / "old", "old", life_s=-1)
    scene.refuses("signer_expired", attack=lambda: writer.announce(signed_by(old)))
    revoked = peers.member(ca, tmp_path / "s9", "s9")
    ca.revoke(node_name("s9"), wall_ms())
    writer.push(m.Revocations(ca.crl_pem()))
    scene.refuses("signer_revoked", attack=lambda: writer.announce(signed_by(revoked)))
    body = writer.generation(root)
    garbled = msgspec.structs.replace(body, raw=body.raw + b"\xc0")
    garbled = msgspec.structs.replace(garbled, signature=ca.sign(garbled.id))
    scene.refuses("bad_record", attack=lambda: writer.announce_raw(garbled))
    scene.heal()


def test_positions_that_do_not_rise(scene: Scene) -> None:
    writer = scene.writer
    head = scene.heal()
    root = writer.craft.honest(scene.honest_things())
    scene.refuses(
        "reused_number", attack=lambda: writer.announce(writer.generation(root, number=head.number))
    )
    scene.refuses("old_number", attack=lambda: writer.announce(writer.generation(root, number=1)))
    scene.refuses(
        "unknown_epoch", attack=lambda: writer.announce(writer.generation(root, epoch=writer.epoch + 7))
    )
    scene.refuses("bad_record", attack=lambda: writer.announce(writer.generation(root, number=1 << 60)))
    another = LineId(fileset_name("another"), writer.name)
    scene.refuses("wrong_line", attack=lambda: writer.announce(writer.generation(root, line=another)))
    assert scene.victim.line()["live"]["id"] == head.id.hex()
    scene.heal()


def test_two_records_for_one_epoch_block_until_a_higher_one(scene: Scene, tmp_path: Path) -> None:
    writer = scene.writer
    scene.heal()
    first = writer.epoch_record(writer.epoch + 1, "s8")
    second = writer.epoch_record(writer.epoch + 1, "s9")
    stranger = peers.member(writer.pki, tmp_path / "s7", "s7")
    stolen = writer.epoch_record(writer.epoch + 1, "s7", signer=stranger)
    known = writer.epochs
    writer.epochs = (*known, stolen)
    root = writer.craft.honest(scene.honest_things())
    scene.refuses("not_entitled", attack=lambda: writer.announce(writer.generation(root)))
    writer.epochs = (*known, first, second)
    scene.refuses("epoch_conflict", attack=lambda: writer.announce(writer.generation(root)))
    line = eventually(
        lambda: (found := scene.victim.line())["standing"] == "blocked" and found, 20, "blocked"
    )
    assert isinstance(line, dict)
    assert "s8" in line["reason"]
    assert "s9" in line["reason"]
    writer.epoch += 2
    writer.epochs = (*writer.epochs, writer.epoch_record(writer.epoch, "main", by_ca=True))
    scene.heal()
    root = writer.craft.honest(scene.honest_things())
    old = writer.generation(root, epoch=writer.epoch - 1)
    scene.refuses("old_epoch", "old_number", attack=lambda: writer.announce(old))
    scene.heal()


# Definitions --------------------------------------------------------------------------------------------------

EVIL_DEFINITIONS: dict[str, tuple[bytes, str]] = {
    "not msgpack": (b"\xc1", "bad_definition"),
    "names a hook": (
        msgspec.msgpack.encode(
            [
                1,
                "mirror",
                "metadata",
                [],
                [],
                [],
                [],
                [],
                b"",
                {"hooks": {"reload": {"run": ["/bin/sh", "-c", "evil"]}}},
            ]
        ),
        "bad_definition",
    ),
    "bad pattern": (Definition(ignore=("a\\",)).encoded(), "bad_definition"),
    "bad range": (Definition(ignore=("[z-a]",)).encoded(), "bad_definition"),
    "too many stars": (Definition(ignore=("**/a" * 9,)).encoded(), "bad_definition"),
    "too many patterns": (Definition(ignore=("a",) * 1_001).encoded(), "bad_definition"),
    "another mode": (Definition(mode=Mode.SHARED).encoded(), "unknown_mode"),
    "another version": (Definition(version=2).encoded(), "unknown_version"),
}


@pytest.mark.parametrize("name", EVIL_DEFINITIONS)
def test_a_definition_that_is_not_one(scene: Scene, name: str) -> None:
    raw, code = EVIL_DEFINITIONS[name]
    writer = scene.writer
    scene.heal()  # else the code of the definition before still stands
    root = writer.craft.honest(scene.honest_things())
    scene.refuses(
        code, attack=lambda: writer.announce(writer.generation(root, definition=raw), definition=raw)
    )


def test_slow_patterns_and_foreign_definitions_harm_nobody(scene: Scene) -> None:
    """The pattern that backtracks for ever on a long name elsewhere; then one that the generation does not name."""
    writer = scene.writer
    slow = Definition(ignore=("*a" * 40 + "b",)).encoded()
    things = [*scene.honest_things(), file(b"a" * 250, b"")]
    root = writer.craft.honest(things)
    scene.victim.await_live(writer.announce(writer.generation(root, definition=slow), definition=slow))
    other, never_sent = Definition(ignore=("everything",)).encoded(), Definition(ignore=("x",)).encoded()
    root = writer.craft.honest(scene.honest_things())
    scene.refuses(
        "superseded",
        attack=lambda: writer.announce(writer.generation(root, definition=never_sent), definition=other),
    )
    scene.heal()


# Contents -----------------------------------------------------------------------------------------------------


def _contents_attacks(scene: Scene) -> dict[str, tuple[str, Callable[[], Iterator[bytes]]]]:
    small = TransferAnswer(0, AnswerStatus.WHOLE, 0, b"x")
    record = b"\0\0\0\0" + bytes([small.status]) + bytes(8) + b"\0\0\0\1x"
    bomb = zstd.compress(bytes(1 << 30), level=1)

    def endless() -> Iterator[bytes]:
        while True:
            yield frame(0, len(record), len(record)) + record

    def pieces() -> Iterator[bytes]:
        piece = b"\0\0\0\0\1" + bytes(8) + b"\0\x10\0\0" + bytes(1 << 20)
        while True:
            yield frame(0, len(piece), len(piece)) + piece

    def after() -> Iterator[bytes]:
        yield frame(255, 0, 0)
        while True:
            yield bytes(1 << 16)

    return {
        "a bomb that says so": ("bad_frame", lambda: iter([frame(1, 1 << 30, len(bomb)) + bomb])),
        "a bomb that lies": ("bad_frame", lambda: iter([frame(1, 1 << 20, len(bomb)) + bomb])),
        "a huge frame": ("bad_frame", lambda: iter([frame(0, 0xFFFFFFFF, 0xFFFFFFFF)])),
        "an unknown frame": ("bad_frame", lambda: iter([frame(9, 1, 1) + b"x"])),
        "not zstd": ("bad_frame", lambda: iter([frame(1, 1 << 20, 4) + b"evil"])),
        "half a record": ("bad_frame", lambda: iter([frame(0, 3, 3) + b"abc"])),
        "endless answers": ("bad_frame", endless),
        "endless pieces": ("bad_frame", pieces),
        "more after the end": ("bad_frame", after),
        "nothing at all": ("bad_answer", lambda: iter([frame(255, 0, 0)])),
        "a wrong count": ("bad_frame", lambda: iter([frame(255, 7, 0)])),
        "half": ("cut_short", lambda: iter([frame(0, 500, 500) + b"x"])),
        "an error of its own": (
            "evil",
            lambda: iter(
                [frame(254, len(raw := m.encode(m.ErrorReply("evil", "\x1b[2Jboo"))), len(raw)) + raw]
            ),
        ),
    }


def test_contents_that_are_not_contents(scene: Scene) -> None:
    writer = scene.writer
    for name, (code, raw) in _contents_attacks(scene).items():
        root = writer.craft.honest(scene.honest_things())
        writer.on_raw = raw
        try:
            scene.refuses(code, attack=functools.partial(writer.announce, writer.generation(root)))
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error
    scene.heal()


def test_contents_that_differ_from_their_digest(scene: Scene) -> None:
    writer = scene.writer
    root = writer.craft.honest(
        [file(b"a", b"the truth, the whole truth"), directory(b"d"), file(b"d/e", b"and more")]
    )
    writer.on_contents = lambda request: (
        TransferAnswer(index, AnswerStatus.WHOLE, 0, bytes(entry.size))
        for index, entry in enumerate(writer.entries_of(request))
    )
    scene.refuses("content_mismatch", attack=lambda: writer.announce(writer.generation(root)))
    large = file(b"large", b"", size=3 << 20, digest=Digest(b"d" * 32), extra=Extra(chunks=Digest(b"c" * 32)))
    root = writer.craft.honest([large])
    writer.craft.pages[Digest(b"c" * 32)] = b"evil"
    scene.refuses("content_mismatch", attack=lambda: writer.announce(writer.generation(root)))
    scene.heal()


# The stream ---------------------------------------------------------------------------------------------------


def _line(number: int) -> LineId:
    return LineId(fileset_name(f"f{number}"), node_name("main"))


def test_a_stream_of_rubbish_is_cut_and_named(scene: Scene) -> None:
    writer = scene.writer
    bomb = msgspec.msgpack.encode(["error", "evil", "boo"])[: -0 or None]
    facts = b"\x81\xa1x\xdd" + (3 << 20).to_bytes(4, "big") + b"\x90" * (3 << 20)
    bomb = b"\x94\xa5error\xa4evil\xa3boo" + facts
    attacks: dict[str, tuple[str, bytes]] = {
        "no message": ("bad_message", b"\xc1"),
        "nothing": ("bad_message", b""),
        "deep": ("bad_message", b"\x91" * 100_000),
        "unknown": ("bad_message", msgspec.msgpack.encode(["run", ["/bin/sh"]])),
        "too large": ("bad_message", bytes(5 << 20)),
        "a welcome": ("unexpected_message", m.encode(m.Welcome(1, writer.name, b"", 1))),
        "a report": (
            "unexpected_message",
            m.encode(m.Hello(m.VERSIONS, node_name("main"), b"")),
        ),
        "facts without end": ("evil", bomb),
    }
    for name, (code, raw) in attacks.items():
        writer.await_streams("s1")
        since = wall_ms()
        writer.push_raw(raw)
        try:
            scene.victim.await_code(since, code)
            scene.victim.assert_unharmed()
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error
    writer.await_streams("s1")
    scene.heal()


def test_floods_on_the_stream_are_bounded(scene: Scene) -> None:
    """Pings, heads, offers, members, verifications, page requests and errors, by the thousand."""
    writer, victim = scene.writer, scene.victim
    head = scene.heal()
    old = m.Head(writer.line, writer.generation(head.root, number=1), writer.epochs)
    many = m.Members(
        tuple(m.Member(node_name(f"n{number}"), "x:1", "0" * 64, b"", wall_ms()) for number in range(4_000))
    )
    floods: list[tuple[bytes, int]] = [
        (m.encode(m.Ping(1)), 10_000),
        (m.encode(old), 1_000),
        (m.encode(m.ErrorReply("evil", "\x1b[2J" * 900)), 2_000),
        (m.encode(m.VerifyRequest(1, writer.line, True)), 2_000),
        (m.encode(m.PagesRequest(writer.line, head.id, (head.root,) * 256, 1)), 1_000),
        (m.encode(m.Nudge(writer.line, "retry")), 2_000),
        (m.encode(many), 20),
        (m.encode(m.Revocations(writer.pki.crl_pem())), 500),
    ]
    since = wall_ms()
    for raw, times in floods:
        writer.await_streams("s1")
        writer.push_raw(raw, times=times)
        victim.assert_unharmed()
    for number in range(1_100):
        writer.push(m.Offer(_line(number), writer.name, "mirror", "metadata", definition=bytes(8_000)))
    eventually(lambda: victim.call("ping"), 30)
    assert len(victim.events(since)) < 300
    assert len(victim.call("node_list")["nodes"]) < 1_100
    writer.await_streams("s1", timeout=240.0)  # it dials later and later, for every flood ended its link
    scene.heal()


def test_a_bundle_brings_only_what_belongs(scene: Scene) -> None:
    writer = scene.writer
    things = scene.honest_things()
    root = writer.craft.honest(things)
    foreign = writer.craft.pages[writer.craft.leaf([file(b"foreign", os.urandom(8))])]
    bundle = m.Bundle(
        (foreign, b"rubbish", b"", *(writer.craft.pages[root],)),
        tuple(
            (entry.digest, b"evil" if n else data) for n, (entry, data) in enumerate(things) if entry.digest
        ),
    )
    head = writer.announce(writer.generation(root), bundle=bundle)
    scene.victim.await_live(head)
    scene.heal()
