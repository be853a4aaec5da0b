"""``./run package``: the wheel, and the Debian package of this machine's release and architecture, in ``dist/``.

The Debian package brings every library in a virtual environment of its own, ``/usr/lib/instep``, with exactly the
versions of ``requirements.lock``. Its interpreter is the distribution's, so a package fits the Python that it was built
for and depends on it. Two builds of one commit are equal, byte for byte.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOME = "usr/lib/instep"
PYTHON = Path("/usr/bin/python3")
EXTRA = "pillow"
"""The extra ``images``: golden answers that are pictures need it, and a package has no extras."""
COMMAND_S = 900.0
EXIT_MISSING = 3
LAUNCHER = """#!/usr/lib/instep/bin/python -I
import sys

from instep.cli.main import main

sys.exit(main())
"""


def run(*words: str | Path, **environment: str) -> str:
    """Run a program to its end and return what it printed; its error output goes to ours."""
    done = subprocess.run(
        [str(word) for word in words],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=COMMAND_S,
        cwd=ROOT,
        env={**os.environ, **environment},
    )
    return done.stdout.strip()


def moment() -> int:
    """The time that all packed files get: that of the commit, else that of the newest source file."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given:
        return int(given)
    try:
        return int(run("git", "log", "-1", "--format=%ct"))
    except (OSError, subprocess.CalledProcessError):
        return int(max(path.stat().st_mtime for path in (ROOT / "src").rglob("*.py")))


def build_wheel(out: Path, epoch: int) -> Path:
    """The wheel of the project alone; ``setuptools`` is the one of the lock file."""
    with tempfile.TemporaryDirectory(prefix="instep-wheel-") as scratch:
        source, made = Path(scratch, "source"), Path(scratch, "made")
        source.mkdir()
        for name in ("src", "packaging"):
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy2(ROOT / name, source / name)
        run(
            sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", made, source,
            SOURCE_DATE_EPOCH=str(epoch),
        )  # fmt: skip
        [wheel] = made.glob("*.whl")
        out.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy2(wheel, out / wheel.name))


def build_deb(out: Path, wheel: Path, epoch: int, revision: str) -> Path:
    """The Debian package. Built by root or by anybody: all files in it belong to root."""
    version = f"{wheel.name.split('-')[1]}-{revision}"
    architecture = run("dpkg", "--print-architecture")
    with tempfile.TemporaryDirectory(prefix="instep-deb-") as scratch:
        tree = Path(scratch, "tree")
        tree.mkdir(mode=0o755)
        python = _environment(tree / HOME, wheel)
        _launcher(tree)
        _system_files(tree)
        _documents(tree)
        _control(tree, version, architecture, python)
        _settle(tree, epoch)
        deb = out / f"instep_{version}_{architecture}.deb"
        run(
            "dpkg-deb",
            "--root-owner-group",
            "-Zxz",
            "-z3",
            "--build",
            tree,
            deb,
            SOURCE_DATE_EPOCH=str(epoch),
        )
        return deb


def _environment(home: Path, wheel: Path) -> str:
    """The virtual environment with all libraries and the project; returns the interpreter's version."""
    run(PYTHON, "-m", "venv", "--without-pip", home)
    python = home / "bin/python"
    version = run(python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as extra:
        extra.write(_locked_lines(EXTRA))
        extra.flush()
        pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-compile", "--no-deps",
               "--root-user-action=ignore", "--disable-pip-version-check")  # fmt: skip
        run(*pip, "--require-hashes", "--only-binary=:all:", "-r", "requirements.lock")
        run(*pip, "--require-hashes", "--only-binary=:all:", "-r", extra.name)
        run(*pip, wheel)
    site = home / f"lib/python{version}/site-packages"
    for script in (home / "bin").iterdir():
        script.unlink()
    (home / "bin/python").symlink_to(f"/usr/bin/python{version}")
    (home / "bin/python3").symlink_to("python")
    shutil.rmtree(home / "include", ignore_errors=True)
    (home / "lib64").unlink(missing_ok=True)
    (home / "pyvenv.cfg").write_text(
        f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {version}\n"
        f"executable = /usr/bin/python{version}\n"
    )
    for info in site.glob("*.dist-info"):
        for name in ("direct_url.json", "REQUESTED", "RECORD", "INSTALLER"):
            (info / name).unlink(missing_ok=True)
    # Compiled here, because the daemon's user may not write below /usr; by hash, so that equal builds are equal.
    run(
        PYTHON, "-m", "compileall", "-q", "-f", "--invalidation-mode", "unchecked-hash",
        "-s", home.parents[2], "-p", "/", site,
        PYTHONHASHSEED="0",
    )  # fmt: skip
    return version


def _locked_lines(name: str) -> str:
    """The entry of one library in the lock file of developers, with its hashes."""
    entry = re.search(
        rf"^{name}==.*?(?=^\S|\Z)", (ROOT / "requirements-dev.lock").read_text(), re.MULTILINE | re.DOTALL
    )
    assert entry is not None, f"{name} is not in requirements-dev.lock"
    return entry.group()


def _launcher(tree: Path) -> None:
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "usr/bin/instep").write_text(LAUNCHER)
    (tree / "usr/bin/instep").chmod(0o755)


def _system_files(tree: Path) -> None:
    """Units, the daemon's user, logrotate, completion, and the folder for scripts and secrets of hooks."""
    units = ROOT / "src/instep/daemon/units"
    deb = ROOT / "packaging/deb"
    for source, target in (
        (units / "instep.service", "lib/systemd/system/instep.service"),
        (units / "instep@.service", "lib/systemd/system/instep@.service"),
        (units / "instep.sysusers", "usr/lib/sysusers.d/instep.conf"),
        (deb / "logrotate", "etc/logrotate.d/instep"),
        (deb / "environment", "etc/instep/environment"),
        *((path, f"usr/share/instep/rights/{path.name}") for path in (units / "rights").iterdir()),
    ):
        _put(tree / target, source.read_bytes())
    for shell, target in (
        ("bash", "usr/share/bash-completion/completions/instep"),
        ("zsh", "usr/share/zsh/vendor-completions/_instep"),
        ("fish", "usr/share/fish/vendor_completions.d/instep.fish"),
    ):
        script = run(sys.executable, "-m", "instep.cli", "completion", shell, PYTHONPATH=str(ROOT / "src"))
        _put(tree / target, f"{script}\n".encode())


def _documents(tree: Path) -> None:
    for page in sorted((ROOT / "packaging/man").glob("*.1")):
        _put(tree / f"usr/share/man/man1/{page.name}.gz", gzip.compress(page.read_bytes(), mtime=0))
    share = tree / "usr/share/doc/instep"
    _put(share / "changelog.gz", gzip.compress((ROOT / "CHANGELOG.md").read_bytes(), mtime=0))
    _put(share / "copyright", (ROOT / "packaging/deb/copyright").read_bytes())
    for page in (*(ROOT / "docs/guide").glob("*.md"), *(ROOT / "docs/reference").glob("*.md")):
        _put(share / page.relative_to(ROOT / "docs"), page.read_bytes())


def _put(target: Path, content: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)


def _control(tree: Path, version: str, architecture: str, python: str) -> None:
    control = tree / "DEBIAN"
    control.mkdir()
    packed = [path for path in sorted(tree.rglob("*")) if path.is_file() and not path.is_symlink()]
    size = sum(path.stat().st_size for path in packed) >> 10
    text = (ROOT / "packaging/deb/control").read_text()
    values = {
        "VERSION": version,
        "ARCHITECTURE": architecture,
        "PYTHON": f"python{python}",
        "SIZE": str(size),
    }
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    (control / "control").write_text(text)
    sums = (
        f"{hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}  {path.relative_to(tree)}\n"
        for path in packed
    )
    (control / "md5sums").write_text("".join(sums))
    settings = sorted(f"/{path.relative_to(tree)}\n" for path in (tree / "etc").rglob("*") if path.is_file())
    (control / "conffiles").write_text("".join(settings))
    for script in ("postinst", "prerm", "postrm"):
        shutil.copyfile(ROOT / "packaging/deb" / script, control / script)
        (control / script).chmod(0o755)


def _settle(tree: Path, epoch: int) -> None:
    """Modes and times that do not depend on the machine that builds."""
    for path in (tree, *tree.rglob("*")):
        if not path.is_symlink():
            is_program = path.is_dir() or path.stat().st_mode & 0o100
            path.chmod(0o755 if is_program else 0o644)
        os.utime(path, (epoch, epoch), follow_symlinks=False)


def missing() -> list[str]:
    """The tools that the Debian package needs and this machine lacks, as names of packages."""
    lacks = [] if shutil.which("dpkg-deb") else ["dpkg"]
    if not PYTHON.exists():
        return [*lacks, "python3", "python3-venv"]
    is_able = "import sys, venv; sys.exit(sys.version_info < (3, 11))"
    done = subprocess.run([PYTHON, "-c", is_able], capture_output=True, check=False, timeout=60)
    return lacks if done.returncode == 0 else [*lacks, "python3-venv"]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="./run package", description="Make the wheel and the Debian package."
    )
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="where they are put (default: dist)")
    parser.add_argument("--revision", default="1", help="the revision of the Debian package (default: 1)")
    parser.add_argument("--wheel-only", action="store_true", help="make no Debian package")
    options = parser.parse_args(arguments)
    out = options.out.resolve()
    epoch = moment()
    wheel = build_wheel(out, epoch)
    print(wheel)
    if options.wheel_only:
        return 0
    if lacks := missing():
        print(f"no Debian package: missing on this machine: {' '.join(lacks)}", file=sys.stderr)
        return EXIT_MISSING
    print(build_deb(out, wheel, epoch, options.revision))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
