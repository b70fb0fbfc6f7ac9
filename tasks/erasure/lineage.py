"""What belongs to this repository, and what was made of an erased sample though its content does not show it.

Logits, losses and weights name nobody. That they were made of a void split is told by the MD5s in
``dvc.lock``, of the working tree and of every commit that Git has, and by the run cache. A cache or remote
may be shared, and what other projects made lies there under the same file names: only what these records
say was made here belongs to this repository.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.core.errors import RESTORE_LOCK, ExpungeError
from tasks.core.files import digest, file_digests, folder_digest, write_whole
from tasks.erasure import history
from tasks.erasure.pointers import Pointer, Pointers
from tasks.erasure.stores.dvc import bare
from tasks.samples.shards import FOLDER as IMAGES
from tasks.samples.shards import SLOTS, shards_with
from tasks.samples.table import COPIES_HEAD, SPLIT, SUBJECTS_HEAD

PER_SAMPLE = frozenset(
    {
        "images.npy", "images", "pictures.npy", "copies.csv", "subjects.csv", "samples.csv", "manifest.csv",
        "logits.npy", "losses.csv", "verdict.json", "weights.safetensors",
    }
)  # fmt: skip
"""Names of outputs that hold something of every sample, or know all of them.

``images`` is a folder of shards, and counts in that of a split alone; earlier versions had ``images.npy``.
``verdict.json`` of stage ``audit`` does no longer; earlier versions kept a score of each member in it.
"""

EMPTY = frozenset(
    hashlib.md5(f"{head}\n".encode(), usedforsecurity=False).hexdigest()
    for head in (COPIES_HEAD, SUBJECTS_HEAD)
)
"""MD5s of tables without a row: they tell of nobody, and are the same before and after."""

OWN_STAGE = re.compile(r"-m\s+tasks\.\w")
"""What the command of a stage of the project's own has in it, however it is wrapped."""

FilesOf = Callable[[str], Mapping[str, str] | None]

WORKSPACE = "workspace"
RUN_CACHE = "run cache"
DAMAGED = (YAMLError, ValueError, KeyError, TypeError, AttributeError, ExpungeError)


@dataclass(frozen=True, slots=True)
class Output:
    """An output of a stage.

    Attributes
    ----------
    stage
        The stage's name; its command, if only the run cache knows it.
    path
        As ``dvc.lock`` has it.
    md5
        With ``.dir`` at its end for a folder.
    revs
        Commits whose ``dvc.lock`` names it; ``workspace`` and ``run cache`` stand for these.
    """

    stage: str
    path: str
    md5: str
    revs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Run:
    """What a stage once made of what: path and MD5 of its inputs and outputs."""

    stage: str
    cmd: str
    deps: tuple[tuple[str, str], ...]
    outs: tuple[tuple[str, str], ...]
    revs: tuple[str, ...]

    @classmethod
    def of(cls, stage: str, entry: Any, revs: tuple[str, ...]) -> _Run:
        try:
            deps, outs = (
                tuple((str(each["path"]), str(each.get("md5", ""))) for each in entry.get(kind, ()))
                for kind in ("deps", "outs")
            )
            return cls(stage, str(entry.get("cmd", "")), deps, outs, revs)
        except (AttributeError, KeyError, TypeError):
            raise ExpungeError(f"stage {stage} in dvc.lock is damaged; {RESTORE_LOCK}") from None

    def with_shards(self, files_of: FilesOf) -> _Run:
        """Return it with the shards of images among its outputs, beside the folder that they lie in."""
        shards = (
            (f"{path}/{name}", each)
            for path, md5 in self.outs
            if _is_shards(path) and md5.endswith(".dir")
            for name, each in (files_of(md5) or {}).items()
        )
        return replace(self, outs=(*self.outs, *shards))

    @property
    def read(self) -> frozenset[str]:
        """MD5s of its inputs."""
        return frozenset(bare(md5) for _, md5 in self.deps if md5)

    @property
    def made(self) -> frozenset[str]:
        """MD5s of its outputs."""
        return frozenset(bare(md5) for _, md5 in self.outs if md5)

    def is_ours(self, source: str) -> bool:
        """Whether it is one of the project's own stages, or reads or makes the source."""
        places = (path for path, _ in (*self.deps, *self.outs))
        return bool(OWN_STAGE.search(self.cmd)) or any(_tells_of(path, source) for path in places)


@dataclass
class Lineage:
    """What this repository's stages made of what, and what others made.

    Attributes
    ----------
    runs
        Its own.
    entries
        By store, its own entries of the run cache and the MD5s that each names.
    outs
        By MD5, paths of what its stages made of samples: the project's own stages, and those that read the
        source or what such a stage made.
    others
        MD5s of what others made: other projects, as the run caches say, and stages of this repository that
        read nothing of the samples, such as a download.
    """

    runs: list[_Run] = field(default_factory=list)
    entries: dict[str, dict[str, frozenset[str]]] = field(default_factory=dict)
    outs: dict[str, set[str]] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)

    @classmethod
    def read(
        cls,
        root: Path,
        source: str,
        pointers: Pointers,
        run_caches: Mapping[str, Mapping[str, bytes]],
        *,
        files_of: FilesOf = lambda _: None,
        private: str | None = None,
    ) -> Lineage:
        """Read ``dvc.lock`` of the working tree and all commits, and sort the entries of run caches.

        An entry is this repository's if a stage of its ``dvc.lock``, in whatever commit, has the same
        command, and all data that the entry read is this repository's: outputs of its stages, or its source.

        Parameters
        ----------
        source
            Path of the source, below the root.
        run_caches
            Entries of each store by their path in it, see :meth:`tasks.erasure.stores.dvc.Objects.runs`.
        files_of
            Returns MD5 by path of the files in the list of a folder, or ``None`` if nobody has it.
        private
            The store that no other project writes to: what it alone has was made here.

        Raises
        ------
        ExpungeError
            If ``dvc.lock`` of the working tree or Git cannot be read.
        """
        found = cls([run.with_shards(files_of) for run in _of_locks(_locks(root))])
        commands = {run.cmd for run in found.runs}
        paths = {path for run in found.runs for path, _ in run.outs}
        own = {md5 for run in found.runs for md5 in run.made}
        own |= {bare(pointer.md5) for pointer in pointers.of(source)}
        own |= {bare(md5) for run in found.runs for path, md5 in run.deps if _tells_of(path, source)}
        pending = {
            (store, path): run.with_shards(files_of)
            for store, texts in run_caches.items()
            for path, run in _of_run_cache(texts)
        }
        shared = {path for store, path in pending if store != private}

        def belongs(store: str, path: str, run: _Run) -> bool:
            if store == private and path not in shared:
                return True
            data = [bare(md5) for name, md5 in run.deps if name in paths or _tells_of(name, source)]
            return run.cmd in commands and bool(data) and own.issuperset(data)

        while new := {place: run for place, run in pending.items() if belongs(*place, run)}:
            for (store, path), run in new.items():
                del pending[store, path]
                found.runs.append(run)
                found.entries.setdefault(store, {})[path] = run.read | run.made
                own |= run.made
                paths |= {name for name, _ in run.outs}
        found.others = {md5 for run in pending.values() for md5 in run.made}
        found._sort_out({bare(pointer.md5) for pointer in pointers.of(source)}, source)
        return found

    def _sort_out(self, of_source: Collection[str], source: str) -> None:
        """Tell what was made of samples from what this repository's stages made of anything else."""
        derived, rest = set(of_source), self.runs
        while of_samples := [run for run in rest if run.is_ours(source) or not derived.isdisjoint(run.read)]:
            rest = [run for run in rest if run not in of_samples]
            derived |= {md5 for run in of_samples for md5 in run.made}
            for run in of_samples:
                for path, md5 in run.outs:
                    self.outs.setdefault(bare(md5), set()).add(path)
        self.others |= {md5 for run in rest for md5 in run.made}

    def sources(self, source: str) -> set[str]:
        """MD5s under which stages read the source."""
        return {bare(md5) for run in self.runs for path, md5 in run.deps if md5 and _tells_of(path, source)}

    def made_of_source(self, source: str, rev: str) -> set[str]:
        """MD5s of what stages made the source, or a part of it, as ``dvc.lock`` of one commit has them."""
        return {
            md5
            for run in self.runs
            if rev in run.revs
            for path, md5 in run.outs
            if md5 and PurePosixPath(path).is_relative_to(source)
        }

    def void_outputs(self, void: Collection[str], keep: Collection[str]) -> list[Output]:
        """Return the outputs that were made, directly or through others, of void objects or beside them.

        An output counts if it is named like one of ``PER_SAMPLE``; only through such ones the search goes
        on. What was made together with a void object is void, too: the table of a split tells of its images.

        Parameters
        ----------
        void
            MD5s of objects that hold erased samples, with or without ``.dir``.
        keep
            MD5s of outputs that are not void whatever they were made of: the weights in production.
        """
        tainted, kept = {bare(md5) for md5 in void}, EMPTY | set(map(bare, keep))
        while True:
            found = [
                (run, path, md5)
                for run in self.runs
                if not tainted.isdisjoint(run.read | run.made)
                for path, md5 in run.outs
                if md5 and _is_per_sample(path) and bare(md5) not in kept
            ]
            reached = {bare(md5) for _, _, md5 in found}
            if reached <= tainted:
                return _merged(found)
            tainted |= reached

    def commits_without_data(self, root: Path, void: Collection[str]) -> list[str]:
        """Return the commits, newest first, whose ``dvc.lock`` names a void object: it cannot be restored."""
        gone = {bare(md5) for md5 in void}
        named = {rev for run in self.runs if gone & (run.read | run.made) for rev in run.revs}
        return [commit for commit in history.commits(root) if commit in named]


def current_outs(root: Path, stage: str) -> set[str]:
    """MD5s of what a stage made, where it lies as ``dvc.lock`` of the working tree has it."""
    path = root / "dvc.lock"
    locks = [((WORKSPACE,), path.read_bytes())] if path.exists() else []
    outs = [out for run in _of_locks(locks) if run.stage == stage for out in run.outs]
    return {each for name, md5 in outs if md5 for each in _there(root / name, md5)}


def staying_shards(root: Path, sample_ids: Collection[str]) -> set[str]:
    """MD5s of the shards in the working tree that hold none of the samples: they stay when these leave."""
    folder = root / SPLIT / IMAGES
    try:
        going = shards_with(sample_ids, folder)
    except ExpungeError:
        return set()
    return {md5 for name, md5 in file_digests(folder).items() if name not in {*going, SLOTS}}


def _there(path: Path, md5: str) -> set[str]:
    """MD5 of a file or a folder, with those of all files in it, if it lies there as it is recorded."""
    if not path.exists():
        return set()
    files = file_digests(path) if path.is_dir() else {}
    now = folder_digest(files) if path.is_dir() else digest(path)
    return {bare(md5), *files.values()} if now == md5 else set()


def _is_shards(path: str) -> bool:
    return PurePosixPath(path).parts[-2:] == (SPLIT.name, IMAGES)


def _is_per_sample(path: str) -> bool:
    place = PurePosixPath(path)
    if place.name == IMAGES or place.parent.name == IMAGES:
        return _is_shards(path) or _is_shards(str(place.parent))
    return place.name in PER_SAMPLE


def _tells_of(path: str, source: str) -> bool:
    return Pointer("", PurePosixPath(path).as_posix(), "").tells_of(source)


def _merged(found: Iterable[tuple[_Run, str, str]]) -> list[Output]:
    merged: dict[tuple[str, str], Output] = {}
    for run, path, md5 in found:
        known = merged.get((path, md5), Output(run.stage, path, md5, ()))
        revs = tuple(dict.fromkeys([*known.revs, *run.revs]))
        merged[path, md5] = Output(known.stage, path, md5, revs)
    return list(merged.values())


def forget_in_lock(path: Path, void: Collection[str]) -> list[str]:
    """Take the stages out of ``dvc.lock`` that have a void output; return their names.

    Raises
    ------
    ExpungeError
        If the file is damaged.
    """
    if not path.exists():
        return []
    yaml, gone = YAML(), {bare(md5) for md5 in void}  # as DVC itself writes it
    lock = _parsed(path.read_bytes(), yaml)
    stages = lock.get("stages", {})
    void_stages = [name for name, entry in stages.items() if gone & _Run.of(name, entry, ()).made]
    for name in void_stages:
        del stages[name]
    if void_stages:
        with write_whole(path) as file:
            yaml.dump(lock, file)
    return void_stages


def _locks(root: Path) -> Iterator[tuple[tuple[str, ...], bytes]]:
    """``dvc.lock`` of the working tree and of all commits, each content once."""
    path = root / "dvc.lock"
    if path.exists():
        yield (WORKSPACE,), path.read_bytes()
    commits = history.in_each_commit("dvc.lock", root)
    for blob, content in history.blobs(commits, root).items():
        yield commits[blob], content


def _of_locks(locks: Iterable[tuple[tuple[str, ...], bytes]]) -> Iterator[_Run]:
    yaml = YAML(typ="safe")
    for revs, text in locks:
        try:
            stages = _parsed(text, yaml).get("stages", {})
            runs = [_Run.of(name, entry, revs) for name, entry in stages.items()]
        except ExpungeError:
            if WORKSPACE in revs:
                raise
            continue  # somebody committed half a merge
        yield from runs


def _of_run_cache(texts: Mapping[str, bytes]) -> Iterator[tuple[str, _Run]]:
    yaml = YAML(typ="safe")
    for path, text in texts.items():
        with suppress(*DAMAGED):  # an entry that DVC drops, too
            entry = yaml.load(text)
            yield path, _Run.of(str(entry["cmd"]), entry, (RUN_CACHE,))


def _parsed(lock: bytes, yaml: YAML) -> Any:
    try:
        value = yaml.load(lock) or {}
        value.get("stages", {}).items()
    except (YAMLError, ValueError, AttributeError):
        raise ExpungeError(f"dvc.lock is damaged; {RESTORE_LOCK}") from None
    return value
