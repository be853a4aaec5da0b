"""A provider of OpenID Connect that can lie: one attribute of it for each lie, and a record of what it was asked."""

from __future__ import annotations

import base64
import hashlib
import time
import urllib.parse
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from tests.support.fleet import free_port

CLIENT, SECRET = "panel", "a secret of the client"


@dataclass
class FakeProvider:
    """Signs the person ``claims`` in without asking. ``lies`` replace claims of the ID token, None takes one away."""

    port: int
    claims: dict[str, Any] = field(
        default_factory=lambda: {"sub": "7", "preferred_username": "ana", "groups": ["maps"]}
    )
    lies: dict[str, Any] = field(default_factory=dict)
    description: dict[str, Any] = field(default_factory=dict)
    """Replaces fields of the description."""
    key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "one"}, private=True))
    signs_with: Any = None
    """Another key than the published one."""
    algorithm: str = "RS256"
    status: int = 200
    """Of the answer with the tokens."""
    more: Mapping[str, Any] | None = None
    """The claims of the userinfo endpoint."""
    padding: int = 0
    compresses: bool = False
    """Where the client says that it takes that."""
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    flows: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def come_back(self, address: str) -> str:
        """What a browser would do that was sent to ``address``: sign in, and go back to the address that it returns."""
        asked = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(address).query))
        code = f"code-{len(self.flows)}"
        self.flows[code] = asked
        query = urllib.parse.urlencode({"code": code, "state": asked["state"]})
        return f"{urllib.parse.urlsplit(asked['redirect_uri']).path}?{query}"

    async def describe(self, _: web.Request) -> web.Response:
        told = {
            "issuer": self.issuer, "authorization_endpoint": f"{self.issuer}/go?theme=dark",
            "token_endpoint": f"{self.issuer}/token", "jwks_uri": f"{self.issuer}/keys",
            "userinfo_endpoint": None if self.more is None else f"{self.issuer}/person",
        }  # fmt: skip
        answer = web.json_response({**told, **self.description, "padding": "x" * self.padding})
        if self.compresses:
            answer.enable_compression()
        return answer

    async def keys(self, _: web.Request) -> web.Response:
        self.asked.append(("keys", {}))
        return web.json_response({"keys": [self.key.as_dict(private=False)]})

    async def person(self, request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer an access token"
        return web.json_response(self.more)

    async def tokens(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.asked.append(("token", {**form, "authorization": request.headers.get("Authorization", "")}))
        begun = self.flows.pop(form["code"], None)
        proof = (
            base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest())
            .rstrip(b"=")
            .decode()
        )
        if begun is None or begun["code_challenge"] != proof or begun["redirect_uri"] != form["redirect_uri"]:
            return web.json_response({"error": "invalid_grant", "error_description": SECRET}, status=400)
        if self.status != 200:
            return web.Response(status=self.status, headers={"Location": "http://169.254.169.254/"})
        now = int(time.time())
        claims = {
            "iss": self.issuer, "aud": begun["client_id"], "iat": now, "exp": now + 300, "nonce": begun["nonce"],
            **self.claims, **self.lies,
        }  # fmt: skip
        claims = {name: value for name, value in claims.items() if value is not None}
        key = self.signs_with or self.key
        header = {"alg": self.algorithm, "kid": key.kid or "one"}
        token = jwt.encode(header, claims, key, algorithms=[self.algorithm])
        return web.json_response(
            {"id_token": token, "access_token": "an access token", "token_type": "Bearer"}
        )


@asynccontextmanager
async def fake_provider() -> AsyncIterator[FakeProvider]:
    provider = FakeProvider(free_port())
    app = web.Application()
    app.router.add_get("/.well-known/openid-configuration", provider.describe)
    app.router.add_get("/keys", provider.keys)
    app.router.add_get("/person", provider.person)
    app.router.add_post("/token", provider.tokens)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", provider.port).start()
        yield provider
    finally:
        await runner.cleanup()


def shared_secret() -> OctKey:
    """A key that a lying provider could share with its clients."""
    return OctKey.import_key(SECRET * 3, {"kid": "one"})
