"""The purge: what was erased from the model leaves the data, and every store that kept a copy.

Everything is found by keyed digests: by content where a store holds samples, by lineage where it holds what
was computed from them one by one (logits, weights). So a purge that was cut short is simply done again,
and years later the same search can be repeated (:func:`verify`).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core import git
from tasks.core.errors import ExpungeError
from tasks.core.files import STATE, digest
from tasks.core.params import Params
from tasks.datasets import SOURCES
from tasks.erasure import lineage, originals
from tasks.erasure.fingerprints import Contents
from tasks.erasure.prefect_runs import FlowRuns
from tasks.erasure.search import Wanted
from tasks.erasure.stores import DvcCache, DvcState, Folder, Hit, Objects, Store, remotes
from tasks.requests import events as facts
from tasks.requests.desk import Desk
from tasks.requests.events import NOTHING_LEFT
from tasks.requests.production import BASE, in_production, models
from tasks.requests.request import Recognition, Request
from tasks.requests.settings import settings_of
from tasks.requests.standing import Row
from tasks.requests.states import Status
from tasks.samples.image_set import ImageSet
from tasks.samples.manifest import load_samples

if TYPE_CHECKING:
    from tasks.tracking.model_registry import Models, Void

MLFLOW = ("mlruns", "mlartifacts")
CODE = ("tasks", "flows", "tests", "docs", "bench")
"""Folders of the project's own text, in which a name stands as an example."""

WORKSPACE, REST = "workspace", "rest of the checkout, code aside"
"""Stores of which only what lies in :data:`REACH` is deleted."""
REACH = "data/requests/rejected", "data/requests/claimed"

WEIGHTS = "weights.safetensors"
CHECKPOINTS = STATE / "checkpoints"


@dataclass(frozen=True, slots=True)
class Item:
    """One line of the checklist.

    Attributes
    ----------
    store
        Where.
    item
        What.
    result
        ``deleted``, ``nothing found``, ``retained ...``, ``not applicable ...`` or ``cannot be reached ...``.
    how
        How it was searched or done.
    """

    store: str
    item: str
    result: str
    how: str

    def as_json(self) -> dict[str, str]:
        """All of it, as events hold it."""
        return asdict(self)


def wanted_of(requests: Sequence[Request], desk: Desk) -> list[Wanted]:
    """Return what identifies the samples of requests anywhere.

    Raises
    ------
    ExpungeError
        If a key was destroyed: then nothing can be recognised any more.
    """
    known = desk.rows()
    current = in_production(desk.ledger)
    kept = {current.weights} if current else set()
    return [
        Wanted(
            key=desk.keys.load(request.id),
            names=request.digests.get("id", frozenset()) | request.digests.get("path", frozenset()),
            pixels=frozenset(entry["pixels"] for entry in request.content),
            files=frozenset(entry["file"] for entry in request.content if "file" in entry),
            flow_runs=_brought(desk, (row for row in known if request.id in {row.request, row.first})),
            weights=frozenset(
                base.weights
                for base in _bases([request])
                if desk.settings.superseded == "destroy" and base.weights not in kept
            ),
        )
        for request in requests
    ]


def _brought(desk: Desk, rows: Iterable[Row]) -> frozenset[str]:
    """Ids of the flow runs that brought requests."""
    found = (desk.show(row.request).received.flow_run for row in rows)
    return frozenset(run.id for run in found if run)


@dataclass
class Purge:
    """Purges requests from the stores of the checkout at ``root``."""

    root: Path
    params: Params
    desk: Desk
    environ: Mapping[str, str]

    def stores(self) -> list[Store]:
        """Every store that can be searched, the workspace first."""
        found: list[Store] = [
            Folder(WORKSPACE, self.root / "data"),
            Folder("state", self.root / STATE),
            Folder("DVC's temporary files", self.root / ".dvc/tmp"),
            DvcState(self.root),
            *self._caches(),
        ]
        found += [
            Folder(f"MLflow files ({name})", self.root / name)
            for name in MLFLOW
            if (self.root / name).is_dir()
        ]
        environments = [path.parent.name for path in self.root.glob("*/pyvenv.cfg")]
        apart = ("data", str(STATE), ".dvc", *MLFLOW, *CODE, *environments)
        found.append(Folder(REST, self.root, skip=apart))
        if self.environ.get("PREFECT_API_URL"):
            found.append(FlowRuns(self.environ))
        return found

    def waiting_for_release(self, requests: Sequence[Request]) -> dict[str, str]:
        """Requests that share samples with what is on legal hold, and with which hold."""
        holds = list(self.desk.held_samples())
        if not holds:
            return {}
        images = self._source()
        kept = {name: set(recognition.among(images.sample_ids)) for name, recognition in holds}
        return {
            request.id: name
            for request in requests
            for name, samples in kept.items()
            if name != request.id and samples & set(self._references(request, images))
        }

    def plan(self, requests: Sequence[Request]) -> list[Item]:
        """List what a purge would take; nothing is changed."""
        wanted = self._foreseen(requests)
        images = self._source()
        named = {name for request in requests for name in self._references(request, images).values()}
        found = [Item("source", name, "would be deleted", "by id") for name in sorted(named)]
        for store in self.stores():
            found += [Item(hit.store, hit.item, self._would(hit), hit.why) for hit in store.search(wanted)]
        void = self._void_objects(wanted)
        outputs = lineage.void_outputs(self.root, void, self._kept())
        for output in (each for each in outputs if each.md5 not in void):
            found.append(Item("DVC", f"{output.path} ({output.md5})", "would be deleted", "by lineage"))
        void |= {output.md5 for output in outputs}
        registry = models(self.params, self.root)
        for each in self._void_models(registry, requests, void) if registry else ():
            found.append(Item("MLflow", f"{each.kind} {each.item}", "would be deleted", each.why))
        current = in_production(self.desk.ledger)
        if current and any(not request.content for request in requests):
            model = f"the model in production, {current.weights[:12]}"
            found.append(Item("MLflow and DVC", model, "would be deleted", "once its successor is promoted"))
        return found

    def _foreseen(self, requests: Sequence[Request]) -> list[Wanted]:
        """Return what will identify samples: until their audit, what they look like is read from the data."""
        known = load_samples(mmap=True).samples.sample_ids
        wanted = []
        for request, each in zip(requests, wanted_of(requests, self.desk), strict=True):
            names = Recognition.of_remaining(request, each.key).among(known)
            content = Contents(self.desk.keys, self.params.split, names).of(request)
            pixels = each.pixels | {entry["pixels"] for entry in content}
            files = each.files | {entry["file"] for entry in content if "file" in entry}
            wanted.append(replace(each, pixels=pixels, files=files))
        return wanted

    def carry_out(self, requests: Sequence[Request]) -> list[Item]:
        """Purge the samples of requests from everywhere; return the checklist."""
        wanted = wanted_of(requests, self.desk)
        checklist = [self._originals(requests)]
        held = self._void_objects(wanted)
        outputs = lineage.void_outputs(self.root, held, self._kept())
        void = held | {output.md5 for output in outputs}
        self._split_again()
        checklist += self._mlflow(requests, void)  # while DVC's objects still tell what is void
        checklist += self._outputs(held, outputs)
        checklist += self._checkpoints()
        for store in self.stores():
            for hit in store.search(wanted):
                if self._deletable(hit):
                    store.delete(hit.item)
        checklist += self._left(wanted)
        return [*checklist, *self._beyond_reach(void)]

    def late_duplicates(self) -> None:
        """Delete what Prefect keeps of duplicates that were submitted after the purge of what they name."""
        rows = self.desk.rows()
        purged = {row.request for row in rows if row.status in {Status.PURGED, Status.CLOSED}}
        brought = _brought(self.desk, (row for row in rows if row.first in purged))
        if brought and self.environ.get("PREFECT_API_URL"):
            runs = FlowRuns(self.environ)
            for run in list(runs.runs(flow_runs={"id": {"any_": sorted(brought)}})):
                runs.delete(str(run["id"]))

    def superseded(self, requests: Sequence[Request]) -> Iterator[Item]:
        """Tell of each version that knew the samples whether it is still there."""
        registry = models(self.params, self.root)
        if registry is None:
            yield Item("MLflow", "models", "not applicable: tracking is off", "EXPUNGE_TRACKING")
            return
        there = {version.version for version in registry.versions()}
        bases = {base.version for base in _bases(requests) if base.version is not None}
        for version in sorted(bases):
            result = "retained: it was not deleted" if version in there else "deleted"
            if version in there and self._seals:
                result = self._sealed()
            yield Item("MLflow", f"version {version}", result, "the registry's list of versions")

    # the parts, in the order in which they happen

    def _originals(self, requests: Sequence[Request]) -> Item:
        split = self.params.split
        name = f"source {split.path}"
        kept = originals.why_kept(split.source)
        if kept:
            return Item(name, "originals", f"retained: {kept}", "split leaves out what was erased")
        images = self._source()
        references = {ref for request in requests for ref in self._references(request, images).values()}
        changed = originals.remove(split.source, Path(split.path), references)
        if changed and Path(f"{split.path}.dvc").exists():
            self._dvc("add", "--quiet", split.path)
        return Item(name, f"{len(references)} originals", "deleted", f"by id, in {len(changed)} files")

    def _split_again(self) -> None:
        """Rebuild ``data/split`` without the samples: its list of erased ones names them by now."""
        self._dvc("repro", "--quiet", "--single-item", "split")

    def _void_objects(self, wanted: Sequence[Wanted]) -> set[str]:
        """MD5s of DVC's objects that hold samples."""
        samples = [replace(each, weights=frozenset()) for each in wanted]
        hits = [hit for store in self._caches() for hit in store.search(samples)]
        return {hit.item for hit in hits if not hit.shared}

    def _outputs(self, held: set[str], outputs: Sequence[lineage.Output]) -> list[Item]:
        """Take objects that hold samples, and what was computed from them, out of all that is DVC's."""
        sealed = [output for output in outputs if self._seals and output.path.endswith(WEIGHTS)]
        gone = [output for output in outputs if output not in sealed]
        objects = held | {output.md5 for output in gone}
        for path in (self.root / "data").glob("*/*"):  # wherever it lies: dvc.lock may have forgotten it
            if path.name in lineage.PER_SAMPLE and digest(path) in objects:
                path.unlink()
        lineage.forget_in_lock(self.root / "dvc.lock", objects)
        for store in self._caches():
            for md5 in [*(objects - held), *held]:  # what tells of the others goes last
                store.delete(md5)
        by = "by content, as keyed digests, and by lineage: what dvc.lock of any commit says was made of it"
        items = [Item("DVC cache and remotes", f"{len(objects)} objects", "deleted", by)]
        if sealed:
            items.append(Item("DVC", f"{len(sealed)} superseded weights", self._sealed(), "lineage"))
        return items

    def _checkpoints(self) -> list[Item]:
        found = sorted((self.root / CHECKPOINTS).glob("*"))
        for path in found:
            path.unlink(missing_ok=True)
        return [Item("checkpoints", f"{len(found)} files", "deleted", f"all of {CHECKPOINTS}")]

    def _mlflow(self, requests: Sequence[Request], void: set[str]) -> list[Item]:
        registry = models(self.params, self.root)
        if registry is None:
            return [Item("MLflow", "models", "not applicable: tracking is off", "")]
        found = self._void_models(registry, requests, void)
        sealed = [each for each in found if self._seals and each.kind != "artifacts"]
        gone = [each for each in found if each not in sealed]
        registry.delete(gone)
        how = "runs that read or wrote void objects; the records of the runs stay"
        items = [Item("MLflow", f"{len(gone)} models and files", "deleted", how)]
        return items + ([Item("MLflow", f"{len(sealed)} models", self._sealed(), how)] if sealed else [])

    def _left(self, wanted: Sequence[Wanted]) -> Iterator[Item]:
        """Search every store once more: what the checklist says of a store is what is there afterwards."""
        yield from left(self.stores(), wanted, Path(self.params.split.path))
        yield from self.prefect()

    def prefect(self) -> Iterator[Item]:
        """Tell of what need not be searched of Prefect's."""
        if not self.environ.get("PREFECT_API_URL"):
            yield Item(
                FlowRuns.name, "parameters, logs", "not applicable: no server is set", "PREFECT_API_URL"
            )
        how = "persist_result is off for every flow and task, whatever Prefect's settings say"
        yield Item("Prefect results", "files", "not applicable: none are kept", how)

    def _beyond_reach(self, void: set[str]) -> Iterator[Item]:
        commits = lineage.commits_without_data(self.root, void)
        if commits:
            which = f"{len(commits)} commits, {commits[-1][:10]} to {commits[0][:10]}"
            yield Item("Git", which, "kept; their data can no longer be restored", "dvc.lock of all commits")
        if git.ask("ls-files", "--", self.params.split.path, root=self.root):
            yield Item(
                "Git history",
                self.params.split.path,
                "cannot be reached: earlier commits hold the originals; rewrite them with git filter-repo",
                "git ls-files",
            )
        yield from unsearchable(self.root)
        yield Item(
            "copies elsewhere",
            "backups, clones, downloads",
            "cannot be reached: delete them where they are",
            "not searched",
        )

    def _void_models(self, registry: Models, requests: Sequence[Request], void: set[str]) -> list[Void]:
        """Find MLflow's models and files that were made of void objects, or were the base of a batch.

        A base may be known by its weights only: an earlier purge took the split that it was trained on.
        """
        bases = {base.weights for base in _bases(requests)}
        return registry.void(weights=bases, inputs=void, keep=self._weights_kept())

    # what the parts share

    @property
    def _seals(self) -> bool:
        return settings_of(self.params).superseded == "seal"

    def _sealed(self) -> str:
        settings = settings_of(self.params)
        return f"retained until {settings.seal_until}: {settings.seal_reason}"

    def _caches(self) -> list[Objects]:
        found = (remote for remote in remotes(self.root) if remote.why_unsearchable() is None)
        return [DvcCache(self.root), *found]

    def _source(self) -> ImageSet:
        split = self.params.split
        return SOURCES.get(split.source)(Path(split.path), split.resize)

    def _references(self, request: Request, images: ImageSet) -> dict[str, str]:
        """Source references of a request's samples that are still there, by id."""
        recognition = Recognition.of_all(request, self.desk.keys.load(request.id))
        pairs = zip(images.sample_ids, images.sources, strict=True)
        return {name: source for name, source in pairs if recognition.means(name)}

    def _kept(self) -> set[str]:
        """MD5s of the weights in production."""
        path = self.root / BASE / WEIGHTS
        return {digest(path)} if path.exists() else set()

    def _weights_kept(self) -> set[str]:
        current = in_production(self.desk.ledger)
        return {current.weights} if current else set()

    def _deletable(self, hit: Hit) -> bool:
        if hit.shared:
            return False
        if hit.store not in {WORKSPACE, REST}:
            return True
        return any(Path(hit.item).is_relative_to(self.root / folder) for folder in REACH)

    def _would(self, hit: Hit) -> str:
        return "would be deleted" if self._deletable(hit) else "would be made again or kept"

    def _dvc(self, *arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "dvc", *arguments],
            cwd=self.root, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip().splitlines()
            errors = [line for line in said if line.startswith(("ERROR", "expunge"))]
            raise ExpungeError(f"dvc {arguments[0]} failed: {(errors or said or ['no reason given'])[0]}")


def left(stores: Iterable[Store], wanted: Sequence[Wanted], source: Path) -> Iterator[Item]:
    """Search stores; tell of each whether anything is left, and where."""
    for store in stores:
        hits = list(store.search(wanted))
        if not hits:
            yield Item(store.name, "samples", "nothing found", store.how)
        for hit in hits:
            reason = (
                "shared with kept data" if hit.shared
                else "of the source, see there" if source.name in hit.item
                else "not the pipeline's; remove it by hand"
            )  # fmt: skip
            yield Item(hit.store, hit.item, f"retained: {reason}", hit.why)


def _bases(requests: Iterable[Request]) -> Iterator[facts.Base]:
    """Models, by version and weights, that had learned samples of requests."""
    for request in requests:
        for attempt in request.all_common(facts.Attempt):
            if attempt.method != NOTHING_LEFT:
                yield attempt.base


def verify(purge: Purge, requests: Sequence[Request]) -> list[Item]:
    """Search every store for the samples of requests; nothing is changed."""
    wanted = wanted_of(requests, purge.desk)
    found = left(purge.stores(), wanted, Path(purge.params.split.path))
    return [*found, *purge.prefect(), *purge.superseded(requests), *unsearchable(purge.root)]


def unsearchable(root: Path) -> Iterator[Item]:
    """Tell of the remotes that cannot be searched."""
    for remote in remotes(root):
        if why := remote.why_unsearchable():
            yield Item(remote.name, "objects", f"cannot be reached: {why}", "not searched")


def purgeable(requests: Iterable[Request]) -> list[Request]:
    """Return those whose purge is due: promoted and not on hold, or begun."""
    due = {Status.PROMOTED, Status.PURGING}
    return [each for each in requests if each.state.status in due and not each.state.held]
