"""A provider of OpenID Connect that lies, breaks or is gone lets no person in, and the reason has a name."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from joserfc.jwk import RSAKey

from instep.api.command import Role
from instep.errors import InstepError, NotAllowedError
from instep.node.access.access import Access
from instep.node.access.attempts import ACCOUNT_MAX
from instep.node.access.people import BrowserSession, User
from instep.node.access.provider import client as client_module
from instep.node.access.provider.client import ProviderClient
from instep.node.access.provider.flow import Flows, SignInFlow
from instep.node.access.provider.id_token import groups_of, name_of
from instep.node.config.outside.oidc import GroupRole, OidcSettings
from instep.node.directory import NodeDirectory
from instep.panel.provider_sign_in import ProviderSignIn
from tests.support.oidc import CLIENT, SECRET, FakeProvider, fake_provider, shared_secret

BACK = "http://127.0.0.1:7480/login/callback"


@cache
def other_key(kid: str) -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": kid}, private=True)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    async with fake_provider() as made:
        yield made


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(f"{SECRET}\n")
    path.chmod(0o600)
    return path


def client_of(provider: FakeProvider, **more: Any) -> ProviderClient:
    return ProviderClient(OidcSettings(issuer=provider.issuer, client_id=CLIENT, **more), now_ms)


async def claims_from(provider: FakeProvider, client: ProviderClient) -> dict[str, Any]:
    """The whole way: there, back, and the code made into claims."""
    flow = begun()
    back = provider.come_back(await client.address(flow, BACK))
    code = back.partition("code=")[2].partition("&")[0]
    return dict(await client.claims(code, flow, BACK))


def begun() -> SignInFlow:
    return Flows(now_ms).begin()[1]


async def test_a_person_comes_back_with_a_name_and_groups(provider: FakeProvider, secret_file: Path) -> None:
    client = client_of(provider, secret_file=secret_file)
    address = await client.address(begun(), BACK)
    assert (
        "&response_type=code" in address and "code_challenge_method=S256" in address and SECRET not in address
    )
    claims = await claims_from(provider, client)
    assert (name_of(claims, "preferred_username"), groups_of(claims, "groups")) == ("ana", ("maps",))
    name, form = provider.asked[0]
    assert name == "token" and form["authorization"].startswith("Basic ") and "client_secret" not in form


async def test_groups_that_the_token_lacks_are_asked_for(provider: FakeProvider) -> None:
    provider.claims, provider.more = {"sub": "7", "preferred_username": "ana"}, {"sub": "7", "groups": "maps"}
    claims = await claims_from(provider, client_of(provider))
    assert groups_of(claims, "groups") == ("maps",)
    provider.more = {"sub": "8", "groups": ["admins"]}
    with pytest.raises(InstepError, match="another person"):
        await claims_from(provider, client_of(provider))


async def test_a_new_key_of_the_provider_is_read_once_it_signs(
    provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = client_of(provider)
    await claims_from(provider, client)
    provider.key = other_key("two")
    with pytest.raises(InstepError, match="does not publish"):
        await claims_from(provider, client)  # keys were read a moment ago: no provider is asked all the time
    monkeypatch.setattr(client_module, "KEYS_AGAIN_S", -1.0)
    assert (await claims_from(provider, client))["sub"] == "7"
    assert [name for name, _ in provider.asked].count("keys") == 2


async def test_keys_age_whatever_the_clock_says(
    provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a key that was withdrawn stays trusted after the clock is put back."""
    wall, boot = [now_ms()], [10_000_000]
    monkeypatch.setattr(client_module, "monotonic_ms", lambda: boot[0])
    client = ProviderClient(OidcSettings(issuer=provider.issuer, client_id=CLIENT), lambda: wall[0])
    await claims_from(provider, client)
    provider.key = other_key("two")
    boot[0] += 20_000
    wall[0] -= 5_000
    assert (await claims_from(provider, client))["sub"] == "7"


async def test_a_provider_that_compresses_when_asked_is_understood(provider: FakeProvider) -> None:
    provider.compresses = True
    assert (await claims_from(provider, client_of(provider)))["sub"] == "7"


LIES: dict[str, Callable[[FakeProvider], object]] = {
    "other issuer": lambda p: p.lies.update(iss="https://evil.example"),
    "other audience": lambda p: p.lies.update(aud="another"),
    "several audiences": lambda p: p.lies.update(aud=[CLIENT, "another"]),
    "for another party": lambda p: p.lies.update(aud=[CLIENT, "another"], azp="another"),
    "other nonce": lambda p: p.lies.update(nonce="x"),
    "no nonce": lambda p: p.lies.update(nonce=None),
    "expired": lambda p: p.lies.update(exp=int(time.time()) - 120),
    "no end": lambda p: p.lies.update(exp=None),
    "from the future": lambda p: p.lies.update(iat=int(time.time()) + 600),
    "no subject": lambda p: p.lies.update(sub=None),
    "subject is no text": lambda p: p.lies.update(sub=7),
    "other key, same id": lambda p: setattr(p, "signs_with", other_key("one")),
    "shared secret": lambda p: vars(p).update(signs_with=shared_secret(), algorithm="HS256"),
    "described as another": lambda p: p.description.update(issuer="https://evil.example"),
    "unencrypted": lambda p: p.description.update(token_endpoint="http://10.0.0.1/token"),
    "local file": lambda p: p.description.update(jwks_uri="file:///etc/passwd"),
    "no token endpoint": lambda p: p.description.update(token_endpoint=None),
    "endless": lambda p: setattr(p, "padding", 1 << 20),
    "redirects": lambda p: setattr(p, "status", 302),
    "broken": lambda p: setattr(p, "status", 500),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_of_the_provider_is_named(provider: FakeProvider, lie: str) -> None:
    provider.key = other_key("three") if lie != "other key, same id" else provider.key
    LIES[lie](provider)
    with pytest.raises(InstepError) as refused:
        await claims_from(provider, client_of(provider))
    assert refused.value.error_code == "bad_provider_answer"


async def test_a_code_of_another_browser_is_refused_and_no_secret_is_repeated(provider: FakeProvider) -> None:
    client, flow = client_of(provider), begun()
    back = provider.come_back(await client.address(flow, BACK))
    code = back.partition("code=")[2].partition("&")[0]
    with pytest.raises(NotAllowedError) as refused:
        await client.claims(code, begun(), BACK)
    assert refused.value.error_code == "provider_refused"
    assert SECRET not in str(refused.value) and code not in str(refused.value)


async def test_a_provider_that_is_gone_is_named(provider: FakeProvider, tmp_path: Path) -> None:
    gone = OidcSettings(issuer="http://127.0.0.1:1", client_id=CLIENT)
    with pytest.raises(InstepError) as refused:
        await ProviderClient(gone, now_ms).address(begun(), BACK)
    assert refused.value.error_code == "provider_unreachable"
    for file, code in ((tmp_path / "none", "no_secret"), (tmp_path / "open", "secret_mode")):
        (tmp_path / "open").write_text(SECRET)
        (tmp_path / "open").chmod(0o644)
        with pytest.raises(InstepError) as refused:
            await claims_from(provider, client_of(provider, secret_file=file))
        assert refused.value.error_code == code


def test_a_flow_belongs_to_one_browser_for_ten_minutes() -> None:
    now = [1_000]
    flows = Flows(lambda: now[0])
    cookie, flow = flows.begin()
    assert flows.of_cookie(cookie, flow.state) == flow
    for other, state in (
        ("", flow.state),
        (cookie, "x"),
        (cookie[:-4] + "AAAA", flow.state),
        ("ü", flow.state),
    ):
        with pytest.raises(NotAllowedError, match="did not begin"):
            flows.of_cookie(other, state)
    with pytest.raises(NotAllowedError):
        Flows(lambda: now[0]).of_cookie(cookie, flow.state)
    now[0] += 600_000
    with pytest.raises(NotAllowedError):
        flows.of_cookie(cookie, flow.state)


def test_a_subject_keeps_its_name_and_its_rights_are_those_of_the_configuration(tmp_path: Path) -> None:
    """Goal: a person who takes another name at the provider is no second person, and no other one takes a name here."""
    roles = {"maps": GroupRole("maps", Role.OPERATOR, None)}
    directory = NodeDirectory(tmp_path / "node")
    directory.create()
    issuers = ["https://a"]

    def role_of(issuer: str, groups: tuple[str, ...]) -> GroupRole | None:
        return next((roles[g] for g in groups if g in roles and issuer in issuers), None)

    access = Access(directory, now_ms, role_of)
    records = access.records
    key, ana = records.identify("https://a", "7", "ana", ("other", "maps"))
    assert records.identify("https://a", "7", "ben", ("maps",))[1].name == ana.name == "ana"
    records.put("carl", User(name="carl", role=Role.ADMIN, phc="", created_ms=0))
    for subject, name, groups, code in (
        ("8", "ana", ("maps",), "name_taken"),
        ("8", "carl", ("maps",), "name_taken"),
        ("8", "dora", ("other",), "no_role"),
    ):
        with pytest.raises(NotAllowedError) as refused:
            records.identify("https://a", subject, name, groups)
        assert refused.value.error_code == code
    cookies = [
        records.begin_session(ana, "", "", by_link=False, identity=key, groups=("maps",)) for _ in range(2)
    ]
    roles["maps"] = GroupRole("maps", Role.VIEWER, ("data",))  # type: ignore[arg-type]
    caller = access.caller_of_cookie(cookies[0], "")
    assert caller is not None and (caller.person, caller.role, caller.reaches("other")) == (
        "ana",
        Role.VIEWER,
        False,
    )
    issuers[:] = ["https://b"]  # which may have a group of that name, too
    elsewhere = records.begin_session(ana, "", "", by_link=False, identity=key, groups=("maps",))
    assert access.caller_of_cookie(elsewhere, "") is None
    issuers[:] = ["https://a"]
    roles.clear()
    assert access.caller_of_cookie(cookies[0], "") is None
    assert [one.name for _, one in records.all(BrowserSession)] == ["ana"]
    roles["maps"] = GroupRole("maps", Role.VIEWER, None)
    assert records.remove_person("ana") and access.caller_of_cookie(cookies[1], "") is None
    access.close()


async def test_a_silent_provider_is_asked_once_by_all_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: strangers who open the page of sign-ins do not queue each other for a time each. Method: a server that
    takes connections and answers none."""
    reached: list[asyncio.StreamWriter] = []
    boot = [10_000_000]
    monkeypatch.setattr(client_module, "monotonic_ms", lambda: boot[0])
    monkeypatch.setattr(client_module, "ASK_S", 0.3)
    server = await asyncio.start_server(lambda _, writer: reached.append(writer), "127.0.0.1", 0)
    issuer = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    client = ProviderClient(OidcSettings(issuer=issuer, client_id=CLIENT), now_ms)

    async def codes(count: int) -> set[str]:
        found = await asyncio.gather(*(client.description() for _ in range(count)), return_exceptions=True)
        return {one.error_code for one in found if isinstance(one, InstepError)}

    try:
        assert await codes(20) == {"provider_unreachable"}
        assert len(reached) == 1
        boot[0] += 10_000
        assert await codes(1) == {"provider_unreachable"}
        assert len(reached) == 2, "it is asked again after some seconds"
    finally:
        for writer in reached:
            writer.close()
        server.close()
        await server.wait_closed()


async def test_no_place_to_ask_is_waited_for_longer_than_an_answer(
    provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = client_of(provider)
    monkeypatch.setattr(client_module, "ASK_S", 0.3)
    monkeypatch.setattr(client, "_asking", asyncio.Semaphore(0))
    with pytest.raises(InstepError) as refused:
        async with asyncio.timeout(30):
            await client.description()
    assert refused.value.error_code == "provider_unreachable"


async def test_wrong_codes_of_one_address_ask_the_provider_no_more(
    provider: FakeProvider, tmp_path: Path
) -> None:
    """Goal: a stranger does not make this node ask the provider without end. Method: codes that it never gave."""
    directory = NodeDirectory(tmp_path / "node")
    directory.create()
    access = Access(directory, now_ms)
    settings = OidcSettings(issuer=provider.issuer, client_id=CLIENT)
    sign_ins = ProviderSignIn(access, lambda: settings, now_ms)

    async def refused(address: str) -> str:
        cookie, flow = sign_ins._flows.begin()
        request = SimpleNamespace(
            query={"state": flow.state, "code": "made up"},
            cookies={"instep_flow": cookie}, headers={"Host": "127.0.0.1:7480"},
        )  # fmt: skip
        exchange: Any = SimpleNamespace(request=request, address=address)
        with pytest.raises(NotAllowedError) as caught:
            await sign_ins.finish(exchange, is_secure=False)
        return caught.value.error_code

    try:
        for _ in range(ACCOUNT_MAX):
            assert await refused("192.0.2.7") == "provider_refused"
        assert await refused("192.0.2.7") == "too_many_attempts"
        assert [name for name, _ in provider.asked].count("token") == ACCOUNT_MAX
        assert await refused("192.0.2.8") == "provider_refused", "others are not kept out"
    finally:
        access.close()
