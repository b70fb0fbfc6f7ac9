"""The gate: what follows from the audit of a batch, as a table."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from tasks.core.params import Params
from tasks.metrics.verdict import can_be_indistinguishable
from tasks.requests.events import EXACT
from tasks.requests.settings import Settings


class Decision(StrEnum):
    """What follows."""

    PROMOTE = "promote"
    NEXT = "next"
    EXACT = "exact"
    FAIL = "fail"


APPROXIMATE = {
    "indistinguishable": (Decision.PROMOTE, "the attack finds no difference beyond the margin"),
    "remembers": (Decision.NEXT, "part of the forget set can still be recognised"),
    "over-forgotten": (Decision.NEXT, "the forget set stands out"),
}
"""What follows from a verdict on an approximate method that is useful; for ``inconclusive`` see below."""

INCONCLUSIVE = {
    "exact": (Decision.EXACT, "no verdict is possible, and requests.inconclusive asks for the exact method"),
    "promote": (
        Decision.PROMOTE,
        "no verdict is possible, and requests.inconclusive promotes; it is audited again in its cohort",
    ),
}


@dataclass(frozen=True, slots=True)
class Losses:
    """What a result costs in accuracy on val.

    Attributes
    ----------
    value, low
        Accuracy before minus after, and the lower end of its interval; ``None`` where the model before has
        seen all of val, so that nothing can be compared.
    total
        Accuracy of the first model in production minus that of the result; ``None`` if it is not known.
    """

    value: float | None
    low: float | None = None
    total: float | None = None


def decide(method: str, verdict: str, losses: Losses, settings: Settings) -> tuple[Decision, str]:
    """Return what follows and why.

    An approximate method must keep the loss of accuracy within both limits: that of one batch, and that of
    all batches since the first model. After the exact one there is no other, and a request is not refused
    for the chance of one training: it fails only if the whole interval of the loss lies beyond the limit.
    Nor is it refused for what earlier batches have lost: a person hears of that (:func:`worn_out`).

    Parameters
    ----------
    method
        One of ``settings.chain``, or :data:`~tasks.requests.events.EXACT`.
    verdict
        Of ``data/audit/verdict.json``.
    losses
        Of accuracy on val.
    """
    if method == EXACT:  # its guarantee does not rest on the attack
        if losses.value is None:
            return Decision.PROMOTE, "retrained without the samples; the loss of accuracy cannot be measured"
        lowest = losses.value if losses.low is None else losses.low
        if lowest > settings.val_acc_loss:
            return Decision.FAIL, _fell(losses.value, settings.val_acc_loss)
        return Decision.PROMOTE, "retrained without the samples"
    if losses.value is not None and losses.value > settings.val_acc_loss:
        return Decision.NEXT, _fell(losses.value, settings.val_acc_loss)
    if losses.total is not None and losses.total > settings.val_acc_loss_total:
        return Decision.NEXT, f"since the first model, {_fell(losses.total, settings.val_acc_loss_total)}"
    if verdict == "inconclusive" or losses.value is None:
        return INCONCLUSIVE[settings.inconclusive]
    return APPROXIMATE[verdict]


def worn_out(losses: Losses, settings: Settings) -> str | None:
    """Return what a person must hear of a model that has lost too much since the first, or ``None``."""
    if losses.total is None or losses.total <= settings.val_acc_loss_total:
        return None
    return f"since the first model, {_fell(losses.total, settings.val_acc_loss_total)}"


def first_method(samples: int, params: Params, settings: Settings) -> str:
    """Return the method that is tried first.

    Where so few samples could not reach the verdict ``indistinguishable`` whatever the method does, the exact
    method follows in any case (``inconclusive: exact``), and is taken at once.
    """
    if not settings.chain:
        return EXACT
    reachable = can_be_indistinguishable(samples, params.mia.margin, params.mia.confidence)
    return settings.chain[0] if reachable or settings.inconclusive == "promote" else EXACT


def _fell(loss: float, limit: float) -> str:
    return f"accuracy on val fell by {loss:.3f}, more than {limit:g}"


def following(method: str, decision: Decision, settings: Settings) -> str:
    """Return the method that is tried after this one."""
    chain = [*settings.chain, EXACT]
    if decision is Decision.EXACT or method not in chain:
        return EXACT
    return chain[min(chain.index(method) + 1, len(chain) - 1)]
