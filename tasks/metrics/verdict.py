"""The verdict: whether the result looks to an attacker like a model that never saw the forget set."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, sqrt
from typing import Literal

from scipy.stats import norm

from tasks.metrics.intervals import Estimate

Word = Literal["indistinguishable", "remembers", "over-forgotten", "inconclusive"]

FEWEST = 20
"""Forget samples below which no verdict is given: the intervals are tested down to so many."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A word, what was found in one or two sentences, and why that gives this word."""

    verdict: Word
    text: str
    reason: str


def place(difference: Estimate, margin: float) -> Word:
    """Where an AUC difference from the retrained model lies, by its interval alone.

    ``indistinguishable``: wholly within ± margin, an equivalence test; it stays so when the interval
    excludes zero, because a difference that is measurable but smaller than the margin counts as
    equal. ``remembers``, ``over-forgotten``: reaches beyond the margin and excludes zero.
    ``inconclusive``: reaches beyond the margin and holds zero.
    """
    if -margin < difference.low and difference.high < margin:
        return "indistinguishable"
    if difference.low > 0:
        return "remembers"
    if difference.high < 0:
        return "over-forgotten"
    return "inconclusive"


def can_be_indistinguishable(samples: int, margin: float, confidence: float) -> bool:
    """Whether so many samples, against as many others, can lead to ``indistinguishable``.

    The narrowest interval around an AUC of one half has the half-width of the Mann-Whitney statistic under
    its null hypothesis, z · √((n + m + 1) / 12 n m) (Mann & Whitney 1947; Hanley & McNeil 1982), with n =
    m here.

    Parameters
    ----------
    samples
        Forget samples.
    margin, confidence
        As for :func:`judge`.
    """
    if samples < FEWEST:
        return False
    half = norm.ppf((1 + confidence) / 2) * sqrt((2 * samples + 1) / (12 * samples**2))
    return bool(half < margin)


def judge(
    result: Estimate,
    original: Estimate,
    margin: float,
    confidence: float,
    samples: int,
    *,
    reference: str = "that on the retrained model",
) -> Verdict:
    """Judge the result against a reference, both ways, with the original as a control.

    An attack that does not tell even the original from the reference would call anything
    indistinguishable. So that word is only given where the original is told apart by the same rule.

    Parameters
    ----------
    result, original
        AUC minus the reference's AUC, on the same samples.
    margin
        Largest distance that counts as equal.
    confidence
        Of the intervals.
    samples
        Forget samples that were attacked.
    reference
        What the AUC is compared with, in words.
    """
    found = (
        f"The attack's AUC on the result differs from {reference} by {_range(result)}; "
        f"before unlearning it differed by {_range(original)} ({100 * confidence:g} % intervals)."
    )
    word, conclusion, reason = _conclude(result, original, margin, samples)
    return Verdict(word, f"{conclusion} {found}", reason)


def _conclude(result: Estimate, original: Estimate, margin: float, samples: int) -> tuple[Word, str, str]:
    limits = f"the margin of ±{margin:g}"
    if samples < FEWEST:
        return (
            "inconclusive",
            f"{samples} forget samples support no verdict.",
            f"Below {FEWEST} samples the intervals cannot be relied on; judge several requests together.",
        )
    word = place(result, margin)
    if word == "remembers":
        return (
            word,
            "Part of the forget set can still be recognised.",
            f"The interval lies above zero and reaches beyond {limits}.",
        )
    if word == "over-forgotten":
        return (
            word,
            "The forget set stands out: the result does worse on it than a model that never saw it.",
            f"The interval lies below zero and reaches beyond {limits}; that gives members away too.",
        )
    if word == "inconclusive":
        return word, "The interval is too wide to tell.", _too_wide(result, margin, samples)
    if place(original, margin) != "remembers":
        return (
            "inconclusive",
            "This attack saw nothing to forget in the first place.",
            f"The original's interval must lie above zero and reach beyond {limits} too, and does not.",
        )
    measurable = "" if result.low <= 0 <= result.high else " A difference is measurable, but it is smaller."
    return (
        word,
        "This attack does not tell the result from a model that never saw the forget set.",
        f"The interval lies within {limits}, and the original's does not.{measurable}",
    )


def _too_wide(result: Estimate, margin: float, samples: int) -> str:
    reason = (
        f"The interval holds zero and reaches beyond the margin of ±{margin:g} with {samples} forget samples."
    )
    room = margin - abs(result.value)
    if room <= 0:
        return reason
    needed = ceil(samples * ((result.high - result.low) / 2 / room) ** 2)
    return f"{reason} If the difference stayed the same, about {needed} would bring it within."


def _range(estimate: Estimate) -> str:
    value, low, high = (f"{end:+.3f}".replace("-", "−") for end in estimate)
    return f"{value} [{low}, {high}]"
