"""Signing in and out: a one-time link or a name with a password becomes a cookie; and callers of requests."""

from __future__ import annotations

from aiohttp import web

from instep.errors import InstepError, NotAllowedError, UsageError
from instep.node.access.access import Access
from instep.node.access.people import SESSION_MS_MAX, digest_of
from instep.panel.exchange import LOGIN_MAX, PanelExchange

BEARER = "Bearer "
SECRET_MAX = 512


class SignIn:
    """``cookie`` is the name of this node's cookie: on loopback cookies know no ports, so it is the node's own."""

    def __init__(self, access: Access, cookie: str, *, is_secure: bool) -> None:
        self._access = access
        self._is_secure = is_secure
        self._cookie = "__Host-instep" if is_secure else cookie

    def identify(self, exchange: PanelExchange) -> None:
        """Find the caller of a request: by its token, else by its cookie. A token that is wrong is never made up for by
        a cookie."""
        headers = exchange.request.headers
        given = headers.get("Authorization")
        if given is not None:
            secret = given.removeprefix(BEARER)
            if given.startswith(BEARER) and len(secret) <= SECRET_MAX:
                exchange.resolve = lambda: self._access.caller_of_token(secret, exchange.address)
        else:
            cookie = exchange.request.cookies.get(self._cookie, "")
            if 0 < len(cookie) <= SECRET_MAX:
                exchange.resolve = lambda: self._access.caller_of_cookie(cookie, exchange.address)
                exchange.is_by_cookie = True
        exchange.caller = exchange.resolve()

    async def begin(self, exchange: PanelExchange) -> str:
        """Sign in with the form of the page; the secret of the new session. Raises why not."""
        form = await exchange.form(LOGIN_MAX)
        fields = {name: values[-1] for name, values in form.items()}
        agent = exchange.request.headers.get("User-Agent", "")
        records = self._access.records
        if fields.get("code"):
            rights = self._access.use_link(fields["code"].strip(), exchange.address)
            return records.begin_session(rights, exchange.address, agent, by_link=True)
        user, password = fields.get("user", ""), fields.get("password", "")
        if not user or not password:
            raise UsageError("a name and a password are needed, or the code of a link", code="empty_sign_in")
        found = await self._access.sign_in(user, password, exchange.address)
        return records.begin_session(found, exchange.address, agent, by_link=False)

    def set_cookie(self, response: web.Response, secret: str) -> None:
        response.set_cookie(
            self._cookie, secret, path="/", httponly=True, secure=self._is_secure, samesite="Strict",
            max_age=SESSION_MS_MAX // 1000,
        )  # fmt: skip

    def end(self, exchange: PanelExchange, response: web.Response, *, everywhere: bool) -> None:
        """Sign out here, or in every browser of the same person."""
        mine = digest_of(exchange.request.cookies.get(self._cookie, ""))
        name = exchange.caller.name if exchange.caller is not None else None
        self._access.records.end_sessions(
            lambda key, session: key == mine or (everywhere and session.name == name)
        )
        response.set_cookie(
            self._cookie, "", path="/", httponly=True, secure=self._is_secure, samesite="Strict", max_age=0
        )


def words_of(error: InstepError) -> str:
    """What the page says of a failed sign-in: fixed sentences, for a text from elsewhere could pose as ours."""
    if error.error_code == "too_many_attempts":
        return f"Too many wrong sign-ins. The next is looked at in {error.facts['retry_after_s']} s."
    if error.error_code == "wrong_link":
        return "This code was used already, or its minute has passed. For a new one: instep panel login"
    if isinstance(error, NotAllowedError):
        return "The name or the password is wrong."
    return "Type a name and a password, or the code of a link."


def cookie_name(node: str, port: int) -> str:
    """Of this node alone, whatever else listens on this machine."""
    safe = "".join(c if c.isalnum() and c.isascii() else "_" for c in node)
    return f"instep_{safe}_{port}"
