"""A person with a browser: keeps the cookies that the balancer and the application set."""

from __future__ import annotations

import http.client

from examples.waiting import Failed

__all__ = ["User", "put"]

TIMEOUT_S = 60.0


class User:
    """One browser that asks at ``port``."""

    def __init__(self, name: str, port: int) -> None:
        self.name, self._port = name, port
        self._cookies: dict[str, str] = {}
        self.node = ""
        """The node that answered last."""

    def ask(self, path: str, *, address: str = "127.0.0.1", **headers: str) -> tuple[int, str]:
        """The status and the text of an answer, asked from one of this machine's addresses."""
        connection = http.client.HTTPConnection(
            "127.0.0.1", self._port, timeout=TIMEOUT_S, source_address=(address, 0)
        )
        if self._cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        try:
            connection.request(
                "GET", path, headers={name.replace("_", "-"): text for name, text in headers.items()}
            )
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        for cookie in answer.headers.get_all("Set-Cookie", []):
            name, _, value = cookie.partition(";")[0].partition("=")
            self._cookies[name] = value
        self.node = answer.headers.get("X-Node", "")
        return answer.status, text

    def log_in(self) -> int:
        return self.ask(f"/login?user={self.name}")[0]

    def require_session(self) -> None:
        status, text = self.ask("/session")
        if (status, text) != (200, self.name):
            raise Failed(f"{self.name} is not signed in at {self.node}: {status} {text}")

    def forget(self) -> None:
        """Another browser of the same person: no cookie is left."""
        self._cookies.clear()


def put(port: int, path: str, text: str) -> None:
    """What a program of the operator's does: store a component at one server."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("PUT", f"/component/{path}", body=text.encode())
        answer = connection.getresponse()
        answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise Failed(f"{path} was not stored: {answer.status}")
