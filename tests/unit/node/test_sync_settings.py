"""What does not go together in a sync profile."""

from __future__ import annotations

import pytest

from instep.errors import ConfigError
from instep.node.config.loading import parse

PROFILE = 'name = "s1"\n[sync.site]\nleft = "site@s1"\nright = "site@p1"\n{}\n[sync.site.kinds.a]\npaths = ["*.xml"]\n{}\n'
VALIDATE = 'merge = "xml"\nvalidate = {{ run = ["/bin/true"], {} }}'

CASES = {
    "the right is locked": ("", 'direction = "down"\nlocked = "right"'),
    "goes with locked": ("", 'lock_enforce = "revert"'),
    "goes with both directions": ("", 'direction = "up"\nmerge = "xml"'),
    "goes with merge": ("", 'validate = { run = ["/bin/true"] }'),
    "the hook sees one at a time": ("", VALIDATE.format("tree = true")),
    "is not a list such as": ("", 'merge = "xml"\nvalidate = { run = "/bin/true" }'),
    "never comes": ('schedule = "0 0 30 2 *"', ""),
    "is not a cron line": ('schedule = "daily"', ""),
    "is not a time zone": ('zone = "Moon"', ""),
    "is no gate": ('gates = ["java >"]', ""),
    "needs run or http": ('hooks.on_collision = { touch = "/run/x" }', ""),
    "has no paths": ('hooks.on_sync_failed = { run = ["/bin/true"], paths = ["a"] }', ""),
}


@pytest.mark.parametrize("why", CASES)
def test_what_does_not_go_together_is_named(why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(PROFILE.format(*CASES[why]))
    assert why in str(caught.value.facts)


def test_what_goes_together_is_read() -> None:
    settings = parse(
        PROFILE.format('schedule = "15 2 * * *"\nzone = "Europe/Berlin"', VALIDATE.format('timeout = "5s"'))
    )
    profile = settings.sync["site"]
    assert profile.schedule is not None
    assert profile.kinds["a"].validate is not None
