"""The Git repository of the checkout, as far as processing needs it.

What processing commits is a record, not somebody's work. It is made as it is, whatever the user has set for
commits: hooks do not run, nothing is signed with the user's key, no line ends change, no clean-up starts.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from tasks.core import git
from tasks.core.errors import AtWorkError, BusyError, ExpungeError
from tasks.erasure import originals
from tasks.requests.chain import Anchor, Head
from tasks.requests.commits import BATCH, REQUESTS, STEP, anchors_in_git, messages, says

OURS = ("dvc.lock", "data/requests/erased.txt")
"""Tracked files that processing itself changes."""

AS_IT_IS = (
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "commit.gpgSign=false"),
    *("-c", "core.autocrlf=false"),
    *("-c", "core.safecrlf=false"),
    *("-c", "i18n.commitEncoding=UTF-8"),
    *("-c", "gc.auto=0"),
    *("-c", "maintenance.auto=false"),
)
"""Git's own options for a commit that nothing of the user's settings changes, refuses or goes on after."""

UNFINISHED = {
    "MERGE_HEAD": "merge",
    "CHERRY_PICK_HEAD": "cherry-pick",
    "REVERT_HEAD": "revert",
    "rebase-merge": "rebase",
    "rebase-apply": "rebase",
}
"""Files of Git's folder that tell what is under way, and the command that ends it with ``--abort``."""

PATIENCE = 10.0
"""Seconds to wait for another Git process to leave the index or the branch."""

LEFT = 600.0
"""Seconds after which a lock of Git's is taken for one that a process which was killed has left."""

HELD = re.compile(r"Unable to create '(.+\.lock)': File exists")
"""Git's word for the lock of another Git process, or of one that was killed."""

DESCRIBED = {"license", "licence", "readme", "notice", "copying", "public"}
"""Files beside images that describe them, without their ending."""


class Repository:
    """The Git work tree at ``root``.

    Raises
    ------
    ExpungeError
        If there is none, it has no commit, or Git will not read it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        folder = git.git_folder(root)
        if folder is None:
            raise ExpungeError(f"{root} is no Git repository with a commit; what is done must be committed")
        if self._call("rev-parse", "--is-inside-work-tree") != "true":
            raise ExpungeError(f"{root} is a bare Git repository, which has no files; use a clone of it")
        if not git.ask("rev-parse", "--verify", "--quiet", "HEAD", root=root):
            raise ExpungeError(f"{root} is no Git repository with a commit; what is done must be committed")
        self._folder = folder

    @property
    def head(self) -> str:
        """Id of the commit that is checked out."""
        return self._call("rev-parse", "--verify", "HEAD")

    def refuse_unfinished(self) -> None:
        """See that what is committed now stays on a branch, and that nothing else is under way.

        Raises
        ------
        ExpungeError
            If no branch is checked out, another work tree has the same one, or a merge, rebase, cherry-pick
            or revert is not finished.
        AtWorkError
            If another Git process is at work.
        BusyError
            If its lock is so old (:data:`LEFT`) that it was killed, or needs a person to end it.
        """
        for name, what in UNFINISHED.items():
            if (self._folder / name).exists():
                raise ExpungeError(
                    f"a {what} is not finished in {self.root}; "
                    f"end it: git {what} --continue, or git {what} --abort"
                )
        branch = git.ask("symbolic-ref", "--quiet", "HEAD", root=self.root)
        if not branch:
            raise ExpungeError(
                f"no branch is checked out in {self.root} (HEAD is detached), so that commits would be lost; "
                "check one out: git switch <branch>"
            )
        if elsewhere := self._other_work_trees(branch):
            raise ExpungeError(
                f"{branch.removeprefix('refs/heads/')} is checked out in {elsewhere[0]}, too, "
                "whose files would fall behind; check another branch out there"
            )
        deadline = time.monotonic() + PATIENCE
        while (lock := self._folder / "index.lock").exists():
            if time.monotonic() > deadline:
                raise _busy(lock, _kind_of(lock))
            time.sleep(0.2)

    def refuse_changes(self, but: Sequence[str] = ()) -> None:
        """See that all but our own files are as they were committed, and that a commit can be made.

        Parameters
        ----------
        but
            Further files that may differ, such as the ``.dvc`` file of a source while its purge is under way.

        Raises
        ------
        ExpungeError
            Naming the files that are not: a commit must say what was done by which code. Also as
            :meth:`refuse_unfinished`.
        AtWorkError, BusyError
            As :meth:`refuse_unfinished`.
        """
        self.refuse_unfinished()
        others = (f":(top,literal,exclude){self._prefix}{path}" for path in (*OURS, *but))
        status = git.call(
            *("status", "--porcelain", "-z", "--no-renames", "-uno", "--", ".", *others),
            root=self.root,
            options=["--no-optional-locks"],
        )
        entries = status.decode(errors="replace").split("\0")
        changed = [entry[3:].removeprefix(self._prefix) for entry in entries if entry]
        if changed:
            raise ExpungeError(
                f"{', '.join(changed[:5])} differ{'s' if len(changed) == 1 else ''} from the last commit; "
                "commit or restore them, so that the record can name the code and parameters"
            )

    def tracked(self, path: Path) -> bool:
        """Whether Git tracks the file, or anything in the folder."""
        return bool(tracked_files(self.root / path))

    def anchors(self) -> list[Anchor]:
        """Return the heads of the ledger that commits of any branch carry in their trailers.

        Raises
        ------
        ExpungeError
            If Git cannot read the history.
        """
        return anchors_in_git(self.root) or []

    def last_anchor(self) -> Head | None:
        """Return the newest of them."""
        return max((anchor.head for anchor in self.anchors()), key=lambda head: head.seq, default=None)

    def find(self, batch: str, step: str, requests: str) -> str | None:
        """Return the commit that records a step of these requests of a batch, if it was made."""
        wanted = {BATCH: batch, STEP: step}
        for commit, message in messages(self.root, f"{BATCH}: {batch}", scope=("HEAD",)):
            if says(message, wanted) and f"{REQUESTS}: {requests}" in message.splitlines():
                return commit
        return None

    def commit(self, subject: str, paths: Sequence[str], trailers: Mapping[str, str]) -> str:
        """Commit these paths, whatever else may be staged; return the commit's id.

        A commit is made even if the paths are unchanged: it carries the anchor.

        Raises
        ------
        BusyError
            If another Git process holds the index or branch for longer than :data:`PATIENCE`.
        ExpungeError
            If Git refuses, with what it says.
        """
        there = [path for path in paths if (self.root / path).exists() or self.tracked(Path(path))]
        lines = "\n".join(f"{name}: {value}" for name, value in trailers.items())
        message = f"{subject}\n\n{lines}\n"
        if there:
            self._write("add", "--force", "--", *there)
        how = ("--quiet", "--allow-empty", "--no-verify", "--cleanup=verbatim", "--only", "--file=-")
        self._write("commit", *how, "--", *there, stdin=message)
        return self.head

    def _write(self, command: str, *arguments: str, stdin: str = "") -> None:
        """Call a command that changes the index; wait for another process that does the same."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                git.call(
                    command,
                    *arguments,
                    root=self.root,
                    stdin=stdin,
                    options=AS_IT_IS,
                    variables=self._identity(),
                )
            except ExpungeError as error:
                lock = HELD.search(str(error))
                if lock is None:
                    raise
                if time.monotonic() > deadline:
                    raise _busy(lock[1]) from None
                time.sleep(0.2)
            else:
                return

    def _identity(self) -> dict[str, str]:
        """Who commits, where Git knows nobody: no name is set, or the user's number has none."""
        found: dict[str, str] = {}
        for who in ("AUTHOR", "COMMITTER"):
            if not git.ask("var", f"GIT_{who}_IDENT", root=self.root):
                found |= {f"GIT_{who}_NAME": "expunge", f"GIT_{who}_EMAIL": "expunge@localhost"}
        return found

    def _other_work_trees(self, branch: str) -> list[str]:
        told = self._call("worktree", "list", "--porcelain").split("\n\n")
        here = self._call("rev-parse", "--show-toplevel")
        trees = [dict(line.partition(" ")[::2] for line in tree.splitlines()) for tree in told]
        return [
            tree["worktree"]
            for tree in trees
            if tree.get("branch") == branch and "bare" not in tree and tree["worktree"] != here
        ]

    @property
    def _prefix(self) -> str:
        """Path of ``root`` below the top of the work tree, with a slash at its end."""
        return self._call("rev-parse", "--show-prefix")

    def _call(self, *arguments: str) -> str:
        return git.call(*arguments, root=self.root).decode(errors="surrogateescape").rstrip("\n")


def _kind_of(lock: Path) -> type[BusyError]:
    try:
        age = abs(time.time() - lock.stat().st_mtime)  # a clock that was set back must not keep it young
    except FileNotFoundError:
        return AtWorkError
    return BusyError if age > LEFT else AtWorkError


def _busy(lock: Path | str, kind: type[BusyError] = BusyError) -> BusyError:
    return kind(
        f"{lock} is there: another Git process is at work, or one was killed; "
        f"wait for it, or, if there is none, delete the file: rm {lock}"
    )


def tracked_files(path: Path) -> list[str]:
    """Return what Git tracks of a file or folder, relative to it, ``.`` for a file; nothing outside Git.

    The repository is asked in which the path really lies, links followed.

    Raises
    ------
    ExpungeError
        If Git cannot or will not read that repository.
    """
    real = path.resolve()
    folder = next(each for each in (real, *real.parents) if each.is_dir())
    if git.git_folder(folder) is None:
        return []
    below = real.relative_to(folder)
    told = git.call("ls-files", "-z", "--", f":(literal){below}" if below.parts else ".", root=folder)
    files = [file for file in told.decode(errors="surrogateescape").split("\0") if file]
    return [str(PurePosixPath(file).relative_to(below.as_posix())) if below.parts else file for file in files]


def why_not_in_git(root: Path, source: str, split_path: str) -> str | None:
    """Return in one sentence why Git hinders requests on a source; None if it does not track it.

    Taking an image out would commit the rest of the file once more, and every earlier commit would keep the
    image. It is asked before a batch begins, and before its purge.

    Parameters
    ----------
    root
        The repository's.
    source, split_path
        As ``split.source`` and ``split.path``. A source that no originals are taken out of may lie in Git.

    Raises
    ------
    ExpungeError
        If there is no such source, or Git cannot or will not read the repository.
    """
    if originals.why_kept(source):
        return None
    images = [file for file in tracked_files(root / split_path) if _holds_images(file)]
    if not images:
        return None
    path = str(PurePosixPath(split_path))
    if (root / split_path / "PUBLIC").exists():
        return (
            f"split.path, {path}, is the public data set in Git, which requests leave alone; "
            "set split.path to the copy that stage sample makes: data/sample"
        )
    return (
        f"Git tracks split.path, {path} ({len(images)} files), and would keep in every commit what a request "
        f"erases; track it with DVC instead: git rm -r --cached {path} && dvc add {path}, commit, "
        "and rewrite the commits that hold it"
    )


def _holds_images(file: str) -> bool:
    name = PurePosixPath(file).name
    return not name.startswith(".") and name.partition(".")[0].lower() not in DESCRIBED
