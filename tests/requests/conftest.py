from __future__ import annotations

import csv
import functools
import json
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from tasks.requests import events as facts
from tasks.requests.catalogue import PARTS, Catalogue
from tasks.requests.desk import Desk
from tasks.requests.events import Fact
from tasks.requests.intake import Receipt
from tasks.requests.keys import KeyStore
from tasks.requests.ledger import Ledger
from tasks.requests.request import Request
from tasks.requests.settings import Settings
from tasks.requests.standing import Row
from tasks.samples.table import Table, read_table

START = datetime(2026, 5, 1, 12, tzinfo=UTC)


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.time = START

    def __call__(self) -> datetime:
        return self.time

    def forward(self, **delta: float) -> None:
        self.time += timedelta(**delta)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a split of ten training, two validation and two test samples, and we are in it."""
    root = tmp_path / "project"
    split = root / "data/split"
    split.mkdir(parents=True)
    with (split / "samples.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["sample_id", "source", "label", "part"])
        for row in range(12):
            part = "val" if row >= 10 else "train"
            writer.writerow([f"train/{row}.png", f"train.parquet#{row}", row % 2, part])
        for row in range(2):
            writer.writerow([f"test/{row}.png", f"test.parquet#{row}", row % 2, "test"])
    (split / "classes.json").write_text('["cat", "dog"]')
    (split / "rows.json").write_text('[{"file": "train.parquet", "rows": 12}]')
    (split / "copies.csv").write_text("sample_id,same,alike\n")
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def catalogue(root: Path) -> Catalogue:
    return Catalogue.load()


@pytest.fixture
def desk(root: Path, clock: Clock) -> Desk:
    ledger = Ledger("sqlite:///data/requests/ledger.db", clock)
    return Desk(ledger, KeyStore(root.parent / "keys", root), Settings(), clock)


def named(desk: Desk, receipt: Receipt) -> list[str]:
    """Ids of the samples that a request keeps by name."""
    return sorted(desk.keys.names(receipt.request.id) or ())


def validated(receipt: Receipt) -> facts.Validated:
    """What was found when the request was taken."""
    found = receipt.request.latest(facts.Validated)
    assert found is not None
    return found


def submission(**changes: object) -> bytes:
    """A request for one sample, as JSON, with some keys changed; None takes one out."""
    value = {
        "requester": "crm:4711",
        "received_at": "2026-05-01T09:30:00Z",
        "ground": "consent-withdrawn",
        "samples": {"id": ["train/3.png"]},
    } | changes
    return json.dumps({key: item for key, item in value.items() if item is not None}).encode()


LIFE: tuple[Fact, ...] = (
    facts.Batched(batch="b"),
    facts.Started(batch="b"),
    facts.Audited(batch="b"),
    facts.Promoted(batch="b"),
    facts.Purging(batch="b"),
    facts.Purged(batch="b"),
    facts.Closed(batch="b"),
)
"""What processing tells of a request that was validated, until it is closed."""


def submit(desk: Desk, catalogue: Catalogue | None, **changes: object) -> Request:
    return desk.submit(submission(**changes), "a.json", catalogue, channel="cli").request


def go_on(desk: Desk, request: Request, *told: Fact) -> Request:
    """Append events as the processing does."""
    with desk.writing() as writer:
        for fact in told:
            writer.append(fact, request.id)
    return desk.show(request.id)


def row_of(desk: Desk, request: Request) -> Row:
    (found,) = desk.rows(request=request.id)
    return found


def without(catalogue: Catalogue, *ids: str) -> Catalogue:
    """The catalogue after samples have left the data, as ``split`` would write it then."""
    split = Path("data/split")
    table = read_table(split / "samples.csv", "part", PARTS)
    rows = zip(table.sample_ids, table.sources, table.labels, table.groups, strict=True)
    sample_ids, sources, labels, groups = zip(*(row for row in rows if row[0] not in ids), strict=True)
    left = Table(sample_ids, sources, list(labels), list(groups))
    counts = [(file["file"], file["rows"]) for file in json.loads((split / "rows.json").read_text())]
    return Catalogue(left, catalogue.classes, counts)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/folder/ledger.db"
        return
    server: str = request.getfixturevalue("postgresql")
    yield server
    with create_engine(server, poolclass=NullPool).begin() as connection:
        for table in ("expunge_events", "expunge_standing", "expunge_standing_upto"):
            connection.execute(text(f"DROP TABLE IF EXISTS {table}"))


@pytest.fixture
def ledger(url: str, clock: Clock) -> Ledger:
    return Ledger(url, clock)


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a real PostgreSQL server on a socket of its own, which stops with the tests."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin")) or [
        Path(found).parent for found in [shutil.which("initdb")] if found
    ]
    if not programs:
        pytest.skip("PostgreSQL's programs are not installed")
    folder = Path("/tmp") / f"expunge-pg-{os.getpid()}"  # a socket's path must be short
    folder.mkdir()
    run = functools.partial(subprocess.run, check=True, capture_output=True, cwd="/")
    if os.geteuid() == 0:  # the server refuses to run as root
        account = pwd.getpwnam("postgres")
        os.chown(folder, account.pw_uid, account.pw_gid)
        run = functools.partial(run, user=account.pw_uid, group=account.pw_gid, extra_groups=[])
    data = folder / "data"
    control = [str(programs[-1] / "pg_ctl"), "-D", str(data), "-w", "-s"]
    try:
        run([str(programs[-1] / "initdb"), "-D", str(data), "-U", "expunge", "-A", "trust", "-N"])
        options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
        run([*control, "-l", str(folder / "log"), "-o", options, "start"])
        try:
            yield f"postgresql+psycopg://expunge@/postgres?host={folder}"
        finally:
            run([*control, "-m", "immediate", "stop"])
    finally:
        shutil.rmtree(folder)
