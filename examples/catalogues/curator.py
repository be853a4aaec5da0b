"""An editor that a person would use by hand: gives a document another title. ``curator.py TITLE [OPENED GO] FILE``

With OPENED it makes that file once the document is open, and saves when GO is there: somebody who takes their time.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from examples.waiting import eventually


def main(title: str, *rest: str) -> int:
    document = Path(rest[-1])
    text = document.read_text()
    if len(rest) == 3:
        opened, go = Path(rest[0]), Path(rest[1])
        opened.touch()
        eventually(go.exists, f"{go} to be there", 120)
    document.write_text(re.sub(r"(<title>)[^<]*(</title>)", rf"\g<1>{title}\g<2>", text))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
