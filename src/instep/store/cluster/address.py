"""The address of the cluster's database: one line of a private file, and never a part of ``instep.toml``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from instep.errors import ConfigError

POSTGRES = ("postgresql://", "postgres://")
SQLITE = "sqlite:"
_FORMS = "postgresql://USER:PASSWORD@HOST/DATABASE or sqlite:/PATH"


@dataclass(frozen=True, slots=True)
class SqliteAddress:
    """A file on this machine."""

    path: Path

    @property
    def shown(self) -> str:
        return f"{SQLITE}{self.path}"


@dataclass(frozen=True, slots=True)
class PostgresAddress:
    """One or more servers of PostgreSQL. ``shown`` has neither the password nor the options."""

    dsn: str = field(repr=False)
    shown: str
    hosts: int = 1

    @property
    def wanted_server(self) -> str | None:
        """Of several servers the one that takes changes; None leaves it to the address."""
        is_named = "target_session_attrs" in parse_qs(urlsplit(self.dsn).query)
        return "read-write" if self.hosts > 1 and not is_named else None


ClusterAddress = SqliteAddress | PostgresAddress


def parse_cluster_address(line: str, source: str) -> ClusterAddress:
    """The address in a line of the file ``source``. ``ConfigError`` ``bad_cluster_address`` never repeats the line."""
    if line.startswith(SQLITE):
        path = Path(line.removeprefix(SQLITE))
        if not path.is_absolute() or "\0" in line:
            raise _bad(source, "names a file that is not an absolute path")
        return SqliteAddress(path)
    if not line.startswith(POSTGRES):
        raise _bad(source, f"holds no address such as {_FORMS}")
    try:
        parts = urlsplit(line)
        options = parse_qs(parts.query)
    except ValueError:
        raise _bad(source, f"holds an address that cannot be read; it looks like {_FORMS}") from None
    hosts = parts.netloc.rpartition("@")[2] or ",".join(options.get("host", ["localhost"]))
    user = parts.username or (options.get("user") or [""])[0]
    database = parts.path.strip("/") or (options.get("database") or options.get("dbname") or [""])[0]
    shown = f"postgresql://{user + '@' if user else ''}{hosts}/{database}"
    return PostgresAddress(line, shown, hosts.count(",") + 1)


def _bad(source: str, why: str) -> ConfigError:
    return ConfigError(
        f"{source} {why}",
        code="bad_cluster_address",
        hint=f"write one line into it: {_FORMS}",
        path=source,
    )
