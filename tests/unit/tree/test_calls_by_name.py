"""No call in ``tree/`` changes or opens something by a path that another user can redirect.

The owner of a tree swaps what a name leads to between two calls. So modes, owners, times and attributes change through
a descriptor of the object (``tree/objects/inode.py``), and names are relative to a descriptor and never followed. The calls
below were looked at one by one; a new one wants a descriptor, or a line here with its reason.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

TREE = Path(__file__).resolve().parents[3] / "src/instep/tree"

OF_AN_OBJECT = frozenset(
    {"chmod", "lchmod", "chown", "lchown", "utime", "setxattr", "removexattr", "truncate"}
)
"""They follow symlinks, and a second look does not help: only a descriptor does."""
RELATIVE = frozenset(
    {"open", "mkdir", "rmdir", "unlink", "remove", "symlink", "readlink", "mkfifo", "mknod", "stat", "access"}
)
"""They take ``dir_fd``."""
OF_TWO = frozenset({"rename", "replace", "link"})
"""They take ``src_dir_fd`` and ``dst_dir_fd``."""
NEVER = frozenset({"makedirs", "removedirs", "renames", "walk", "lstat", "chdir", "chroot"})
PATH_METHODS = frozenset(
    {
        *("unlink", "rmdir", "mkdir", "rename", "touch", "chmod", "lchmod", "write_text", "write_bytes"),
        *("symlink_to", "hardlink_to", "read_bytes", "read_text", "iterdir", "rglob"),
    }
)

CONTROL = "below the opened control folder, where only the daemon's user can put anything"
OBJECT = "a descriptor, or the path of a held object"
PROBE = "in a private directory, by its descriptor"
TOP = "the one look at a path that the operator named; the object found is checked by its descriptor"
ASKED = "asked for an answer only; the act afterwards checks again"
KERNEL = "a file of the kernel's own below /proc"

LOOKED_AT: dict[str, str] = {
    where: reason
    for reason, places in (
        (
            PROBE,
            (
                "objects/abilities.py:_ns_times:os.utime",
                "layout/copies.py:_symlink:os.chown",
                "objects/abilities.py:_ns_times:os.stat",
                "objects/abilities.py:_modes:os.chmod",
                "objects/abilities.py:_modes:os.stat",
                "objects/abilities.py:probe:os.setxattr",
                "objects/abilities.py:probe:os.removexattr",
                "objects/abilities.py:_owners:os.chown",
                "objects/abilities.py:_owners:os.stat",
                "objects/abilities.py:_hardlinks:os.stat",
            ),
        ),
        (
            CONTROL,
            (
                "archive/archive.py:close_batch:os.makedirs",
                "archive/archive.py:close_batch:os.rename",
                "archive/archive.py:prune:os.open",
                "archive/history.py:forget_rotten:os.stat",
                "archive/history.py:collect:os.stat",
                "switch/linger.py:end_linger:os.unlink",
                "switch/former_switch.py:move_aside:.mkdir",
                "switch/former_switch.py:move_aside:os.rename",
                "switch/left_objects.py:archive_left:os.makedirs",
                "switch/left_objects.py:archive_left:os.rename",
                "stage/stages.py:open_stage:os.makedirs",
                "stage/stages.py:open_stage:os.mkdir",
                "stage/stages.py:open_stage:os.unlink",
                "stage/stages.py:_base_of:os.open",
                "stage/stages.py:_adopt:os.unlink",
                "stage/stages.py:_adopt:os.rename",
                "stage/stages.py:_write_base:os.open",
                "stage/stages.py:clear_stages:os.open",
                "switch/switch.py:_strip_batch:os.unlink",
                "switch/switch.py:_remove_empty_batch:os.open",
                "switch/rows.py:_staged_rows:os.open",
                "switch/exchange.py:swap:os.open",
                "switch/exchange.py:withdraw:os.open",
                "objects/laying.py:sync_directory:os.open",
            ),
        ),
        (
            OBJECT,
            (
                "switch/exchange.py:_exchange:os.utime",
                "objects/projects.py:give_project:os.open",
                "objects/fidelity.py:_apply_to:os.chown",
                "objects/fidelity.py:_apply_to:os.chmod",
                "objects/fidelity.py:_apply_to:os.utime",
                "objects/fidelity.py:_remove_others:os.removexattr",
                "objects/fidelity.py:_set_xattrs:os.setxattr",
                "objects/inode.py:set_mode:os.chmod",
                "objects/inode.py:set_owner:os.chown",
                "objects/inode.py:set_time:os.utime",
                "objects/laying.py:small:os.utime",
                "objects/compared_write.py:_link:os.link",
                "objects/compared_write.py:_dress:os.setxattr",
                "stage/next_tree.py:_copy_metadata:os.removexattr",
                "stage/next_tree.py:_copy_metadata:os.setxattr",
                "stage/next_tree.py:_copy_metadata:os.utime",
                "archive/outlet.py:_copy_metadata:os.setxattr",
                "archive/outlet.py:_copy_metadata:os.utime",
                "archive/outlet.py:finish_directory:os.utime",
                "root/place.py:_drop_default_acl:os.removexattr",
                "root/writable.py:require_writable_folder:os.removexattr",
            ),
        ),
        (
            TOP,
            (
                "layout/layout_move.py:begin:os.mkdir",
                "objects/abilities.py:probe_filesystem:os.open",
                "root/beneath.py:__init__:os.open",
                "root/control_folder.py:open_control:os.open",
                "archive/outlet.py:_opened:os.open",
                "root/place.py:_open_above:os.open",
                "root/place.py:_prepare:os.open",
                "root/place.py:_same_mount:os.open",
                "root/place.py:_is_ours:os.open",
                "root/writable.py:require_writable_folder:os.open",
            ),
        ),
        (
            ASKED,
            (
                "layout/destination.py:_inode_of:os.stat",
                "switch/exchange.py:check_swap:os.stat",
                "switch/exchange.py:swap:os.stat",
                "switch/switch.py:_swap:os.stat",
                "stage/exchange_check.py:_of_the_place:os.access",
                "stage/probes.py:_unwritable:os.access",
                "root/place.py:resolve_place:os.access",
                "root/place.py:_chosen_stage:os.access",
                "root/os_errors.py:read_only:os.access",
                "root/os_errors.py:_forbidden:os.access",
            ),
        ),
        (
            KERNEL,
            (
                "watch/culprits.py:_drain:os.readlink",
                "watch/culprits.py:_program:.read_text",
                "root/kernel.py:mounts_below:open",
                "root/resolving.py:resolved:open",
                "watch/fanotify.py:_tell:os.readlink",
                "watch/fanotify.py:_path_below:os.readlink",
                "objects/laying.py:_umask:open",
                "archive/outlet.py:_where:os.readlink",
                "root/place.py:_mount_of:open",
                "root/os_errors.py:mount_of:open",
                "objects/private_directory.py:private_directory:os.readlink",
                "watch/limits.py:_read:.read_text",
                "root/kernel.py:mounts_in:os.readlink",
            ),
        ),
    )
    for where in places
}


@cache
def calls() -> dict[str, int]:
    """``file:function:call`` of all that the rules do not let pass, and in which line."""
    found: dict[str, int] = {}
    for path in sorted(TREE.rglob("*.py")):
        module = ast.parse(path.read_text("utf-8"))
        for function, call in _calls(module, "module"):
            name = _risky(call)
            if name is not None:
                found[f"{path.relative_to(TREE)}:{function}:{name}"] = call.lineno
    return found


def _calls(node: ast.AST, function: str) -> Iterator[tuple[str, ast.Call]]:
    for child in ast.iter_child_nodes(node):
        inside = child.name if isinstance(child, ast.FunctionDef) else function
        if isinstance(child, ast.Call):
            yield inside, child
        yield from _calls(child, inside)


def _risky(call: ast.Call) -> str | None:
    keywords = {keyword.arg for keyword in call.keywords}
    function = call.func
    if isinstance(function, ast.Name):
        return "open" if function.id == "open" else None
    if not isinstance(function, ast.Attribute):
        return None
    name, of = function.attr, function.value
    if isinstance(of, ast.Name) and of.id == "shutil":
        return f"shutil.{name}"
    if not (isinstance(of, ast.Name) and of.id == "os"):
        is_own = isinstance(of, ast.Name) and of.id == "self"
        return f".{name}" if name in PATH_METHODS and not is_own else None
    if name in NEVER or name in OF_AN_OBJECT:
        return f"os.{name}"
    if name in RELATIVE:
        follows = name == "stat" and not _is_false(call, "follow_symlinks")
        return f"os.{name}" if "dir_fd" not in keywords or follows else None
    if name in OF_TWO:
        is_open = {"src_dir_fd", "dst_dir_fd"} <= keywords
        return None if is_open and (name != "link" or _is_false(call, "follow_symlinks")) else f"os.{name}"
    return None


def _is_false(call: ast.Call, keyword: str) -> bool:
    return any(
        each.arg == keyword and isinstance(each.value, ast.Constant) and each.value.value is False
        for each in call.keywords
    )


def test_every_call_by_name_in_the_tree_was_looked_at() -> None:
    new = {where: line for where, line in calls().items() if where not in LOOKED_AT}
    assert not new, "use a descriptor (tree/objects/inode.py, dir_fd and no following), or say why it is safe"


def test_the_list_of_calls_is_current() -> None:
    assert not LOOKED_AT.keys() - calls().keys()
