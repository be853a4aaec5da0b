"""A disk that stops taking writes, and takes them again, is noticed without any event; its files can still be read."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from instep.errors import ResourceError
from instep.model.ids import FilesetName
from instep.node.writing import disk_watch
from instep.node.writing.disk_watch import DiskWatch
from instep.tree.root.place import Place, prepare_place
from instep.tree.root.writable import require_writable_folder
from tests.support.mounts import loop_ext4, mounted, need_root


def place_on(there: Path) -> Place:
    (there / "root").mkdir()
    place = Place(there / "root", there / ".instep-data", FilesetName("data"))
    prepare_place(place)
    return place


def remount(there: Path, turn: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{turn}", there], check=True)


def test_both_turns_are_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_root("mounts a file system")
    monkeypatch.setattr(disk_watch, "LOOK_S", 0.01)
    with mounted("tmpfs", tmp_path / "disk") as there:
        place = place_on(there)

        async def run(work: Any) -> Any:
            return work()

        tree: Any = SimpleNamespace(
            worker=SimpleNamespace(run=run), taken=lambda: SimpleNamespace(place=place)
        )

        async def look() -> None:
            told: asyncio.Queue[None] = asyncio.Queue()
            watching = asyncio.get_running_loop().create_task(
                DiskWatch(tree, lambda: told.put_nowait(None)).run()
            )
            async with asyncio.timeout(20):
                for turn in ("ro", "rw", "ro"):
                    assert told.empty()
                    await asyncio.to_thread(remount, there, turn)
                    await told.get()
            watching.cancel()

        asyncio.run(look())


def test_a_read_only_root_can_be_read(tmp_path: Path) -> None:
    """Goal: only what writes is refused; the hint works as it is typed."""
    need_root("mounts a file system")
    with mounted("tmpfs", tmp_path / "a disk") as there:
        place = place_on(there)
        remount(there, "ro")
        prepare_place(place)
        with pytest.raises(ResourceError) as caught:
            require_writable_folder(place.control)
        subprocess.run(["sh", "-c", (caught.value.hint or "").partition("then: ")[2]], check=True)
        require_writable_folder(place.control)


def test_a_file_system_that_the_kernel_stopped_is_found_out(tmp_path: Path) -> None:
    """Goal: after an error the kernel refuses writes to a disk that is still listed as writable."""
    with loop_ext4(tmp_path / "image", tmp_path / "disk") as there:
        place = place_on(there)
        require_writable_folder(place.control)
        done = subprocess.run(["mount", "-o", "remount,abort", there], capture_output=True, check=False)
        if done.returncode:
            pytest.skip("this kernel does not stop a file system on request")
        prepare_place(place)
        with pytest.raises(ResourceError) as caught:
            require_writable_folder(place.control)
        assert "remount,rw" not in (caught.value.hint or "") and "fsck" in (caught.value.hint or "")
