"""An examination of all that requests rest on: one line each, with what to do."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from tasks.core.errors import ExpungeError
from tasks.core.params import Params
from tasks.erasure.stores.dvc import DvcCache, DvcRemote, remotes
from tasks.erasure.stores.prefect import FlowRuns
from tasks.processing import checkout, production
from tasks.processing.certifying import key_periods
from tasks.processing.repository import Repository
from tasks.requests.chain import stamp
from tasks.requests.desk import Desk
from tasks.requests.high_water import list_of, read_checked
from tasks.requests.ledger import SKEW
from tasks.requests.production import in_production, models
from tasks.requests.signing import signing_key

State = Literal["well", "needs care", "not used"]

ROOM = 5 * 2**30
"""Bytes that should be free: a training writes weights and caches, and a purge writes files anew."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One part: its state, what was found, and what to do."""

    part: str
    state: State
    found: str
    do: str = ""

    def as_json(self) -> dict[str, str]:
        """All fields."""
        return asdict(self)


def examine(desk: Desk, params: Params, root: Path, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Examine every part; one that fails does not keep the others from being examined."""
    parts: list[tuple[str, Callable[[], Finding]]] = [
        ("ledger", lambda: _ledger(desk, root)),
        ("table of states", lambda: _standing(desk)),
        ("clock", lambda: _clock(desk)),
        ("keys of requests", lambda: _keys(desk)),
        ("folder of keys", lambda: _folder(desk)),
        ("signing key", lambda: _signing(desk)),
        ("checkout", lambda: _checkout(desk, root)),
        ("Git", lambda: _git(root)),
        ("list of what was erased", lambda: _erased(desk, params)),
        ("data/base", lambda: _base(desk)),
        ("alias production", lambda: _alias(desk, params, root)),
        ("DVC cache", lambda: _cache(root)),
        ("Prefect", lambda: _prefect(environ)),
        ("disk", lambda: _disk(root)),
    ]
    for name, look in parts:
        yield _tried(name, look)
    yield from _remotes(root)


def _tried(name: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except ExpungeError as error:
        return Finding(name, "needs care", str(error))
    except OSError as error:
        return Finding(name, "needs care", f"{error.strerror or error} ({error.filename})")


def _ledger(desk: Desk, root: Path) -> Finding:
    anchors = Repository(root).anchors()
    head = desk.check(anchors)
    return Finding("ledger", "well", f"{head.seq} events, unbroken, on {len(anchors)} anchor(s) in Git")


def _standing(desk: Desk) -> Finding:
    differing = desk.ledger.standing_differs()
    if differing:
        found = f"{len(differing)} row(s) differ from the events, such as {differing[0]}'s"
        return Finding("table of states", "needs care", found, "expunge doctor --rebuild")
    return Finding("table of states", "well", "as the events tell")


def _clock(desk: Desk) -> Finding:
    last = desk.ledger.last(())
    now = desk.clock()
    if last and last.at > stamp(now + SKEW):
        return Finding(
            "clock", "needs care", f"{now:%Y-%m-%dT%H:%MZ}; the last event is of {last.at[:16]}Z", "set it"
        )
    return Finding("clock", "well", f"{now:%Y-%m-%dT%H:%MZ}")


def _keys(desk: Desk) -> Finding:
    rows = [row for row in desk.ledger.rows(only_open=True) if row.samples]
    lost = [row.request for row in rows if not desk.keys.exists(row.request)]
    if lost:
        found = f"{len(lost)} of {len(rows)} open requests have lost theirs: {', '.join(lost[:3])}"
        return Finding(
            "keys of requests", "needs care", found, "restore them from the backup, or expunge refuse"
        )
    return Finding("keys of requests", "well", f"{len(rows)} open request(s) have theirs")


def _folder(desk: Desk) -> Finding:
    folder = desk.keys.folder
    if not folder.exists():
        return Finding("folder of keys", "not used", f"{folder} is made with the first request")
    if folder.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        found = f"{folder} can be read by others"
        return Finding("folder of keys", "needs care", found, f"chmod 700 {folder}")
    return Finding("folder of keys", "well", str(folder))


def _signing(desk: Desk) -> Finding:
    known = key_periods(desk.ledger)
    if not known:
        return Finding("signing key", "not used", "it is made with the first certificate")
    signing_key(desk.keys, known[-1].key)  # raises if it is lost, or is another
    return Finding("signing key", "well", known[-1].key.hex)


def _checkout(desk: Desk, root: Path) -> Finding:
    if refusal := checkout.why_elsewhere(desk, root):
        return Finding("checkout", "needs care", refusal)
    where = "here" if checkout.settled(desk) else "nowhere yet; the first process settles it"
    return Finding("checkout", "well", f"requests are carried out {where}")


def _git(root: Path) -> Finding:
    Repository(root).refuse_changes()
    return Finding("Git", "well", "everything is committed")


def _erased(desk: Desk, params: Params) -> Finding:
    lines = read_checked(list_of(params.split), desk.keys).lines
    return Finding("list of what was erased", "well", f"{len(lines)} line(s)")


def _base(desk: Desk) -> Finding:
    current = in_production(desk.ledger)
    if current is None:
        return Finding("data/base", "not used", "nothing is in production yet")
    production.check_base(current.weights)
    return Finding("data/base", "well", f"weights {current.weights[:12]}…, as the ledger says")


def _alias(desk: Desk, params: Params, root: Path) -> Finding:
    registry = models(params, root)
    current = in_production(desk.ledger)
    if registry is None or current is None:
        return Finding("alias production", "not used", "MLflow is off" if registry is None else "nothing yet")
    differing = list(production.other_alias(registry, current))
    if differing:
        return Finding("alias production", "needs care", differing[0])
    return Finding("alias production", "well", f"version {current.version}")


def _cache(root: Path) -> Finding:
    count = sum(1 for _ in DvcCache(root).runs())
    return Finding("DVC cache", "well", f"can be listed, {count} entries of the run cache")


def _remotes(root: Path) -> Iterator[Finding]:
    try:
        found = remotes(root)
    except ExpungeError as error:
        yield Finding("DVC remotes", "needs care", str(error))
        return
    for remote in found:
        name = remote.name
        yield _tried(name, lambda remote=remote: _remote(remote))  # type: ignore[misc]


def _remote(remote: DvcRemote) -> Finding:
    remote.runs()  # raises what keeps it from being searched
    return Finding(remote.name, "well", "can be searched")


def _prefect(environ: Mapping[str, str]) -> Finding:
    server = FlowRuns(environ)
    if not server.url:
        return Finding(
            "Prefect", "not used", "no server is set, in none of the places where Prefect looks for one"
        )
    next(iter(server.runs()), None)
    return Finding("Prefect", "well", server.url)


def _disk(root: Path) -> Finding:
    free = shutil.disk_usage(root).free
    found = f"{free / 2**30:.1f} GiB free"
    if free < ROOM:
        return Finding("disk", "needs care", found, f"keep {ROOM // 2**30} GiB free")
    return Finding("disk", "well", found)
