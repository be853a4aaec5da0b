"""Programs that run under a lease and talk to the daemon over the control socket.

The caller starts and ends its program. The daemon is the second guard: it ends the program's process group when the
caller is gone, or when it has not stopped it shortly before the lease runs out.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
from pathlib import Path

from instep.api.shared_parts.leases import LeaseStateDocument
from instep.core.cluster import lease_words as w
from instep.core.cluster.lease_words import WhyStopped
from instep.errors import ContentionError, InstepError, family_of
from instep.model.lease import LeaseFence
from instep.node.cluster.holding import LeaseHold
from instep.node.cluster.service import ClusterService
from instep.node.runtime.driver import monotonic_ms

LAST_MS = 300
"""So long before the end of a grant the daemon ends a program that still runs."""
_STAT_START, _STAT_PARENT = 19, 1
"""Fields of ``/proc/PID/stat`` behind the name: the moment of the start, and the parent."""
log = logging.getLogger(__name__)


class LeaseRun:
    """One caller's lease: the holder, as the caller sees it."""

    def __init__(self, service: ClusterService, name: str, ttl_ms: int, caller: int) -> None:
        self.key = secrets.token_hex(16)
        self.hold = LeaseHold(service, name, ttl_ms, self)
        self.changed = asyncio.Event()
        self.refusal: w.LeaseDenied | w.LeaseFailed | None = None
        """Why the lease cannot be had now."""
        self._name, self._caller = name, caller
        self._state = "waiting"
        self._fence: LeaseFence | None = None
        self._until_ms: int | None = None
        self._why: WhyStopped | None = None
        self._group: tuple[int, str] | None = None
        """The process group, and when its leader was started."""
        self._last: asyncio.TimerHandle | None = None

    def document(self) -> LeaseStateDocument:
        holder = self.refusal.holder if isinstance(self.refusal, w.LeaseDenied) else None
        is_held = self._state in ("held", "stop")
        return LeaseStateDocument(
            self.key,
            self._state,
            str(self._fence) if is_held and self._fence is not None else None,
            self.hold.machine.stop_at_ms if is_held else None,
            self._until_ms if is_held else None,
            holder or None,
            self._why.value if self._why is not None else None,
        )

    def refused(self) -> InstepError | None:
        """The error of a caller that does not wait."""
        answer = self.refusal
        if self._state != "waiting" or answer is None:
            return None
        if isinstance(answer, w.LeaseFailed):
            trouble = answer.trouble
            error = family_of(trouble.exit_code)(trouble.reason, hint=trouble.hint, code=trouble.code)
            error.facts = dict(trouble.facts)
            return error
        who = f"is held by {answer.holder}" if answer.holder else "cannot change hands now, after a failover"
        return ContentionError(
            f"the lease {self._name} {who}, for {answer.left_ms / 1000:g} s more unless it is renewed",
            code="lease_held",
            hint=f"see who has it: instep lease list; or wait for it: instep lease run {self._name} --wait -- COMMAND",
            lease=self._name,
            holder=answer.holder or None,
            left_ms=answer.left_ms,
        )

    # The holder -----------------------------------------------------------------------------------------------------

    def began(self, fence: LeaseFence, until_ms: int) -> None:
        self._state, self.refusal, self._why = "held", None, None
        self.extended(fence, until_ms)

    def extended(self, fence: LeaseFence, until_ms: int) -> None:
        self._fence, self._until_ms = fence, until_ms
        self._set_last(until_ms)
        self._tell()

    def must_stop(self, why: WhyStopped, until_ms: int) -> None:
        self._state, self._why, self._until_ms = "stop", why, until_ms
        self._set_last(until_ms)
        self._tell()

    def denied(self, answer: w.LeaseDenied | w.LeaseFailed) -> None:
        self.refusal = answer
        self._tell()

    # The caller -----------------------------------------------------------------------------------------------------

    def guard(self, group: int) -> bool:
        """Take note of the caller's process group; only of a child of its own."""
        found = _stat(group)
        if found is None or int(found[_STAT_PARENT]) != self._caller:
            return False
        self._group = (group, found[_STAT_START])
        return True

    def release(self) -> None:
        """The caller says that nothing runs any more."""
        self._group = None
        self._set_last(None)
        self.hold.release()
        self.hold.stopped()

    def ended(self) -> None:
        """The lease was given back, or runs out by itself."""
        self._state = "ended"
        self._tell()

    def abandon(self) -> bool:
        """The caller is gone without a word: end what it started. Whether the lease is given back; one that was held
        runs out by itself, because it is not known whether all that ran under it has ended."""
        self._set_last(None)
        if self._state == "waiting":
            self.release()
            return True
        if self._group is not None:
            log.warning("the caller that held the lease %s is gone: its programs are ended", self._name)
            self._end_group()
        return False

    def _tell(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    def _set_last(self, until_ms: int | None) -> None:
        if self._last is not None:
            self._last.cancel()
            self._last = None
        if until_ms is not None:
            delay_s = max(0, until_ms - LAST_MS - monotonic_ms()) / 1000
            self._last = asyncio.get_running_loop().call_later(delay_s, self._end_group)

    def _end_group(self) -> None:
        if self._group is None:
            return
        group, started = self._group
        found = _stat(group)
        if found is not None and found[_STAT_START] != started:
            return  # the number is another process's by now
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            return
        except PermissionError:
            log.error(
                "programs under the lease %s run on as another user and cannot be ended here", self._name
            )


def _stat(process: int) -> list[str] | None:
    """The fields behind the name, or None for a process that is gone."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
