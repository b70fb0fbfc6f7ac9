"""Prefect's flow runs, over its REST API: parameters, which may be requests, logs, artifacts, events."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

from requests import RequestException, Session
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from tasks.core.errors import ExpungeError, UnavailableError
from tasks.erasure.search import Asked, find, sought_of
from tasks.erasure.sought import Sought
from tasks.erasure.stores import Hit, Store, Unopened, UnsearchableError
from tasks.erasure.stores.folder import Folder
from tasks.erasure.stores.prefect_settings import AUTH_STRING, DATABASES, DRIVERS, KEY, URL, PrefectSettings

PAGE = 200
PATIENCE = Retry(
    connect=0,
    read=0,
    status=6,
    backoff_factor=0.5,
    backoff_max=8,
    status_forcelist=[HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE],
    allowed_methods=None,
    raise_on_status=False,
)
"""A server that is busy is asked again: on SQLite it answers 503 while another request writes."""

AT_WORK = frozenset({"PENDING", "RUNNING", "CANCELLING"})
"""Types of states in which a run needs its record; the purge may be part of that very run."""

FLOWS = frozenset(
    {"approve-request", "audit-production", "process-requests", "submit-request", "unlearning-pipeline"}
)
"""Names of this project's flows. Runs of others are reported only: a server may be shared."""

DATABASE = "Prefect's local database"
ARTIFACT, EVENT = "artifact ", "event "
HEALTH = "/health"
MOST_BROKEN = 20
"""Records in a row that cannot be sent before that counts as an outage."""


class BrokenRecordError(ExpungeError):
    """The server fails at what it is asked, though it is up: one of its records cannot be sent."""


def local_database(environ: Mapping[str, str], root: Path = Path()) -> Store:
    """Return the database in which Prefect keeps runs where no server is set, as a store."""
    found = PrefectSettings(environ, root)
    address = found.get(*DATABASES)
    kind, _, place = address.partition(":///")
    if found.get(*DRIVERS).startswith("postgresql") or (not kind.startswith("sqlite") and address):
        error = UnsearchableError(
            f"{DATABASE} is no file, and is searched through a server: start one and set PREFECT_API_URL"
        )
        return Unopened(DATABASE, error)
    path = root / place.partition("?")[0] if place else found.home / "prefect.db"
    files = [f"{path.name}{end}" for end in ("", "-wal", "-shm", "-journal")]
    return Folder(DATABASE, path.parent, only=files)


def _names(value: Any, sought: Sought) -> bool:
    """Whether a value of JSON names a sample; the end of a path, or a number, says nothing."""
    content = value if isinstance(value, str) else json.dumps(value)
    found = find(content.encode(errors="replace"), sought)
    return bool(found) and not found.by_end


class FlowRuns:
    """Parameters, logs, artifacts and events of the flow runs of the server that Prefect is set up for."""

    name = "Prefect"
    how = (
        "parameters, logs, artifacts and events of every flow run, read through the server's API, and by id "
        "the runs that brought the request; parameters of task runs are not kept by Prefect"
    )

    def __init__(self, environ: Mapping[str, str], root: Path = Path()) -> None:
        found = PrefectSettings(environ, root)
        self.url = found.get(URL)
        self.unread: dict[str, str] = {}
        self.partly: Counter[str] = Counter()
        self._broken = 0
        self._headers = {}
        if key := found.get(KEY):
            self._headers["Authorization"] = f"Bearer {key}"
        elif pair := found.get(AUTH_STRING):
            self._headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"

    def search(self, wanted: Asked) -> list[Hit]:
        """Find runs that brought a request, or of which anything names a sample; an item is an id.

        All is read before anything is returned, so that what is deleted then moves no page. A record that
        the server cannot send is told in ``unread``.
        """
        self.unread = {}
        sought = sought_of(wanted)
        brought = sought.flow_runs
        ours = {flow["id"] for flow in self._all("/flows/filter", flows={"name": {"any_": sorted(FLOWS)}})}
        runs = {str(run["id"]): run for run in self.runs()}
        found: dict[str, str] = {}
        for item, run in runs.items():
            if item in brought:
                found[item] = f"flow run {run['name']} brought the request"
            elif _names(run["parameters"], sought):
                found[item] = f"parameters of flow run {run['name']} name samples"
        for line in self._all("/logs/filter", sort="TIMESTAMP_ASC"):
            item = str(line["flow_run_id"])
            if line["flow_run_id"] and item not in found and _names(line["message"], sought):
                found[item] = f"the log of flow run {item} names samples"
        for artifact in self._all("/artifacts/filter", sort="ID_DESC"):
            told = [artifact.get(part) for part in ("key", "description", "data")]
            item = str(artifact["flow_run_id"])
            if _names(told, sought):  # it stays when its run is deleted
                found[f"{ARTIFACT}{artifact['id']}"] = f"an artifact of flow run {item} names samples"
                runs[f"{ARTIFACT}{artifact['id']}"] = runs.get(item, {})
        for event in self._events():
            if _names(event, sought):
                found[f"{EVENT}{event['id']}"] = "an event names samples; it ends with its retention"
        return [
            Hit(
                self.name,
                item,
                why,
                foreign=item not in brought and runs.get(item, {}).get("flow_id") not in ours,
            )
            for item, why in found.items()
        ]

    def delete(self, item: str) -> None:
        """Delete a flow run with its log, or an artifact; what is gone stays gone, a run at work stays."""
        if item.startswith(ARTIFACT):
            self._call("DELETE", f"/artifacts/{item.removeprefix(ARTIFACT)}", missing_is_fine=True)
            return
        run = self._call("GET", f"/flow_runs/{item}", missing_is_fine=True)
        if run is None or run["state_type"] in AT_WORK:
            return
        self._call("DELETE", f"/flow_runs/{item}", missing_is_fine=True)

    def runs(self, **filters: Any) -> Iterator[dict[str, Any]]:
        """All flow runs, oldest first."""
        return self._all("/flow_runs/filter", sort="EXPECTED_START_TIME_ASC", **filters)

    def _all(self, path: str, **question: Any) -> Iterator[dict[str, Any]]:
        offset, self._broken = 0, 0
        while True:
            page, complete = self._page(path, offset, PAGE, question)
            yield from page
            if complete:
                return
            offset += PAGE

    def _page(
        self, path: str, offset: int, limit: int, question: Mapping[str, Any]
    ) -> tuple[list[dict[str, Any]], bool]:
        """Return a page, and whether it is the last. One record that cannot be sent costs only itself."""
        try:
            page = self._call("POST", path, json={"limit": limit, "offset": offset, **question})
            self._broken = 0
            return page, len(page) < limit
        except BrokenRecordError as error:
            if limit == 1:
                self._broken += 1
                if self._broken == MOST_BROKEN:
                    raise UnavailableError(str(error)) from None
                self.unread[f"{path}, record {offset}"] = str(error)
                return [], False
            half = limit // 2
            first, last = self._page(path, offset, half, question)
            if last:
                return first, True
            second, last = self._page(path, offset + half, limit - half, question)
            return first + second, last

    def _events(self) -> Iterator[dict[str, Any]]:
        now = datetime.now(UTC)
        occurred = {"since": (now - timedelta(days=365)).isoformat(), "until": now.isoformat()}
        question: dict[str, Any] = {"json": {"filter": {"occurred": occurred}, "limit": 50}}
        method, path = "POST", "/events/filter"
        try:
            while True:
                page = self._call(method, path, **question)
                yield from page["events"]
                if not page.get("next_page"):
                    return
                method, path, question = "GET", str(page["next_page"]), {}
        except UnavailableError:
            raise
        except ExpungeError as error:
            self.unread["events"] = str(error)

    def _call(self, method: str, path: str, *, missing_is_fine: bool = False, **options: Any) -> Any:
        try:
            with Session() as session:
                for scheme in ("http://", "https://"):
                    session.mount(scheme, HTTPAdapter(max_retries=PATIENCE))
                address = path if path.startswith("http") else self.url.rstrip("/") + path
                answer = session.request(method, address, headers=self._headers, timeout=30, **options)
        except RequestException as error:
            raise UnavailableError(f"Prefect at {self.url} does not answer: {error}") from None
        if answer.status_code == HTTPStatus.NOT_FOUND and missing_is_fine:
            return None
        if answer.status_code == HTTPStatus.INTERNAL_SERVER_ERROR and path != HEALTH and self._is_up():
            raise BrokenRecordError(f"Prefect at {self.url} fails at {method} {path}, though it is up")
        if answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise UnavailableError(f"Prefect at {self.url} answers {answer.status_code}: it is not up")
        if not answer.ok:
            raise ExpungeError(f"Prefect at {self.url} answers {answer.status_code} to {method} {path}")
        return answer.json() if answer.content else None

    def _is_up(self) -> bool:
        try:
            return self._call("GET", HEALTH) is True
        except ExpungeError:
            return False
