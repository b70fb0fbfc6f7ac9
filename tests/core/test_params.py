from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from tasks.core.errors import ExpungeError
from tasks.core.params import in_use, load, read_yaml, validate
from tests.core.test_params_yaml import SHIPPED, refusal

SECTIONS = "split, train, retrain, unlearn, finetune, mia, audit, report, runtime, tracking, requests"
RECIPE = (
    "epochs, batch_size, accumulate, optimizer, lr, momentum, nesterov, betas, eps, weight_decay, schedule, "
    "warmup, warmup_epochs, restart_epochs, restart_mult, label_smoothing, augment, start_scale, full_scale, "
    "amp, compile"
)

MINIMAL = """\
split: {source: digits, path: none, forget: {kind: random, fraction: 0.1}}
train:
  model: grey_cnn
  recipe: {epochs: 2, lr: 0.1}
retrain: {}
unlearn: {method: none}
finetune: {recipe: null}
mia: {}
report: {}
"""


def changed(old: str, new: str) -> str:
    assert MINIMAL.count(old) == 1
    return MINIMAL.replace(old, new)


def test_the_shortest_file_gets_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(MINIMAL)
    params = load(path)
    assert params.split.val_fraction == 0.1
    assert params.train.recipe.batch_size == 128
    assert params.runtime.device == "auto"
    assert params.tracking.uri == "sqlite:///mlflow.db"


def test_parameters_are_frozen() -> None:
    params = load(SHIPPED)
    for section, key in ((params, "split"), (params.train.recipe, "lr"), (params.unlearn, "method")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(section, key, getattr(section, key))


@pytest.mark.parametrize(
    ("new", "problem"),
    [
        ("epochs: true", "is True; input should be a valid integer"),
        ('epochs: "3"', "is '3'; input should be a valid integer"),
        ('epochs: " 12 "', "is ' 12 '; input should be a valid integer"),
        ("epochs: ٣", "is '٣'; input should be a valid integer"),
        ("epochs: 3.0", "is 3.0; input should be a valid integer"),
        ("epochs: null", "is None; input should be a valid integer"),
        ("epochs: [3]", "is [3]; input should be a valid integer"),
        ("epochs: .nan", "is nan; input should be a valid integer"),
        ("epochs: 0", "is 0; input should be greater than or equal to 1"),
        ("epochs: -1", "is -1; input should be greater than or equal to 1"),
        (f"epochs: {10**30}", f"is {10**30}; input should be less than or equal to 10000"),
    ],
)  # fmt: skip
def test_a_count_is_a_plain_integer_in_its_bounds(tmp_path: Path, new: str, problem: str) -> None:
    assert refusal(tmp_path, changed("epochs: 2", new)) == f"params.yaml: train.recipe.epochs {problem}"


@pytest.mark.parametrize(
    ("new", "problem"),
    [
        ("lr: .nan", "is nan; input should be a finite number"),
        ("lr: -.inf", "is -inf; input should be a finite number"),
        ("lr: 1e999", "is inf; input should be a finite number"),
        ("lr: true", "is True; input should be a valid number"),
        ('lr: "1e-3"', "is '1e-3'; input should be a valid number"),
        ("lr: 0", "is 0; input should be greater than 0"),
        ("lr: 1e-400", "is 0.0; input should be greater than 0"),
        ("lr: -0.1", "is -0.1; input should be greater than 0"),
        (f"lr: {'9' * 400}", f"is {'9' * 77}...; input should be a valid number"),
    ],
)  # fmt: skip
def test_a_number_is_finite_and_in_its_bounds(tmp_path: Path, new: str, problem: str) -> None:
    assert refusal(tmp_path, changed("lr: 0.1", new)) == f"params.yaml: train.recipe.lr {problem}"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("mia: {}", "mia: {seed: 4294967296}",
         "mia.seed is 4294967296; input should be less than 4294967296"),
        ("mia: {}", "mia: {seed: -1}", "mia.seed is -1; input should be greater than or equal to 0"),
        ("mia: {}", "mia: {folds: 1}", "mia.folds is 1; input should be greater than or equal to 2"),
        ("mia: {}", "mia: {confidence: 1}", "mia.confidence is 1; input should be less than 1"),
        ("mia: {}", "mia: {margin: 0}", "mia.margin is 0; input should be greater than 0"),
        ("mia: {}", "mia: 3", "mia is 3; input should be a mapping"),
        ("mia: {}", "mia: []", "mia is []; input should be a mapping"),
        ("mia: {}", "mia:", "mia is None; input should be a mapping"),
        ("mia: {}", "runtime: {threads: 0}\nmia: {}",
         "runtime.threads is 0; input should be greater than or equal to 1"),
        ("mia: {}", "runtime: {device: gpu}\nmia: {}",
         "runtime.device is 'gpu'; input should be 'auto', 'cpu' or 'cuda'"),
        ("mia: {}", "tracking: {uri: ''}\nmia: {}",
         "tracking.uri is ''; string should have at least 1 character"),
        ("report: {}", "report: {title: 2020-01-01}",
         "report.title is datetime.date(2020, 1, 1); input should be a valid string"),
        ("lr: 0.1", "lr: 0.1, momentum: 0",
         "train.recipe: nesterov needs a momentum above 0"),
        ("lr: 0.1", "lr: 0.1, nesterov: no",
         "train.recipe.nesterov is 'no'; input should be a valid boolean"),
        ("lr: 0.1", "lr: 0.1, nesterov: 1", "train.recipe.nesterov is 1; input should be a valid boolean"),
        ("lr: 0.1", "lr: 0.1, batch_size: 1",
         "train.recipe.batch_size is 1; input should be greater than or equal to 2"),
        ("lr: 0.1", "lr: 0.1, schedule: linear",
         ("train.recipe.schedule is 'linear'; input should be 'one_cycle', 'cosine', 'cosine_restarts' or "
          "'constant'")),
        ("lr: 0.1", "lr: 0.1, amp: on",
         "train.recipe.amp is 'on'; input should be 'off', 'auto', 'bfloat16' or 'float16'"),
        ("lr: 0.1", "lr: 0.1, optimizer: adam",
         "train.recipe.optimizer is 'adam'; input should be 'sgd' or 'adamw'"),
        ("lr: 0.1", "lr: 0.1, betas: [0.9, 1.0]", "train.recipe.betas.1 is 1.0; input should be less than 1"),
        ("lr: 0.1", "lr: 0.1, accumulate: 0",
         "train.recipe.accumulate is 0; input should be greater than or equal to 1"),
        ("lr: 0.1", "lr: 0.1, warmup_epochs: 1",
         "train.recipe: schedule one_cycle rises by its own share warmup; warmup_epochs must be 0"),
        ("lr: 0.1", "lr: 0.1, schedule: cosine, warmup_epochs: 2",
         "train.recipe: warmup_epochs is 2; it must be below epochs (2)"),
        ("lr: 0.1", "lr: 0.1, schedule: cosine_restarts, warmup_epochs: 0.5, restart_epochs: 2",
         ("train.recipe: the first cycle of cosine_restarts, restart_epochs (2) after warmup_epochs (0.5), "
          "must fit into epochs (2)")),
        ("mia: {}", "runtime: {processes: 0}\nmia: {}",
         "runtime.processes is 0; input should be greater than or equal to 1"),
        ("lr: 0.1", "lr: 0.1, warmup: 1", "train.recipe.warmup is 1; input should be less than 1"),
        ("lr: 0.1", "lr: 0.1, augment: null", "train.recipe.augment is None; input should be a mapping"),
        ("lr: 0.1", "lr: 0.1, augment: {crop: 33}",
         "train.recipe.augment.crop is 33; input should be less than or equal to 32"),
        ("recipe: {epochs: 2, lr: 0.1}", "recipe: null", "train.recipe is None; input should be a mapping"),
        ("recipe: null", "recipe: {}",
         "finetune.recipe.epochs is missing; params.yaml: finetune.recipe.lr is missing"),
        ("recipe: null", "recipe: fast", "finetune.recipe is 'fast'; input should be a mapping"),
        ("fraction: 0.1", "fraction: 0", "split.forget.fraction is 0; input should be greater than 0"),
        ("fraction: 0.1", "fraction: 1.5",
         "split.forget.fraction is 1.5; input should be less than or equal to 1"),
        ("fraction: 0.1", "fraction: 1", "split.forget: kind random needs a fraction above 0 and below 1"),
        ("kind: random", "kind: some",
         "split.forget.kind is 'some'; input should be 'random', 'class' or 'ids'"),
        ("kind: random", "kind: class",
         "split.forget: kind class needs classes, a list of class numbers such as [3]"),
        ("kind: random", "kind: class, classes: 3", "split.forget.classes is 3; input should be a list"),
        ("kind: random", "kind: class, classes: [1, -3]",
         "split.forget.classes.1 is -3; input should be greater than or equal to 0"),
        ("kind: random", "kind: class, classes: [true]",
         "split.forget.classes.0 is True; input should be a valid integer"),
        ("kind: random", "kind: class, classes: [3, 3]", "split.forget: classes [3, 3] names a class twice"),
        ("kind: random", "kind: random, classes: [3]",
         "split.forget: classes belongs to kind class, not to kind random"),
        ("path: none", "path: none, resize: 7",
         "split.resize is 7; input should be greater than or equal to 8"),
        ("path: none", "path: none, val_fraction: 1", "split.val_fraction is 1; input should be less than 1"),
    ],
)  # fmt: skip
def test_an_impossible_value_is_refused_with_its_path(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert refusal(tmp_path, changed(old, new)) == f"params.yaml: {message}"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("mia: {}", "mia: {}\nmio: {}", f"mio is an unknown key; known keys: {SECTIONS}"),
        ("mia: {}", "mia: {fold: 3}",
         "mia.fold is an unknown key; known keys: attack, seed, folds, confidence, margin"),
        ("lr: 0.1", "lr: 0.1, lrs: 1", f"train.recipe.lrs is an unknown key; known keys: {RECIPE}"),
        ("recipe: null", "recipe: {epochs: 1, lr: 1, x: 1}",
         f"finetune.recipe.x is an unknown key; known keys: {RECIPE}"),
        ("lr: 0.1", "lr: 0.1, augment: {flop: true}",
         "train.recipe.augment.flop is an unknown key; known keys: flip, crop, cutout"),
        ("fraction: 0.1", "fraction: 0.1, classe: 1",
         "split.forget.classe is an unknown key; known keys: kind, fraction, classes, ids_file"),
    ],
)  # fmt: skip
def test_an_unknown_key_is_refused_with_the_known_ones(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert refusal(tmp_path, changed(old, new)) == f"params.yaml: {message}"


def test_a_key_that_is_no_string_is_refused(tmp_path: Path) -> None:
    message = "params.yaml: 1 is 1; keys should be strings"
    assert refusal(tmp_path, changed("mia: {}", "mia: {}\n1: 2")) == message
    assert "keys should be strings" in refusal(tmp_path, changed("method: none", "method: none, 1: 2"))


@pytest.mark.parametrize("section", ["split", "train", "retrain", "unlearn", "finetune", "mia", "report"])
def test_a_missing_section_is_named(tmp_path: Path, section: str) -> None:
    values = read_yaml(SHIPPED)
    del values[section]
    with pytest.raises(ExpungeError, match=f"^params: {section} is missing$"):
        validate(values)


def test_all_problems_of_a_file_are_named_in_one_line(tmp_path: Path) -> None:
    message = refusal(tmp_path, "mia: {fold: 3, seed: -1}\nsplit: 3")
    for part in ("split is 3", "train is missing", "mia.fold is an unknown key", "mia.seed is -1"):
        assert f"params.yaml: {part}" in message


def test_a_mapping_that_holds_itself_is_refused(tmp_path: Path) -> None:
    assert "unlearn" in refusal(tmp_path, changed("unlearn: {method: none}", "unlearn: &a {method: *a}"))


def test_what_belongs_to_another_optimizer_or_schedule_is_ignored_and_not_recorded(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(changed("lr: 0.1", "lr: 0.1, optimizer: adamw, momentum: 0, schedule: cosine"))
    recipe = in_use(load(path))["train"]["recipe"]
    assert {"betas", "eps", "warmup_epochs"} <= recipe.keys()
    assert not {"momentum", "nesterov", "warmup", "restart_epochs", "restart_mult"} & recipe.keys()
