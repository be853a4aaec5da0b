"""The wall clock of a peer, as far as it told it."""

from __future__ import annotations

from instep.node.runtime.driver import monotonic_ms, wall_ms


class PeerClock:
    """Kept against the monotonic clock, so that a jump of this node's own wall clock shows at once."""

    def __init__(self) -> None:
        self._lead_ms: int | None = None

    def told(self, time_ms: int) -> None:
        """The peer's time just now; 0 from a peer of a version that does not send it."""
        if time_ms:
            self._lead_ms = time_ms - monotonic_ms()

    @property
    def skew_ms(self) -> int | None:
        """The peer's wall clock less ours; None when it never told."""
        return None if self._lead_ms is None else self._lead_ms + monotonic_ms() - wall_ms()
