"""Filesets that a shared root refuses, whatever their writer says."""

from __future__ import annotations

import pytest

from instep.errors import RefusedError
from instep.model.ids import FilesetName, NodeName
from instep.model.rollout import Approval, RolloutPolicy, Strategy
from instep.node.following.shared_follower import require_shareable

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
