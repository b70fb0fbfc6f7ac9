"""Deletion from MLflow of what was made of erased samples.

Deleting in MLflow is mostly marking. A registered version becomes a row without content, a logged model
stays with all its files, and ``mlflow gc`` would also take every other deleted run and experiment. So
files are deleted from the artifact store first, through the server where that hands them out, and then
the rows. A server has no request that deletes the row of a logged model for good: that is left, without
files and invisible, to ``mlflow gc`` on the server's own machine.

A server may be shared. Only what runs of this project hold is deleted: they carry our key, and lie in our
experiment or were sent from this checkout.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlparse

from mlflow.entities import LoggedModel, Run
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from tasks.core.errors import ExpungeError
from tasks.core.temporary import temporary_folder
from tasks.tracking import RUNS
from tasks.tracking.model_registry import ALIAS, MODEL_ID, WEIGHTS, Models, asks, gone_is_fine, pages
from tasks.tracking.store import KEY

VERSION, MODEL, ARTIFACTS = "registered version", "logged model", "artifacts"
PER_SAMPLE = ("tables/losses.csv", "tables/verdict.json")
"""Artifacts of runs that are deleted with void data; the others hold figures of whole sets.

Verdicts of earlier versions held a score of each member.
"""


@dataclass(frozen=True)
class Void:
    """Something in MLflow that must go.

    Attributes
    ----------
    kind, item
        What it is, and which one.
    why
        What tells it.
    ours
        Whether a run of this project made it; others' is reported only.
    """

    kind: str
    item: str
    why: str
    ours: bool = True


class Deletion:
    """Finds and deletes what was made of erased samples, in the store that ``models`` is connected to.

    Parameters
    ----------
    models
        The connection.
    experiment
        Name of this project's experiment.
    root
        The checkout, which knows the runs that it sent.
    """

    def __init__(self, models: Models, experiment: str, root: Path) -> None:
        self.models = models
        self._experiment = experiment
        self._root = root

    def see_that_it_answers(self) -> None:
        """Raise :class:`~tasks.core.errors.UnavailableError` if it does not."""
        self.models.see_that_it_answers()

    @asks
    def find(
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
        ours = set()
        for run in self.models.all_runs():
            mine = self._is_ours(run)
            ours |= {run.info.run_id} if mine else set()
            of_input = _void_file(run, inputs)
            why = _void_weights(run.data.tags, weights) or of_input
            if why and run.data.tags.get(WEIGHTS) not in keep:
                runs[run.info.run_id] = why
                models += [Void(MODEL, model.model_id, why, mine) for model in self._models_with_files(run)]
            if of_input:
                files = self._per_sample_files(run)
                artifacts += [Void(ARTIFACTS, f"{run.info.run_id}/{file}", of_input, mine) for file in files]
        versions = []
        for version in pages(self.models.client.search_model_versions):  # of any registered model
            why = _void_weights(version.tags, weights) or runs.get(version.run_id)
            if why and version.tags.get(WEIGHTS) not in keep:
                item = f"{version.name}/{version.version}"
                versions.append(Void(VERSION, item, why, version.run_id in ours))
        return [*versions, *models, *artifacts]

    @asks
    def delete(self, void: Iterable[Void]) -> None:
        """Delete what :meth:`find` found, for good; what is gone already is passed over.

        The runs stay, with their parameters, metrics and tags; and so does what is somebody else's.

        Raises
        ------
        ExpungeError
            If the version in production is among it, or its model: then nothing is deleted.
        """
        kinds = {VERSION: self._delete_version, MODEL: self._delete_model, ARTIFACTS: self.delete_file}
        found = sorted((each for each in void if each.ours), key=lambda each: list(kinds).index(each.kind))
        with self.models.lock:
            protected = self._in_production()
            for each in found:
                if each.item in protected:
                    raise ExpungeError(
                        f"{each.kind} {each.item} is in production and is not deleted; "
                        f"let the alias {ALIAS} point at another version first"
                    )
            for each in found:
                with gone_is_fine():
                    kinds[each.kind](each.item)

    @asks
    def runs_elsewhere(self, is_searched: Callable[[Path], bool]) -> list[Run]:
        """Runs of this project whose files do not lie in a folder of this machine that is searched anyway."""
        return [
            run
            for run in self.models.all_runs()
            if self._is_ours(run) and not _lies_where(run.info.artifact_uri, is_searched)
        ]

    @asks
    def files(self, runs: Iterable[Run]) -> dict[str, int]:
        """Size of every file of runs, by ``<run id>/<path>``, models' files apart."""
        found: dict[str, int] = {}
        for run in runs:
            with gone_is_fine():
                files = _walked(self._files(run.info.artifact_uri))
                found |= {f"{run.info.run_id}/{path}": size for path, size in files}
        return found

    @contextmanager
    def downloaded(self, item: str) -> Iterator[Path]:
        """Hold a file that :meth:`files` named, for as long as the context lasts."""
        run_id, _, path = item.partition("/")
        with temporary_folder(self._root) as folder:
            yield Path(self._download(run_id, path, str(folder)))

    @asks
    def delete_file(self, item: str) -> None:
        """Delete a file of a run; one that is gone already stays gone."""
        run_id, _, path = item.partition("/")
        with gone_is_fine():
            self._files(self.models.client.get_run(run_id).info.artifact_uri).delete_artifacts(path)

    @asks
    def _download(self, run_id: str, path: str, folder: str) -> str:
        files = self._files(self.models.client.get_run(run_id).info.artifact_uri)
        return str(files.download_artifacts(path, folder))

    def _is_ours(self, run: Run) -> bool:
        key = run.data.tags.get(KEY)
        if not key:
            return False
        if (self._root / RUNS / f"{key}.json").exists():
            return True
        experiment = self.models.client.get_experiment(run.info.experiment_id)
        return str(experiment.name) == self._experiment

    def _models_with_files(self, run: Run) -> Iterator[LoggedModel]:
        """Logged models of a run; those that are marked as deleted, while they still have files."""
        active = {model.model_id: model for model in self.models.models_of(run)}
        yield from active.values()
        for output in run.outputs.model_outputs if run.outputs else ():
            if output.model_id not in active:
                with gone_is_fine():
                    model = self.models.store.get_logged_model(output.model_id, allow_deleted=True)
                    if self._files(model.artifact_location).list_artifacts():
                        yield model

    def _per_sample_files(self, run: Run) -> list[str]:
        files = self._files(run.info.artifact_uri)
        folders = {path.rpartition("/")[0] for path in PER_SAMPLE}
        there = {file.path for folder in folders for file in files.list_artifacts(folder)}
        return [path for path in PER_SAMPLE if path in there]

    def _files(self, location: str) -> ArtifactRepository:
        return get_artifact_repository(location, tracking_uri=self.models.uri)

    def _in_production(self) -> set[str]:
        """Versions that have the alias, of any registered model, and the logged models behind them."""
        found = set()
        for model in pages(self.models.client.search_registered_models):
            if version := model.aliases.get(ALIAS):
                location = self.models.client.get_model_version_download_uri(model.name, version)
                found |= {f"{model.name}/{version}", *MODEL_ID.findall(location)}
        return found

    def _delete_version(self, item: str) -> None:
        name, _, version = item.rpartition("/")
        self.models.client.delete_model_version(name, version)

    def _delete_model(self, model_id: str) -> None:
        model = self.models.store.get_logged_model(model_id, allow_deleted=True)
        self._files(model.artifact_location).delete_artifacts()
        with _deleted_is_fine():
            self.models.client.delete_logged_model(model_id)
        if hasattr(self.models.store, "_hard_delete_logged_model"):  # as mlflow gc does it
            self.models.store._hard_delete_logged_model(model_id)


@contextmanager
def _deleted_is_fine() -> Iterator[None]:
    """Pass over what a user marked as deleted before: its files were the point."""
    try:
        yield
    except MlflowException as error:
        if error.error_code not in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "INVALID_STATE"}:
            raise


def _walked(files: ArtifactRepository, below: str | None = None) -> Iterator[tuple[str, int]]:
    for entry in files.list_artifacts(below):
        if entry.is_dir:
            yield from _walked(files, entry.path)
        else:
            yield entry.path, int(entry.file_size or 0)


def _lies_where(location: str, is_searched: Callable[[Path], bool]) -> bool:
    """Whether a location of artifacts is a folder that is here, and fits."""
    address = urlparse(location)
    path = Path(unquote(address.path))
    return address.scheme in {"", "file"} and path.is_dir() and is_searched(path.resolve())


def _void_weights(tags: Mapping[str, str], weights: Collection[str]) -> str | None:
    return f"{WEIGHTS} is {tags[WEIGHTS]}" if tags.get(WEIGHTS) in weights else None


def _void_file(run: Run, inputs: Collection[str]) -> str | None:
    """Why a run's files are void: the first of its inputs and outputs that is."""
    for tag, value in sorted(run.data.tags.items()):
        if tag.startswith(("dvc.in.", "dvc.out.")) and value.removesuffix(".dir") in inputs:
            return f"{tag} is {value}"
    return None
