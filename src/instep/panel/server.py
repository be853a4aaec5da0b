"""The panel's listener: where it listens, and how a request comes to its answer.

In this order: the name in ``Host``, the static files, the caller, whether an unsafe request comes from a page of this
panel, and only then the route. A page is drawn, and its templates are loaded, when a browser asks for the first one.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import TYPE_CHECKING
from urllib.parse import unquote

import msgspec
from aiohttp import web

from instep.api.looking import StatusDocument
from instep.errors import InstepError, NotAllowedError, UsageError
from instep.model.address import Address
from instep.net.trust.decoding import certificates_of_pem
from instep.node.access.access import Access
from instep.node.access.door import CommandDoor, Silent
from instep.node.balance.listeners import Listeners
from instep.node.balance.probe_server import BoundedServer
from instep.node.node import Node
from instep.node.runtime.driver import own_error, wall_ms
from instep.panel.exchange import PanelExchange
from instep.panel.feed import NodeFeed
from instep.panel.guard import SAFE, is_own_host, why_foreign
from instep.panel.metrics import CONTENT_TYPE, Beside, metrics_text
from instep.panel.openapi import document
from instep.panel.provider_sign_in import BACK, TO_PROVIDER, ProviderSignIn
from instep.panel.provider_sign_in import words_of as words_of_provider
from instep.panel.rest import RestApi, require_caller
from instep.panel.routes import BASE
from instep.panel.sign_in import SignIn, cookie_name, words_of
from instep.panel.streams import Streams

if TYPE_CHECKING:
    from instep.panel.pages.site import Site

AGAIN_S = 5.0
CERTIFICATE_LOOK_S = 60.0
BACKLOG = 128
CLOSE_S = 1.0
CONNECTIONS_MAX = 512
PER_ADDRESS_MAX = 128
LINGERING_S = 0.2
IN_STEP = f"{BASE}/in-step/"
log = logging.getLogger(__name__)


class PanelServer:
    """Listens where the settings say, or says in ``status`` why it cannot; the daemon goes on without it."""

    def __init__(self, node: Node, door: CommandDoor, access: Access, listeners: Listeners) -> None:
        self._node = node
        self._door = door
        self._access = access
        self._listeners = listeners
        self._at: Address | None = None
        self._socket: asyncio.Server | None = None
        self._http: BoundedServer | None = None
        self._context: ssl.SSLContext | None = None
        self._certificate: object = None
        self._site: Site | None = None
        self.feed = NodeFeed(node, door)
        self._rest = RestApi(door, access)
        self._streams = Streams(door, self.feed, self._keep)
        self._sign_in = SignIn(access, "", is_secure=False)
        self._provider = ProviderSignIn(access, lambda: node.runtime.settings.oidc, wall_ms)
        self._following = asyncio.Lock()

    async def run(self) -> None:
        """Level: compare where it listens with the settings, after every change and now and then."""
        try:
            while True:
                changed = self._node.runtime.changed
                is_well = await self.follow()
                wait_s = CERTIFICATE_LOOK_S if self._context is not None else None
                try:
                    async with asyncio.timeout(wait_s if is_well else AGAIN_S):
                        await changed.wait()
                except TimeoutError:
                    continue
        finally:
            await self._close()

    async def follow(self) -> bool:
        """Listen where the settings say now; whether that is so."""
        async with self._following:
            return await self._follow()

    async def _follow(self) -> bool:
        wanted = self._node.runtime.settings.panel
        if wanted == self._at:
            self._follow_certificate()
            return True
        await self._close()
        if wanted is None:
            self._listeners.panel_listens(None, None)
            return True
        try:
            await self._open(wanted)
        except OSError as error:
            await self._close()
            self._listeners.panel_listens(wanted, error)
            return False
        self._at = wanted
        self._listeners.panel_listens(wanted, None)
        log.info("the panel answers on %s", wanted)
        return True

    async def _open(self, at: Address) -> None:
        self._sign_in = SignIn(
            self._access, cookie_name(self._node.runtime.name, at.port), is_secure=not at.is_loopback
        )
        if not at.is_loopback:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.minimum_version = ssl.TLSVersion.TLSv1_2
            self._follow_certificate()
        self._http = BoundedServer(
            self._answer, lambda _: False, connection_s=None, total=CONNECTIONS_MAX,
            per_address=PER_ADDRESS_MAX, lingering_s=LINGERING_S,
        )  # fmt: skip
        loop = asyncio.get_running_loop()
        self._socket = await loop.create_server(
            self._http, at.host, at.port, ssl=self._context, backlog=BACKLOG
        )

    def _follow_certificate(self) -> None:
        """The node's own certificate, also after it was renewed: the context that is in use takes the new one."""
        if self._context is None:
            return
        path, key = self._node.tls.browser_files
        stamp = (path, path.stat().st_mtime_ns)
        if stamp != self._certificate:
            self._context.load_cert_chain(path, key)
            self._certificate = stamp

    async def _close(self) -> None:
        self._at = self._context = self._certificate = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._http is not None:
            http, self._http = self._http, None
            await http.shutdown(CLOSE_S)

    def _keep(self, request: web.BaseRequest) -> None:
        if self._http is not None:
            self._http.touch(request)

    # Requests -----------------------------------------------------------------------------------------------

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        exchange = PanelExchange(request)
        self._keep(request)
        try:
            return await self._dispatch(exchange)
        except ConnectionError:
            raise
        except (InstepError, OSError) as error:
            told = own_error(error)
            if exchange.path.startswith("/api/") or exchange.path == "/metrics":
                return exchange.problem(told)
            return self._pages().error(exchange, told)
        except Exception as error:  # the last door: anything else is 500, and in the log
            log.exception("request %s to %s broke", exchange.id, exchange.path[:200])
            broken = InstepError(
                f"{type(error).__name__}", hint=f"see the log of the daemon for {exchange.id}"
            )
            return exchange.problem(broken)

    async def _dispatch(self, exchange: PanelExchange) -> web.StreamResponse:
        self._require_own_host(exchange)
        request, path = exchange.request, exchange.path
        if path.startswith("/static/"):
            return self._pages().static(exchange)
        self._sign_in.identify(exchange)
        if exchange.is_by_cookie or path in ("/login", "/logout"):
            self._require_own_page(exchange)
        if path == BASE or path.startswith(f"{BASE}/"):
            return await self._api(exchange)
        if path == "/metrics" and request.method in SAFE:
            return await self._metrics(exchange)
        if path == "/login":
            return await self._login(exchange)
        if path in (TO_PROVIDER, BACK) and request.method == "GET":
            return await self._login_by_provider(exchange)
        if path == "/logout" and request.method == "POST":
            form = await exchange.form()
            response = self._pages().redirect(exchange, "/login")
            self._sign_in.end(exchange, response, everywhere="everywhere" in form)
            return response
        if exchange.caller is None:
            if request.method not in SAFE:
                require_caller(exchange)
            return self._pages().redirect(exchange, "/login")
        return await self._pages().answer(exchange, exchange.caller)

    async def _api(self, exchange: PanelExchange) -> web.StreamResponse:
        caller = require_caller(exchange)
        path, method = exchange.path, exchange.request.method
        if path == f"{BASE}/openapi.json" and method in SAFE:
            return exchange.answer(msgspec.json.encode(document()), "application/json")
        if path == f"{BASE}/events" and method == "GET":
            return await self._streams.events(exchange, caller)
        if path.startswith(IN_STEP) and method in SAFE:
            return await self._streams.in_step(exchange, caller, unquote(path.removeprefix(IN_STEP)))
        answered = await self._rest.answer(exchange, caller)
        if answered is None:
            raise UsageError(
                f"there is nothing at {path[:200]}", hint=f"GET {BASE}/openapi.json", code="no_route"
            )
        return answered

    async def _metrics(self, exchange: PanelExchange) -> web.Response:
        caller = require_caller(exchange)
        status = await self._door.run("status", {}, caller, Silent())
        assert isinstance(status, StatusDocument)
        paths = {self._node.tls.browser_files[0], self._node.pki.certificate_path()}
        ends = min(certificates_of_pem(path.read_bytes())[0].not_valid_after_utc for path in paths)
        noted = self._node.runtime.noted
        beside = Beside(ends.timestamp(), self._access.audit.denied, self._streams.count, noted)
        response = exchange.answer(metrics_text(status, beside).encode(), CONTENT_TYPE)
        response.enable_compression()
        return response

    async def _login(self, exchange: PanelExchange) -> web.Response:
        if exchange.request.method in SAFE:
            return self._pages().login(exchange, self._provider.host)
        try:
            secret = await self._sign_in.begin(exchange)
        except InstepError as error:
            if error.error_code in ("body_too_large", "slow_request"):
                raise
            return self._not_signed_in(exchange, error, words_of(error))
        return self._signed_in(exchange, self._pages().redirect(exchange, "/"), secret)

    async def _login_by_provider(self, exchange: PanelExchange) -> web.Response:
        """There, and back from there with a code; a failure shows the page of sign-ins with the reason."""
        is_secure = self._context is not None
        try:
            if exchange.path == TO_PROVIDER:
                return await self._provider.begin(exchange, is_secure=is_secure)
            secret = await self._provider.finish(exchange, is_secure=is_secure)
        except InstepError as error:
            log.warning("a sign-in by the provider failed: %s", error.reason)
            response = self._not_signed_in(exchange, error, words_of_provider(error))
        else:
            response = self._signed_in(exchange, self._pages().signed_in(exchange), secret)
        self._provider.forget_flow(response, is_secure=is_secure)
        return response

    def _not_signed_in(self, exchange: PanelExchange, error: InstepError, words: str) -> web.Response:
        self._node.runtime.note_of_peer(
            exchange.address, "sign_in_refused", f"a sign-in from {exchange.address} was refused",
            code=error.error_code,
        )  # fmt: skip
        return self._pages().login(exchange, self._provider.host, error, words)

    def _signed_in(self, exchange: PanelExchange, response: web.Response, secret: str) -> web.Response:
        self._sign_in.set_cookie(response, secret)
        caller = self._access.caller_of_cookie(secret, exchange.address)
        name = caller.name if caller is not None else ""
        self._node.runtime.note(
            "signed_in", f"{name} signed in to the panel from {exchange.address}", who=name
        )
        return response

    def _require_own_host(self, exchange: PanelExchange) -> None:
        settings = self._node.runtime.settings
        local = exchange.request.transport.get_extra_info("sockname") if exchange.request.transport else None
        names = [settings.name, settings.advertise.host, *settings.panel_names]
        names += [self._at.host] if self._at is not None else []
        names += ["localhost"] if self._at is not None and self._at.is_loopback else []
        raw = exchange.request.headers.get("Host", "")
        if not is_own_host(raw, names, str(local[0]) if local else ""):
            raise NotAllowedError(
                "this panel is not reached by that name",
                hint="use its address, or add the name to panel_names in instep.toml",
                code="wrong_host",
            )

    def _require_own_page(self, exchange: PanelExchange) -> None:
        request = exchange.request
        why = why_foreign(request.method, request.headers, "https" if self._context is not None else "http")
        if why is not None:
            self._node.runtime.note_of_peer(
                exchange.address, "panel_refused", f"a request from another site was refused: {why}",
                path=exchange.path[:100],
            )  # fmt: skip
            if exchange.caller is not None:
                asked = f"{request.method} {exchange.path}"
                self._access.audit.refused_request(exchange.caller, asked, why, "cross_site")
            raise NotAllowedError(
                f"this request comes from another site: {why}",
                hint="open the panel itself; programs use a token",
                code="cross_site",
            )

    def _pages(self) -> Site:
        """Made for the first browser, with its templates."""
        if self._site is None:
            from instep.panel.pages.site import Site

            self._site = Site(self._node, self._door, self.feed)
        return self._site
