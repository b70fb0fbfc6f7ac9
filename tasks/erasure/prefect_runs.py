"""Prefect's flow runs, over its REST API: their parameters, which may be requests, and their logs."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from requests import RequestException, Session
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from tasks.core.errors import ExpungeError, UnavailableError
from tasks.erasure.search import Wanted, find
from tasks.erasure.stores import Hit

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


class FlowRuns:
    """Parameters and logs of all flow runs of the server at PREFECT_API_URL."""

    name = "Prefect flow runs"
    how = (
        "the parameters and logs of every flow run, read through the server's API, "
        "and by id the runs that brought the request"
    )

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.url = environ.get("PREFECT_API_URL", "")
        self._headers = {}
        if key := environ.get("PREFECT_API_KEY"):
            self._headers["Authorization"] = f"Bearer {key}"
        elif pair := environ.get("PREFECT_API_AUTH_STRING"):
            self._headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"

    def search(self, wanted: Sequence[Wanted]) -> Iterator[Hit]:
        """Find runs that brought a request, or whose parameters or logs name a sample; an item is an id."""
        brought = frozenset[str]().union(*(each.flow_runs for each in wanted))
        found = set()
        for run in self.runs():
            if run["id"] in brought:
                found.add(run["id"])
                yield Hit(self.name, str(run["id"]), f"flow run {run['name']} brought the request")
            elif find(json.dumps(run["parameters"]).encode(), wanted):
                found.add(run["id"])
                yield Hit(self.name, str(run["id"]), f"parameters of flow run {run['name']} name samples")
        for line in self._all("/logs/filter", sort="TIMESTAMP_ASC"):
            run_id = line["flow_run_id"]
            if run_id and run_id not in found and find(line["message"].encode(), wanted):
                found.add(run_id)
                yield Hit(self.name, str(run_id), f"the log of flow run {run_id} names samples")

    def delete(self, item: str) -> None:
        """Delete a flow run with its log; one that is gone already stays gone, one at work stays."""
        run = self._call("GET", f"/flow_runs/{item}", missing_is_fine=True)
        if run is None or run["state_type"] in AT_WORK:
            return
        self._call("DELETE", f"/flow_runs/{item}", missing_is_fine=True)

    def runs(self, **filters: Any) -> Iterator[dict[str, Any]]:
        """All flow runs, oldest first."""
        return self._all("/flow_runs/filter", sort="EXPECTED_START_TIME_ASC", **filters)

    def _all(self, path: str, **question: Any) -> Iterator[dict[str, Any]]:
        offset = 0
        while True:
            page = self._call("POST", path, json={"limit": PAGE, "offset": offset, **question})
            yield from page
            if len(page) < PAGE:
                return
            offset += PAGE

    def _call(self, method: str, path: str, *, missing_is_fine: bool = False, **options: Any) -> Any:
        try:
            with Session() as session:
                for scheme in ("http://", "https://"):
                    session.mount(scheme, HTTPAdapter(max_retries=PATIENCE))
                address = self.url.rstrip("/") + path
                answer = session.request(method, address, headers=self._headers, timeout=30, **options)
        except RequestException as error:
            raise UnavailableError(f"Prefect at {self.url} does not answer: {error}") from None
        if answer.status_code == HTTPStatus.NOT_FOUND and missing_is_fine:
            return None
        if answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise UnavailableError(f"Prefect at {self.url} answers {answer.status_code}: it is not up")
        if not answer.ok:
            raise ExpungeError(f"Prefect at {self.url} answers {answer.status_code} to {method} {path}")
        return answer.json() if answer.content else None
