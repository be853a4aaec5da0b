"""Golden answers of one fileset: recorded while the old generation is live, compared once the new one is.

Part of the partner's probe step, so that a difference is a failed probe. The recorded answers lie in the node's
state with the generation that they belong to, and outlive a crash between the switch and the probe.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Sequence

import msgspec

from instep.core.vocabulary import Trouble
from instep.errors import Retry
from instep.fleet.golden.golden import ask_all, judge, named
from instep.fleet.golden.spec import CompareBy, GoldenAnswer, GoldenSpec, GoldenVerdict
from instep.fleet.hooks.spec import HookSpec
from instep.model.counts import sized
from instep.model.ids import HeadRef
from instep.node.config.filesets import FilesetSettings
from instep.node.config.golden import GoldenSettings
from instep.node.runtime.runtime import Runtime
from instep.store.port import NodeStore

KEPT_BYTES_MAX = 16 << 20
"""Bytes of pictures in one recording; one that would need more is not kept, and is named."""
BACKOFF_MS = 500


class Slot(enum.Enum):
    """Which answers: from before the switch, from after it, or through the balancer."""

    BEFORE = "before"
    LIVE = "live"
    BALANCER = "balancer"


class Recording(msgspec.Struct, frozen=True, array_like=True):
    """Answers that a generation gave."""

    version: int
    generation: HeadRef
    at_ms: int
    answers: tuple[GoldenAnswer, ...]

    def answer(self, name: str) -> GoldenAnswer | None:
        return next((one for one in self.answers if one.name == name), None)


def specs_of(settings: GoldenSettings, base: str | None) -> tuple[GoldenSpec, ...]:
    """What to ask at ``base``; nothing where it is None."""
    if base is None:
        return ()
    return tuple(
        GoldenSpec(
            name=one.name,
            ask=HookSpec(
                http=(one.method, base + one.path),
                timeout_ms=settings.timeout_ms,
                retries=settings.retries,
                auth_file=settings.auth_file,
                headers_file=settings.headers_file,
                body=one.body,
                expect_status=one.expect_status,
                tls=settings.tls,
            ),
            compare=CompareBy(one.compare),
            ignore=one.ignore,
            tolerance=one.tolerance,
            max_share_percent=one.max_share_percent,
            is_change_expected=one.is_change_expected,
        )
        for one in settings.requests
    )


class Golden:
    """One per fileset. ``fileset`` is replaced when the configuration changes."""

    def __init__(self, runtime: Runtime, fileset: FilesetSettings) -> None:
        self.runtime = runtime
        self.fileset = fileset

    @property
    def specs(self) -> tuple[GoldenSpec, ...]:
        """The requests to this node's own application."""
        return specs_of(self.fileset.golden, self.fileset.golden.url)

    @property
    def balancer_specs(self) -> tuple[GoldenSpec, ...]:
        """The requests that go through the balancer."""
        return specs_of(self.fileset.golden, self.fileset.golden.balancer)

    def recording(self, slot: Slot, generation: HeadRef | None) -> Recording | None:
        """The recording there, if it is of this generation."""
        found = self.last(slot)
        return found if found is not None and found.generation == generation else None

    def last(self, slot: Slot) -> Recording | None:
        """The recording there, of any generation."""
        raw = self.runtime.store.get(_key_of(self.fileset.name, slot))
        try:
            found = None if raw is None else msgspec.msgpack.decode(raw, type=Recording)
        except msgspec.DecodeError:
            return None  # of another version: it is recorded again before the next switch
        return found if found is not None and found.version == 1 else None

    def keep(self, slot: Slot, generation: HeadRef, answers: Sequence[GoldenAnswer], at_ms: int) -> None:
        """Replace what was recorded there."""
        kept, left = [], KEPT_BYTES_MAX
        for answer in answers:
            if len(answer.picture) > left:
                problem = f"does not fit: the pictures of one recording may have {sized(KEPT_BYTES_MAX)}"
                answer = msgspec.structs.replace(answer, picture=b"", problem=problem)
            left -= len(answer.picture)
            kept.append(answer)
        recording = Recording(1, generation, at_ms, tuple(kept))
        self.runtime.store.put(_key_of(self.fileset.name, slot), msgspec.msgpack.encode(recording))

    async def record(self, live: HeadRef, at_ms: int) -> None:
        """Keep what the application answers now, while ``live`` is live. A request that is not answered as expected
        has nothing to be compared with after the switch, and is named: a broken application can still be repaired."""
        if not self.specs:
            return
        answers = await ask_all(self.specs)
        self.keep(Slot.BEFORE, live, answers, at_ms)
        bad = [f"{one.name} {one.problem}" for one in answers if one.problem]
        if bad:
            text = (
                f"golden answers of {self.fileset.name} from before the switch are missing: {'; '.join(bad)}"
            )
            self.runtime.note("golden_missing", text, self.fileset.line, generation=live.number)

    async def probe(self, head: HeadRef, live: HeadRef | None, at_ms: int) -> Trouble | None:
        """Compare the answers of ``head``, which the tree holds, with the answers of ``live``, which it replaces.

        Where both are the same (after a put-back, or a reload) only the status is a failure, and differences are
        noted: there is nothing left to put back to."""
        if not self.specs:
            return None
        is_back = head == live
        before = self.recording(Slot.BEFORE, live)
        if before is None and is_back:
            before = self.recording(Slot.LIVE, live)
        verdicts = await self.verdicts(self.specs, before, retries=self.fileset.golden.retries)
        differing = [one for one in verdicts if not one.ok]
        failing = [one for one in differing if not (is_back and one.is_difference)]
        name, line = self.fileset.name, self.fileset.line
        if before is None and live is not None:
            text = f"there are no golden answers of {name} from before the switch to compare with"
            self.runtime.note("golden_missing", text, line, generation=head.number)
        if differing:
            text = "; ".join(f"golden answer {named(one.spec)} of {name}: {one.reason}" for one in differing)
            self.runtime.note("golden_differs", text, line, generation=head.number)
        if failing:
            return trouble_of_verdicts(self.fileset.name, failing)
        if not is_back:
            self.keep(Slot.LIVE, head, [one.now for one in verdicts], at_ms)
        compared = sum(one.is_compared for one in verdicts)
        text = f"{len(verdicts)} golden answers of {name} are right, {compared} of them compared"
        self.runtime.note("golden", text, line, generation=head.number)
        return None

    async def verdicts(
        self, specs: Sequence[GoldenSpec], before: Recording | None, *, retries: int = 0
    ) -> list[GoldenVerdict]:
        """Ask and judge; a request with a wrong answer is retried as often as ``retries`` says."""
        found = await self._judged(specs, before)
        for attempt in range(retries):
            wrong = [one.spec for one in found if not one.ok]
            if not wrong:
                break
            await asyncio.sleep(min(BACKOFF_MS << attempt, 10_000) / 1000)
            again = {one.spec.name: one for one in await self._judged(wrong, before)}
            found = [again.get(one.spec.name, one) for one in found]
        return found

    async def _judged(self, specs: Sequence[GoldenSpec], before: Recording | None) -> list[GoldenVerdict]:
        answers = await ask_all(specs, is_patient=False)
        pairs = zip(specs, answers, strict=True)
        return [
            await judge(spec, None if before is None else before.answer(spec.name), now)
            for spec, now in pairs
        ]


def _key_of(fileset: str, slot: Slot) -> str:
    return f"golden:{slot.value}:{fileset}"


def forget_golden(store: NodeStore, fileset: str) -> None:
    """Drop what was recorded for a fileset that was removed here."""
    for slot in Slot:
        store.delete(_key_of(fileset, slot))


def trouble_of_verdicts(fileset: str, failing: Sequence[GoldenVerdict]) -> Trouble:
    """All of them in one reason, and each with both values in the facts."""
    reason = "; ".join(f"golden answer {named(one.spec)}: {one.reason}" for one in failing)
    return Trouble(
        "probe_failed",
        f"{fileset}: {reason}",
        Retry.LATER,
        4,
        'if the change is meant: changes = "expected" for that request, then: instep config reload',
        tuple((one.spec.name, one.reason) for one in failing),
    )
