"""The purge: what was erased from the model leaves the data, and every store that kept a copy.

Everything is found by keyed digests: by content where a store holds samples, by lineage where it holds what
was computed from them one by one (logits, weights). Of what is found, only originals that requests name and
what this repository's stages made are deleted; all else is reported by name and left alone. A purge that was
cut short is simply done again, and years later the same search can be repeated (:func:`verify`).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from tasks.core.dvc_failure import who_is_busy
from tasks.core.errors import BusyError, ExpungeError
from tasks.core.files import STATE, digest, write_text
from tasks.core.params import Params
from tasks.core.temporary import clear
from tasks.datasets import SOURCES
from tasks.erasure import lineage, originals, pointer, public
from tasks.erasure.begun import FOLDER, Begun
from tasks.erasure.checklist import Checklist, Detail, Line, Outcome, counted
from tasks.erasure.checkpoints import at_work, checkouts, checkpoints
from tasks.erasure.git_rewrite import how_to_rewrite
from tasks.erasure.identity import bases_of, brought, forget, of_data, of_ledger, recorded_weights, remembered
from tasks.erasure.ownership import FOREIGN, Ownership
from tasks.erasure.pointers import Pointers, below_root, read_pointers
from tasks.erasure.repositories import others
from tasks.erasure.search import find
from tasks.erasure.side_files import passed_over, remove_copies, thumbnails_of
from tasks.erasure.sought import Sought
from tasks.erasure.source import bring_up_to_date, pointers_of_source
from tasks.erasure.stores import Hit, Scans, Store, Unopened, UnsearchableError
from tasks.erasure.stores.dvc import DvcCache, DvcRemote, DvcState, Objects, bare, folder_list, remotes
from tasks.erasure.stores.folder import BESIDE, Folder
from tasks.erasure.stores.mlflow import RunFiles
from tasks.erasure.stores.prefect import DATABASE, EVENT, FlowRuns, local_database
from tasks.erasure.stores_git import GitHistory, Held
from tasks.requests.desk import Desk
from tasks.requests.naming import meant
from tasks.requests.production import BASE, in_production, models
from tasks.requests.request import Request
from tasks.requests.settings import settings_of
from tasks.requests.states import Status
from tasks.samples.image_set import ImageSet

if TYPE_CHECKING:
    from tasks.tracking.deletion import Deletion, Void

MLFLOW, MODELS = ("mlruns", "mlartifacts"), "MLflow"
CODE = ("tasks", "flows", "tests", "docs", "bench")
"""Folders of the project's own text, in which a name stands as an example."""
AS_EXAMPLE = "where a name stands as an example"

WORKSPACE, REST, SOURCE = "workspace", "rest of the checkout", "source"
"""Stores that hold what users put there: of these only what lies in :data:`REACH` is deleted."""
GIT, OTHER_GIT = "Git history", "other Git repositories"
STATE_FOLDER, DVC_TEMPORARY, DESKTOP = "state", "DVC's temporary files", "thumbnails of this user"
REACH = "data/requests/rejected", "data/requests/claimed"

WEIGHTS = "weights.safetensors"
CERTIFICATES = "data/requests/certificates"

DUE = frozenset({Status.PROMOTED, Status.PURGING})
"""Statuses of requests whose purge is due."""

MEANING = {
    Outcome.KEPT_SHARED: "kept data, or another project, has the same; it stays theirs",
    Outcome.KEPT_REPORTED: f"{FOREIGN}, or needed by somebody; expunge verify erasure names it",
    Outcome.LEFT_BEHIND: "this repository's, and still there; expunge verify erasure names it",
    Outcome.NOT_SEARCHED: "could not be read",
}


@dataclass
class Purge:
    """Purges requests from the stores of the checkout at ``root``."""

    root: Path
    params: Params
    desk: Desk
    environ: Mapping[str, str]
    _details: list[Detail] = field(default_factory=list, init=False)
    _scans: Scans = field(default_factory=Scans, init=False)

    def waiting_for_release(self, requests: Sequence[Request]) -> dict[str, str]:
        """Requests that share samples with what is on legal hold, and with which hold."""
        if not self.desk.holds() and not any(row.held for row in self.desk.ledger.rows(only_open=True)):
            return {}
        images = self._source()
        kept = dict(self.desk.held_samples(frozenset(images.sample_ids)))
        return {
            request.id: name
            for request in requests
            for name, samples in kept.items()
            if name != request.id and samples & set(self._references(request, images))
        }

    def own_changes(self) -> list[str]:
        """Files that Git tracks and that a purge which is not recorded yet may have changed."""
        begun = Begun.read(self.root)
        pending = {row.request for row in self.desk.ledger.rows(only_open=True) if row.status in DUE}
        return begun.files if pending.intersection(begun.requests) else []

    def open_requests(self) -> list[str]:
        """Ids of the purged requests for which a store is to be searched again."""
        begun = Begun.read(self.root)
        if not begun.open:
            return []
        rows = {row.request: row for name in begun.requests for row in self.desk.rows(request=name)}
        done = {Status.PURGED, Status.CLOSED}
        return [name for name, row in rows.items() if row.status in done and self.desk.keys.exists(name)]

    def delete_flow_runs_of_duplicates(self) -> None:
        """Delete what Prefect keeps of duplicates that were submitted after the purge of what they name."""
        runs = FlowRuns(self.environ, self.root)
        if not runs.url:
            return
        rows = self.desk.rows()
        purged = {row.request for row in rows if row.status in {Status.PURGED, Status.CLOSED}}
        ours = brought(self.desk, (row for row in rows if row.first in purged))
        if ours:
            for run in list(runs.runs(flow_runs={"id": {"any_": sorted(ours)}})):
                runs.delete(str(run["id"]))

    def plan(self, requests: Sequence[Request]) -> list[Detail]:
        """List by name what a purge would take, make again or leave; nothing is changed."""
        wanted = of_data(requests, self.desk, self.params.split).sought
        images = self._source()
        named = {name for request in requests for name in self._references(request, images).values()}
        found = [Detail(SOURCE, name, Outcome.DELETED, "by id") for name in sorted(named)]
        objects = self._objects()
        hits = {store.name: self._search(store, wanted)[0] for store in objects}
        ownership = Ownership(self.root, self._path, wanted, objects)
        ownership.needed = set()  # the split as it is now is to be made again
        for store in objects:
            for hit in hits[store.name]:
                found.append(Detail(store.name, hit.item, *ownership.fate(hit, store)))
        for other in self._others():
            found += [self._judged(other, hit) for hit in self._search(other, wanted)[0]]
        void = {bare(each.item) for each in found if each.outcome is Outcome.DELETED}
        for output in ownership.lineage.void_outputs(void | self._named_lists(found), self._kept()):
            if bare(output.md5) not in void:
                fate = ownership.fate_of_output(output.md5)
                found.append(Detail("DVC", f"{output.path} ({output.md5})", fate[0], "by lineage"))
                void.add(bare(output.md5))
        deletion = self._deletion()
        for each in self._void_models(deletion, requests, void) if deletion else ():
            outcome = Outcome.DELETED if each.ours else Outcome.KEPT_REPORTED
            found.append(Detail(MODELS, f"{each.kind} {each.item}", outcome, each.why))
        current = in_production(self.desk.ledger)
        if current and any(not request.content for request in requests):
            model = f"the model in production, {current.weights[:12]}"
            found.append(Detail("MLflow and DVC", model, Outcome.DELETED, "once its successor is promoted"))
        return found

    @staticmethod
    def _named_lists(found: Iterable[Detail]) -> set[str]:
        return {bare(each.item) for each in found if each.outcome is Outcome.MADE_AGAIN}

    def carry_out(self, requests: Sequence[Request]) -> Checklist:
        """Purge the samples of requests from everywhere, and say what became of each store.

        No store that cannot be reached or read, and nothing that is somebody else's, ends it: that is a line
        of the checklist. What is begun is written down, so a purge that was cut short is finished by the next
        call; what stores that did not answer have left is for :func:`tasks.erasure.again.search_again`.

        Raises
        ------
        BusyError
            If another command of DVC is at work.
        ExpungeError
            If the originals cannot be taken out, or the split cannot be made again.
        """
        self.begin()
        begun = Begun.of(self.root, (request.id for request in requests))
        identity = remembered(begun.requests, requests, self.desk, self.params.split)
        wanted = identity.sought
        lines = [*self._originals(requests, begun, wanted)]
        objects = self._objects()
        lines += self._renew_pointers(wanted, objects, begun)
        self._split_again()
        lines += _twins(identity.twins)
        lines += self._purge_objects(wanted, requests, objects, begun)
        lines += [*self._checkpoints(), *self._left_by_killed()]
        for store in self._others():
            lines += self._purge_store(store, wanted)
        lines += [*self._unsearched(), *self._beyond_reach(begun, wanted)]
        return self.end(begun, lines, wanted)

    def begin(self) -> None:
        """Forget what an earlier search has found."""
        self._details, self._scans = [], Scans()

    def end(self, begun: Begun, lines: Sequence[Line], wanted: Sought, log: str = "log") -> Checklist:
        """Write down what is left open, and what the lines are about; return the checklist."""
        begun.open = sorted({line.store for line in lines if line.open})
        begun.write()
        if not begun.open:
            forget(begun.requests, self.desk)
        checklist = Checklist(tuple(lines), tuple(self._details), tuple(begun.weights))
        self._log(begun, checklist, wanted, log)
        return checklist

    # the parts, in the order in which they happen

    def _originals(self, requests: Sequence[Request], begun: Begun, wanted: Sought) -> Iterator[Line]:
        split = self.params.split
        if kept := originals.why_kept(split.source):
            yield Line(SOURCE, "originals", Outcome.CANNOT_BE_REACHED, 0, f"{kept} Split leaves them out.")
            return
        begun.add(files=self._pointer_files())
        images = self._source()
        references = {ref for request in requests for ref in self._references(request, images).values()}
        changed = originals.remove(split.source, Path(split.path), references)
        yield Line(
            SOURCE, "originals, by id", Outcome.DELETED, len(references), f"{len(changed)} files changed"
        )
        beside = remove_copies(Path(split.path), wanted)
        self._details += [Detail(SOURCE, str(path), Outcome.DELETED, BESIDE) for path in beside]
        if beside:
            scope = "thumbnails and other copies beside the originals, by name"
            yield Line(SOURCE, scope, Outcome.DELETED, len(beside))

    def _pointer_files(self) -> list[str]:
        tracking = {p.file for p in read_pointers(self.root).of(self._path) if p.current}
        return sorted(tracking | {each.file for each in self._stage_records()})

    def _stage_records(self) -> list[pointer.Pointer]:
        """Records of a source that a stage makes, such as the working copy of the embedded images."""
        found = pointer.pointers(self.root, self.params.split.path)
        return [each for each in found if not each.file.endswith(".dvc")]

    def _renew_pointers(self, wanted: Sought, objects: list[Objects], begun: Begun) -> Iterator[Line]:
        """Let the source's pointers name it as it is now, and bring what they name to where the old was."""
        ownership = Ownership(self.root, self._path, wanted, objects)
        cache = next(store for store in objects if isinstance(store, DvcCache))
        for name in ownership.pointers.damaged:
            self._details.append(Detail("DVC", name, Outcome.NOT_SEARCHED, "is damaged; restore it"))
        if ownership.pointers.damaged:
            count = len(ownership.pointers.damaged)
            yield Line("DVC pointers", ".dvc files", Outcome.NOT_SEARCHED, count, "damaged")
        renewed = 0
        for tracked in pointers_of_source(ownership):
            begun.add(objects=[bare(tracked.md5)] if self._is_stale(ownership, tracked.md5) else [])
            try:
                renewed += bring_up_to_date(ownership, cache, tracked, self.params.split.source)
            except LookupError:
                self._dvc("add", tracked.path)
                renewed += 1
        if self._stage_records():
            renewed += len(pointer.bring_up_to_date(self.root, self.params.split.path))
        if renewed:
            yield Line("DVC pointers", "of the source", Outcome.MADE_AGAIN, renewed)

    @staticmethod
    def _is_stale(ownership: Ownership, md5: str) -> bool:
        return any(ownership.is_erased(name) for name in ownership.files_of(md5) or {})

    def _split_again(self) -> None:
        """Rebuild ``data/split`` without the samples: its list of erased ones names them by now."""
        self._dvc("repro", "--single-item", "split")

    def _purge_objects(
        self,
        wanted: Sought,
        requests: Sequence[Request],
        objects: list[Objects],
        begun: Begun,
        only: Collection[str] | None = None,
    ) -> list[Line]:
        """Take objects that hold samples, and what was computed from them, out of all that is DVC's.

        With ``only`` names, the other stores are merely asked whose something is; and nothing is deleted if
        more is to go than was known.
        """
        hits, lines = {}, []
        asked = [store for store in objects if only is None or store.name in only]
        for store in asked:
            hits[store.name], line = self._search(store, wanted)
            lines += [line] if line else []
        answering = [store for store in asked if not any(line.store == store.name for line in lines)]
        if only is not None and not answering and MODELS not in only:
            return lines
        telling = [store for store in objects if store in answering or store not in asked]
        ownership = Ownership(self.root, self._path, wanted, telling, begun.objects)
        for store in answering:
            hits[store.name] += self._by_lineage(store, ownership.outdated, hits[store.name])
        doomed: dict[str, list[Hit]] = {
            store.name: [hit for hit in hits[store.name] if self._goes(ownership, hit, store)]
            for store in answering
        }
        lists = ownership.lists_of({hit.item for found in doomed.values() for hit in found})
        for store in answering:
            listing = self._by_lineage(store, lists, doomed[store.name])
            doomed[store.name] += [hit for hit in listing if self._goes(ownership, hit, store)]
        held = {bare(hit.item) for found in doomed.values() for hit in found} | set(begun.objects)
        held |= ownership.lineage.sources(self._path) & {bare(md5) for md5 in begun.objects}
        keep = self._kept() | ownership.needed
        outputs = ownership.lineage.void_outputs(held, keep)
        sealed = {bare(o.md5) for o in outputs if self._seals and o.path.endswith(WEIGHTS)}
        made = {bare(output.md5) for output in outputs}
        going = {md5 for md5 in held | made if md5 not in keep} - sealed
        going -= {md5 for md5 in made if ownership.fate_of_output(md5)[0] is not Outcome.DELETED}
        weights = {bare(o.md5) for o in outputs if o.path.endswith(WEIGHTS)} - sealed
        new = not going.issubset(begun.objects)
        begun.add(objects=going, weights=self._digests(weights, answering))
        if only is not None and new:
            return lines
        if only is None or MODELS in only:
            lines += self._mlflow(requests, held | made)  # while DVC's objects still tell what is void
        if only is None:
            self._delete_in_workspace(ownership, going)
            lineage.forget_in_lock(self.root / "dvc.lock", going | sealed)
        for store in answering:
            lines += self._delete_objects(store, ownership, doomed[store.name], going)
        if sealed and only is None:
            lines.append(Line("DVC", "superseded weights", Outcome.SEALED, len(sealed), self._sealed()))
        emptied = {line.store for line in lines if line.outcome is Outcome.DELETED}
        for store in answering:
            left = self._left(store, ownership, wanted)
            lines += [
                line
                for line in left
                if line.outcome is not Outcome.NOTHING_FOUND or store.name not in emptied
            ]
        return lines

    @staticmethod
    def _by_lineage(store: Objects, items: Collection[str], found: Sequence[Hit]) -> list[Hit]:
        known = {hit.item for hit in found}
        why = "the source's own, of before the purge"
        try:
            return [Hit(store.name, item, why) for item in sorted(set(items) - known) if store.has(item)]
        except (ExpungeError, OSError):  # deleting tells it
            return []

    def _goes(self, ownership: Ownership, hit: Hit, store: Objects) -> bool:
        return ownership.fate(hit, store)[0] is Outcome.DELETED

    def _delete_objects(
        self, store: Objects, ownership: Ownership, hits: Sequence[Hit], going: Collection[str]
    ) -> Iterator[Line]:
        """Delete from one store: first what was made of others, last the lists that tell of others."""
        of_source = [hit for hit in hits if ownership.is_of_source(hit, store)]
        try:
            if of_source and isinstance(store, DvcRemote):
                for pointer in pointers_of_source(ownership):
                    if (self.root / pointer.file).exists():
                        self._dvc("push", "--quiet", "--remote", store.remote, pointer.file)
            yield from self._keep_elsewhere(store, ownership, of_source)
            found = {hit.item for hit in hits} | {md5 for md5 in going if store.has(md5)}
            found |= {f"{md5}.dir" for md5 in going if store.has(f"{md5}.dir")}
            for item in sorted(found, key=lambda item: item.endswith(".dir")):
                store.delete(item)
            entries = ownership.lineage.entries.get(store.name, {})
            void = [path for path, named in entries.items() if not named.isdisjoint(going)]
            for path in void:
                store.delete(path)
        except (ExpungeError, OSError) as error:
            yield self._failed(store.name, error)
            return
        if found or void:
            for item in sorted(found):
                self._details.append(
                    Detail(store.name, item, Outcome.DELETED, "holds samples, or made of them")
                )
            yield Line(
                store.name,
                "objects and entries of the run cache, by content and by lineage",
                Outcome.DELETED,
                len(found) + len(void),
            )

    def _keep_elsewhere(self, store: Objects, ownership: Ownership, hits: Sequence[Hit]) -> Iterator[Line]:
        """Put new lists beside those that other branches end with: what else they name stays within reach."""
        count = 0
        for hit in hits:
            if (files := ownership.successor(hit.item)) is not None:
                content, md5 = folder_list(files)
                if isinstance(store, DvcCache):
                    store.add_list(files)
                else:
                    store.put(content, md5)
                why = f"another branch, tag or stash names it; {md5} is the same without the samples"
                self._details.append(Detail(store.name, hit.item, Outcome.MADE_AGAIN, why))
                count += 1
        if count:
            yield Line(
                store.name,
                "lists of the source's files that other branches, tags or stashes name",
                Outcome.MADE_AGAIN,
                count,
                "the new lists are in the store; let the pointers there name them",
            )

    def _delete_in_workspace(self, ownership: Ownership, going: Collection[str]) -> None:
        """Delete outputs of stages that are void, wherever they lie: dvc.lock may have forgotten them."""
        outs = ownership.lineage.outs
        for md5 in going:
            for path in outs.get(md5, ()):
                file = self.root / path
                if file.is_file() and digest(file) == md5:
                    file.unlink()

    def _digests(self, weights: Iterable[str], stores: Sequence[Objects]) -> Iterator[str]:
        """Digests of the tensors of DVC's objects that are weights, from whatever store has them."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        from tasks.engine.weights import tensor_digest

        for md5 in sorted(weights):
            for store in stores:
                try:
                    yield tensor_digest(load(store.read(md5)))
                    break
                except (SafetensorError, ExpungeError, OSError):
                    continue

    def _mlflow(self, requests: Sequence[Request], void: set[str]) -> list[Line]:
        try:
            deletion = self._deletion()
            if deletion is None:
                return [Line(MODELS, "models", Outcome.NOT_APPLICABLE, 0, "tracking is off")]
            found = self._void_models(deletion, requests, void)
            sealed = [each for each in found if self._seals and each.kind != "artifacts" and each.ours]
            gone = [each for each in found if each.ours and each not in sealed]
            deletion.delete(gone)
        except (ExpungeError, OSError) as error:
            return [self._failed(MODELS, error)]
        scope = "models and files of runs that read or wrote void objects; the records of the runs stay"
        foreign = [each for each in found if not each.ours]
        self._details += [
            Detail(MODELS, f"{each.kind} {each.item}", Outcome.KEPT_REPORTED, f"{each.why}; {FOREIGN}")
            for each in foreign
        ]
        outcome = Outcome.DELETED if gone else Outcome.NOTHING_FOUND
        lines = [Line(MODELS, scope, outcome, len(gone))]
        if sealed:
            lines.append(Line(MODELS, scope, Outcome.SEALED, len(sealed), self._sealed()))
        if foreign:
            meaning = MEANING[Outcome.KEPT_REPORTED]
            lines.append(Line(MODELS, scope, Outcome.KEPT_REPORTED, len(foreign), meaning))
        return lines

    def _checkpoints(self) -> list[Line]:
        found = list(checkpoints(self.root))
        gone = [path for path, busy in found if not busy]
        for path in gone:
            path.unlink(missing_ok=True)
        outcome = Outcome.DELETED if gone else Outcome.NOTHING_FOUND
        lines = [Line("checkpoints", "of trainings that are not at work", outcome, len(gone))]
        if len(gone) < len(found):
            why = "they go once their training has ended"
            lines.append(
                Line("checkpoints", "of trainings at work", Outcome.UNREACHABLE, len(found) - len(gone), why)
            )
        return lines

    def _left_by_killed(self) -> Iterator[Line]:
        if count := clear(self.root):
            yield Line("temporary folders", "of processes that were killed", Outcome.DELETED, count)

    def _purge_store(self, store: Store, wanted: Sought) -> list[Line]:
        hits, failed = self._search(store, wanted)
        judged = []
        try:
            for hit in hits:
                detail = self._judged(store, hit)
                if detail.outcome is Outcome.DELETED:
                    store.delete(hit.item)
                judged.append(detail)
        except (ExpungeError, OSError) as error:
            failed = self._failed(store.name, error)
        return self._told(store, judged, failed)

    def _left(self, store: Objects, ownership: Ownership, wanted: Sought) -> list[Line]:
        """Search a store of DVC's; what this repository should have deleted and did not is reported, too."""
        hits, failed = self._search(store, wanted)
        judged = []
        for hit in hits:
            outcome, why = ownership.fate(hit, store)
            if outcome in {Outcome.DELETED, Outcome.MADE_AGAIN}:
                outcome, why = Outcome.LEFT_BEHIND, f"{why}; it is this repository's, and still there"
            judged.append(Detail(store.name, hit.item, outcome, why))
        return self._told(store, judged, failed)

    def _told(self, store: Store, judged: Sequence[Detail], failed: Line | None) -> list[Line]:
        self._details += judged
        lines = counted(judged, store.how, MEANING)
        self._details += [
            Detail(store.name, item, Outcome.NOT_SEARCHED, why) for item, why in store.unread.items()
        ]
        if store.unread:
            count, meaning = len(store.unread), MEANING[Outcome.NOT_SEARCHED]
            lines.append(Line(store.name, store.how, Outcome.NOT_SEARCHED, count, meaning))
        if failed:
            lines.append(failed)
        for why, count in sorted(store.partly.items()):
            lines.append(Line(store.name, "contents", Outcome.NOT_OPENED, count, why))
        found = any(line.outcome is not Outcome.NOT_OPENED for line in lines)
        return lines if found else [Line(store.name, store.how, Outcome.NOTHING_FOUND), *lines]

    def _search(self, store: Store, wanted: Sought) -> tuple[list[Hit], Line | None]:
        """Search a store to its end before anything is deleted; a line if that cannot be done."""
        try:
            return list(store.search(wanted)), None
        except (ExpungeError, OSError) as error:
            return [], self._failed(store.name, error)

    def _failed(self, store: str, error: Exception) -> Line:
        never = isinstance(error, UnsearchableError)
        outcome = Outcome.NOT_SEARCHED if never else Outcome.UNREACHABLE
        self._details.append(Detail(store, "", outcome, str(error)))
        why = "it cannot be searched as it is set up" if never else "it does not answer; it is tried again"
        return Line(store, "all of it", outcome, 0, why)

    # stores

    def _objects(self) -> list[Objects]:
        return [DvcCache(self.root, self._scans), *remotes(self.root, self._scans)]

    def _others(self, only: Collection[str] | None = None) -> Iterator[Store]:
        """Every store but DVC's objects; ``.expunge`` last, which the search itself writes to.

        With ``only`` names, those of the others that are dear to be opened are left out.
        """
        yield Folder(WORKSPACE, self.root / "data", skip=self._our_records("data"))
        resolved = (self.root / self.params.split.path).resolve()
        if not self._is_walked(resolved):
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

    def _run_files(self) -> Iterator[Store]:
        try:
            deletion = self._deletion()
            if deletion and deletion.runs_elsewhere(self._is_walked):
                yield RunFiles(deletion, self._is_walked)
        except ExpungeError as error:
            yield Unopened(RunFiles.name, error)

    def _is_walked(self, folder: Path) -> bool:
        """Whether a folder, all links resolved, lies in the checkout, and where that is searched."""
        root = self.root.resolve()
        if not folder.is_relative_to(root):
            return False
        first = folder.relative_to(root).parts[:1]
        return first not in {(each,) for each in self._apart() if each not in {"data", *MLFLOW}}

    def _apart(self) -> tuple[str, ...]:
        environments = [path.parent.name for path in self.root.glob("*/pyvenv.cfg")]
        return ("data", str(STATE), ".dvc", *MLFLOW, *CODE, *environments)

    def _our_records(self, below: str) -> list[str]:
        """The ledger and the certificates: they hold keyed digests, and are not searched as data."""
        ledger = self.desk.ledger.name.partition("sqlite:///")[2]
        found = [CERTIFICATES, *(f"{ledger}{end}" for end in ("", "-wal", "-shm", "-journal") if ledger)]
        inside = [Path(below_root(self.root, each)) for each in found]
        return [str(each.relative_to(below)) for each in inside if each.is_relative_to(below)]

    def _unsearched(self) -> Iterator[Line]:
        """Tell of what is not searched, and why that is right or wrong."""
        keyed = "they hold keyed digests, which say nothing without the request's key"
        yield Line("ledger, certificates, keys", "not searched as data", Outcome.NOT_APPLICABLE, 0, keyed)
        text = f"the project's own text and installed packages, {AS_EXAMPLE}"
        yield Line("code and virtual environments", "not searched", Outcome.NOT_APPLICABLE, 0, text)
        how = "persist_result is off for every flow and task, whatever Prefect's settings say"
        yield Line("Prefect results", "files", Outcome.NOT_APPLICABLE, 0, how)
        yield Line(
            "copies elsewhere",
            "backups, clones, downloads",
            Outcome.CANNOT_BE_REACHED,
            0,
            "delete them where they are",
        )
        if not (self.root / self.params.split.path).exists():
            yield Line(SOURCE, "all of it", Outcome.NOT_SEARCHED, 0, "split.path is not there")

    def _beyond_reach(self, begun: Begun, wanted: Sought) -> Iterator[Line]:
        own = lineage.Lineage.read(self.root, self._path, Pointers(), {})
        if commits := own.commits_without_data(self.root, begun.objects):
            why = "kept; what they name there was deleted from every store of DVC's that is listed as purged"
            yield Line("Git", "dvc.lock of all commits", Outcome.NOT_APPLICABLE, len(commits), why)
        yield from self._git(wanted)

    def _git(self, wanted: Sought) -> Iterator[Line]:
        """Search Git's whole history; it is rewritten by nobody but the operator."""
        yield from self._history(GIT, [GitHistory(self.root)], wanted)
        source = (self.root / self.params.split.path).resolve()
        elsewhere = [] if source.is_relative_to(self.root.resolve()) else [source]
        found, damaged = others(self.root, *elsewhere)
        if found:
            yield from self._history(OTHER_GIT, [GitHistory(path) for path in found], wanted)
        for path in damaged:
            why = "looks like a repository of Git, which Git does not take for one"
            self._details.append(Detail(OTHER_GIT, str(path), Outcome.NOT_SEARCHED, why))
        if damaged:
            yield Line(OTHER_GIT, "all of it", Outcome.NOT_SEARCHED, len(damaged), "Git cannot read them")

    def _history(self, name: str, stores: Sequence[GitHistory], wanted: Sought) -> Iterator[Line]:
        """Search one or more repositories."""
        own, shipped, examples, limits, failed = 0, 0, 0, [], False
        for store in stores:
            try:
                held = store.held(wanted)
                limits += store.limits()
            except (ExpungeError, OSError) as error:
                failed = True
                yield self._failed(name, error)
                continue
            shipped += sum(len(each.contents) for each in held if each.public)
            mine = [each for each in held if not each.public]
            if name == GIT:
                told, mine = len(mine), self._without_own_text(mine, store)
                examples += told - len(mine)
            own += sum(len(each.contents) for each in mine)
            self._details += self._told_of_history(name, store, mine)
        if shipped:
            what = "of the public data set that is shipped with the project, not the operator's copy"
            yield Line(name, f"files {what}", Outcome.NOT_APPLICABLE, shipped)
        if examples:
            yield Line(name, "the project's own text", Outcome.NOT_APPLICABLE, examples, AS_EXAMPLE)
        if own:
            why = (
                "commits, or what they left, hold samples; expunge verify erasure prints how to rewrite them"
            )
            yield Line(name, GitHistory.how, Outcome.KEPT_REPORTED, own, why)
        for limit in dict.fromkeys(limits):
            yield Line(name, "part of it", Outcome.NOT_SEARCHED, 0, limit)
        if not (own or shipped or examples or failed):
            yield Line(name, GitHistory.how, Outcome.NOTHING_FOUND)

    @staticmethod
    def _without_own_text(held: Sequence[Held], store: GitHistory) -> list[Held]:
        """Leave out files of the project's code or docs in which no more than a name was met."""
        if not any(each.by_name for each in held):
            return list(held)
        text = [PurePosixPath(store.from_top(folder)) for folder in CODE]
        return [
            each
            for each in held
            if not (each.by_name and any(PurePosixPath(each.place).is_relative_to(place) for place in text))
        ]

    def _told_of_history(self, name: str, store: GitHistory, held: Sequence[Held]) -> Iterator[Detail]:
        if not held:
            return
        source = store.from_top(self.params.split.path) if name == GIT else None
        if name != GIT:
            held = [replace(each, submodule=str(store.root / each.submodule)) for each in held]
        advice = how_to_rewrite(held, source)
        for each in held:
            where = f"{each.submodule}: " if name != GIT else ""
            yield Detail(name, f"{where}{each.text}", Outcome.KEPT_REPORTED, "; ".join([each.why, *advice]))

    # models

    def superseded(self, requests: Sequence[Request]) -> Iterator[Line]:
        """Tell of the versions that knew the samples whether they are still there, and which are known."""
        try:
            yield from self._superseded(requests)
        except ExpungeError as error:
            yield self._failed(MODELS, error)
        if any(recorded_weights(request) is None for request in requests):
            why = "only the models that batches started from are known by digest"
            yield Line("models", "weights that learned samples", Outcome.NOT_SEARCHED, 0, why)

    def _superseded(self, requests: Sequence[Request]) -> Iterator[Line]:
        registry = models(self.params, self.root)
        if registry is None:
            yield Line(MODELS, "models", Outcome.NOT_APPLICABLE, 0, "tracking is off")
            return
        bases = {base.version for base in bases_of(requests) if base.version is not None}
        there = bases & {version.version for version in registry.versions()}
        if len(there) < len(bases) or not bases:
            outcome = Outcome.DELETED if bases else Outcome.NOTHING_FOUND
            yield Line(MODELS, "versions that knew samples", outcome, len(bases - there))
        if there:
            outcome = Outcome.SEALED if self._seals else Outcome.LEFT_BEHIND
            why = self._sealed() if self._seals else "they were not deleted"
            yield Line(MODELS, "versions that knew samples", outcome, len(there), why)

    def _deletion(self) -> Deletion | None:
        registry = models(self.params, self.root)
        if registry is None:
            return None
        from tasks.tracking.deletion import Deletion

        return Deletion(registry, self.params.tracking.experiment, self.root)

    def _void_models(self, deletion: Deletion, requests: Sequence[Request], void: set[str]) -> list[Void]:
        """Find MLflow's models and files that were made of void objects, or were the base of a batch.

        A base may be known by its weights only: an earlier purge took the split that it was trained on.
        """
        bases = {base.weights for base in bases_of(requests)}
        current = in_production(self.desk.ledger)
        return deletion.find(weights=bases, inputs=void, keep={current.weights} if current else set())

    # what the parts share

    @property
    def _seals(self) -> bool:
        return settings_of(self.params).superseded == "seal"

    def _sealed(self) -> str:
        settings = settings_of(self.params)
        return f"until {settings.seal_until}: {settings.seal_reason}"

    @cached_property
    def _path(self) -> str:
        return below_root(self.root, self.params.split.path)

    def _source(self) -> ImageSet:
        split = self.params.split
        return SOURCES.get(split.source)(Path(split.path), split.resize)

    def _references(self, request: Request, images: ImageSet) -> dict[str, str]:
        """Source references of a request's samples that are still there, by id."""
        source_of = dict(zip(images.sample_ids, images.sources, strict=True))
        return {name: source_of[name] for name in meant(request, self.desk.keys, source_of, remaining=False)}

    def _kept(self) -> set[str]:
        """MD5s of the weights in production."""
        path = self.root / BASE / WEIGHTS
        return {digest(path)} if path.exists() else set()

    def _judged(self, store: Store, hit: Hit) -> Detail:
        """What is to become of something that was found outside DVC's objects."""
        outcome, why = Outcome.KEPT_REPORTED, hit.why
        if store.name == WORKSPACE and self._public.has(Path(hit.item)):
            return Detail(store.name, hit.item, Outcome.NOT_APPLICABLE, public.WHAT)
        if hit.weak:
            return Detail(store.name, hit.item, Outcome.NAMED_ALIKE, why)
        if hit.foreign or hit.item.startswith(EVENT):
            why = f"{why}; {FOREIGN}"
        elif store.name in {WORKSPACE, REST, SOURCE}:
            item = Path(hit.item)
            in_reach = any(item.is_relative_to(self.root / folder) for folder in REACH)
            if in_reach or (hit.copy and self._is_passed_over(item)):
                outcome = Outcome.DELETED
        elif store.name.startswith("MLflow files"):
            if not self._own_runs.isdisjoint(Path(hit.item).parts):
                outcome = Outcome.DELETED
        elif store.name == DVC_TEMPORARY and self._is_at_work(Path(hit.item)):
            outcome, why = Outcome.UNREACHABLE, f"{why}; an experiment is at work there"
        elif store.name not in {DATABASE, DESKTOP}:
            outcome = Outcome.DELETED
        return Detail(store.name, hit.item, outcome, why)

    def _left_there(self, store: Store, hit: Hit) -> Detail:
        """What a search finds that deletes nothing."""
        judged = self._judged(store, hit)
        if judged.outcome in {Outcome.NOT_APPLICABLE, Outcome.NAMED_ALIKE}:
            return judged
        ours = judged.outcome is Outcome.DELETED
        return replace(judged, outcome=Outcome.LEFT_BEHIND if ours else Outcome.KEPT_REPORTED)

    @cached_property
    def _public(self) -> public.PublicFiles:
        return public.PublicFiles(self.root)

    @cached_property
    def _own_runs(self) -> set[str]:
        """MLflow's ids of the runs that this checkout sent."""
        from tasks.core.files import read_json
        from tasks.tracking import RUNS

        return {str(read_json(path).get("run_id")) for path in (self.root / RUNS).glob("*.json")}

    def _is_passed_over(self, path: Path) -> bool:
        """Whether it is a file of the source that is nobody's sample."""
        place, source = path.resolve(), Path(self.root, self.params.split.path).resolve()
        return place.is_relative_to(source) and passed_over(place.relative_to(source).as_posix())

    def _is_at_work(self, path: Path) -> bool:
        return any(path.is_relative_to(each) and at_work(each) for each in checkouts(self.root)[1:])

    def _log(self, begun: Begun, checklist: Checklist, wanted: Sought, end: str) -> None:
        """Write down by name what the lines are about, but for what has the name of a sample itself.

        The file stays, and a search must find nothing in it.
        """
        lines = []
        for detail in checklist.details:
            line = f"{detail.store}\t{detail.outcome}\t{detail.item}\t{detail.why}"
            unnamed = f"{detail.store}\t{detail.outcome}\t(expunge verify erasure names it)\t{detail.why}"
            lines.append(unnamed if find(line.encode(errors="surrogateescape"), wanted) else line)
        write_text(self.root / FOLDER / f"{begun.requests[0]}.{end}", "\n".join([*lines, ""]))

    def _dvc(self, *arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "dvc", *arguments],
            cwd=self.root, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip().splitlines()
            errors = [line for line in said if line.startswith(("ERROR", "expunge"))]
            line = (errors or said or ["no reason given"])[0]
            if busy := who_is_busy(line):
                raise BusyError(f"dvc {arguments[0]} waits: {busy}")
            raise ExpungeError(f"dvc {arguments[0]} failed: {line}")


def verify(purge: Purge, requests: Sequence[Request]) -> Checklist:
    """Search every store for the samples of requests; nothing is changed."""
    purge.begin()
    identity = of_ledger(requests, purge.desk, purge.params.split)
    wanted = identity.sought
    lines, objects = _twins(identity.twins), purge._objects()
    answering = []
    for store in objects:
        _, failed = purge._search(store, wanted)
        if failed:
            lines.append(failed)
        else:
            answering.append(store)
    ownership = Ownership(purge.root, purge._path, wanted, answering)
    for store in answering:
        lines += purge._left(store, ownership, wanted)
    for other in purge._others():
        hits, failed = purge._search(other, wanted)
        left = [purge._left_there(other, hit) for hit in hits]
        lines += purge._told(other, left, failed)
    lines += [*purge._unsearched(), *purge._git(wanted), *purge.superseded(requests)]
    return Checklist(tuple(lines), tuple(purge._details))


def purgeable(requests: Iterable[Request]) -> list[Request]:
    """Return those whose purge is due: promoted and not on hold, or begun."""
    return [each for each in requests if each.state.status in DUE and not each.state.held]


def _twins(count: int) -> list[Line]:
    if not count:
        return []
    why = "samples that stay look exactly the same; what only looks like them is those samples' own"
    return [Line("all stores", "pixels and image files", Outcome.KEPT_SHARED, count, why)]
