"""Whatever list Git brings back: an older one, another key's, or one that was merged wrongly is refused."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.core.errors import ExpungeError
from tasks.requests import high_water
from tasks.requests.high_water import CONFLICT, MARK, adopt, check, extend, read_checked, restore
from tasks.requests.keys import LIST_KEY, KeyStore, check_value, reference
from tasks.requests.suppression import Erased, Line

PATH = Path("erased.txt")
OLDER = r"^erased\.txt lacks {} of the {} lines .* git pull, or run: expunge suppression restore; "
TOLD = {"format", "key", "count", "digest"}
OTHER_KEY = r"^erased\.txt was written under another erased\.key than the one in "
LOST = r" has no erased\.mark, .* accept it: expunge suppression adopt; "


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours catches it."""


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeyStore:
    """Keys of a project in the working directory, which is a Git repository with an empty list."""
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    for name, value in {"NAME": "Someone", "EMAIL": "someone@example.org"}.items():
        for who in ("AUTHOR", "COMMITTER"):
            monkeypatch.setenv(f"GIT_{who}_{name}", value)
    git("init", "--quiet", "--initial-branch=main")
    PATH.write_text("# nothing yet\n")
    commit("the project")
    return KeyStore(tmp_path / "keys", project)


def git(*arguments: str, status: int = 0) -> None:
    done = subprocess.run(["git", *arguments], check=False, capture_output=True)
    assert done.returncode == status, done


def commit(message: str) -> None:
    git("add", "--all")
    git("commit", "--quiet", "--message", message)


def naming(*names: str) -> Callable[[bytes], list[Line]]:
    return lambda key: [("id", reference(key, "id", name)) for name in names]


def erase(keys: KeyStore, *names: str) -> Erased:
    listed = extend(PATH, keys, naming(*names))
    commit(f"erase {len(names)}")
    return listed


def names(listed: Erased, keys: KeyStore) -> set[str]:
    is_named = listed.naming(keys)
    return {name for name in "abcdefgh" if is_named(name)}


def elsewhere(keys: KeyStore) -> KeyStore:
    """The same key on another machine, which begins with the mark as it is."""
    folder = keys.folder.with_name(f"{keys.folder.name}-2")
    shutil.copytree(keys.folder, folder)
    return KeyStore(folder, Path.cwd())


def refused(keys: KeyStore, message: str, path: Path | None = PATH) -> None:
    for reader in (read_checked, check):
        with pytest.raises(ExpungeError, match=message) as caught:
            reader(path, keys)
        assert "\n" not in str(caught.value)
    if path is not None:
        before = [path.read_bytes() for path in (PATH, keys.folder / MARK) if path.exists()]
        with pytest.raises(ExpungeError, match=message):
            extend(path, keys, naming("z"))
        assert [path.read_bytes() for path in (PATH, keys.folder / MARK) if path.exists()] == before


def test_a_project_that_has_erased_nothing_needs_neither_key_nor_mark(keys: KeyStore) -> None:
    assert read_checked(PATH, keys).lines == ()
    assert read_checked(None, keys).lines == ()
    assert not keys.folder.exists()


def test_what_is_entered_is_on_the_list_and_in_the_mark_which_its_owner_alone_can_read(
    keys: KeyStore,
) -> None:
    erase(keys, "a", "b")
    assert names(erase(keys, "c"), keys) == {"a", "b", "c"}
    assert read_checked(PATH, keys) == Erased.read(PATH)
    mark = keys.folder / MARK
    assert mark.read_text() == PATH.read_text()
    assert stat.S_IMODE(mark.stat().st_mode) == 0o600
    text = PATH.read_text()
    assert extend(PATH, keys, naming("a")).text == text == PATH.read_text()


def test_the_list_of_an_older_branch_is_refused_until_it_is_restored(keys: KeyStore) -> None:
    git("branch", "before")
    erase(keys, "a")
    git("branch", "between")
    newest = erase(keys, "b", "c")
    for branch, lacking in (("before", 3), ("between", 2)):
        git("checkout", "--quiet", branch)
        refused(keys, OLDER.format(lacking, 3))
        assert restore(PATH, keys) == newest == read_checked(PATH, keys)
        commit("all that was erased")
        assert names(extend(PATH, keys, naming("a")), keys) == {"a", "b", "c"}
    git("checkout", "--quiet", "main")
    assert read_checked(PATH, keys) == newest


def test_a_reset_that_takes_the_last_commit_back_is_refused(keys: KeyStore) -> None:
    erase(keys, "a")
    erase(keys, "b")
    git("reset", "--quiet", "--hard", "HEAD~1")
    refused(keys, OLDER.format(1, 2))


def test_another_list_of_the_same_length_is_refused(keys: KeyStore) -> None:
    erase(keys, "a", "b")
    Erased((), check_value(keys.load(LIST_KEY))).having(naming("a", "x")(keys.load(LIST_KEY))).write(PATH)
    refused(keys, OLDER.format(1, 2))


def test_an_older_list_of_the_first_format_is_refused_too(keys: KeyStore) -> None:
    erase(keys, "a")
    old = "".join(f"{kind} {digest}\n" for kind, digest in Erased.read(PATH).lines)
    erase(keys, "b")
    PATH.write_text(old)
    refused(keys, OLDER.format(1, 2))
    assert names(restore(PATH, keys), keys) == {"a", "b"}


def test_a_wrong_key_is_refused_instead_of_letting_all_back(keys: KeyStore) -> None:
    erase(keys, "a")
    right = keys.load(LIST_KEY)
    (keys.folder / f"{LIST_KEY}.key").write_bytes(b"\1" * 32)
    refused(keys, r"^erased\.mark and erased\.key in .* do not belong together; restore both")
    (keys.folder / MARK).unlink()
    refused(keys, OTHER_KEY)
    with pytest.raises(ExpungeError, match=OTHER_KEY):
        adopt(PATH, keys)
    (keys.folder / MARK).write_text(Erased((), check_value(b"\1" * 32)).text)
    refused(keys, OTHER_KEY)
    with pytest.raises(ExpungeError, match=OTHER_KEY):
        restore(PATH, keys)
    (keys.folder / f"{LIST_KEY}.key").write_bytes(right)
    (keys.folder / MARK).write_text(PATH.read_text())
    assert names(read_checked(PATH, keys), keys) == {"a"}


def test_a_lost_key_is_not_drawn_anew(keys: KeyStore) -> None:
    erase(keys, "a")
    keys.destroy(LIST_KEY)
    refused(keys, r"lacks the key that tells which")
    git("checkout", "--quiet", "HEAD~1", "--", str(PATH))
    refused(keys, r"lacks the key that tells which")
    assert not keys.exists(LIST_KEY)


def test_a_lost_mark_is_accepted_by_a_person_alone(keys: KeyStore) -> None:
    erase(keys, "a")
    newest = erase(keys, "b")
    (keys.folder / MARK).unlink()
    refused(keys, LOST)
    with pytest.raises(ExpungeError, match=r"has no erased\.mark to restore erased\.txt from"):
        restore(PATH, keys)
    assert adopt(PATH, keys) == newest == read_checked(PATH, keys)
    git("checkout", "--quiet", "HEAD~1")
    refused(keys, OLDER.format(1, 2))
    with pytest.raises(ExpungeError, match=OLDER.format(1, 2)):
        adopt(PATH, keys)


def test_an_empty_list_is_not_accepted_where_the_key_tells_that_something_was_erased(keys: KeyStore) -> None:
    erase(keys, "a")
    (keys.folder / MARK).unlink()
    git("checkout", "--quiet", "HEAD~1")
    refused(keys, LOST)
    assert adopt(PATH, keys).lines == () == read_checked(PATH, keys).lines


@pytest.mark.parametrize("text", ["", "# nothing\n", "format 2\n", "id abc\n"])
def test_a_damaged_mark_is_none(keys: KeyStore, text: str) -> None:
    erase(keys, "a")
    (keys.folder / MARK).write_text(text)
    refused(keys, r"erased\.mark.* restore it from the backup of the keys, or delete it and accept the list")


def test_a_list_that_another_machine_made_longer_moves_the_mark(keys: KeyStore) -> None:
    erase(keys, "a")
    other = elsewhere(keys)
    erase(other, "b")
    assert names(read_checked(PATH, keys), keys) == {"a", "b"}
    assert (keys.folder / MARK).read_text() == PATH.read_text()
    git("checkout", "--quiet", "HEAD~1")
    for each in (keys, other):
        refused(each, OLDER.format(1, 2))


@pytest.mark.parametrize("how", ["not", "by Git's union", "by hand"])
def test_two_branches_that_both_grew_are_never_merged_unnoticed(keys: KeyStore, how: str) -> None:
    """Each grew on a machine of its own; a person may have kept the lines of both and one side's header."""
    erase(keys, *"ab")
    other = elsewhere(keys)
    git("checkout", "--quiet", "-b", "theirs")
    erase(other, *"cd")
    git("checkout", "--quiet", "main")
    erase(keys, *"ef")
    if how == "by Git's union":
        Path(".gitattributes").write_text(f"{PATH} merge=union\n")
        commit("merge lists line by line")
    git("merge", "--quiet", "--no-edit", "theirs", status=0 if how == "by Git's union" else 1)
    if how == "by hand":
        lines = [line for line in PATH.read_text().splitlines() if not line.startswith(CONFLICT)]
        whole = {line.split()[0] if line.split()[0] in TOLD else line: line for line in lines}
        PATH.write_text("".join(f"{line}\n" for line in whole.values()))
        refused(
            keys, r"does not hold the 4 lines that it was written with: .* run: expunge suppression restore"
        )
    else:
        refused(keys, r"^erased\.txt, line \d+ is damaged; .* after a merge run: expunge suppression restore")
    assert names(restore(PATH, keys), keys) == set("abcdef")
    commit("all that was erased")
    text = PATH.read_text()
    assert names(read_checked(PATH, other), other) == set("abcdef")
    assert restore(PATH, other).text == text


def test_a_merge_that_takes_one_side_is_refused_where_the_other_was_written(keys: KeyStore) -> None:
    erase(keys, "a")
    other = elsewhere(keys)
    git("checkout", "--quiet", "-b", "theirs")
    erase(other, "b")
    git("checkout", "--quiet", "main")
    erase(keys, "c")
    git("merge", "--quiet", "--no-edit", "--strategy", "ours", "theirs")
    refused(other, OLDER.format(1, 2))
    assert names(restore(PATH, other), other) == set("abc")
    assert names(read_checked(PATH, keys), keys) == set("abc")


def test_lists_of_two_keys_are_not_united(keys: KeyStore, tmp_path: Path) -> None:
    other = KeyStore(tmp_path / "other", Path.cwd())
    git("checkout", "--quiet", "-b", "theirs")
    erase(other, "b")
    git("checkout", "--quiet", "main")
    erase(keys, "a")
    git("merge", "--quiet", "--no-edit", "theirs", status=1)
    for each in (keys, other):
        with pytest.raises(ExpungeError, match=OTHER_KEY):
            restore(PATH, each)
    assert "<<<<<<<" in PATH.read_text()


def test_a_file_that_holds_something_else_is_not_restored_from(keys: KeyStore) -> None:
    erase(keys, "a")
    with PATH.open("a") as file:
        file.write("id abc\n")
    with pytest.raises(ExpungeError, match=r"line 9 is damaged; take a whole one first: git checkout --"):
        restore(PATH, keys)
    PATH.unlink()
    assert names(restore(PATH, keys), keys) == {"a"}


def test_where_nothing_was_erased_nothing_is_restored(keys: KeyStore) -> None:
    adopt(PATH, keys)
    with pytest.raises(ExpungeError, match=r"^nothing was erased; to have erased\.txt again: git checkout"):
        restore(PATH, keys)
    assert names(extend(PATH, keys, naming("a")), keys) == {"a"}


def test_no_list_at_all_is_refused_once_something_was_erased(keys: KeyStore) -> None:
    erase(keys, "a")
    refused(keys, r"^params\.yaml: split\.erased is null though samples were erased", path=None)


WRITES: list[tuple[object, str, int]] = [
    (KeyStore, "create", 1),
    (Erased, "write", 1),
    (high_water, "_write", 1),
    (high_water, "_write", 2),
]


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("where", "name", "at"), WRITES)
def test_a_kill_at_any_write_has_one_outcome(
    keys: KeyStore,
    where: object,
    name: str,
    at: int,
    after: bool,
    reset: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The next process enters the samples again, as nothing has recorded that they were; in between the list
    may have been reset to the last commit, which is older than what the killed process had written.
    """
    function, calls = getattr(where, name), [0]

    def dying(*arguments: object, **named: object) -> object:
        calls[0] += 1
        if calls[0] == at and not after:
            raise Killed
        result = function(*arguments, **named)
        if calls[0] == at:
            raise Killed
        return result

    with monkeypatch.context() as patch:
        patch.setattr(where, name, dying)
        with pytest.raises(Killed):
            extend(PATH, keys, naming("a", "b"))
    if reset:
        git("checkout", "--quiet", "--", str(PATH))
    if reset and after and (name, at) == ("_write", 2):
        refused(keys, OLDER.format(2, 2))
        restore(PATH, keys)
    assert names(read_checked(PATH, keys), keys) in (set(), {"a", "b"})
    assert names(extend(PATH, keys, naming("a", "b")), keys) == {"a", "b"}
    assert names(read_checked(PATH, keys), keys) == {"a", "b"}
    assert (keys.folder / MARK).read_text() == PATH.read_text()


def test_a_reader_finishes_what_was_cut_short(keys: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list was written and the mark was not; an older list is refused from the next reading on."""
    erase(keys, "a")
    with monkeypatch.context() as patch:
        patch.setattr(high_water, "_write", killed)
        with pytest.raises(Killed):
            extend(PATH, keys, naming("b"))
    check(PATH, keys)
    git("checkout", "--quiet", "--", str(PATH))
    refused(keys, OLDER.format(1, 2))


def killed(*_: object) -> None:
    raise Killed


def test_a_full_disk_under_the_mark_leaves_it_as_it_was(
    keys: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    erase(keys, "a")
    before = (keys.folder / MARK).read_text()

    def full(*_: object) -> None:
        raise OSError(28, "No space left")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            extend(PATH, keys, naming("b"))
    assert (keys.folder / MARK).read_text() == before
    assert sorted(path.name for path in keys.folder.iterdir()) == ["erased.key", MARK, f"{MARK}.lock"]
