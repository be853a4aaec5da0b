"""A record of a machine's last events: what is written is read back, and replays to the same effects."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest

from instep.core.changes import home_vocabulary as h
from instep.core.changes import offer_vocabulary as o
from instep.core.changes.home import HomeMachine
from instep.core.changes.offer import OfferMachine
from instep.core.follow import vocabulary as f
from instep.core.follow.machine import FollowMachine
from instep.core.publish.machine import PublishMachine
from instep.core.record import recorder as module
from instep.core.record.recorder import FlightRecorder
from instep.core.record.replay import Replayed, load, replay
from instep.core.rollout.machine import RolloutMachine
from instep.errors import DamagedError
from instep.testing.simulation import simulate
from tests.golden.dialogue import follower
from tests.support.change_editor import beside
from tests.support.change_home import ANA, ChangeHome, change


def replayed(recorder: FlightRecorder) -> list[Replayed]:
    return list(replay(load(recorder.text("1.2.3"))))


def test_every_machine_of_a_simulated_cluster_replays_to_the_same_effects(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Records of machines in the middle of their lives, with the copies that they begin with."""
    monkeypatch.setattr(module, "STRETCH_EVENTS", 40)
    recorders: dict[int, FlightRecorder] = {}
    under_way: list[Any] = []

    def record(kind: Any) -> None:
        step = kind.step

        def recorded(self: Any, event: Any, *clocks: int) -> Any:
            if under_way:
                return step(self, event, *clocks)
            recorder = recorders.setdefault(id(self), FlightRecorder(kind.__name__, self))
            under_way.append(self)
            try:
                return recorder.step(event, *clocks, *(() if len(clocks) > 1 else (0,)))
            finally:
                under_way.clear()

        monkeypatch.setattr(kind, "step", recorded)

    for kind in (FollowMachine, PublishMachine, RolloutMachine):
        record(kind)
    assert simulate(9, always_rollouts=True).broken is None
    monkeypatch.undo()
    assert {one.name for one in recorders.values()} == {"FollowMachine", "PublishMachine", "RolloutMachine"}
    for recorder in recorders.values():
        steps = replayed(recorder)
        assert len(steps) == len(recorder.last)
        assert [one for one in steps if one.difference or one.broken] == []


def test_a_home_of_change_sets_replays() -> None:
    """With its wall clock, by which it judges the age of a change set."""
    home = ChangeHome()
    fence = home.granted(ANA)
    home.held[h.FetchOffered] = True
    home.submit(home.change_set(change(b"a", "old", "new"), token=fence), releases=True)
    home.submit(home.change_set(change(b"b", "old", None), made_at_ms=0))
    recorder = FlightRecorder("home", HomeMachine(home.machine.line, home.config, Random(1)))
    for event, at_ms, wall_ms in home.heard:
        recorder.step(event, at_ms, wall_ms)
    recorder._now.steps.clear()
    recorder._now.machine = module._copy_of(recorder._machine)
    recorder.step(h.ContentsHere(home.last(h.FetchOffered).req), home.now, home.wall)
    assert any(isinstance(effect, h.ApplyChanges) for effect in recorder.last[0].effects or ())
    assert [one for one in replayed(recorder) if one.difference or one.broken] == []


def test_offers_replay_with_the_nonces_that_they_drew() -> None:
    _, editor = beside()
    editor.locks()
    editor.write(b"a", "one", looks=False)
    editor.write(b"b", "two")
    recorder = FlightRecorder("offer", OfferMachine(editor.machine.line, editor.config))
    for event, at_ms, wall_ms in editor.heard:
        recorder.step(event, at_ms, wall_ms)
    assert any(isinstance(effect, o.SubmitOffer) for step in recorder.last for effect in step.effects or ())
    assert [one for one in replayed(recorder) if one.difference or one.broken] == []


def test_a_record_is_bounded_and_begins_with_the_machine_of_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STRETCH_EVENTS", 10)
    recorder = FlightRecorder("follow", follower().machine)
    recorder.step(f.Started(), 0, 0)
    for number in range(95):
        recorder.step(f.Paused(f"reason {number}"), number, 0)
    assert len(recorder.last) == 16
    assert all(one.difference is None for one in replayed(recorder))


def test_the_first_difference_ends_the_replay_and_is_named() -> None:
    recorder = FlightRecorder("follow", follower().machine)
    recorder.step(f.Started(), 0, 0)
    recorder.step(f.Paused("maintenance"), 1, 0)
    recorder.step(f.Resumed(), 2, 0)
    text = recorder.text("1.2.3").replace(
        b'"event":{"type":"instep.core.vocabulary:Paused","fields":{"reason":"m',
        b'"event":{"type":"instep.core.vocabulary:Paused","fields":{"reason":"M',
    )
    steps = list(replay(load(text)))
    assert len(steps) == 2
    assert steps[-1].difference is not None
    assert "maintenance" in steps[-1].difference
    assert "Maintenance" in steps[-1].difference


def test_a_broken_invariant_is_the_last_event_and_breaks_again() -> None:
    talk = follower()
    recorder = FlightRecorder("follow", talk.machine)
    recorder.step(f.Started(), 0, 0)
    with pytest.raises(AssertionError):
        recorder.step(f.Staged(1), 5, 0)
    assert recorder.broken is not None
    last = replayed(recorder)[-1]
    assert (last.number, last.difference) == (2, None)
    assert last.broken == recorder.broken


@pytest.mark.parametrize(
    "plain",
    [
        {"type": "os:system", "fields": {}},
        {"type": "subprocess:Popen", "fields": {"args": ["true"]}},
        {"type": "instep.core.record.values:importlib.import_module", "fields": {}},
        {"type": "instep.core.record.values:random.Random", "fields": {}},
        {"type": "instep.core.follow.vocabulary:Gone", "fields": {}},
        {"enum": "instep.errors:InstepError", "value": "x"},
        {"type": "instep.core.follow.vocabulary:Started", "fields": {}},
    ],
)
def test_only_machines_of_ours_are_loaded(plain: dict[str, Any]) -> None:
    """A record is a file that may come from anywhere: it makes values of our types, and nothing else."""
    recorder = FlightRecorder("follow", follower().machine)
    head = recorder.text("1.2.3").splitlines()[0]
    with pytest.raises(DamagedError):
        load(head + b"\n" + json.dumps({"machine": plain}).encode())


@pytest.mark.parametrize("text", [b"", b"{}", b"\xff\n\xff", b'{"format":"other"}\n{}'])
def test_another_file_is_refused(text: bytes) -> None:
    with pytest.raises(DamagedError, match="no record"):
        load(text)
