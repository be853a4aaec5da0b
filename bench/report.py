"""Results: gathered while measuring, written as JSON, as a table, and as a picture."""

from __future__ import annotations

import datetime
import json
import os
import platform
import shutil
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.measure import Measurement
from bench.peers.base import Peer
from bench.plot import Panel, draw
from bench.rows import Bound, Step, every_row

__all__ = ["Results", "keep_logs", "one_line", "write"]

_MIB = 1 << 20
_US = "instep"
_BASE = "rsync-ssh"


@dataclass
class Results:
    """Everything that one run of the bench found."""

    seed: int
    scale: float
    runs: int
    peers: dict[str, str]
    absent: dict[str, str]
    machine: str = ""
    place: str = ""
    note: str = ""
    taken: list[Measurement] = field(default_factory=list)
    began: datetime.datetime = field(default_factory=lambda: datetime.datetime.now(datetime.UTC))

    def add(self, measurement: Measurement) -> None:
        self.taken.append(measurement)

    def take_over(self, path: Path) -> None:
        """Add to an earlier run of the same seed and scale; ``ValueError`` when it was another."""
        document = json.loads(path.read_text())
        if (document["seed"], document["scale"]) != (self.seed, self.scale):
            raise ValueError(f"{path} has seed {document['seed']} and scale {document['scale']}")
        self.taken = [Measurement(**one) for one in document["measurements"]]
        self.runs = max(self.runs, document["runs"])
        self.note = self.note or document.get("note", "")
        self.began = datetime.datetime.fromisoformat(document["began"])
        self.peers = {**document["peers"], **self.peers}
        self.absent = {name: why for name, why in self.absent.items() if name not in self.peers}
        self.machine = document["machine"]

    def has_failures(self) -> bool:
        return any(measurement.error for measurement in self.taken)

    def describe_machine(self, is_fresh: bool) -> None:
        info = Path("/proc/cpuinfo").read_text()
        model = next(
            (line.split(":")[1].strip() for line in info.splitlines() if line.startswith("model name")), "?"
        )
        memory = int(Path("/proc/meminfo").read_text().split()[1]) / 2**20
        system = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
        here = (
            f"{os.cpu_count()} x {model}, {memory:.0f} GiB, {system}, Linux {platform.release()}, "
            f"CPython {platform.python_version()}"
        )
        if here not in self.machine:
            self.machine = f"{self.machine}; rows that were added later: {here}" if self.machine else here
        self.place = (
            "a fresh loop-mounted ext4 (or XFS, where the row says so) for the source and for each target"
            if is_fresh
            else "plain directories of a used file system (not root): times are less even, bytes sent are not counted"
        )

    def of(self, row: str, peer: str) -> list[Measurement]:
        return [one for one in self.taken if one.row == row and one.peer == peer]

    def median(self, row: str, peer: str, value: str) -> float | None:
        """The median of a field, or of one of the further numbers, over the runs that were right."""
        found = []
        for one in self.of(row, peer):
            number = (
                getattr(one, value, None)
                if value in Measurement.__dataclass_fields__
                else one.more.get(value)
            )
            if one.error is None and number is not None:
                found.append(float(number))
        return statistics.median(found) if found else None


def one_line(taken: Measurement) -> str:
    """Progress, for the terminal."""
    if taken.error:
        return f"{taken.row:16} {taken.peer:10} FAILED {taken.error}"
    more = "".join(f"  {name} {value:.4g}" for name, value in taken.more.items())
    sent = "-" if taken.sent_bytes is None else f"{taken.sent_bytes / _MIB:.2f}"
    return (
        f"{taken.row:16} {taken.peer:10} {_seconds(taken.wall_s):>8} s  synced {_seconds(taken.synced_s):>8} s"
        f"  cpu {_seconds(taken.cpu_s)} s  peak {(taken.peak_bytes or 0) / _MIB:.0f} MiB  sent {sent} MiB{more}"
    )


def write(results: Results, peers: Sequence[Peer], output: Path) -> None:
    """``results.json``, ``RESULTS.md`` and ``results.svg`` in ``output``."""
    document = {
        "began": results.began.isoformat(timespec="seconds"),
        "seed": results.seed,
        "scale": results.scale,
        "runs": results.runs,
        "machine": results.machine,
        "place": results.place,
        "note": results.note,
        "peers": results.peers,
        "absent": results.absent,
        "measurements": [one.as_json() for one in results.taken],
    }
    (output / "results.json").write_text(json.dumps(document, indent=1) + "\n")
    (output / "RESULTS.md").write_text(_page(results, peers))
    (output / "results.svg").write_text(
        draw(_panels(results, peers), f"{results.machine}; seed {results.seed}, scale {results.scale:g}")
    )


def keep_logs(base: Path, kept: Path) -> None:
    """Copy what failed steps left behind out of the temporary directory."""
    shutil.rmtree(kept, ignore_errors=True)
    for failed in base.glob("failed-*"):
        shutil.copytree(failed, kept / failed.name)


# -- the page ------------------------------------------------------------------------------------


def _page(results: Results, peers: Sequence[Peer]) -> str:
    titles = {peer.name: peer.title for peer in peers}
    shown = [peer for peer in peers if peer.name in results.peers]
    parts = [
        "# Measured beside the others\n\n"
        "Written by `./run bench`; do not edit. How to read and repeat it: `docs/guide/benchmarks.md`.\n\n"
        "![medians as bars](results.svg)\n",
        f"- Machine: {results.machine}\n- Place: {results.place}\n"
        + (f"- {results.note}\n" if results.note else "")
        + f"- {results.began:%Y-%m-%d %H:%M} UTC, seed {results.seed}, scale {results.scale:g}, medians of up to {results.runs} "
        "runs, tools taking turns within each row\n"
        "- Every result was compared with its source: names, kinds, bytes, modes, symlink targets; what a tool does "
        "not keep is named\n",
        "| tool | version | in its clock |\n|---|---|---|\n"
        + "".join(f"| {peer.title} | {results.peers[peer.name]} | {peer.clock} |\n" for peer in shown)
        + "".join(f"| {titles[name]} | - | not measured: {why} |\n" for name, why in results.absent.items()),
        _overview(results, shown),
        _bounds(results),
    ]
    parts += [text for step in every_row() if (text := _row(results, step, shown))]
    return "\n".join(parts)


def _overview(results: Results, shown: Sequence[Peer]) -> str:
    lines = [
        "## All rows\n\nMedian seconds as is / with `sync -f` of the targets inside the clock. Ratios count, seconds do not.\n",
        "| row | " + " | ".join(peer.title for peer in shown) + " |",
        "|---|" + "---:|" * len(shown),
    ]
    for step in every_row():
        cells = [_cell(results, step, peer) for peer in shown]
        if any(cell != "-" for cell in cells):
            lines.append(f"| {step.title} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(results: Results, step: Step, peer: Peer) -> str:
    wall = results.median(step.row, peer.name, "wall_s")
    if wall is None:
        return "failed" if results.of(step.row, peer.name) else "-"
    synced = results.median(step.row, peer.name, "synced_s")
    text = _seconds(wall) + (f" / {_seconds(synced)}" if synced is not None else "")
    return f"**{text}**" if peer.name == _US else text


def _bounds(results: Results) -> str:
    lines = ["## What the design demands\n", "| row | demanded | measured | |", "|---|---|---:|---|"]
    for step in every_row():
        for bound in step.bounds:
            measured, told = _measured(results, step, bound), _told(bound)
            if measured is None:
                lines.append(f"| {step.title} | {told} | - | not measured |")
            else:
                verdict = "met" if measured <= bound.most else f"**missed by {measured / bound.most:.2f} x**"
                lines.append(f"| {step.title} | {told} | {_bound_number(bound, measured)} | {verdict} |")
    return "\n".join(lines) + "\n"


def _measured(results: Results, step: Step, bound: Bound) -> float | None:
    ours = results.median(step.row, _US, bound.value)
    if not bound.against:
        return ours
    theirs = results.median(step.row, bound.against, bound.value)
    return None if ours is None or not theirs else ours / theirs


def _told(bound: Bound) -> str:
    if bound.against:
        what = {"wall_s": "wall", "sent_bytes": "bytes sent"}[bound.value]
        name = {
            "rsync-ssh": "rsync over ssh", "cp": "`cp -a` (the aim)", "unison": "Unison over ssh",
            "rclone": "rclone bisync", "syncthing": "Syncthing", "subversion": "Subversion over ssh",
        }[bound.against]  # fmt: skip
        return f"{what} at most {bound.most:g} x {name}"
    match bound.value:
        case "sent_share":
            return f"at most {bound.most:g} x the changed bytes sent"
        case "daemon_bytes":
            return f"largest daemon under {bound.most / _MIB:g} MiB"
        case "publish_ms":
            return f"write until published under {bound.most:g} ms"
        case _:
            return f"{bound.value.removesuffix('_ms')} at most {bound.most:g} ms"


def _bound_number(bound: Bound, measured: float) -> str:
    if bound.value == "daemon_bytes":
        return f"{measured / _MIB:.0f} MiB"
    return f"{measured:.1f} ms" if bound.value.endswith("_ms") else f"{measured:.2f} x"


def _row(results: Results, step: Step, shown: Sequence[Peer]) -> str:
    lines = []
    base = results.median(step.row, _BASE, "wall_s")
    base_synced = results.median(step.row, _BASE, "synced_s")
    for peer in shown:
        tries = results.of(step.row, peer.name)
        if not tries:
            continue
        right = [one for one in tries if one.error is None]
        wall, synced = (results.median(step.row, peer.name, value) for value in ("wall_s", "synced_s"))
        if not right:
            lines.append(f"| {peer.title} | failed | | | | | | | {tries[0].error} |")
            continue
        lost = ", ".join(_lost(right[-1])) or "nothing"
        numbers = [
            _seconds(wall),
            _ratio(wall, base),
            _seconds(synced),
            _ratio(synced, base_synced),
            _seconds(results.median(step.row, peer.name, "cpu_s")),
            _mebibytes(results.median(step.row, peer.name, "peak_bytes")),
            _mebibytes(results.median(step.row, peer.name, "sent_bytes"), 2),
        ]
        failed = len(tries) - len(right)
        checked = f"{len(right)} of {len(tries)} right" if failed else f"{right[-1].entries:,} entries equal"
        note = f"{checked}; lost: {lost}" + _further(results, step, peer)
        lines.append(f"| {peer.title} | " + " | ".join(numbers) + f" | {note} |")
    if not lines:
        return ""
    head = (
        f"## {step.title[0].upper()}{step.title[1:]}\n\n"
        "| tool | s | x rsync-ssh | synced s | x rsync-ssh | CPU s | peak MiB | sent MiB | checked |\n"
        "|---|---:|---:|---:|---:|---:|---:|---:|---|\n"
    )
    return head + "\n".join(lines) + "\n"


def _lost(measurement: Measurement) -> list[str]:
    """What the tool did not keep; "below a second" is not told beside "altogether"."""
    told = sorted(measurement.lost)
    return [
        name.removesuffix(" altogether")
        for name in told
        if name.replace("below a second", "altogether") == name
        or name.replace("below a second", "altogether") not in told
    ]


def _further(results: Results, step: Step, peer: Peer) -> str:
    told = []
    for value, form in (
        ("p50_ms", "p50 {:.1f} ms"),
        ("p99_ms", "p99 {:.1f} ms"),
        ("writes", "{:.0f} writes"),
        ("sent_share", "{:.2f} x the changed bytes sent"),
        ("publish_ms", "published after {:.1f} ms"),
        ("start_s", "in step from the start after {:.1f} s"),
    ):
        number = results.median(step.row, peer.name, value)
        if number is not None:
            told.append(form.format(number))
    daemon = results.median(step.row, peer.name, "daemon_bytes")
    if daemon:
        told.append(f"largest daemon {daemon / _MIB:.0f} MiB resident")
    return "; " + ", ".join(told) if told else ""


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if value < 0.1 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _ratio(value: float | None, base: float | None) -> str:
    return "-" if value is None or not base else f"{value / base:.2f}"


def _mebibytes(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value / _MIB:.{digits}f}"


def _panels(results: Results, peers: Sequence[Peer]) -> list[Panel]:
    panels = []
    for step in every_row():
        bars = []
        for peer in peers:
            wall = results.median(step.row, peer.name, "wall_s")
            synced = results.median(step.row, peer.name, "synced_s")
            if wall is not None:
                bars.append((peer.title, wall, synced, peer.name == _US, peer.is_floor))
        if len(bars) > 1:
            reference = results.median(step.row, _BASE, "synced_s") or results.median(
                step.row, _BASE, "wall_s"
            )
            panels.append(Panel(step.title, tuple(bars), reference))
    return panels
