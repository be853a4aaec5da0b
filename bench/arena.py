"""Where the trees lie: a fresh file system a side for every measurement, because a used one is slower.

ext4 avoids inodes that were deleted in the last minutes, so the second tool on one file system would pay for the
first. As root every side is an image file, made once, written through once, and formatted anew each time; source
and every target have their own, so that nothing can be shared between them and ``sync -f`` of a target flushes
only what arrived there. Without root they are plain directories, and the results say so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.cage import NAME, is_left_over
from bench.kernel import own_mounts, sync_file_system

__all__ = ["Arena", "Field", "remove_left_over_bases"]

_MIB = 1 << 20
_WRITTEN_AT_MOST = 6 << 30


@dataclass(frozen=True)
class Field:
    """The source side and the target sides of one measurement."""

    left: Path
    rights: tuple[Path, ...]

    @property
    def source(self) -> Path:
        return self.left / "tree"

    @property
    def targets(self) -> tuple[Path, ...]:
        return tuple(right / "tree" for right in self.rights)

    def sync(self) -> None:
        for side in (self.left, *self.rights):
            sync_file_system(side)

    def sync_targets(self) -> None:
        for right in self.rights:
            sync_file_system(right)


class Arena:
    """Gives out fields, one at a time."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._mounted: list[Path] = []
        self.is_fresh = os.geteuid() == 0 and shutil.which("mkfs.ext4") is not None
        if self.is_fresh:
            own_mounts()

    def has(self, file_system: str) -> bool:
        return file_system == "ext4" or (self.is_fresh and shutil.which(f"mkfs.{file_system}") is not None)

    def field(self, targets: int, file_system: str, size_bytes: int) -> Field:
        """New, empty sides; those given out before are gone."""
        self.clear()
        sides = [
            self._side(name, file_system, size_bytes)
            for name in ["left", *(f"right{n}" for n in range(targets))]
        ]
        for side in sides:
            (side / "tree").mkdir()
            (side / "state").mkdir()
        return Field(sides[0], tuple(sides[1:]))

    def clear(self) -> None:
        """Unmount and forget the last field."""
        while self._mounted:
            _run("umount", str(self._mounted.pop()))
        for left_over in self._base.glob("side-*"):
            shutil.rmtree(left_over)

    def _side(self, name: str, file_system: str, size_bytes: int) -> Path:
        mount = self._base / f"side-{name}"
        mount.mkdir()
        if not self.is_fresh:
            return mount
        image = self._base / f"{name}.img"
        if not image.exists() or image.stat().st_size < size_bytes:
            _write_through(image, size_bytes)
        # -E nodiscard / -K keep the image's blocks allocated: the disk below must not be slower the first time.
        if file_system == "xfs":
            _run("mkfs.xfs", "-q", "-f", "-K", "-m", "reflink=1", str(image))
        else:
            options = "nodiscard,lazy_itable_init=1,lazy_journal_init=1"
            _run("mkfs.ext4", "-q", "-F", "-i", "4096", "-E", options, str(image))
        device = _run("losetup", "--find", "--show", "--direct-io=on", str(image)).strip()
        try:
            # Without noinit_itable the kernel would go on initialising inode tables during the measurement.
            _run("mount", "-o", "noinit_itable" if file_system == "ext4" else "defaults", device, str(mount))
        finally:
            _run("losetup", "--detach", device)  # takes effect at the unmount
        self._mounted.append(mount)
        lost = mount / "lost+found"
        if lost.exists():
            lost.rmdir()
        return mount


def remove_left_over_bases(directory: Path) -> None:
    """Remove what a killed bench left in ``directory``; its mounts ended with it."""
    for base in directory.glob(f"{NAME}-*"):
        if is_left_over(base.name):
            shutil.rmtree(base)
    for told in Path("/sys/block").glob("loop*/loop/backing_file"):
        image = Path(told.read_text().strip().removesuffix(" (deleted)"))
        if is_left_over(image.parent.name):
            _run("losetup", "--detach", f"/dev/{told.parents[1].name}")


def _write_through(image: Path, size_bytes: int) -> None:
    """Allocate every block now, so that no measurement pays for it; the largest images stay sparse, for time's sake."""
    if size_bytes > _WRITTEN_AT_MOST:
        with open(image, "wb") as sparse:
            sparse.truncate(size_bytes)
        return
    zeros = bytes(8 * _MIB)
    with open(image, "wb", buffering=0) as file:
        for _ in range(max(1, size_bytes // len(zeros))):
            file.write(zeros)
        os.fsync(file.fileno())


def _run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout
