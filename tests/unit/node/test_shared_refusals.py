"""Filesets that a shared root refuses, whatever their writer says."""

from __future__ import annotations

import pytest

from instep.errors import RefusedError, ResourceError
from instep.model.ids import Digest, FilesetName, HeadRef, NodeName
from instep.model.lease import LeaseFence
from instep.model.rollout import Approval, RolloutPolicy, Strategy
from instep.node.following.shared_follower import require_not_older, require_shareable
from instep.store.cluster.shared_roots import HeldRoot

NAME, WRITER = FilesetName("catalog"), NodeName("main")


@pytest.mark.parametrize(
    ("policy", "is_secret", "code"),
    [
        (RolloutPolicy(strategy=Strategy.ROLLING), False, "shared_rollout"),
        (RolloutPolicy(strategy=Strategy.CANARY), False, "shared_rollout"),
        (RolloutPolicy(approve=Approval.ONE), False, "shared_rollout"),
        (RolloutPolicy(confirm_within_ms=60_000), False, "shared_rollout"),
        (RolloutPolicy(), True, "shared_secret"),
    ],
)
def test_is_refused(policy: RolloutPolicy, is_secret: bool, code: str) -> None:
    with pytest.raises(RefusedError) as caught:
        require_shareable(NAME, WRITER, policy, is_secret)
    assert caught.value.error_code == code


@pytest.mark.parametrize("strategy", [Strategy.AUTO, Strategy.TOGETHER])
def test_is_taken(strategy: Strategy) -> None:
    require_shareable(NAME, WRITER, RolloutPolicy(strategy=strategy), False)


@pytest.mark.parametrize("position", [(2, 5), (1, 6), (1, 5)])
def test_a_head_at_or_above_that_of_the_root_is_waited_for(position: tuple[int, int]) -> None:
    require_not_older(NAME, WRITER, HeldRoot(head(1, 5), True, "s2", LeaseFence(1, 1)), head(*position))


def test_a_head_below_that_of_the_root_is_named() -> None:
    """Goal: a node whose newest head was older than the root's waited for ever, and gave no reason."""
    with pytest.raises(ResourceError, match="holds generation 5 of s2, and 4 is the newest") as caught:
        require_not_older(NAME, WRITER, HeldRoot(head(1, 5), True, "s2", LeaseFence(1, 1)), head(1, 4))
    assert caught.value.error_code == "root_ahead"


def head(epoch: int, number: int) -> HeadRef:
    return HeadRef(epoch, number, Digest(bytes(32)), Digest(bytes(32)))
