from __future__ import annotations

import base64
import copy
import json
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]

from tasks.core.errors import ExpungeError
from tasks.requests.certificate import build, seal
from tasks.requests.excerpt import EventRecord, canonical
from tasks.requests.predicate import PAYLOAD_TYPE
from tasks.requests.signing import KeyPeriod
from tasks.requests.verification import LARGEST, Result, open_envelope, read, verify
from tests.requests.certified import (
    ANOTHER,
    FACTS,
    KEY,
    OTHER,
    PUBLIC,
    WALK,
    as_file,
    chained,
    changed,
    envelope,
    part,
    paths,
)

Document = dict[str, Any]

V1 = Path(__file__).parent / "certificates/v1.json"
"""A certificate that expunge 0.1 made, of a request that failed once; signed by ``KEY``."""

GENUINE = as_file(envelope())
HEAD = chained()[-1].seq


def failed(content: bytes, **options: Any) -> set[str]:
    report = verify(content, **{"pinned": [PUBLIC]} | options)
    assert report.ok == all(check.ok for check in report.checks) == (report.result is Result.VALID)
    assert all("\n" not in check.how and len(check.how) <= 240 for check in report.checks)
    return {check.what for check in report.checks if not check.ok}


def sealed(statement: Any, key: Any = KEY, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """The envelope of any payload, as whoever has the key makes it."""
    payload = statement if isinstance(statement, bytes) else canonical(statement).encode()
    made = Envelope(payload, payload_type, {})
    made.sign(CryptoSigner(key))
    return as_file(made.to_dict())


def statement() -> Document:
    return build(FACTS, chained()).as_json()


@pytest.mark.parametrize("content", [GENUINE, V1.read_bytes()], ids=["today's", "of before"])
def test_a_genuine_certificate_is_valid_with_the_key_that_is_published(content: bytes) -> None:
    assert failed(content) == set()
    assert failed(content, pinned=[ANOTHER, PUBLIC]) == set()


@pytest.mark.parametrize("content", [GENUINE, V1.read_bytes()], ids=["today's", "of before"])
def test_without_a_key_nothing_is_a_success(content: bytes) -> None:
    report = verify(content, pinned=[])
    assert (report.result, report.ok) == (Result.UNPINNED, False)
    assert any("get it from where the operator publishes it" in check.how for check in report.checks)
    assert failed(content, pinned=[]) <= {"signature", "signer"}


def test_a_damaged_certificate_is_invalid_even_without_a_key() -> None:
    value = changed(statement(), ("predicate", "samples", "count"), 3)
    assert verify(sealed(value), pinned=[]).result is Result.INVALID


def test_a_made_up_certificate_does_not_pass_as_the_operators() -> None:
    forged = as_file(seal(build(FACTS, chained()), OTHER))
    assert verify(forged, pinned=[ANOTHER]).ok
    assert failed(forged) == {"signature", "signer"}
    period = KeyPeriod(PUBLIC, 1)
    assert failed(forged, pinned=[period]) == {"signature", "signer"}
    # under the id of the operator's key
    named = changed(json.loads(forged), ("signatures", 0, "keyid"), PUBLIC.key_id)
    assert failed(as_file(named)) == {"signature", "signer"}


# every part of the envelope


def others(value: Any) -> list[Any]:
    """What may stand in the place of a value of JSON."""
    found: list[Any] = [None, 0, "", [], {}, True, 10**30, 1.5, "x", [value], {"value": value}]
    if isinstance(value, str) and value:
        middle = len(value) // 2
        letter = "A" if value[middle] != "A" else "B"
        found += [
            value[:-1],
            value + "=",
            value[:middle] + letter + value[middle + 1 :],
            value.swapcase(),
            value * 2,
        ]
    if isinstance(value, int | float) and not isinstance(value, bool):
        found += [value + 1, -value - 1, float(value) + 0.5]
    if isinstance(value, list) and value:
        found += [value[1:], value + value[:1], value[::-1]]
    if isinstance(value, dict):
        found += [{**value, "more": 1}, *({k: v for k, v in value.items() if k != key} for key in value)]
    same = canonical(value)
    return [other for other in found if canonical(other) != same]


def test_no_part_of_the_envelope_can_be_another() -> None:
    document = json.loads(GENUINE)
    count = 0
    for path in paths(document):
        for other in others(part(document, path)):
            assert failed(as_file(changed(document, path, other))), (path, other)
            count += 1
    assert count > 60


def test_no_part_of_the_statement_can_be_another_once_it_is_signed() -> None:
    document = json.loads(GENUINE)
    value = statement()
    for path in paths(value):
        for other in others(part(value, path))[::6]:
            payload = canonical(changed(value, path, other)).encode()
            document["payload"] = base64.b64encode(payload).decode()
            assert failed(as_file(document)) >= {"signature", "signer"}, (path, other)


UNTOLD = {"model", "data", "code", "purge", "attempts", "kinds", "statement"}
"""Parts of the predicate that no event of the request tells: who has the key answers for them."""


def test_what_events_tell_cannot_be_said_otherwise_even_by_who_has_the_key() -> None:
    value = statement()
    count = 0
    for path in paths(value):
        if UNTOLD & set(path) or path[:1] == ("subject",):
            continue
        for other in others(part(value, path))[path[-1:] == ("body",) :]:  # a content may be left out
            assert failed(sealed(changed(value, path, other))), (path, other)
            count += 1
    assert count > 500


def test_the_subject_is_the_model_after() -> None:
    value = changed(statement(), ("subject", 0, "digest", "sha256"), "f" * 64)
    assert failed(sealed(value)) == {"subject"}
    value = changed(statement(), ("predicate", "model", "after", "weights"), "f" * 64)
    assert failed(sealed(value)) == {"subject"}
    for wrong in (["file"], ["file", "weights"], ["weights", "weights"]):
        subjects = [{"name": name, "digest": {"sha256": FACTS.weights}} for name in wrong]
        assert "subject" in failed(sealed(statement() | {"subject": subjects}))


def event(number: int, **changes: Any) -> Callable[[Document], Document]:
    """Change an event and give it the hash of its new content, as a forger does."""

    def change(value: Document) -> Document:
        entry = value["predicate"]["ledger"]["events"][number]
        entry |= changes
        told = {name: entry[name] for name in ("seq", "at", "kind", "body", "previous", "hash")}
        entry["hash"] = EventRecord(request="r1", **told).digest()
        return value

    return change


def moved(change: Callable[[list[Document]], object]) -> Callable[[Document], Document]:
    def move(value: Document) -> Document:
        change(value["predicate"]["ledger"]["events"])
        return value

    return move


TAMPERS: dict[str, tuple[set[str], Callable[[Document], Document]]] = {
    "rewritten": ({"order", "summary"}, event(3, body={"by": "eve"})),
    "of another time": ({"order", "summary"}, event(4, at="2026-05-01T12:06:00.000001Z")),
    "swapped": ({"order", "summary"}, moved(lambda e: e.insert(3, e.pop(4)))),
    "twice": ({"order"}, moved(lambda e: e.insert(1, e[0]))),
    "removed": ({"summary"}, moved(lambda e: e.pop(5))),
    "the last removed": ({"summary"}, moved(lambda e: e.pop())),
    "another request's": ({"events"}, lambda value: changed(value, ("predicate", "request", "id"), "r2")),
    "content hidden and changed": (
        {"order"}, moved(lambda e: e[1].update(body=None, hash="0" * 64, previous="1" * 64)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TAMPERS)
def test_a_change_of_the_events_is_found_even_under_the_right_signature(name: str) -> None:
    expected, tamper = TAMPERS[name]
    assert failed(sealed(tamper(copy.deepcopy(statement())))) == expected


def test_payloads_and_signatures_of_two_certificates_cannot_be_swapped() -> None:
    walk = [*WALK[:2], ("approved", {"by": "bob"}), *WALK[4:]]
    first, second = json.loads(GENUINE), seal(build(FACTS, chained(walk)), KEY)
    assert failed(as_file(second)) == set()
    for key in ("payload", "signatures"):
        assert failed(as_file(first | {key: second[key]})) == {"signature", "signer"}
    both = first | {"signatures": [*first["signatures"], *second["signatures"]]}
    assert "envelope" in failed(as_file(both))


def test_the_same_payload_under_another_type_or_in_another_form_is_refused() -> None:
    assert "envelope" in failed(sealed(statement(), payload_type="application/json"))
    value = statement()
    spaced = json.dumps(value).encode()
    twice = canonical(value).replace('"_type":', '"_type":"x","_type":', 1).encode()
    late = canonical(value)[:-1].encode() + b',"predicateType":"x"}'
    numbers = canonical(value).replace('"value":0.75', '"value":7.5e-1', 1).encode()
    for payload in (spaced, twice, late, numbers, b"", b"null", b"[]", b"\xff", b"[" * 100_000, b"NaN"):
        assert "statement" in failed(sealed(payload)), payload[:40]
    for other in ("https://in-toto.io/Statement/v0.1", "https://in-toto.io/Statement/v1 "):
        assert "statement" in failed(sealed(value | {"_type": other}))
    assert "statement" in failed(sealed(value | {"predicateType": "urn:expunge:erasure:v1"}))


def test_base64_in_another_writing_is_refused() -> None:
    document = json.loads(GENUINE)
    for path in (("payload",), ("signatures", 0, "sig")):
        text = part(document, path)
        urlsafe = text.replace("+", "-").replace("/", "_")
        # the last letters before the padding hold bits that a lenient reader passes over
        loose = text + "=" if path == ("payload",) else text.replace("BA==", "BB==")
        for other in {text.rstrip("="), text + "\n", " " + text, urlsafe, loose} - {text}:
            assert "envelope" in failed(as_file(changed(document, path, other)))


DAMAGED = {
    "nothing": b"", "no JSON": b"{", "a list": b"[]", "a number": b"1", "null": b"null",
    "not UTF-8": b"\xff\xfe",
    "NaN": b'{"payload": NaN}', "a key twice": GENUINE.replace(b"{", b'{"payload": "",', 1),
    "deep": b"[" * 100_000 + b"]" * 100_000, "deep in a key": b'{"payload":' * 100_000, "digits": b"1" * 5000,
    "cut short": GENUINE[:-10],
    "lone surrogate": b'{"payload": "\\ud800", "payloadType": "", "signatures": []}',
    "BOM": b"\xef\xbb\xbf" + GENUINE, "huge": b" " * (LARGEST + 1),
    "empty object": b"{}", "both": b'{"certificate": 1, "payload": "", "payloadType": "", "signatures": []}',
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("pinned", [[], [PUBLIC]], ids=["unpinned", "pinned"])
def test_a_damaged_file_is_invalid_and_never_an_exception(name: str, pinned: Any) -> None:
    report = verify(DAMAGED[name], pinned=pinned)
    assert report.result is Result.INVALID
    assert all("\n" not in check.how and len(check.how) <= 240 for check in report.checks)


def test_what_nests_deeply_where_anything_may_stand_is_no_exception() -> None:
    deep: Any = []
    for _ in range(900):
        deep = [deep]
    text = canonical(statement()).replace('"channel":"cli"', f'"channel":{"[" * 900 + "]" * 900}', 1)
    assert failed(sealed(text.encode()))
    assert failed(sealed(text.replace("[" * 900 + "]" * 900, "[" * 90_000).encode()))


def test_a_text_of_the_certificate_cannot_write_on_the_terminal() -> None:
    value = statement() | {"\x1b[2J\nvalid": 1}
    checks = verify(sealed(value), pinned=[PUBLIC]).checks
    assert not any("\x1b" in check.how or "\n" in check.how for check in checks)


# keys that were replaced


@pytest.mark.parametrize("content", [GENUINE, V1.read_bytes()], ids=["today's", "of before"])
def test_a_key_counts_until_it_was_replaced(
    content: bytes,
) -> None:
    after = KeyPeriod(ANOTHER, 1000)
    assert failed(content, pinned=[KeyPeriod(PUBLIC, 3, 1000), after]) == set()
    assert failed(content, pinned=[KeyPeriod(PUBLIC, 1, 3), KeyPeriod(ANOTHER, 3)]) == {"signer"}
    # made again by the key that was recorded after it: fine
    assert failed(content, pinned=[KeyPeriod(ANOTHER, 1, 900), KeyPeriod(PUBLIC, 900)]) == set()


@pytest.mark.parametrize("content", [GENUINE, V1.read_bytes()], ids=["today's", "of before"])
def test_nothing_that_a_compromised_key_signed_is_trusted(content: bytes) -> None:
    stolen = KeyPeriod(PUBLIC, 3, 1000, compromised=True)
    report = verify(content, pinned=[stolen, KeyPeriod(ANOTHER, 1000)])
    (wrong,) = [check for check in report.checks if not check.ok]
    assert (wrong.what, report.result) == ("signer", Result.INVALID)
    assert "somebody else may have it" in wrong.how
    assert "expunge certificate" in wrong.how


# anchors


def test_anchors_are_compared_with_the_events_and_the_gaps_between_them() -> None:
    events = chained()
    gap = next(after for before, after in pairwise(events) if after.seq > before.seq + 1)

    def anchor(seq: int, digest: str) -> EventRecord:
        return EventRecord(seq, "", "", None, None, "", digest)

    assert failed(GENUINE, anchors=[*events, anchor(gap.seq - 1, gap.previous)]) == set()
    for wrong in (anchor(events[4].seq, "0" * 64), anchor(gap.seq - 1, "0" * 64), anchor(0, "1" * 64)):
        assert failed(GENUINE, anchors=[*events, wrong]) == {"anchors"}
    report = verify(GENUINE, pinned=[PUBLIC], anchors=[anchor(999, "0" * 64)])
    assert "none of 1 anchor(s) is of an event that the certificate holds" in report.checks[-1].how


# certificates of before


def test_no_part_of_a_certificate_of_before_can_be_another() -> None:
    document = json.loads(V1.read_text())
    for path in paths(document):
        for other in others(part(document, path))[::8]:
            content = as_file(changed(document, path, other))
            assert failed(content), (path, other)


def test_a_certificate_of_before_says_what_its_events_say_or_is_invalid_under_any_signature() -> None:
    document = json.loads(V1.read_text())
    changes: dict[str, tuple[tuple[Any, ...], Any]] = {
        "summary": (("audit", "figures", "audit/auc", "value"), 0.51),
        "events": (("ledger", "events", 2, "body"), {"by": "eve"}),
        "states": (("ledger", "events", 1, "kind"), "approved"),
        "order": (("ledger", "events", 3, "seq"), 99),
        "schema": (("certificate", "schema"), "expunge/certificate/2"),
    }
    for what, (path, value) in changes.items():
        content = changed(document, path, value)
        del content["signature"]
        signature = KEY.sign(canonical(content).encode()).hex()
        content["signature"] = {"algorithm": "Ed25519", "public_key": PUBLIC.hex, "value": signature}
        found = failed(as_file(content))
        assert what in found
        assert not {"signature", "signer"} & found


# files, and what a stranger needs


def test_a_file_that_cannot_be_read_is_refused_in_one_line(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path, tmp_path / "a\0b"):
        with pytest.raises(ExpungeError, match="that can be read; name the certificate's JSON"):
            read(path)
    large = tmp_path / "large.json"
    with large.open("wb") as file:
        file.truncate(LARGEST + 1)
    with pytest.raises(ExpungeError, match="larger than 64 MiB"):
        read(large)
    good = tmp_path / "good.json"
    good.write_bytes(GENUINE)
    assert open_envelope(read(good)).predicate.request.id == "r1"


def test_a_strangers_check_imports_no_database_no_model_and_no_data() -> None:
    told = subprocess.run(
        [sys.executable, "-c", "import sys, tasks.requests.verification; print(*sys.modules)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    roots = {name.partition(".")[0] for name in told.stdout.split()}
    assert "securesystemslib" in roots
    assert not roots & {
        "sqlalchemy",
        "torch",
        "mlflow",
        "dvc",
        "prefect",
        "numpy",
        "pandas",
        "jinja2",
        "boto3",
    }
