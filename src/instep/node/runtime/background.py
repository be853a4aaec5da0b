"""Background work of the daemon that this machine's troubles interrupt and never end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from instep.errors import DamagedError, InstepError, Retry
from instep.node.runtime.driver import own_error
from instep.node.runtime.state import is_lost, lost

AGAIN_S = 2.0
log = logging.getLogger(__name__)


def passing_trouble(error: InstepError | OSError) -> InstepError | None:
    """The error as one of ours when the same work can succeed later, as with a full disk; else None."""
    trouble = own_error(error)
    return trouble if trouble.retry is Retry.LATER else None


async def go_on(name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Run ``work``, and again after a pause when this machine could not carry it on. ``StateLost`` when the database
    went away or broke."""
    while True:
        try:
            await work()
            return
        except (InstepError, OSError) as error:
            if isinstance(error, DamagedError) and is_lost(error):
                raise lost(error) from error
            trouble = passing_trouble(error)
            if trouble is None:
                raise
            log.error("%s: %s; it is retried in %g s", name, trouble.reason, AGAIN_S)
        await asyncio.sleep(AGAIN_S)
