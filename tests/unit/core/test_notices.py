"""Notices: trouble that lasts, its end, warnings once; together, and after a restart as before it."""

from __future__ import annotations

import msgspec

from instep.core.notices import WAITING_MAX, Noted, NoticeBook, NoticeFacts, NoticeRules

MINUTE = 60_000
RULES = NoticeRules(5 * MINUTE, 30_000, 240 * MINUTE)


def trouble(at_ms: int, code: str = "gate", fileset: str = "data", node: str = "") -> Noted:
    return Noted("trouble", f"stands blocked: {code}", at_ms, fileset, node, code)


def well(at_ms: int, fileset: str = "data", node: str = "") -> Noted:
    return Noted("in_step", "stands in_step again", at_ms, fileset, node)


class Receiver:
    def __init__(self, rules: NoticeRules = RULES) -> None:
        self.book, self.rules = NoticeBook(), rules

    def hear(self, *noted: Noted) -> None:
        for each in noted:
            self.book.take(each, self.rules)

    def told_by(self, now_ms: int) -> list[str]:
        """Everything that is sent up to this moment, a notice a line, behind a restart between any two."""
        said = []
        while (next_ms := self.book.next_ms(self.rules)) is not None and next_ms <= now_ms:
            due = self.book.due(next_ms, self.rules)
            assert due, "a notice that is due has something to say"
            said.append(" + ".join(f"{each.kind} {each.code}{each.node}".strip() for each in due))
            self.book.sent(due, next_ms)
            self.book = NoticeBook(
                msgspec.msgpack.decode(msgspec.msgpack.encode(self.book.facts), type=NoticeFacts)
            )
        return said


def test_trouble_that_passes_is_not_told_and_trouble_that_lasts_is_told_with_its_end() -> None:
    receiver = Receiver()
    receiver.hear(trouble(0), well(4 * MINUTE))
    assert receiver.told_by(60 * MINUTE) == []
    receiver.hear(trouble(60 * MINUTE))
    assert receiver.told_by(65 * MINUTE) == []
    assert receiver.told_by(66 * MINUTE) == ["trouble gate"]
    receiver.hear(trouble(67 * MINUTE))  # a restart says it again
    assert receiver.told_by(200 * MINUTE) == []
    receiver.hear(trouble(200 * MINUTE, "hook"))
    assert receiver.told_by(201 * MINUTE) == ["trouble hook"], "other trouble of a line is news at once"
    receiver.hear(well(202 * MINUTE))
    assert receiver.told_by(1_000 * MINUTE) == ["in_step"]


def test_trouble_that_stays_is_told_again_after_a_while_or_never() -> None:
    receiver, silent = Receiver(), Receiver(rules(again_ms=None))
    for each in (receiver, silent):
        each.hear(trouble(0))
        assert each.told_by(10 * MINUTE) == ["trouble gate"]
    assert receiver.told_by(500 * MINUTE) == ["trouble gate"] * 2
    assert silent.told_by(500_000 * MINUTE) == []


def test_what_is_due_together_goes_out_together_and_lines_do_not_hide_one_another() -> None:
    receiver = Receiver()
    receiver.hear(trouble(0), trouble(10_000, node="s1"), trouble(20_000, fileset="other"))
    assert receiver.told_by(10 * MINUTE) == ["trouble gate + trouble gates1 + trouble gate"]
    receiver.hear(well(11 * MINUTE, node="s1"))
    assert receiver.told_by(20 * MINUTE) == ["in_step s1"]
    assert receiver.book.keep({"data"}, ()) and not receiver.book.keep({"data"}, ())
    assert receiver.told_by(300 * MINUTE) == ["trouble gate"], "a fileset that was removed is no trouble"


def test_a_warning_is_told_at_once_and_one_like_it_after_a_while() -> None:
    receiver = Receiver()
    hook = Noted("hook_failed", "reload failed", 0, "data")
    receiver.hear(hook, msgspec.structs.replace(hook, at_ms=MINUTE))
    assert receiver.told_by(30_000) == ["hook_failed"]
    receiver.hear(msgspec.structs.replace(hook, at_ms=100 * MINUTE))
    assert receiver.told_by(200 * MINUTE) == []
    receiver.hear(msgspec.structs.replace(hook, at_ms=241 * MINUTE))
    assert receiver.told_by(242 * MINUTE) == ["hook_failed"]


def test_a_flood_is_counted_and_keeps_nothing_from_being_told() -> None:
    receiver = Receiver()
    receiver.hear(*(Noted("hook_failed", "x", 0, f"f{number}") for number in range(WAITING_MAX + 7)))
    assert receiver.book.facts.dropped == 7
    assert len(receiver.told_by(MINUTE)) == 1
    assert receiver.book.facts.dropped == 0
    receiver.hear(Noted("hook_failed", "x", MINUTE, "more"))
    assert receiver.told_by(2 * MINUTE) == ["hook_failed"]


def rules(again_ms: int | None) -> NoticeRules:
    return NoticeRules(RULES.after_ms, RULES.group_ms, again_ms)
