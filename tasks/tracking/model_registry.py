"""Versions of the registered model, and the alias of the one in production.

MLflow's own uniqueness is the version number alone: two processes that register the same weights would
make two versions. So everything that writes here holds a lock in ``.expunge/``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelStatus, Run, ViewType
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from tasks.core.errors import ExpungeError, UnavailableError
from tasks.core.files import STATE
from tasks.core.params import Tracking
from tasks.journal.origin import store_uri
from tasks.tracking.probe import why_unreachable
from tasks.tracking.sender import limit_http
from tasks.tracking.store import KEY, STAGE, Store, name_for

ALIAS = "production"
WEIGHTS = "weights.sha256"
MODEL_ID = re.compile("m-[0-9a-f]{32}")


INSTEAD = "expunge.recovered"
"""Tag of a version whose weights were recorded anew: our key of the run that MLflow has lost."""


class LostRunError(ExpungeError):
    """A run, or its model, that MLflow does not have: not sent yet, deleted there, or the store is lost."""


@dataclass(frozen=True)
class Version:
    """A version of the registered model.

    Attributes
    ----------
    version
        Its number, as text.
    weights, run
        SHA-256 of the tensors and our key of the run that made them; empty if it was not made here.
    run_id, model_id
        What MLflow calls the run and its logged model.
    """

    version: str
    weights: str
    run: str
    run_id: str
    model_id: str | None
    tags: dict[str, str]


class Connected(Protocol):
    """Whatever asks MLflow."""

    def see_that_it_answers(self) -> None:
        """Raise :class:`UnavailableError` if it does not."""


P = ParamSpec("P")
T = TypeVar("T")
C = TypeVar("C", bound=Connected)


def asks(method: Callable[Concatenate[C, P], T]) -> Callable[Concatenate[C, P], T]:
    """Turn what MLflow or the artifact store refuses into one line."""

    @wraps(method)
    def ask(self: C, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(self, *args, **kwargs)
        except (MlflowException, OSError) as error:
            self.see_that_it_answers()
            line = " ".join(str(error).split())[:300]
            raise ExpungeError(f"MLflow refuses: {line}") from error

    return ask


class Models:
    """The registered model ``name``, and all runs and logged models of the store that it is in.

    Raises
    ------
    UnavailableError
        If MLflow does not answer, here or later.
    ExpungeError
        If it refuses what it is asked.
    """

    def __init__(self, tracking: Tracking, name: str, root: Path) -> None:
        self.uri = store_uri(tracking.uri, root)
        self.tracking = tracking
        self.timeout = tracking.timeout
        self.name = name
        self._connect(root)

    @asks
    def _connect(self, root: Path) -> None:
        self.see_that_it_answers()
        limit_http(self.timeout)
        self.runs = Store(self.uri, root)
        # without registry_uri, MLFLOW_REGISTRY_URI in the environment would lead elsewhere
        self.client = MlflowClient(self.uri, registry_uri=self.uri)
        self.store = self.client._tracking_client.store  # knows what the client hides: deleted models
        (root / STATE).mkdir(exist_ok=True)
        self.lock = FileLock(root / STATE / "registry.lock")

    def see_that_it_answers(self) -> None:
        """Raise :class:`UnavailableError` if it does not."""
        if reason := why_unreachable(self.uri, self.timeout):
            raise UnavailableError(f"MLflow does not answer: {reason}")

    @asks
    def register(self, key: str, weights: str, tags: Mapping[str, str]) -> Version:
        """Make the logged model of a run a version, unless it is one.

        Parameters
        ----------
        key
            Our key of the run.
        weights
            SHA-256 of the tensors that the run must have made.
        tags
            Further tags of a new version; the key and ``weights`` are always among them.

        Raises
        ------
        LostRunError
            If the run is not in MLflow, was deleted there, or has no model.
        ExpungeError
            If it made other weights.
        """
        for version in self.versions():
            recovered = version.weights == weights and key == version.tags.get(INSTEAD)
            if recovered and self.runs.find(version.run):
                return version
        run = self._run(key)
        made = run.data.tags.get(WEIGHTS)
        if made != weights:
            raise ExpungeError(
                f"run {key} made weights {made or '(none)'} according to MLflow, not {weights}"
            )
        with self.lock:
            for version in self.versions():
                if (version.run, version.weights) == (key, weights):
                    return version
            model = self._model_of(run)
            self._create_registered_model()
            created = self.client.create_model_version(
                self.name,
                model.artifact_location,  # models:/<id> would be looked up in MLflow's global store
                run.info.run_id,
                tags={name_for(name): value for name, value in tags.items()} | {KEY: key, WEIGHTS: weights},
                model_id=model.model_id,
            )
        return _version(created)

    @asks
    def see_that_it_takes_runs(self) -> None:
        """Raise :class:`ExpungeError` if the experiment is deleted, so that no run can be recorded."""
        self.runs.experiment(self.tracking.experiment)

    @asks
    def production(self) -> Version | None:
        """Version that the alias ``production`` points at."""
        with gone_is_fine():
            version = self.client.get_registered_model(self.name).aliases.get(ALIAS)
            if version is not None:
                return _version(self.client.get_model_version(self.name, version))
        return None

    @asks
    def promote(self, version: str) -> None:
        """Let the alias ``production`` point at a version."""
        with self.lock:
            self.client.set_registered_model_alias(self.name, ALIAS, version)

    @asks
    def versions(self) -> list[Version]:
        """All versions, in the order of their numbers."""
        found = pages(self.client.search_model_versions, filter_string=f"name = {_quoted(self.name)}")
        return sorted(map(_version, found), key=lambda version: int(version.version))

    @asks
    def tag_run(self, key: str, tags: Mapping[str, str]) -> bool:
        """Set tags of a run; return whether it is there: one that was deleted in MLflow takes none."""
        run = self.runs.find(key)
        if run is not None:
            self.runs.write(run.info.run_id, tags=tags)
        return run is not None

    @asks
    def runs_with(self, tag: str, value: str) -> list[dict[str, Any]]:
        """Runs of any experiment, deleted ones too, that have a tag with this value; oldest first.

        Returns
        -------
        list
            ``{"run_id", "key", "stage", "status", "tags"}`` of each; key and stage may be ``None``.
        """
        found = self.all_runs(f"tags.`{tag}` = {_quoted(value)}")
        return [
            {
                "run_id": run.info.run_id,
                "key": run.data.tags.get(KEY),
                "stage": run.data.tags.get(STAGE),
                "status": run.info.status,
                "tags": dict(run.data.tags),
            }
            for run in sorted(found, key=lambda run: int(run.info.start_time))
        ]

    def _run(self, key: str) -> Run:
        run = self.runs.find(key)
        if run is None:
            deleted = next(self.all_runs(f"tags.`{KEY}` = {_quoted(key)}"), None)
            if deleted is not None:
                run_id = deleted.info.run_id
                raise LostRunError(
                    f"run {key} was deleted in MLflow; restore it: mlflow runs restore --run-id {run_id}"
                )
            raise LostRunError(f"run {key} is not in MLflow; send it first: python -m tasks.tracking flush")
        return run

    def _model_of(self, run: Run) -> LoggedModel:
        for model in self.models_of(run):
            if model.status == LoggedModelStatus.READY:
                return model
        raise LostRunError(f"run {run.data.tags[KEY]} has no model in MLflow")

    def _create_registered_model(self) -> None:
        try:
            self.client.create_registered_model(self.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def all_runs(self, filter_string: str = "") -> Iterator[Run]:
        """Runs of any experiment, deleted ones too."""
        experiments = pages(self.client.search_experiments, view_type=ViewType.ALL)
        yield from pages(
            self.client.search_runs,
            experiment_ids=[experiment.experiment_id for experiment in experiments],
            filter_string=filter_string,
            run_view_type=ViewType.ALL,
        )

    def models_of(self, run: Run) -> Iterator[LoggedModel]:
        """Logged models of a run that are not marked as deleted, finished or not."""
        yield from pages(
            self.client.search_logged_models,
            experiment_ids=[run.info.experiment_id],
            filter_string=f"source_run_id = '{run.info.run_id}'",
        )


def pages(search: Callable[..., Any], **question: Any) -> Iterator[Any]:
    """All results of a search, whatever MLflow's longest page is."""
    token = None
    while True:
        page = search(page_token=token, **question)
        yield from page
        token = page.token
        if not token:
            return


def _quoted(value: str) -> str:
    return f'"{value}"' if "'" in value else f"'{value}'"


@contextmanager
def gone_is_fine() -> Iterator[None]:
    """Pass over what MLflow does not have."""
    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise


def _version(found: ModelVersion) -> Version:
    """One of MLflow's; its own field ``model_id`` is empty in every store but Databricks'."""
    ids = MODEL_ID.findall(found.source or "")
    tags = dict(found.tags)
    return Version(
        version=str(found.version),
        weights=tags.get(WEIGHTS, ""),
        run=tags.get(KEY, ""),
        run_id=found.run_id or "",
        model_id=ids[-1] if ids else None,
        tags=tags,
    )
