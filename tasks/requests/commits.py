"""What Git's commits say of requests: trailers that processing writes, the ledger's anchors among them.

A commit's id is no name for ever: rewriting the history, which is how originals leave it, gives new ones.
What a commit says stays, so it can be found again by that, and by the ``dvc.lock`` that it holds.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from tasks.core import git
from tasks.core.errors import ExpungeError
from tasks.requests.chain import Anchor, Head

BATCH, STEP, REQUESTS, LEDGER = "Expunge-Batch", "Expunge-Step", "Expunge-Requests", "Expunge-Ledger"
"""Trailers of every commit that processing makes."""

EVERYWHERE = ("--all", "--reflog")
"""Commits of all branches, tags and work trees, and those that they once were at."""

TRAILER = re.compile(r"^(Expunge-[A-Za-z-]+): *(.*?)\s*$", re.MULTILINE)
ANCHOR = re.compile(rf"^{LEDGER}: *([0-9]+:[0-9a-f]{{64}})\s*$", re.MULTILINE)


def anchors_in_git(root: Path) -> list[Anchor] | None:
    """Return the heads of the ledger that commits of any branch, and of the reflog, carry.

    Anchors that contradict each other are all in the list: :func:`~tasks.requests.chain.check_chain` tells.

    Returns
    -------
    list[Anchor] or None
        None if ``root`` lies in no Git repository; empty if no commit has one.

    Raises
    ------
    ExpungeError
        If Git cannot read the history, or a commit's trailer is no anchor.
    """
    if git.git_folder(root) is None:
        return None
    found = []
    for commit, message in messages(root, LEDGER):
        source = f"commit {commit[:12]}"
        found += [Anchor(Head.parse(anchor), source) for anchor in ANCHOR.findall(message)]
        for damaged in set(_trailers(message).get(LEDGER, ())) - set(ANCHOR.findall(message)):
            raise ExpungeError(f"{source} has the trailer {LEDGER}: {damaged[:90]!r}, which is no anchor")
    return found


def find_again(root: Path, commit: str, trailers: Mapping[str, str]) -> str | None:
    """Return the id under which a commit is found now.

    Parameters
    ----------
    root
        The repository's.
    commit
        The id under which the ledger knows it.
    trailers
        What the commit says, such as ``{BATCH: …, STEP: …, REQUESTS: …}``; of ``REQUESTS`` some are enough.

    Returns
    -------
    str or None
        ``commit`` itself if a branch or tag still leads to it; else the newest commit that says the same,
        which it became when the history was rewritten; None if there is none, or no Git repository.

    Raises
    ------
    ExpungeError
        If Git cannot read the history.
    """
    folder = git.git_folder(root)
    if folder is None:
        return None
    if _is_reachable(root, commit):
        return commit
    mapped = _mapped(root, commit)
    if mapped and _is_reachable(root, mapped):
        return mapped
    if not trailers:
        return None
    rarest = trailers.get(LEDGER) or trailers.get(BATCH) or next(iter(trailers.values()))
    said = messages(root, rarest, scope=("--all",))
    return next((each for each, message in said if says(message, trailers)), None)


def now(root: Path, commit: str, trailers: Mapping[str, str]) -> str | None:
    """Return in words what has become of a commit that the ledger names; None if it is what it was.

    Parameters
    ----------
    root, commit, trailers
        As for :func:`find_again`.
    """
    try:
        if git.git_folder(root) is None:
            return None
        found = find_again(root, commit, trailers)
    except ExpungeError as error:
        return f"cannot be told: {error}"
    if found is None:
        return "no commit of any branch; the history was rewritten, or it is in another clone"
    return None if found == commit else found


def trailers_of(root: Path, commit: str) -> dict[str, str]:
    """Return what a commit says of requests, of each trailer the last; empty if there is no such commit."""
    told = git.ask("rev-parse", "--verify", "--quiet", "--end-of-options", f"{commit}^{{commit}}", root=root)
    if not told:
        return {}
    message = git.call("cat-file", "commit", told, root=root, options=git.PLAIN).decode(errors="replace")
    return {name: values[-1] for name, values in _trailers(message).items()}


def says(message: str, trailers: Mapping[str, str]) -> bool:
    """Whether a commit's message has these trailers; of the requests that it names, some are enough."""
    there = _trailers(message)
    return all(
        any(
            _names(value) <= _names(each) if name == REQUESTS else value == each
            for each in there.get(name, ())
        )
        for name, value in trailers.items()
    )


def lock_commits(root: Path, sha256: str) -> list[str]:
    """Return the commits, newest first, whose ``dvc.lock`` has this SHA-256; none outside Git.

    Raises
    ------
    ExpungeError
        If Git cannot read the history.
    """
    if git.git_folder(root) is None:
        return []
    commits = git.call("rev-list", "--topo-order", *EVERYWHERE, root=root, options=git.PLAIN).decode().split()
    names = "".join(f"{commit}:./dvc.lock\n" for commit in commits)
    check = "--batch-check=%(objectname) %(objecttype)"
    answers = git.call("cat-file", check, root=root, stdin=names, options=git.PLAIN).splitlines()
    blob_of = {
        commit: answer.split()[0].decode()
        for commit, answer in zip(commits, answers, strict=True)
        if answer.endswith(b" blob")
    }
    right = {
        blob
        for blob in set(blob_of.values())
        if hashlib.sha256(git.call("cat-file", "blob", blob, root=root)).hexdigest() == sha256
    }
    return [commit for commit, blob in blob_of.items() if blob in right]


def messages(root: Path, text: str, scope: tuple[str, ...] = EVERYWHERE) -> Iterator[tuple[str, str]]:
    """Ids and messages of the commits whose message has a text in it, newest first.

    Raises
    ------
    ExpungeError
        If Git cannot read the history.
    """
    wanted = ("--topo-order", "--fixed-strings", f"--grep={text}")
    told = git.call("log", "-z", "--format=%H%n%B", *wanted, *scope, root=root, options=git.PLAIN)
    for entry in told.decode(errors="replace").split("\0"):
        commit, _, message = entry.partition("\n")
        if commit:
            yield commit, message


def _trailers(message: str) -> dict[str, list[str]]:
    """Trailers of ours in the last paragraph, read without Git, whose reading the user's settings change."""
    last = message.rstrip().rpartition("\n\n")[2]
    found: dict[str, list[str]] = {}
    for name, value in TRAILER.findall(last):
        found.setdefault(name, []).append(value)
    return found


def _names(listed: str) -> set[str]:
    return set(listed.split(", "))


def _is_reachable(root: Path, commit: str) -> bool:
    if not re.fullmatch(r"[0-9a-f]{7,64}", commit):
        return False
    reached = ("--max-count=1", commit, "--not", "--all")
    try:
        return not git.call("rev-list", *reached, root=root, options=git.PLAIN).strip()
    except ExpungeError:  # there is no such commit any more
        return False


def _mapped(root: Path, commit: str) -> str | None:
    """What ``git filter-repo`` says that a commit became; it keeps that in the clone in which it ran."""
    folder = (
        git.call("rev-parse", "--git-common-dir", root=root).decode(errors="surrogateescape").rstrip("\n")
    )
    path = root / folder / "filter-repo/commit-map"
    if not path.is_file():
        return None
    pairs = (line.split() for line in path.read_text(encoding="ascii", errors="replace").splitlines())
    became = {pair[0]: pair[1] for pair in pairs if len(pair) == 2}
    seen = {commit}
    while (commit := became.get(commit, "")) and commit not in seen and set(commit) != {"0"}:
        seen.add(commit)
        if commit not in became:
            return commit
    return None
