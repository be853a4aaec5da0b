"""A tree's metadata arrives too, and metadata that cannot be kept is named at ``accept``."""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path
from typing import Any

from tests.support.fleet import Fleet, tree_of
from tests.support.mounts import mounted, need_root

NS = 1_700_000_000_123_456_789
PRESERVE = "owner,xattr,acl,hardlinks,sparse"
CAPABILITY = "security.capability"
ACL_ACCESS = "system.posix_acl_access"
ACL_DEFAULT = "system.posix_acl_default"


def acl(*entries: tuple[int, int, int]) -> bytes:
    """A POSIX ACL as the kernel stores it, from ``(tag, permissions, id)``."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


NOBODY = 0xFFFFFFFF
AN_ACL = acl((1, 6, NOBODY), (2, 4, 12_345), (4, 4, NOBODY), (16, 6, NOBODY), (32, 0, NOBODY))
CAN_BIND = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)


def about(root: Path, *names: str) -> dict[bytes, tuple[Any, ...]]:
    """What ``tree_of`` leaves out: owners, extended attributes by name, and which paths are one file."""
    first: dict[int, bytes] = {}
    found: dict[bytes, tuple[Any, ...]] = {}
    for path in sorted(tree_of(root)):
        full = os.path.join(os.fsencode(root), path)
        status = os.lstat(full)
        attributes = {
            name: os.getxattr(full, name, follow_symlinks=False)
            for name in os.listxattr(full, follow_symlinks=False)
            if not names or name in names
        }
        same = first.setdefault(status.st_ino, path)
        found[path] = (status.st_uid, status.st_gid, same, attributes)
    return found


def write(path: bytes | Path, data: bytes = b"x", mode: int = 0o644) -> None:
    with open(path, "wb") as file:
        file.write(data)
    os.chmod(path, mode)


def test_names_modes_times_and_links_arrive(fleet: Fleet) -> None:
    """Goal: hostile names, every mode, nanosecond times of files, links and directories, empty directories.
    Method: one publish of all, one that changes only metadata; trees compared with times, verified deeply."""
    tree = fleet.tree("main")
    tree.mkdir(parents=True)
    raw = os.fsencode(tree)
    names = [
        b"new\nline",
        b"quote'\"`$(x)\\",
        b" lead and trail ",
        b"-rf",
        b"\xff\xfe\x80",
        b"n" * 255,
        b"\x01\x1b[31m",
        "é".encode(),
    ]
    os.mkdir(raw + b"/d\n\xff")
    for name in names:
        write(raw + b"/" + name, name)
        write(raw + b"/d\n\xff/" + name, name)
    deep = raw
    for _ in range(12):
        deep += b"/" + b"p" * 200
        os.mkdir(deep)
    write(deep + b"/leaf")
    for mode in (0o000, 0o400, 0o444, 0o600, 0o640, 0o755, 0o777):
        write(raw + b"/mode%o" % mode, b"m", mode)
        os.mkdir(raw + b"/dir%o" % mode)
        os.chmod(raw + b"/dir%o" % mode, mode | 0o700)
    os.mkdir(raw + b"/sticky")
    os.chmod(raw + b"/sticky", 0o1777)
    os.makedirs(raw + b"/empty/of/all")
    os.symlink(b"\xff\n../nowhere", raw + b"/dangling")
    os.symlink(b"/etc/passwd", raw + b"/absolute")
    os.symlink(b"dir755", raw + b"/to-dir")
    os.utime(raw + b"/dangling", ns=(NS + 1, NS + 1), follow_symlinks=False)
    os.utime(raw + b"/mode600", ns=(NS, NS))
    os.utime(raw + b"/mode640", ns=(-86_400_000_000_001, -86_400_000_000_001))
    os.utime(raw + b"/empty/of/all", ns=(NS, NS))
    os.utime(raw + b"/empty", ns=(NS + 7, NS + 7))
    fleet.make()
    fleet.wait()
    fleet.assert_same()
    os.chmod(raw + b"/mode600", 0o4755)
    os.chmod(raw + b"/mode640", 0o2750)
    os.chmod(raw + b"/dir755", 0o710)
    os.utime(raw + b"/n" + b"n" * 254, ns=(NS, NS + 999))
    os.utime(raw + b"/absolute", ns=(NS, NS), follow_symlinks=False)
    fleet.wait()
    wanted = tree_of(tree)
    for partner in ("s1", "s2"):
        found = tree_of(fleet.tree(partner))
        assert found.pop(b"mode600")[1] == 0o755, "setuid was not allowed there"
        assert found.pop(b"mode640")[1] == 0o750
        assert found == {path: what for path, what in wanted.items() if path not in (b"mode600", b"mode640")}
    verified = fleet.main.run("verify", "--fleet", "--deep").json
    assert verified["identical"], verified
    assert {partner["standing"] for partner in fleet.main.line()["partners"]} == {"in_step"}


def _rich_tree(tree: Path) -> None:
    tree.mkdir(parents=True)
    for name in ("plain", "owned", "attributes", "acl", "bind", "first"):
        write(tree / name, name.encode())
    (tree / "dir").mkdir()
    os.chown(tree / "owned", 12_345, 23_456)
    os.chown(tree / "dir", 33, 34)
    os.symlink("owned", tree / "link")
    os.chown(tree / "link", 33, 34, follow_symlinks=False)
    os.setxattr(tree / "attributes", "user.a", b"\x00\xff")
    os.setxattr(tree / "attributes", "user.large", b"L" * 3_000)
    os.setxattr(tree / "attributes", "trusted.t", b"t")
    os.setxattr(tree / "dir", "user.d", b"d")
    os.setxattr(tree / "acl", ACL_ACCESS, AN_ACL)
    os.setxattr(tree / "dir", ACL_DEFAULT, AN_ACL)
    os.setxattr(tree / "bind", CAPABILITY, CAN_BIND)
    os.link(tree / "first", tree / "dir" / "second")
    os.link(tree / "first", tree / "third")
    with open(tree / "holes", "wb") as file:
        file.truncate(8 << 20)
        os.pwrite(file.fileno(), b"end", (8 << 20) - 3)
    os.chmod(tree / "owned", 0o6755)


def test_what_preserve_names_arrives_where_it_is_allowed(fleet: Fleet) -> None:
    """Goal: owners, attributes, ACLs, capabilities, hard links and holes arrive at s1, which allows them; at s2,
    which allows none of the dangerous ones, the rest arrives and both are in step."""
    need_root("owners and capabilities")
    tree = fleet.tree("main")
    _rich_tree(tree)
    fleet.make(0, add=("--settle", "20ms", "--preserve", PRESERVE))
    allowing = fleet.join("s1", accept=False)
    config = allowing.directory / "instep.toml"
    config.write_text('allow_preserve = ["owner", "setuid", "security"]\n' + config.read_text())
    allowing.run("config", "reload")
    fleet.accept("s1")
    fleet.join("s2")
    fleet.wait()

    def check() -> None:
        fleet.assert_same("s1")
        assert about(fleet.tree("s1")) == about(tree)
        assert fleet.main.run("verify", "--fleet", "--deep").json["identical"]

    check()
    assert os.stat(fleet.tree("s1") / "holes").st_blocks * 512 < 1 << 20
    assert os.stat(fleet.tree("s2") / "holes").st_blocks * 512 < 1 << 20
    mine = about(fleet.tree("s2"), "user.a", "user.large", "user.d", ACL_ACCESS, ACL_DEFAULT)
    theirs = about(tree, "user.a", "user.large", "user.d", ACL_ACCESS, ACL_DEFAULT)
    assert {path: what[2:] for path, what in mine.items()} == {
        path: what[2:] for path, what in theirs.items()
    }
    # By name: 33 is www-data, which is known here and not root; 12,345 is unknown.
    assert {path: what[0] for path, what in mine.items() if what[0]} == {b"dir": 33, b"link": 33}
    assert not {"trusted.t", CAPABILITY} & {n for p in about(fleet.tree("s2")).values() for n in p[3]}
    assert stat.S_IMODE(os.stat(fleet.tree("s2") / "owned").st_mode) == 0o755
    # Metadata alone is a change, and taking away is one too.
    os.chown(tree / "plain", 1, 2)
    os.setxattr(tree / "plain", "user.new", b"n")
    os.removexattr(tree / "attributes", "user.large")
    os.removexattr(tree / "acl", ACL_ACCESS)
    os.removexattr(tree / "bind", CAPABILITY)
    (tree / "third").unlink()
    write(tree / "third", b"on its own")
    os.link(tree / "plain", tree / "dir" / "twin")
    fleet.wait()
    check()


def test_a_file_system_that_cannot_keep_it_says_so(fleet: Fleet, tmp_path: Path) -> None:
    """Goal: ``accept`` names what is lost (exit 4), with a directory that exists and one that does not;
    ``--without`` then works and ``status`` repeats it."""
    with mounted("ramfs", tmp_path / "plain"):
        tree = fleet.tree("main")
        tree.mkdir(parents=True)
        write(tree / "file")
        os.setxattr(tree / "file", "user.a", b"1")
        fleet.make(0, add=("--settle", "20ms", "--preserve", "xattr,acl,hardlinks"))
        s1 = fleet.join("s1", accept=False)
        target = tmp_path / "plain" / "tree"
        for is_made in (False, True):
            if is_made:
                target.mkdir()
            refused = s1.run("fileset", "accept", "data", str(target), expect=4).error
            assert refused["code"] == "cannot_keep"
            assert set(refused["facts"]["lost"]) == {"xattr", "acl"}
            assert "--without acl,xattr" in refused["hint"]
            assert target.exists() == is_made
        fleet.accept("s1", "--without", "acl,xattr", root=target)
        fleet.wait()
        assert tree_of(target) == tree_of(tree)
        shown = s1.status()["filesets"][0]
        assert shown["without"] == ["acl", "xattr"]
        assert "without" in s1.run("status", json=False).stdout
        assert fleet.main.run("verify", "--fleet", "--deep").json["identical"]
        s1.stop()


def test_a_partner_that_was_down_needs_only_the_newest(fleet: Fleet) -> None:
    """Goal: five publishes missed, right after one round, without the four in between."""
    tree = fleet.tree("main")
    tree.mkdir(parents=True)
    write(tree / "counter", b"0")
    fleet.make(1)
    fleet.wait()
    s1 = fleet["s1"]
    s1.stop()
    for number in range(1, 6):
        write(tree / "counter", b"%d" % number)
        (tree / f"only{number}").mkdir()
        if number > 1:
            (tree / f"only{number - 1}").rmdir()
        fleet.main.run("publish", "data", "-m", f"number {number}")
    newest = fleet.main.line()["head"]["number"]
    s1.start()
    fleet.wait()
    fleet.assert_same()
    seen = [g["number"] for g in s1.run("log", "data").json["generations"]]
    assert seen[0] == newest
    assert len(seen) <= 2, seen
    assert newest - 1 not in seen, seen
    lived = [e for e in s1.run("events").json["events"] if e["what"] == "live"]
    assert [e.get("generation") for e in lived][-1:] in ([newest], [None]), lived
