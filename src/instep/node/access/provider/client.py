"""Requests to the provider: its own description, its keys, and a code made into tokens.

Every request is bounded in time and size, follows no redirect, and goes by TLS or to loopback. What the provider
describes is kept for an hour; keys are read again when a token names one that is not known.
"""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
import stat
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from instep.errors import ConfigError, InstepError, NotAllowedError, ResourceError, UnavailableError
from instep.node.access.provider.flow import SignInFlow
from instep.node.access.provider.id_token import bad_answer, claims_of
from instep.node.config.outside.oidc import OidcSettings, is_safe_address
from instep.node.runtime.driver import monotonic_ms

ASK_S = 10.0
ANSWER_MAX = 256 << 10
SECRET_MAX = 4 << 10
DESCRIBED_S = 3_600.0
KEYS_AGAIN_S = 10.0
"""A token that names an unknown key has the keys read again, not more often than this."""
ASKING_MAX = 4
FAILED_S = 5.0
"""A provider that failed to describe itself is asked again after this; until then each sign-in gets that reason."""
_DESCRIPTION = "/.well-known/openid-configuration"


class ProviderDescription(msgspec.Struct, frozen=True):
    """What this node uses of the provider's metadata (OpenID Connect Discovery 1.0)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None = None
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)


class _Tokens(msgspec.Struct, frozen=True):
    id_token: str
    access_token: str = ""


class ProviderClient:
    """One provider, as one configuration names it."""

    def __init__(self, settings: OidcSettings, now_ms: Callable[[], int]) -> None:
        self.settings = settings
        self._now_ms = now_ms
        self._described: tuple[float, ProviderDescription] | None = None
        self._keys: tuple[float, Mapping[str, Any]] | None = None
        self._asking = asyncio.Semaphore(ASKING_MAX)
        self._describing = asyncio.Lock()
        self._failed: tuple[float, InstepError] | None = None

    async def address(self, flow: SignInFlow, back: str) -> str:
        """Where a browser goes to sign in; it comes back to ``back``."""
        from authlib.oauth2.rfc7636 import create_s256_code_challenge

        endpoint = (await self.description()).authorization_endpoint
        asked = {
            "response_type": "code", "client_id": self.settings.client_id, "redirect_uri": back,
            "scope": " ".join(self.settings.scopes), "state": flow.state, "nonce": flow.nonce,
            "code_challenge": create_s256_code_challenge(flow.verifier), "code_challenge_method": "S256",
        }  # fmt: skip
        return f"{endpoint}{'&' if urlsplit(endpoint).query else '?'}{urlencode(asked)}"

    async def claims(self, code: str, flow: SignInFlow, back: str) -> Mapping[str, Any]:
        """The claims of the person who came back with this code."""
        tokens = await self._redeem(code, flow, back)
        ask = partial(
            claims_of, tokens.id_token, issuer=self.settings.issuer, client_id=self.settings.client_id,
            nonce=flow.nonce, access_token=tokens.access_token, now_s=self._now_ms() // 1000,
        )  # fmt: skip
        try:
            claims = ask(await self._signing_keys())
        except KeyError:
            try:
                claims = ask(await self._signing_keys(is_again=True))
            except KeyError as error:
                raise bad_answer("its ID token is signed by a key that it does not publish") from error
        if self.settings.groups_claim in claims or not tokens.access_token:
            return claims
        return {**await self._more_claims(tokens.access_token, claims["sub"]), **claims}

    async def description(self) -> ProviderDescription:
        """Read once for all that wait for it, and so is a failure."""
        async with self._describing:
            if self._described is None or self._seconds() - self._described[0] > DESCRIBED_S:
                if self._failed is not None and self._seconds() - self._failed[0] < FAILED_S:
                    raise self._failed[1].with_traceback(None)
                try:
                    found = await self._described_anew()
                except InstepError as error:
                    self._failed = (self._seconds(), error)
                    raise
                self._described = (self._seconds(), found)
            return self._described[1]

    async def _described_anew(self) -> ProviderDescription:
        raw = await self._ask("GET", self.settings.issuer.rstrip("/") + _DESCRIPTION)
        found: ProviderDescription = _as(raw, ProviderDescription, "its description")
        if found.issuer != self.settings.issuer:
            raise bad_answer(f"it calls itself {found.issuer[:200]!r}, not {self.settings.issuer!r}")
        used = (found.authorization_endpoint, found.token_endpoint, found.jwks_uri, found.userinfo_endpoint)
        if not all(is_safe_address(one) for one in used if one is not None):
            raise bad_answer("one of its addresses is neither https nor on loopback")
        return found

    async def _signing_keys(self, *, is_again: bool = False) -> Mapping[str, Any]:
        age = None if self._keys is None else self._seconds() - self._keys[0]
        if self._keys is None or age is None or age > (KEYS_AGAIN_S if is_again else DESCRIBED_S):
            raw = await self._ask("GET", (await self.description()).jwks_uri)
            self._keys = (self._seconds(), _as(raw, dict[str, Any], "its keys"))
        return self._keys[1]

    async def _redeem(self, code: str, flow: SignInFlow, back: str) -> _Tokens:
        described, settings = await self.description(), self.settings
        form = {
            "grant_type": "authorization_code", "code": code, "redirect_uri": back, "code_verifier": flow.verifier,
        }  # fmt: skip
        headers: dict[str, str] = {}
        if settings.secret_file is None:
            form["client_id"] = settings.client_id
        else:
            secret = await asyncio.to_thread(_secret_in, settings.secret_file)
            if "client_secret_basic" in described.token_endpoint_auth_methods_supported:
                pair = f"{quote(settings.client_id, safe='')}:{quote(secret, safe='')}"
                headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
            else:
                form |= {"client_id": settings.client_id, "client_secret": secret}
        raw = await self._ask("POST", described.token_endpoint, form, headers)
        tokens: _Tokens = _as(raw, _Tokens, "its tokens")
        return tokens

    async def _more_claims(self, access_token: str, subject: str) -> Mapping[str, Any]:
        """Some providers name groups there alone."""
        endpoint = (await self.description()).userinfo_endpoint
        if endpoint is None:
            return {}
        raw = await self._ask("GET", endpoint, None, {"Authorization": f"Bearer {access_token}"})
        found: dict[str, Any] = _as(raw, dict[str, Any], "its claims")
        if found.get("sub") != subject:
            raise bad_answer("its claims are of another person than its ID token")
        return found

    async def _ask(
        self,
        method: str,
        url: str,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """The body of a 200. Texts of errors name the address, and never the request's body."""
        import aiohttp

        name = f"{urlsplit(url).netloc}{urlsplit(url).path}"
        try:
            async with (
                asyncio.timeout(ASK_S),
                self._asking,
                aiohttp.ClientSession(auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()) as session,
                session.request(
                    method,
                    url,
                    data=form,
                    headers={
                        "Accept": "application/json",
                        "Accept-Encoding": "identity",
                        **(headers or {}),
                    },
                    allow_redirects=False,
                    ssl=await asyncio.to_thread(self._trusted),
                ) as answer,
            ):
                raw = await answer.content.read(ANSWER_MAX + 1)
                while len(raw) <= ANSWER_MAX and (more := await answer.content.read(ANSWER_MAX)):
                    raw += more
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UnavailableError(
                f"the sign-in provider does not answer at {name} ({type(error).__name__})",
                hint="sign in with a link meanwhile: instep panel login",
                code="provider_unreachable",
            ) from error
        if answer.status in (400, 401, 403) and method == "POST":
            raise NotAllowedError(
                f"the sign-in provider refused the code of this sign-in with status {answer.status}",
                hint="compare client_id, secret_file and the redirect address with the provider's settings",
                code="provider_refused",
            )
        if answer.status != 200:
            raise bad_answer(f"status {answer.status} at {name}")
        if len(raw) > ANSWER_MAX:
            raise bad_answer(f"more than {ANSWER_MAX} bytes at {name}")
        return raw

    def _trusted(self) -> ssl.SSLContext:
        file = self.settings.ca_file
        try:
            return ssl.create_default_context(cafile=None if file is None else str(file))
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"ca_file {file} cannot be used: {error}", hint="instep config check", code="bad_ca_file"
            ) from error

    @staticmethod
    def _seconds() -> float:
        """For ages: no step of the clock keeps a withdrawn key trusted."""
        return monotonic_ms() / 1000


async def require_library() -> None:
    """Load the libraries of the extra, in a thread since that takes half a second; ``ResourceError``
    ``no_oidc_library`` where they are not installed."""
    try:
        for name in ("authlib.oidc.core.claims", "authlib.oauth2.rfc7636", "joserfc.jwt", "joserfc.jwk"):
            await asyncio.to_thread(import_module, name)
    except ImportError as error:
        raise ResourceError(
            "signing in by a provider needs libraries that are not installed here",
            hint="python3 -m pip install 'instep[oidc]' in the environment of instep, then restart it",
            code="no_oidc_library",
        ) from error


def _as(raw: bytes, kind: type[Any], what: str) -> Any:
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_answer(f"{what} cannot be read") from error


def _secret_in(path: Path) -> str:
    """The secret in a file that no other user may read."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            raw = file.read(SECRET_MAX + 1)
        text = raw.decode("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"secret_file {path} cannot be read: {type(error).__name__}",
            hint="instep config check",
            code="no_secret",
        ) from error
    if mode & 0o077:
        raise ConfigError(
            f"secret_file {path} may be read by others (mode {mode:04o})",
            hint=f"chmod 600 {path}",
            code="secret_mode",
        )
    if not text or len(raw) > SECRET_MAX or not text.isprintable():
        raise ConfigError(
            f"secret_file {path} holds no secret", hint="write it into one line", code="no_secret"
        )
    return text
