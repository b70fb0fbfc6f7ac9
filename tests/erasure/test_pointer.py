"""What DVC has on record of a source, on real repositories."""

from __future__ import annotations

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tasks.core.errors import BusyError, ExpungeError
from tasks.erasure.pointer import Pointer, bring_up_to_date, pointers, why_it_comes_back
from tests.functional.repository import Repository, environment

STAGES = """\
stages:
  sample:
    cmd: cp -r data/embedded data/sample
    deps: [data/embedded]
    outs:
      - data/sample:
          persist: true
  made:
    cmd: cp -r data/embedded data/made
    deps: [data/embedded]
    outs: [data/made]
"""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    folder = tmp_path_factory.mktemp("pointer")
    (folder / "project").mkdir()
    repository = Repository(folder / "project", environment(folder))
    repository.git("init", "--quiet", "--initial-branch=main")
    repository.dvc("init", "--quiet")
    for place in ("embedded", "images/train/cat", "images/test/cat", "apart/train", "apart/test"):
        for name in ("1.txt", "2.txt"):
            repository.write(f"data/{place}/{name}", f"{place} {name}")
    repository.write("dvc.yaml", STAGES)
    repository.dvc("add", "--quiet", "data/images", "data/apart/train", "data/apart/test")
    repository.dvc("repro", "--quiet")
    repository.commit("first")
    return repository


@pytest.fixture
def repository(original: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    for name, value in original.environment.items():
        monkeypatch.setenv(name, value)
    return original.copy(tmp_path / "project")


def changed(repository: Repository) -> list[str]:
    return repository.git("diff", "--name-only", "HEAD").split()


@pytest.mark.parametrize(
    ("path", "gone", "files"),
    [
        ("data/images", "data/images/train/cat/1.txt", ["data/images.dvc"]),
        ("data/images/", "data/images/train/cat/1.txt", ["data/images.dvc"]),
        ("./data//images/train/../", "data/images/train/cat/1.txt", ["data/images.dvc"]),
        ("data/images/train", "data/images/train/cat/1.txt", ["data/images.dvc"]),
        ("data/sample", "data/sample/1.txt", ["dvc.lock"]),
        ("data/sample/", "data/sample/1.txt", ["dvc.lock"]),
    ],
)
def test_the_record_at_or_above_a_source_names_what_is_there_now(
    repository: Repository, path: str, gone: str, files: list[str]
) -> None:
    (repository.root / gone).unlink()
    before = repository.contents()
    assert bring_up_to_date(repository.root, path) == files
    assert changed(repository) == files
    assert set(repository.contents()) == set(before)
    repository.commit("purged")
    target = "data/images" if "images" in path else "data/sample"
    assert target not in repository.dvc("status", "data/images.dvc", "sample")
    (repository.root / gone).write_text("back")
    repository.dvc("checkout", "--force", target)
    assert not (repository.root / gone).exists()


def test_an_absolute_path_and_a_repository_seen_from_elsewhere_are_the_same(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (repository.root / "data/images/train/cat/1.txt").unlink()
    monkeypatch.chdir(tmp_path)
    assert bring_up_to_date(Path("project"), repository.root / "data/images") == ["data/images.dvc"]
    assert changed(repository) == ["data/images.dvc"]


def test_each_part_of_a_source_that_is_tracked_in_parts_is_brought_up_to_date(repository: Repository) -> None:
    (repository.root / "data/apart/train/1.txt").unlink()
    files = ["data/apart/test.dvc", "data/apart/train.dvc"]
    assert bring_up_to_date(repository.root, "data/apart") == files
    assert changed(repository) == ["data/apart/train.dvc"]


def test_done_again_before_the_commit_it_names_the_same_files(repository: Repository) -> None:
    (repository.root / "data/sample/1.txt").unlink()
    first = bring_up_to_date(repository.root, "data/sample")
    before = (repository.root / "dvc.lock").read_bytes()
    assert bring_up_to_date(repository.root, "data/sample") == first == ["dvc.lock"]
    assert (repository.root / "dvc.lock").read_bytes() == before


@pytest.mark.parametrize("path", ["data/embedded", "data/nowhere", "/elsewhere", "data", "."])
def test_a_source_that_dvc_does_not_track_has_no_record_of_a_stage(repository: Repository, path: str) -> None:
    before = (repository.root / "dvc.lock").read_bytes()
    named = {each.file for each in pointers(repository.root, path)}
    assert "dvc.lock" not in named
    bring_up_to_date(repository.root, path)
    assert (repository.root / "dvc.lock").read_bytes() == before
    assert changed(repository) == []


def test_a_source_that_dvc_would_bring_back_is_told(repository: Repository, tmp_path: Path) -> None:
    assert why_it_comes_back(repository.root, "data/sample") is None
    assert why_it_comes_back(repository.root, "data/images") is None
    assert why_it_comes_back(repository.root, "data/embedded") is None
    why = why_it_comes_back(repository.root, "data/made")
    assert why is not None
    assert why.startswith("data/made is made by stage made, which would make it again")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/1.txt").write_text("one")
    repository.dvc("import-url", "--quiet", str(tmp_path / "outside"), "data/imported")
    why = why_it_comes_back(repository.root, "data/imported/")
    assert why is not None
    assert "dvc remove data/imported.dvc && dvc add data/imported" in why


def test_a_record_keeps_what_people_wrote_into_it(repository: Repository) -> None:
    yaml = YAML()
    path = repository.root / "data/images.dvc"
    value = yaml.load(path)
    value["outs"][0]["desc"] = "ours"
    yaml.dump(value, path)
    (repository.root / "data/images/train/cat/1.txt").unlink()
    bring_up_to_date(repository.root, "data/images")
    assert yaml.load(path)["outs"][0]["desc"] == "ours"
    assert yaml.load(path)["outs"][0]["nfiles"] == 3


def test_what_hinders_dvc_is_one_line(repository: Repository) -> None:
    (repository.root / "data/images.dvc").write_text("outs: [\n")
    with pytest.raises(ExpungeError, match=r"^DVC cannot be used: .*images\.dvc") as caught:
        bring_up_to_date(repository.root, "data/images")
    assert "\n" not in str(caught.value)
    with pytest.raises(ExpungeError, match=r"^DVC cannot be used: "):
        pointers(repository.root.parent, "data/images")


def test_another_dvc_at_work_is_told_as_such(repository: Repository) -> None:
    lock = repository.root / ".dvc/tmp/lock"
    script = (
        "import sys, time; from dvc.lock import make_lock; "
        "lock = make_lock(sys.argv[1], sys.argv[2]); lock.lock(); print('held', flush=True); time.sleep(600)"
    )
    with repository.start("python", "-c", script, str(lock), str(lock.parent)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            with pytest.raises(
                BusyError, match=r"^dvc commit data/images\.dvc waits: another command of DVC"
            ):
                bring_up_to_date(repository.root, "data/images")
        finally:
            process.kill()


def test_a_pointer_says_what_dvc_calls_it(repository: Repository) -> None:
    assert pointers(repository.root, "data/sample") == [Pointer("dvc.lock", "dvc.yaml:sample", "data/sample")]
