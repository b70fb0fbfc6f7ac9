from __future__ import annotations

import copy
import hashlib
import json
import math
import multiprocessing
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tasks.errors import ExpungeError
from tasks.requests.certificate import build, check, read, render, sign, signing_key, write
from tasks.requests.keys import KeyStore
from tasks.requests.ledger import Event, Head, Ledger, canonical
from tests.requests.conftest import Clock

Document = dict[str, Any]
Tamper = Callable[[Document], object]

SPAWN = multiprocessing.get_context("spawn")
KEY, OTHER = (Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32) for seed in (1, 2))
PUBLIC = KEY.public_key().public_bytes_raw().hex()
GIVEN: Document = {"environment": {"torch": "2.11.0"}, "digests": {"requirements.lock": "5" * 64}}


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def started(method: str, attempt: int) -> Document:
    base = {"version": "3", "weights": digest("before")}
    return {
        "batch": "b7",
        "method": method,
        "base": base,
        "flow_run": None,
        "commit": "a",
        "attempt": attempt,
    }


def audited(method: str, verdict: str, decision: str, auc: float) -> Document:
    figures = {
        "audit/auc": auc,
        "audit/auc/low": auc - 0.25,
        "audit/auc/high": auc + 0.25,
        "audit/count": 128.0,
    }
    return {
        "batch": "b7", "method": method, "verdict": verdict, "text": f"The AUC is {auc}.", "reason": "It decides.",
        "decision": decision, "why": f"the gate says {decision}", "figures": figures, "pipeline": "p-1",
        "weights": {"result": digest(method)}, "runs": {"unlearn": f"run-{method}"}, "params": {"mia": {"seed": 1}},
        "manifest": {"samples.csv": digest("s0")}, "environment": {"cuda": "none"},
    }  # fmt: skip


CHECKLIST = [
    {"store": "dvc cache", "item": "images.npy", "result": "deleted", "how": "dvc gc"},
    {"store": "backup", "item": "weekly", "result": "retained until 2026-08-01", "how": "rotation"},
]
WALK: list[tuple[str, Document]] = [
    ("received", {"channel": "cli", "requester": "crm:4711", "ground": "objection",
                  "received_at": "2026-05-01T09:30:00.000000Z", "due_at": "2026-06-01T09:30:00.000000Z"}),
    ("validated", {"samples": [{"id": digest("1"), "path": digest("p1")}, {"id": digest("2")}],
                   "already_erased_by": ["20260401-00000001"]}),
    ("held", {"by": "ada", "reason": "lawsuit 12"}),
    ("released", {"by": "ada", "reason": "settled"}),
    ("extended", {"by": "ada", "reason": "many requests", "due_at": "2026-08-01T09:30:00.000000Z"}),
    ("approved", {"by": "bob"}),
    ("covered", {"batch": "b6", "samples": [digest("1")]}),
    ("batched", {"batch": "b7", "count": 3, "requests": ["r1", "r2"]}),
    ("started", started("salun", 1)),
    ("audited", audited("salun", "remembers", "next", 0.75)),
    ("started", started("retrain", 2)),
    ("audited", audited("retrain", "indistinguishable", "promote", 0.5)),
    ("promoted", {"batch": "b7", "method": "retrain", "guarantee": "exact", "version": "4", "commit": "b",
                  "weights": digest("retrain"), "lock": digest("lock"), "content": [{"file": digest("f")}]}),
    ("purged", {"checklist": CHECKLIST, "manifest": {"samples.csv": digest("s1")}, "commit": "c"}),
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
    decisions = [(entry["kind"], entry["by"]) for entry in request["decisions"]]
    assert decisions == [("held", "ada"), ("released", "ada"), ("extended", "ada"), ("approved", "bob")]
    assert document["samples"]["count"] == 2
    assert document["samples"]["covered_by"] == [{"batch": "b6", "samples": [digest("1")]}]
    assert (first["method"], first["verdict"], first["decision"]) == ("salun", "remembers", "next")
    assert (second["method"], second["decision"]) == ("retrain", "promote")
    assert first["figures"]["audit/auc"] == {"value": 0.75, "low": 0.5, "high": 1.0}
    assert second["figures"]["audit/count"] == {"value": 128.0, "low": None, "high": None}
    assert document["audit"]["figures"] == second["figures"]
    assert document["audit"]["verdict"] == "indistinguishable"
    assert model["before"] == {"version": "3", "weights": digest("before")}
    assert model["after"] == {"version": "4", "weights": digest("retrain")}
    assert model["guarantee"].startswith("Exact:")
    assert document["data"]["before"] == {"samples.csv": digest("s0")}
    assert document["data"]["after"] == {"samples.csv": digest("s1")}
    assert document["code"]["commits"] == {"started": "a", "promoted": "b", "purged": "c"}
    assert document["code"]["environment"] == GIVEN["environment"]
    assert document["purge"] == CHECKLIST
    assert "no proof" in document["statement"]


def test_an_approximate_method_guarantees_nothing_and_an_unaudited_attempt_is_shown(
    events: list[Event],
) -> None:
    approximate = Event(**events[-2].as_json() | {"body": {"guarantee": "approximate", "method": "salun"}})
    kept = [event for event in events[:-2] if event.body.get("verdict") != "remembers"]
    made = build("r1", [*kept, approximate, events[-1]], **GIVEN)
    assert made["model"]["guarantee"].startswith("Approximate: the method salun")
    assert "nothing is guaranteed" in made["model"]["guarantee"]
    found = [(entry["method"], entry["verdict"]) for entry in made["attempts"]]
    assert found == [("salun", None), ("retrain", "indistinguishable")]


def test_what_is_not_recorded_does_not_crash(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/bare.db", Clock())
    with ledger.writing() as writer:
        for kind in ("received", "validated", "batched", "started", "audited", "promoted", "purged"):
            writer.append(kind, "r1")
    bare = sign(build("r1", ledger.events("r1"), environment={}, digests={}), KEY)
    assert bare["samples"]["count"] is None
    assert failed(bare) == set()
    assert render(bare).count("not recorded") > 20


def test_it_is_too_early_before_the_purge(events: list[Event]) -> None:
    for early in (events[:-1], []):
        with pytest.raises(ExpungeError, match=r"^request r1: a certificate is made once"):
            build("r1", early, **GIVEN)
    with pytest.raises(ValueError, match="not of request r2"):
        build("r2", events, **GIVEN)


def test_a_genuine_certificate_passes_before_and_after_a_file(document: Document, tmp_path: Path) -> None:
    anchors = [Head(entry["seq"], entry["hash"]) for entry in document["ledger"]["events"]]
    again = read(write(document, tmp_path / "certificates"))
    assert canonical(again) == canonical(document)
    assert failed(again, public_key=f" {PUBLIC.upper()}\n", anchors=anchors) == set()
    (signer,) = [found.how for found in check(again) if found.what == "signer"]
    assert PUBLIC in signer
    assert "compare" in signer


def test_the_signature_is_ed25519_over_the_documented_text(document: Document) -> None:
    content = {key: value for key, value in document.items() if key != "signature"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":")).encode("ascii")
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(document["signature"]["public_key"]))
    key.verify(bytes.fromhex(document["signature"]["value"]), text)
    assert sign(document, KEY) == document  # the old signature is no part of what is signed


def set_in(*path: Any, value: Any) -> Tamper:
    def tamper(document: Document) -> None:
        target: Any = document
        for key in path[:-1]:
            target = target[key]
        assert (type(target[path[-1]]), target[path[-1]]) != (type(value), value)
        target[path[-1]] = value

    return tamper


def in_events(change: Callable[[list[Document]], object]) -> Tamper:
    return lambda document: change(document["ledger"]["events"])


def resealed(number: int, **changes: Any) -> Tamper:
    """Change an event and give it the hash of its new content, as a forger does."""
    return in_events(
        lambda entries: entries.insert(number, Event(**entries.pop(number) | changes).sealed().as_json())
    )


TAMPERS: dict[str, tuple[Tamper, str]] = {
    "schema": (set_in("certificate", "schema", value="expunge/certificate/2"), "schema"),
    "figure": (set_in("audit", "figures", "audit/auc", "value", value=0.51), "summary"),
    "type": (set_in("audit", "figures", "audit/count", "value", value=128), "summary"),
    "attempt": (set_in("attempts", 0, "decision", value="promote"), "summary"),
    "guarantee": (set_in("model", "guarantee", value="Perfect."), "summary"),
    "purge": (set_in("purge", 1, "result", value="deleted"), "summary"),
    "statement": (set_in("statement", value="It is proof."), "summary"),
    "part added": (lambda document: document.update(seal="gold"), "summary"),
    "part removed": (lambda document: document.pop("data"), "summary"),
    "head": (set_in("ledger", "last", value="1:" + "0" * 64), "summary"),
    "body": (set_in("ledger", "events", 9, "body", "figures", "audit/auc", value=0.5), "events"),
    "time": (set_in("ledger", "events", 0, "at", value="2026-05-01T13:00:00.000001Z"), "events"),
    "hash": (set_in("ledger", "events", 2, "hash", value="0" * 64), "events"),
    "removed": (in_events(lambda entries: entries.pop(5)), "summary"),
    "needed one removed": (in_events(lambda entries: entries.pop(1)), "states"),
    "swapped": (in_events(lambda entries: entries.insert(3, entries.pop(4))), "order"),
    "twice": (in_events(lambda entries: entries.insert(1, entries[0])), "order"),
    "rewritten": (resealed(3, body={"by": "eve", "reason": "none"}), "order"),
    "before the first": (resealed(0, previous="9" * 64), "order"),
    "another request's": (resealed(3, request="r9"), "summary"),
    "unknown kind": (resealed(3, kind="blessed"), "states"),
}


@pytest.mark.parametrize("resigned", [False, True])
@pytest.mark.parametrize(("tamper", "expected"), TAMPERS.values(), ids=TAMPERS)
def test_what_was_changed_is_found_even_under_a_new_signature(
    document: Document, tamper: Tamper, expected: str, resigned: bool
) -> None:
    tamper(document)
    found = failed(sign(document, OTHER) if resigned else document, public_key=PUBLIC)
    assert expected in found
    assert "signer" in found
    assert ("signature" in found) is not resigned


@pytest.mark.parametrize("path", [("code", "environment", "torch"), ("digests", "requirements.lock")])
def test_what_events_do_not_tell_is_held_by_the_signature(document: Document, path: tuple[str, ...]) -> None:
    set_in(*path, value="9")(document)
    assert failed(document) == {"signature", "signer"}


def test_a_signature_counts_for_its_document_and_key_alone(document: Document, events: list[Event]) -> None:
    assert failed(sign(document, OTHER), public_key=PUBLIC) == {"signer"}
    other = sign(build("r1", events, environment={}, digests={}), KEY)
    claimed = {"public_key": OTHER.public_key().public_bytes_raw().hex()}
    shouted = {"public_key": PUBLIC.upper()}
    for change in (other["signature"], claimed, shouted, {"algorithm": "none"}, {"note": "x"}, {"value": ""}):
        changed = document | {"signature": document["signature"] | change}
        assert failed(changed) == {"signature", "signer"}
    del document["signature"]
    assert failed(document) == {"signature", "signer"}


def test_anchors(document: Document, events: list[Event]) -> None:
    gap = next(after for before, after in pairwise(events) if after.seq > before.seq + 1)
    assert failed(document, anchors=[Head(gap.seq - 1, gap.previous), Head()]) == set()
    for wrong in (Head(events[4].seq, "0" * 64), Head(gap.seq - 1, "0" * 64), Head(0, "1" * 64)):
        assert failed(document, anchors=[wrong]) == {f"anchor {wrong.seq}"}
    assert "not covered by this certificate" in check(document, anchors=[Head(999, "0" * 64)])[-1].how


DEEP: list[Any] = []
for _ in range(100_000):
    DEEP = [DEEP]
DAMAGES: list[Any] = [None, [], {}, 10**5000, math.nan, "\ud800", -1, True, DEEP, {"a": 1, 2: "b"}]
PATHS = [
    "certificate", "ledger", "ledger.events", "ledger.events.0", "ledger.events.0.seq", "ledger.events.1.body",
    "ledger.events.1.body.samples", "ledger.events.3.kind", "ledger.events.9.body.figures", "code",
    "code.environment", "digests", "signature", "signature.value", "signature.public_key",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_a_damaged_document_fails_and_never_raises(document: Document, path: str) -> None:
    keys = [int(key) if key.isdigit() else key for key in path.split(".")]
    for damage in DAMAGES:
        changed = copy.deepcopy(document)
        set_in(*keys, value=damage)(changed)
        found = check(changed, anchors=[Head(1, "0" * 64)])
        assert not all(entry.ok for entry in found[:-1])
        assert all("\n" not in entry.how and len(entry.how) < 200 for entry in found)


@pytest.mark.parametrize("anything", [*DAMAGES, "text", 1.5], ids=lambda value: type(value).__name__)
def test_what_is_no_certificate_at_all_fails_every_check(anything: Any) -> None:
    assert len(failed(anything, public_key="\0", anchors=[Head()])) == 8


def _make_keys(folders: list[Path], start: Barrier, number: int) -> None:
    for folder in folders:
        start.wait(60)
        key = signing_key(KeyStore(folder, Path("/nowhere")))
        (folder / f"{number}.public").write_bytes(key.public_key().public_bytes_raw())


def test_two_processes_at_once_make_one_key_for_its_owner_alone(tmp_path: Path) -> None:
    folders = [tmp_path / str(number) for number in range(20)]
    start = SPAWN.Barrier(2)
    processes = [SPAWN.Process(target=_make_keys, args=(folders, start, number)) for number in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    for folder in folders:
        kept = signing_key(KeyStore(folder, Path("/nowhere"))).public_key().public_bytes_raw()
        assert {path.read_bytes() for path in folder.glob("*.public")} == {kept}
        assert (folder / "signing.pem").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", ["", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_damaged_key_is_refused_and_not_replaced(tmp_path: Path, content: str) -> None:
    path = tmp_path / "signing.pem"
    path.write_text(content)
    with pytest.raises(ExpungeError, match=r"signing\.pem is no Ed25519 key"):
        signing_key(KeyStore(tmp_path, Path("/nowhere")))
    assert path.read_text() == content


def spoiled(value: Any) -> Any:
    """The same value with markup and a lone surrogate in every text, and in a key of every object."""
    if isinstance(value, dict):
        return {key: spoiled(item) for key, item in value.items()} | {"<b onclick='x'>": "<i>"}
    if isinstance(value, list):
        return [spoiled(item) for item in value]
    return f"{value}<script src='https://evil.example/'>&\"\ud800" if isinstance(value, str) else value


def test_the_page_escapes_every_text_and_loads_nothing(document: Document) -> None:
    def tags(page: str) -> set[str]:
        return set(re.findall(r"<[^\s>]*", page))

    page = render(document)
    for part in document.keys() - {"audit", "attempts"}:  # in these, a key is a figure
        dirty = render(document | {part: spoiled(document[part])})
        assert tags(dirty) == tags(page)
        assert "<script" not in dirty
    assert not re.search(r"https?:|url\(|@import|\b(src|href|action)\s*=|<(script|link|img|iframe)", page)


def test_the_page_shows_what_counts(document: Document) -> None:
    page = render(document)
    for text in (
        "0.75\n[0.5, 1]", "0.5\n[0.25, 0.75]", digest("before"), digest("retrain"), digest("s1"), PUBLIC,
        "retained until 2026-08-01", "lawsuit 12", "crm:4711", "expunge verify r1.json", "method salun",
        document["ledger"]["last"], document["statement"], document["model"]["guarantee"],
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
    assert content() == before
    with pytest.raises(ValueError, match="not JSON compliant"):
        write(document | {"digests": {"a": math.nan}}, tmp_path)
    assert content() == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": NaN}', "NaN is not a number"), (b'{"a": 1, "a": 1}', "'a' stands twice"),
        (b"\xff", "not valid JSON"), (b"[" * 100_000, "not valid JSON"), (b"1" * 5000, "not valid JSON"),
        (b"[]", "holds no JSON object"),
        (b'"' + b"a" * 2**24 + b'"', "larger than 16 MiB"),
    ], ids=range(7),
)  # fmt: skip
def test_a_file_that_is_no_certificate_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "r1.json"
    path.write_bytes(content)
    with pytest.raises(ExpungeError, match=message) as caught:
        read(path)
    assert str(caught.value).endswith("; get it again from where it was issued")
    with pytest.raises(ExpungeError, match="there is no file"):
        read(tmp_path / "none.json")
