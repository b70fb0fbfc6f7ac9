"""What is held of a person, as ``expunge subject`` tells it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tasks import cli
from tasks.core.errors import ExpungeError
from tasks.core.params import load
from tasks.processing import production
from tasks.processing.access import held_of
from tests.processing.conftest import Checkout
from tests.processing.quick import quick
from tests.processing.test_people import OF_BOTH, OF_ONE, people
from tests.processing.test_processor import bytes_anywhere

__all__ = ["people", "quick"]


@pytest.fixture
def ask(people: Checkout, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(cli, "desk", lambda: people.desk)

    def asked(*arguments: str, **options: Any) -> str:
        result = CliRunner().invoke(cli.app, ["subject", *arguments], **options)
        assert result.exit_code == 0, result.output
        return result.stdout

    return asked


def test_it_tells_what_is_held_where_in_which_models_and_since_when(people: Checkout, ask: Any) -> None:
    people.processor()._adopt()
    people.set(shared="erase")
    request = people.submit(samples={"subject": ["crm:1"]}, requester="crm:9").id
    other = people.submit("test/1/002.png", OF_BOTH, requester="crm:7").id
    told = json.loads(ask("crm:1", "--json"))
    assert told["held"] == 5
    assert {row["id"]: (row["part"], row["learned"]) for row in told["samples"]} == {
        **dict.fromkeys([*OF_ONE[:2], OF_BOTH], ("train", True)),
        OF_ONE[2]: ("val", False),
        OF_ONE[3]: ("test", False),
    }
    (both,) = (row for row in told["samples"] if row["people"] > 1)
    assert both == {
        "id": OF_BOTH, "path": f"data/images/{OF_BOTH}", "part": "train", "people": 2, "learned": True,
        "class": "1",
    }  # fmt: skip
    places = {row["where"] for row in told["places"]}
    assert {"data/images", "data/split", "data/train/logits.npy", "data/train/weights.safetensors"} <= places
    (model,) = told["models"]
    assert (model["state"], model["samples"]) == ("in production", 3)
    assert model["weights"] == production.digest_of(production.TRAINED)
    log = people.repository.git("log", "--format=%H", "--reverse").split()
    assert told["since"]["commit"] in log
    assert {row["request"]: row["how"] for row in told["requests"]} == {
        request: "asks for this person, names 5 of the samples", other: "names 1 of the samples",
    }  # fmt: skip
    table = ask("crm:1")
    assert OF_BOTH in table
    assert "in production" in table
    assert ask("-", input="crm:1\n") == table

    assert people.process() == []
    assert people.status(request) == "closed"
    told = json.loads(ask("crm:1", "--json"))
    assert (told["held"], told["samples"], told["models"], told["since"]) == (0, [], [], None)
    assert [row["request"] for row in told["requests"]] == [request]
    assert "nothing is held of this person" in ask("crm:1")
    assert "nothing is held of this person" in ask("crm:8")
    assert bytes_anywhere(people.root, b"crm:1", b"crm:8") == []


def test_what_cannot_be_told_is_one_line(checkout: Checkout) -> None:
    with pytest.raises(ExpungeError, match=r"split\.subject"):
        held_of("crm:1", checkout.desk, load(), checkout.root)
    with pytest.raises(ExpungeError, match="of whom"):
        held_of(" ", checkout.desk, load(), checkout.root)
    Path("data/split/samples.csv").unlink()
    with pytest.raises(ExpungeError, match="dvc repro split"):
        held_of("crm:1", checkout.desk, load(), checkout.root)
