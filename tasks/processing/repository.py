"""The Git repository of the checkout, as far as processing needs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tasks.core import git
from tasks.core.errors import ExpungeError
from tasks.requests.ledger import Head

OURS = ("dvc.lock", "data/requests/erased.txt")
"""Tracked files that processing itself changes."""


class Repository:
    """The Git work tree at ``root``.

    Raises
    ------
    ExpungeError
        If there is none, or it has no commit.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        if not self._ask("rev-parse", "--verify", "--quiet", "HEAD"):
            raise ExpungeError(f"{root} is no Git repository with a commit; what is done must be committed")

    @property
    def head(self) -> str:
        """Id of the commit that is checked out."""
        return self._ask("rev-parse", "HEAD")

    def refuse_changes(self, but: Sequence[str] = ()) -> None:
        """See that all but our own files, and those that a purge has changed, are as they were committed.

        Raises
        ------
        ExpungeError
            Naming the files that are not: a commit must say what was done by which code.
        """
        others = (f":(exclude){path}" for path in (*OURS, *but))
        status = git.call(
            *("status", "--porcelain", "-uno", "--", ".", *others),
            root=self.root,
            options=["--no-optional-locks"],
        )
        changed = [line[3:].strip() for line in status.decode(errors="replace").splitlines()]
        if changed:
            raise ExpungeError(
                f"{', '.join(changed[:5])} differ{'s' if len(changed) == 1 else ''} from the last commit; "
                "commit or restore them, so that the record can name the code and parameters"
            )

    def tracked(self, path: Path) -> bool:
        """Whether Git tracks the file, or anything in the folder."""
        return bool(self._ask("ls-files", "--", str(path)))

    def find(self, batch: str, step: str, requests: str) -> str | None:
        """Return the commit that records a step of these requests of a batch, if it was made."""
        trailers = {"Batch": batch, "Step": step, "Requests": requests}
        wanted = [*(f"--grep=^Expunge-{name}: {value}$" for name, value in trailers.items()), "--all-match"]
        return self._ask("log", "--format=%H", "--max-count=1", *wanted) or None

    def commit(self, subject: str, paths: Sequence[str], trailers: Mapping[str, str]) -> str:
        """Commit these paths, whatever else may be staged; return the commit's id.

        A commit is made even if the paths are unchanged: it carries the anchor.
        """
        there = [path for path in paths if (self.root / path).exists() or self.tracked(Path(path))]
        git.call("add", "--", *there, root=self.root)
        lines = "\n".join(f"{name}: {value}" for name, value in trailers.items())
        message = f"{subject}\n\n{lines}\n"
        how = ("--quiet", "--allow-empty", "--only", "--message", message)
        git.call("commit", *how, "--", *there, root=self.root, options=self._identity())
        return self.head

    def _identity(self) -> list[str]:
        """Who commits, where Git knows nobody."""
        if self._ask("var", "GIT_COMMITTER_IDENT"):
            return []
        return ["-c", "user.name=expunge", "-c", "user.email=expunge@localhost"]

    def _ask(self, *arguments: str) -> str:
        return git.ask(*arguments, root=self.root, timeout=120)


def anchors_in_git(root: Path) -> list[Head]:
    """Return the heads of the ledger that commits carry in their trailers; none outside Git."""
    trailers = "--format=%(trailers:key=Expunge-Ledger,valueonly,separator=%x0A)"
    lines = git.ask("log", trailers, root=root, timeout=120).splitlines()
    return [Head.parse(line.strip()) for line in lines if line.strip()]
