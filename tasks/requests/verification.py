"""A stranger's check of a certificate: needs its file and the operator's public key, and nothing else.

Anyone can sign a made-up certificate with a key of their own. So a certificate is good only if it was signed
by a key that is given, from where the operator publishes it or, in a checkout of the operator's, from the
ledger. Without one the result is :attr:`Result.UNPINNED`, which is no success.

This imports no database, no model and no data.
"""

from __future__ import annotations

import copy
import functools
import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError

from tasks.core.errors import ExpungeError
from tasks.requests import certificate_v1
from tasks.requests.agreement import check_subject, check_summary
from tasks.requests.excerpt import Anchored, EventRecord, canonical, check_anchors, check_hashes, check_order
from tasks.requests.predicate import PAYLOAD_TYPE, Erasure, Statement
from tasks.requests.signing import KeyPeriod, PublicKey

LARGEST = 64 * 2**20
"""Bytes of a certificate that is read."""

NO_KEY = "no public key was given to compare with; get it from where the operator publishes it"


class Result(StrEnum):
    """What comes of all checks."""

    VALID = "valid"
    UNPINNED = "unpinned"
    """Nothing is wrong with it, but nobody is known to vouch for it."""
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was checked.

    Attributes
    ----------
    what
        Name of the check.
    ok
        Whether it holds.
    how
        What was found, in one line.
    """

    what: str
    ok: bool
    how: str


@dataclass(frozen=True, slots=True)
class Report:
    """What a verification found.

    Attributes
    ----------
    result
        What comes of all checks; only :attr:`Result.VALID` is a success.
    checks
        All of them.
    """

    result: Result
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether the certificate is good."""
        return self.result is Result.VALID


class UnpinnedError(ExpungeError):
    """Nothing is wrong, but there is no key to compare with."""


def read(path: Path) -> bytes:
    """Read a certificate's file.

    Raises
    ------
    ExpungeError
        If there is no such file, it cannot be read, or it is larger than :data:`LARGEST`.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except (OSError, ValueError):
        raise ExpungeError(f"there is no file {path} that can be read; name the certificate's JSON") from None
    if len(content) > LARGEST:
        raise ExpungeError(
            f"{path} is larger than {LARGEST // 2**20} MiB, so it is no certificate; "
            "get it again from where it was issued"
        )
    return content


def verify(
    content: bytes, *, pinned: Collection[PublicKey | KeyPeriod], anchors: Collection[Anchored] = ()
) -> Report:
    """Check a certificate by itself: no ledger, no repository.

    Parameters
    ----------
    content
        Its file, whatever is in it: this does not raise.
    pinned
        The keys that may have signed it. A plain key may have signed at any time; one with a period may not
        have signed what is of the time after it was replaced, and nothing at all if it was compromised.
    anchors
        Numbers and hashes of events that were written down elsewhere, or of all events of the ledger.

    Returns
    -------
    Report
        With all checks, good or bad.
    """
    checks: list[Check] = []
    results: set[Result] = set()
    try:
        claims = _claims(_parsed(content), tuple(pinned), anchors)
    except ExpungeError as error:
        return Report(Result.INVALID, (Check("file", False, _line(str(error))),))
    for what, claim in claims.items():
        try:
            checks.append(Check(what, True, _line(claim())))
        except UnpinnedError as error:
            results.add(Result.UNPINNED)
            checks.append(Check(what, False, str(error)))
        except ExpungeError as error:
            results.add(Result.INVALID)
            checks.append(Check(what, False, _line(str(error))))
        except Exception as error:  # a damaged file can go wrong in any way, and each means: not verified
            results.add(Result.INVALID)
            checks.append(Check(what, False, f"the certificate is damaged here ({type(error).__name__})"))
    result = next((bad for bad in (Result.INVALID, Result.UNPINNED) if bad in results), Result.VALID)
    return Report(result, tuple(checks))


def open_envelope(content: bytes) -> Statement:
    """Return what a certificate says, without any check of who says so.

    Raises
    ------
    ExpungeError
        If the file is no certificate of today's form.
    """
    return _statement(_envelope(_parsed(content)).payload)


def _claims(
    document: Any, pinned: tuple[PublicKey | KeyPeriod, ...], anchors: Collection[Anchored]
) -> dict[str, Callable[[], str]]:
    """Return what is to be checked: each function says what it found, and raises what is wrong."""
    if certificate_v1.is_of_this_kind(document):
        claims = certificate_v1.claims(document)

        def events() -> list[EventRecord]:
            return certificate_v1.events(document)

        claims["signer"] = lambda: _check_signer(certificate_v1.signer(document), pinned, events()[-1].seq)
    else:

        @functools.cache
        def statement() -> Statement:
            return _statement(_envelope(document).payload)

        def events() -> list[EventRecord]:
            return statement().predicate.events()

        claims = {
            "envelope": lambda: _check_envelope(document),
            "signature": lambda: f"made by {_signer(document, pinned)}",
            "signer": lambda: _check_signer(_signer(document, pinned), pinned, events()[-1].seq),
            "statement": lambda: _check_statement(statement()),
            "subject": lambda: check_subject(statement()),
            "events": lambda: check_hashes(events()),
            "order": lambda: check_order(events()),
            "summary": lambda: check_summary(statement().predicate),
        }
        if anchors:
            claims["anchors"] = lambda: _check_anchors(statement().predicate, anchors)
        return claims
    if anchors:
        claims["anchors"] = lambda: check_anchors(events(), anchors)
    return claims


def _check_anchors(erasure: Erasure, anchors: Collection[Anchored]) -> str:
    """Check the request's events, and the adoption of weights that were not trained here."""
    adopted = erasure.model.origin.event if erasure.model.origin else None
    if adopted and any(each.seq == adopted.seq and each.hash != adopted.hash for each in anchors):
        raise ExpungeError(f"event {adopted.seq}, an adoption of weights, is not the one that was anchored")
    return check_anchors(erasure.events(), anchors)


def _parsed(content: bytes) -> dict[str, Any]:
    if len(content) > LARGEST:
        raise ExpungeError(f"it is larger than {LARGEST // 2**20} MiB")
    try:
        document = _json(content)
    except (ValueError, RecursionError) as error:
        raise ExpungeError(f"it is no JSON: {error}") from None
    if not isinstance(document, dict):
        raise ExpungeError("it holds no JSON object")
    return document


def _json(content: bytes) -> Any:
    return json.loads(content.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_unique)


def _envelope(document: Mapping[str, Any]) -> Envelope:
    """Return the envelope, which must be written as we write it: nothing may stand there that nobody signed.

    DSSE lets readers pass over what they do not know. A certificate is read by persons too.
    """
    try:
        envelope = Envelope.from_dict(copy.deepcopy(dict(document)))
        same = canonical(envelope.to_dict()) == canonical(document)
    except Exception:
        raise ExpungeError(
            "it is no DSSE envelope: payload, payloadType, signatures with keyid, sig"
        ) from None
    if not same:
        raise ExpungeError("the envelope is not written as it was issued")
    if envelope.payload_type != PAYLOAD_TYPE:
        raise ExpungeError(f"the envelope holds no {PAYLOAD_TYPE}")
    if len(envelope.signatures) != 1:
        raise ExpungeError("the envelope has not exactly one signature")
    if any(signature.unrecognized_fields for signature in envelope.signatures.values()):
        raise ExpungeError("the signature has fields beside keyid and sig")
    return envelope


def _check_envelope(document: Mapping[str, Any]) -> str:
    _envelope(document)
    return f"DSSE, {PAYLOAD_TYPE}, one signature"


def _signer(document: Mapping[str, Any], pinned: tuple[PublicKey | KeyPeriod, ...]) -> str:
    """Return the public key, of those given, whose signature it is."""
    envelope = _envelope(document)
    if not pinned:
        raise UnpinnedError(NO_KEY)
    named = next(iter(envelope.signatures))
    for key in pinned:
        public = _key(key)
        if public.key_id != named:  # the id is but a hint; what counts is the signature
            continue
        try:
            envelope.verify([public.sslib], 1)
        except (VerificationError, ValueError):
            raise ExpungeError("the content is not the one that was signed") from None
        return public.hex
    raise ExpungeError(f"signed by a key with the id {named[:64]}, which is none of those given")


def _key(pin: PublicKey | KeyPeriod) -> PublicKey:
    return pin.key if isinstance(pin, KeyPeriod) else pin


def _check_signer(signer: str, pinned: tuple[PublicKey | KeyPeriod, ...], head: int) -> str:
    """Check that the key that signed was one that could, at that point of the ledger."""
    if not pinned:
        raise UnpinnedError(NO_KEY)
    known = [pin for pin in pinned if _key(pin).hex == signer]
    if not known:
        raise ExpungeError(f"signed by {signer}, which is none of the given keys")
    again = "ask the operator to make it again: expunge certificate <request>"
    why = ""
    for pin in known:
        if not isinstance(pin, KeyPeriod):
            return "signed by the given key"
        if pin.compromised:
            why = f"signed by {signer}, which was given up because somebody else may have it; {again}"
        elif pin.to_seq is not None and head >= pin.to_seq:
            why = (
                f"signed by {signer}, which was replaced by event {pin.to_seq}, before what it tells; {again}"
            )
        else:
            return f"signed by the key that the ledger records from event {pin.from_seq} on"
    raise ExpungeError(why)


def _statement(payload: bytes) -> Statement:
    """Return the statement; it must be written in the one form that is signed."""
    try:
        statement = Statement.model_validate_json(payload)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "all of it"
        raise ExpungeError(
            f"the statement is none that this program knows: {where}: {first['msg']}"
        ) from None
    text = payload.decode()
    if canonical(statement.as_json()) != text or canonical(_json(payload)) != text:
        raise ExpungeError("the statement is not in canonical form")
    return statement


def _check_statement(statement: Statement) -> str:
    return f"in-toto Statement v1, {statement.predicate_type}"


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"key {twice!r} is there more than once")
    return value


def _line(text: str) -> str:
    """Return a text that is one line, and not long, whatever the certificate holds."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:240])
