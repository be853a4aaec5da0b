"""Removals in a followed tree: only of files that were here, and of many only after an operator judged them."""

from __future__ import annotations

import pytest

from instep.core.changes import offer_vocabulary as o
from tests.support.change_editor import ChangeEditor, beside
from tests.support.change_home import ChangeHome, a_file
from tests.support.vectors import digest


def test_a_removal_is_offered_only_of_what_was_here() -> None:
    home, s1 = beside()
    home.disk.edit(b"late", a_file(b"late", "x"))
    s1.disk.withheld = {b"late"}
    s1.deliver()
    assert s1.states == {}
    s1.write(b"a", None)
    assert home.text(b"a") is None
    assert home.text(b"late") == digest("x"), "it never arrived, and so it was not removed"
    assert s1.texts[b"late"] == digest("x"), "it is laid instead"
    s1.deliver()
    s1.write(b"late", None)
    assert home.text(b"late") is None


def filled(files: int) -> tuple[ChangeHome, ChangeEditor]:
    home = ChangeHome()
    for number in range(files):
        home.disk.edit(b"f%03d" % number, a_file(b"f%03d" % number, str(number)))
    home.disk.publish()
    home.start()
    return home, ChangeEditor(home)


def emptied(editor: ChangeEditor, *numbers: int) -> None:
    for number in numbers:
        editor.disk.edit(b"f%03d" % number, None)
    editor.look()


@pytest.mark.parametrize("are_accepted", [True, False])
def test_removals_above_what_goes_unasked_are_judged_by_an_operator(are_accepted: bool) -> None:
    home, s1 = filled(97)
    emptied(s1, *range(60))
    s1.write(b"a", "new")
    assert home.text(b"a") == digest("new"), "all else goes on"
    assert set(s1.states.values()) == {"blocked", "accepted"}
    assert s1.last(o.ReportOffers).trouble.code == "removals_blocked"
    s1.say(o.RemovalsJudged(are_accepted))
    s1.set_aside()
    if are_accepted:
        # The home has guards of its own against this partner: it says no, and the files come back.
        assert home.text(b"f000") is not None
    assert s1.texts[b"f000"] == digest("0")
    assert s1.states == {b"a": "accepted"}


def test_removals_add_up_over_an_hour_and_files_that_moved_are_none() -> None:
    home, s1 = filled(97)
    emptied(s1, *range(30))
    emptied(s1, *range(30, 55))
    assert set(s1.states.values()) == {"accepted", "blocked"}
    for number in range(30, 55):
        s1.write(b"g%03d" % number, str(number), looks=False)
    s1.look()
    assert home.text(b"g030") is not None
    s1.say(o.RemovalsJudged(are_accepted=False))
    s1.pass_time(3_600_000)
    s1.deliver()
    emptied(s1, *range(60, 80))
    assert home.text(b"f060") is None


def test_a_file_that_comes_back_is_no_blocked_removal_any_more() -> None:
    home, s1 = filled(97)
    emptied(s1, *range(60))
    s1.write(b"f000", "0")
    s1.write(b"f001", "other")
    assert b"f000" not in s1.states
    assert home.text(b"f001") == digest("other")
