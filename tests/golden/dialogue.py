"""Dialogues with a machine as text: its events after ``>``, its effects after ``<``, one line each."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random
from typing import Any

from instep.core.changes.home import HomeMachine
from instep.core.changes.offer import OfferMachine
from instep.core.cluster.lease import LeaseMachine
from instep.core.follow import vocabulary as f
from instep.core.follow.machine import FollowMachine
from instep.core.keep import vocabulary as k
from instep.core.keep.machine import KeepMachine
from instep.core.publish import vocabulary as p
from instep.core.publish.machine import PublishMachine
from instep.core.rollout.machine import RolloutMachine
from instep.core.unite import vocabulary as u
from instep.core.unite.machine import UniteMachine
from instep.core.vocabulary import SignerVerdict
from instep.model.generation import EpochBody, GenerationBody, Signature, SignedEpoch, SignedGeneration
from instep.model.ids import EMPTY_DIGEST, Digest, FilesetName, HeadRef, LineId, NodeName
from instep.testing.world.world import words

LINE = LineId(FilesetName("catalog"), NodeName("main"))
MAIN = NodeName("main")
HUB = NodeName("hub")
OK = SignerVerdict(True, MAIN)
Machine = (
    FollowMachine | KeepMachine | PublishMachine | RolloutMachine | HomeMachine | LeaseMachine | OfferMachine
)
TRANSCRIPTS = Path(__file__).parent / "transcripts"


def digest(text: str) -> Digest:
    return Digest(text.encode().ljust(32, b"."))


def generation(number: int, epoch: int = 1, root: str = "", signer: NodeName = MAIN) -> SignedGeneration:
    body = GenerationBody(
        1, LINE.fileset, LINE.origin, epoch, number, EMPTY_DIGEST, digest(root or f"root {number}"),
        digest("definition"), "ana", "", 0, 1, 1,
    )  # fmt: skip
    return SignedGeneration(body.encoded(), Signature(signer, b"key", b"value"))


def epoch(number: int = 1, writer: NodeName = MAIN, base: str = "") -> SignedEpoch:
    body = EpochBody(
        1, LINE.fileset, LINE.origin, number, writer, b"key", digest(base) if base else EMPTY_DIGEST
    )
    return SignedEpoch(body.encoded(), Signature(MAIN, b"key", b"value"))


def ref(number: int, root: str = "") -> HeadRef:
    return generation(number, root=root).ref()


class Dialogue:
    """Feeds a machine and keeps the transcript. Answers name the request of the effect that asked: the last."""

    def __init__(self, machine: Machine) -> None:
        self.machine: Any = machine
        self.lines: list[str] = []
        self.now = 0
        self.effects: tuple[Any, ...] = ()

    def at(self, now_ms: int) -> Dialogue:
        self.now = now_ms
        return self

    def say(self, *events: Any) -> Dialogue:
        for event in events:
            self.lines.append(f"{self.now:>6} > {_shown(event)}")
            self.effects = self.machine.step(event, self.now)
            for effect in self.effects:
                if type(effect).__name__ == "SetTimer" and effect.name in (
                    "poll",
                    "drift-scan",
                    "contact",
                    "rescan",
                ):
                    continue
                self.lines.append(f"       < {_shown(effect)}")
        return self

    def asked(self, kind: Any) -> int:
        """The number of the request of this kind in the last step."""
        return next(int(e.req) for e in self.effects if isinstance(e, kind))

    def pending(self, name: str) -> int:
        """The number of the last request of this name, in whichever step it was made."""
        line = next(line for line in reversed(self.lines) if f"< {name} " in line)
        return int(line.split("req=")[1].split()[0])

    def check(self, name: str, *, write: bool = False) -> None:
        """Compare with the kept transcript; ``write`` keeps a new one."""
        path = TRANSCRIPTS / f"{name}.txt"
        text = "\n".join(self.lines) + "\n"
        if write or not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        assert text == path.read_text(), f"the dialogue {name} changed; delete {path} to keep the new one"


def _shown(what: Any) -> str:
    text = words(what)
    for name in ("absent", "withheld"):
        if getattr(what, name, ()):
            text += f" {name}={','.join(str(getattr(each, 'origin', each)) for each in getattr(what, name))}"
    reason = getattr(what, "reason", None)
    if reason:
        text += f" reason={reason!r}"
    outcome = getattr(what, "outcome", None)
    if outcome is not None:
        text += f" request={what.request} outcome={words(outcome)}"
    if type(what).__module__.startswith("instep.core.cluster"):
        fields = {
            name: getattr(what, name)
            for name in ("fence", "until_ms", "holder", "era")
            if hasattr(what, name)
        }
        text += "".join(f" {name}={value}" for name, value in fields.items() if value != "")
        text += f" why={what.why.value}" if hasattr(what, "why") else ""
        text += f" answer=({_shown(what.answer)})" if hasattr(what, "answer") else ""
    return re.sub(r"\s+", " ", text)


def follower(facts: f.FollowFacts | None = None, **config: Any) -> Dialogue:
    settings = f.FollowConfig(writer=MAIN, **config)
    return Dialogue(FollowMachine(LINE, settings, Random(1), facts))


def publisher(facts: p.PublishFacts | None = None, **config: Any) -> Dialogue:
    settings = p.PublishConfig(node=MAIN, **config)
    return Dialogue(PublishMachine(LINE, settings, Random(1), facts))


def uniter(facts: u.UniteFacts | None = None, **config: Any) -> Dialogue:
    settings = f.FollowConfig(writer=MAIN, drift=f.DriftPolicy.OFFER, **config)
    return Dialogue(UniteMachine(LineId(LINE.fileset, NodeName("*")), settings, Random(1), facts))


def keeper(facts: k.KeepFacts | None = None, **config: Any) -> Dialogue:
    settings = k.KeepConfig(writer=MAIN, **config)
    return Dialogue(KeepMachine(LINE, settings, Random(1), facts))
