from __future__ import annotations

import pytest

from tasks.core.params import load
from tasks.processing.gate import Decision, Losses, decide, first_method, following, worn_out
from tasks.requests.events import EXACT
from tasks.requests.settings import Settings

SETTINGS = Settings(chain=("none", "reinit"), val_acc_loss=0.02, val_acc_loss_total=0.05)


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
        ("none", "inconclusive", None, Decision.EXACT),
        (EXACT, "remembers", 0.0, Decision.PROMOTE),
        (EXACT, "inconclusive", 0.0, Decision.PROMOTE),
        (EXACT, "inconclusive", None, Decision.PROMOTE),
        (EXACT, "indistinguishable", 0.0205, Decision.PROMOTE),
        (EXACT, "indistinguishable", 0.03, Decision.FAIL),
    ],
)
def test_the_gate(method: str, verdict: str, loss: float | None, decision: Decision) -> None:
    losses = Losses(loss, None if loss is None else loss - 0.001)
    found, why = decide(method, verdict, losses, SETTINGS)
    assert found is decision
    assert why


def test_an_inconclusive_result_is_promoted_where_the_policy_says_so() -> None:
    settings = Settings(inconclusive="promote")
    assert decide("none", "inconclusive", Losses(0.0, -0.01), settings)[0] is Decision.PROMOTE
    assert decide("none", "inconclusive", Losses(0.03, 0.01), settings)[0] is Decision.NEXT


def test_twenty_small_losses_are_noticed() -> None:
    first, decisions, alarms = 0.9, [], []
    for batch in range(1, 21):
        losses = Losses(0.004, -0.01, first - (first - 0.004 * batch))
        decisions.append(decide("none", "indistinguishable", losses, SETTINGS)[0])
        alarms.append(worn_out(losses, SETTINGS))
        assert decide(EXACT, "indistinguishable", losses, SETTINGS)[0] is Decision.PROMOTE
    assert decisions == [Decision.PROMOTE] * 12 + [Decision.NEXT] * 8
    assert [bool(alarm) for alarm in alarms] == [False] * 12 + [True] * 8
    assert alarms[12] == "since the first model, accuracy on val fell by 0.052, more than 0.05"


@pytest.mark.parametrize(("samples", "method"), [(1, EXACT), (19, EXACT), (255, EXACT), (300, "none")])
def test_what_cannot_reach_a_verdict_is_retrained_at_once(samples: int, method: str) -> None:
    params = load()
    assert first_method(samples, params, SETTINGS) == method
    promoting = SETTINGS.model_copy(update={"inconclusive": "promote"})
    assert first_method(samples, params, promoting) == "none"
    assert first_method(samples, params, SETTINGS.model_copy(update={"chain": ()})) == EXACT


def test_the_chain_ends_in_retraining() -> None:
    assert following("none", Decision.NEXT, SETTINGS) == "reinit"
    assert following("reinit", Decision.NEXT, SETTINGS) == EXACT
    assert following("none", Decision.EXACT, SETTINGS) == EXACT
    assert following("a method that was taken out of the settings", Decision.NEXT, SETTINGS) == EXACT
