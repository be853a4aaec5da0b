"""Signing in by the provider that ``[oidc]`` names: the browser goes there by a link, and comes back with a code.

The browser comes back from another site, so no session cookie comes with it (``SameSite=Strict``), and the page that it
gets opens the overview itself.
"""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from instep.errors import InstepError, NotAllowedError, UsageError
from instep.node.access.access import Access
from instep.node.access.provider.client import ProviderClient, require_library
from instep.node.access.provider.flow import FLOW_MS, Flows
from instep.node.access.provider.id_token import groups_of, name_of
from instep.node.config.outside.oidc import OidcSettings
from instep.panel.exchange import PanelExchange

TO_PROVIDER = "/login/provider"
BACK = "/login/callback"
CODE_MAX = 4_096


class ProviderSignIn:
    """``settings`` are the present ones: a changed provider counts from the next request on."""

    def __init__(
        self, access: Access, settings: Callable[[], OidcSettings | None], now_ms: Callable[[], int]
    ) -> None:
        self._access = access
        self._settings = settings
        self._now_ms = now_ms
        self._flows = Flows(now_ms)
        self._client: ProviderClient | None = None

    @property
    def host(self) -> str | None:
        """The provider's name for the page of sign-ins; None where there is no provider."""
        settings = self._settings()
        return None if settings is None else settings.host

    async def begin(self, exchange: PanelExchange, *, is_secure: bool) -> web.Response:
        """Send the browser to the provider."""
        cookie, flow = self._flows.begin()
        client = await self._present()
        address = await client.address(flow, _back(exchange, is_secure=is_secure))
        response = exchange.answer(b"", "text/plain", 303, {"Location": address})
        self._set_cookie(response, cookie, FLOW_MS // 1000, is_secure=is_secure)
        return response

    async def finish(self, exchange: PanelExchange, *, is_secure: bool) -> str:
        """The secret of a new session for the person whom the provider sent back. ``InstepError`` where a check of
        the answer fails, ``too_many_attempts`` before the provider is asked."""
        query = exchange.request.query
        flow = self._flows.of_cookie(
            exchange.request.cookies.get(_cookie_name(is_secure=is_secure), ""), query.get("state", "")
        )
        client = await self._present()
        if query.get("iss", client.settings.issuer) != client.settings.issuer:
            raise NotAllowedError("this answer is of another provider", code="other_provider")
        code = query.get("code", "")
        if not 0 < len(code) <= CODE_MAX:
            raise NotAllowedError(
                "the sign-in provider let this person not in",
                hint="sign in again, or with a link: instep panel login",
                code="provider_refused",
            )
        account = f"provider {exchange.address}"  # no user has a name with a space
        self._access.attempts.take(account, exchange.address)
        claims = await client.claims(code, flow, _back(exchange, is_secure=is_secure))
        self._access.attempts.succeeded(account)
        settings, records = client.settings, self._access.records
        groups = groups_of(claims, settings.groups_claim) or ()
        name = name_of(claims, settings.name_claim)
        key, person = records.identify(settings.issuer, claims["sub"], name, groups)
        kept = tuple(group for group in groups if settings.role_of((group,)) is not None)
        agent = exchange.request.headers.get("User-Agent", "")
        return records.begin_session(
            person, exchange.address, agent, by_link=False, identity=key, groups=kept
        )

    def forget_flow(self, response: web.Response, *, is_secure: bool) -> None:
        """Each flow is for one way there and back."""
        self._set_cookie(response, "", 0, is_secure=is_secure)

    def _set_cookie(self, response: web.Response, cookie: str, age_s: int, *, is_secure: bool) -> None:
        """``Lax``: it comes along when the provider sends the browser back, and with nothing else from another site."""
        response.set_cookie(
            _cookie_name(is_secure=is_secure), cookie, path="/", httponly=True, secure=is_secure, samesite="Lax",
            max_age=age_s,
        )  # fmt: skip

    async def _present(self) -> ProviderClient:
        settings = self._settings()
        if settings is None:
            raise UsageError(
                "this panel knows no sign-in provider",
                hint="sign in with a link: instep panel login",
                code="no_provider",
            )
        await require_library()
        if self._client is None or self._client.settings != settings:
            self._client = ProviderClient(settings, self._now_ms)
        return self._client


def words_of(error: InstepError) -> str:
    """What the page says: the reason, which holds no text of the provider's."""
    return f"You are not signed in: {error.reason}."


def _back(exchange: PanelExchange, *, is_secure: bool) -> str:
    """The address that the provider sends the browser back to. The name in ``Host`` was checked before."""
    scheme = "https" if is_secure else "http"
    return f"{scheme}://{exchange.request.headers.get('Host', '')}{BACK}"


def _cookie_name(*, is_secure: bool) -> str:
    return "__Host-instep-flow" if is_secure else "instep_flow"
