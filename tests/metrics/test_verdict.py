from __future__ import annotations

import pytest

from tasks.metrics.intervals import Estimate
from tasks.metrics.verdict import FEWEST, Verdict, judge

REMEMBERING = Estimate(0.20, 0.15, 0.25)


def verdict(low: float, high: float, original: Estimate = REMEMBERING, samples: int = 500) -> Verdict:
    return judge(
        Estimate((low + high) / 2, low, high), original, margin=0.05, confidence=0.95, samples=samples
    )


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-0.03, 0.04, "indistinguishable"),
        (0.01, 0.04, "indistinguishable"),
        (-0.04, -0.01, "indistinguishable"),
        (0.01, 0.09, "remembers"),
        (0.07, 0.09, "remembers"),
        (-0.09, -0.01, "over-forgotten"),
        (-0.09, -0.07, "over-forgotten"),
        (-0.01, 0.09, "inconclusive"),
        (-0.09, 0.01, "inconclusive"),
        (-0.09, 0.09, "inconclusive"),
        (-0.05, 0.04, "inconclusive"),
        (0.0, 0.05, "inconclusive"),
    ],
)
def test_the_word_follows_from_the_interval(low: float, high: float, expected: str) -> None:
    assert verdict(low, high).verdict == expected


def test_a_measurable_difference_within_the_margin_is_said_to_be_measurable() -> None:
    assert "measurable" in verdict(0.01, 0.04).reason
    assert "measurable" in verdict(-0.04, -0.01).reason
    assert "measurable" not in verdict(-0.03, 0.04).reason


@pytest.mark.parametrize(
    "original", [Estimate(0.01, -0.02, 0.04), Estimate(0.03, 0.02, 0.04), Estimate(0.05, -0.02, 0.12)]
)
def test_an_attack_that_cannot_see_the_original_remember_certifies_nothing(original: Estimate) -> None:
    found = verdict(-0.01, 0.01, original)
    assert found.verdict == "inconclusive"
    assert "nothing to forget" in found.text


def test_a_weak_original_does_not_hide_a_result_that_remembers() -> None:
    assert verdict(0.02, 0.09, Estimate(0.01, -0.02, 0.04)).verdict == "remembers"


def test_a_handful_of_samples_supports_no_verdict() -> None:
    for low, high in ((-0.01, 0.01), (0.5, 0.9), (-0.9, -0.5)):
        found = verdict(low, high, samples=FEWEST - 1)
        assert found.verdict == "inconclusive"
        assert f"{FEWEST - 1} forget samples" in found.text
    assert verdict(0.5, 0.9, samples=FEWEST).verdict == "remembers"


def test_too_wide_an_interval_says_how_many_samples_would_do() -> None:
    # 400 samples reach ±0.10 around 0; ±0.05 takes four times as many.
    assert "about 1600 " in verdict(-0.10, 0.10, samples=400).reason
    assert "about" not in verdict(-0.01, 0.13).reason


def test_the_summary_states_both_differences_with_their_intervals() -> None:
    summary = verdict(-0.09, -0.01).text
    assert "−0.050 [−0.090, −0.010]" in summary
    assert "+0.200 [+0.150, +0.250]" in summary
    assert "95 %" in summary


@pytest.mark.parametrize(("low", "high"), [(-0.01, 0.01), (0.01, 0.09), (-0.09, -0.01), (-0.09, 0.09)])
def test_no_verdict_claims_a_proof(low: float, high: float) -> None:
    found = verdict(low, high)
    assert "proof" not in (found.text + found.reason).lower()
    assert "prove" not in (found.text + found.reason).lower()
