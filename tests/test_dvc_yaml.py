"""The stages' deps in dvc.yaml cover what the stages import."""

from __future__ import annotations

import re
import subprocess
from itertools import product
from pathlib import Path
from typing import Any

import grimp
import pytest

from tasks.core.params import read_yaml, validate
from tasks.core.plugins import choices
from tasks.processing.production import SPLIT_OUTPUTS
from tests.fabricated import parameters

ROOT = Path(__file__).resolve().parents[1]
STAGES: dict[str, Any] = read_yaml(ROOT / "dvc.yaml")["stages"]
ROOM_OF = {"split.source": "datasets", "train.model": "models", "unlearn.method": "methods"}


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("tasks", cache_dir=None)


def _file_of(module: str) -> Path:
    path = ROOT / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _closure(graph: grimp.ImportGraph, module: str) -> set[str]:
    found: set[str] = {module} | graph.find_upstream_modules(module)
    # importing a module runs the __init__ of the packages that it lies in
    return found | {name.rpartition(".")[0] for name in found if name.count(".") > 1} | {"tasks"}


def _filled(dep: str, selection: dict[str, str]) -> str:
    return re.sub(r"\$\{([a-z.]+)\}", lambda found: selection.get(found[1], found[0]), dep)


def _selections(deps: list[str]) -> list[dict[str, str]]:
    keys = [key for key in ROOM_OF if any(f"${{{key}}}" in dep and dep.startswith("tasks/") for dep in deps)]
    return [
        dict(zip(keys, names, strict=True)) for names in product(*(choices(ROOM_OF[key]) for key in keys))
    ]


@pytest.mark.parametrize("stage", STAGES)
def test_the_deps_of_a_stage_cover_every_module_that_it_imports_whatever_is_chosen(
    stage: str, graph: grimp.ImportGraph
) -> None:
    deps: list[str] = STAGES[stage]["deps"]
    for selection in _selections(deps):
        modules = _closure(graph, f"tasks.{stage}")
        for key, name in selection.items():
            modules |= _closure(graph, f"tasks.{ROOM_OF[key]}.{name}")
        covered = [ROOT / _filled(dep, selection) for dep in deps]
        for module in sorted(modules):
            file = _file_of(module)
            assert any(file == dep or dep in file.parents for dep in covered), (
                f"{stage}: {file} with {selection}"
            )


@pytest.mark.parametrize("stage", STAGES)
def test_every_code_dep_of_a_stage_is_needed(stage: str, graph: grimp.ImportGraph) -> None:
    modules = _closure(graph, f"tasks.{stage}")
    for key, room in ROOM_OF.items():
        if any(f"${{{key}}}" in dep for dep in STAGES[stage]["deps"]):
            for name in choices(room):
                modules |= _closure(graph, f"tasks.{room}.{name}")
    files = {_file_of(module) for module in modules}
    for dep in STAGES[stage]["deps"]:
        path = ROOT / dep
        if dep.startswith("tasks/") and "$" not in dep:
            assert any(file == path or path in file.parents for file in files), f"{stage}: {dep}"


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "sample"])  # which records nothing
def test_the_inputs_that_a_stage_records_are_its_deps(stage: str) -> None:
    import importlib

    module = importlib.import_module(f"tasks.{stage}")
    reads = getattr(module, "READS", None)
    below_data = [dep for dep in STAGES[stage]["deps"] if dep.startswith("data/")]
    if stage == "split":
        assert reads is None
        assert below_data == []
    elif stage == "audit":
        for result in ("finetune", "retrain"):
            values = parameters().model_dump() | {"audit": {"result": result}}
            filled = [_filled(dep, {"audit.result": result}) for dep in below_data]
            assert sorted(module.reads(validate(values))) == sorted(filled)
    else:
        assert sorted(reads or ()) == sorted(below_data)


def test_what_split_leaves_is_known_to_whoever_mends_it() -> None:
    assert set(map(str, SPLIT_OUTPUTS)) == set(outs_of("split"))


def test_git_ignores_every_output_so_that_dvc_changes_no_file_of_git() -> None:
    outs = [out.partition("${")[0] for stage in STAGES for out in outs_of(stage)]
    done = subprocess.run(
        ["git", "check-ignore", *outs], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == outs


def outs_of(stage: str) -> list[str]:
    listed = [out for kind in ("outs", "metrics", "plots") for out in STAGES[stage].get(kind, ())]
    return [next(iter(out)) if isinstance(out, dict) else out for out in listed]


def test_the_source_that_is_shipped_is_what_stage_sample_makes() -> None:
    from tasks import sample

    section = read_yaml(ROOT / "params.yaml")["split"]
    assert (section["source"], section["path"]) == ("parquet", str(sample.COPY))
    assert STAGES["sample"]["outs"] == [{str(sample.COPY): {"persist": True}}]
    assert str(sample.EMBEDDED) in STAGES["sample"]["deps"]
