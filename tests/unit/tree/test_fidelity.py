"""Metadata goes from one tree through entries into another and reads the same there."""

from __future__ import annotations

import os
import re
import stat
import tempfile
from pathlib import Path

import msgspec
import pytest

from instep.errors import ResourceError
from instep.model.definition import Definition, Preserve
from instep.model.ids import Digest, FilesetName
from instep.model.manifest.entry import Entry, Extra, Kind
from instep.model.manifest.entry_rules import check_entry
from instep.tree.objects.abilities import Ability, lacking, probe_filesystem
from instep.tree.objects.fidelity import Allow, Local, apply_metadata, expected_local
from instep.tree.objects.owners import OwnerRules, Owners
from instep.tree.root.place import Place
from instep.tree.scan.listing import unfit
from instep.tree.scan.scan import Scanned, scan

EVERYTHING = Definition(preserve=tuple(Preserve))
OWN = Local(preserve=frozenset(Preserve), is_own=True)
MAY_ALL = Local(preserve=frozenset(Preserve), allow=frozenset(Allow))
MAY_NOTHING = Local(preserve=frozenset(Preserve))
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
ACL = bytes.fromhex(
    "0200000001000600ffffffff020004000000000004000400ffffffff10000400ffffffff20000000ffffffff"
)


@pytest.fixture
def abilities(tmp_path: Path) -> frozenset[Ability]:
    found = probe_filesystem(tmp_path)
    assert list(tmp_path.iterdir()) == []
    return found


def read(root: Path, local: Local, values: dict[Digest, bytes] | None = None) -> list[Entry]:
    keep = values.__setitem__ if values is not None else None
    place = Place(root, root.parent / "control", FilesetName("data"))
    found = []
    for item in scan(place, EVERYTHING, lambda _: None, None, 0, local=local, keep_value=keep):
        assert isinstance(item, Scanned)
        found.append(item.entry)
    return found


def build(
    source: Path, target: Path, entries: list[Entry], local: Local, values: dict[Digest, bytes]
) -> None:
    """The simplest apply: make each object, then its metadata; directories last."""
    target.mkdir()
    first_of: dict[bytes, Path] = {}
    for entry in entries:
        path, name = target / os.fsdecode(entry.path), os.fsdecode(entry.path)
        group = entry.extra.link_group if entry.extra else None
        if entry.kind is Kind.DIR:
            path.mkdir(mode=0o700)
        elif entry.kind is Kind.SYMLINK:
            path.symlink_to(os.readlink(source / name))
        elif group is not None and group in first_of:
            os.link(first_of[group], path)
        else:
            path.write_bytes((source / name).read_bytes())
            if group is not None:
                first_of[group] = path
    for entry in sorted(entries, key=lambda e: e.kind is Kind.DIR):
        parent = os.open((target / os.fsdecode(entry.path)).parent, os.O_RDONLY)
        apply_metadata(parent, entry.path.rpartition(b"/")[2], entry, local, large_value=values.__getitem__)
        os.close(parent)


def test_everything_round_trips(tmp_path: Path, abilities: frozenset[Ability]) -> None:
    source = tmp_path / "source"
    (source / "dir/empty").mkdir(parents=True)
    for name in ("file", "cap", "acl", "owned", "large-value", "read-only"):
        (source / name).write_text(name)
    (source / "link").symlink_to("nowhere")
    os.link(source / "file", source / "dir/hard")
    with open(source / "sparse", "wb") as sparse:
        sparse.seek(1 << 20)
        sparse.write(b"x")
    os.chmod(source / "dir", 0o1777)
    if Ability.XATTRS in abilities:
        os.setxattr(source / "file", "user.note", b"\x00\xff")
        os.setxattr(source / "dir", "user.note", b"directory")
        os.setxattr(source / "large-value", "user.large", b"v" * 4000)
        os.setxattr(source / "read-only", "user.note", b"x")
    if Ability.SECURITY_XATTRS in abilities:
        os.setxattr(source / "cap", "security.capability", CAPABILITY)
    if Ability.ACLS in abilities:
        os.setxattr(source / "acl", "system.posix_acl_access", ACL)
        os.setxattr(source / "dir", "system.posix_acl_default", ACL)
    if Ability.OWNERS in abilities:
        os.chown(source / "owned", 1, 2)
        os.chown(source / "link", 54_321, 54_322, follow_symlinks=False)
        os.chmod(source / "owned", 0o6755)
    os.chmod(source / "read-only", 0o444)
    for number, path in enumerate(sorted(source.rglob("*"))):
        os.utime(path, ns=(0, 1_600_000_000_000_000_001 + number), follow_symlinks=False)

    values: dict[Digest, bytes] = {}
    wanted = read(source, OWN, values)
    for entry in wanted:
        check_entry(entry)
    by_path = {entry.path: entry.extra for entry in wanted}
    hard, sparse_extra = by_path[b"dir/hard"], by_path[b"sparse"]
    assert hard is not None
    assert hard.link_group == b"dir/hard"
    if Ability.SPARSE in abilities:
        assert sparse_extra is not None
        assert sparse_extra.sparse
    build(source, tmp_path / "target", wanted, MAY_ALL, values)
    assert read(tmp_path / "target", MAY_ALL) == [expected_local(entry, MAY_ALL) for entry in wanted]
    again = [entry for entry in read(tmp_path / "target", OWN) if entry.path != b"sparse"]
    assert again == [entry for entry in wanted if entry.path != b"sparse"]


def test_rights_are_planted_only_where_allowed(tmp_path: Path, abilities: frozenset[Ability]) -> None:
    values: dict[Digest, bytes] = {}
    attributes = ((b"security.capability", CAPABILITY), (b"trusted.x", b"1"), (b"user.x", b"1"))
    entry = Entry(
        b"f", Kind.FILE, 0o6755, 1, 5, Digest(b"d" * 32), 0, Extra(owner="1", group="1", xattrs=attributes)
    )
    expected = expected_local(entry, MAY_NOTHING)
    assert expected.mode == 0o755
    assert expected.extra == Extra(xattrs=((b"user.x", b"1"),))
    assert expected_local(entry, Local()).extra is None
    if Ability.XATTRS not in abilities:
        pytest.skip("this file system has no extended attributes")
    (tmp_path / "f").write_text("x")
    parent = os.open(tmp_path, os.O_RDONLY)
    apply_metadata(parent, b"f", entry, MAY_NOTHING, large_value=values.__getitem__)
    os.close(parent)
    found = (tmp_path / "f").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_mtime_ns) == (0o755, os.geteuid(), 5)
    names = [name for name in os.listxattr(tmp_path / "f") if not name.startswith("security.selinux")]
    assert names == ["user.x"]


def test_attributes_that_the_entry_lacks_are_removed(tmp_path: Path, abilities: frozenset[Ability]) -> None:
    if Ability.XATTRS not in abilities:
        pytest.skip("this file system has no extended attributes")
    (tmp_path / "f").write_text("x")
    os.setxattr(tmp_path / "f", "user.old", b"1")
    parent = os.open(tmp_path, os.O_RDONLY)
    apply_metadata(parent, b"f", Entry(b"f", Kind.FILE, 0o400, 1, 5, Digest(b"d" * 32), 0), MAY_ALL)
    os.close(parent)
    assert os.listxattr(tmp_path / "f") == []


def test_a_link_outside_the_tree_makes_no_group(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/file").write_text("x")
    os.link(tmp_path / "root/file", tmp_path / "outside")
    (entry,) = read(tmp_path / "root", OWN)
    assert entry.extra is None or entry.extra.link_group is None


def test_owners_are_mapped_by_name() -> None:
    owners = Owners(OwnerRules.of(("alice=root", ":staff2=:0")))
    local = Local(preserve=frozenset((Preserve.OWNER,)), allow=frozenset((Allow.OWNER,)), owners=owners)
    entry = Entry(b"f", Kind.FILE, 0o644, 0, 0, Digest(b""), 0, Extra(owner="alice", group="staff2"))
    assert expected_local(entry, local).extra == Extra(owner="root", group="root")
    stranger = msgspec.structs.replace(entry, extra=Extra(owner="no-such-user", group="root"))
    for name in ("no-such-user", str(2**32 - 1), "-1", "٣"):
        stranger = msgspec.structs.replace(entry, extra=Extra(owner=name, group="root"))
        with pytest.raises(ResourceError) as caught:
            expected_local(stranger, local)
        assert caught.value.error_code == "unknown_owner"


def test_by_name_gives_files_to_accounts_that_are_known_here_and_never_to_root() -> None:
    """Nothing of ``allow_preserve``: the rule is this node's own, the names are a peer's."""
    unknown: dict[str, None] = {}
    rules = OwnerRules.of(("by_name", "tomcat=daemon"))
    owners = Owners(rules, is_careful=True, unknown=unknown)
    local = Local(preserve=frozenset((Preserve.OWNER,)), owners=owners)

    def here(owner: str, group: str) -> tuple[str | None, str | None]:
        entry = Entry(b"f", Kind.FILE, 0o6640, 0, 0, Digest(b""), 0, Extra(owner=owner, group=group))
        expected = expected_local(entry, local)
        assert expected.mode == 0o640
        assert expected.extra is not None
        return expected.extra.owner, expected.extra.group

    own = owners.user_of(os.geteuid()), owners.group_of(os.getegid())
    assert here("nobody", "nogroup") == ("nobody", "nogroup")
    assert here("tomcat", "nogroup") == ("daemon", "nogroup")
    assert here("root", "root") == here("no-such-user", "no-such-group") == here("0", "12345") == own
    assert {"user no-such-user", "group no-such-group", "group 12345"} <= unknown.keys()
    without = Local(preserve=frozenset((Preserve.OWNER,)))
    plain = Entry(b"f", Kind.FILE, 0o640, 0, 0, Digest(b""), 0, Extra(owner="nobody", group="nogroup"))
    assert expected_local(plain, without).extra is None


def test_everything_belongs_to_one_account_also_where_no_owner_travels() -> None:
    local = Local(owners=Owners(OwnerRules.of(("nobody",)), is_careful=True))
    plain = Entry(b"f", Kind.FILE, 0o640, 0, 0, Digest(b""), 0)
    assert expected_local(plain, local).extra == Extra(owner="nobody", group="nogroup")
    grouped = Local(owners=Owners(OwnerRules.of(("nobody:daemon",)), is_careful=True))
    assert expected_local(plain, grouped).extra == Extra(owner="nobody", group="daemon")
    lacking_it = Local(owners=Owners(OwnerRules.of(("no-such-user",)), is_careful=True))
    with pytest.raises(ResourceError) as caught:
        expected_local(plain, lacking_it)
    assert caught.value.error_code == "unknown_owner"


@pytest.mark.parametrize(
    "words",
    [
        ("a b",),
        ("a:b:c",),
        ("a=:b",),
        ("nobody", "by_name"),
        ("=a",),
        ("-",),
        ("4294967295",),
        (":a=:4294967296",),
    ],
)
def test_rules_of_owners_that_mean_nothing_are_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=re.escape(words[0])):
        OwnerRules.of(words)


def test_what_a_file_system_lacks_is_named(abilities: frozenset[Ability]) -> None:
    assert lacking(Preserve, frozenset()) == frozenset(Preserve)
    assert lacking((), frozenset()) == frozenset()
    assert Ability.SYMLINKS in abilities
    assert Ability.LONG_NAMES in abilities


def test_large_attributes_have_digests_and_are_not_published() -> None:
    """Needs a file system that keeps attributes above 4 KiB: tmpfs does, ext4 as usually made does not."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as base:
        source = Path(base) / "source"
        source.mkdir()
        (source / "f").write_text("x")
        try:
            os.setxattr(source / "f", "user.large", b"v" * 5000)
        except OSError as error:
            pytest.skip(f"no attribute of 5,000 bytes here: {error.strerror}")
        values: dict[Digest, bytes] = {}
        wanted = read(source, MAY_ALL, values)
        assert wanted[0].extra is not None
        assert wanted[0].extra.xattrs == ()
        assert list(values.values()) == [b"v" * 5000]
        check_entry(wanted[0])
        assert unfit(wanted[0]) is None
        refused = unfit(wanted[0], is_own=True)
        assert refused is not None
        assert (refused.what, "user.large has 5000 bytes; at most 4096" in refused.detail) == ("unfit", True)
        build(source, Path(base) / "target", wanted, MAY_ALL, values)
        assert read(Path(base) / "target", MAY_ALL) == wanted
