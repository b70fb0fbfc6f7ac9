from __future__ import annotations

import copy
import functools
import hashlib
import json
import math
import multiprocessing
import operator
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from jsonschema import Draft202012Validator

from tasks.core.errors import ExpungeError
from tasks.requests.certificate import build, check, read, render, sign, signing_key, write
from tasks.requests.keys import KeyStore
from tasks.requests.ledger import Event, Head, Ledger, canonical
from tests.requests.conftest import Clock

Document = dict[str, Any]
Tamper = Callable[[Document, list[Document]], object]

PROJECT = Path(__file__).parents[2]
SPAWN = multiprocessing.get_context("spawn")
KEY, OTHER = (Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32) for seed in (1, 2))
PUBLIC, ANOTHER = (key.public_key().public_bytes_raw().hex() for key in (KEY, OTHER))
GIVEN: Document = {"environment": {"torch": "2.11.0"}, "digests": {"requirements.lock": "5" * 64}}
BEFORE, AFTER, OLD, NEW = (hashlib.sha256(text.encode()).hexdigest() for text in ("w0", "w1", "s0", "s1"))


def audited(method: str, verdict: str, decision: str, auc: float) -> Document:
    ends = {"audit/auc/low": auc - 0.25, "audit/auc/high": auc + 0.25}
    return {
        "batch": "b7", "method": method, "verdict": verdict, "text": f"The AUC is {auc}.", "reason": "Thus.",
        "decision": decision, "why": "the gate's words", "weights": {"result": AFTER}, "pipeline": "p-1",
        "figures": {"audit/auc": auc, **ends, "audit/count": 128.0}, "params": {"mia": {"seed": 1}},
        "runs": {"unlearn": "run-1"}, "manifest": {"samples.csv": OLD}, "environment": {"cuda": "none"},
    }  # fmt: skip


START = {"batch": "b7", "base": {"version": "3", "weights": BEFORE}, "commit": "a"}
CHECKLIST = [
    {"store": "dvc cache", "item": "images.npy", "result": "deleted", "how": "dvc gc"},
    {"store": "backup", "item": "weekly", "result": "retained until 2026-08-01", "how": "rotation"},
]
WALK: list[tuple[str, Document]] = [
    ("received", {"channel": "cli", "requester": "crm:4711", "ground": "objection",
                  "received_at": "2026-05-01T09:30:00.000000Z", "due_at": "2026-06-01T09:30:00.000000Z"}),
    ("validated", {"samples": [{"id": "1" * 64}, {"id": "3" * 64}], "already_erased_by": ["r0"]}),
    ("held", {"by": "ada", "reason": "lawsuit 12"}),
    ("released", {"by": "ada", "reason": "settled"}),
    ("extended", {"by": "ada", "reason": "many requests", "due_at": "2026-08-01T09:30:00.000000Z"}),
    ("approved", {"by": "bob"}),
    ("covered", {"batch": "b6", "samples": ["1" * 64]}),
    ("batched", {"batch": "b7", "count": 3, "requests": ["r1", "r2"]}),
    ("started", {"method": "salun", "attempt": 1} | START),
    ("audited", audited("salun", "remembers", "next", 0.75)),
    ("started", {"method": "retrain", "attempt": 2} | START),
    ("audited", audited("retrain", "indistinguishable", "promote", 0.5)),
    ("promoted", {"batch": "b7", "method": "retrain", "guarantee": "exact", "version": "4", "weights": AFTER,
                  "commit": "b", "lock": "6" * 64, "content": [{"pixels": "7" * 64, "file": "8" * 64}]}),
    ("purged", {"batch": "b7", "checklist": CHECKLIST, "manifest": {"samples.csv": NEW}, "commit": "c"}),
]  # fmt: skip


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> list[Event]:
    """Request r1's events, with another request's after every third, so that there are gaps."""
    clock = Clock()
    ledger = Ledger(f"sqlite:///{tmp_path_factory.mktemp('ledger')}/ledger.db", clock)
    for number, (kind, body) in enumerate(WALK):
        clock.forward(hours=1)
        with ledger.writing() as writer:
            writer.append(kind, "r1", **body)
            if number % 3 == 2:
                writer.append("received", f"other{number}")
    return ledger.events("r1")


@pytest.fixture
def document(events: list[Event]) -> Any:
    return json.loads(json.dumps(sign(build("r1", events, **GIVEN), KEY)))  # its parts share nothing


def failed(document: Any, **options: Any) -> set[str]:
    return {found.what for found in check(document, **options) if not found.ok}


def test_the_summary_says_what_the_events_say(document: Document) -> None:
    parts = (
        "certificate request samples attempts model audit data code purge ledger digests statement signature"
    )
    assert " ".join(document) == parts
    request, model, (first, second) = document["request"], document["model"], document["attempts"]
    assert (request["due_at"], request["extended"]) == ("2026-08-01T09:30:00.000000Z", True)
    assert [entry["kind"] for entry in request["decisions"]] == ["held", "released", "extended", "approved"]
    assert request["decisions"][0]["reason"] == "lawsuit 12"
    assert document["samples"]["count"] == 2
    assert document["samples"]["covered_by"] == [{"batch": "b6", "samples": ["1" * 64]}]
    assert (first["method"], first["verdict"], first["decision"]) == ("salun", "remembers", "next")
    assert first["figures"]["audit/auc"] == {"value": 0.75, "low": 0.5, "high": 1.0}
    assert second["figures"]["audit/count"] == {"value": 128.0, "low": None, "high": None}
    assert document["audit"]["figures"] == second["figures"]
    assert document["audit"]["verdict"] == "indistinguishable"
    assert model["before"] == {"version": "3", "weights": BEFORE}
    assert model["after"] == {"version": "4", "weights": AFTER}
    assert model["guarantee"].startswith("Exact:")
    assert [document["data"][when] for when in ("before", "after")] == [
        {"samples.csv": OLD},
        {"samples.csv": NEW},
    ]
    assert document["code"]["commits"] == {"started": "a", "promoted": "b", "purged": "c"}
    assert document["code"]["environment"] == GIVEN["environment"]
    assert document["purge"] == CHECKLIST
    assert "no proof" in document["statement"]


def test_a_certificate_is_what_the_published_schema_says(document: Document) -> None:
    schema = json.loads((PROJECT / "docs/certificate.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    valid = Draft202012Validator(schema).is_valid
    assert valid(document)
    assert not valid(document | {"more": 1})
    for part in document:
        assert not valid({name: value for name, value in document.items() if name != part})
        assert not valid(document | {part: 7})


@pytest.mark.parametrize(
    ("guarantee", "method", "expected"),
    [
        ("exact", "retrain", r"Exact: the model was trained from scratch"),
        ("approximate", "salun", r"Approximate: the method salun .* nothing is guaranteed\.$"),
        ("covered", "nothing left", r"As other batches gave it: .* this one did not change the model"),
    ],
)
def test_no_more_is_guaranteed_than_holds(
    events: list[Event], guarantee: str, method: str, expected: str
) -> None:
    promoted = Event(**events[-2].as_json() | {"body": {"guarantee": guarantee, "method": method}})
    made = build("r1", [*events[:-2], promoted, events[-1]], **GIVEN)
    assert re.match(expected, made["model"]["guarantee"])


def test_an_attempt_without_an_audit_has_no_figures(events: list[Event]) -> None:
    made = build("r1", [event for event in events if event.body.get("verdict") != "remembers"], **GIVEN)
    found = [(entry["method"], entry["verdict"], len(entry["figures"])) for entry in made["attempts"]]
    assert found == [("salun", None, 0), ("retrain", "indistinguishable", 2)]


def test_what_is_not_recorded_does_not_crash(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/bare.db", Clock())
    with ledger.writing() as writer:
        for kind in ("received", "validated", "batched", "started", "audited", "promoted", "purged"):
            writer.append(kind, "r1")
    bare = sign(build("r1", ledger.events("r1"), environment={}, digests={}), KEY)
    assert failed(bare) == set()
    assert render(bare).count("not recorded") > 20


def test_a_certificate_is_of_one_request_whose_samples_are_purged(events: list[Event]) -> None:
    for early in (events[:-1], []):
        with pytest.raises(ExpungeError, match=r"^request r1: a certificate is made once"):
            build("r1", early, **GIVEN)
    with pytest.raises(ValueError, match="not of request r2"):
        build("r2", events, **GIVEN)


def test_events_after_the_purge_change_nothing_and_cannot_be_slipped_in(events: list[Event]) -> None:
    later = Event(99, "2026-06-01", "failed", "r1", {"error": "disk full"}, "0" * 64).sealed()
    made = build("r1", [*events, later], **GIVEN)
    assert made == build("r1", events, **GIVEN)
    made["ledger"]["events"].append(later.as_json())
    assert failed(sign(made, KEY)) == {"summary"}


def test_a_genuine_certificate_passes_after_a_way_through_a_file(document: Document, tmp_path: Path) -> None:
    anchors = [Head(entry["seq"], entry["hash"]) for entry in document["ledger"]["events"]]
    again = read(write(document, tmp_path / "certificates"))
    assert canonical(again) == canonical(document)
    assert failed(again, public_key=f" {PUBLIC.upper()}\n", anchors=anchors) == set()
    assert any(found.what == "signer" and f"{PUBLIC}; compare" in found.how for found in check(again))


def test_the_signature_is_ed25519_over_the_documented_text(document: Document) -> None:
    signature = document.pop("signature")
    text = json.dumps(document, sort_keys=True, separators=(",", ":")).encode("ascii")
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(signature["public_key"]))
    key.verify(bytes.fromhex(signature["value"]), text)
    assert sign(document | {"signature": "old"}, KEY)["signature"] == signature


def resealed(entry: Document, **changes: Any) -> Document:
    """A changed event with the hash of its new content, as a forger makes it."""
    return Event(**entry | changes).sealed().as_json()


ZEROS = "0" * 64
TAMPERS: dict[str, tuple[str, Tamper]] = {  # what finds it, and how the document and its events are changed
    "schema": ("schema", lambda d, e: d["certificate"].update(schema="expunge/certificate/2")),
    "figure": ("summary", lambda d, e: d["audit"]["figures"]["audit/auc"].update(value=0.51)),
    "type": ("summary", lambda d, e: d["audit"]["figures"]["audit/count"].update(value=128)),
    "attempt": ("summary", lambda d, e: d["attempts"][0].update(decision="promote")),
    "guarantee": ("summary", lambda d, e: d["model"].update(guarantee="Perfect.")),
    "purge": ("summary", lambda d, e: d["purge"][1].update(result="deleted")),
    "statement": ("summary", lambda d, e: d.update(statement="It is proof.")),
    "part added": ("summary", lambda d, e: d.update(seal="gold")),
    "part removed": ("summary", lambda d, e: d.pop("data")),
    "head": ("summary", lambda d, e: d["ledger"].update(last=f"1:{ZEROS}")),
    "body": ("events", lambda d, e: e[9]["body"]["figures"].update({"audit/auc": 0.5})),
    "time": ("events", lambda d, e: e[0].update(at="2026-05-01T13:00:00.000001Z")),
    "hash": ("events", lambda d, e: e[2].update(hash=ZEROS)),
    "removed": ("summary", lambda d, e: e.pop(5)),
    "needed one removed": ("states", lambda d, e: e.pop(1)),
    "swapped": ("order", lambda d, e: e.insert(3, e.pop(4))),
    "twice": ("order", lambda d, e: e.insert(1, e[0])),
    "rewritten": ("order", lambda d, e: e.insert(3, resealed(e.pop(3), body={"by": "eve"}))),
    "first replaced": ("order", lambda d, e: e.insert(0, resealed(e.pop(0) and e.pop(0), seq=1))),
    "another request's": ("summary", lambda d, e: e.insert(3, resealed(e.pop(3), request="r9"))),
    "unknown kind": ("states", lambda d, e: e.insert(3, resealed(e.pop(3), kind="blessed"))),
}


@pytest.mark.parametrize("resigned", [False, True])
@pytest.mark.parametrize("name", TAMPERS)
def test_a_change_is_found_even_under_a_new_signature(document: Document, name: str, resigned: bool) -> None:
    expected, tamper = TAMPERS[name]
    tamper(document, document["ledger"]["events"])
    found = failed(sign(document, OTHER) if resigned else document, public_key=PUBLIC)
    assert found >= {expected, "signer"}
    assert ("signature" in found) is not resigned


def test_a_signature_counts_for_its_document_and_key_alone(document: Document, events: list[Event]) -> None:
    assert failed(sign(document, OTHER), public_key=PUBLIC) == {"signer"}
    other = sign(build("r1", events, environment={}, digests={}), KEY)["signature"]
    forged = ({"public_key": ANOTHER}, {"public_key": PUBLIC.upper()}, {"algorithm": "none"}, {"more": 1})
    for change in (other, *forged, {"value": ""}):
        signature = document["signature"] | change
        assert failed(document | {"signature": signature}) == {"signature", "signer"}
    parts: list[Document] = [
        {"signature": None},
        {"digests": {}},
        {"code": document["code"] | {"environment": {}}},
    ]
    for part in parts:
        assert failed(document | part) == {"signature", "signer"}


def test_anchors(document: Document, events: list[Event]) -> None:
    gap = next(after for before, after in pairwise(events) if after.seq > before.seq + 1)
    assert failed(document, anchors=[Head(gap.seq - 1, gap.previous), Head()]) == set()
    for wrong in (Head(events[4].seq, "0" * 64), Head(gap.seq - 1, "0" * 64), Head(0, "1" * 64)):
        assert failed(document, anchors=[wrong]) == {f"anchor {wrong.seq}"}
    assert "not covered by this certificate" in check(document, anchors=[Head(999, "0" * 64)])[-1].how


DEEP: list[Any] = []
for _ in range(100_000):
    DEEP = [DEEP]
DAMAGES: list[Any] = [None, [], {}, 10**5000, math.nan, "\ud800\n" * 200, -1, True, DEEP, {"a": 1, 2: "b"}]
PATHS: list[tuple[Any, ...]] = [
    (), ("certificate",), ("code",), ("code", "environment"), ("digests",), ("ledger",), ("signature",),
    ("signature", "value"), ("signature", "public_key"), ("ledger", "events"), ("ledger", "events", 0),
    ("ledger", "events", 0, "seq"), ("ledger", "events", 1, "body"), ("ledger", "events", 3, "kind"),
    ("ledger", "events", 1, "body", "samples"), ("ledger", "events", 9, "body", "figures"),
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_a_damaged_document_fails_and_never_raises(document: Document, path: tuple[Any, ...]) -> None:
    anchor = Head(1, document["ledger"]["events"][0]["hash"])
    for damage in DAMAGES:
        holder: Any = {"document": copy.deepcopy(document)}
        target = functools.reduce(operator.getitem, ("document", *path)[:-1], holder)
        target[("document", *path)[-1]] = damage
        found = check(holder["document"], public_key=PUBLIC, anchors=[anchor])
        assert not all(entry.ok for entry in found)
        assert path or not any(entry.ok for entry in found)
        assert all("\n" not in entry.how and len(entry.how) < 200 for entry in found)


def make_keys(folders: list[Path], start: Barrier, number: int) -> None:
    for folder in folders:
        start.wait(60)
        key = signing_key(KeyStore(folder, Path("/nowhere")))
        (folder / f"{number}.public").write_bytes(key.public_key().public_bytes_raw())


def test_two_processes_at_once_make_one_key_for_its_owner_alone(tmp_path: Path) -> None:
    folders, start = [tmp_path / str(number) for number in range(20)], SPAWN.Barrier(2)
    processes = [SPAWN.Process(target=make_keys, args=(folders, start, number)) for number in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    for folder in folders:
        kept = signing_key(KeyStore(folder, Path("/nowhere"))).public_key().public_bytes_raw()
        assert [path.read_bytes() for path in folder.glob("*.public")] == [kept, kept]
        assert (folder / "signing.pem").stat().st_mode & 0o777 == 0o600


def test_a_damaged_key_is_refused_and_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "signing.pem"
    path.write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    with pytest.raises(ExpungeError, match=r"signing\.pem is no Ed25519 key"):
        signing_key(KeyStore(tmp_path, Path("/nowhere")))
    assert "AAAA" in path.read_text()


def spoiled(value: Any) -> Any:
    """The same value with markup and a lone surrogate at the end of every text."""
    if isinstance(value, dict):
        return {key: spoiled(item) for key, item in value.items()}
    if isinstance(value, list):
        return [spoiled(item) for item in value]
    return f"{value}<script src='https://evil.example/'>&\"\ud800" if isinstance(value, str) else value


def test_the_page_escapes_every_text_and_loads_nothing(document: Document) -> None:
    page, dirty = render(document), spoiled(document)
    for names in (
        dirty["audit"]["figures"],
        dirty["data"]["after"],
        dirty["digests"],
        dirty["code"]["params"],
    ):
        names["<b onclick='x'>"] = names.popitem()[1]
    text = render(dirty).encode().decode()
    assert set(re.findall(r"<[^\s>]*", text)) == set(re.findall(r"<[^\s>]*", page))
    assert not re.search(r"https?:|url\(|@import|\b(src|href|action)\s*=|<(script|link|img|iframe)", page)


def test_the_page_shows_what_counts(document: Document) -> None:
    page = render(document)
    for text in (
        "0.75\n[0.5, 1]", "0.5\n[0.25, 0.75]", BEFORE, AFTER, OLD, NEW, PUBLIC, "retained until 2026-08-01",
        "lawsuit 12", "crm:4711", "expunge verify r1.json", "method salun", document["ledger"]["last"],
        document["statement"], document["model"]["guarantee"],
    ):  # fmt: skip
        assert text in page
    assert "not recorded" not in page


def test_writing_is_whole_and_idempotent(document: Document, tmp_path: Path) -> None:
    def content() -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    path = write(document, tmp_path)
    before = content()
    assert path == tmp_path / "r1.json"
    assert before.keys() == {"r1.json", "r1.html"}
    write(sign(read(path), KEY), tmp_path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write(document | {"digests": {"a": math.nan}}, tmp_path)
    assert content() == before


WRONG_FILES = {
    "NaN is not a number": b'{"a": NaN}', "'a' stands twice": b'{"a": 1, "a": 1}', "utf-8": b"\xff",
    "recursion": b"[" * 100_000, "Exceeds the limit": b"1" * 5000, "holds no JSON object": b"[]",
    "larger than 64 MiB": b'"' + b"a" * 2**26 + b'"',
}  # fmt: skip


@pytest.mark.parametrize("message", WRONG_FILES)
def test_a_file_that_is_no_certificate_is_refused(tmp_path: Path, message: str) -> None:
    path = tmp_path / "r1.json"
    with pytest.raises(ExpungeError, match="there is no file"):
        read(path)
    path.write_bytes(WRONG_FILES[message])
    with pytest.raises(ExpungeError, match=f"{message}.*; get it again from where it was issued$"):
        read(path)
