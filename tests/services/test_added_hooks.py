"""A reload hook that is added to a fileset in step runs once for the generation that is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.services import services
from tests.support.virtual_time import in_virtual_time, reached


@pytest.mark.parametrize("is_down", [False, True])
@in_virtual_time
async def test_the_first_hook_of_a_fileset_runs_once_on_each_side(tmp_path: Path, is_down: bool) -> None:
    """Goal: the application saw the present generation only with the next one. Method: hooks added at the writer and
    at the partner, while they run and while they are down."""
    async with services(tmp_path) as cluster:
        cluster.make(1)
        main, s1 = cluster["main"], cluster["s1"]
        main.write({"a": "a"})
        await cluster.followed("s1")
        await cluster.in_step("s1")
        for node in (main, s1):
            done = tmp_path / f"{node.name}-reloaded"

            async def has_run(done: Path = done) -> bool:
                return done.exists()

            node.tail += f'\n[filesets.data.hooks]\nreload = {{ touch = "{done}" }}\n'
            if is_down:
                await node.stop()
                node.configure()
                node.start()
            else:
                await node.reload()
            await reached(has_run, lambda: "the reload")
            await node.stands("in_step")
            done.unlink()
            await node.stop()
            node.start()
            await node.stands("in_step")
            assert not done.exists(), "a restart is no new hook"
        main.write({"a": "b"})
        await cluster.in_step("s1")
        assert all((tmp_path / f"{name}-reloaded").exists() for name in ("main", "s1"))
