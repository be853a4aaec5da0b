"""Syncthing: one daemon a side, told over its REST interface to scan, and asked when all is in step.

The interface listens on a Unix socket, so that asking does not count as bytes sent. Discovery, relays and upgrades
are off. Watching is off except where latency is measured, there with its shortest delay.
"""

from __future__ import annotations

import http.client
import json
import socket
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.cage import Cage
from bench.peers.base import Can, Landed, Peer, Session, Setting, first_line
from bench.waiting import until

__all__ = ["Syncthing"]

_FOLDER = "bench"
_FIRST_PORT = 20220


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


@dataclass
class _Device:
    home: Path
    tree: Path
    port: int
    socket: Path
    id: str = ""

    def ask(self, method: str, path: str, within_s: float = 60.0) -> Any:
        connection = _UnixConnection(self.socket, within_s)
        try:
            connection.request(method, f"/rest/{path}", headers={"X-API-Key": "bench"})
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise OSError(f"syncthing {path}: {answer.status} {body[:200]!r}")
        return json.loads(body) if body.strip() else None


class _Indexing(Session):
    def prepare(self) -> None:
        self.watches_now = self.setting.settle is not None
        sides = [(self.field.left, self.source), *zip(self.field.rights, self.targets, strict=True)]
        self._devices = [
            _Device(
                side / "state" / "syncthing",
                tree,
                _FIRST_PORT + number,
                self.setting.scratch / f"st{number}.sock",
            )
            for number, (side, tree) in enumerate(sides)
        ]
        for device in self._devices:
            self.cage.run(
                [
                    "syncthing",
                    "generate",
                    f"--home={device.home}",
                    "--no-default-folder",
                    "--skip-port-probing",
                ]
            )
            device.id = self.cage.run(["syncthing", f"--home={device.home}", "--device-id"]).split()[-1]
        for device in self._devices:
            self._configure(device)
            _serve(self.cage, device)
        for device in self._devices:
            until(lambda one=device: _answers(one), 30, "Syncthing's REST interface", 0.02)  # type: ignore[misc]
        until(self._is_connected, 60, "Syncthing's connections", 0.02)
        self._wait_in_step()

    def first(self) -> None:
        self._devices[0].ask("POST", f"db/scan?folder={_FOLDER}", self.within_s)
        self._wait_in_step()

    def adopt(self) -> None:
        for device in reversed(
            self._devices
        ):  # the targets first, or they would begin to copy what they have
            device.ask("POST", f"db/scan?folder={_FOLDER}", self.within_s)
        self._wait_in_step()

    def unchanged(self) -> None:
        self.adopt()

    def change(self, landed: Landed) -> None:
        self.first()

    def cut_off(self) -> None:
        target = self._devices[1]
        target.ask("POST", "system/shutdown")
        until(lambda: not _answers(target), self.within_s, "the end of the target's Syncthing", 0.02)

    def noticed(self) -> None:
        self._devices[0].ask("POST", f"db/scan?folder={_FOLDER}", self.within_s)

    def catch_up(self) -> None:
        target = self._devices[1]
        _serve(self.cage, target)
        until(lambda: _answers(target), self.within_s, "Syncthing's REST interface", 0.02)
        until(self._is_connected, self.within_s, "Syncthing's connections", 0.02)
        self._wait_in_step()

    def _wait_in_step(self) -> None:
        until(self._in_step, self.within_s, "Syncthing in step", 0.01)

    def _in_step(self) -> bool | str:
        """A target has heard of the source's newest index entry, needs nothing of it, and is idle.

        The source's own figure of a target's completion is no use: it says 100 until the target answered.
        """
        source = self._devices[0]
        newest = source.ask("GET", f"db/status?folder={_FOLDER}")["sequence"]
        for target in self._devices[1:]:
            heard = target.ask("GET", f"db/completion?folder={_FOLDER}&device={source.id}")["sequence"]
            if heard < newest:
                return f"index {heard} of {newest}"
            status = target.ask("GET", f"db/status?folder={_FOLDER}")
            if status["state"] != "idle" or status["needTotalItems"]:
                return f"{status['state']}, needs {status['needTotalItems']}"
        return True

    def _is_connected(self) -> bool:
        known = self._devices[0].ask("GET", "system/connections")["connections"]
        return all(known.get(target.id, {}).get("connected") for target in self._devices[1:])

    def _configure(self, device: _Device) -> None:
        file = device.home / "config.xml"
        root = ElementTree.parse(file).getroot()
        for old in [child for child in root if child.tag in ("folder", "device", "gui", "options")]:
            root.remove(old)
        is_source = device is self._devices[0]
        linked = self._devices if is_source else [self._devices[0], device]
        folder = ElementTree.SubElement(
            root, "folder", id=_FOLDER, path=str(device.tree), type="sendonly" if is_source else "sendreceive",
            rescanIntervalS="0", fsWatcherEnabled="true" if self.watches_now and is_source else "false",
            fsWatcherDelayS="1", ignorePerms="false", autoNormalize="true",
        )  # fmt: skip
        for other in linked:
            ElementTree.SubElement(folder, "device", id=other.id)
            entry = ElementTree.SubElement(
                root, "device", id=other.id, name=str(other.port), compression="metadata"
            )
            ElementTree.SubElement(entry, "address").text = f"tcp://127.0.0.1:{other.port}"
        gui = ElementTree.SubElement(root, "gui", enabled="true", tls="false")
        ElementTree.SubElement(gui, "address").text = str(device.socket)
        ElementTree.SubElement(gui, "apikey").text = "bench"
        options = ElementTree.SubElement(root, "options")
        for key, value in {
            "listenAddress": f"tcp://127.0.0.1:{device.port}", "globalAnnounceEnabled": "false",
            "localAnnounceEnabled": "false", "relaysEnabled": "false", "natEnabled": "false", "urAccepted": "-1",
            "crashReportingEnabled": "false", "autoUpgradeIntervalH": "0", "startBrowser": "false",
            "setLowPriority": "false", "reconnectionIntervalS": "1",
        }.items():  # fmt: skip
            ElementTree.SubElement(options, key).text = value
        ElementTree.ElementTree(root).write(file)


def _serve(cage: Cage, device: _Device) -> None:
    cage.start(
        [
            "syncthing",
            "serve",
            f"--home={device.home}",
            "--no-browser",
            "--no-restart",
            "--no-default-folder",
        ],
        env={"STNOUPGRADE": "1", "HOME": str(device.home)},
        log=f"syncthing-{device.port}",
    )


def _answers(device: _Device) -> bool:
    try:
        return bool(device.ask("GET", "system/ping", 5.0))
    except OSError:
        return False


class Syncthing(Peer):
    name, title, needs = "syncthing", "Syncthing", ("syncthing",)
    can = frozenset({Can.FIRST, Can.CHANGE, Can.UNCHANGED, Can.LATENCY, Can.FOUR, Can.CATCH_UP})
    is_slow = True
    clock = (
        "from the order to scan the source until every target knows its newest index entry, needs nothing and is idle; "
        "its daemons run and are connected before (it syncs files by itself)"
    )

    def version(self) -> str:
        return " ".join(first_line("syncthing", "--version").split()[:2])

    def open(self, setting: Setting) -> Session:
        return _Indexing(setting)
