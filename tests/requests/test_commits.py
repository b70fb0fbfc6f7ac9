"""What commits say of requests, found on any branch and after the history was rewritten."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from tasks.core.errors import ExpungeError
from tasks.requests import events as facts
from tasks.requests.chain import Anchor, Event, Head, canonical, check_chain
from tasks.requests.commits import anchors_in_git, find_again, lock_commits, says
from tasks.requests.request import Request
from tasks.requests.states import State, Status
from tasks.requests.trace import by_commit, trace

ONE, TWO = Head(1, "1" * 64), Head(2, "2" * 64)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    for name, value in {"GLOBAL": os.devnull, "NOSYSTEM": "1"}.items():
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    root = tmp_path / "project"
    root.mkdir()
    git(root, "init", "--quiet", "--initial-branch=main")
    git(root, "config", "user.name", "Someone")
    git(root, "config", "user.email", "someone@example.org")
    return root


def git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(root: Path, message: str, lock: str = "") -> str:
    """Commit a ``dvc.lock``, and beside it an image that is to leave the history."""
    (root / "dvc.lock").write_text(lock or message)
    (root / "image.png").write_text(message)
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", message)
    return git(root, "rev-parse", "HEAD")


def step(batch: str, name: str, requests: str, head: Head) -> str:
    lines = (f"Batch: {batch}", f"Step: {name}", f"Requests: {requests}", f"Ledger: {head}")
    return f"{name} {batch}\n\n" + "\n".join(f"Expunge-{line}" for line in lines)


def rewrite(root: Path) -> None:
    """Take the image out of every commit, as ``git filter-repo`` does, and all that leads to the old ones."""
    command = "git rm --quiet --cached --ignore-unmatch image.png"
    env = os.environ | {"FILTER_BRANCH_SQUELCH_WARNING": "1"}
    arguments = ("filter-branch", "--index-filter", command, "--", "--all")
    subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, env=env)
    for ref in git(root, "for-each-ref", "--format=%(refname)", "refs/original").split():
        git(root, "update-ref", "-d", ref)
    git(root, "reflog", "expire", "--expire=now", "--all")
    git(root, "gc", "--quiet", "--prune=now")


def test_no_repository_no_anchor_and_no_answer_are_told_apart(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert anchors_in_git(tmp_path) is None
    assert anchors_in_git(root) == []
    first = commit(root, "first")
    assert anchors_in_git(root) == []
    git(root, "update-ref", "refs/heads/side", first)
    (root / ".git/refs/heads/side").write_text("1" * 40 + "\n")
    with pytest.raises(ExpungeError, match="git log failed in"):
        anchors_in_git(root)
    with pytest.raises(ExpungeError, match="git log failed in"):
        find_again(root, "2" * 40, {"Expunge-Batch": "b"})
    with pytest.raises(ExpungeError, match="git rev-list failed in"):
        lock_commits(root, "0" * 64)
    (root / ".git/HEAD").unlink()
    with pytest.raises(ExpungeError, match="not a git repository"):
        anchors_in_git(root)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ExpungeError, match="git is not installed"):
        anchors_in_git(root)
    assert anchors_in_git(tmp_path) is None


def test_anchors_are_read_from_every_branch_tag_and_from_where_a_branch_once_was(root: Path) -> None:
    commit(root, "first")
    sources: list[tuple[str, Head]] = []
    for place in ("branch", "tag", "reset", "stash"):
        head = Head(len(sources) + 1, f"{len(sources)}" * 64)
        git(root, "switch", "--quiet", "--create", place, "main")
        sources.append((commit(root, step("b", "promoted", "r", head))[:12], head))
        if place == "tag":
            git(root, "tag", "kept")
        if place != "branch":
            git(root, "reset", "--quiet", "--hard", "main")
    git(root, "switch", "--quiet", "main")
    found = anchors_in_git(root)
    assert found is not None
    assert {(each.source, each.head) for each in found} == {(f"commit {id_}", head) for id_, head in sources}
    git(root, "config", "trailer.separators", "=")
    git(root, "config", "grep.patternType", "perl")
    assert anchors_in_git(root) == found


def test_an_anchor_in_a_squashed_commit_counts_and_one_that_is_none_is_a_failure(root: Path) -> None:
    commit(
        root, f"squash\n\n{step('b', 'promoted', 'r', ONE)}\n\nand more\n\n{step('b', 'purged', 'r', TWO)}"
    )
    commit(root, "docs\n\nExpunge-Ledger: is the name of a trailer, see docs\n\nSigned-off-by: someone")
    found = anchors_in_git(root)
    assert found is not None
    assert {each.head for each in found} == {ONE, TWO}
    bad = commit(root, "forged\n\nExpunge-Ledger: 3:abc")
    with pytest.raises(ExpungeError, match=f"commit {bad[:12]} has the trailer .*: '3:abc', which"):
        anchors_in_git(root)


def test_anchors_that_contradict_each_other_are_a_failure_that_names_both(root: Path) -> None:
    commit(root, step("b", "promoted", "r", ONE))
    git(root, "switch", "--quiet", "--orphan", "forged")
    forged = commit(root, step("b", "promoted", "r", Head(1, "f" * 64)))
    git(root, "switch", "--quiet", "main")
    found = anchors_in_git(root)
    assert found is not None
    assert len(found) == 2
    with pytest.raises(ExpungeError, match=rf"anchors of event 1 contradict .*: commit .*{forged[:12]}"):
        check_chain([], found)
    given = Anchor(ONE, "--anchor")
    with pytest.raises(ExpungeError, match="contradict each other: --anchor and commit x"):
        check_chain([], [given, Anchor(Head(1, "e" * 64), "commit x")])


def test_a_commit_is_found_again_after_the_history_was_rewritten(root: Path) -> None:
    user = commit(root, "first", lock="first")
    known = {
        ("b-1", "promoted", "r-1, r-2"): commit(root, step("b-1", "promoted", "r-1, r-2", ONE)),
        ("b-1", "purged", "r-2"): commit(root, step("b-1", "purged", "r-2", TWO)),
        ("b-1", "purged", "r-1"): commit(root, step("b-1", "purged", "r-1", Head(3, "3" * 64))),
        ("b-10", "promoted", "r-10"): commit(root, step("b-10", "promoted", "r-10", Head(4, "4" * 64))),
    }
    for (batch, name, requests), id_ in known.items():
        assert find_again(root, id_, {"Expunge-Batch": batch, "Expunge-Step": name}) == id_
        assert find_again(root, id_, {}) == id_
        assert find_again(root, id_[:10], {}) == id_[:10]
        assert requests
    rewrite(root)
    subjects = {}
    for (batch, name, requests), id_ in known.items():
        one = requests.split(", ")[-1]
        trailers = {"Expunge-Batch": batch, "Expunge-Step": name, "Expunge-Requests": one}
        now = find_again(root, id_, trailers)
        assert now is not None
        assert now != id_
        subjects[now] = git(root, "log", "-1", "--format=%(trailers:key=Expunge-Requests,valueonly)", now)
        assert subjects[now] == requests
        assert find_again(root, id_, {"Expunge-Ledger": str(Head(9, "9" * 64))}) is None
        assert find_again(root, id_, {**trailers, "Expunge-Requests": f"{one}, r-99"}) is None
    assert len(subjects) == len(known)
    assert find_again(root, user, {}) is None
    assert find_again(root, "--all", {}) is None
    (again,) = lock_commits(root, hashlib.sha256(b"first").hexdigest())
    assert git(root, "log", "-1", "--format=%s", again) == "first"


def test_what_filter_repo_wrote_down_of_the_commits_is_used(root: Path) -> None:
    old, new = commit(root, "first"), commit(root, "second")
    (root / ".git/filter-repo").mkdir()
    gone, between = "a" * 40, "b" * 40
    lines = [f"{'old':40} new", f"{gone} {between}", f"{between} {old}", f"{'c' * 40} {'0' * 40}"]
    (root / ".git/filter-repo/commit-map").write_text("\n".join(lines) + "\n")
    assert find_again(root, gone, {}) == old
    assert find_again(root, "c" * 40, {}) is None
    assert find_again(root, new, {}) == new


def test_a_commit_that_no_branch_leads_to_is_not_taken_for_the_one_that_it_became(
    root: Path,
) -> None:
    commit(root, "first")
    old = commit(root, step("b-1", "promoted", "r-1", ONE))
    git(root, "commit", "--quiet", "--amend", "--no-edit", "--date=2020-01-01T00:00:00Z")
    new = git(root, "rev-parse", "HEAD")
    assert old != new
    assert git(root, "cat-file", "-t", old) == "commit"
    assert find_again(root, old, {"Expunge-Batch": "b-1", "Expunge-Step": "promoted"}) == new
    git(root, "switch", "--quiet", "--detach", old)
    assert find_again(root, old, {}) == old


def test_commits_are_found_by_their_lock_in_a_folder_of_a_repository_too(root: Path) -> None:
    (root / "inner").mkdir()
    (root / "inner/dvc.lock").write_text("inner")
    made = [commit(root, message, lock=lock) for message, lock in (("a", "x"), ("b", "y"), ("c", "x"))]
    assert lock_commits(root, hashlib.sha256(b"x").hexdigest()) == [made[2], made[0]]
    assert lock_commits(root / "inner", hashlib.sha256(b"inner").hexdigest()) == made[::-1]
    assert lock_commits(root, hashlib.sha256(b"inner").hexdigest()) == []
    assert lock_commits(root.parent, "0" * 64) == []
    assert find_again(root.parent, made[0], {}) is None


def test_only_a_message_s_last_paragraph_says_what_a_commit_is() -> None:
    message = step("b-1", "promoted", "r-1, r-2", ONE)
    assert says(message, {"Expunge-Batch": "b-1", "Expunge-Requests": "r-2"})
    assert not says(message, {"Expunge-Requests": "r"})
    assert not says(f"{message}\n\nReviewed-by: someone", {"Expunge-Batch": "b-1"})
    assert says(message.replace("\n", "\r\n").replace("\r\n\r\n", "\n\n"), {"Expunge-Step": "promoted"})


def test_a_trace_tells_what_became_of_a_commit_and_starts_from_either_id(root: Path) -> None:
    user = commit(root, "the user's own")
    old = commit(root, step("b-1", "promoted", "r-1, r-2", ONE))
    at = "2026-05-01T12:00:00.000000Z"
    attempt = facts.Attempt(attempt=1, method="retrain", base=facts.Base(weights="0" * 64), commit=user)
    promotion = facts.Promotion(method="retrain", guarantee="exact", weights="1" * 64, commit=old)
    told = [
        Event(seq, at, fact.kind, "b-1", canonical(fact.body()), "0" * 64).sealed()
        for seq, fact in enumerate((attempt, promotion), start=6)
    ]
    request = Request("r-2", State(Status.PROMOTED), (), tuple(told))
    assert [each.ids["commit"] for each in trace(request, root)] == [user, old]
    assert [each.ids.get("commit now") for each in trace(request, root)] == [None, None]
    assert by_commit(old[:7], root)(promotion)
    rewrite(root)
    new = git(root, "rev-parse", "HEAD")
    before, after = trace(request, root)
    assert (after.ids["commit"], after.ids["commit now"]) == (old, new)
    assert before.ids["commit now"].startswith("no commit of any branch")
    own = facts.Promoted(batch="b-1")
    for name in (old, new):
        assert by_commit(name[:9], root)(promotion) == (name == old)
        assert by_commit(name[:9], root)(own) == (name == new)
    assert not by_commit(new[:9], root)(facts.Promoted(batch="b-2"))
    assert not by_commit(new[:6], root)(own)
    assert "commit now" not in trace(request, root.parent)[1].ids
    (root / ".git/HEAD").write_text("damaged")
    assert trace(request, root)[1].ids["commit now"].startswith("cannot be told: git rev-parse failed")
