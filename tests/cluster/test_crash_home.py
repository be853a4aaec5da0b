"""The home is killed while it makes changes from elsewhere: none that it accepted is lost, none is made twice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import secrets
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import instep.daemon.process  # noqa: F401  registers every failpoint
from instep.errors import InstepError, Retry
from instep.model.change import ChangeAnswer, ChangeSet, PathChange, wanted_contents
from instep.model.ids import fileset_name, node_name
from instep.model.manifest.entry import Entry, Kind
from instep.net.client import PeerClient
from instep.net.connections.tls import TlsContexts
from instep.net.messages import messages as m
from instep.net.transfer import AnswerStatus, TransferAnswer
from instep.net.trust.pki import Pki
from instep.tree.objects.digest import digest_bytes
from instep.tree.root.failpoints import registered
from tests.support.crashes import LINE, Crasher, crashers
from tests.support.fleet import Fleet
from tests.support.peers import now_ms
from tests.support.waiting import eventually_async

HERE = ("home", "offered", "compared", "archive", "journal", "switch")
NOT_HIT = frozenset(
    {
        "archive.dropping",
        "archive.pruning",
        "compared.given_back",
        "compared.linked",
        "compared.linked_back",
        "compared.replaced",
        "compared.returned",
        "journal.outdated",
        "switch.dropping",
        "switch.entry_moved",
        "switch.exchanged",
        "switch.linked",
        "switch.taken",
    }
)
"""Of switches without flags, of paths that change meanwhile, and of switches that do not compare."""
ALSO = ("stage.laid", "stage.sealed", "publish.commit.before", "publish.commit.after", "switch.step.after:2")
ANSWER_S = 60.0
KILLS = 8
KILLED_WITHIN_S = 0.4


def specs() -> list[str]:
    return [*(name for name in registered() if name.split(".")[0] in HERE and name not in NOT_HIT), *ALSO]


def live(tree: Path, path: str) -> Entry | None:
    """The entry of a file as it lies there, which the head has."""
    file = tree / path
    if not file.exists():
        return None
    data, about = file.read_bytes(), file.stat()
    return Entry(
        path.encode(), Kind.FILE, about.st_mode & 0o7777, len(data), about.st_mtime_ns, digest_bytes(data), 0
    )


class Submitter:
    """The node ``s1``, whose daemon is down, as a program that knows the protocol."""

    def __init__(self, fleet: Fleet) -> None:
        self.tls = TlsContexts(Pki(fleet["s1"].directory / "pki"))
        self.address = f"127.0.0.1:{fleet['main'].port}"
        self.tree = fleet.tree("main")

    def changes(self, wanted: dict[str, bytes | None]) -> ChangeSet:
        made = []
        for path, data in sorted(wanted.items()):
            new = None
            if data is not None:
                new = Entry(
                    path.encode(),
                    Kind.FILE,
                    0o644,
                    len(data),
                    1_700_000_000_000_000_000,
                    digest_bytes(data),
                    0,
                )
            made.append(PathChange(path.encode(), live(self.tree, path), new))
        nonce = secrets.token_bytes(16)
        return ChangeSet(1, fileset_name("data"), node_name("main"), nonce, "ann", "", now_ms(), tuple(made))

    async def submit(self, change_set: ChangeSet, wanted: dict[str, bytes | None]) -> ChangeAnswer:
        by_digest = {digest_bytes(data): data for data in wanted.values() if data is not None}
        contents = wanted_contents(change_set)

        def sent() -> Iterator[TransferAnswer]:
            for want, (digest, _) in enumerate(contents):
                yield TransferAnswer(want, AnswerStatus.WHOLE, 0, by_digest[digest])

        client = PeerClient(self.tls, node_name("main"), self.address)
        try:
            request = m.SubmitRequest(LINE, change_set.encoded(), contents)
            return (await client.submit(request, sent())).answer
        finally:
            await client.close()


@pytest.mark.timeout(900)
async def test_killed_at_every_failpoint_of_an_accepted_change_set(fleet: Fleet) -> None:
    """Goal: wherever the home dies, the same set submitted again has an answer with every path made, the tree holds
    it, one generation has it, and replaced bytes are in the archive. Method: the home is armed and dies during a
    submission; it is started again and given the same set."""
    tree = fleet.tree("main")
    async with _home(fleet) as (main, s1, number):
        for spec in specs():
            number = await _killed_at(main, s1, tree, spec, number)


@contextlib.asynccontextmanager
async def _home(fleet: Fleet) -> AsyncIterator[tuple[Crasher, Submitter, int]]:
    """The home ``main``, the node ``s1`` that submits to it, and the number of the newest generation."""
    fleet.make(1)
    fleet.write({"a": "begun", "gone": "begun", "keep": "kept"})
    fleet.publish()
    fleet["main"].run("fileset", "set", "data", "offers_from=s1", "max_deletions=1000")
    fleet["s1"].stop()
    with crashers(fleet, "main") as (main,):
        yield main, Submitter(fleet), main.line()["head"]["number"]


async def _killed_at(main: Crasher, s1: Submitter, tree: Path, spec: str, number: int) -> int:
    """The number of the newest generation."""
    wanted = _wanted(spec)
    change_set = s1.changes(wanted)
    main.kill()
    main.start(spec)
    with pytest.raises(InstepError):
        await s1.submit(change_set, wanted)
    assert main.await_end() == -signal.SIGKILL, spec
    return await _made_once(main, s1, tree, spec, number, change_set)


def _wanted(name: str) -> dict[str, bytes | None]:
    text = f"by {name}".encode()
    return {"a": text, "gone": None, f"new-{name}": text + b" too"}


async def _made_once(
    main: Crasher, s1: Submitter, tree: Path, spec: str, number: int, change_set: ChangeSet
) -> int:
    """Start the home again and submit the set again: every path is made, by one generation."""
    wanted = _wanted(spec)
    main.start()
    answer = await eventually_async(
        lambda: _answered(s1, change_set, wanted),
        ANSWER_S,
        lambda: f"the answer after {spec}\n{main.node.log(40)}",
    )
    assert answer is not None
    assert all(outcome.is_made for outcome in answer.outcomes), (spec, answer)
    assert answer.head is not None and answer.head.number == number + 1, (spec, answer)
    assert main.line()["head"]["number"] == number + 1, spec
    for path, data in wanted.items():
        at = tree / path
        assert (at.read_bytes() if at.exists() else None) == data, (spec, path)
    assert (tree / "keep").read_text() == "kept"
    assert await s1.submit(change_set, wanted) == answer, spec
    left = [name for name in ("journal", "stage", "offered") if _holds(main, tree, name)]
    assert left == [], spec
    (tree / "gone").write_text(f"again after {spec}")
    main.call("publish")
    main.note_numbers()
    head: int = main.line()["head"]["number"]
    return head


@pytest.mark.timeout(600)
async def test_killed_at_any_moment_of_an_accepted_change_set(fleet: Fleet) -> None:
    """Goal: the same, wherever the processor was. Method: a signal after a time that a seed draws."""
    seed = int(os.environ.get("INSTEP_SEED", "1"))
    chance = random.Random(seed)
    tree = fleet.tree("main")
    async with _home(fleet) as (main, s1, number):
        for count in range(KILLS):
            wanted = _wanted(f"{seed}-{count}")
            change_set = s1.changes(wanted)
            killer = threading.Timer(chance.uniform(0, KILLED_WITHIN_S), main.kill)
            killer.start()
            with contextlib.suppress(InstepError):
                await s1.submit(change_set, wanted)
            await asyncio.to_thread(killer.join)
            number = await _made_once(main, s1, tree, f"{seed}-{count}", number, change_set)


async def _answered(
    s1: Submitter, change_set: ChangeSet, wanted: dict[str, bytes | None]
) -> ChangeAnswer | None:
    try:
        return await s1.submit(change_set, wanted)
    except InstepError as error:
        if error.retry is not Retry.LATER:
            raise
        return None


def _holds(main: Crasher, tree: Path, name: str) -> bool:
    (control,) = tree.parent.glob(".instep-*")
    at = control / name
    return at.exists() and (not at.is_dir() or bool(os.listdir(at)))
