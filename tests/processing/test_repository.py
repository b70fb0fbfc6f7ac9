"""Git's work tree as processing uses it: real repositories, whatever their owner has set."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.core.errors import AtWorkError, BusyError, ExpungeError
from tasks.processing import repository as module
from tasks.processing.repository import Repository, tracked_files, why_not_in_git
from tasks.sample import EMBEDDED

TRAILERS = {"Expunge-Batch": "b-1", "Expunge-Step": "promoted", "Expunge-Requests": "r-1, r-2"}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit of the files that processing changes."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    for name, value in {"GLOBAL": os.devnull, "NOSYSTEM": "1"}.items():
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    monkeypatch.setattr(module, "PATIENCE", 0.3)
    root = tmp_path / "project"
    write(root, "dvc.lock", "first")
    write(root, "data/requests/erased.txt", "")
    write(root, "params.yaml", "a: 1\n")
    git(root, "init", "--quiet", "--initial-branch=main")
    git(root, "config", "user.name", "Someone")
    git(root, "config", "user.email", "someone@example.org")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "first")
    return root


def git(root: Path, *arguments: str, check: bool = True) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, check=check, capture_output=True, text=True)
    return done.stdout.strip()


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(text.encode())


def commit(root: Path, text: str = "second") -> str:
    write(root, "dvc.lock", text)
    return Repository(root).commit("Forget 2 request(s)", ["dvc.lock", "data/requests/erased.txt"], TRAILERS)


def hooks(root: Path, folder: str) -> None:
    for name in ("pre-commit", "prepare-commit-msg", "commit-msg", "post-commit", "reference-transaction"):
        write(root, f"{folder}/{name}", '#!/bin/sh\ntouch "$(git rev-parse --git-dir)/ran"\nexit 1\n')
        (root / folder / name).chmod(0o755)


def test_hooks_do_not_run_wherever_they_lie(root: Path) -> None:
    hooks(root, ".git/hooks")
    first = commit(root)
    hooks(root, ".git/ours")
    git(root, "config", "core.hooksPath", str(root / ".git/ours"))
    assert commit(root, "third") == git(root, "rev-parse", "HEAD") != first
    assert not (root / ".git/ran").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("commit.gpgSign", "true"),
        ("commit.template", "/nowhere/template"),
        ("commit.cleanup", "strip"),
        ("core.commentChar", "E"),
        ("core.autocrlf", "true"),
        ("core.safecrlf", "true"),
        ("grep.patternType", "perl"),
        ("log.showSignature", "true"),
        ("i18n.commitEncoding", "UTF-16"),
        ("i18n.logOutputEncoding", "UTF-16"),
        ("trailer.separators", "="),
        ("color.ui", "always"),
        ("core.quotePath", "true"),
        ("status.showUntrackedFiles", "all"),
        ("commit.verbose", "true"),
    ],
)
def test_what_the_user_has_set_for_commits_changes_no_record(root: Path, name: str, value: str) -> None:
    git(root, "config", name, value)
    git(root, "config", "gpg.program", "/bin/false")
    if name == "core.safecrlf":
        git(root, "config", "core.autocrlf", "true")
    made = commit(root, "one\ntwo\n")
    repository = Repository(root)
    assert repository.find("b-1", "promoted", "r-1, r-2") == made
    git(root, "config", "--unset", name)
    body = git(root, "log", "-1", "--format=%B")
    assert body == "Forget 2 request(s)\n\n" + "\n".join(
        f"{name}: {value}" for name, value in TRAILERS.items()
    )
    assert git(root, "show", "HEAD:dvc.lock") == "one\ntwo"
    repository.refuse_changes()


def test_a_commit_takes_its_paths_alone_and_is_made_without_a_change(root: Path) -> None:
    write(root, "notes.txt", "staged")
    git(root, "add", "notes.txt")
    first = commit(root, "first")
    assert git(root, "show", "--name-only", "--format=", "HEAD") == ""
    assert commit(root) != first
    assert git(root, "show", "--name-only", "--format=", "HEAD") == "dvc.lock"
    assert git(root, "diff", "--cached", "--name-only") == "notes.txt"


def test_a_path_that_git_ignores_is_committed_all_the_same(root: Path) -> None:
    write(root, ".gitignore", "*.dvc\n")
    write(root, "data/images.dvc", "outs: []\n")
    Repository(root).commit("purged", ["dvc.lock", "data/images.dvc", "data/none.dvc"], TRAILERS)
    assert "data/images.dvc" in git(root, "ls-files")


def test_a_commit_of_thousands_of_requests_is_made_and_found(root: Path) -> None:
    names = ", ".join(f"2026-{number:08d}-abcdefgh" for number in range(8000))
    made = Repository(root).commit("many", ["dvc.lock"], {**TRAILERS, "Expunge-Requests": names})
    assert Repository(root).find("b-1", "promoted", names) == made
    assert Repository(root).find("b-1", "promoted", names[:-1]) is None
    assert Repository(root).find("b-1", "purged", names) is None
    assert Repository(root).find("b-", "promoted", names) is None


def test_without_a_name_the_machine_commits_under_its_own(root: Path) -> None:
    git(root, "config", "--unset", "user.name")
    git(root, "config", "user.useConfigOnly", "true")
    git(root, "config", "--unset", "user.email")
    commit(root)
    assert git(root, "log", "-1", "--format=%an %ae %cn") == "expunge expunge@localhost expunge"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_user_without_a_login_name_can_commit_and_another_ones_repository_is_refused_in_git_s_words(
    root: Path, tmp_path: Path
) -> None:
    for name in ("user.name", "user.email"):
        git(root, "config", "--unset", name)
    for folder in (*tmp_path.parents, tmp_path):
        folder.chmod(folder.stat().st_mode | 0o011)
    code = (
        "import os, sys; from pathlib import Path; from tasks.processing.repository import Repository; "
        "root = Path(sys.argv[1]); os.setgid(54321); os.setuid(54321); repository = Repository(root); "
        "print(repository.commit('one', ['dvc.lock'], {'Expunge-Batch': 'b'}))"
    )
    command = [sys.executable, "-c", code, str(root)]
    stranger = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path.cwd())
    assert "ExpungeError: git rev-parse failed in" in stranger.stderr
    line = stranger.stderr.strip().splitlines()[-1]
    assert "fatal: detected dubious ownership in repository" in line
    assert f"if you trust it: git config --global --add safe.directory {root}" in line
    subprocess.run(["chown", "-R", "54321:54321", str(root)], check=True)
    owner = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path.cwd())
    assert owner.returncode == 0, owner.stderr
    subprocess.run(["chown", "-R", "0:0", str(root)], check=True)
    assert git(root, "log", "-1", "--format=%an") == "expunge"


def refused(root: Path) -> str:
    with pytest.raises(ExpungeError) as caught:
        Repository(root).refuse_changes()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_detached_head_is_refused(root: Path) -> None:
    git(root, "checkout", "--quiet", "--detach")
    assert "no branch is checked out" in refused(root)
    assert "git switch <branch>" in refused(root)


@pytest.mark.parametrize("what", ["merge", "cherry-pick", "revert", "rebase"])
def test_what_is_not_finished_is_refused_with_the_command_that_ends_it(root: Path, what: str) -> None:
    git(root, "switch", "--quiet", "--create", "other")
    write(root, "params.yaml", "a: 2\n")
    git(root, "commit", "--quiet", "--all", "--message", "two")
    git(root, "switch", "--quiet", "main")
    write(root, "params.yaml", "a: 3\n")
    git(root, "commit", "--quiet", "--all", "--message", "three")
    Repository(root).refuse_changes()
    git(root, what, "HEAD~1" if what == "revert" else "other", check=False)
    if what == "revert":
        assert "no branch" not in refused(root)
    assert refused(root).startswith(f"a {what} is not finished in ")
    git(root, what, "--abort")
    Repository(root).refuse_changes()


def test_a_branch_that_is_checked_out_elsewhere_too_is_refused(root: Path, tmp_path: Path) -> None:
    git(root, "worktree", "add", "--quiet", "--force", str(tmp_path / "other"), "main")
    assert f"main is checked out in {tmp_path / 'other'}, too" in refused(root)
    git(tmp_path / "other", "switch", "--quiet", "--create", "side")
    Repository(root).refuse_changes()
    made = Repository(tmp_path / "other").commit("one", ["dvc.lock"], TRAILERS)
    assert git(root, "rev-parse", "side") == made


def test_the_lock_of_a_process_that_was_killed_is_one_line_that_says_what_to_do(root: Path) -> None:
    lock = root / ".git/index.lock"
    lock.touch()
    with pytest.raises(AtWorkError, match=f"if there is none, delete the file: rm {lock}"):
        Repository(root).refuse_changes()
    for hours in (-1, 1):  # a clock that was set back makes nothing young
        os.utime(lock, times=(time.time() + hours * 3600,) * 2)
        with pytest.raises(BusyError, match=f"delete the file: rm {lock}") as caught:
            Repository(root).refuse_changes()
        assert not isinstance(caught.value, AtWorkError)
    with pytest.raises(BusyError, match=f"rm {lock}"):
        commit(root)
    lock.unlink()
    (root / ".git/refs/heads/main.lock").touch()
    with pytest.raises(BusyError, match=r"main\.lock"):
        commit(root)


def test_git_at_work_for_a_moment_is_waited_for(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 30)
    lock = root / ".git/index.lock"
    lock.touch()
    with subprocess.Popen(["sh", "-c", f"sleep 0.5; rm {lock}"]):
        assert commit(root) == git(root, "rev-parse", "HEAD")


def test_a_folder_without_files_without_commits_or_without_git_is_told_apart(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "clone", "--quiet", "--bare", str(root), "bare")
    with pytest.raises(ExpungeError, match="is a bare Git repository"):
        Repository(tmp_path / "bare")
    git(tmp_path, "init", "--quiet", "empty")
    with pytest.raises(ExpungeError, match="no Git repository with a commit"):
        Repository(tmp_path / "empty")
    with pytest.raises(ExpungeError, match="no Git repository with a commit"):
        Repository(tmp_path)
    (root / ".git/HEAD").write_text("damaged")
    with pytest.raises(ExpungeError, match=r"git rev-parse failed in .*: fatal: not a git repository"):
        Repository(root)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ExpungeError, match="git is not installed"):
        Repository(root)


def test_changes_are_told_by_name_but_for_our_own_and_those_of_a_purge_under_way(root: Path) -> None:
    write(root, "data/images.dvc", "outs: []\n")
    write(root, "a ä\n.txt", "")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "more")
    write(root, "dvc.lock", "other")
    write(root, "data/images.dvc", "outs: [1]\n")
    Repository(root).refuse_changes(but=["data/images.dvc"])
    assert refused(root).startswith("data/images.dvc differs from the last commit")
    write(root, "params.yaml", "a: 9\n")
    git(root, "mv", "a ä\n.txt", "b.txt")
    with pytest.raises(ExpungeError, match=r"b\.txt, .*params\.yaml differ from the last commit"):
        Repository(root).refuse_changes()


def test_a_project_in_a_folder_of_a_repository(root: Path) -> None:
    for path in ("inner/dvc.lock", "inner/data/requests/erased.txt", "inner/params.yaml"):
        write(root, path, "one")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "inner")
    write(root, "inner/dvc.lock", "two")
    write(root, "params.yaml", "a: 5")
    inner = Repository(root / "inner")
    inner.refuse_changes()
    inner.commit("one", ["dvc.lock"], TRAILERS)
    assert git(root, "show", "--name-only", "--format=", "HEAD") == "inner/dvc.lock"
    write(root, "inner/params.yaml", "three")
    with pytest.raises(ExpungeError, match=r"^params\.yaml differs"):
        inner.refuse_changes()


def test_a_source_in_git_is_refused_with_what_to_do(root: Path) -> None:
    write(root, "data/images/train/cat/1.png", "one")
    write(root, "data/images/.gitignore", "")
    assert why_not_in_git(root, "image_folder", "data/images") is None
    git(root, "add", "--all")
    for path in ("data/images", "data/images/", "data/images/train", str(root / "data/images")):
        why = why_not_in_git(root, "image_folder", path)
        assert why is not None
        assert "(1 files), and would keep in every commit what a request erases" in why
        assert f"git rm -r --cached {path.rstrip('/')} && dvc add" in why
    git(root, "rm", "-r", "--quiet", "--cached", "data/images")
    write(root, "data/images/README.md", "")
    git(root, "add", "--force", "data/images/README.md", "data/images/.gitignore")
    assert why_not_in_git(root, "image_folder", "data/images") is None


def test_a_source_that_keeps_its_originals_may_lie_in_git_and_the_public_one_names_its_copy(
    root: Path,
) -> None:
    write(root, f"{EMBEDDED}/train-0.parquet", "one")
    write(root, f"{EMBEDDED}/PUBLIC", "")
    git(root, "add", "--all")
    assert why_not_in_git(root, "digits", str(EMBEDDED)) is None
    assert why_not_in_git(root, "cifar10", str(EMBEDDED)) is None
    why = why_not_in_git(root, "parquet", str(EMBEDDED))
    assert why is not None
    assert why.endswith("set split.path to the copy that stage sample makes: data/sample")


def test_the_repository_in_which_a_source_really_lies_is_asked(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write(other, "set/train/cat/1.png", "one")
    (root / "data/images").symlink_to(other / "set")
    assert why_not_in_git(root, "image_folder", "data/images") is None
    assert tracked_files(tmp_path / "nowhere/at all") == []
    git(other, "init", "--quiet")
    git(other, "add", "--all")
    assert why_not_in_git(root, "image_folder", "data/images") is not None
    write(root, "data/nested/train/dog/1.png", "two")
    git(root / "data/nested", "init", "--quiet")
    git(root / "data/nested", "add", "--all")
    assert tracked_files(root / "data/nested") == ["train/dog/1.png"]
    assert tracked_files(root / "data/nested/train/dog/1.png") == ["."]
    (root / "data/nested/train/dog/1.png").unlink()
    assert Repository(root).tracked(Path("data/nested/train"))
