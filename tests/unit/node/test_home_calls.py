"""Which partner may lock and change paths of which line: decided before the home is asked anything."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from instep.errors import InstepError
from instep.model.definition import Definition
from instep.model.ids import FilesetName, LineId, NodeName
from instep.model.link import Link
from instep.node.config.filesets import FilesetSettings
from instep.node.peers.link_policy import LinkPolicy

MAIN, S1, EVE = NodeName("main"), NodeName("s1"), NodeName("eve")
LINE = LineId(FilesetName("data"), MAIN)
HOME = object()


def _line(*offers_from: NodeName, home: object | None = HOME) -> Any:
    return SimpleNamespace(
        line=LINE,
        writer=MAIN,
        is_written_here=home is not None,
        home=home,
        fileset=FilesetSettings(
            name=LINE.fileset, path=Path("/srv/data"), writer=MAIN, offers_from=offers_from
        ),
        known_definition=Definition,
        offers_to=lambda partner: True,
    )


def _policy(name: NodeName = MAIN, link: Link | None = None) -> LinkPolicy:
    partner = SimpleNamespace(link=link or Link(replicate=True, data=True))
    settings = SimpleNamespace(partners={S1: partner})
    return LinkPolicy(SimpleNamespace(name=name, settings=settings))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("who", "line", "link", "code"),
    [
        (EVE, _line(S1, EVE), None, "not_listed"),
        (S1, _line(), None, "offers_not_taken"),
        (S1, _line(EVE), None, "offers_not_taken"),
        (S1, _line(S1), Link(), "link_denies"),
        (S1, None, None, "link_denies"),
        (S1, _line(S1, home=None), Link(replicate=True, data=True, hub=True), "not_the_writer"),
    ],
)
def test_a_home_is_reached_only_by_partners_that_it_names(
    who: NodeName, line: Any, link: Link | None, code: str
) -> None:
    """Goal: a stranger, a partner that is not named, one whose link has everything off, one that asks for another line,
    and one that asks a node that does not write the line: refused by name, with the exit code of the contract."""
    with pytest.raises(InstepError) as refused:
        _policy(link=link).require_home(who, line, LINE)
    assert refused.value.error_code == code
    assert refused.value.exit_code == (4 if code == "not_the_writer" else 5)
    if code == "offers_not_taken":
        assert refused.value.hint is not None and "offers_from=" in refused.value.hint


def test_a_partner_that_is_named_reaches_the_home() -> None:
    assert _policy().require_home(S1, _line(EVE, S1), LINE) is HOME
