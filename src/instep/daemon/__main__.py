"""``python -m instep.daemon DIRECTORY``: the daemon in the foreground; ``instep start`` runs it detached."""

import sys
from pathlib import Path

from instep.daemon.process import run

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m instep.daemon DIRECTORY")
    run(Path(sys.argv[1]))
