"""Readers of a catalogue: each parses every document of one node's tree, round after round."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["Readers"]

_PAUSE_S = 0.5


class Readers:
    """A document that is there must be whole; one that is gone when its turn comes was removed."""

    def __init__(self, trees: Mapping[str, Path], is_whole: Callable[[str], bool]) -> None:
        self._is_whole = is_whole
        self._over = threading.Event()
        self._read = 0
        self._broken: list[str] = []
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._go, args=(name, tree), name=f"reader of {name}")
            for name, tree in trees.items()
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def report(self) -> dict[str, Any]:
        return {"documents_read": self._read, "failures": len(self._broken), "broken": self._broken[:5]}

    def _go(self, name: str, tree: Path) -> None:
        while not self._over.wait(_PAUSE_S):
            for file in tree.glob("[!.]*/*.xml"):
                try:
                    text = file.read_text()
                except FileNotFoundError:
                    continue
                with self._lock:
                    self._read += 1
                    if not self._is_whole(text):
                        self._broken.append(f"{name}: {file.name}")
