"""Hooks of the kind ``run``, with real children."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec
import uvloop

from instep.fleet.hooks.hooks import run_hook
from instep.fleet.hooks.spec import OUTPUT_KEPT, QUOTED_MAX, HookCall, HookOutcome, HookSpec
from instep.model.ids import FilesetName
from instep.net.task_group import TaskGroup
from tests.support.records import head_ref
from tests.support.waiting import eventually, eventually_async


def sh(script: str, *, timeout_ms: int = 5_000, retries: int = 0) -> HookSpec:
    return HookSpec(run=("/bin/sh", "-c", script), timeout_ms=timeout_ms, retries=retries)


def call(*changed: bytes, **extra: str) -> HookCall:
    return HookCall("reload", FilesetName("catalog"), head_ref(42), head_ref(41), changed, extra)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(") ")[2][0]
    except FileNotFoundError:
        return False
    return state != "Z"


def is_dead(pid: int) -> bool:
    return not is_alive(pid)


async def test_a_program_is_told_the_call_by_variables_file_and_json(tmp_path: Path) -> None:
    spec = HookSpec(
        run=(
            "/bin/sh",
            "-c",
            'env | sort >"$1/env"; cat >"$1/json"; cp "$INSTEP_CHANGED" "$1/changed"; pwd',
            "sh",
            str(tmp_path),
        )
    )
    outcome = await run_hook(spec, call(b"a\nb", b"\xff/c", STAGE="/somewhere"))
    assert outcome == HookOutcome(True, "", "/\n", 1, outcome.duration_ms)
    env = dict(line.split("=", 1) for line in (tmp_path / "env").read_text("utf-8").splitlines())
    changed = Path(env.pop("INSTEP_CHANGED"))
    assert not changed.exists()
    assert {key for key in env if key not in ("PWD", "SHLVL", "_", "OLDPWD")} == {
        "PATH", "LANG", "STAGE", "INSTEP_HOOK", "INSTEP_FILESET", "INSTEP_GENERATION", "INSTEP_PREVIOUS",
    }  # fmt: skip
    assert env["INSTEP_GENERATION"] == "42"
    assert env["INSTEP_PREVIOUS"] == "41"
    assert (tmp_path / "changed").read_bytes() == b"a\nb\0\xff/c\0"
    assert msgspec.json.decode((tmp_path / "json").read_bytes()) == {
        "hook": "reload",
        "fileset": "catalog",
        "generation": 42,
        "generation_id": head_ref(42).id.hex(),
        "previous": 41,
        "changed": [{"path": "a\nb"}, {"path": "\ufffd/c", "path_b64": "/y9j"}],
    }


async def test_failures_are_outcomes_with_a_reason() -> None:
    failed = await run_hook(sh("echo out; echo err >&2; exit 3"), call())
    assert (failed.ok, failed.reason, failed.output_tail) == (False, "exited with 3", "out\nerr\n")
    killed = await run_hook(sh("kill -SEGV $$"), call())
    assert killed.reason == "was killed by SIGSEGV"
    missing = await run_hook(HookSpec(run=("/nonexistent/check",)), call())
    assert missing.reason == "/nonexistent/check cannot be started: No such file or directory"


async def test_the_explanation_quotes_the_end_of_the_output_in_one_bounded_line() -> None:
    failed = await run_hook(
        sh(r"echo begin; yes x | head -c 3000; printf '\033[31mdisk\n is\tfull\377\n'; exit 3"), call()
    )
    said = failed.explained
    assert said.startswith('exited with 3; its output: "... x x ')
    assert said.endswith(r'x \x1b[31mdisk is full\ufffd"'.replace(r"\ufffd", "\ufffd"))
    assert len(said) < QUOTED_MAX + 50
    silent = await run_hook(sh("exit 3"), call())
    assert silent.explained == "exited with 3"
    well = await run_hook(sh("echo fine"), call())
    assert well.explained == ""


async def test_it_is_tried_again_until_it_goes_well(tmp_path: Path) -> None:
    mark = tmp_path / "tries"
    script = f'echo x >>"{mark}"; [ "$(wc -l <"{mark}")" -ge 3 ]'
    outcome = await run_hook(sh(script, retries=5), call(b"p"), backoff_ms=1)
    assert (outcome.ok, outcome.attempts) == (True, 3)
    outcome = await run_hook(sh("exit 1", retries=2), call(), backoff_ms=1)
    assert (outcome.ok, outcome.attempts, outcome.reason) == (False, 3, "exited with 1")


async def test_at_the_deadline_the_whole_group_is_ended(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f'sleep 600 & echo "$$ $!" >"{pids}"; wait'
    outcome = await run_hook(sh(script, timeout_ms=1_000), call())  # the shell has begun by then
    assert outcome.reason == "ran longer than 1 s and was ended"
    for pid in map(int, pids.read_text("ascii").split()):
        eventually(partial(is_dead, pid), 20, f"the end of {pid}")


async def test_output_is_bounded_and_its_end_is_kept() -> None:
    outcome = await run_hook(sh("yes 0123456789 | head -c 3000000; echo the end"), call())
    assert outcome.ok
    assert len(outcome.output_tail) <= OUTPUT_KEPT
    assert outcome.output_tail.endswith("the end\n")


async def test_what_a_hook_leaves_running_neither_delays_nor_dies(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    started = time.monotonic()
    outcome = await run_hook(sh(f'sleep 60 & echo $! >"{pid_file}"'), call())
    assert outcome.ok
    assert time.monotonic() - started < 30, "it waited for a child that still runs"
    pid = int(pid_file.read_text("ascii"))
    assert is_alive(pid)
    os.kill(pid, 9)


async def test_cancelling_ends_the_program(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"

    async def started() -> bool:
        return pid_file.exists() and bool(pid_file.read_text("ascii").strip())

    async with TaskGroup() as group:
        task = group.create_task(
            run_hook(sh(f'echo $$ >"{pid_file}"; exec sleep 60', timeout_ms=60_000), call())
        )
        await eventually_async(started, 20, "the program's start")
        task.cancel()
    assert not is_alive(int(pid_file.read_text("ascii")))


async def test_cancelled_while_it_is_being_ended_nothing_of_the_group_stays(tmp_path: Path) -> None:
    """A daemon that stops while a hook which ignores SIGTERM has its last seconds."""
    pids = tmp_path / "pids"
    stubborn = tmp_path / "stubborn"
    stubborn.write_text(f'trap "" TERM; echo $$ >>"{pids}"; sleep 600')
    script = f"trap 'echo told >>{pids}' TERM; sh {stubborn} & wait; wait"

    async def told() -> bool:
        return pids.exists() and "told" in pids.read_text("ascii")

    async with TaskGroup() as group:
        task = group.create_task(run_hook(sh(script, timeout_ms=1_500), call()))
        await eventually_async(told, 20, "the signal at the deadline")
        task.cancel()
    for pid in (int(word) for word in pids.read_text("ascii").split() if word.isdigit()):
        eventually(partial(is_dead, pid), 20, f"the end of {pid}")


async def test_changes_that_cannot_be_told_are_a_failure_not_a_shorter_list() -> None:
    def paths() -> Iterator[bytes]:
        yield b"first"
        raise OSError(28, "No space left on device")

    spec = sh("true", retries=1)
    outcome = await run_hook(
        spec, HookCall("reload", FilesetName("catalog"), head_ref(2), None, paths()), backoff_ms=1
    )
    assert not outcome.ok
    assert outcome.attempts == 2
    assert outcome.reason.startswith("the list of changes could not be written")


def test_it_works_on_the_daemons_loop() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        good = runner.run(run_hook(sh("echo hello"), call(b"x")))
        late = runner.run(run_hook(sh("sleep 60", timeout_ms=100), call()))
    assert (good.ok, good.output_tail) == (True, "hello\n")
    assert late.reason == "ran longer than 0.1 s and was ended"
