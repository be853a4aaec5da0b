"""Two runs of tests or examples at once are never given the same port."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TAKES = """
import os, sys
os.getpid = lambda: 7
from examples.ports import Ports
ports = Ports(12_000, 32_000)
print(*(ports.take() for _ in range(60)), flush=True)
sys.stdin.read()
"""


def test_processes_that_take_ports_at_once_are_given_different_ones() -> None:
    """Goal: no port twice while the processes live, though no process listens on any yet. Method: all begin their
    search at the same place."""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", TAKES], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    try:
        ports = [int(port) for each in running if each.stdout for port in each.stdout.readline().split()]
    finally:
        for each in running:
            each.communicate(timeout=60)
    assert len(ports) == 180 and len(set(ports)) == 180
