"""Models, methods and sources of an installed package, and models of a user's own, through DVC."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torchvision import models

from tests.functional.repository import Repository
from tests.packages import ATTACK, METHOD, MODEL, SOURCE, install

AFTER_TRAIN = {"unlearn", "finetune", "audit", "mia", "report"}


@pytest.fixture
def extended(repository: Repository, tmp_path: Path) -> Repository:
    """The repository, and a package that offers a model, a method and a source to its programs."""
    offer(tmp_path)
    repository.environment["PYTHONPATH"] = str(tmp_path / "site")
    return repository


def offer(folder: Path, version: str = "1.0", more: str = "") -> None:
    groups = {
        "expunge.models": {"tiny_net": "Net"},
        "expunge.methods": {"halve": "Halve"},
        "expunge.datasets": {"fewer": "fewer"},
        "expunge.attacks": {"margin": "margin", "blind": "blind"},
    }
    install(folder / "site", "my-nets", MODEL + METHOD + SOURCE + ATTACK + more, groups, version)


RUN = {"split", "train", "unlearn", "finetune"}
"""What ``dvc repro finetune`` runs: the other stages add nothing here but time."""

USED = {"train.model": "tiny_net", "unlearn.method": "halve", "split.source": "fewer"}


def test_a_package_is_used_by_name_and_dvc_reruns_what_depends_on_its_version(
    extended: Repository, tmp_path: Path
) -> None:
    extended.change(USED | {"train.tiny_net": {"width": 6}, "unlearn.halve": {}})
    printed = extended.run("python", "-m", "tasks.check", "--quick").stdout
    assert "tasks/models/tiny_net.py says which package tiny_net is of; commit it" in printed
    extended.dvc("repro", "finetune")
    described = extended.json("data/finetune/weights.json")
    assert (described["model"], described["package"]) == ("tiny_net", "my-nets 1.0")
    assert described["options"] == {"width": 6}
    tensors = [
        load_file(extended.root / f"data/{stage}/weights.safetensors") for stage in ("train", "unlearn")
    ]
    assert all(torch.equal(tensors[0][name] / 2, tensors[1][name]) for name in tensors[0])
    assert extended.changed().isdisjoint(RUN)

    offer(tmp_path, "1.1", more="# a remark\n")
    assert extended.changed().isdisjoint(RUN)  # DVC sees files of the repository alone
    assert extended.run("python", "-m", "tasks.check", "--quick").stdout.count("commit it") == 3
    assert extended.changed() >= RUN


def test_an_attack_of_a_package_is_made_by_its_name(extended: Repository) -> None:
    before = extended.json("data/mia/metrics.json")
    extended.change({"mia.attack": "margin"})
    assert "attack" in extended.stage("mia", status=2).stderr  # nothing says yet which package it is of
    extended.run("python", "-m", "tasks.check", "--quick")
    extended.stage("mia")
    after = extended.json("data/mia/metrics.json")
    assert after["mia/auc"] != before["mia/auc"]
    assert after["test/acc"] == before["test/acc"]
    extended.change({"mia.attack": "blind"})
    extended.run("python", "-m", "tasks.check", "--quick")
    told = extended.stage("mia", status=2).stderr
    assert told == "expunge mia: mia.attack: blind must return one finite number for each sample\n"
    assert extended.run("python", "-m", "tasks.check", "--quick").stdout.count("commit it") == 0


@pytest.mark.long
def test_a_stage_refuses_a_package_that_the_repository_does_not_know(
    extended: Repository, tmp_path: Path
) -> None:
    extended.change(USED | {"train.tiny_net": {}, "unlearn.halve": {}})
    extended.run("python", "-m", "tasks.check", "--quick")
    extended.dvc("repro", "train")
    offer(tmp_path, "1.1")
    done = extended.stage("unlearn", status=2)
    assert done.stderr.count("\n") == 1
    assert "does not say that my-nets 1.1 is installed as it is now" in done.stderr
    assert "renew it: python -m tasks.check" in done.stderr
    del extended.environment["PYTHONPATH"]
    done = extended.stage("unlearn", status=2)
    assert "says: " in done.stderr
    assert done.stderr.endswith("; that package is not installed\n")


def test_your_own_file_is_a_model_and_its_change_trains_anew(repository: Repository) -> None:
    example = (repository.root / "docs/examples/my_model.py").read_text(encoding="utf-8")
    repository.write("mine/net.py", example)
    repository.change(
        {"train.model": "module", "train.module": {"path": "mine/net.py", "options": {"width": 4}}}
    )
    repository.dvc("repro", "finetune")
    assert repository.json("data/finetune/weights.json")["options"]["path"] == "mine/net.py"
    assert repository.changed().isdisjoint(RUN)
    repository.append("mine/net.py", "\n# a remark\n")
    assert repository.changed() >= RUN - {"split"}
    assert "split" not in repository.changed()
    repository.append("mine/net.py", "raise RuntimeError('not\\nso')\n")
    line = len((repository.root / "mine/net.py").read_text().splitlines())
    done = repository.stage("train", status=2)
    assert done.stderr == f"expunge train: mine/net.py, line {line}: RuntimeError: not so\n"


@pytest.mark.long
def test_a_new_file_of_weights_trains_anew_and_no_stage_reads_it_after_the_training(
    repository: Repository,
) -> None:
    def put(seed: int) -> None:
        torch.manual_seed(seed)
        save_file(
            models.squeezenet1_1(weights=None).state_dict(),
            repository.root / "data/pretrained/weights.safetensors",
        )

    put(1)
    options = {"name": "squeezenet1_1", "weights": "data/pretrained/weights.safetensors", "input_size": 32}
    repository.change({"train.model": "torchvision", "train.torchvision": options})
    repository.change({"train.recipe.epochs": 1, "finetune.recipe.epochs": 1, "train.recipe.lr": 0.001})
    repository.dvc("repro", "train")
    first = repository.json("data/train/weights.json")["pretrained"]
    assert repository.git("status", "--porcelain", "data/pretrained") == ""
    content = (repository.root / "data/pretrained/weights.safetensors").read_bytes()
    (repository.root / "data/pretrained/weights.safetensors").unlink()
    repository.stage("unlearn")
    assert repository.json("data/unlearn/weights.json")["pretrained"] == first
    (repository.root / "data/pretrained/weights.safetensors").write_bytes(content)
    assert "train" not in repository.changed()
    put(2)
    assert {"train", "retrain"} <= repository.changed()


def test_parameters_without_the_path_that_dvc_depends_on_are_refused_with_the_remedy(
    repository: Repository,
) -> None:
    repository.change({"train.module": {}})
    done = repository.run("python", "-m", "tasks.check", "--quick", status=2)
    assert done.stderr == (
        "expunge check: params.yaml: train.module.path is not named; DVC depends on it whichever model is "
        "chosen: docs/examples/my_model.py would do\n"
    )
