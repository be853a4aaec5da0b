"""The power fails at a home: after each effect and each step of a switch the end is the same, and nothing is made twice."""

from __future__ import annotations

from typing import Any

import pytest

from instep.core.changes import home_vocabulary as h
from instep.model.change import ChangeAnswer, OutcomeKind
from tests.support.change_home import ANA, ChangeHome, PowerLost, a_file, change, kinds
from tests.support.vectors import digest


def worth(home: ChangeHome) -> tuple[Any, ...]:
    """The state that must be the same however often the power failed."""
    facts = home.machine.facts
    locks = tuple((lock.path, lock.fence, lock.base) for lock in facts.locks)
    made = tuple((each.change.path, each.was) for each in home.disk.accepted)
    return home.disk.tree, home.disk.archive, locks, made, facts.applying, home.disk.published[-1]


@pytest.mark.parametrize("releases", [False, True])
def test_the_power_may_fail_at_every_effect_and_step_and_the_end_is_the_same(releases: bool) -> None:
    """Killed after each single effect and step of the switch; then the author submits again until it is answered."""

    def run(power: int | None) -> tuple[ChangeHome, ChangeAnswer, bool]:
        home = ChangeHome()
        fence = home.granted(ANA)
        made = home.change_set(
            change(b"a", "old", "new"), change(b"b", "newer", "x"), change(b"c", "old", None), change(b"d", None, "x"),
            token=fence,
        )  # fmt: skip
        home.power = power
        is_cut = False
        try:
            home.submit(made, releases=releases)
        except PowerLost:
            is_cut = True
            home.power = None
            home.start()
        home.power = None
        answer = home.submit(made, releases=releases)
        assert isinstance(answer, ChangeAnswer)
        return home, answer, is_cut

    whole, wanted, _ = run(None)
    assert kinds(wanted) == ["applied", "outdated", "applied", "applied"]
    assert bool(whole.machine.facts.locks) is not releases
    power, cuts = 0, 0
    while True:
        home, answer, is_cut = run(power)
        if not is_cut:
            break
        assert answer == wanted, power
        assert worth(home) == worth(whole), power
        power, cuts = power + 1, cuts + 1
    assert cuts > 12


def test_the_power_fails_twice() -> None:
    """Also in the recovery itself, at every pair of places."""
    for first in range(4, 14):
        for second in range(12):
            home = ChangeHome()
            made = home.change_set(change(b"a", "old", "new"), change(b"c", "old", None))
            home.power = first
            try:
                home.submit(made)
            except PowerLost:
                home.power = second
                try:
                    home.start()
                except PowerLost:
                    home.power = None
                    home.start()
            home.power = None
            assert kinds(home.submit(made)) == ["applied", "applied"], (first, second)
            assert len(home.disk.accepted) == 2
            assert home.disk.archive == [a_file(b"c", "old"), a_file(b"a", "old")]


def test_an_edit_between_the_crash_and_the_start_is_neither_lost_nor_taken_for_the_change() -> None:
    home = ChangeHome()
    fence = home.granted(ANA)
    made = home.change_set(change(b"a", "old", "new"), token=fence)
    home.held[h.PublishPaths] = True
    home.submit(made, releases=True)
    home.disk.edit(b"a", a_file(b"a", "by a program here"))
    home.held.clear()
    home.start()
    answer = home.submit(made, releases=True)
    assert answer.outcomes[0].kind is OutcomeKind.APPLIED, "it was made, and a program changed it again"
    assert home.text(b"a") == digest("by a program here")
    assert not home.machine.facts.locks
