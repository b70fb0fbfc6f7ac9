from __future__ import annotations

import pytest

from tasks.processing.gate import EXACT, Decision, decide, following
from tasks.requests.settings import Settings

SETTINGS = Settings(chain=("none", "reinit"), val_acc_loss=0.02)


@pytest.mark.parametrize(
    ("method", "verdict", "loss", "decision"),
    [
        ("none", "indistinguishable", 0.01, Decision.PROMOTE),
        ("none", "indistinguishable", 0.02, Decision.PROMOTE),
        ("none", "indistinguishable", 0.021, Decision.NEXT),
        ("none", "indistinguishable", -0.3, Decision.PROMOTE),
        ("none", "remembers", 0.0, Decision.NEXT),
        ("reinit", "over-forgotten", 0.0, Decision.NEXT),
        ("none", "inconclusive", 0.0, Decision.EXACT),
        ("none", "inconclusive", 0.5, Decision.NEXT),
        (EXACT, "remembers", 0.0, Decision.PROMOTE),
        (EXACT, "inconclusive", 0.0, Decision.PROMOTE),
        (EXACT, "indistinguishable", 0.0205, Decision.PROMOTE),
        (EXACT, "indistinguishable", 0.03, Decision.FAIL),
    ],
)
def test_the_gate(method: str, verdict: str, loss: float, decision: Decision) -> None:
    found, why = decide(method, verdict, loss, loss - 0.001, SETTINGS)
    assert found is decision
    assert why


def test_an_inconclusive_result_is_promoted_where_the_policy_says_so() -> None:
    settings = Settings(inconclusive="promote")
    assert decide("none", "inconclusive", 0.0, -0.01, settings)[0] is Decision.PROMOTE
    assert decide("none", "inconclusive", 0.03, 0.01, settings)[0] is Decision.NEXT


def test_the_chain_ends_in_retraining() -> None:
    assert following("none", Decision.NEXT, SETTINGS) == "reinit"
    assert following("reinit", Decision.NEXT, SETTINGS) == EXACT
    assert following("none", Decision.EXACT, SETTINGS) == EXACT
    assert following("a method that was taken out of the settings", Decision.NEXT, SETTINGS) == EXACT
