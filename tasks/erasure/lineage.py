"""What was made of an erased sample, though its content does not show it.

Logits, losses and weights name nobody. That they were made of a void split is told by the MD5s in
``dvc.lock``, of the working tree and of every commit that Git has, and by the run cache.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.core import git
from tasks.core.errors import ExpungeError
from tasks.core.files import write_whole
from tasks.erasure.stores import DvcCache, bare, remotes

PER_SAMPLE = frozenset(
    {
        "images.npy", "pictures.npy", "samples.csv", "manifest.csv",
        "logits.npy", "losses.csv", "weights.safetensors",
    }
)  # fmt: skip
"""Names of outputs that hold something of every sample, or know all of them."""

WORKSPACE = "workspace"
RUN_CACHE = "run cache"
DAMAGED = (YAMLError, ValueError, KeyError, TypeError, ExpungeError)
RESTORE_LOCK = "restore it: git checkout -- dvc.lock"


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
    """What a stage once made of what."""

    stage: str
    deps: frozenset[str]
    outs: tuple[tuple[str, str], ...]
    revs: tuple[str, ...]

    @classmethod
    def of(cls, stage: str, entry: Any, revs: tuple[str, ...]) -> _Run:
        try:
            deps, outs = (
                [(str(each["path"]), str(each.get("md5", ""))) for each in entry.get(kind, ())]
                for kind in ("deps", "outs")
            )
        except (AttributeError, KeyError, TypeError):
            raise ExpungeError(f"stage {stage} in dvc.lock is damaged; {RESTORE_LOCK}") from None
        return cls(stage, frozenset(bare(md5) for _, md5 in deps), tuple(outs), revs)

    @property
    def made(self) -> frozenset[str]:
        """MD5s of its outputs."""
        return frozenset(bare(md5) for _, md5 in self.outs)


def void_outputs(root: Path, void: Collection[str], keep: Collection[str]) -> list[Output]:
    """Return the outputs that were made, directly or through others, of void objects or beside them.

    An output counts if it is named like one of ``PER_SAMPLE``; only through such ones the search goes on.
    What was made together with a void object is void, too: the table of a split tells of its images.

    Parameters
    ----------
    root
        The repository's.
    void
        MD5s of objects that hold erased samples, with or without ``.dir``.
    keep
        MD5s of outputs that are not void whatever they were made of: the weights in production.

    Raises
    ------
    ExpungeError
        If ``dvc.lock``, Git, the cache or a remote cannot be read.
    """
    runs = [*_of_locks(_locks(root)), *_of_run_caches(root)]
    tainted, kept = {bare(md5) for md5 in void}, {bare(md5) for md5 in keep}
    while True:
        found = [
            (run, path, md5)
            for run in runs
            if not tainted.isdisjoint(run.deps | run.made)
            for path, md5 in run.outs
            if md5 and PurePosixPath(path).name in PER_SAMPLE and bare(md5) not in kept
        ]
        reached = {bare(md5) for _, _, md5 in found}
        if reached <= tainted:
            return _merged(found)
        tainted |= reached


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


def commits_without_data(root: Path, void: Collection[str]) -> list[str]:
    """Return the commits, newest first, whose ``dvc.lock`` names a void object: they cannot be restored."""
    gone = {bare(md5) for md5 in void}
    runs = [run for run in _of_locks(_locks(root)) if gone & (run.deps | run.made)]
    named = {rev for run in runs for rev in run.revs}
    return [commit for commit in _commits(root) if commit in named]


def _locks(root: Path) -> Iterator[tuple[tuple[str, ...], bytes]]:
    """``dvc.lock`` of the working tree and of all commits, each content once."""
    path = root / "dvc.lock"
    if path.exists():
        yield (WORKSPACE,), path.read_bytes()
    commits = _commits(root)
    names = "".join(f"{commit}:./dvc.lock\n" for commit in commits)
    check = "--batch-check=%(objectname) %(objecttype)"
    answers = git.call("cat-file", check, root=root, stdin=names).splitlines()
    revs: dict[str, list[str]] = {}
    for commit, answer in zip(commits, answers, strict=True):
        if answer.endswith(b" blob"):
            revs.setdefault(answer.split()[0].decode(), []).append(commit)
    blobs = "".join(f"{blob}\n" for blob in revs)
    contents = io.BytesIO(git.call("cat-file", "--batch", root=root, stdin=blobs))
    for commits_with_it in revs.values():
        size = int(contents.readline().split()[2])
        yield tuple(commits_with_it), contents.read(size)
        contents.readline()


def _commits(root: Path) -> list[str]:
    """All commits: of branches, tags and experiments, and of the reflog, where DVC queues experiments."""
    return git.call("rev-list", "--all", "--reflog", root=root).decode().split()


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


def _of_run_caches(root: Path) -> Iterator[_Run]:
    yaml = YAML(typ="safe")
    for store in (DvcCache(root), *remotes(root)):
        for text in store.runs():
            with suppress(*DAMAGED):  # an entry that DVC drops, too
                entry = yaml.load(text)
                yield _Run.of(str(entry["cmd"]), entry, (RUN_CACHE,))


def _parsed(lock: bytes, yaml: YAML) -> Any:
    try:
        value = yaml.load(lock) or {}
        value.get("stages", {}).items()
    except (YAMLError, ValueError, AttributeError):
        raise ExpungeError(f"dvc.lock is damaged; {RESTORE_LOCK}") from None
    return value
