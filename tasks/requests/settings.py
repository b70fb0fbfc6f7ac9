"""The section ``requests`` of ``params.yaml``."""

from __future__ import annotations

from collections.abc import Container, Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import available_timezones

from pydantic import Field, field_validator, model_validator

from tasks.core.params import Params, Section, load, validated
from tasks.core.plugins import choices


class Settings(Section):
    """Requests to forget: their ledger, the folder of their keys, and the rules they are treated by.

    ``ledger`` is SQLAlchemy's URL; a password belongs into EXPUNGE_LEDGER, which takes precedence, as
    EXPUNGE_KEYS does for ``keys``; null is a folder of the project's own, below
    ``~/.local/share/expunge/keys``. ``approval``: whether a person must approve; ``shared``: whether one must
    (``ask``) where a request for a person's samples takes some that show other people, too.
    ``near_features``: the smallest cosine between the features of two samples, by the model in production, at
    which they are told to be near copies (null: they are not compared). A request is due
    ``due_months`` after it was received, ``extension_months`` later if that was extended (GDPR Art.
    12(3): one and two), and at risk ``at_risk_days`` before. Days are those of ``timezone``; with
    ``working_days``, what would be due on a weekend or on a public holiday of the country or subdivision
    ``holidays`` (``DE``, ``DE-BE``; null: none) is due on the next working day; see
    :mod:`tasks.requests.deadlines`.

    A batch begins once ``batch_size`` samples wait, or a request is ``batch_hours`` old or at risk, and
    takes ``batch_limit`` samples at most (a larger request goes alone). ``chain``: the methods that are
    tried, in order; retraining, which is exact, follows as the last. ``inconclusive``: what follows
    where too few samples support no verdict: ``exact`` retrains at once, ``promote`` takes the result.
    ``val_acc_loss``: the largest loss of accuracy on val that the gate lets pass; ``val_acc_loss_total``: the
    same since the first model in production, over all batches. ``retries``: how often a
    failed request is tried again before it waits for a person. ``superseded``: what becomes of weights
    that knew erased samples; ``seal`` keeps them, for ``seal_reason``, until ``seal_until``.
    """

    ledger: Annotated[str, Field(min_length=1)] = "sqlite:///data/requests/ledger.db"
    keys: Annotated[str, Field(min_length=1)] | None = None
    approval: bool = False
    shared: Literal["ask", "erase"] = "ask"
    near_features: Annotated[float, Field(gt=0, le=1)] | None = None
    due_months: Annotated[int, Field(ge=1, le=12)] = 1
    extension_months: Annotated[int, Field(ge=1, le=12)] = 2
    at_risk_days: Annotated[int, Field(ge=0, le=365)] = 7
    timezone: str = "UTC"
    holidays: str | None = None
    working_days: bool = True
    batch_size: Annotated[int, Field(ge=1)] = 500
    batch_hours: Annotated[int, Field(ge=0, le=8760)] = 24
    batch_limit: Annotated[int, Field(ge=1)] = 5000
    chain: tuple[str, ...] = ("none", "reinit")
    inconclusive: Literal["exact", "promote"] = "exact"
    val_acc_loss: Annotated[float, Field(ge=0, lt=1)] = 0.02
    val_acc_loss_total: Annotated[float, Field(ge=0, lt=1)] = 0.05
    retries: Annotated[int, Field(ge=0, le=100)] = 2
    superseded: Literal["destroy", "seal"] = "destroy"
    seal_reason: str | None = None
    seal_until: str | None = None
    model: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^/:]+$")] = "expunge"

    @model_validator(mode="before")
    @classmethod
    def _as_python_has_them(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        chain, until = value.get("chain"), value.get("seal_until")
        return {
            **value,
            **({"chain": tuple(chain)} if isinstance(chain, list) else {}),
            **({"seal_until": until.isoformat()} if isinstance(until, date) else {}),
        }

    @field_validator("timezone")
    @classmethod
    def _zone_is_known(cls, value: str) -> str:
        if value != "UTC" and value not in available_timezones():
            raise ValueError(f"{value!r} is no time zone of IANA's; write one as Europe/Berlin or UTC")
        return value

    @field_validator("holidays")
    @classmethod
    def _holidays_are_known(cls, value: str | None) -> str | None:
        if value is not None:
            public_holidays(value)
        return value

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        known = choices("methods")
        unknown = [name for name in self.chain if name not in known]
        if unknown:
            raise ValueError(f"chain names {unknown[0]!r}; known: {', '.join(known)}")
        if len(set(self.chain)) != len(self.chain):
            raise ValueError(f"chain {list(self.chain)} names a method twice")
        sealed = self.superseded == "seal"
        if sealed != bool(self.seal_reason) or sealed != bool(self.seal_until):
            raise ValueError("superseded: seal, seal_reason and seal_until (a date) belong together")
        if self.seal_until is not None:
            try:
                date.fromisoformat(self.seal_until)
            except ValueError:
                raise ValueError(f"seal_until is {self.seal_until!r}; write a date as 2027-12-31") from None
        return self


def public_holidays(code: str) -> Container[date]:
    """Return the public holidays of a country or a subdivision, such as ``DE`` or ``DE-BE`` (ISO 3166).

    Raises
    ------
    ValueError
        If they are not known.
    """
    import holidays

    country, dash, subdivision = code.partition("-")
    parts = holidays.list_supported_countries().get(country)
    if parts is None or (dash and subdivision not in parts):
        right = (
            "write a country as DE" if parts is None else f"known in {country}: {', '.join(parts) or 'none'}"
        )
        raise ValueError(f"the public holidays of {code!r} are not known; {right}")
    return holidays.country_holidays(country, subdiv=subdivision or None)


def settings_of(params: Params) -> Settings:
    """Check the section ``requests``.

    Raises
    ------
    ExpungeError
        If it holds an unknown key or an impossible value.
    """
    return validated(Settings, params.requests, "params.yaml: requests.")


def load_settings(path: Path = Path("params.yaml")) -> Settings:
    """Read a params file and return its section ``requests``; errors as :func:`settings_of`."""
    return settings_of(load(path))
