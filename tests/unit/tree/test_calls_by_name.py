"""No call in ``tree/`` changes or opens something by a path that another user can redirect.

The owner of a tree swaps what a name leads to between two calls. So modes, owners, times and attributes change through
a descriptor of the object (``tree/inode.py``), and names are relative to a descriptor and never followed. The calls
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
                "abilities.py:_ns_times:os.utime",
                "abilities.py:_ns_times:os.stat",
                "abilities.py:_modes:os.chmod",
                "abilities.py:_modes:os.stat",
                "abilities.py:probe:os.setxattr",
                "abilities.py:probe:os.removexattr",
                "abilities.py:_owners:os.chown",
                "abilities.py:_owners:os.stat",
                "abilities.py:_hardlinks:os.link",
                "abilities.py:_hardlinks:os.stat",
            ),
        ),
        (
            CONTROL,
            (
                "archive.py:close_batch:os.makedirs",
                "archive.py:close_batch:os.rename",
                "archive.py:prune:os.open",
                "history.py:forget_rotten:os.stat",
                "history.py:collect:os.stat",
                "linger.py:end_linger:os.unlink",
                "left_objects.py:archive_left:os.makedirs",
                "left_objects.py:archive_left:os.rename",
                "stages.py:open_stage:os.makedirs",
                "stages.py:open_stage:os.mkdir",
                "stages.py:open_stage:os.unlink",
                "stages.py:_base_of:os.open",
                "stages.py:_adopt:os.unlink",
                "stages.py:_adopt:os.rename",
                "stages.py:_write_base:os.open",
                "stages.py:close_others:os.open",
                "switch.py:_strip_batch:os.unlink",
                "switch.py:_remove_empty_batch:os.open",
                "switch_rows.py:_staged_rows:os.open",
                "exchange.py:_opened:os.open",
                "laying.py:sync_directory:os.open",
            ),
        ),
        (
            OBJECT,
            (
                "exchange.py:_exchange:os.utime",
                "projects.py:give_project:os.open",
                "fidelity.py:_apply_to:os.chown",
                "fidelity.py:_apply_to:os.chmod",
                "fidelity.py:_apply_to:os.utime",
                "fidelity.py:_remove_others:os.removexattr",
                "fidelity.py:_set_xattrs:os.setxattr",
                "inode.py:set_mode:os.chmod",
                "inode.py:set_owner:os.chown",
                "inode.py:set_time:os.utime",
                "laying.py:small:os.utime",
                "next_tree.py:_copy_metadata:os.removexattr",
                "next_tree.py:_copy_metadata:os.setxattr",
                "next_tree.py:_copy_metadata:os.utime",
                "outlet.py:_copy_metadata:os.setxattr",
                "outlet.py:_copy_metadata:os.utime",
                "outlet.py:finish_directory:os.utime",
                "place.py:_drop_default_acl:os.removexattr",
            ),
        ),
        (
            TOP,
            (
                "abilities.py:probe_filesystem:os.open",
                "beneath.py:__init__:os.open",
                "control_folder.py:open_control:os.open",
                "outlet.py:open_outlet:os.open",
                "place.py:prepare_place:os.open",
                "place.py:_prepare:os.open",
                "place.py:_mount_at:os.open",
                "place.py:_is_ours:os.open",
            ),
        ),
        (
            ASKED,
            (
                "exchange.py:check_swap:os.stat",
                "exchange.py:swap:os.stat",
                "switch.py:_swap:os.stat",
                "exchange_check.py:_of_the_place:os.access",
                "probes.py:_unwritable:os.access",
                "place.py:resolve_place:os.access",
                "place.py:_chosen_stage:os.access",
            ),
        ),
        (
            KERNEL,
            (
                "culprits.py:_drain:os.readlink",
                "culprits.py:_program:.read_text",
                "exchange.py:mounts_below:open",
                "fanotify.py:_tell:os.readlink",
                "fanotify.py:_path_below:os.readlink",
                "laying.py:_umask:open",
                "outlet.py:_where:os.readlink",
                "place.py:_mount_of:open",
                "private_directory.py:private_directory:os.readlink",
                "watch_limits.py:_read:.read_text",
                "own_rights.py:ignores_modes:open",
                "step_work.py:mounts_in:os.readlink",
            ),
        ),
    )
    for where in places
}


@cache
def calls() -> dict[str, int]:
    """``file:function:call`` of all that the rules do not let pass, and in which line."""
    found: dict[str, int] = {}
    for path in sorted(TREE.glob("*.py")):
        module = ast.parse(path.read_text("utf-8"))
        for function, call in _calls(module, "module"):
            name = _risky(call)
            if name is not None:
                found[f"{path.name}:{function}:{name}"] = call.lineno
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
    assert not new, "use a descriptor (tree/inode.py, dir_fd and no following), or say why it is safe"


def test_the_list_of_calls_is_current() -> None:
    assert not LOOKED_AT.keys() - calls().keys()
