"""A cage holds all processes of one tool: it starts them, counts what they use and ends them.

As root each cage is a control group (CPU time of every process, also of those that detached) and a network
namespace (what crosses its loopback is what the tool sent, counted by the kernel at no cost to the tool).
Without root it follows the process tree from ``/proc`` instead, and bytes are not counted.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.kernel import CLONE_NEWNET, die_with_parent, enter_namespace
from bench.waiting import DeadlinePassed, until

__all__ = ["NAME", "Cage", "ToolFailed", "is_left_over", "remove_left_over_groups"]

NAME = "instep-bench"
_SAMPLE_EVERY_S = 0.025
# csync2 looks up addresses with AI_ADDRCONFIG, which finds none where every address is 127.0.0.1.
_LOOPBACK_UP = "ip link set lo up && ip address add 192.0.2.1/32 dev lo && echo up && exec cat"
_TICKS = os.sysconf("SC_CLK_TCK")
_GROUP_PARENTS = (Path("/sys/fs/cgroup/cpuacct"), Path("/sys/fs/cgroup/cpu,cpuacct"), Path("/sys/fs/cgroup"))


class ToolFailed(Exception):
    """A tool ended with an exit code that means failure, or ended when it should have stayed."""


class Cage:
    """``with Cage(name, logs) as cage``: nothing that was started in it outlives the block."""

    def __init__(self, name: str, logs: Path) -> None:
        self._name = name
        self._logs = logs
        self._started: list[subprocess.Popen[bytes]] = []
        self._group = _make_group(f"{NAME}-{os.getpid()}-{name}")
        self._group_fd = os.open(self._group / "cgroup.procs", os.O_WRONLY) if self._group else -1
        self._net_fd = -1
        self._holder: subprocess.Popen[bytes] | None = None
        if os.geteuid() == 0:
            self._hold_network()
        self._children_at_start_s = _children_cpu_s()
        self._peak_bytes = 0
        self._over = threading.Event()
        self._sampler = threading.Thread(target=self._sample, name="memory", daemon=True)
        self._sampler.start()

    def __enter__(self) -> Cage:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- starting and ending ---------------------------------------------------------------------

    def start(
        self,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        log: str = "",
        cwd: Path | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a process and leave it running; what it prints goes to ``<log>.log``."""
        words = [str(word) for word in argv]
        with open(self.log_path(log or Path(words[0]).name), "ab") as output:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **(env or {})},
                cwd=cwd,
                start_new_session=True,
                preexec_fn=self._enter,  # the sampler thread holds no lock that the child needs
            )
        self._started.append(process)
        return process

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        within_s: float = 600.0,
        env: Mapping[str, str] | None = None,
        accept: Sequence[int] = (0,),
    ) -> str:
        """Run a command to its end and return what it printed on stdout."""
        words = [str(word) for word in argv]
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **(env or {})},
            start_new_session=True,
            preexec_fn=self._enter,
        )
        try:
            out, err = process.communicate(timeout=within_s)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        if process.returncode not in accept:
            told = (err or out).decode(errors="replace").strip()[-800:]
            raise ToolFailed(
                f"{Path(words[0]).name} {' '.join(words[1:4])} ...: exit {process.returncode}: {told}"
            )
        return out.decode(errors="surrogateescape")

    def run_together(self, commands: Sequence[Sequence[str | Path]], within_s: float = 600.0) -> None:
        """Run several commands at once and wait for all of them."""
        running = [self.start(argv, log=f"together-{number}") for number, argv in enumerate(commands)]
        for process in running:
            self.finish(process, within_s)

    def finish(self, process: subprocess.Popen[bytes], within_s: float = 600.0) -> None:
        """Wait for a started process and insist that it succeeded."""
        code = process.wait(timeout=within_s)
        self._started.remove(process)
        if code != 0:
            raise ToolFailed(f"{process.args!r:.200}: exit {code}; see {self._logs}")

    def log_path(self, log: str) -> Path:
        return self._logs / f"{self._name}-{log}.log"

    def close(self) -> None:
        """Ask every process of the cage to end, then make it; remove the control group."""
        if self._over.is_set():
            return
        self._over.set()
        self._sampler.join(5)
        for signal_number, patience_s in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)):
            for pid in self.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal_number)
            with contextlib.suppress(DeadlinePassed):
                until(self._is_empty, patience_s, f"{self._name}: end of all processes", 0.01)
            if self._is_empty():
                break
        for process in self._started:
            process.wait(10)
        if self._holder is not None:
            self._holder.kill()
            self._holder.wait(10)
        for descriptor in (self._group_fd, self._net_fd):
            if descriptor >= 0:
                os.close(descriptor)
        if self._group is not None:
            until(self._group_removed, 10, f"removal of {self._group}", 0.01)

    # -- looking ---------------------------------------------------------------------------------

    def pids(self) -> list[int]:
        """Every live process of the cage, also detached ones (as root)."""
        if self._group is not None:
            return [int(line) for line in (self._group / "cgroup.procs").read_text().split()]
        return _descendants([process.pid for process in self._started if process.poll() is None])

    def listens(self, port: int) -> bool:
        """Whether a process in the cage listens on this TCP port; seen in ``/proc``, no connection is made."""
        holder = self._holder.pid if self._holder else "self"
        wanted = f":{port:04X} "
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/{holder}/net/{table}").read_text().splitlines()[1:]:
                _, local, _, state = line.split()[:4]
                if (local + " ").endswith(wanted) and state == "0A":
                    return True
        return False

    def cpu_s(self) -> float:
        """User and system seconds of all processes of the cage so far."""
        if self._group is not None:
            usage = self._group / "cpuacct.usage"
            if usage.exists():
                return int(usage.read_text()) / 1e9
            fields = dict(line.split() for line in (self._group / "cpu.stat").read_text().splitlines())
            return int(fields["usage_usec"]) / 1e6
        return _children_cpu_s() - self._children_at_start_s + sum(_cpu_s(pid) for pid in self.pids())

    def sent_bytes(self) -> int | None:
        """Bytes that crossed the cage's loopback, both directions, headers included; None when not counted."""
        if self._holder is None:
            return None
        for line in Path(f"/proc/{self._holder.pid}/net/dev").read_text().splitlines():
            name, _, numbers = line.partition(":")
            if name.strip() == "lo":
                return int(numbers.split()[0])
        return None

    def forget_peak(self) -> None:
        self._peak_bytes = 0

    def peak_bytes(self) -> int:
        """Highest sum of the peak resident sets (VmHWM) of the processes that lived at one moment."""
        self._peak_bytes = max(self._peak_bytes, self._peak_now())
        return self._peak_bytes

    def resident_each(self) -> list[int]:
        """What each live process holds in memory now."""
        return [_resident(pid) for pid in self.pids()]

    # -- inside ----------------------------------------------------------------------------------

    def _enter(self) -> None:
        """In the new child: join the cage before the program is loaded."""
        die_with_parent(signal.SIGTERM)
        if self._group_fd >= 0:
            os.write(self._group_fd, b"0")
        if self._net_fd >= 0:
            enter_namespace(self._net_fd, CLONE_NEWNET)

    def _hold_network(self) -> None:
        """A ``cat`` that ends with this process keeps the namespace alive; loopback is brought up in it."""
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--", "sh", "-c", _LOOPBACK_UP],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"up\n":
            raise ToolFailed("unshare --net: no network namespace")
        self._net_fd = os.open(f"/proc/{self._holder.pid}/ns/net", os.O_RDONLY)

    def _sample(self) -> None:
        while not self._over.wait(_SAMPLE_EVERY_S):
            self._peak_bytes = max(self._peak_bytes, self._peak_now())

    def _peak_now(self) -> int:
        return sum(_peak_resident(pid) for pid in self.pids())

    def _is_empty(self) -> bool:
        for process in self._started:
            process.poll()
        return not self.pids()

    def _group_removed(self) -> bool:
        assert self._group is not None
        try:
            self._group.rmdir()
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True


def _make_group(name: str) -> Path | None:
    if os.geteuid() != 0:
        return None
    for parent in _GROUP_PARENTS:
        if (parent / "cgroup.procs").exists():
            group = parent / name
            try:
                group.mkdir()
            except OSError:
                continue
            if (group / "cpuacct.usage").exists() or (group / "cpu.stat").exists():
                return group
            group.rmdir()
    return None


def is_left_over(name: str) -> bool:
    """Whether ``instep-bench-PID-...`` belongs to a bench that was killed."""
    pid = name.removeprefix(f"{NAME}-").partition("-")[0]
    return name.startswith(f"{NAME}-") and pid.isdigit() and not Path("/proc", pid).exists()


def remove_left_over_groups() -> None:
    """Remove empty control groups of a bench that was killed; their processes ended with it."""
    for parent in _GROUP_PARENTS:
        for group in parent.glob(f"{NAME}-*"):
            if is_left_over(group.name):
                with contextlib.suppress(OSError):
                    group.rmdir()


def _peak_resident(pid: int) -> int:
    return _memory(pid, "VmHWM:")


def _resident(pid: int) -> int:
    return _memory(pid, "VmRSS:")


def _memory(pid: int, field: str) -> int:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _cpu_s(pid: int) -> float:
    fields = _stat(pid)
    return sum(int(field) for field in fields[11:15]) / _TICKS if fields else 0.0


def _descendants(roots: Sequence[int]) -> list[int]:
    """The given processes and all below them."""
    parents = {
        int(entry): int(fields[1])
        for entry in os.listdir("/proc")
        if entry.isdigit() and (fields := _stat(int(entry)))
    }
    found = list(roots)
    for pid in found:
        found.extend(child for child, parent in parents.items() if parent == pid)
    return found
