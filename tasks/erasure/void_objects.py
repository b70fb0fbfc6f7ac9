"""What of DVC's objects is void: it holds samples, or was made of them; how it goes, and what stays."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from tasks.core.errors import ExpungeError
from tasks.core.files import digest
from tasks.erasure import lineage
from tasks.erasure.account import Account
from tasks.erasure.begun import Begun
from tasks.erasure.checklist import Detail, Line, Outcome
from tasks.erasure.ownership import Ownership
from tasks.erasure.search import Asked
from tasks.erasure.source import pointers_of_source
from tasks.erasure.stores import Hit
from tasks.erasure.stores.dvc import DvcCache, DvcRemote, Objects, bare, folder_list

WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class VoidObjects:
    """What is to go from DVC's cache and remotes.

    Attributes
    ----------
    ownership
        What of the stores belongs to this repository.
    hits
        What of each store that answers is to go, with the lists that name it.
    unanswered
        Lines of the stores that do not answer.
    of_samples
        MD5s of all that holds samples or was made of them, what is kept among them.
    going
        MD5s of what is to go, from whatever store has it.
    weights
        MD5s of the weights among it.
    sealed
        MD5s of weights that are kept under seal instead.
    """

    ownership: Ownership
    hits: dict[Objects, list[Hit]]
    unanswered: list[Line]
    of_samples: set[str]
    going: set[str]
    weights: set[str]
    sealed: set[str]

    @classmethod
    def find(
        cls,
        stores: Sequence[Objects],
        wanted: Asked,
        account: Account,
        *,
        source: str,
        begun: Begun,
        kept: set[str],
        seal: bool,
        asked: Collection[str] | None = None,
    ) -> VoidObjects:
        """Search the stores; nothing is changed.

        Parameters
        ----------
        stores
            The cache and the remotes.
        wanted
            What identifies the samples.
        account
            Takes what is found by name.
        source
            Path of the source, below the root.
        begun
            Knows what an earlier run was to delete.
        kept
            MD5s of the weights in production.
        seal
            Whether weights that were superseded are kept.
        asked
            Names of the stores that are searched; the others are only asked whose something is.
        """
        hits: dict[Objects, list[Hit]] = {}
        unanswered = []
        searched = [store for store in stores if asked is None or store.name in asked]
        for store in searched:
            found, line = account.search(store, wanted)
            if line:
                unanswered.append(line)
            else:
                hits[store] = found
        telling = [store for store in stores if store in hits or store not in searched]
        ownership = Ownership(begun.root, source, wanted, telling, begun.objects)
        for store, found in hits.items():
            found.extend(_by_lineage(store, ownership.outdated, found))
        doomed = {store: [hit for hit in hits[store] if _goes(ownership, hit, store)] for store in hits}
        lists = ownership.lists_of({hit.item for found in doomed.values() for hit in found})
        for store, found in doomed.items():
            listing = _by_lineage(store, lists, found)
            found.extend(hit for hit in listing if _goes(ownership, hit, store))
        held = {bare(hit.item) for found in doomed.values() for hit in found} | set(begun.objects)
        held |= ownership.lineage.sources(source) & {bare(md5) for md5 in begun.objects}
        keep = kept | ownership.needed
        outputs = ownership.lineage.void_outputs(held, keep)
        weights = {bare(output.md5) for output in outputs if output.path.endswith(WEIGHTS)}
        sealed = weights if seal else set()
        made = {bare(output.md5) for output in outputs}
        going = {md5 for md5 in held | made if md5 not in keep} - sealed
        going -= {md5 for md5 in made if ownership.fate_of_output(md5)[0] is not Outcome.DELETED}
        return cls(ownership, doomed, unanswered, held | made, going, weights - sealed, sealed)

    def digests(self) -> Iterator[str]:
        """Digests of the tensors of the weights, from whatever store has them."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        from tasks.engine.weights import tensor_digest

        for md5 in sorted(self.weights):
            for store in self.hits:
                try:
                    yield tensor_digest(load(store.read(md5)))
                    break
                except (SafetensorError, ExpungeError, OSError):
                    continue

    def delete_in_workspace(self) -> None:
        """Delete outputs of stages that are void, wherever they lie: dvc.lock may have forgotten them."""
        root = self.ownership.root
        for md5 in self.going:
            for path in self.ownership.lineage.outs.get(md5, ()):
                file = root / path
                if file.is_file() and digest(file) == md5:
                    file.unlink()
        lineage.forget_in_lock(root / "dvc.lock", self.going | self.sealed)

    def delete(self, account: Account, push: Callable[[str, str], None]) -> list[Line]:
        """Delete from every store: first what was made of others, last the lists that tell of others.

        Parameters
        ----------
        account
            Takes what goes by name.
        push
            Brings what a pointer names to a remote, by its name.
        """
        return [line for store in self.hits for line in self._delete_from(store, account, push)]

    def _delete_from(
        self, store: Objects, account: Account, push: Callable[[str, str], None]
    ) -> Iterator[Line]:
        hits, ownership = self.hits[store], self.ownership
        of_source = [hit for hit in hits if ownership.is_of_source(hit, store)]
        try:
            if of_source and isinstance(store, DvcRemote):
                for pointer in pointers_of_source(ownership):
                    if (ownership.root / pointer.file).exists():
                        push(store.remote, pointer.file)
            yield from _keep_elsewhere(store, ownership, of_source, account)
            found = {hit.item for hit in hits} | {md5 for md5 in self.going if store.has(md5)}
            found |= {f"{md5}.dir" for md5 in self.going if store.has(f"{md5}.dir")}
            for item in sorted(found, key=lambda item: item.endswith(".dir")):
                store.delete(item)
            entries = ownership.lineage.entries.get(store.name, {})
            void = [path for path, named in entries.items() if not named.isdisjoint(self.going)]
            for path in void:
                store.delete(path)
        except (ExpungeError, OSError) as error:
            yield account.failed(store.name, error)
            return
        if found or void:
            why = "holds samples, or made of them"
            account.details += [Detail(store.name, item, Outcome.DELETED, why) for item in sorted(found)]
            scope = "objects and entries of the run cache, by content and by lineage"
            yield Line(store.name, scope, Outcome.DELETED, len(found) + len(void))

    def left(self, wanted: Asked, account: Account, lines: Iterable[Line]) -> Iterator[Line]:
        """Search the stores once more; of one that was emptied, as ``lines`` tell, only say what is left."""
        emptied = {line.store for line in lines if line.outcome is Outcome.DELETED}
        for store in self.hits:
            for line in left_in(store, self.ownership, wanted, account):
                if line.outcome is not Outcome.NOTHING_FOUND or store.name not in emptied:
                    yield line


def left_in(store: Objects, ownership: Ownership, wanted: Asked, account: Account) -> list[Line]:
    """Search a store of DVC's; what this repository should have deleted and did not is reported, too."""
    hits, failed = account.search(store, wanted)
    judged = []
    for hit in hits:
        outcome, why = ownership.fate(hit, store)
        if outcome in {Outcome.DELETED, Outcome.MADE_AGAIN}:
            outcome, why = Outcome.LEFT_BEHIND, f"{why}; it is this repository's, and still there"
        judged.append(Detail(store.name, hit.item, outcome, why))
    return account.told(store, judged, failed)


def _goes(ownership: Ownership, hit: Hit, store: Objects) -> bool:
    return ownership.fate(hit, store)[0] is Outcome.DELETED


def _by_lineage(store: Objects, items: Collection[str], found: Iterable[Hit]) -> list[Hit]:
    known = {hit.item for hit in found}
    why = "the source's own, of before the purge"
    try:
        return [Hit(store.name, item, why) for item in sorted(set(items) - known) if store.has(item)]
    except (ExpungeError, OSError):  # deleting tells it
        return []


def _keep_elsewhere(
    store: Objects, ownership: Ownership, hits: Sequence[Hit], account: Account
) -> Iterator[Line]:
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
            account.details.append(Detail(store.name, hit.item, Outcome.MADE_AGAIN, why))
            count += 1
    if count:
        scope = "lists of the source's files that other branches, tags or stashes name"
        detail = "the new lists are in the store; let the pointers there name them"
        yield Line(store.name, scope, Outcome.MADE_AGAIN, count, detail)
