"""What ``publish`` and ``wait`` print where nothing was published yet, and the next step of a refused command."""

from __future__ import annotations

import pytest

from instep.api.lines import OutcomeDocument, WaitDocument
from instep.api.parts import WaitingDocument
from instep.cli.filesets.publishing import publish_lines, wait_lines
from instep.errors import ResourceError

WAITED = WaitDocument("catalog", False, None, (WaitingDocument("main", "unknown"),))


def test_nothing_published_yet_is_no_generation_none() -> None:
    unchanged = OutcomeDocument(fileset="catalog", changed=False, generation=None)
    said = "\n".join((*wait_lines(WAITED), *publish_lines(unchanged, dry_run=False)))
    assert "None" not in said
    assert "catalog: not in step with a first generation yet" in said
    assert "catalog: nothing changed, and nothing was published yet" in said


@pytest.mark.parametrize(
    ("hint", "told"),
    [
        (
            "free space on the file system of /n/state; it goes on by itself",
            "free space on the file system of /n/state; then repeat the command",
        ),
        ("mount it, it goes on by itself; or umount /x", "mount it, then repeat the command; or umount /x"),
        (
            "chattr -i /x, then it goes on by itself, at once with: instep retry maps",
            "chattr -i /x, then repeat the command",
        ),
        ("instep log maps", "instep log maps"),
    ],
)
def test_a_command_that_was_refused_is_not_said_to_go_on_by_itself(hint: str, told: str) -> None:
    assert ResourceError("no space", hint=hint).of_a_command().hint == told
