"""How safely a home takes changes from elsewhere on its file system: a row of ``check``."""

from __future__ import annotations

from instep.node.config.filesets import FilesetSettings
from instep.tree.objects.abilities import Ability, probe_filesystem
from instep.tree.root.place import Place


def home_rows(fileset: FilesetSettings, place: Place) -> tuple[tuple[str, bool, str, str], ...]:
    """Nothing where no partner's changes are taken. ``OSError``."""
    if fileset.offers_from:
        partners = f"taken from {', '.join(fileset.offers_from)}"
    elif fileset.is_of_many_homes:
        partners = "taken from every partner that may have them"
    else:
        return ()
    if Ability.EXCHANGE in probe_filesystem(place.control):
        how = "compared and set in one exchange"
    else:
        how = (
            "compared, then renamed over: a save by rename in between (microseconds, or a round trip) is lost"
        )
    return ((f"changes of {fileset.name}", True, partners, how),)
