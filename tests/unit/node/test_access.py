"""Tokens, sessions, links and wrong sign-ins, with a clock of the test's own and a real store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from instep.api.access import AuditCommand, UserAddCommand, UserChangeDocument
from instep.api.command import Document, Role
from instep.api.lines import PauseCommand, PauseDocument, PublishCommand, RestoreCommand
from instep.api.looking import StatusCommand
from instep.errors import NotAllowedError, RefusedError, UsageError
from instep.node.access import access as access_module
from instep.node.access.access import LINK_MS, Access
from instep.node.access.attempts import ACCOUNT_MAX, ADDRESS_MAX, BUCKETS, WINDOW_MS
from instep.node.access.caller import Caller, DoorName
from instep.node.access.door import CommandDoor, Silent
from instep.node.access.people import (
    SESSION_IDLE_MS,
    SESSION_MS_MAX,
    SESSIONS_MAX,
    AccessRights,
    BrowserSession,
    User,
)
from instep.node.directory import NodeDirectory

ROOT = Caller("root", Role.ADMIN, None, DoorName.SOCKET)


class Clock:
    """Milliseconds, set by the test."""

    now_ms = 1_000_000_000_000

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def access(tmp_path: Path, clock: Clock) -> Iterator[Access]:
    directory = NodeDirectory(tmp_path / "node")
    directory.create()
    made = Access(directory, clock)
    yield made
    made.close()


def reopened(access: Access, clock: Clock, tmp_path: Path) -> Access:
    access.close()
    return Access(NodeDirectory(tmp_path / "node"), clock)


def test_a_token_works_for_its_filesets_and_ends_on_time(
    access: Access, clock: Clock, tmp_path: Path
) -> None:
    secret, _ = access.records.make_token("ci", Role.OPERATOR, ("catalog",), 60_000, "root")
    access = reopened(access, clock, tmp_path)
    caller = access.caller_of_token(secret, "10.0.0.1")
    assert caller is not None
    assert (caller.name, caller.role, caller.reaches("catalog"), caller.reaches("other")) == (
        "root by token ci", Role.OPERATOR, True, False,
    )  # fmt: skip
    with pytest.raises(RefusedError, match="already"):
        access.records.make_token("ci", Role.VIEWER, None, None, "root")
    assert access.caller_of_token(secret + "x", "") is None
    assert access.caller_of_token("ist_", "") is None
    clock.now_ms += 60_000
    assert access.caller_of_token(secret, "") is None
    again, _ = access.records.make_token("ci", Role.VIEWER, None, None, "root")  # the one before is over
    assert access.records.revoke_token("ci")
    assert access.caller_of_token(again, "") is None
    assert secret.encode() not in b"".join(path.read_bytes() for path in (tmp_path / "node/state").iterdir())
    access.close()


def test_a_session_ends_by_silence_by_age_with_its_user_and_as_the_oldest(
    access: Access, clock: Clock
) -> None:
    rights = AccessRights(name="root", role=Role.ADMIN)
    records = access.records
    cookie = records.begin_session(rights, "::1", "browser", by_link=True)
    for _ in range(SESSION_MS_MAX // SESSION_IDLE_MS):
        clock.now_ms += SESSION_IDLE_MS - 1
        assert access.caller_of_cookie(cookie, "::1") is not None
    clock.now_ms += SESSION_IDLE_MS - 1
    assert access.caller_of_cookie(cookie, "::1") is None, "it is older than all"
    quiet = records.begin_session(rights, "::1", "browser", by_link=True)
    clock.now_ms += SESSION_IDLE_MS + 1
    assert access.caller_of_cookie(quiet, "::1") is None
    cookies = []
    for _ in range(SESSIONS_MAX + 1):
        clock.now_ms += 1
        cookies.append(records.begin_session(rights, "::1", "x" * 1_000, by_link=True))
    assert [access.caller_of_cookie(one, "") is not None for one in cookies] == [False] + [
        True
    ] * SESSIONS_MAX
    assert len(records.all(BrowserSession)) == SESSIONS_MAX

    user = User(name="ana", role=Role.OPERATOR, phc="", created_ms=0)
    records.put("ana", user)
    tokens = [
        records.make_token(name, Role.OPERATOR, None, None, by)[0]
        for name, by in (("a", "ana"), ("b", "ben"))
    ]
    assert records.revoke_tokens_of("ana") == ("a",)
    assert [access.caller_of_token(one, "") is None for one in tokens] == [True, False]
    hers = records.begin_session(user, "::1", "", by_link=False)
    records.put("ana", User(name="ana", role=Role.VIEWER, filesets=("a",), phc="", created_ms=0))
    caller = access.caller_of_cookie(hers, "")
    assert caller is not None and caller.role is Role.VIEWER and not caller.reaches("b"), "rights of now"
    records.take(User, "ana")
    assert access.caller_of_cookie(hers, "") is None


def test_a_link_signs_in_once_within_its_minute(access: Access, clock: Clock) -> None:
    code, until_ms = access.make_link(ROOT)
    assert until_ms == clock.now_ms + LINK_MS
    assert access.use_link(code, "::1").name == "root"
    late, _ = access.make_link(ROOT)
    clock.now_ms += LINK_MS
    for used in (code, late, "", "x"):
        with pytest.raises(NotAllowedError) as refused:
            access.use_link(used, "::1")
        assert refused.value.error_code == "wrong_link"


async def test_ten_thousand_wrong_sign_ins_cost_no_hash_and_block_no_session(
    access: Access, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal (CVE-2024-21662, -21652): counters that many names, or a restart, could flush."""
    hashes: list[str] = []

    def is_password(password: str, phc: str) -> bool:
        hashes.append(password)
        return password == "right"

    monkeypatch.setattr(access_module, "is_password", is_password)
    monkeypatch.setattr(access_module, "hash_of", lambda password: "hash")
    access.records.put("ana", User(name="ana", role=Role.ADMIN, phc="hash", created_ms=0))
    session = access.records.begin_session(
        await access.sign_in("ana", "right", "10.1.1.1"), "", "", by_link=False
    )
    hashes.clear()
    codes: list[str] = []
    for number in range(10_000):
        with pytest.raises(NotAllowedError) as refused:
            await access.sign_in("ana", f"guess {number}", "10.0.0.1")
        codes.append(refused.value.error_code)
    assert codes == ["wrong_sign_in"] * ACCOUNT_MAX + ["too_many_attempts"] * (10_000 - ACCOUNT_MAX)
    assert len(hashes) == ACCOUNT_MAX
    for number in range(2 * BUCKETS):  # other names, from other addresses, flush nothing
        if number % 40 == 0:
            access.attempts.take(f"name {number}", f"10.9.{number // 250}.{number % 250}")
    access = reopened(access, clock, tmp_path)
    with pytest.raises(NotAllowedError) as refused:
        await access.sign_in("ana", "right", "10.2.2.2")
    assert refused.value.error_code == "too_many_attempts"
    assert 0 < refused.value.facts["retry_after_s"] <= WINDOW_MS // 1000  # type: ignore[operator]
    assert access.caller_of_cookie(session, "10.1.1.1") is not None
    clock.now_ms += WINDOW_MS
    assert (await access.sign_in("ana", "right", "10.2.2.2")).name == "ana"
    access.close()


async def test_an_address_that_guesses_at_many_names_is_stopped(
    access: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_module, "is_password", lambda *_: False)
    monkeypatch.setattr(access_module, "hash_of", lambda _: "hash")
    codes = []
    for number in range(ADDRESS_MAX + 1):
        with pytest.raises(NotAllowedError) as refused:
            await access.sign_in(f"user{number}", "guess", "10.0.0.1")
        codes.append(refused.value.error_code)
    assert codes == ["wrong_sign_in"] * ADDRESS_MAX + ["too_many_attempts"]


async def test_an_unknown_name_answers_as_a_known_one_does(
    access: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal (CVE-2022-41354): known names answered otherwise. Both cost one hash of the same kind."""
    tried: list[str] = []

    def is_password(_: str, phc: str) -> bool:
        tried.append(phc)
        return False

    monkeypatch.setattr(access_module, "is_password", is_password)
    access.records.put(
        "ana", User(name="ana", role=Role.ADMIN, phc=await access.hashed("a long password"), created_ms=0)
    )
    told = []
    for name in ("ana", "bob"):
        with pytest.raises(NotAllowedError) as refused:
            await access.sign_in(name, "guess", "10.0.0.1")
        told.append(refused.value.as_json())
    assert told[0] == told[1]
    assert len(tried) == 2 and all(phc.startswith("$argon2id$v=19$m=65536,t=3,p=4$") for phc in tried)


async def test_a_password_is_kept_as_a_hash_of_its_own(access: Access) -> None:
    first, second = await access.hashed("a long password"), await access.hashed("a long password")
    assert first != second
    for phc in (first, second):
        access.records.put("ana", User(name="ana", role=Role.VIEWER, phc=phc, created_ms=0))
        assert (await access.sign_in("ana", "a long password", "::1")).name == "ana"


def test_a_damaged_store_closes_access_and_is_kept_aside(
    access: Access, clock: Clock, tmp_path: Path
) -> None:
    secret, _ = access.records.make_token("ci", Role.ADMIN, None, None, "root")
    access.close()
    path = NodeDirectory(tmp_path / "node").access
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    path.write_bytes(b"no database" * 1_000)
    access = Access(NodeDirectory(tmp_path / "node"), clock)
    assert access.caller_of_token(secret, "") is None
    assert path.with_name("access.db.damaged-1").exists()
    access.close()


# The door -----------------------------------------------------------------------------------------------


async def _paused(asked: PauseCommand, _: object) -> Document:
    if asked.fileset == "broken":
        raise ValueError("a bug")
    return PauseDocument(str(asked.fileset), True, None, asked.reason)


async def _restored(asked: RestoreCommand, _: object) -> Document:
    return PauseDocument(str(asked.fileset), True, None, None)


async def _added(asked: UserAddCommand, _: object) -> Document:
    return UserChangeDocument(asked.name, True, 0)


def door_of(access: Access) -> CommandDoor:
    return CommandDoor({PauseCommand: _paused, StatusCommand: _paused, UserAddCommand: _added}, access.audit)


async def test_the_door_checks_role_filesets_and_keeps_a_row_of_each(access: Access) -> None:
    door = door_of(access)
    ana = Caller("ana", Role.OPERATOR, frozenset({"catalog"}), DoorName.PANEL, "10.0.0.1")
    viewer = Caller("bob", Role.VIEWER, None, DoorName.API, "10.0.0.2")
    await door.run("pause", {"fileset": "catalog", "reason": "update\x1b[2J"}, ana, Silent())
    refusals: list[tuple[Caller, dict[str, object], str]] = [
        (viewer, {"fileset": "catalog"}, "role_missing"),
        (ana, {"fileset": "other"}, "fileset_missing"),
        (ana, {}, "fileset_missing"),
        (ana, {"fileset": ["catalog"]}, "fileset_missing"),
    ]
    for caller, params, code in refusals:
        with pytest.raises(NotAllowedError) as refused:
            await door.run("pause", params, caller, Silent())
        assert refused.value.error_code == code
    for params in ({"fileset": "catalog", "for_s": -1}, {"fileset": "catalog", "x": 1}):
        with pytest.raises(UsageError):
            await door.run("pause", params, ana, Silent())
    with pytest.raises(Exception, match="a bug"):
        await door.run("pause", {"fileset": "broken"}, ROOT, Silent())
    rows = access.audit.rows(0, None, 100).rows
    assert [(row.who, row.outcome, row.code) for row in rows] == [
        ("root", "failed", "unexpected"),
        ("ana", "refused", "fileset_missing"),
        ("ana", "refused", "fileset_missing"),
        ("ana", "refused", "fileset_missing"),
        ("bob", "refused", "role_missing"),
        ("ana", "done", None),
    ]
    done = rows[-1]
    assert (done.fileset, done.reason, done.door, done.address) == (
        "catalog",
        "update\x1b[2J",
        "panel",
        "10.0.0.1",
    )
    assert done.result == {"changed": True, "until": None}
    older = access.audit.rows(0, rows[1].number, 2)
    assert [row.number for row in older.rows] == [rows[2].number, rows[3].number]
    assert older.before == rows[3].number


async def test_no_secret_is_in_the_audit(access: Access, tmp_path: Path) -> None:
    door = door_of(access)
    secret = "correct horse battery"
    await door.run("user_add", {"name": "ana", "password": secret}, ROOT, Silent())
    (row,) = access.audit.rows(0, None, 10).rows
    assert row.parameters == {"name": "ana"}
    access.close()
    assert secret.encode() not in b"".join(path.read_bytes() for path in (tmp_path / "node/state").iterdir())
    assert "password" in UserAddCommand.secrets and AuditCommand.secrets == () and PublishCommand.is_audited


async def test_a_row_that_cannot_be_written_stops_no_command(
    access: Access, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """A full or lost disk: the operator who mends it needs commands, and the row is in the log."""
    state = tmp_path / "node/state"
    for path in state.iterdir():
        path.unlink()
    state.rmdir()
    told = await door_of(access).run("pause", {"fileset": "catalog"}, ROOT, Silent())
    assert isinstance(told, PauseDocument) and told.changed
    assert "the audit cannot be written" in caplog.text and '"command":"pause"' in caplog.text


async def test_a_caller_of_some_filesets_names_no_directory_of_the_machine(access: Access) -> None:
    """Goal: a directory may lie in another fileset's tree, or anywhere that the daemon may write."""
    door = CommandDoor({RestoreCommand: _restored}, access.audit)
    some = Caller("ana", Role.ADMIN, frozenset({"catalog"}), DoorName.API, "10.0.0.1")
    with pytest.raises(NotAllowedError) as refused:
        await door.run("restore", {"fileset": "catalog", "to": "/etc/cron.d"}, some, Silent())
    assert refused.value.error_code == "directory_not_allowed"
    await door.run("restore", {"fileset": "catalog"}, some, Silent())
    everything = Caller("eve", Role.ADMIN, None, DoorName.API, "10.0.0.1")
    await door.run("restore", {"fileset": "catalog", "to": "/srv/out"}, everything, Silent())
