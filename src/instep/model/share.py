"""A directory of a file server, in the forms that NFS, Samba and Windows have for it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from instep.model.address import parse_address

NFS, SMB = "nfs", "smb"
_FORMS = (
    (NFS, re.compile(r"nfs://(?P<host>\[[^\]/]+\]|[^/:]+)(?P<path>/.*)")),
    (SMB, re.compile(r"smb://(?P<host>\[[^\]/]+\]|[^/:]+)/(?P<path>[^/].*)")),
    (SMB, re.compile(r"//(?P<host>[^/]+)/(?P<path>[^/].*)")),
    (NFS, re.compile(r"(?P<host>\[[^\]/]+\]|[^/:]+):(?P<path>/.*)")),
)


@dataclass(frozen=True, slots=True)
class Share:
    """``path`` begins with ``/`` for NFS; for Samba it is the name of the share, and a path below it."""

    protocol: str
    host: str
    path: str

    def __str__(self) -> str:
        """As the first field of ``/etc/fstab`` has it."""
        host = f"[{self.host}]" if ":" in self.host and self.protocol == NFS else self.host
        return f"{host}:{self.path}" if self.protocol == NFS else f"//{host}/{self.path}"

    def is_same(self, other: Share | None) -> bool:
        """Hosts differ in no case of letters, neither do names of shares; paths below them do."""
        return other is not None and self._key() == other._key()

    def _key(self) -> tuple[str, str, str]:
        name, slash, below = self.path.partition("/")
        path = self.path if self.protocol == NFS else f"{name.casefold()}{slash}{below}"
        return self.protocol, self.host.casefold().rstrip("."), path


def share_of(text: str) -> Share | None:
    r"""``files:/srv/maps``, ``nfs://files/srv/maps``, ``//files/maps``, ``smb://files/maps`` or, as Windows has it,
    ``\\files\maps``; None for any other text, such as a path on this machine."""
    plain = text.replace("\\", "/") if text.startswith("\\\\") else text
    for protocol, form in _FORMS:
        found = form.fullmatch(plain)
        if found is not None:
            host = found["host"].removeprefix("[").removesuffix("]")
            path = re.sub(r"/+", "/", found["path"]).rstrip("/") or "/"
            is_host = is_server(host) and ".." not in path.split("/")
            return Share(protocol, host, path) if is_host else None
    return None


def is_server(text: str) -> bool:
    """Whether it is a name of the DNS, or an address without brackets."""
    return parse_address(f"[{text}]:1" if ":" in text else f"{text}:1") is not None
