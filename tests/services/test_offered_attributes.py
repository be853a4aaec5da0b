"""Extended attributes and hard links in changes that are made elsewhere."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from instep.model.limits import INLINE_XATTR_MAX
from tests.support.offering import FILES, OFFERS, alike
from tests.support.services import ServiceNode, Services, services
from tests.support.virtual_time import in_virtual_time, reached


@pytest.fixture
def roomy() -> Iterator[Path]:
    """A folder on a file system that takes large attributes, as tmpfs does; most others keep them within a block."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        file = Path(folder, "probe")
        file.touch()
        try:
            os.setxattr(file, "user.probe", bytes(2 * INLINE_XATTR_MAX))
        except OSError as error:
            pytest.skip(f"/dev/shm takes no large attributes: {error}")
        yield Path(folder)


async def _begun(cluster: Services, preserve: str, links: tuple[str, ...] = ()) -> tuple[ServiceNode, ...]:
    cluster.make(2, writer=('offers_from = ["s1", "s2"]', f"preserve = [{preserve}]"), partner=(OFFERS,))
    tree = cluster["main"].tree
    cluster["main"].write(FILES)
    for path in links:
        os.link(tree / path, tree / f"{path}.link")
    await cluster.followed("s1", "s2")
    await cluster.in_step("s1", "s2")
    return cluster["main"], cluster["s1"], cluster["s2"]


async def _has(node: ServiceNode, path: str, value: bytes | None) -> None:
    async def is_so() -> bool:
        file = node.tree / path
        if not file.exists():
            return False
        there = os.getxattr(file, "user.note") if "user.note" in os.listxattr(file) else None
        return there == value

    await reached(is_so, lambda: f"user.note of {path} at {node.name}")


@in_virtual_time
async def test_an_attribute_is_offered_with_bytes_and_alone(tmp_path: Path) -> None:
    """Goal: with new bytes, alone, changed again and removed; at the home, and on the other partner by its generation."""
    async with services(tmp_path) as cluster:
        main, s1, s2 = await _begun(cluster, '"xattr"')
        values = [bytes([letter]) * 1_000 for letter in b"abc"]
        s1.write({"sub/new": "new\n"})
        os.setxattr(s1.tree / "sub/new", "user.note", values[0])
        for node in (main, s2):
            await _has(node, "sub/new", values[0])
        os.setxattr(s1.tree / "sub/f1", "user.note", values[1])
        for node in (main, s2):
            await _has(node, "sub/f1", values[1])
        os.setxattr(s2.tree / "sub/f1", "user.note", values[2])
        s2.write({"sub/f1": "and other bytes\n"})
        for node in (main, s1):
            await _has(node, "sub/f1", values[2])
            await node.holds("sub/f1", "and other bytes\n")
        os.removexattr(s1.tree / "sub/f1", "user.note")
        for node in (main, s2):
            await _has(node, "sub/f1", None)
        await alike(main, s1, s2)
        for node in (s1, s2):
            assert not await node.archived("drift"), node.name


@in_virtual_time
async def test_an_attribute_that_no_generation_carries_is_refused_before_it_is_made(roomy: Path) -> None:
    """Goal: the home's tree has nothing of it, so that the path is not held there; the local version is in the archive, with
    the reason, and other edits go on."""
    async with services(roomy) as cluster:
        main, s1, s2 = await _begun(cluster, '"xattr"')
        s1.write({"sub/f1": "with a large attribute\n", "sub/f2": "fine\n"})
        os.setxattr(s1.tree / "sub/f1", "user.note", bytes(INLINE_XATTR_MAX + 1))
        await s2.holds("sub/f2", "fine\n")
        await s1.holds("sub/f1", FILES["sub/f1"])
        await alike(main, s1, s2)
        assert (main.tree / "sub/f1").read_text() == FILES["sub/f1"]
        assert await s1.taken_out("sub/f1", roomy / "out") == ["with a large attribute\n"]
        texts = [event["text"] for event in await s1.events()]
        assert any("sub/f1" in text and "4096" in text for text in texts), texts


@in_virtual_time
async def test_hard_links_are_the_homes_and_an_edit_of_one_ends(tmp_path: Path) -> None:
    """Goal: a file that is edited in place under two names, a name that is added, and a link that is broken without another
    byte: each is settled, and nothing is offered again and again."""
    async with services(tmp_path) as cluster:
        main, s1, s2 = await _begun(cluster, '"hardlinks"', links=("sub/f1", "sub/f3"))
        assert (s1.tree / "sub/f1").samefile(s1.tree / "sub/f1.link")
        with (s1.tree / "sub/f1").open("w") as file:
            file.write("in place\n")
        for node in (main, s2):
            await node.holds("sub/f1", "in place\n")
            await node.holds("sub/f1.link", "in place\n")
        os.link(s1.tree / "sub/f2", s1.tree / "sub/added")
        for node in (main, s2):
            await node.holds("sub/added", FILES["sub/f2"])
        await alike(main, s1, s2)
        head = await main.head()
        (s1.tree / "copy").write_text(FILES["sub/f3"])
        times = (s1.tree / "sub/f3").stat()
        os.utime(s1.tree / "copy", ns=(times.st_atime_ns, times.st_mtime_ns))
        os.rename(s1.tree / "copy", s1.tree / "sub/f3.link")

        async def is_linked_again() -> bool:
            return (s1.tree / "sub/f3").samefile(s1.tree / "sub/f3.link")

        await reached(is_linked_again, lambda: "the link of the generation is back")
        await alike(main, s1, s2)
        assert await main.head() == head, "nothing was offered"
