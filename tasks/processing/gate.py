"""The gate: what follows from the audit of a batch, as a table."""

from __future__ import annotations

from enum import StrEnum

from tasks.requests.settings import Settings

EXACT = "retrain"
"""The last method of every chain: training anew on what is kept."""


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


def decide(
    method: str, verdict: str, val_acc_loss: float, lowest: float, settings: Settings
) -> tuple[Decision, str]:
    """Return what follows and why.

    An approximate method must keep the loss of accuracy within the limit. After the exact one there is no
    other, and a request is not refused for the chance of one training: it fails only if the whole interval of
    the loss lies beyond the limit.

    Parameters
    ----------
    method
        One of ``settings.chain``, or :data:`EXACT`.
    verdict
        Of ``data/audit/verdict.json``.
    val_acc_loss
        Accuracy on val before minus after.
    lowest
        Lower end of its interval.
    """
    useful = (lowest if method == EXACT else val_acc_loss) <= settings.val_acc_loss
    loss = f"accuracy on val fell by {val_acc_loss:.3f}, more than {settings.val_acc_loss:g}"
    if method == EXACT:
        # Its guarantee does not rest on the attack.
        return (Decision.PROMOTE, "retrained without the samples") if useful else (Decision.FAIL, loss)
    if not useful:
        return Decision.NEXT, loss
    if verdict == "inconclusive":
        return INCONCLUSIVE[settings.inconclusive]
    return APPROXIMATE[verdict]


def following(method: str, decision: Decision, settings: Settings) -> str:
    """Return the method that is tried after this one."""
    chain = [*settings.chain, EXACT]
    if decision is Decision.EXACT or method not in chain:
        return EXACT
    return chain[min(chain.index(method) + 1, len(chain) - 1)]
