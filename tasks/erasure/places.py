"""The places of a checkout where copies can lie, and what is to become of what is found there."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from tasks.core.errors import ExpungeError
from tasks.core.files import STATE, read_json
from tasks.erasure import public
from tasks.erasure.checklist import Detail, Line, Outcome
from tasks.erasure.checkpoints import at_work, checkouts
from tasks.erasure.models import Models
from tasks.erasure.ownership import FOREIGN
from tasks.erasure.pointers import below_root
from tasks.erasure.side_files import passed_over, thumbnails_of
from tasks.erasure.stores import Hit, Scans, Store, Unopened
from tasks.erasure.stores.dvc import DvcCache, DvcState, Objects, remotes
from tasks.erasure.stores.folder import Folder
from tasks.erasure.stores.mlflow import RunFiles
from tasks.erasure.stores.prefect import DATABASE, EVENT, FlowRuns, local_database
from tasks.requests import inbox, pending

MLFLOW = ("mlruns", "mlartifacts")
CODE = ("tasks", "flows", "tests", "docs", "bench")
"""Folders of the project's own text, in which a name stands as an example."""
AS_EXAMPLE = "where a name stands as an example"

WORKSPACE, REST, SOURCE = "workspace", "rest of the checkout", "source"
"""Stores that hold what users put there: of these only what lies in :data:`REACH` is deleted."""
STATE_FOLDER, DVC_TEMPORARY, DESKTOP = "state", "DVC's temporary files", "thumbnails of this user"
REACH = inbox.REJECTED, inbox.CLAIMED
PASSING = inbox.INBOX, pending.PENDING
"""Where requests lie until they are taken and resolved."""
CERTIFICATES = "data/requests/certificates"


@dataclass
class Places:
    """The stores of the checkout at ``root``, but for the commits of Git.

    Attributes
    ----------
    root
        The checkout's.
    path
        The source's, as the settings have it.
    ledger
        The ledger's name: the URL of its database.
    environ
        Environment variables.
    models
        MLflow's.
    """

    root: Path
    path: Path
    ledger: str
    environ: Mapping[str, str]
    models: Models

    def objects(self, scans: Scans) -> list[Objects]:
        """DVC's cache, and its remotes."""
        return [DvcCache(self.root, scans), *remotes(self.root, scans)]

    def others(self, only: Collection[str] | None = None) -> Iterator[Store]:
        """Every store but DVC's objects; ``.expunge`` last, which the search itself writes to.

        Parameters
        ----------
        only
            The names of the stores that will be searched: others that are dear to be opened are left out.
        """
        yield Folder(WORKSPACE, self.root / "data", skip=self._our_records("data"))
        resolved = (self.root / self.path).resolve()
        if not self.is_walked(resolved):
            yield Folder(SOURCE, resolved)
        yield Folder(DVC_TEMPORARY, self.root / ".dvc/tmp")
        if only is None or DvcState.name in only:
            try:
                yield DvcState(self.root)
            except ExpungeError as error:
                yield Unopened(DvcState.name, error)
        for name in MLFLOW:
            if (self.root / name).is_dir():
                yield Folder(f"MLflow files ({name})", self.root / name)
        yield Folder(REST, self.root, skip=[*self._apart(), *self._our_records("")])
        if only is None or RunFiles.name in only:
            yield from self._run_files()
        yield Folder(DESKTOP, thumbnails_of(self.environ))
        runs = FlowRuns(self.environ, self.root)
        yield runs if runs.url else local_database(self.environ, self.root)
        yield Folder(STATE_FOLDER, self.root / STATE)

    def unsearched(self) -> Iterator[Line]:
        """Tell of what is not searched, and why that is right or wrong."""
        keyed = "they hold keyed digests, which say nothing without the request's key"
        yield Line("ledger, certificates, keys", "not searched as data", Outcome.NOT_APPLICABLE, 0, keyed)
        text = f"the project's own text and installed packages, {AS_EXAMPLE}"
        yield Line("code and virtual environments", "not searched", Outcome.NOT_APPLICABLE, 0, text)
        how = "persist_result is off for every flow and task, whatever Prefect's settings say"
        yield Line("Prefect results", "files", Outcome.NOT_APPLICABLE, 0, how)
        what = "backups, clones, downloads"
        where = "delete them where they are"
        yield Line("copies elsewhere", what, Outcome.CANNOT_BE_REACHED, 0, where)
        if not (self.root / self.path).exists():
            yield Line(SOURCE, "all of it", Outcome.NOT_SEARCHED, 0, "split.path is not there")

    def fate(self, store: Store, hit: Hit) -> Detail:
        """Return what is to become of something that was found outside DVC's objects."""
        outcome, why = Outcome.KEPT_REPORTED, hit.why
        if store.name == WORKSPACE and self._public.has(Path(hit.item)):
            return Detail(store.name, hit.item, Outcome.NOT_APPLICABLE, public.WHAT)
        if hit.weak:
            return Detail(store.name, hit.item, Outcome.NAMED_ALIKE, why)
        if hit.foreign or hit.item.startswith(EVENT):
            why = f"{why}; {FOREIGN}"
        elif store.name in {WORKSPACE, REST, SOURCE}:
            item = Path(hit.item)
            if self._is_below(item, REACH) or (hit.copy and self._is_passed_over(item)):
                outcome = Outcome.DELETED
            elif self._is_below(item, PASSING):
                outcome, why = (
                    Outcome.UNREACHABLE,
                    f"{why}; it is a request that waits, and goes once it is resolved",
                )
        elif store.name.startswith("MLflow files"):
            if not self._own_runs.isdisjoint(Path(hit.item).parts):
                outcome = Outcome.DELETED
        elif store.name == DVC_TEMPORARY and self._is_at_work(Path(hit.item)):
            outcome, why = Outcome.UNREACHABLE, f"{why}; an experiment is at work there"
        elif store.name not in {DATABASE, DESKTOP}:
            outcome = Outcome.DELETED
        return Detail(store.name, hit.item, outcome, why)

    def left(self, store: Store, hit: Hit) -> Detail:
        """Return what a search that deletes nothing says of something that it found."""
        found = self.fate(store, hit)
        if found.outcome in {Outcome.NOT_APPLICABLE, Outcome.NAMED_ALIKE, Outcome.UNREACHABLE}:
            return found
        ours = found.outcome is Outcome.DELETED
        return replace(found, outcome=Outcome.LEFT_BEHIND if ours else Outcome.KEPT_REPORTED)

    def is_walked(self, folder: Path) -> bool:
        """Whether a folder, all links resolved, lies in the checkout, and where that is searched."""
        root = self.root.resolve()
        if not folder.is_relative_to(root):
            return False
        first = folder.relative_to(root).parts[:1]
        return first not in {(each,) for each in self._apart() if each not in {"data", *MLFLOW}}

    def _run_files(self) -> Iterator[Store]:
        try:
            deletion = self.models.deletion()
            if deletion and deletion.runs_elsewhere(self.is_walked):
                yield RunFiles(deletion, self.is_walked)
        except ExpungeError as error:
            yield Unopened(RunFiles.name, error)

    def _apart(self) -> tuple[str, ...]:
        environments = [path.parent.name for path in self.root.glob("*/pyvenv.cfg")]
        return ("data", str(STATE), ".dvc", *MLFLOW, *CODE, *environments)

    def _our_records(self, below: str) -> list[str]:
        """The ledger and the certificates: they hold keyed digests, and are not searched as data."""
        ledger = self.ledger.partition("sqlite:///")[2]
        found = [CERTIFICATES, *(f"{ledger}{end}" for end in ("", "-wal", "-shm", "-journal") if ledger)]
        inside = [Path(below_root(self.root, each)) for each in found]
        return [str(each.relative_to(below)) for each in inside if each.is_relative_to(below)]

    @cached_property
    def _public(self) -> public.PublicFiles:
        return public.PublicFiles(self.root)

    @cached_property
    def _own_runs(self) -> set[str]:
        """MLflow's ids of the runs that this checkout sent."""
        from tasks.tracking import RUNS

        return {str(read_json(path).get("run_id")) for path in (self.root / RUNS).glob("*.json")}

    def _is_below(self, path: Path, folders: tuple[Path, ...]) -> bool:
        return any(path.is_relative_to(self.root / folder) for folder in folders)

    def _is_passed_over(self, path: Path) -> bool:
        """Whether it is a file of the source that is nobody's sample."""
        place, source = path.resolve(), (self.root / self.path).resolve()
        return place.is_relative_to(source) and passed_over(place.relative_to(source).as_posix())

    def _is_at_work(self, path: Path) -> bool:
        return any(path.is_relative_to(each) and at_work(each) for each in checkouts(self.root)[1:])
