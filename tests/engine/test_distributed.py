"""Stages in several processes, on the CPU: gloo, started by the stage itself, by torchrun and by hand."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file

from tasks.core.params import Params, read_yaml, validate
from tasks.finetune import finetune
from tasks.retrain import retrain
from tasks.samples.manifest import LoadedSplit, Manifest, Samples, load_samples
from tasks.samples.shards import write_shards
from tasks.train import train
from tasks.unlearn import unlearn
from tests import small_split, tiny
from tests.core.test_params_yaml import SHIPPED

ROOT = Path(__file__).resolve().parents[2]
MODEL = "docs/examples/my_model.py"
EPOCHS = 12
INTERRUPTED = "expunge train: interrupted; run it again to resume after the last epoch"
ALONE = "this stage works in one process; start it without torchrun: python -m tasks.unlearn"


def values(*, processes: int = 1, accumulate: int = 1, **recipe: Any) -> dict[str, Any]:
    """Parameters of a model without batch norm, whose result does not depend on who sees which images."""
    raw: dict[str, Any] = read_yaml(SHIPPED)
    raw["train"] |= {"model": "module", "module": {"path": MODEL, "options": {"width": 4}}}
    changes = {"epochs": EPOCHS, "batch_size": 16, "lr": 0.02, "accumulate": accumulate, **recipe}
    changes["augment"] = {"flip": True, "crop": 1, "cutout": 2}
    raw["train"]["recipe"] |= changes
    raw["finetune"]["recipe"] |= {**changes, "epochs": 2, "optimizer": "adamw", "lr": 0.002}
    raw["runtime"] = {"device": "cpu", "threads": 1, "processes": processes}
    raw["unlearn"]["method"] = "none"
    return raw


def write(folder: Path, raw: dict[str, Any]) -> Params:
    """Write the parameters, and 500 of the digits; go there."""
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    (folder / "params.yaml").write_text(json.dumps(raw))
    for name in (MODEL, "data/requests/erased.txt"):
        (folder / name).parent.mkdir(parents=True)
        shutil.copy(ROOT / name, folder / name)
    data = tiny.digits()
    roles = np.array((["retain"] * 7 + ["forget", "val", "test"]) * 50)
    parts = np.where(np.isin(roles, ("retain", "forget")), "train", roles)
    ids = tuple(f"digit/{number:03d}" for number in range(500))
    columns = ids, ids, data.labels[:500].numpy()
    split = Samples(*columns, parts), Manifest(*columns, roles), tuple("0123456789")
    LoadedSplit(data.images[:500].numpy(), *split).write()
    return validate(raw)


def start(stage: str, folder: Path, *launcher: str, **variables: str) -> subprocess.Popen[str]:
    """Start a stage; by ``python -m`` if there is no launcher."""
    return subprocess.Popen(
        (*(launcher or (sys.executable, "-m")), f"tasks.{stage}"),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "EXPUNGE_TRACKING": "off", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class Done(NamedTuple):
    """How a stage ended."""

    status: int
    out: str
    error: str


def ended(process: subprocess.Popen[str]) -> Done:
    out, error = process.communicate(timeout=120)
    return Done(process.returncode, out, error)


def close(folder: Path, other: Path) -> None:
    """See that two stages have made the same weights and the same history, but for rounding."""
    weights, expected = (load_file(path / "weights.safetensors") for path in (folder, other))
    assert weights.keys() == expected.keys()
    for name, value in weights.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-3, atol=1e-4)
    tables = []
    for path in (folder, other):
        with (path / "history.csv").open(newline="") as file:
            tables.append([list(map(float, row[:-1])) for row in list(csv.reader(file))[1:]])
    np.testing.assert_allclose(tables[0], tables[1], rtol=1e-2, atol=1e-3)


def sha256(folder: Path) -> str:
    return str(json.loads((folder / "data/train/weights.json").read_text())["sha256"])


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder in which two processes have trained."""
    folder = tmp_path_factory.mktemp("together")
    before = Path.cwd()
    write(folder, values(processes=2))
    os.chdir(before)
    done = ended(start("train", folder))
    assert (done.status, done.error) == (0, "")
    assert [line.split()[1] for line in done.out.splitlines()] == [
        f"{n}/{EPOCHS}" for n in range(1, EPOCHS + 1)
    ]
    return folder


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_two_processes_end_where_one_ends_that_accumulates_twice_as_many(
    together: Path, tmp_path: Path
) -> None:
    train(write(tmp_path, values(accumulate=2)))
    close(together / "data/train", tmp_path / "data/train")
    assert set(small_split.OUTPUTS) | {"run.json"} == {
        path.name for path in (together / "data/train").iterdir()
    }
    assert list((together / ".expunge/checkpoints").iterdir()) == []


def test_how_many_they_were_is_recorded(together: Path) -> None:
    run = json.loads((together / "data/train/run.json").read_text())
    assert (run["environment"]["processes"], run["environment"]["threads"]) == (2, 1)
    (journal,) = (together / ".expunge/spool").glob("*/journal.jsonl")
    lines = [json.loads(line) for line in journal.read_text().splitlines() if line]
    (params,) = (line["values"] for line in lines if line["kind"] == "params")
    assert params["runtime.processes"] == "2"
    assert [line["step"] for line in lines if line["kind"] == "metrics"] == [*range(1, EPOCHS + 1), EPOCHS]


def members(launcher: int) -> list[psutil.Process]:
    """Return the processes of a training, by rank."""
    return sorted(psutil.Process(launcher).children(), key=lambda child: int(child.environ()["RANK"]))


def end_after_three_epochs(folder: Path, victim: str, number: signal.Signals) -> Done:
    """Start a training of two processes and send a signal to it or to one of them; all are gone then."""
    write(folder, values(processes=2))
    process = start("train", folder)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch 3/"):
            break
    every = members(process.pid)
    assert len(every) == 2
    os.kill(process.pid if victim == "starter" else every[int(victim)].pid, number)
    done = ended(process)
    assert psutil.wait_procs(every, timeout=30)[1] == []
    assert not (folder / "data/train/weights.json").exists()
    return done


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "status", "complaint"),
    [(signal.SIGTERM, 143, ""), (signal.SIGINT, 130, f"{INTERRUPTED}\n")],
)
def test_a_signal_to_the_stage_ends_all_of_its_processes(
    tmp_path: Path, number: signal.Signals, status: int, complaint: str
) -> None:
    done = end_after_three_epochs(tmp_path, "starter", number)
    assert (done.status, done.error) == (status, complaint)


@pytest.mark.parametrize(
    ("victim", "status", "complaint"),
    [
        pytest.param("starter", -signal.SIGKILL, "", marks=pytest.mark.long),
        ("1", 74, "expunge train: process 1 of the training was ended by SIGKILL\n"),
    ],
)
def test_the_death_of_one_is_the_end_of_all_in_one_line_and_they_resume_bit_for_bit(
    together: Path, tmp_path: Path, victim: str, status: int, complaint: str
) -> None:
    done = end_after_three_epochs(tmp_path, victim, signal.SIGKILL)
    assert (done.status, done.error) == (status, complaint)
    again = ended(start("train", tmp_path))
    assert again.status == 0
    assert "resuming after epoch" in again.out
    assert sha256(tmp_path) == sha256(together)


def test_what_goes_wrong_in_all_is_told_once(tmp_path: Path) -> None:
    write(tmp_path, values(processes=2, lr=1e30, schedule="constant"))
    done = ended(start("train", tmp_path))
    assert done.status == 2
    assert done.error.startswith("expunge train: the training loss became ")
    assert done.error.count("\n") == 1
    assert not (tmp_path / "data/train/weights.json").exists()


@pytest.mark.long
def test_more_processes_than_pairs_of_images_are_refused(tmp_path: Path) -> None:
    write(tmp_path, values(processes=2))
    split, lines = load_samples(), Path("data/split/samples.csv").read_text().splitlines()
    write_shards(split.images[:13], split.samples.sample_ids[:13], Path("data/split/images"), 10**6)
    rows = [lines[0], *(row.rsplit(",", 1)[0] + ",val" for row in lines[1:14])]
    for number in (1, 2, 3):
        rows[number] = rows[number].rsplit(",", 1)[0] + ",train"
    Path("data/split/samples.csv").write_text("\n".join(rows) + "\n")
    done = ended(start("train", tmp_path))
    assert (done.status, done.error) == (
        2, "expunge train: training needs at least 2 images for each of 2 processes, here are 3\n",
    )  # fmt: skip


@pytest.mark.long
def test_torchrun_starts_a_stage_whatever_the_parameters_say(tmp_path: Path) -> None:
    params = write(tmp_path, values())
    train(params)
    unlearn(params)
    recipe = params.finetune.recipe
    assert recipe is not None
    doubled = recipe.model_copy(update={"accumulate": 2})
    finetune(params.model_copy(update={"finetune": params.finetune.model_copy(update={"recipe": doubled})}))
    shutil.move("data/finetune", "expected")
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m")
    done = ended(start("finetune", tmp_path, *torchrun))
    assert done.status == 0
    close(Path("data/finetune"), Path("expected"))
    assert json.loads(Path("data/finetune/run.json").read_text())["environment"]["processes"] == 2


THREE = """
import torch
from torch import nn
from tasks.engine import distributed
from tasks.engine.checkpoint import Checkpoint
from tasks.engine.training import fit
from tasks.engine.weights import tensor_digest
from tests import tiny


class Idle(nn.Module):
    def __init__(self):
        super().__init__()
        layers = nn.Flatten(), nn.Linear(64, 200), nn.ReLU(), nn.Linear(200, 200), nn.Linear(200, 3)
        self.layers, self.idle = nn.Sequential(*layers), nn.Linear(3, 3)

    def forward(self, x):
        return self.layers(x)


def train(checkpoint, last=None):
    def on_epoch(epoch, row):
        if epoch == last:
            raise KeyError

    torch.manual_seed(0)
    model = Idle()
    try:
        fit(model, tiny.noise(300), tiny.recipe(), seed=1, checkpoint=checkpoint, on_epoch=on_epoch)
    except KeyError:
        pass
    return tensor_digest(model.state_dict())


torch.set_num_threads(1)
with distributed.joined(torch.device("cpu")):
    whole = train(None)
    train(Checkpoint("train", {}), last=1)
    resumed = train(Checkpoint("train", {}))
    if distributed.is_main():
        print(whole == resumed, distributed.world())
"""


@pytest.mark.long
def test_three_processes_resume_bit_for_bit_and_may_have_weights_that_are_not_used(tmp_path: Path) -> None:
    (tmp_path / "three.py").write_text(THREE)
    run = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3", "three.py")
    done = subprocess.run(
        run, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "True 3\n"), done.stderr


def on_two_machines(stage: str, *folders: Path) -> list[Done]:
    """Start a stage as on two machines, one process on each, which share no folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCH_CPP_LOG_LEVEL": "ERROR"}
    every = [start(stage, folder, **shared, **address, RANK=str(rank)) for rank, folder in enumerate(folders)]
    return [ended(process) for process in every]


@pytest.mark.long
def test_machines_that_share_no_folder_train_together_and_the_first_one_writes(tmp_path: Path) -> None:
    retrain(write(tmp_path / "expected", values(accumulate=2)))
    for name in ("first", "second"):
        write(tmp_path / name, values())
    first, second = on_two_machines("retrain", tmp_path / "first", tmp_path / "second")
    assert (first.status, first.error) == (0, "")
    assert second == (0, "", "")
    close(tmp_path / "first/data/retrain", tmp_path / "expected/data/retrain")
    assert not (tmp_path / "second/data/retrain").exists()
    assert not (tmp_path / "second/.expunge").exists()


@pytest.mark.long
def test_machines_with_other_parameters_are_refused_before_any_step(tmp_path: Path) -> None:
    write(tmp_path / "first", values())
    write(tmp_path / "second", values(label_smoothing=0.1))
    first, second = on_two_machines("train", tmp_path / "first", tmp_path / "second")
    wrong = (
        "process 1 has another recipe, code or data than process 0; "
        "all machines need the same checkout, params.yaml and data\n"
    )
    assert (first.status, first.out, first.error) == (2, "", f"expunge train: {wrong}")
    assert (second.status, second.error) == (2, f"expunge train: process 1: {wrong}")


def test_a_stage_that_works_alone_refuses_to_be_started_in_several_processes(tmp_path: Path) -> None:
    write(tmp_path, values())
    done = ended(start("unlearn", tmp_path, RANK="0", WORLD_SIZE="2", LOCAL_RANK="0", LOCAL_WORLD_SIZE="2"))
    assert done == (
        2,
        "",
        f"expunge unlearn: {ALONE}\n",
    )
