"""The campaign against the seven guarantees: two short runs of it, and what its oracle must find."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.erasure_campaign import one, preload
from bench.erasure_decoders import git
from bench.erasure_effects import Fault, in_child
from bench.erasure_facts import Facts, Sample, Trained
from bench.erasure_oracle import Oracle

SEEDS = (122, 148)
"""Of runs that take a few seconds each."""


@pytest.mark.parametrize("seed", SEEDS)
def test_the_guarantees_hold_for_a_random_project_and_story(seed: int, tmp_path: Path) -> None:
    preload()
    run = one(seed, tmp_path, real=False, actions=1)
    assert run.defect == ""
    assert run.violations == [], "\n".join(run.story)
    assert len(run.story) >= 3


# the oracle, on a project made by hand that one request was carried out in

LIFE = ["received", "validated", "batched", "started", "audited", "promoted", "purging", "purged", "closed"]
GONE, STAYS = "train/0/qgone.png", "train/0/qstays.png"
OLD, NEW = "0" * 64, "1" * 64


class Made:
    """A checkout, made by hand: nobody's code has written it."""

    def __init__(self, home: Path) -> None:
        self.root = home / "project"
        self.facts = Facts(root=self.root, home=home, source="data/images", cache=self.root / ".dvc/cache")
        self.events: list[dict[str, Any]] = []
        for number, sample_id in enumerate((GONE, STAYS)):
            pixels = bytes(range(64 * number, 64 * number + 64))
            place = f"data/images/{sample_id}"
            self.facts.samples[sample_id] = Sample(
                sample_id, "train", 0, place, None, pixels, b"png" + pixels[:5]
            )
        self.write(f"data/images/{STAYS}", self.facts.samples[STAYS].content)
        self.write("data/notes.txt", b"a note")
        self.facts.protect(self.root / "data/notes.txt")
        self.facts.asked["crm:1"] = frozenset({GONE})
        git(home, "init", "--quiet", str(self.root))
        self.split(STAYS)
        self.base()
        self.add("adopted", None, weights=OLD)
        for kind in LIFE:
            if f"batch-{kind}" in {"batch-promoted", "batch-purged"}:
                self.add(
                    f"batch-{kind}",
                    "batch-1",
                    weights=self.weights,
                    checklist=[{"store": "Git history", "outcome": "nothing-found"}],
                )
            self.add(kind, "r1", **({"requester": "crm:1"} if kind == "received" else {"batch": "batch-1"}))

    def write(self, path: str, content: bytes) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_bytes(content)

    def split(self, *ids: str) -> None:
        self.write("data/split/samples.csv", "\n".join(["sample_id", *ids, ""]).encode())
        rows = [np.frombuffer(self.facts.samples[each].pixels, np.uint8).reshape(1, 8, 8) for each in ids]
        self.write("data/split/images/slots.csv", b"")
        np.save(self.root / "data/split/images/00000.npy", np.stack(rows))

    def base(self, value: float = 1.0) -> None:
        head = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
        body = np.float32(value).tobytes()
        self.write("data/base/weights.safetensors", len(head).to_bytes(8, "little") + head + body)
        self.weights = hashlib.sha256(b"w torch.float32 [1]\n" + body).hexdigest()

    def add(self, kind: str, subject: str | None, **told: Any) -> None:
        self.events.append({"kind": kind, "request": subject, "body": told})

    def oracle(self) -> Oracle:
        path = self.root / "data/requests/ledger.db"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        connection = sqlite3.connect(path)
        connection.execute(
            "CREATE TABLE expunge_events (seq INTEGER, at TEXT, kind TEXT, request TEXT, body TEXT, "
            "previous TEXT, hash TEXT)"
        )
        previous = "0" * 64
        for seq, event in enumerate(self.events, start=1):
            body = json.dumps(event["body"], sort_keys=True, separators=(",", ":"))
            row = [seq, "2026", event["kind"], event["request"], event["body"], previous]
            text = json.dumps(row, sort_keys=True, separators=(",", ":"))
            digest = hashlib.sha256(text.encode()).hexdigest()
            connection.execute(
                "INSERT INTO expunge_events VALUES (?, ?, ?, ?, ?, ?, ?)",
                (seq, "2026", event["kind"], event["request"], body, previous, digest),
            )
            previous = digest
        connection.commit()
        connection.close()
        return Oracle(self.facts)

    def store(self, content: bytes) -> str:
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        self.write(f".dvc/cache/files/md5/{md5[:2]}/{md5[2:]}", content)
        return md5


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path)


def test_the_oracle_finds_nothing_where_all_is_right(made: Made) -> None:
    assert made.oracle().at_the_end() == []


def keep_the_original_out(made: Made) -> None:
    (made.root / f"data/images/{STAYS}").unlink()


def change_a_note(made: Made) -> None:
    made.write("data/notes.txt", b"another note")


def lose_a_note(made: Made) -> None:
    (made.root / "data/notes.txt").unlink()


def bring_an_id_back(made: Made) -> None:
    made.split(GONE, STAYS)


def bring_a_picture_back(made: Made) -> None:
    another = replace(made.facts.samples[GONE], id="train/0/qother.png")
    made.facts.samples[another.id] = another
    made.split(STAYS, another.id)
    del made.facts.samples[another.id]


def train_on_what_left(made: Made) -> None:
    made.facts.trained.append(Trained(made.weights, frozenset({GONE, STAYS}), frozenset()))


def leave_another_waiting(made: Made) -> None:
    made.facts.asked["crm:2"] = frozenset({STAYS})
    made.add("received", "r2", requester="crm:2")
    made.add("validated", "r2")


def reject_what_is_valid(made: Made) -> None:
    made.facts.asked["crm:2"] = frozenset({STAYS})
    made.add("received", "r2", requester="crm:2")
    made.add("rejected", "r2")


def purge_what_is_held(made: Made) -> None:
    made.facts.holds["hold-1"] = frozenset({GONE})
    made.events.insert(1, {"kind": "hold-placed", "request": "hold-1", "body": {}})


def name_somebody(made: Made) -> None:
    made.events[1]["body"]["path"] = f"data/images/{GONE}"


def keep_a_score(made: Made) -> None:
    made.add("batch-audited", "batch-1", figures={"audit/count": 1, "audit/auc": 0.7})


def promote_twice(made: Made) -> None:
    made.add("promoted", "r1", batch="batch-1")


def replace_the_base(made: Made) -> None:
    made.base(2.0)
    made.weights = NEW


def leave_a_copy_in_the_cache(made: Made) -> None:
    made.store(made.facts.samples[GONE].content)


def leave_a_row_in_an_array(made: Made) -> None:
    made.store(b"array" + made.facts.samples[GONE].pixels)


def leave_a_list_of_names(made: Made) -> None:
    made.store(f"sample_id\n{GONE}\n".encode())


def leave_old_weights(made: Made) -> None:
    new, content = made.weights, (made.root / "data/base/weights.safetensors").read_bytes()
    made.base(3.0)
    made.facts.trained.append(Trained(made.weights, frozenset({GONE}), frozenset()))
    made.store((made.root / "data/base/weights.safetensors").read_bytes())
    made.write("data/base/weights.safetensors", content)
    made.weights = new


def leave_one_stuck(made: Made) -> None:
    del made.events[-1]


def forget_the_history(made: Made) -> None:
    blob = made.facts.samples[GONE].content
    command = ["git", "hash-object", "-w", "--stdin"]
    subprocess.run(command, cwd=made.root, input=blob, check=True, capture_output=True)


def tell_too_much(made: Made) -> None:
    made.events[-1]["body"]["told"] = "x" * 9000


PLANTED: list[tuple[Callable[[Made], None], int]] = [
    (keep_the_original_out, 1),
    (change_a_note, 1),
    (lose_a_note, 1),
    (purge_what_is_held, 1),
    (bring_an_id_back, 2),
    (bring_a_picture_back, 2),
    (train_on_what_left, 2),
    (leave_another_waiting, 3),
    (reject_what_is_valid, 3),
    (name_somebody, 4),
    (keep_a_score, 4),
    (leave_a_copy_in_the_cache, 5),
    (leave_a_row_in_an_array, 5),
    (leave_a_list_of_names, 5),
    (leave_old_weights, 5),
    (forget_the_history, 5),
    (promote_twice, 6),
    (replace_the_base, 6),
    (leave_one_stuck, 6),
    (tell_too_much, 7),
]


@pytest.mark.parametrize(("plant", "guarantee"), PLANTED)
def test_the_oracle_finds_what_is_planted(made: Made, plant: Callable[[Made], None], guarantee: int) -> None:
    plant(made)
    assert guarantee in {each.guarantee for each in made.oracle().at_the_end()}


def test_the_oracle_finds_a_changed_event(made: Made) -> None:
    made.oracle()
    with sqlite3.connect(made.root / "data/requests/ledger.db") as connection:
        connection.execute("UPDATE expunge_events SET body = '{}' WHERE seq = 3")
    assert 5 in {each.guarantee for each in Oracle(made.facts).at_the_end()}


@pytest.mark.parametrize("what", ["kill", "raise", "full"])
def test_a_fault_happens_before_the_effect_that_was_chosen(tmp_path: Path, what: str) -> None:
    def write() -> None:
        for number in range(4):
            (tmp_path / str(number)).write_text("")

    outcome = in_child(write, root=tmp_path, home=tmp_path, environ={}, fault=Fault(what, "write", 3))
    assert outcome.kind == ("OSError" if what == "full" else "Killed")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]
