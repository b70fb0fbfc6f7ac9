from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format  # type: ignore[import-untyped]
from in_toto_attestation.v1 import statement_pb2  # type: ignore[import-untyped]
from in_toto_attestation.v1.statement import Statement as InTotoStatement  # type: ignore[import-untyped]
from jsonschema import Draft202012Validator
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]

from tasks.core.errors import ExpungeError
from tasks.requests import predicate_docs
from tasks.requests.certificate import CertificateFacts, build, payload, render, seal, write
from tasks.requests.excerpt import EventRecord, canonical
from tasks.requests.predicate import PREDICATE_TYPE
from tests.requests.certified import (
    AFTER,
    BEFORE,
    FACTS,
    FIGURES,
    KEY,
    NEW,
    OLD,
    PUBLIC,
    SAMPLES,
    WALK,
    chained,
    changed,
    part,
    paths,
)

PROJECT = Path(__file__).parents[2]


def said(facts: CertificateFacts = FACTS, events: list[EventRecord] | None = None) -> dict[str, Any]:
    value: dict[str, Any] = build(facts, events or chained()).as_json()["predicate"]
    return value


def test_it_says_what_the_ledger_tells() -> None:
    it = said()
    assert it["request"] == {
        "id": "r1", "requester": "crm:4711", "ground": "objection", "extended": True,
        "received_at": "2026-05-01T09:30:00.000000Z", "due_at": "2026-08-01T09:30:00.000000Z",
        "purged_at": it["ledger"]["events"][-1]["at"],
    }  # fmt: skip
    assert [entry["kind"] for entry in it["decisions"]] == ["held", "released", "extended", "approved"]
    assert it["decisions"][0] | {"at": ""} == {
        "kind": "held", "at": "", "by": "ada", "reason": "lawsuit 12", "due_at": None
    }  # fmt: skip
    assert (it["samples"]["count"], it["samples"]["digests"]) == (2, SAMPLES)
    assert set(it["samples"]["kinds"]) == {"id", "path", "pixels", "file"}
    assert it["samples"]["covered_by"] == [{"batch": "batch-6", "samples": ["1" * 64]}]
    assert [(each["number"], each["method"], each["decision"]) for each in it["attempts"]] == [
        (1, "salun", "next"), (2, "retrain", "promote"),
    ]  # fmt: skip
    assert it["model"]["before"] == {"version": "3", "weights": BEFORE}
    assert it["model"]["after"] == {"version": "4", "weights": AFTER}
    assert it["model"]["meaning"].startswith("Exact:")
    assert it["data"] == {"before": {"samples.csv": OLD}, "after": {"samples.csv": NEW}}
    assert it["code"]["environment"] == {"torch": "2.11.0", "threads": 2}
    assert [line["outcome"] for line in it["purge"]] == ["deleted", "kept-reported", "cannot-be-reached"]
    assert "no proof" in it["statement"]


def test_it_is_a_dsse_envelope_that_other_tools_read() -> None:
    document = seal(build(FACTS, chained()), KEY)
    assert list(document) == ["payload", "payloadType", "signatures"]
    envelope = Envelope.from_dict(json.loads(json.dumps(document)))
    assert set(envelope.verify([SSlibKey.from_crypto(KEY.public_key())], 1)) == {PUBLIC.key_id}
    # by the definition of DSSE, without the library that made it
    body, kind = base64.b64decode(document["payload"]), "application/vnd.in-toto+json"
    encoded = f"DSSEv1 {len(kind)} {kind} {len(body)} ".encode() + body
    KEY.public_key().verify(base64.b64decode(document["signatures"][0]["sig"]), encoded)
    statement = json_format.Parse(body, statement_pb2.Statement())
    InTotoStatement.copy_from_pb(statement).validate()
    assert statement.predicate_type == PREDICATE_TYPE
    assert {each.name: each.digest["sha256"] for each in statement.subject} == {
        "weights": AFTER,
        "file": "9" * 64,
    }
    assert statement.subject[0].uri == "models:/expunge/4"


def test_the_type_is_a_uri_in_normal_form_with_a_version() -> None:
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}#[a-z-]+-v\d+", PREDICATE_TYPE)


def test_the_published_schema_is_the_one_of_the_classes_and_accepts_what_is_made() -> None:
    published = (PROJECT / "docs/certificate.schema.json").read_text()
    again = "python -m tasks.requests.predicate_docs"
    assert published == json.dumps(predicate_docs.json_schema(), indent=2) + "\n", again
    schema = json.loads(published)
    Draft202012Validator.check_schema(schema)
    valid = Draft202012Validator(schema).is_valid
    value = build(FACTS, chained()).as_json()
    assert valid(value)
    for path in paths(value):
        entry = part(value, path)
        if not isinstance(entry, dict) or {"environment", "kinds", "body"} & set(path):
            continue
        assert not valid(changed(value, path, {**entry, "more": 1})), path
        for name in entry.keys() - OPTIONAL:
            less = {key: item for key, item in entry.items() if key != name}
            assert not valid(changed(value, path, less)), (path, name)


OPTIONAL = {"uri", "samples.csv", "id", "path", "pixels", "file", "audit/auc", "audit/count"}


def test_the_table_in_the_docs_is_the_one_of_the_classes() -> None:
    page = (PROJECT / "docs/certificate.md").read_text()
    table = f"{predicate_docs.BEGIN}{predicate_docs.table()}\n{predicate_docs.END}"
    assert table in page, "python -m tasks.requests.predicate_docs"
    assert "`attempts[].figures`" in table
    assert all(line.count("|") == 4 and "| |" not in line for line in table.splitlines()[1:-1])


def test_figures_of_fewer_than_20_samples_are_not_given_and_the_certificate_says_so() -> None:
    many, few = said()["attempts"]
    assert many["samples"] == 40
    assert many["figures"]["audit/auc"] == {"value": 0.75, "low": 0.5, "high": 1.0}
    assert many["figures"]["audit/count"] == {"value": 40.0, "low": None, "high": None}
    assert "not of this request alone" in many["note"]
    assert (few["samples"], few["figures"]) == (None, {})
    assert few["note"].startswith("Not given: ")
    assert not any(value in canonical(few) for value in ("0.75", "0.5", "1.0"))
    assert FIGURES["audit/auc"] == 0.75  # there was something to leave out


OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "members of the batch": ("batched", {"batch": "batch-7", "count": 2, "requests": ["r1", "other-person"]}),
    "scores": ("audited", {"batch": "batch-7", "placements": {"other-person": 0.9}}),
    "text of an error": ("failed", {"batch": "batch-7", "error": "no file other-person.png"}),
    "what a later version may add": ("promoted", {"batch": "batch-7", "news": "other-person"}),
    "an unknown kind": ("blessed", {"by": "other-person"}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_nothing_that_an_event_tells_of_others_gets_into_it(name: str) -> None:
    kind, body = OTHERS[name]
    walk = [*WALK[:-1], (kind, body), WALK[-1]]
    made = build(FACTS, chained(walk))
    event = made.predicate.ledger.events[-2]
    assert (event.kind, event.body) == (kind, None)
    assert event.hash == chained(walk)[-2].hash
    assert b"other-person" not in payload(made)
    assert "other-person" not in render(made, PUBLIC, "0" * 64)


@pytest.mark.parametrize(
    ("guarantee", "expected"),
    [
        ("exact", "Exact: the model was trained from scratch"),
        ("approximate", "Approximate: .* nothing is guaranteed"),
        ("covered", "As other batches gave it: .* this one did not change the model"),
    ],
)
def test_no_more_is_guaranteed_than_holds(guarantee: str, expected: str) -> None:
    assert re.match(expected, said(dataclasses.replace(FACTS, guarantee=guarantee))["model"]["meaning"])


def test_what_is_not_recorded_is_null_and_the_page_says_so() -> None:
    bare = CertificateFacts(request="r1", weights=AFTER, method="retrain", guarantee="exact")
    events = chained([("received", {}), ("validated", {}), ("purged", {})])
    it = said(bare, events)
    assert it["samples"]["count"] is it["purge"] is it["code"]["lock"] is None
    page = render(build(bare, events), PUBLIC, "0" * 64)
    assert page.count("not recorded") > 15
    assert "None" not in page


def test_it_is_of_one_request_whose_samples_are_purged() -> None:
    for early in (chained()[:-1], []):
        with pytest.raises(ExpungeError, match=r"^request r1: a certificate is made once"):
            build(FACTS, early)
    with pytest.raises(ValueError, match="not of request r1"):
        build(FACTS, chained(request="r2"))


CONTRADICTIONS: dict[str, dict[str, Any]] = {
    "request.requester": {"requester": "crm:1"},
    "request.ground": {"ground": None},
    "request.due_at": {"due_at": "2026-06-01T09:30:00.000000Z"},
    "samples.digests": {"samples": SAMPLES[:1]},
    "samples.already_erased_by": {"already_erased_by": []},
    "samples.content": {"content": [{"pixels": "0" * 64}]},
}


@pytest.mark.parametrize("part", CONTRADICTIONS)
def test_nothing_is_signed_that_the_events_contradict(part: str) -> None:
    with pytest.raises(ExpungeError, match=f"^request r1: the ledger contradicts itself: {part} is not what"):
        build(dataclasses.replace(FACTS, **CONTRADICTIONS[part]), chained())


def test_what_no_certificate_can_hold_is_refused_in_one_line() -> None:
    with pytest.raises(ExpungeError, match=r"^request r1: .*no certificate can hold: subject\.0\.[^\n]*$"):
        build(dataclasses.replace(FACTS, weights="?"), chained())


def test_made_again_it_is_the_same_file(tmp_path: Path) -> None:
    def content() -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    path = write(build(FACTS, chained()), KEY, tmp_path)
    before = content()
    assert path == tmp_path / "r1.json"
    assert before.keys() == {"r1.json", "r1.html"}
    later = chained([*WALK, ("closed", {"batch": "batch-7", "certificate": "0" * 64})])
    write(build(FACTS, later), KEY, tmp_path)
    assert content() == before


def test_the_payload_of_this_version_of_the_predicate_never_changes() -> None:
    """Whoever changes what is built of the same facts gives :data:`PREDICATE_TYPE` a new version."""
    assert PREDICATE_TYPE.endswith("-v1")
    assert hashlib.sha256(payload(build(FACTS, chained()))).hexdigest() == GOLDEN


GOLDEN = "ca60800c9c14369d5368c83ae4a1d24b4097d931e88f3ba13e5bf8e024584655"


def test_the_page_names_the_file_and_the_key_and_shows_what_counts(tmp_path: Path) -> None:
    path = write(build(FACTS, chained()), KEY, tmp_path)
    page = path.with_suffix(".html").read_text()
    for text in (
        hashlib.sha256(path.read_bytes()).hexdigest(), PUBLIC.hex, PUBLIC.key_id, BEFORE, AFTER, OLD, NEW,
        "lawsuit 12", "crm:4711", "cannot be reached", "expunge verify certificate r1.json --public-key",
        "0.75, interval 0.5 to 1", "2026-08-01 09:30 UTC (extended)", "It is no proof",
    ):  # fmt: skip
        assert text in page


def spoiled(value: Any) -> Any:
    """The same value with markup at the end of every text."""
    if isinstance(value, dict):
        return {key: spoiled(item) for key, item in value.items()}
    if isinstance(value, list):
        return [spoiled(item) for item in value]
    return f"{value}<script src='https://evil.example/'>&\"" if isinstance(value, str) else value


def test_the_page_escapes_every_text_and_loads_nothing() -> None:
    texts: dict[str, Any] = {"requester": "crm", "software": "v", "environment": {"torch": "2"}}
    walk = [("received", {**WALK[0][1], "requester": "crm"}), *WALK[1:]]
    free = {"requester", "reason", "by"}
    dirty_walk = [
        (kind, {key: spoiled(item) if key in free else item for key, item in body.items()})
        for kind, body in walk
    ]
    page = render(build(dataclasses.replace(FACTS, **texts), chained(walk)), PUBLIC, "0" * 64)
    dirty = dataclasses.replace(FACTS, **spoiled(texts) | {"environment": {spoiled("torch"): spoiled("2")}})
    text = render(build(dirty, chained(dirty_walk)), PUBLIC, "0" * 64)
    assert "evil.example" in text
    assert set(re.findall(r"<[^\s>]*", text)) == set(re.findall(r"<[^\s>]*", page))
    assert not re.search(r"https?:|url\(|@import|\b(src|href|action)\s*=|<(script|link|img|iframe)", page)
