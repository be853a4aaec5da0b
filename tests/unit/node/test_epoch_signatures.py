"""Epoch records with real keys: which nodes may give an epoch away, and which only try."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from instep.core.lines.accept import AcceptedEpoch, EpochBook, OldRecord, Refused, judge_epoch
from instep.model.generation import UNSIGNED, EpochBody, Signature, SignedEpoch
from instep.model.ids import EMPTY_DIGEST, FilesetName, LineId, NodeName, node_name
from instep.net.trust import keystore
from instep.net.trust.pki import Pki
from instep.node.runtime.runtime import Runtime
from instep.node.runtime.signers import verdict_on
from instep.store.memory import MemoryStore

NOW = int(time.time() * 1000)
MAIN, S1, S2 = node_name("main"), node_name("s1"), node_name("s2")
LINE = LineId(FilesetName("app"), MAIN)


@dataclass
class Receiver:
    """What ``verdict_on`` asks of a runtime: the keys that this node trusts, its store, and the names of its cluster."""

    pki: Pki
    store: MemoryStore = field(default_factory=MemoryStore)
    book: EpochBook = field(default_factory=EpochBook)
    is_ours: Callable[[NodeName], bool] = lambda _: False

    def judge(self, record: SignedEpoch) -> AcceptedEpoch | Refused | object:
        verdict = verdict_on(cast(Runtime, self), record.signature, record.id)
        judged = judge_epoch(record, verdict, LINE, self.book, MAIN)
        if isinstance(judged, AcceptedEpoch):
            self.book = judged.book
        return judged

    def refuses(self, record: SignedEpoch) -> str:
        before = self.book
        judged = self.judge(record)
        assert isinstance(judged, Refused), judged
        assert self.book == before
        return judged.trouble.code


@pytest.fixture
def home(tmp_path: Path) -> Pki:
    return Pki.create(tmp_path / "main", "maps", MAIN, NOW)


def joined(home: Pki, directory: Path, name: NodeName) -> Pki:
    pki = Pki(directory)
    issued = home.issue(name, *pki.requests(name), NOW)
    pki.install(name, home.authorities_pem(), issued, home.crl_pem())
    return pki


def record(epoch: int, writer: Pki, by: Pki, *, as_ca: bool = False, line: LineId = LINE) -> SignedEpoch:
    raw = EpochBody(1, line.fileset, line.origin, epoch, writer.name, writer.sign_key, EMPTY_DIGEST).encoded()
    id_ = SignedEpoch(raw, UNSIGNED).id
    return SignedEpoch(raw, by.sign_as_ca(id_) if as_ca else by.sign(id_))


def test_only_the_writer_before_or_the_ca_gives_an_epoch_away(home: Pki, tmp_path: Path) -> None:
    s1, s2 = joined(home, tmp_path / "s1", S1), joined(home, tmp_path / "s2", S2)
    foreign = Pki.create(tmp_path / "foreign", "maps", MAIN, NOW)
    node = Receiver(s2)
    assert isinstance(node.judge(record(1, home, home)), AcceptedEpoch)

    assert node.refuses(record(2, s1, s1)) == "not_entitled"
    assert node.refuses(record(2, s1, foreign, as_ca=True)) == "signer_unknown"
    assert node.refuses(record(2, s1, foreign)) == "signer_unknown"
    other = LineId(FilesetName("other"), MAIN)
    assert node.refuses(record(2, s1, home, as_ca=True, line=other)) == "wrong_line"
    honest = record(2, s1, home, as_ca=True)
    changed = SignedEpoch(record(2, s2, home).raw, honest.signature)
    assert node.refuses(changed) == "bad_signature"
    by_node = s1.sign(honest.id)
    without_chain = Signature(MAIN, by_node.key, by_node.value, ())
    assert node.refuses(SignedEpoch(honest.raw, without_chain)) == "signer_unknown"
    ca_key_named = Signature(MAIN, honest.signature.key, by_node.value, ())
    assert node.refuses(SignedEpoch(honest.raw, ca_key_named)) == "bad_signature"

    assert isinstance(node.judge(record(2, s1, home)), AcceptedEpoch)
    assert isinstance(node.judge(record(1, s2, home, as_ca=True)), OldRecord)
    assert node.refuses(record(3, s2, home)) == "not_entitled"


def test_a_revoked_writer_gives_nothing_away_and_the_ca_does(home: Pki, tmp_path: Path) -> None:
    s1, s2 = joined(home, tmp_path / "s1", S1), joined(home, tmp_path / "s2", S2)
    node = Receiver(home)
    assert isinstance(node.judge(record(1, home, home)), AcceptedEpoch)
    assert isinstance(node.judge(record(2, s1, home)), AcceptedEpoch)
    home.revoke(S1, NOW)
    assert node.refuses(record(3, s2, s1)) == "signer_revoked"
    assert isinstance(node.judge(record(3, s2, home, as_ca=True)), AcceptedEpoch)


def test_a_restored_backup_gives_the_epoch_away_when_the_old_home_is_gone(home: Pki, tmp_path: Path) -> None:
    s1, s2 = joined(home, tmp_path / "s1", S1), joined(home, tmp_path / "s2", S2)
    node = Receiver(s2)
    assert isinstance(node.judge(record(1, home, home)), AcceptedEpoch)
    keystore.backup(home, tmp_path / "ca.backup", b"correct horse battery", NOW)
    for path in sorted(home.directory.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    restored = keystore.restore(tmp_path / "ca.backup", tmp_path / "again", b"correct horse battery")
    judged = node.judge(record(2, s1, restored, as_ca=True))
    assert isinstance(judged, AcceptedEpoch), judged
    assert judged.book.current is not None
    assert judged.book.current.writer == S1
