"""A partner that is asked for its newest heads at once."""

from __future__ import annotations

from pathlib import Path

from tests.support.services import services
from tests.support.virtual_time import in_virtual_time


@in_virtual_time
async def test_a_partner_is_asked_now_by_the_node_that_dials_it(tmp_path: Path) -> None:
    """Goal: the partner answers, and is asked about what it sends; a node that cannot ask says why. Method: from either
    end of a link, and with the link cut."""
    async with services(tmp_path) as cluster:
        cluster.make(1)
        main, s1 = cluster["main"], cluster["s1"]
        main.write({"file": "1"})
        await cluster.followed("s1")
        await cluster.in_step("s1")
        asked = await s1.call("partner_poll", name="main")
        assert asked == {"name": "main", "lines": 1, "newer": 0}
        refusal = await main.refuses("not_connected", "partner_poll", name="s1")
        assert "instep partner set s1 --address" in str(refusal.hint)
        cluster.cut("main", "s1")
        await s1.stands("unreachable")
        await s1.refuses("not_connected", "partner_poll", name="main")
