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
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tasks.core.dvc_failure import who_is_busy
from tasks.core.errors import BusyError, ExpungeError
from tasks.core.files import clear_parts, digest, write_text
from tasks.core.params import Params
from tasks.core.temporary import clear
from tasks.datasets import SOURCES
from tasks.erasure import lineage, originals, pointer
from tasks.erasure.account import Account
from tasks.erasure.begun import FOLDER, Begun
from tasks.erasure.checklist import Checklist, Detail, Line, Outcome
from tasks.erasure.checkpoints import checkpoints
from tasks.erasure.git_lines import told_of_git
from tasks.erasure.identity import brought, forget, of_data, of_ledger, remembered
from tasks.erasure.models import MODELS, Models
from tasks.erasure.ownership import Ownership
from tasks.erasure.places import SOURCE, Places
from tasks.erasure.pointers import Pointers, below_root, outside, read_pointers
from tasks.erasure.search import find
from tasks.erasure.side_files import remove_copies
from tasks.erasure.sought import Sought
from tasks.erasure.source import bring_up_to_date, pointers_of_source
from tasks.erasure.stores import Store
from tasks.erasure.stores.dvc import DvcCache, Objects, bare
from tasks.erasure.stores.folder import BESIDE
from tasks.erasure.stores.prefect import FlowRuns
from tasks.erasure.void_objects import WEIGHTS, VoidObjects, left_in
from tasks.requests.catalogue import Catalogue
from tasks.requests.desk import Desk
from tasks.requests.heldout import never_learned
from tasks.requests.naming import meant
from tasks.requests.production import BASE, in_production
from tasks.requests.request import Request
from tasks.requests.states import Status
from tasks.samples.image_set import ImageSet

DUE = frozenset({Status.PROMOTED, Status.PURGING})
"""Statuses of requests whose purge is due."""


@dataclass
class Purge:
    """Purges requests from the stores of the checkout at ``root``."""

    root: Path
    params: Params
    desk: Desk
    environ: Mapping[str, str]
    account: Account = field(default_factory=Account, init=False)
    """What is found."""

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
        named = {n: ref for request in requests for n, ref in self._references(request, images).items()}
        found = [Detail(SOURCE, ref, Outcome.DELETED, "by id") for ref in sorted(set(named.values()))]
        objects = self.places.objects(self.account.scans)
        hits = {store.name: self.account.search(store, wanted)[0] for store in objects}
        ownership = Ownership(self.root, self._path, wanted, objects)
        ownership.needed = set()  # the split as it is now is to be made again
        for store in objects:
            for hit in hits[store.name]:
                found.append(Detail(store.name, hit.item, *ownership.fate(hit, store)))
        for other in self.places.others():
            found += [self.places.fate(other, hit) for hit in self.account.search(other, wanted)[0]]
        void = {bare(each.item) for each in found if each.outcome is Outcome.DELETED}
        kept = self._kept() | lineage.staying_shards(self.root, named)
        for output in ownership.lineage.void_outputs(void | self._named_lists(found), kept):
            if bare(output.md5) not in void:
                fate = ownership.fate_of_output(output.md5)
                found.append(Detail("DVC", f"{output.path} ({output.md5})", fate[0], "by lineage"))
                void.add(bare(output.md5))
        deletion = self.models.deletion()
        for each in self.models.void(deletion, requests, void) if deletion else ():
            outcome = Outcome.DELETED if each.ours else Outcome.KEPT_REPORTED
            found.append(Detail(MODELS, f"{each.kind} {each.item}", outcome, each.why))
        current = in_production(self.desk.ledger)
        if current and any(not request.content and self._was_learned(request) for request in requests):
            model = f"the model in production, {current.weights[:12]}"
            found.append(Detail("MLflow and DVC", model, Outcome.DELETED, "once its successor is promoted"))
        return found

    def _was_learned(self, request: Request) -> bool:
        """Whether a model in production may have been trained on a sample of a request."""
        catalogue = Catalogue.load()
        names = meant(request, self.desk.keys, catalogue.sources)
        return len(never_learned(names, catalogue)) < len(request.remaining)

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
        objects = self.places.objects(self.account.scans)
        lines += self._renew_pointers(wanted, objects, begun)
        self._split_again()
        lines += _twins(identity.twins)
        lines += self._purge_objects(wanted, requests, objects, begun)
        lines += [*self.purge_checkpoints(), *self._left_by_killed()]
        for store in self.places.others():
            lines += self.purge_store(store, wanted)
        lines += [*self.places.unsearched(), *self._old_commits(begun), *self.git(wanted)]
        return self.end(begun, lines, wanted)

    def begin(self) -> None:
        """Forget what an earlier search has found."""
        self.account = Account()

    def end(self, begun: Begun, lines: Sequence[Line], wanted: Sought, log: str = "log") -> Checklist:
        """Write down what is left open, and what the lines are about; return the checklist."""
        begun.open = sorted({line.store for line in lines if line.open})
        begun.write()
        if not begun.open:
            forget(begun.requests, self.desk)
        checklist = Checklist(tuple(lines), tuple(self.account.details), tuple(begun.weights))
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
        changed = originals.remove(split, references)
        yield Line(
            SOURCE, "originals, by id", Outcome.DELETED, len(references), f"{len(changed)} files changed"
        )
        beside = remove_copies(Path(split.path), wanted)
        self.account.details += [Detail(SOURCE, str(path), Outcome.DELETED, BESIDE) for path in beside]
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
            self.account.details.append(Detail("DVC", name, Outcome.NOT_SEARCHED, "is damaged; restore it"))
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
        self, wanted: Sought, requests: Sequence[Request], objects: list[Objects], begun: Begun
    ) -> list[Line]:
        """Take objects that hold samples, and what was computed from them, out of all that is DVC's."""
        void = self.void_objects(wanted, objects, begun)
        begun.add(objects=void.going, weights=void.digests())
        # while DVC's objects still tell what is void
        lines = [*void.unanswered, *self.models.delete(requests, void.of_samples, self.account)]
        void.delete_in_workspace()
        lines += self.delete_objects(void)
        if void.sealed:
            scope = "superseded weights"
            lines.append(Line("DVC", scope, Outcome.SEALED, len(void.sealed), self.models.sealed))
        return [*lines, *void.left(wanted, self.account, lines)]

    def void_objects(
        self, wanted: Sought, objects: list[Objects], begun: Begun, asked: Collection[str] | None = None
    ) -> VoidObjects:
        """Find what of DVC's objects is to go, in all stores or in those that are asked."""
        return VoidObjects.find(
            objects, wanted, self.account,
            source=self._path, begun=begun, kept=self._kept(), seal=self.models.seals, asked=asked,
        )  # fmt: skip

    def delete_objects(self, void: VoidObjects) -> list[Line]:
        """Delete what was found."""
        return void.delete(self.account, self._push)

    def _push(self, remote: str, file: str) -> None:
        self._dvc("push", "--quiet", "--remote", remote, file)

    def purge_checkpoints(self) -> list[Line]:
        """Delete what trainings leave to go on with, but for those at work."""
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
        apart = outside(self.root, self.params.split.path)
        unfinished = sum(clear_parts(folder) for folder in (self.root, *apart, self.desk.keys.folder))
        for store, count in (("temporary folders", clear(self.root)), ("unfinished files", unfinished)):
            if count:
                yield Line(store, "of processes that were killed", Outcome.DELETED, count)

    def purge_store(self, store: Store, wanted: Sought) -> list[Line]:
        """Search a store other than DVC's objects, and delete there what is to go."""
        hits, failed = self.account.search(store, wanted)
        judged = []
        try:
            for hit in hits:
                detail = self.places.fate(store, hit)
                if detail.outcome is Outcome.DELETED:
                    store.delete(hit.item)
                judged.append(detail)
        except (ExpungeError, OSError) as error:
            failed = self.account.failed(store.name, error)
        return self.account.told(store, judged, failed)

    def _old_commits(self, begun: Begun) -> Iterator[Line]:
        own = lineage.Lineage.read(self.root, self._path, Pointers(), {})
        if commits := own.commits_without_data(self.root, begun.objects):
            why = "kept; what they name there was deleted from every store of DVC's that is listed as purged"
            yield Line("Git", "dvc.lock of all commits", Outcome.NOT_APPLICABLE, len(commits), why)

    def git(self, wanted: Sought) -> Iterator[Line]:
        """Search the commits of Git."""
        return told_of_git(self.root, self.params.split.path, wanted, self.account)

    # what the parts share

    @cached_property
    def models(self) -> Models:
        """What MLflow has."""
        return Models(self.root, self.params, self.desk)

    @cached_property
    def places(self) -> Places:
        """Where else copies can lie."""
        path = Path(self.params.split.path)
        return Places(self.root, path, self.desk.ledger.name, self.environ, self.models)

    @cached_property
    def _path(self) -> str:
        return below_root(self.root, self.params.split.path)

    def _source(self) -> ImageSet:
        split = self.params.split
        return SOURCES.get(split.source)(Path(split.path), split)

    def _references(self, request: Request, images: ImageSet) -> dict[str, str]:
        """Source references of a request's samples that are still there, by id."""
        source_of = dict(zip(images.sample_ids, images.sources, strict=True))
        return {name: source_of[name] for name in meant(request, self.desk.keys, source_of, remaining=False)}

    def _kept(self) -> set[str]:
        """MD5s of the weights in production."""
        path = self.root / BASE / WEIGHTS
        return {digest(path)} if path.exists() else set()

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
    account, places = purge.account, purge.places
    identity = of_ledger(requests, purge.desk, purge.params.split)
    wanted = identity.sought
    lines, objects = _twins(identity.twins), places.objects(account.scans)
    answering = []
    for store in objects:
        _, failed = account.search(store, wanted)
        if failed:
            lines.append(failed)
        else:
            answering.append(store)
    ownership = Ownership(purge.root, below_root(purge.root, purge.params.split.path), wanted, answering)
    for store in answering:
        lines += left_in(store, ownership, wanted, account)
    for other in places.others():
        hits, failed = account.search(other, wanted)
        lines += account.told(other, [places.left(other, hit) for hit in hits], failed)
    lines += [*places.unsearched(), *purge.git(wanted), *purge.models.superseded(requests, account)]
    return Checklist(tuple(lines), tuple(account.details))


def purgeable(requests: Iterable[Request]) -> list[Request]:
    """Return those whose purge is due: promoted and not on hold, or begun."""
    return [each for each in requests if each.state.status in DUE and not each.state.held]


def _twins(count: int) -> list[Line]:
    if not count:
        return []
    why = "samples that stay look exactly the same; what only looks like them is those samples' own"
    return [Line("all stores", "pixels and image files", Outcome.KEPT_SHARED, count, why)]
