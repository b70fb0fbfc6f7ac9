"""Versions of the registered model, the alias of the one in production, and the deletion of void ones.

MLflow's own uniqueness is the version number alone: two processes that register the same weights would
make two versions. So everything that writes here holds a lock in ``.expunge/``.

Deleting in MLflow is mostly marking. A registered version becomes a row without content, a logged model
stays with all its files, and ``mlflow gc`` would also take every other deleted run and experiment. So
files are deleted from the artifact store first, through the server where that hands them out, and then
the rows. A server has no request that deletes the row of a logged model for good: that is left, without
files and invisible, to ``mlflow gc`` on the server's own machine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelStatus, Run, ViewType
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from tasks.core.errors import ExpungeError, UnavailableError
from tasks.core.files import STATE
from tasks.core.params import Tracking
from tasks.journal.origin import store_uri
from tasks.tracking.probe import why_unreachable
from tasks.tracking.sender import limit_http
from tasks.tracking.store import KEY, STAGE, Store, name_for

ALIAS = "production"
WEIGHTS = "weights.sha256"
VERSION, MODEL, ARTIFACTS = "registered version", "logged model", "artifacts"
PER_SAMPLE = ("tables/losses.csv",)
"""Artifacts of runs that are deleted with void data; the others hold figures of whole sets."""
MODEL_ID = re.compile("m-[0-9a-f]{32}")


class LostRunError(ExpungeError):
    """A run, or its model, that MLflow does not have.

    It was not sent yet, was deleted, or the store is lost.
    """


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


@dataclass(frozen=True)
class Void:
    """Something in MLflow that must go: its kind, which one it is, and why."""

    kind: str
    item: str
    why: str


P = ParamSpec("P")
T = TypeVar("T")


def _asks(method: Callable[Concatenate[Models, P], T]) -> Callable[Concatenate[Models, P], T]:
    """Turn what MLflow or the artifact store refuses into one line."""

    @wraps(method)
    def ask(self: Models, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(self, *args, **kwargs)
        except (MlflowException, OSError) as error:
            self._see_that_it_answers()
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

    @_asks
    def _connect(self, root: Path) -> None:
        self._see_that_it_answers()
        limit_http(self.timeout)
        self._runs = Store(self.uri, root)
        # without registry_uri, MLFLOW_REGISTRY_URI in the environment would lead elsewhere
        self._client = MlflowClient(self.uri, registry_uri=self.uri)
        self._store = self._client._tracking_client.store  # knows what the client hides: deleted models
        (root / STATE).mkdir(exist_ok=True)
        self._lock = FileLock(root / STATE / "registry.lock")

    def _see_that_it_answers(self) -> None:
        if reason := why_unreachable(self.uri, self.timeout):
            raise UnavailableError(f"MLflow does not answer: {reason}")

    @_asks
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
        ExpungeError
            If the run is not in MLflow, has no model there, or made other weights.
        """
        run = self._run(key)
        made = run.data.tags.get(WEIGHTS)
        if made != weights:
            raise ExpungeError(
                f"run {key} made weights {made or '(none)'} according to MLflow, not {weights}"
            )
        with self._lock:
            for version in self.versions():
                if (version.run, version.weights) == (key, weights):
                    return version
            model = self._model_of(run)
            self._create_registered_model()
            created = self._client.create_model_version(
                self.name,
                model.artifact_location,  # models:/<id> would be looked up in MLflow's global store
                run.info.run_id,
                tags={name_for(name): value for name, value in tags.items()} | {KEY: key, WEIGHTS: weights},
                model_id=model.model_id,
            )
        return _version(created)

    @_asks
    def production(self) -> Version | None:
        """Version that the alias ``production`` points at."""
        with _gone_is_fine():
            version = self._client.get_registered_model(self.name).aliases.get(ALIAS)
            if version is not None:
                return _version(self._client.get_model_version(self.name, version))
        return None

    @_asks
    def promote(self, version: str) -> None:
        """Let the alias ``production`` point at a version."""
        with self._lock:
            self._client.set_registered_model_alias(self.name, ALIAS, version)

    @_asks
    def versions(self) -> list[Version]:
        """All versions, in the order of their numbers."""
        found = _pages(self._client.search_model_versions, filter_string=f"name = {_quoted(self.name)}")
        return sorted(map(_version, found), key=lambda version: int(version.version))

    @_asks
    def tag_run(self, key: str, tags: Mapping[str, str]) -> None:
        """Set tags of a run.

        Raises
        ------
        ExpungeError
            If the run is not in MLflow.
        """
        self._runs.write(self._run(key).info.run_id, tags=tags)

    @_asks
    def runs_with(self, tag: str, value: str) -> list[dict[str, Any]]:
        """Runs of any experiment, deleted ones too, that have a tag with this value; oldest first.

        Returns
        -------
        list
            ``{"run_id", "key", "stage", "status", "tags"}`` of each; key and stage may be ``None``.
        """
        found = self._all_runs(f"tags.`{tag}` = {_quoted(value)}")
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

    @_asks
    def void(
        self, *, weights: Collection[str] = (), inputs: Collection[str] = (), keep: Collection[str]
    ) -> list[Void]:
        """Find what must go, in the order in which :meth:`delete` takes it; nothing is changed.

        Parameters
        ----------
        weights
            SHA-256 of void tensors.
        inputs
            MD5 of void files: what was made from them or holds them is void too.
        keep
            SHA-256 of tensors that stay, whatever they were made from.
        """
        models: list[Void] = []
        artifacts: list[Void] = []
        runs: dict[str, str] = {}
        for run in self._all_runs():
            of_input = _void_file(run, inputs)
            why = _void_weights(run.data.tags, weights) or of_input
            if why and run.data.tags.get(WEIGHTS) not in keep:
                runs[run.info.run_id] = why
                models += [Void(MODEL, model.model_id, why) for model in self._models_with_files(run)]
            if of_input:
                files = self._per_sample_files(run)
                artifacts += [Void(ARTIFACTS, f"{run.info.run_id}/{file}", of_input) for file in files]
        versions = []
        for version in _pages(self._client.search_model_versions):  # of any registered model
            why = _void_weights(version.tags, weights) or runs.get(version.run_id)
            if why and version.tags.get(WEIGHTS) not in keep:
                versions.append(Void(VERSION, f"{version.name}/{version.version}", why))
        return [*versions, *models, *artifacts]

    @_asks
    def delete(self, void: Iterable[Void]) -> None:
        """Delete what :meth:`void` found, for good; what is gone already is passed over.

        The runs stay, with their parameters, metrics and tags.

        Raises
        ------
        ExpungeError
            If the version in production is among it, or its model: then nothing is deleted.
        """
        kinds = {VERSION: self._delete_version, MODEL: self._delete_model, ARTIFACTS: self._delete_file}
        found = sorted(void, key=lambda each: list(kinds).index(each.kind))
        with self._lock:
            protected = self._in_production()
            for each in found:
                if each.item in protected:
                    raise ExpungeError(
                        f"{each.kind} {each.item} is in production and is not deleted; "
                        f"let the alias {ALIAS} point at another version first"
                    )
            for each in found:
                with _gone_is_fine():
                    kinds[each.kind](each.item)

    def _run(self, key: str) -> Run:
        run = self._runs.find(key)
        if run is None:
            raise LostRunError(f"run {key} is not in MLflow; send it first: python -m tasks.tracking flush")
        return run

    def _model_of(self, run: Run) -> LoggedModel:
        for model in self._models_of(run):
            if model.status == LoggedModelStatus.READY:
                return model
        raise LostRunError(f"run {run.data.tags[KEY]} has no model in MLflow")

    def _create_registered_model(self) -> None:
        try:
            self._client.create_registered_model(self.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _all_runs(self, filter_string: str = "") -> Iterator[Run]:
        experiments = _pages(self._client.search_experiments, view_type=ViewType.ALL)
        yield from _pages(
            self._client.search_runs,
            experiment_ids=[experiment.experiment_id for experiment in experiments],
            filter_string=filter_string,
            run_view_type=ViewType.ALL,
        )

    def _models_of(self, run: Run) -> Iterator[LoggedModel]:
        """Logged models of a run that are not marked as deleted, finished or not."""
        yield from _pages(
            self._client.search_logged_models,
            experiment_ids=[run.info.experiment_id],
            filter_string=f"source_run_id = '{run.info.run_id}'",
        )

    def _models_with_files(self, run: Run) -> Iterator[LoggedModel]:
        """Logged models of a run; those that are marked as deleted, while they still have files."""
        active = {model.model_id: model for model in self._models_of(run)}
        yield from active.values()
        for output in run.outputs.model_outputs if run.outputs else ():
            if output.model_id not in active:
                with _gone_is_fine():
                    model = self._store.get_logged_model(output.model_id, allow_deleted=True)
                    if self._files(model.artifact_location).list_artifacts():
                        yield model

    def _per_sample_files(self, run: Run) -> list[str]:
        files = self._files(run.info.artifact_uri)
        folders = {path.rpartition("/")[0] for path in PER_SAMPLE}
        there = {file.path for folder in folders for file in files.list_artifacts(folder)}
        return [path for path in PER_SAMPLE if path in there]

    def _files(self, location: str) -> ArtifactRepository:
        return get_artifact_repository(location, tracking_uri=self.uri)

    def _in_production(self) -> set[str]:
        """Versions that have the alias, of any registered model, and the logged models behind them."""
        found = set()
        for model in _pages(self._client.search_registered_models):
            if version := model.aliases.get(ALIAS):
                location = self._client.get_model_version_download_uri(model.name, version)
                found |= {f"{model.name}/{version}", *MODEL_ID.findall(location)}
        return found

    def _delete_version(self, item: str) -> None:
        name, _, version = item.rpartition("/")
        self._client.delete_model_version(name, version)

    def _delete_model(self, model_id: str) -> None:
        model = self._store.get_logged_model(model_id, allow_deleted=True)
        self._files(model.artifact_location).delete_artifacts()
        self._client.delete_logged_model(model_id)
        if hasattr(self._store, "_hard_delete_logged_model"):  # as mlflow gc does it
            self._store._hard_delete_logged_model(model_id)

    def _delete_file(self, item: str) -> None:
        run_id, _, path = item.partition("/")
        self._files(self._client.get_run(run_id).info.artifact_uri).delete_artifacts(path)


def _pages(search: Callable[..., Any], **question: Any) -> Iterator[Any]:
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
def _gone_is_fine() -> Iterator[None]:
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


def _void_weights(tags: Mapping[str, str], weights: Collection[str]) -> str | None:
    return f"{WEIGHTS} is {tags[WEIGHTS]}" if tags.get(WEIGHTS) in weights else None


def _void_file(run: Run, inputs: Collection[str]) -> str | None:
    """Why a run's files are void: the first of its inputs and outputs that is."""
    for tag, value in sorted(run.data.tags.items()):
        if tag.startswith(("dvc.in.", "dvc.out.")) and value in inputs:
            return f"{tag} is {value}"
    return None
