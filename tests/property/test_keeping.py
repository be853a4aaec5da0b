"""A kept line under a random life: heads in any order, failing sources, crashes at every point. Then peace."""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from instep.core.heads import vocabulary as h
from instep.core.keep import vocabulary as k
from instep.core.keep.machine import KeepMachine
from instep.core.vocabulary import (
    Cancel,
    EpochSeen,
    FetchFailed,
    FetchPages,
    Paused,
    Resumed,
    SetTimer,
    Started,
    TimerFired,
    Trouble,
)
from instep.errors import Retry
from instep.model.ids import HeadRef
from tests.golden.dialogue import HUB, LINE, MAIN, OK, digest, epoch, generation

STEPS = ("head", "late head", "fetched", "failed", "no space", "superseded", "down", "up", "pause", "resume", "timer", "crash")  # fmt: skip


class Node:
    """The machine with its driver: saved facts, the pending request, running timers."""

    def __init__(self) -> None:
        self.now = 0
        self.saved = k.KeepFacts()
        self.said: list[HeadRef] = []
        self.newest = 0
        self.start()

    def start(self) -> None:
        self.machine = KeepMachine(LINE, k.KeepConfig(writer=MAIN), Random(1), self.saved)
        self.pending: FetchPages | None = None
        self.timers: dict[str, int] = {}
        self.give(Started())
        self.connect()

    def connect(self) -> None:
        for source in (MAIN, HUB):
            self.give(h.SourceUp(source, is_writer=source == MAIN), EpochSeen(source, epoch(), OK))

    def give(self, *events: Any) -> None:
        for event in events:
            for effect in self.machine.step(event, self.now):
                self.perform(effect)

    def perform(self, effect: Any) -> None:
        match effect:
            case k.SaveKept():
                kept = self.saved.kept
                self.saved = effect.facts
                assert kept is None or (
                    self.saved.kept is not None and self.saved.kept.position >= kept.position
                )
            case k.KeptHead():
                assert effect.head == self.saved.kept, "named before it was durable"
                self.said.append(effect.head)
            case FetchPages():
                assert self.pending is None
                self.pending = effect
            case Cancel():
                assert self.pending is not None
                assert self.pending.req == effect.req
                self.pending = None
            case SetTimer(name, at_ms):
                self.timers.pop(name, None)
                if at_ms is not None:
                    self.timers[name] = at_ms

    def answer(self, event: Any) -> None:
        self.pending = None
        self.give(event)

    def fire(self) -> None:
        name = min(self.timers, key=lambda name: (self.timers[name], name))
        self.now = max(self.now, self.timers.pop(name))
        self.give(TimerFired(name))

    def take(self, step: str) -> None:
        if step == "head":
            self.newest += 1
            self.give(h.HeadSeen(HUB if self.newest % 3 else MAIN, generation(self.newest), OK))
        elif step == "late head" and self.newest:
            self.give(h.HeadSeen(MAIN, generation(max(1, self.newest - 1)), OK))
        elif step == "crash":
            self.start()
        elif step == "timer":
            self.fire()
        elif step in ("pause", "resume"):
            self.give(Paused() if step == "pause" else Resumed())
        elif step == "down":
            self.give(h.SourceDown(MAIN), h.SourceDown(HUB))
        elif step == "up":
            self.connect()
        elif self.pending is not None:
            req = self.pending.req
            if step == "fetched":
                self.answer(k.PartFetched(req, digest("definition")))
            elif step == "superseded":
                self.answer(h.HeadSuperseded(req))
            else:
                exit_code = 8 if step == "no space" else 7
                self.answer(FetchFailed(req, Trouble("x", "no", Retry.LATER, exit_code)))

    def settle(self) -> None:
        self.give(Resumed())
        self.connect()
        for _ in range(20):
            for source in (MAIN, HUB):
                self.give(h.HeadSeen(source, generation(self.newest), OK))
            if self.pending is not None:
                self.take("fetched")
            elif self.machine.facts.kept == self.machine.facts.head:
                return
            else:
                self.fire()
        raise AssertionError("the newest head is not kept")


@given(st.lists(st.sampled_from(STEPS), max_size=40))
@settings(max_examples=200)
def test_the_newest_head_is_kept_after_any_life(steps: list[str]) -> None:
    node = Node()
    for step in steps:
        node.take(step)
    node.take("head")
    node.settle()
    assert node.said[-1] == generation(node.newest).ref()
    assert [head.position for head in node.said] == sorted(head.position for head in node.said)
