"""Hooks of the kinds signal, touch and systemd, and programs that run as another user."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from instep.fleet.hooks.hooks import run_hook
from instep.fleet.hooks.small import send_signal
from instep.fleet.hooks.spec import HookCall, HookOutcome, HookSpec
from instep.model.ids import FilesetName
from tests.support.records import head_ref

CALL = HookCall("reload", FilesetName("catalog"), head_ref(2), head_ref(1), (b"a",))


async def test_a_signal_reaches_the_process_of_the_pid_file_and_no_other(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"

    async def send() -> HookOutcome:
        return await run_hook(HookSpec(signal="TERM", pid_file=pid_file), CALL)

    with subprocess.Popen(["/bin/sleep", "60"]) as child:  # noqa: ASYNC220 - only started, ended below
        pid_file.write_text(f"{child.pid}\n", "ascii")
        pid_file.chmod(0o666)
        assert "0666" in (await send()).reason
        pid_file.chmod(0o644)
        assert (await send()).ok
        assert child.wait(60) == -signal.SIGTERM
    assert "no such process" in (await send()).reason
    for wrong, why in (("1", "init"), (str(os.getpid()), "itself"), ("-1", "number"), ("x" * 100, "number")):
        pid_file.write_text(wrong, "ascii")
        assert why in (await send()).reason
    (tmp_path / "real").write_text("1", "ascii")
    pid_file.unlink()
    pid_file.symlink_to(tmp_path / "real")
    assert not (await send()).ok


@pytest.mark.parametrize("found", [None, "", "\n"])
def test_a_pid_file_that_is_being_written_again_is_waited_for(tmp_path: Path, found: str | None) -> None:
    """HAProxy removes its pid file while it reloads, others truncate it: a reload at that moment must not fail."""
    pid_file = tmp_path / "pid"
    if found is not None:
        pid_file.write_text(found, "ascii")
    looks = []

    def pause(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            pid_file.write_text(f"{child.pid}\n", "ascii")

    with subprocess.Popen(["/bin/sleep", "60"]) as child:
        assert send_signal("TERM", pid_file, pause).ok
        assert child.wait(60) == -signal.SIGTERM
    pid_file.write_text("", "ascii")
    assert "is empty" in send_signal("TERM", pid_file, lambda _: None).reason
    pid_file.unlink()
    assert "No such file" in send_signal("TERM", pid_file, lambda _: None).reason


async def test_touch_sets_the_time_and_follows_no_symbolic_link(tmp_path: Path) -> None:
    here = Path(os.path.realpath(tmp_path))
    file = here / "flag"
    assert (await run_hook(HookSpec(touch=file), CALL)).ok
    os.utime(file, (1, 1))
    assert (await run_hook(HookSpec(touch=file), CALL)).ok
    assert file.stat().st_mtime > 1_000_000
    os.utime(file, (1, 1))
    (here / "way").symlink_to(here)
    (here / "link").symlink_to(file)
    for path in (here / "way" / "flag", here / "link", here):
        assert "cannot be touched" in (await run_hook(HookSpec(touch=path), CALL)).reason
    assert file.stat().st_mtime == 1


async def test_systemd_is_asked_by_an_argument_list(tmp_path: Path) -> None:
    fake = tmp_path / "systemctl"
    fake.write_text('#!/bin/sh\nprintf "%s|" "$@"\n[ "$4" = good.service ]\n', "utf-8")
    fake.chmod(0o755)
    good = await run_hook(HookSpec(systemd=("reload", "good.service")), CALL, systemctl=fake)
    assert (good.ok, good.output_tail) == (True, "--no-ask-password|reload|--|good.service|")
    bad = await run_hook(HookSpec(systemd=("restart", "bad.service")), CALL, systemctl=fake)
    assert bad.reason == "exited with 1"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may switch")
async def test_a_program_runs_as_its_user_with_that_users_groups() -> None:
    script = 'id -u; id -G; cat "$INSTEP_CHANGED"; grep CapEff /proc/self/status'
    outcome = await run_hook(HookSpec(run=("/bin/sh", "-c", script), user="nobody"), CALL)
    assert outcome.ok, (outcome, sys.platform)
    assert outcome.output_tail.splitlines() == ["65534", "65534", "a\0CapEff:\t0000000000000000"]
    unknown = await run_hook(HookSpec(run=("/bin/true",), user="no-such-user"), CALL)
    assert unknown.reason == "user no-such-user is not known on this machine"


async def test_who_may_not_switch_is_told_both_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    outcome = await run_hook(HookSpec(run=("/bin/true",), user="nobody"), CALL)
    assert "nobody (65534)" in outcome.reason
    assert "4711" in outcome.reason
