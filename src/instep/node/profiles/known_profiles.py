"""Sync profiles as this home knows them: from its own settings, and from the homes that carry runs out.

Only a partner whose changes the home takes may name one, and only so many profiles of a fileset are kept.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from instep.core.sync.table import Side
from instep.errors import PeerError
from instep.model.ids import FilesetName, NodeName
from instep.model.sync import KindNews, ProfileNews
from instep.node.config.settings import Settings
from instep.node.config.sync import LockEnforcement, SyncSettings
from instep.store.port import NodeStore

PROFILES_MAX = 16
MOVED = "home_moved"
"""The code of a home that a profile names and that does not write the fileset any more."""
_NEWS = "sync/profiles/"


def news_of(profile: SyncSettings, side: Side, run: int) -> ProfileNews:
    """The profile for the home of ``side``."""
    kinds = tuple(
        KindNews(
            each.name,
            each.paths,
            each.locked is side,
            each.locked is side and each.lock_enforce is LockEnforcement.REVERT,
        )
        for each in profile.kinds.values()
    )
    initiators = tuple(sorted(profile.may_start))
    left, right = str(profile.left), str(profile.right)
    return ProfileNews(
        profile.name, profile.carrier, left, right, profile.direction.value, initiators, run, kinds
    )


def keep_news(store: NodeStore, fileset: FilesetName, news: ProfileNews) -> None:
    """The profile replaces what its carrier said of it before, in its place: a name that another carrier gives later
    hides no earlier one. No more than ``PROFILES_MAX`` of a carrier are kept."""
    known = list(known_profiles(store, fileset))
    places = [at for at, each in enumerate(known) if (each.carrier, each.name) == (news.carrier, news.name)]
    if places:
        if known[places[0]] == news:
            return
        known[places[0]] = news
    elif sum(each.carrier == news.carrier for each in known) < PROFILES_MAX:
        known.append(news)
    else:
        return
    store.put(f"{_NEWS}{fileset}", msgspec.msgpack.encode(known))


def require_known(store: NodeStore, who: NodeName, fileset: FilesetName, profile: str) -> None:
    """``PeerError`` where this partner did not name the profile before, or named too many."""
    known = known_profiles(store, fileset)
    if not any((each.carrier, each.name) == (who, profile) for each in known):
        raise PeerError(
            f"{who} asked about a sync profile {profile} of which nothing is kept here; "
            f"{PROFILES_MAX} of a partner are",
            code="unknown_profile",
            node=who,
        )


def known_profiles(store: NodeStore, fileset: FilesetName) -> tuple[ProfileNews, ...]:
    raw = store.get(f"{_NEWS}{fileset}")
    return msgspec.msgpack.decode(raw, type=tuple[ProfileNews, ...]) if raw is not None else ()


def known_profile(
    store: NodeStore, settings: Settings, name: str, carriers: Collection[NodeName] | None = None
) -> ProfileNews | None:
    """A profile that another home named to this node, the home of one of its sides: the one that came first, and that
    one of ``carriers`` carries out, where they are given."""
    found = (each for fileset in settings.filesets for each in known_profiles(store, fileset))
    return next(
        (each for each in found if each.name == name and (carriers is None or each.carrier in carriers)), None
    )


def last_run(store: NodeStore, fileset: FilesetName, carrier: NodeName, name: str) -> int:
    """The number of the last run of a profile that its carrier named here, 0 where it named none."""
    known = known_profiles(store, fileset)
    return next((each.run for each in known if (each.carrier, each.name) == (carrier, name)), 0)


def profiles_at(store: NodeStore, settings: Settings, fileset: FilesetName) -> tuple[ProfileNews, ...]:
    """The profiles with this fileset of this node as a side; its own settings count first."""
    own = {}
    for profile in settings.sync.values():
        for side, home in ((Side.LEFT, profile.left), (Side.RIGHT, profile.right)):
            if home.home == settings.name and home.fileset == fileset:
                own[profile.name] = news_of(profile, side, 0)
    others = (each for each in known_profiles(store, fileset) if each.name not in own)
    return (*own.values(), *others)
