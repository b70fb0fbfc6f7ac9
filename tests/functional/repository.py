"""The project itself in a temporary folder: its code, its ``dvc.yaml``, small images, few epochs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tasks.core.files import digest
from tests.datasets.building import encoded, grey, write_hub_file

PROJECT = Path(__file__).resolve().parents[2]
STAGES = ("split", "train", "retrain", "unlearn", "finetune", "audit", "mia", "report")
"""The stages that record a run; stage ``sample`` only copies files, beside them."""

EPOCHS = {"train": 12, "retrain": 12, "finetune": 2}
"""A tenth of a second each, and enough that a training can be killed between two of them."""

FAST = {
    "split.source": "digits",
    "split.path": "data/source",
    "train.recipe.epochs": EPOCHS["train"],
    "finetune.recipe.epochs": EPOCHS["finetune"],
    "runtime.threads": 1,
}

SOURCE = {
    "readme.txt": "digits needs no files\n",
    "b/ä 2.txt": "two\n",
    "b/c/3.txt": "three\n",
    "a-1.txt": "",
}
"""A folder with names that sort differently as paths and as text; its images are scikit-learn's."""

EMBEDDED = "data/fashion-mnist-10k"


class Repository:
    """A Git and DVC repository with the project's stages.

    Parameters
    ----------
    root
        Its folder.
    environment
        Of every process that a test starts in it.
    """

    def __init__(self, root: Path, environment: Mapping[str, str]) -> None:
        self.root = root
        self.environment = dict(environment)

    def create(self) -> None:
        """Copy the project's tracked parts, make them fast, and commit."""
        ignored = shutil.ignore_patterns("__pycache__")
        write_embedded(self.root / EMBEDDED)
        shutil.copytree(PROJECT / "tasks", self.root / "tasks", ignore=ignored)
        shutil.copytree(PROJECT / ".dvc/plots", self.root / ".dvc/plots")
        for name in ("dvc.yaml", "params.yaml", ".dvcignore", ".gitignore", ".dvc/config", ".dvc/.gitignore"):
            shutil.copy(PROJECT / name, self.root / name)
        for name, text in SOURCE.items():
            self.write(f"data/source/{name}", text)
        for name in (
            "data/.gitignore",
            "data/forget.txt",
            "data/requests/erased.txt",
            "data/requests/.gitignore",
            "data/base/.gitignore",
            "data/pretrained/.gitignore",
            "data/pretrained/README.md",
            "docs/examples/my_model.py",
        ):
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / name, self.root / name)
        self.change(FAST)
        self.git("init", "--quiet", "--initial-branch=main")
        self.commit("the project")

    def copy(self, root: Path) -> Repository:
        """Copy of the repository as it is, cache and outputs included."""
        shutil.copytree(self.root, root, symlinks=True)
        return Repository(root, self.environment)

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a program at the repository's root, in a process group of its own, and do not wait."""
        return subprocess.Popen(
            command,
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *command: str, status: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a program to its end and see that it exits with ``status``."""
        environment = self.environment | variables
        done = subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, text=True, check=False, timeout=240
        )
        assert done.returncode == status, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def dvc(self, *arguments: str, status: int = 0) -> str:
        """Run ``dvc`` and return what it prints on standard output."""
        return self.run("dvc", *arguments, status=status).stdout

    def git(self, *arguments: str) -> str:
        """Run ``git`` and return what it prints on standard output."""
        return self.run("git", *arguments).stdout

    def stage(self, name: str, status: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a stage as DVC does: ``python -m tasks.<name>``."""
        return self.run("python", "-m", f"tasks.{name}", status=status, **variables)

    def commit(self, message: str) -> None:
        """Commit everything that Git does not ignore."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)

    def write(self, path: str, text: str) -> None:
        """Write a text file."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")

    def append(self, path: str, text: str) -> None:
        """Add text to the end of a file."""
        with (self.root / path).open("a", encoding="utf-8") as file:
            file.write(text)

    def change(self, values: Mapping[str, Any]) -> None:
        """Set parameters by their dotted names."""
        path = self.root / "params.yaml"
        yaml = YAML()
        params = yaml.load(path)
        for name, value in values.items():
            *sections, key = name.split(".")
            section = params
            for part in sections:
                section = section[part]
            section[key] = value
        yaml.dump(params, path)

    def json(self, path: str) -> Any:
        """Read a JSON file."""
        return json.loads((self.root / path).read_text(encoding="utf-8"))

    def lock(self, stage: str) -> Any:
        """Entry of a stage in ``dvc.lock``."""
        return YAML(typ="safe").load(self.root / "dvc.lock")["stages"][stage]

    def changed(self) -> set[str]:
        """Stages whose dependencies, parameters or code are not those of their last run."""
        status: dict[str, list[Any]] = json.loads(self.dvc("status", "--json"))
        assert set(status) <= {"sample", *STAGES}
        return {stage for stage, reasons in status.items() if any("changed deps" in each for each in reasons)}

    def downstream(self) -> dict[str, set[str]]:
        """For each stage, itself and the stages that depend on it, as ``dvc dag`` has them."""
        arrows = re.findall(r'"(\w+)" -> "(\w+)"', self.dvc("dag", "--dot"))
        found = {stage: {stage} for stage in STAGES}
        for stage in reversed(STAGES):
            for _, target in filter(lambda arrow: arrow[0] == stage, arrows):
                found[stage] |= found[target]
        return found

    def contents(self, *folders: str) -> dict[str, str]:
        """Digest of every file in folders below ``data/``, or in all of ``data/``."""
        roots = [self.root / "data" / folder for folder in folders or ("",)]
        files = [file for root in roots for file in root.rglob("*") if file.is_file()]
        return {str(file.relative_to(self.root)): digest(file) for file in files}


def write_embedded(folder: Path, classes: int = 3, train: int = 20, test: int = 5) -> None:
    """Write what stands for the embedded images: files of the same names, classes in turn."""
    public = []
    for number, (part, count) in enumerate({"train": train, "test": test}.items()):
        # seeds that no test takes for images of its own
        images = [encoded(grey(10**6 + 1000 * number + row, 8, 8)) for row in range(classes * count)]
        labels = [row % classes for row in range(len(images))]
        path = folder / f"{part}-00000-of-00001.parquet"
        write_hub_file(path, images, labels)
        public.append(f"{digest(path, 'sha256')}  {path.name}\n")
    shutil.copy(PROJECT / EMBEDDED / "LICENSE", folder)
    (folder / "PUBLIC").write_text("".join(public))


def environment(folder: Path) -> dict[str, str]:
    """Environment of a user who has nothing set up: neither Git's nor DVC's own settings."""
    dropped = ("EXPUNGE_", "DVC_", "GIT_", "PYTHON")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    identity = {
        f"GIT_{who}_{what}": value
        for who in ("AUTHOR", "COMMITTER")
        for what, value in {"NAME": "Someone", "EMAIL": "someone@example.org"}.items()
    }
    return {
        **kept,
        **identity,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}",
        "OMP_NUM_THREADS": "1",
        "EXPUNGE_TRACKING": "off",
        "EXPUNGE_KEYS": str(folder / "keys"),
        "DVC_NO_ANALYTICS": "1",
        "DVC_GLOBAL_CONFIG_DIR": str(folder / "dvc-global"),
        "DVC_SYSTEM_CONFIG_DIR": str(folder / "dvc-system"),
        "DVC_SITE_CACHE_DIR": str(folder / "dvc-site"),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
    }
