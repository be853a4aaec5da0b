"""A bare Debian: a root directory with the smallest system, entered in namespaces of its own."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["BareRoot", "install"]

MAKE_S = 900.0
COMMAND_S = 120.0
INCLUDED = ("python3", "adduser", "logrotate", "systemd")

_LAYERS = 'mount -t overlay overlay -o lowerdir="$1",upperdir="$2/upper",workdir="$2/work" "$2/root"'

# The first process of the namespaces: it mounts what programs expect, says so, and waits to be killed.
_IDLE = f"""
{_LAYERS}
mount -t proc proc "$2/root/proc"
mount -t tmpfs tmpfs "$2/root/run"
mount --rbind /dev "$2/root/dev"
ip link set lo up 2>/dev/null
echo ready
exec sleep infinity
"""

# The same, but the first process is systemd. It may change nothing of this machine's kernel, as in a container.
_SYSTEMD = f"""
{_LAYERS}
cd "$2/root"
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,ro,bind proc/sys
mount -t sysfs -o ro sysfs sys
mount -t tmpfs tmpfs sys/fs/cgroup
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs dev
for name in null zero full random urandom tty; do touch dev/$name; mount --bind /dev/$name dev/$name; done
mkdir dev/shm dev/pts
ln -s /proc/self/fd dev/fd
ln -s pts/ptmx dev/ptmx
for unit in {
    " ".join(
        (
            "getty.target",
            "systemd-sysctl.service",
            "systemd-modules-load.service",
            "systemd-remount-fs.service",
            "systemd-udevd.service",
            "sys-kernel-debug.mount",
            "sys-kernel-tracing.mount",
            "sys-fs-fuse-connections.mount",
            "dev-hugepages.mount",
            "kmod-static-nodes.service",
        )
    )
}; do
    ln -sf /dev/null etc/systemd/system/$unit
done
ip link set lo up 2>/dev/null
mkdir -p old
pivot_root . old
umount -l old
echo ready
export container=test
exec /lib/systemd/systemd --unit=multi-user.target --log-target=null --show-status=0 </dev/null >/dev/null 2>&1
"""


@dataclass(frozen=True, slots=True)
class BareRoot:
    """A bare root that was entered: ``run`` starts programs in it, ``path`` is how they look from outside. ``inside``
    is where it lies for the first process of its namespaces, ``first``."""

    first: int
    inside: str

    @property
    def path(self) -> Path:
        return Path(f"/proc/{self.first}/root{self.inside}")

    @staticmethod
    def make(target: Path) -> Path:
        """Make the bare root of this machine's release."""
        release = platform.freedesktop_os_release()["VERSION_CODENAME"]
        done = subprocess.run(
            ["mmdebstrap", "--variant=apt", f"--include={','.join(INCLUDED)}", release, str(target)],
            capture_output=True, text=True, check=False, timeout=MAKE_S,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        return target

    @classmethod
    @contextlib.contextmanager
    def entered(
        cls, layers: Sequence[Path], scratch: Path, *, with_systemd: bool = False
    ) -> Iterator[BareRoot]:
        """A view of the layers, the uppermost first, whose changes lie in ``scratch / "upper"``; entered again with
        the same ``scratch`` it is as a reboot left it."""
        for name in ("upper", "work", "root"):
            (scratch / name).mkdir(exist_ok=True)
        script = _SYSTEMD if with_systemd else _IDLE
        command = [
            "unshare", "--mount", "--pid", "--net", "--ipc", "--uts", "--cgroup", "--fork", "--kill-child",
            "--propagation=private", "sh", "-ec", script, "sh", ":".join(map(str, layers)), str(scratch),
        ]  # fmt: skip
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as outer:
            try:
                assert outer.stdout is not None
                assert outer.stdout.readline() == "ready\n", "the kernel has no namespaces or no overlay here"
                children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
                yield cls(int(children[0]), "" if with_systemd else str(scratch / "root"))
            finally:
                outer.kill()  # its child, the first process of the namespaces, is killed with it
                outer.wait(timeout=30)

    def run(self, *words: str, user: str | None = None, code: int | None = 0, **environment: str) -> str:
        """Run a program in the root and return all that it printed; ``code`` is the exit code that it must have."""
        who = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []
        done = subprocess.run(
            ["nsenter", f"--target={self.first}", "--mount", "--pid", "--net", "--ipc", "--uts", "--cgroup", f"--root={self.path}", f"--wd={self.path}", *who, *words],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, check=False,
            timeout=COMMAND_S,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8",
                 "DEBIAN_FRONTEND": "noninteractive", **environment},
        )  # fmt: skip
        assert code is None or done.returncode == code, f"{' '.join(words)}: {done.returncode}\n{done.stdout}"
        return done.stdout

    def bring(self, source: Path, target: str) -> str:
        """Copy a file into the root; returns its path there."""
        shutil.copyfile(source, self.path / target.lstrip("/"))
        return target

    def write(self, target: str, text: str, mode: int = 0o644) -> None:
        place = self.path / target.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        os.chmod(place, mode)

    def files(self) -> set[str]:
        """Every path of the system, without what lives in memory."""
        listed = self.run("find", "/", "-xdev", "-not", "-path", "/tmp/*", "-print")
        return set(listed.splitlines())


def install(root: BareRoot, deb: Path) -> str:
    """Install a package; an older version of it is upgraded."""
    return root.run("dpkg", "--force-unsafe-io", "--install", root.bring(deb, f"/tmp/{deb.name}"))
