"""The machine that keeps a line without a tree, as dialogues."""

from __future__ import annotations

from instep.core.heads import vocabulary as h
from instep.core.keep import vocabulary as k
from instep.core.vocabulary import (
    EpochSeen,
    FetchFailed,
    FetchPages,
    Paused,
    Resumed,
    SignerVerdict,
    Started,
    TimerFired,
    Trouble,
)
from instep.errors import Retry
from instep.model.ids import NodeName
from tests.golden.dialogue import HUB, MAIN, OK, Dialogue, digest, epoch, generation, keeper

AWAY = Trouble("unavailable", "main does not answer", Retry.LATER, 7)
FULL = Trouble("no_space", "the disk is full", Retry.LATER, 8)
OTHER = NodeName("other")


def begun(dialogue: Dialogue, *sources: NodeName) -> Dialogue:
    dialogue.say(Started())
    for source in sources or (MAIN,):
        dialogue.say(h.SourceUp(source, is_writer=source == MAIN))
    return dialogue.say(EpochSeen(MAIN, epoch(), OK))


def fetched(dialogue: Dialogue) -> Dialogue:
    return dialogue.say(k.PartFetched(dialogue.asked(FetchPages), digest("definition")))


def test_a_head_is_kept_with_its_pages_and_said_again_after_a_restart() -> None:
    talk = begun(keeper()).say(h.HeadSeen(MAIN, generation(1), OK))
    fetched(talk).say(h.HeadSeen(MAIN, generation(2), OK))
    again = keeper(talk.machine.facts)
    again.lines = talk.lines
    fetched(begun(again).say(h.HeadSeen(MAIN, generation(2), OK)))
    again.check("keep_head")


def test_a_head_over_a_hub_is_left_to_a_connected_writer_for_a_moment() -> None:
    talk = begun(keeper(), MAIN, HUB).say(h.HeadSeen(HUB, generation(1), OK))
    fetched(talk.at(20).say(h.HeadSeen(MAIN, generation(1), OK)))
    talk.at(30).say(h.HeadSeen(HUB, generation(2), OK)).at(180).say(TimerFired("grace"))
    fetched(talk)
    talk.at(200).say(h.SourceDown(MAIN), h.HeadSeen(HUB, generation(3), OK)).check("keep_over_hub")


def test_pages_come_from_another_source_when_one_fails() -> None:
    talk = begun(keeper(), HUB, OTHER)
    talk.say(h.HeadSeen(HUB, generation(1), OK), h.HeadSeen(OTHER, generation(1), OK))
    talk.say(FetchFailed(talk.pending("FetchPages"), AWAY))
    talk.say(h.HeadSuperseded(talk.asked(FetchPages))).say(h.HeadSeen(OTHER, generation(1), OK))
    talk.at(900).say(TimerFired("retry-source"))
    talk.say(FetchFailed(talk.asked(FetchPages), FULL)).at(2_000).say(TimerFired("retry-fetch"))
    fetched(talk).check("keep_source_fails")


def test_a_writer_that_publishes_faster_than_pages_come_is_not_run_after_for_ever() -> None:
    talk = begun(keeper())
    for number in range(1, 12):
        talk.say(h.HeadSeen(MAIN, generation(number), OK))
    talk.say(k.PartFetched(talk.pending("FetchPages"), digest("definition")))
    fetched(talk).check("keep_many_heads")


def test_nothing_is_fetched_of_a_line_with_two_claimants_or_while_it_is_paused() -> None:
    talk = (
        begun(keeper(), MAIN, HUB)
        .say(Paused("night"))
        .say(h.HeadSeen(MAIN, generation(1), OK))
        .say(Resumed())
    )
    ca = SignerVerdict(True, NodeName("ca"), is_ca=True)
    talk.say(EpochSeen(HUB, epoch(writer=OTHER), ca))
    talk.say(EpochSeen(MAIN, epoch(2), ca)).check("keep_claimants")


def test_a_writer_that_offers_less_than_it_published_is_reminded() -> None:
    talk = fetched(begun(keeper()).say(h.HeadSeen(MAIN, generation(5), OK)))
    talk.say(h.HeadSeen(MAIN, generation(3), OK), h.HeadSeen(MAIN, generation(5, root="other"), OK))
    talk.at(6_000).say(h.SourceDown(MAIN)).at(12_000).say(TimerFired("contact")).check("keep_amnesia")
