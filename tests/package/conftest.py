"""What ``./run package --test`` has built, and a bare Debian to install it in.

These tests cost a build and a bare root, so ``./run test`` leaves them out by name; ``.ci/run`` has them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bare_root import BareRoot, install

DIST = "INSTEP_DIST"
"""Where the wheel and the package lie that are tested."""

ROOT = "INSTEP_BARE_ROOT"
"""A bare root that was made before, for a developer's second run."""


@pytest.fixture(scope="session")
def dist() -> Path:
    found = os.environ.get(DIST)
    if not found:
        pytest.skip("run by: ./run package --test")
    return Path(found)


@pytest.fixture(scope="session")
def wheel(dist: Path) -> Path:
    [found] = dist.glob("*.whl")
    return found


@pytest.fixture(scope="session")
def deb(dist: Path) -> Path:
    found = sorted(dist.glob("*.deb"))
    if not found:
        pytest.skip("no Debian package was built: dpkg-deb or Debian's python3 is missing")
    return found[-1]


@pytest.fixture(scope="session")
def pristine(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bare root of this machine's release, made once."""
    for tool in ("mmdebstrap", "unshare", "chroot"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    if os.geteuid() != 0:
        pytest.skip("makes and enters a root directory, which needs root")
    kept = os.environ.get(ROOT)
    if kept and Path(kept).is_dir():
        return Path(kept)
    return BareRoot.make(tmp_path_factory.mktemp("bare") / "root")


@pytest.fixture(scope="session")
def layers(pristine: Path, deb: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """The bare root with the package on top, installed once."""
    scratch = tmp_path_factory.mktemp("installed")
    with BareRoot.entered((pristine,), scratch) as root:
        install(root, deb)
    return scratch / "upper", pristine


@pytest.fixture
def bare(pristine: Path, tmp_path: Path) -> Iterator[BareRoot]:
    """The bare root in a mount and process namespace of its own; all that runs in it ends with the test."""
    with BareRoot.entered((pristine,), tmp_path) as root:
        yield root


@pytest.fixture
def installed(layers: tuple[Path, ...], tmp_path: Path) -> Iterator[BareRoot]:
    """The same with the package installed."""
    with BareRoot.entered(layers, tmp_path) as root:
        yield root
