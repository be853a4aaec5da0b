"""The port of the cluster's database: transactions, and news of what other nodes changed.

The text of SQL is one for both databases. It keeps to what both understand:

- placeholders ``$1``; ``CAST($1 AS bigint)`` where a placeholder takes part in arithmetic;
- the types ``bigint``, ``text`` and ``bytea``; ids are random texts that the caller makes;
- ``ON CONFLICT`` and ``RETURNING``; a row is locked by an update that changes nothing;
- ``instep_now_ms()``, the database's clock, and ``instep_server()``, which names the server and its timeline.

Every table begins with ``instep_``, because the database may be an application's own. No session state is used, so a
proxy may give each transaction another connection.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

Value = int | str | bytes | None
Row = tuple[Any, ...]


class Transaction(Protocol):
    """One transaction. Every statement has a deadline, after which the transaction is undone."""

    async def rows(self, sql: str, *values: Value) -> list[Row]:
        """The rows that a statement returns."""
        ...

    async def row(self, sql: str, *values: Value) -> Row | None:
        """The first row that a statement returns."""
        ...

    async def change(self, sql: str, *values: Value) -> int:
        """Carry out a statement that returns no rows; how many rows it changed."""
        ...

    async def announce(self, topic: str) -> None:
        """Notify all that listen, once the transaction is committed."""
        ...


class ClusterStore(Protocol):
    """The database that the nodes of a cluster share. Safe for many tasks of one event loop."""

    @property
    def shown(self) -> str:
        """Which database it is, for people: without any secret."""
        ...

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """A transaction that is committed at the end of the block and undone by an exception.

        ``UnavailableError`` when the database cannot be reached or is read-only: a commit that was under way then may
        have happened. ``ContentionError`` ``cluster_busy`` when another transaction was in the way for too long.
        """
        ...

    async def listen(self, heard: Callable[[str], None]) -> None:
        """Call ``heard`` with the topic of each announcement, or with ``""`` after any change where topics are not
        known. It runs until it is cancelled; ``UnavailableError`` when the connection is lost. Announcements may be
        lost, so a listener also looks by itself now and then."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...
