"""How samples are taken out of Git's history: by people, with these commands."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath

from tasks.core.files import write_text
from tasks.erasure.stores_git import CACHE, LFS, MESSAGES, Held

BLOBS = CACHE / "strip-blobs.txt"
"""Ids of the files' contents that hold samples, for ``git filter-repo --strip-blobs-with-ids``."""

CLONES = (
    "# Clones, forks and the forge (pull requests, caches) still keep the old commits: make clones anew, "
    "delete forks, and ask the forge to remove what no branch leads to."
)


def how_to_rewrite(held: Iterable[Held], source: str | None) -> list[str]:
    """Return the commands that take samples out of Git's history, and what is left to do by people.

    Lists of blobs that the commands read are written below :data:`CACHE`.

    Parameters
    ----------
    held
        From :meth:`GitHistory.held`; public data sets stay.
    source
        ``split.path``, as :meth:`GitHistory.from_top` has it: if all that is held lies there, it leaves the
        history as a whole. None for another repository than the project's.
    """
    lines: list[str] = []
    repositories: dict[str, list[Held]] = {}
    for each in held:
        repositories.setdefault(each.submodule, []).append(each)
    for submodule, places in sorted(repositories.items()):
        commands = list(_commands(places, PurePosixPath(source) if source else None, submodule))
        lines += [f"(cd {shlex.quote(submodule)}", *commands, ")"] if submodule and commands else commands
    return [*lines, CLONES] if any("push --force" in line for line in lines) else lines


def _commands(held: Sequence[Held], source: PurePosixPath | None, submodule: str) -> Iterator[str]:
    own = [each for each in held if not each.public]
    committed = [each for each in own if each.commits and each.place != MESSAGES]
    messages = any(each.place == MESSAGES for each in own)
    if not own:
        return
    yield "git stash clear  # a stash is a commit, too"
    public = [PurePosixPath(each.place) for each in held if each.public]
    if (
        committed
        and source
        and (
            all(PurePosixPath(each.place).is_relative_to(source) for each in committed)
            and not any(place.is_relative_to(source) for place in public)
        )
    ):
        quoted = shlex.quote(str(source))
        yield (
            _filtered(f"git rm -r --quiet --cached --ignore-unmatch {quoted}") if _is_sha256(committed)
            else f"git filter-repo --force --invert-paths --path {quoted}"
        )  # fmt: skip
    elif committed:
        ids = sorted(frozenset[str]().union(*(each.contents for each in committed)))
        path = BLOBS.with_stem(f"{BLOBS.stem}-{submodule.replace('/', '-')}") if submodule else BLOBS
        write_text(path, "".join(f"{id_}\n" for id_ in ids))
        quoted = shlex.quote(str(path.absolute()))
        listed = f"git ls-files --stage | grep --fixed-strings --file={quoted} | cut -f 2"
        yield (
            _filtered(f"{listed} | git update-index --force-remove --stdin") if _is_sha256(committed)
            else f"git filter-repo --force --strip-blobs-with-ids {quoted}"
        )  # fmt: skip
    if messages:
        yield "git filter-repo --force --replace-message <file of names, see its manual>"
    yield "git reflog expire --expire=now --all && git gc --prune=now"
    if any(each.place == LFS for each in own):
        yield "git lfs prune --force  # then the server's own tools, for what it keeps"
    if committed or messages:
        yield "git remote add origin <url>  # filter-repo has taken it out"
        yield "git push --force --all && git push --force --tags"


def _is_sha256(held: Sequence[Held]) -> bool:
    """Whether the repository is in the format that filter-repo cannot read."""
    return any(len(id_) == 64 for each in held for id_ in each.contents)


def _filtered(command: str) -> str:
    """What does the same as filter-repo, slowly: a command for the index of each commit."""
    originals = "git for-each-ref --format='delete %(refname)' refs/original | git update-ref --stdin"
    return f"git filter-branch --force --index-filter {shlex.quote(command)} -- --all && {originals}"
