"""``[notify.NAME]``: real services, real programs and requests, time that is skipped."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from instep.core.notices import Noted
from instep.node.config.hooks import HookSettings
from instep.node.config.outside.notify import NotifySettings
from instep.node.upkeep.notices import spec_for
from tests.support.services import services
from tests.support.virtual_time import in_virtual_time, reached

TARGET = """
[notify.ops]
on = ["trouble", "published"]
send = {{ run = ["/bin/sh", "-c", "test ! -e {down} && printf '%s\\n' \\"$INSTEP_NOTIFY: $INSTEP_REASON\\" >> {heard}"] }}
"""


@in_virtual_time
async def test_trouble_that_lasts_and_its_end_are_told_once_also_behind_a_restart(tmp_path: Path) -> None:
    """Goal: an operator hears of a partner that cannot be reached for five minutes, and that it is well again, once
    each; nothing of what passed; and what a receiver that was down missed, when it is back."""
    heard, down = tmp_path / "heard", tmp_path / "down"
    heard.touch()
    async with services(tmp_path) as cluster:
        cluster.make(1)
        main, s1 = cluster["main"], cluster["s1"]
        s1.tail = TARGET.format(heard=heard, down=down)
        await s1.reload()
        main.write({"a": "1"})
        await main.publish()
        await s1.stands("in_step")

        def lines() -> list[str]:
            return [line.partition(": data: ")[2].split(":")[0] for line in heard.read_text().splitlines()]

        async def has_told(count: int) -> None:
            async def is_so() -> bool:
                return len(lines()) == count

            await reached(is_so, lambda: heard.read_text(), 7_200)

        cluster.cut("main", "s1")
        await s1.stands("unreachable")
        cluster.heal("main", "s1")
        await s1.stands("in_step")
        cluster.cut("main", "s1")
        await has_told(1)
        assert lines() == ["stands unreachable"]
        await s1.stop()
        cluster.heal("main", "s1")
        s1.start()
        await has_told(2)
        assert lines()[1].startswith("stands in_step"), heard.read_text()
        down.touch()
        cluster.cut("main", "s1")

        async def is_named() -> bool:
            return any(event["what"] == "notice_failed" for event in await s1.events())

        await reached(is_named, lambda: "a notice that does not arrive is an event", 7_200)
        assert len(lines()) == 2
        down.unlink()
        await has_told(3)
        assert heard.read_text().startswith("ops: s1: data: stands unreachable")


def test_words_in_a_body_stay_within_their_json_string() -> None:
    """Goal: a message, which a peer may have worded, changes nothing about a receiver's document."""
    target = NotifySettings(
        name="ops",
        send=HookSettings(
            http=("POST", "https://chat.example.org/x"),
            body='{"channel": "#ops", "text": "{text}", "of": "{node}", "n": {count}}',
        ),
    )
    told = (Noted("hook_failed", 'a "quoted"\\ name\n", "channel": "#all', 0, "data"),)
    spec = spec_for(target, told, told[0].text, "main")
    assert spec.body is not None
    assert json.loads(spec.body) == {"channel": "#ops", "text": told[0].text, "of": "main", "n": 1}
    whole = spec_for(
        replace(target, send=HookSettings(http=("POST", "https://chat.example.org/x"))), told, "all", "main"
    )
    assert whole.body is not None
    document = json.loads(whole.body)
    assert (document["text"], document["notices"][0]["kind"]) == ("all", "hook_failed")
