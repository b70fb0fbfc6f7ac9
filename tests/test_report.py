from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tasks.core.errors import ExpungeError
from tasks.mia import mia
from tasks.report import PAGE, READS, report
from tests import fabricated

VOID = {"meta", "br", "img", "link", "hr", "input"}


class Page(HTMLParser):
    """Elements of a page; a tag that is not closed where it should be is an error."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self._open):
            self.text += data

    def tags(self) -> Counter[str]:
        return Counter(tag for tag, _ in self.elements)

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("finished")
    fabricated.write(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        mia(fabricated.parameters())
        report(fabricated.parameters())
    return root


@pytest.fixture
def here(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / PAGE.parent)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def source(finished: Path) -> str:
    return (finished / PAGE).read_text()


@pytest.fixture(scope="module")
def page(source: str) -> Page:
    return Page(source)


def test_the_page_is_well_formed_and_its_ids_are_unique(page: Page) -> None:
    ids = Counter(attributes["id"] for _, attributes in page.elements if "id" in attributes)
    assert ids
    assert [name for name, count in ids.items() if count > 1] == []


def test_the_page_needs_no_network(source: str, page: Page) -> None:
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            if name in {"src", "href", "xlink:href", "action", "data", "srcset"}:
                assert (value or "").startswith("#"), (tag, name, value)
    assert page.tags()["script"] == page.tags()["link"] == 0
    assert "@import" not in source
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)", source))


def test_the_verdict_and_its_reason_stand_at_the_top(finished: Path, page: Page) -> None:
    verdict = json.loads((finished / "data/mia/verdict.json").read_text())
    before_the_table = page.words.partition("Results")[0]
    assert f"Verdict: {verdict['verdict']}" in before_the_table
    assert verdict["text"] in before_the_table
    assert verdict["reason"] in before_the_table


@pytest.mark.parametrize("word", ["indistinguishable", "remembers", "over-forgotten", "inconclusive"])
def test_each_verdict_is_explained_and_none_claims_a_proof(here: Path, word: str) -> None:
    (here / "data/mia/verdict.json").write_text(
        json.dumps({"verdict": word, "text": "What was found.", "reason": "Why."})
    )
    report(fabricated.parameters())
    words = Page((here / PAGE).read_text()).words
    assert f"Verdict: {word}" in words
    assert "It is not a guarantee" in words
    assert "proof" not in words.lower()
    meaning = {
        "indistinguishable": "look like images that the model has never seen",
        "remembers": "more familiar than it should",
        "over-forgotten": "worse on the images that were to be forgotten",
        "inconclusive": "do not allow a statement either way",
    }
    assert [other for other, text in meaning.items() if text in words] == [word]


def test_the_main_table_shows_the_figures_of_all_models(finished: Path, page: Page) -> None:
    metrics = json.loads((finished / "data/mia/models.json").read_text())
    for model in ("original", "unlearned", "finetuned", "retrained"):
        for role in ("retain", "forget", "val", "test"):
            assert f"{100 * metrics[f'{model}/{role}/acc']:.1f} %" in page.words
        area = f"{model}/mia/auc"
        low, high = metrics[f"{area}/low"], metrics[f"{area}/high"]
        assert f"{metrics[area]:.3f}{low:.3f} to {high:.3f}" in page.words
    for text in ("finetuned (result)", "retrained (reference)", "20 s", "4 s", "18 s"):
        assert text in page.words


def test_what_the_result_costs_is_said_in_words(page: Page) -> None:
    meaning = page.words.partition("What that means")[2].partition("Results")[0]
    assert "of the unseen test images right" in meaning
    assert "It took 4 s; retraining took 18 s." in meaning


def test_a_method_that_takes_no_time_is_not_shown_as_an_exponent(here: Path) -> None:
    path = here / "data/mia/models.json"
    metrics = json.loads(path.read_text())
    path.write_text(json.dumps(metrics | {"unlearned/time/seconds": 4.43e-06}))
    report(fabricated.parameters())
    assert "< 0.01 s" in Page((here / PAGE).read_text()).words


def test_gap_tug_of_war_and_ratio_are_shown_and_defined(finished: Path, page: Page) -> None:
    metrics = json.loads((finished / "data/mia/models.json").read_text())
    for key in ("gap", "tow", "tow_mia", "nomus"):
        assert f"{metrics[key]:.3f}" in page.words
    definitions = page.words.partition("Definitions")[2]
    for term in ("RA, FA, TA", "MIA accuracy", "MIA AUC", "average gap", "tug-of-war", "time ratio"):
        assert term in definitions


def test_unsupported_rates_are_marked(page: Page) -> None:
    assert "a false positive rate of 0.001 takes 10,000 test samples to measure" in page.words


def test_the_page_can_be_read_without_seeing_it(page: Page) -> None:
    tags = page.tags()
    assert tags["h1"] == 1
    assert tags["table"] == tags["caption"]
    pictures = [attributes for tag, attributes in page.elements if tag == "svg"]
    assert len(pictures) == 4 + 2 + 8
    assert all(picture.get("aria-label") and picture.get("role") == "img" for picture in pictures)
    targets = {attributes.get("aria-labelledby") for tag, attributes in page.elements if tag == "section"}
    assert targets <= {attributes.get("id") for _, attributes in page.elements}


def test_the_page_has_a_light_a_dark_and_a_printed_form(source: str) -> None:
    assert "prefers-color-scheme: dark" in source
    assert "@media print" in source
    assert "currentColor" in source


def test_parameters_that_apply_are_shown_without_secrets(source: str, page: Page) -> None:
    assert "confidence: 0.95" in page.text
    assert "resize: null" in page.text
    assert "grey_cnn" in page.text
    assert "ssd" not in page.text
    assert "small_cnn" not in page.text
    assert "secret" not in source


def test_runs_environment_and_hashes_are_shown(page: Page) -> None:
    for text in (
        "train-run-key",
        "f0de538aa8f3f43ccfdff2ba40b5ccd4ab7e4e15",
        "Environment of train, retrain, unlearn, finetune",
        "2.15.0",
        "0123456789abcdef0123456789abcdef",
        "fedcba9876543210fedcba9876543210",
        "data/finetune/logits.npy",
    ):
        assert text in page.words


def test_counts_source_and_classes_are_shown(page: Page) -> None:
    assert "Source digits" in page.words
    assert "retainforgetvaltest1,200400150600" in page.words.replace(" ", "")
    assert "class 0, class 1, class 2, class 3, class 4" in page.words


def test_text_of_users_is_never_markup(here: Path) -> None:
    attack = "<script>alert('1')</script>\"&"
    (here / "data/split/classes.json").write_text(json.dumps([attack] * 5))
    (here / "data/train/run.json").write_text(json.dumps({attack: attack, "inputs": {attack: attack}}))
    (here / "data/mia/verdict.json").write_text(
        json.dumps({"verdict": attack, "text": attack, "reason": attack})
    )
    report(fabricated.parameters(title=attack))
    page = Page((here / PAGE).read_text())
    assert page.tags()["script"] == 0
    assert page.text.count(attack) >= 10


def test_the_same_inputs_give_the_same_bytes(here: Path, source: str) -> None:
    report(fabricated.parameters())
    assert (here / PAGE).read_text() == source


@pytest.mark.parametrize("path", READS)
def test_a_missing_input_is_named_and_no_page_is_written(here: Path, path: str) -> None:
    (here / path).unlink()
    with pytest.raises(ExpungeError, match=path) as caught:
        report(fabricated.parameters())
    assert "\n" not in str(caught.value)
    assert not (here / PAGE).exists()


@pytest.mark.parametrize("path", [*READS, "data/train/run.json"])
@pytest.mark.parametrize("content", [b"", b"3", b"\xff\xfe"])
def test_a_damaged_input_is_named_and_no_page_is_written(here: Path, path: str, content: bytes) -> None:
    (here / path).write_bytes(content)
    with pytest.raises(ExpungeError, match=path) as caught:
        report(fabricated.parameters())
    assert "\n" not in str(caught.value)
    assert not (here / PAGE).exists()


@pytest.mark.parametrize(
    ("path", "old", "new", "message"),
    [
        ("data/mia/models.json", '"gap":', '"gab":', "gap is None"),
        ("data/mia/models.json", '"forget/count": 400.0', '"forget/count": "400"', "forget/count is '400'"),
        ("data/mia/verdict.json", '"reason":', '"season":', "reason is None"),
        ("data/mia/losses.csv", "retrained", "restrained", "no rows for model retrained"),
        ("data/mia/losses.csv", "original,0.0001,", "original,-1,", "do not ascend"),
        ("data/mia/roc.csv", "original,1,1", "original,1,0.5", "do not rise from 0 to 1"),
        ("data/split/metrics.json", "val/count", "value/count", "val/count is None"),
        ("data/train/history.csv", "0.1,900", "0.1", "rows of unequal length"),
    ],
)
def test_a_changed_input_is_named(here: Path, path: str, old: str, new: str, message: str) -> None:
    text = (here / path).read_text()
    assert old in text
    (here / path).write_text(text.replace(old, new))
    with pytest.raises(ExpungeError, match=rf"{path}.*{message}"):
        report(fabricated.parameters())


def test_stages_without_epochs_or_run_records_leave_the_page_shorter(here: Path) -> None:
    for path in here.glob("data/*/run.json"):
        path.unlink()
    (here / "data/unlearn/history.csv").write_text("epoch,train/loss,train/acc,val/loss,val/acc,lr\n")
    (here / "data/finetune/history.csv").write_text("epoch,forget/loss\n1,2\n")
    report(fabricated.parameters())
    page = Page((here / PAGE).read_text())
    assert page.tags()["svg"] == 4 + 2 + 4
    assert "No stage has left a run.json" in page.words


def test_run_records_with_other_keys_are_shown_as_they_are(here: Path) -> None:
    record = {
        "stage": "train",
        "note": "by hand",
        "environment": None,
        "outputs": {},
        "gpu": {"name": "H100"},
    }
    (here / "data/train/run.json").write_text(json.dumps(record))
    report(fabricated.parameters())
    words = Page((here / PAGE).read_text()).words
    assert "by hand" in words
    assert "None" not in words
    assert "H100" in words


def test_the_stage_imports_what_it_draws_with_and_no_more() -> None:
    heavy = "{'torch', 'sklearn', 'scipy', 'pandas', 'mlflow', 'dvc', 'prefect'} & set(sys.modules)"
    code = f"import sys, tasks.report, matplotlib.figure, jinja2, ruamel.yaml; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
