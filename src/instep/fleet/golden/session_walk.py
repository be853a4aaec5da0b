"""A user's way through a balancer: the cookie that the first answer sets must keep the next requests on one node."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from functools import partial

from instep.fleet.golden.spec import GoldenSpec
from instep.fleet.hooks.aside import Hangs
from instep.fleet.hooks.http import SECRETS, CannotAsk, answer_to, credentials_for, why_not_asked
from instep.model.counts import lasting

REQUESTS = 6


async def why_not_kept(spec: GoldenSpec, cookies: Collection[str]) -> str:
    """Why a user who asks again and again would not stay on one node; empty when every answer left the cookie as the
    first one set it. ``cookies`` are the names that it may have."""
    import aiohttp  # 0.2 s of import that a node without such requests need not pay

    asked = spec.ask
    assert asked.http is not None
    try:
        credentials = await SECRETS.run(
            partial(credentials_for, asked, asked.http[1]), asked.timeout_ms / 1000
        )
    except (CannotAsk, Hangs) as error:
        return str(error)
    name = value = ""
    for number in range(1, REQUESTS + 1):
        headers = {"User-Agent": "instep", **credentials.headers}
        if name:
            headers["Cookie"] = f"{name}={value}"
        try:
            async with asyncio.timeout(asked.timeout_ms / 1000), answer_to(asked, headers) as reply:
                told = {each: reply.cookies[each].value for each in cookies if each in reply.cookies}
        except TimeoutError:
            return f"request {number}: no answer within {lasting(asked.timeout_ms)}"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return credentials.hide(why_not_asked(error))
        if not name:
            if not told:
                return (
                    f"the answer sets no cookie {' or '.join(sorted(cookies))}, so a user is kept on no node"
                )
            name, value = next(iter(sorted(told.items())))
        elif told.get(name, value) != value:
            return f"request {number} of {REQUESTS} with the cookie of {value} was answered with that of {told[name]}"
    return ""
