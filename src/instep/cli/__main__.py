"""``python -m instep.cli``: the same as the console script."""

from instep.cli.main import main

main()
