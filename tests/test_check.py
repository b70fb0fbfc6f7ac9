from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tasks.check import check, main
from tasks.core import checked
from tasks.core.errors import ExpungeError
from tasks.core.params import read_yaml, validate
from tests.core.test_params_yaml import SHIPPED

ROOT = Path(__file__).parents[1]


def refusal(section: str, changes: dict[str, Any]) -> str:
    values = read_yaml(SHIPPED)
    values[section] |= changes
    with pytest.raises(ExpungeError) as caught:
        check(validate(values, "params.yaml"))
    return str(caught.value)


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the shipped parameters, for the command without arguments."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["check"])
    return Path(shutil.copy(SHIPPED, tmp_path / "params.yaml"))


def test_the_shipped_parameters_pass(shipped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main()
    assert shipped.exists()
    assert capsys.readouterr().out == "params.yaml is valid\n"


def test_what_has_passed_is_remembered_until_parameters_or_code_change(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not checked.passed()
    main()
    assert checked.passed()
    text = shipped.read_text(encoding="utf-8")
    shipped.write_text(text.replace("alpha: 10.0", "alpha: -1"), encoding="utf-8")
    assert not checked.passed()
    with pytest.raises(SystemExit, match="2"):
        main()
    assert not checked.passed()
    shipped.write_text(text, encoding="utf-8")
    assert checked.passed()
    shutil.copytree(ROOT / "tasks/methods", tmp_path / "tasks/methods")
    monkeypatch.setattr(checked, "_CODE", tmp_path / "tasks")
    monkeypatch.setattr(sys, "argv", ["check", "--quick"])
    main()
    assert not checked.passed()  # the quick look sees no options
    monkeypatch.setattr(sys, "argv", ["check"])
    main()
    assert checked.passed()
    (tmp_path / "tasks/methods/ssd.py").write_text("# another\n", encoding="utf-8")
    assert not checked.passed()


def test_the_quick_check_lists_the_known_names_and_imports_no_torch(tmp_path: Path) -> None:
    text = SHIPPED.read_text(encoding="utf-8")
    (tmp_path / "params.yaml").write_text(
        text.replace("model: grey_cnn", "model: gray_cnn"), encoding="utf-8"
    )
    code = "import sys; sys.argv.append('--quick'); from tasks.check import main\n"
    code += "try: main()\nfinally: print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("expunge check: params.yaml: train: model is 'gray_cnn'; known: grey_cnn, ")
    assert done.stdout == "False\n"


def test_a_wrong_option_is_one_line_and_status_2(tmp_path: Path) -> None:
    text = SHIPPED.read_text(encoding="utf-8")
    assert text.count("alpha: 10.0") == 1
    (tmp_path / "params.yaml").write_text(text.replace("alpha: 10.0", "alpha: -1"), encoding="utf-8")
    done = subprocess.run(
        (sys.executable, "-m", "tasks.check"),
        capture_output=True, text=True, check=False,
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "expunge check: params.yaml: unlearn.ssd.alpha is -1; input should be greater than 0\n"
    )


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        (
            "unlearn",
            {"method": "reinit", "reinit": {"layers": 0}},
            "unlearn.reinit.layers is 0; input should be greater than or equal to 1",
        ),
        (
            "unlearn",
            {"method": "none", "none": {"alpha": 1}},
            "unlearn.none.alpha is an unknown key; known keys: none",
        ),
        (
            "train",
            {"model": "small_cnn", "small_cnn": {"widths": "all"}},
            "train.small_cnn.widths is 'all'; input should be a list",
        ),
    ],
)
def test_options_of_the_chosen_files_are_checked(section: str, changes: dict[str, Any], message: str) -> None:
    assert refusal(section, changes) == f"params.yaml: {message}"


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        (
            "unlearn",
            {"method": "none", "ssd": {"alpa": 1}},
            "unlearn.ssd.alpa is an unknown key; known keys: alpha, strength, batch_size, samples",
        ),
        (
            "train",
            {"model": "grey_cnn", "small_cnn": {"depth": "2"}},
            "train.small_cnn.depth is '2'; input should be a valid integer",
        ),
    ],
)
def test_options_that_wait_for_another_choice_are_checked_too(
    section: str, changes: dict[str, Any], message: str
) -> None:
    assert refusal(section, changes) == f"params.yaml: {message}"


@pytest.mark.parametrize("arguments", [["check"], ["check", "--quick"]])
def test_without_a_list_of_what_was_erased_nothing_is_valid_for_dvc(
    shipped: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = shipped.read_text(encoding="utf-8")
    shipped.write_text(text.replace("erased: data/requests/erased.txt", "erased: null"), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit, match="2"):
        main()
    assert capsys.readouterr().err == (
        "expunge check: params.yaml: split.erased is null; name the list that keeps erased samples out, "
        "data/requests/erased.txt\n"
    )


@pytest.mark.parametrize("source", ["cifar10", "digits"])
def test_a_source_that_needs_no_files_gets_the_folder_that_dvc_looks_for(shipped: Path, source: str) -> None:
    text = shipped.read_text(encoding="utf-8")
    text = text.replace("source: parquet", f"source: {source}").replace("path: data/sample", "path: data/x/y")
    shipped.write_text(text, encoding="utf-8")
    main()
    assert list(Path("data/x/y").iterdir()) == []
    main()
    shipped.write_text(text.replace(f"source: {source}", "source: image_folder").replace("x/y", "z"))
    main()
    assert not Path("data/z").exists()
