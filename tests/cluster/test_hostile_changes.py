"""A partner that may offer changes, and one that may not, turn hostile towards a home: what they send is refused by name,
the tree stays as it is, memory stays bounded."""

from __future__ import annotations

import asyncio
import io
import os
import time
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from blake3 import blake3

from instep.errors import InstepError
from instep.model.change import (
    CHANGE_SET_VERSION,
    ChangeSet,
    Fence,
    OutcomeKind,
    PathChange,
    PathOutcome,
    wanted_contents,
)
from instep.model.ids import Digest, LineId, fileset_name, node_name
from instep.model.lock import LockGone, LockGranted
from instep.model.manifest.entry import Entry, Kind
from instep.net.client import PeerClient
from instep.net.connections.tls import TlsContexts
from instep.net.messages import messages as m
from instep.net.service import LOCK, LOCKS, SUBMIT_HAVE, UNLOCK
from instep.net.transfer import AnswerStatus, TransferAnswer
from instep.net.trust.pki import Pki
from tests.support import peers
from tests.support.fleet import Fleet, tree_of
from tests.support.hostile import Looped, Victim

DATA = LineId(fileset_name("data"), node_name("main"))
FENCE = Fence(1, 1, b"l" * 16)


class Scene:
    """``main`` writes ``data`` and takes changes of ``mal``, whose keys the test holds; those of ``eve`` it does not."""

    def __init__(self, base: Path) -> None:
        self.fleet = Fleet(base)
        self.looped = Looped()
        tree = self.fleet.tree("main")
        tree.mkdir(parents=True)
        for number in range(60):
            (tree / f"f{number:02}").write_text(f"{number}\n")
        (tree / "logs").mkdir()
        self.fleet.make(0, add=("--settle", "20ms", "--ignore", "logs/"))
        main = self.fleet.main
        main.run("invite", "mal", "eve", "--from", "127.0.0.1")
        config = main.directory / "instep.toml"
        for name in ("mal", "eve"):
            if f"[partners.{name}]" not in config.read_text():
                config.write_text(f"{config.read_text()}\n[partners.{name}]\nreplicate = true\ndata = true\n")
        main.run("config", "reload")
        main.run("fileset", "set", "data", "offers_from=mal")
        self.fleet.publish()
        ca = Pki(main.directory / "pki")
        self.mal = peers.member(ca, base / "mal-pki", "mal", life_s=86_400)
        self.eve = peers.member(ca, base / "eve-pki", "eve", life_s=86_400)
        self.tree = tree
        self.victim = Victim(main, tree, {})

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.fleet.main.port}"

    def dial(self, pki: Pki) -> PeerClient:
        async def make() -> PeerClient:
            return PeerClient(TlsContexts(pki), node_name("main"), self.address)

        return self.looped.run(make())

    def code(self, work: Awaitable[Any]) -> str:
        async def caught() -> str:
            try:
                await work
            except InstepError as error:
                return error.error_code
            return "no error"

        return self.looped.run(caught(), 120)

    def outcomes(
        self, client: PeerClient, change_set: ChangeSet, *contents: bytes
    ) -> tuple[PathOutcome, ...]:
        reply = self.looped.run(client.submit(asked(change_set), pieces(*contents)), 120)
        return reply.answer.outcomes


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    made = Scene(tmp_path_factory.mktemp("changes"))
    try:
        yield made
    finally:
        made.looped.close()
        made.fleet.close()


def digest(data: bytes) -> Digest:
    return Digest(blake3(data).digest())


def file(path: bytes, data: bytes, tree: Path | None = None) -> Entry:
    """The entry of a file with these bytes, or of the file that lies in the tree."""
    if tree is None:
        return Entry(path, Kind.FILE, 0o644, len(data), 5, digest(data), 1)
    found = os.stat(os.path.join(os.fsencode(tree), path))
    return Entry(path, Kind.FILE, found.st_mode & 0o7777, found.st_size, found.st_mtime_ns, digest(data), 1)


def changes(*of: PathChange, token: Fence | None = None, whole: bool = False) -> ChangeSet:
    now = time.time_ns() // 1_000_000
    return ChangeSet(
        CHANGE_SET_VERSION, DATA.fileset, DATA.origin, os.urandom(16), "mal", "", now, of, token, whole
    )


def asked(change_set: ChangeSet) -> m.SubmitRequest:
    return m.SubmitRequest(DATA, change_set.encoded(), wanted_contents(change_set))


def pieces(*contents: bytes) -> Iterator[TransferAnswer]:
    return iter([TransferAnswer(want, AnswerStatus.WHOLE, 0, data) for want, data in enumerate(contents)])


def test_a_partner_that_is_not_named_learns_and_changes_nothing(scene: Scene) -> None:
    """Goal: locks, lists, which contents are here, and changes: the same refusal for all, whatever is there."""
    eve, before = scene.dial(scene.eve), tree_of(scene.tree)
    known, unknown = digest(b"0\n"), digest(b"never there")
    change_set = changes(PathChange(b"new", None, file(b"new", b"x")))
    for work in (
        eve.call(LOCK, m.LockRequest(DATA, b"f00", "eve", base=known)),
        eve.call(LOCKS, m.LocksRequest(DATA)),
        eve.call(SUBMIT_HAVE, m.SubmitHave(DATA, ((known, 2), (unknown, 2)))),
        eve.call(UNLOCK, m.UnlockRequest(DATA, b"f00", FENCE)),
        eve.submit(asked(change_set), pieces(b"x")),
    ):
        assert scene.code(work) == "offers_not_taken"
    assert tree_of(scene.tree) == before
    scene.looped.run(eve.close())


def test_paths_that_lead_out_or_are_no_paths_are_refused(scene: Scene) -> None:
    """Goal: ``..``, an absolute path, the control folder, NUL, components and paths that are too long, and paths out of
    order: refused before anything is looked at."""
    mal, before = scene.dial(scene.mal), tree_of(scene.tree)
    for path in (
        b"../out", b"a/../../out", b"/etc/passwd", b".instep/id", b"a\0b", b"a//b", b"x" * 256, b"/".join([b"x" * 200] * 30),
    ):  # fmt: skip
        change_set = changes(PathChange(path, None, file(path, b"x")))
        assert scene.code(mal.submit(asked(change_set), pieces(b"x"))) in ("bad_path", "bad_message"), path
    late, early = (PathChange(path, None, file(path, b"x")) for path in (b"z", b"a"))
    assert scene.code(mal.submit(asked(changes(late, early)), pieces(b"x"))) == "bad_change_set"
    below = changes(PathChange(b"a", None, file(b"a", b"x")), PathChange(b"a/b", None, file(b"a/b", b"x")))
    assert scene.code(mal.submit(asked(below), pieces(b"x"))) == "bad_change_set"
    assert tree_of(scene.tree) == before
    assert not (scene.tree.parent / "out").exists()
    scene.looped.run(mal.close())


def test_contents_that_are_others_or_too_many_change_nothing(scene: Scene) -> None:
    """Goal: other bytes than the digest, contents that the set does not name, and none at all: nothing is laid; the right
    bytes are taken afterwards."""
    mal, before = scene.dial(scene.mal), tree_of(scene.tree)
    change_set = changes(PathChange(b"lie", None, file(b"lie", b"right")))
    assert scene.code(mal.submit(asked(change_set), pieces(b"wrong"))) != "no error"
    extra = msgspec.structs.replace(
        asked(change_set), contents=((digest(b"right"), 5), (digest(b"other"), 5))
    )
    assert scene.code(mal.submit(extra, pieces(b"right", b"other"))) == "bad_change_set"
    none = msgspec.structs.replace(asked(change_set), contents=())
    assert scene.code(mal.submit(none, pieces())) != "no error"
    assert tree_of(scene.tree) == before
    (made,) = scene.outcomes(mal, change_set, b"right")
    assert made.kind is OutcomeKind.APPLIED and (scene.tree / "lie").read_bytes() == b"right"
    scene.looped.run(mal.close())


def test_a_change_with_a_false_base_an_invented_token_or_for_an_ignored_path(scene: Scene) -> None:
    """Goal: outdated with what lies there; a token of no lock neither helps nor ends another's lock; an ignored path is
    refused. The same set sent again gets the same answer, and is not made again."""
    mal, before = scene.dial(scene.mal), tree_of(scene.tree)
    false = PathChange(b"f01", file(b"f01", b"another\n"), file(b"f01", b"mine\n"))
    ignored = PathChange(b"logs/x", None, file(b"logs/x", b"log\n"))
    change_set = changes(false, ignored, token=FENCE)
    first = scene.outcomes(mal, change_set, b"mine\n", b"log\n")
    assert first[0].kind in (OutcomeKind.OUTDATED, OutcomeKind.EXPIRED) and first[0].entry is not None
    assert (first[1].kind, first[1].code) == (OutcomeKind.REFUSED, "ignored")
    assert scene.outcomes(mal, change_set, b"mine\n", b"log\n") == first
    gone = scene.looped.run(mal.call(UNLOCK, m.UnlockRequest(DATA, b"f01", FENCE))).answer
    assert isinstance(gone, LockGone)
    scene.fleet.main.run("lock", "acquire", "data", "f02", "--owner", "ana")
    right = PathChange(b"f02", file(b"f02", b"2\n", scene.tree), file(b"f02", b"mine\n"))
    (locked,) = scene.outcomes(mal, changes(right, token=FENCE), b"mine\n")
    assert locked.kind is OutcomeKind.LOCKED and "ana" in locked.owner
    scene.fleet.main.run("lock", "release", "data", "f02", "--owner", "ana")
    assert tree_of(scene.tree) == before
    scene.looped.run(mal.close())


def test_a_mass_removal_is_refused_by_the_home_itself(scene: Scene) -> None:
    """Goal: a partner whose own guard is off does not empty the home; in pieces neither."""
    mal = scene.dial(scene.mal)
    names = [path for path in sorted(scene.tree.glob("f*")) if path.is_file()]

    def removal(path: Path) -> PathChange:
        raw = os.fsencode(path.name)
        return PathChange(raw, file(raw, path.read_bytes(), scene.tree), None)

    found = scene.outcomes(mal, changes(*map(removal, names)))
    assert {each.kind for each in found} == {OutcomeKind.REFUSED}
    assert {each.code for each in found} == {"max_deletions"}
    for start in range(0, len(names), 8):
        scene.outcomes(mal, changes(*map(removal, names[start : start + 8])))
    left = len([path for path in names if path.exists()])
    assert left * 2 >= len(names) - 2, left
    scene.looped.run(mal.close())


def test_ten_million_paths_cost_no_memory(scene: Scene) -> None:
    """Goal: a set that claims millions of tiny changes, one of the largest size, and many at once: refused by their size or
    count, and the daemon does not grow by much."""
    context = TlsContexts(scene.mal).client_for(node_name("main"))
    headers = {m.VERSION_HEADER: str(m.VERSIONS)}
    before = scene.victim.rss_bytes()
    head = msgspec.msgpack.encode((1, "data", "main", b"n" * 16, "", "", 1))[1:]
    tiny = b"\x9a" + head + b"\xdd\x00\x2f\x00\x00" + b"\x93\xc4\x00\xc0\xc0" * 3_000_000
    claimed = b"\x9a" + head + b"\xdd\x00\x98\x96\x80"

    async def post(change_set: bytes) -> str:
        raw = m.encode(m.SubmitRequest(DATA, change_set))
        body = len(raw).to_bytes(4, "big") + raw + b"\xff\x00\x00\x00\x00\x00\x00\x00\x00"
        url = f"https://{scene.address}{m.PREFIX}submit"
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                url, data=io.BytesIO(body), ssl=context, server_hostname="main", headers=headers
            ) as answer,
        ):
            return m.decode(await answer.read(), m.ErrorReply).code

    for raw in (tiny, claimed):
        assert scene.looped.run(post(raw), 120) == "bad_change_set"
    too_large = b"\x9a" + head + b"\xdd\x00\x2f\x00\x00" + bytes(17 << 20)
    assert scene.looped.run(post(too_large), 120) in ("too_large", "bad_message", "bad_change_set")

    async def many() -> set[str]:
        return set(await asyncio.gather(*(post(tiny) for _ in range(6))))

    assert scene.looped.run(many(), 240) <= {"bad_change_set", "busy"}
    assert scene.victim.rss_bytes() - before < 250 << 20


def test_locks_of_a_partner_are_bounded_and_bound_to_it(scene: Scene) -> None:
    """Goal: one person takes not everything: there is a cap; the node of an owner is the verified peer, so that a lock of
    another node cannot be ended with its token."""
    mal = scene.dial(scene.mal)

    async def lock_all() -> list[Any]:
        found = []
        for number in range(120):
            request = m.LockRequest(DATA, b"free%03d" % number, "mal", ttl_ms=60_000)
            found.append((await mal.call(LOCK, request)).answer)
        return found

    answers = scene.looped.run(lock_all(), 120)
    assert isinstance(answers[0], LockGranted) and not isinstance(answers[-1], LockGranted)
    assert sum(isinstance(each, LockGranted) for each in answers) <= 100
    for each, number in zip(answers, range(120), strict=True):
        if isinstance(each, LockGranted):
            scene.looped.run(mal.call(UNLOCK, m.UnlockRequest(DATA, b"free%03d" % number, each.fence)))
    row = scene.fleet.main.run("lock", "acquire", "data", "f03").json
    epoch, counter, lock_id = row["token"].split(".")
    fence = Fence(int(epoch), int(counter), bytes.fromhex(lock_id))
    scene.looped.run(mal.call(UNLOCK, m.UnlockRequest(DATA, b"f03", fence)))
    assert [each["path"] for each in scene.fleet.main.run("lock", "list").json["locks"]] == ["f03"]
    scene.looped.run(mal.close())
