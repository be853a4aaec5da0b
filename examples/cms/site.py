"""The small site: pages of two files that belong together, and an nginx for each server."""

from __future__ import annotations

import hashlib
from pathlib import Path

from examples.servers import nginx_main

__all__ = ["PAGES", "digest_of", "nginx_of", "write", "write_page"]

PAGES = ("shop", "news")
"""Staging changes the shop, production the news."""
TEMPLATE = "<!-- the template of every page -->\n"


def write(tree: Path, path: str, text: str) -> None:
    """As an editor does it: a new file in the place of the old one."""
    file = tree / path
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f".{file.name}.tmp")
    new.write_text(text)
    new.rename(file)


def write_page(tree: Path, page: str, number: int) -> None:
    """A page and the part that it includes: an answer with one old and one new counts as a failure."""
    write(tree, f"parts/{page}.txt", f"{number}\n")
    write(tree, f"{page}.html", f'{page} {number} <!--# include virtual="/parts/{page}.txt" -->')


def digest_of(page: str, number: int) -> str:
    """Of the answer that shows the page as it was written with this number."""
    return hashlib.sha256(f"{page} {number} {number}\n".encode()).hexdigest()[:16]


def nginx_of(base: Path, tree: Path, name: str, port: int) -> Path:
    """The configuration of one server, which serves its own copy of the tree."""
    site = (
        f"    server {{\n        listen 127.0.0.1:{port};\n        root {tree};\n        ssi on;\n"
        f"        default_type text/html;\n        types {{ text/html html; text/plain txt; }}\n"
        f"        add_header X-Node {name} always;\n    }}\n}}\n"
    )
    conf = base / "nginx.conf"
    conf.write_text(nginx_main(base, "nginx") + site)
    return conf
