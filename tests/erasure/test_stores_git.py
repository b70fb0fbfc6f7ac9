"""What Git keeps of samples, found on real repositories wherever it lies, and how it is told."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tasks.core.errors import ExpungeError
from tasks.core.files import STATE
from tasks.erasure import stores_git
from tasks.erasure.account import Account
from tasks.erasure.checklist import Outcome
from tasks.erasure.git_lines import told_of_git
from tasks.erasure.git_rewrite import BLOBS, CLONES, how_to_rewrite
from tasks.erasure.public import PublicFiles
from tasks.erasure.repositories import others
from tasks.erasure.search import Found, Wanted, find
from tasks.erasure.sought import Sought
from tasks.erasure.stores_git import LFS, LOOSE, MESSAGES, OWN, GitHistory, Held
from tasks.requests.keys import reference

NAME, IMAGE = "train/cat/0017.png", b"\x89PNG of a cat"
SOURCE = "data/images"


@pytest.fixture(params=["sha1", "sha256"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository, in both formats of Git, with an image that is no sample; the working directory."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    for name, value in {"GLOBAL": os.devnull, "NOSYSTEM": "1"}.items():
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    root = tmp_path / "project"
    root.mkdir()
    git(root, "init", "--quiet", "--initial-branch=main", f"--object-format={request.param}")
    identify(root)
    write(root, f"{SOURCE}/train/dog/1.png", b"\x89PNG of a dog")
    write(root, ".gitignore", b"/.expunge/\n")
    commit(root, "first")
    monkeypatch.chdir(root)
    return root


def identify(root: Path) -> None:
    for name, value in {"user.name": "Someone", "user.email": "someone@example.org"}.items():
        git(root, "config", name, value)


def git(root: Path, *arguments: str) -> str:
    env = os.environ | {"GIT_ALLOW_PROTOCOL": "file", "FILTER_BRANCH_SQUELCH_WARNING": "1"}
    done = subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True, env=env)
    return done.stdout.strip()


def write(root: Path, path: str, content: bytes) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(content)


def commit(root: Path, message: str) -> str:
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--allow-empty", "--message", message)
    return git(root, "rev-parse", "HEAD")


def wanted(name: str = NAME, image: bytes = IMAGE, key: bytes | None = None) -> list[Wanted]:
    key = key or secrets.token_bytes(32)
    file = reference(key, "file", hashlib.sha256(image).hexdigest())
    return [Wanted(key, frozenset({reference(key, "id", name)}), frozenset(), frozenset({file}))]


def held(root: Path, sought: list[Wanted] | None = None) -> list[Held]:
    return GitHistory(root).held(sought or wanted())


def test_a_history_that_never_held_a_sample_has_none_and_outside_git_there_is_nothing(
    root: Path, tmp_path: Path
) -> None:
    assert held(root) == []
    assert GitHistory(root).limits() == []
    assert held(tmp_path) == []
    assert GitHistory(tmp_path).limits() == []
    assert how_to_rewrite([], SOURCE) == []


def test_commits_that_hold_an_image_are_counted_and_its_name_is_not_told(root: Path) -> None:
    write(root, f"{SOURCE}/{NAME}", IMAGE)
    for message in ("in", "still in"):
        commit(root, message)
    (root / SOURCE / NAME).unlink()
    commit(root, "out")
    (found,) = held(root)
    assert (found.place, found.commits, found.unreachable, len(found.contents)) == (
        f"{SOURCE}/train/cat/", 2, 0, 1,
    )  # fmt: skip
    assert "0017" not in repr(found)
    assert found.text == "1 versions in 2 commits: is the image file of a sample"


@pytest.mark.parametrize("how", ["branch", "tag", "stash", "reset", "worktree", "notes"])
def test_what_a_branch_a_tag_a_stash_or_the_reflog_leads_to_is_found(
    root: Path, tmp_path: Path, how: str
) -> None:
    write(root, "other/name.bin", IMAGE)
    if how == "stash":
        git(root, "add", "--all")
        git(root, "stash")
    elif how == "worktree":
        git(root, "worktree", "add", "--quiet", "--detach", str(tmp_path / "side"))
        write(tmp_path / "side", "other/name.bin", IMAGE)
        commit(tmp_path / "side", "in")
        shutil.rmtree(root / "other")
    else:
        git(root, "switch", "--quiet", "--create", "side")
        commit(root, "in")
        git(root, "tag", "kept")
        git(root, "notes", "add", "--message", "note")
        git(root, "switch", "--quiet", "main")
        if how != "branch":
            git(root, "branch", "--quiet", "--delete", "--force", "side")
        if how == "reset":
            git(root, "tag", "--delete", "kept")
    (found,) = held(root)
    assert found.place == "other/name.bin"
    assert found.commits >= 1
    assert found.unreachable == 0


def test_what_nothing_leads_to_any_more_is_found_until_git_has_collected_it(root: Path) -> None:
    write(root, "other/name.bin", IMAGE)
    git(root, "switch", "--quiet", "--create", "side")
    commit(root, "in")
    git(root, "switch", "--quiet", "main")
    git(root, "branch", "--quiet", "--delete", "--force", "side")
    git(root, "reflog", "expire", "--expire=now", "--all")
    (found,) = held(root)
    assert (found.commits, found.unreachable) == (1, 1)
    assert "reached by no branch" in found.text
    git(root, "gc", "--quiet", "--prune=now")
    assert held(root) == []


def test_a_file_that_was_only_added_lies_at_no_path(root: Path) -> None:
    write(root, "other/name.bin", IMAGE)
    git(root, "add", "--all")
    git(root, "rm", "--quiet", "--cached", "other/name.bin")
    (found,) = held(root)
    assert (found.place, found.commits) == (LOOSE, 0)
    assert how_to_rewrite([found], SOURCE) == [
        "git stash clear  # a stash is a commit, too",
        "git reflog expire --expire=now --all && git gc --prune=now",
    ]


def test_packed_objects_messages_names_of_branches_and_git_s_own_files_are_searched(root: Path) -> None:
    commit(root, f"Take {NAME} out")
    git(root, "tag", "--annotate", "--message", f"without {NAME}", "v1")
    git(root, "gc", "--quiet")
    found = {each.place: each for each in held(root)}
    assert set(found) == {MESSAGES, OWN}
    assert len(found[MESSAGES].contents) == 2
    assert found[MESSAGES].commits == 1
    assert {"logs/HEAD", "COMMIT_EDITMSG"} <= found[OWN].contents
    assert any("--replace-message" in line for line in how_to_rewrite(found.values(), SOURCE))


def test_a_path_that_is_the_name_of_a_sample_is_found_whatever_lies_there(root: Path) -> None:
    write(root, f"{SOURCE}/{NAME}", b"a thumbnail, encoded in another way")
    commit(root, "in")
    shutil.rmtree(root / SOURCE)
    commit(root, "out")
    below_the_source = Sought.of_requests(wanted(), roots=[SOURCE])
    (found,) = GitHistory(root).held(below_the_source)
    assert (found.place, found.why, found.commits) == (f"{SOURCE}/train/cat/", "has the name of a sample", 1)
    # elsewhere a path that ends so may be anybody's
    assert GitHistory(root).held(Sought.of_requests(wanted(), roots=["other"])) == []


def test_tables_in_the_history_are_searched_by_content(root: Path) -> None:
    for number in range(3):
        write(root, "notes/list.csv", f"id,version\n{NAME},{number}\n".encode())
        commit(root, "more")
    (found,) = held(root)
    assert (found.place, found.commits, len(found.contents)) == ("notes/list.csv", 3, 3)


def test_a_large_file_is_read_from_the_disk(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.erasure.git_objects.IN_MEMORY", 5)
    write(root, "other/name.bin", IMAGE)
    commit(root, "in")
    (found,) = held(root)
    assert found.place == "other/name.bin"
    monkeypatch.setattr(stores_git, "LARGEST", 12)
    history = GitHistory(root, scan="another")
    assert history.held(wanted()) == []
    assert any("damaged or larger than" in line for line in history.limits())


def test_an_object_is_searched_once_for_the_same_and_again_for_something_else(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(root, f"{SOURCE}/{NAME}", IMAGE)
    commit(root, "in")
    calls: list[Path | bytes] = []
    real = find

    def counting(content: Path | bytes, sought: Sequence[Wanted]) -> Found:
        calls.append(content)
        return real(content, sought)

    monkeypatch.setattr(stores_git, "find", counting)

    def objects() -> int:
        count = sum(isinstance(each, bytes) for each in calls)
        calls.clear()
        return count

    sought = wanted()
    first = held(root, sought)
    assert objects() > 3
    assert held(root, sought) == first
    assert objects() == 0
    commit(root, "one more commit, the same tree")
    assert held(root, sought)[0].commits == first[0].commits + 1
    assert objects() == 1
    held(root, wanted())
    assert objects() > 3
    named = GitHistory(root, scan="a purge").held(wanted())
    assert objects() > 3
    assert GitHistory(root, scan="a purge").held(wanted()) == named
    assert objects() == 0
    kept = b"".join(path.read_bytes() for path in (root / STATE).rglob("*") if path.is_file())
    assert NAME.encode() not in kept
    assert b"0017" not in kept


def test_a_damaged_object_is_counted_and_the_others_are_searched(root: Path) -> None:
    write(root, "a.bin", b"damaged")
    write(root, "b.bin", IMAGE)
    commit(root, "in")
    id_ = git(root, "rev-parse", "HEAD:a.bin")
    path = root / ".git/objects" / id_[:2] / id_[2:]
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-3] + b"xxx")
    history = GitHistory(root)
    (found,) = history.held(wanted())
    assert found.place == "b.bin"
    assert any("1 objects are damaged" in line for line in history.limits())


def test_lfs_objects_are_searched_and_those_that_are_not_here_are_told(root: Path) -> None:
    image, other = hashlib.sha256(IMAGE).hexdigest(), hashlib.sha256(b"other").hexdigest()
    for name, oid in (("cat", image), ("dog", other)):
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize 12\n"
        write(root, f"lfs/{name}.bin", pointer.encode())
    commit(root, "pointers")
    history = GitHistory(root)
    (found,) = history.held(wanted())
    assert (found.place, found.commits) == ("lfs/cat.bin", 1)
    assert found.why == "stands for an LFS object that is the image file of a sample"
    assert any(line.startswith("2 LFS objects are not here") for line in history.limits())
    write(root, f".git/lfs/objects/{image[:2]}/{image[2:4]}/{image}", IMAGE)
    assert {each.place for each in history.held(wanted())} == {"lfs/cat.bin", LFS}
    assert any(line.startswith("1 LFS objects are not here") for line in history.limits())
    assert any(line.startswith("git lfs prune") for line in how_to_rewrite(history.held(wanted()), SOURCE))


def test_shallow_and_partial_clones_say_what_they_lack_and_fetch_nothing(root: Path, tmp_path: Path) -> None:
    write(root, f"{SOURCE}/{NAME}", IMAGE)
    commit(root, "in")
    git(root, "rm", "-r", "--quiet", f"{SOURCE}/train/cat")
    commit(root, "out")
    git(root, "config", "uploadpack.allowFilter", "true")
    url = root.as_uri()
    git(tmp_path, "clone", "--quiet", "--depth=1", url, "shallow")
    assert held(tmp_path / "shallow") == []
    assert any("git fetch --unshallow" in line for line in GitHistory(tmp_path / "shallow").limits())
    for filtered in ("blob:none", "tree:0"):
        name = filtered.replace(":", "-")
        git(tmp_path, "clone", "--quiet", f"--filter={filtered}", url, name)
        before = len(git(tmp_path / name, "cat-file", "--batch-all-objects", "--batch-check").splitlines())
        held(tmp_path / name)
        after = len(git(tmp_path / name, "cat-file", "--batch-all-objects", "--batch-check").splitlines())
        assert after == before
        assert any("the clone is partial" in line for line in GitHistory(tmp_path / name).limits())
    below_the_source = Sought.of_requests(wanted(), roots=[SOURCE])
    (found,) = GitHistory(tmp_path / "blob-none").held(below_the_source)
    assert found.why == "has the name of a sample"


def checklist(root: Path) -> list[tuple[str, Outcome, int]]:
    """What a purge says of Git, by store."""
    account = Account()
    lines = list(told_of_git(root, SOURCE, Sought.of_requests(wanted()), account))
    advice = [each.why for each in account.details if each.outcome is Outcome.KEPT_REPORTED]
    assert all("(cd " in each and "--path" not in each for each in advice)
    assert not any("nested" in str(line) for line in lines)
    return [(line.store, line.outcome, line.count) for line in lines]


@pytest.mark.parametrize("kind", ["clone", "bare", "outside", "forgotten submodule"])
def test_repositories_beside_the_projects_own_are_searched_and_told_apart(
    root: Path, tmp_path: Path, kind: str
) -> None:
    assert others(root) == ([], [])
    assert checklist(root) == [("Git history", Outcome.NOTHING_FOUND, 0)]
    inner, nested = tmp_path / "inner", root / "data/nested"
    inner.mkdir()
    git(inner, "init", "--quiet", f"--object-format={git(root, 'rev-parse', '--show-object-format')}")
    identify(inner)
    write(inner, NAME, IMAGE)
    commit(inner, "in")
    git(inner, "rm", "--quiet", NAME)
    commit(inner, "out")
    source = []
    if kind == "outside":
        nested, source = inner, [inner / "deep"]
        (inner / "deep").mkdir()
    elif kind == "forgotten submodule":
        git(
            root, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(inner), "data/nested"
        )
        assert others(root) == ([], [])
        git(root, "submodule", "--quiet", "deinit", "--force", "data/nested")
        git(root, "rm", "--quiet", "--cached", "data/nested")
        nested = root / ".git/modules/data/nested"
    else:
        git(root, "clone", "--quiet", *(["--bare"] if kind == "bare" else []), str(inner), "data/nested")
        git(root, "worktree", "add", "--quiet", "--detach", "data/side")  # is the project's own
    assert others(root, *source) == ([nested], [])
    if kind != "outside":
        assert checklist(root) == [
            ("Git history", Outcome.NOTHING_FOUND, 0),
            ("other Git repositories", Outcome.KEPT_REPORTED, 1),
        ]
        (nested / "HEAD" if kind != "clone" else nested / ".git/HEAD").unlink()
        assert others(root)[0] == []
        if kind == "clone":
            assert others(root)[1] == [nested]
            assert checklist(root)[1:] == [("other Git repositories", Outcome.NOT_SEARCHED, 1)]


def test_submodules_are_searched_where_they_are_and_named_where_they_are_not(
    root: Path, tmp_path: Path
) -> None:
    format_ = git(root, "rev-parse", "--show-object-format")
    inner = tmp_path / "inner"
    inner.mkdir()
    git(inner, "init", "--quiet", f"--object-format={format_}")
    identify(inner)
    write(inner, "set/cat.bin", IMAGE)
    commit(inner, "in")
    git(root, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(inner), "modules/inner")
    commit(root, "submodule")
    (found,) = held(root)
    assert (found.submodule, found.place) == ("modules/inner", "set/cat.bin")
    (hit,) = GitHistory(root).search(wanted())
    assert hit.item == "modules/inner/set/cat.bin"
    lines = how_to_rewrite([found], SOURCE)
    assert lines[0] == "(cd modules/inner"
    assert f"{BLOBS.stem}-modules-inner.txt" in lines[2]
    git(root, "submodule", "--quiet", "deinit", "--force", "modules/inner")
    assert held(root) == []
    assert any(line.startswith("1 submodules are not here") for line in GitHistory(root).limits())


def test_a_work_tree_of_a_bare_repository_and_the_bare_one_itself_are_searched(
    root: Path, tmp_path: Path
) -> None:
    write(root, f"{SOURCE}/{NAME}", IMAGE)
    commit(root, "in")
    git(tmp_path, "clone", "--quiet", "--bare", str(root), "bare")
    git(tmp_path / "bare", "worktree", "add", "--quiet", str(tmp_path / "tree"), "main")
    (found,) = held(tmp_path / "tree")
    assert found.place == f"{SOURCE}/train/cat/"
    assert OWN not in found.place


def test_a_repository_that_git_refuses_is_one_line_in_git_s_words(root: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give a repository to somebody else")
    subprocess.run(["chown", "-R", "54321", str(root)], check=True)
    try:
        with pytest.raises(ExpungeError, match=r"fatal: detected dubious ownership .* --add safe\.directory"):
            held(root)
    finally:
        subprocess.run(["chown", "-R", "0", str(root)], check=True)


def test_the_public_data_set_is_told_as_what_it_is_and_a_changed_copy_is_not(root: Path) -> None:
    table = f"id\n{NAME}\n".encode()
    write(root, "data/public/images.csv", table)
    write(root, "data/public/PUBLIC", f"# why\n{hashlib.sha256(table).hexdigest()}  images.csv\n".encode())
    commit(root, "public")
    (found,) = held(root)
    assert found.public
    assert found.text.endswith("public data set shipped with the project, not the operator's copy")
    assert list(GitHistory(root).search(wanted())) == []
    assert how_to_rewrite([found], "data/public") == []
    write(root, "data/public/images.csv", table + b"more\n")
    commit(root, "changed")
    both = held(root)
    assert [(each.place, each.public, len(each.contents)) for each in both] == [
        ("data/public/images.csv", False, 1),
        ("data/public/images.csv", True, 1),
    ]
    (command,) = [line for line in how_to_rewrite(both, "data/public") if line.startswith("git filter-")]
    assert str(BLOBS) in command
    assert BLOBS.read_text().split() == [git(root, "rev-parse", "HEAD:data/public/images.csv")]
    public = PublicFiles(root)
    assert not public.has(root / "data/public/images.csv")
    write(root, "data/public/images.csv", table)
    assert public.has(root / "data/public/images.csv")
    write(root, "data/public/PUBLIC", b"images.csv\n")
    with pytest.raises(ExpungeError, match="PUBLIC, line 1 is damaged"):
        PublicFiles(root)


def test_a_source_leaves_the_history_as_a_whole_and_other_files_by_their_contents(root: Path) -> None:
    write(root, f"{SOURCE}/{NAME}", IMAGE)
    commit(root, "in")
    lines = how_to_rewrite(held(root), GitHistory(root).from_top(f"./{SOURCE}/"))
    whole = (f"--invert-paths --path {SOURCE}", f"--ignore-unmatch {SOURCE}'")
    assert any(text in line for line in lines for text in whole)
    assert lines[-1] == CLONES
    write(root, "copies/list.txt", NAME.encode())
    commit(root, "list")
    lines = how_to_rewrite(held(root), SOURCE)
    assert not any(text in line for line in lines for text in whole)
    assert sum(str(root / BLOBS) in line for line in lines) == 1
    ids = {git(root, "rev-parse", f"HEAD:{path}") for path in ("copies/list.txt", f"{SOURCE}/{NAME}")}
    assert set(BLOBS.read_text().split()) == ids


def test_in_a_project_in_a_folder_of_a_repository_paths_are_told_from_the_top(root: Path) -> None:
    write(root, f"inner/{SOURCE}/{NAME}", IMAGE)
    commit(root, "in")
    history = GitHistory(root / "inner")
    (found,) = history.held(wanted())
    assert found.place == f"inner/{SOURCE}/train/cat/"
    assert history.from_top(f"{SOURCE}/") == f"inner/{SOURCE}"
    lines = how_to_rewrite([found], history.from_top(SOURCE))
    assert any(f" inner/{SOURCE}" in line and line.startswith("git filter-") for line in lines)


@pytest.mark.parametrize("whole", [True, False])
def test_the_commands_take_the_samples_out(root: Path, tmp_path: Path, whole: bool) -> None:
    """The commands are carried out as they are told."""
    sha1 = git(root, "rev-parse", "--show-object-format") == "sha1"
    if sha1 and shutil.which("git-filter-repo") is None:
        pytest.skip("git-filter-repo is not installed")
    write(root, f"{SOURCE}/{NAME}" if whole else "copies/cat.bin", IMAGE)
    commit(root, "in")
    git(root, "rm", "-r", "--quiet", f"{SOURCE}/train/cat" if whole else "copies")
    write(root, "dvc.lock", b"kept")
    commit(root, "out")
    sought = wanted()
    lines = how_to_rewrite(held(root, sought), SOURCE)
    assert lines[-1] == CLONES
    for line in lines:
        if "git remote" not in line and "git push" not in line:
            git(root, "-c", f"alias.told=!{line}", "told")
    assert held(root, sought) == []
    assert git(root, "show", "HEAD:dvc.lock") == "kept"
