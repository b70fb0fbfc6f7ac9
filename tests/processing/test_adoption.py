"""Weights that were not trained here, put into production by the command: what is checked, what follows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from typer.testing import CliRunner, Result

from tasks import cli
from tasks.core.errors import UnavailableError
from tasks.core.files import digest, read_json
from tasks.core.params import load
from tasks.engine.data import normalise
from tasks.engine.weights import Info, create, tensor_digest
from tasks.processing import production
from tasks.processing.reconcile import differences
from tasks.processing.repository import Repository
from tasks.requests import events as facts
from tasks.requests.desk import Desk
from tasks.requests.production import BASE, in_production, models
from tasks.requests.verification import open_envelope
from tasks.samples.manifest import load_samples
from tasks.tracking.model_registry import Models
from tests.processing.conftest import Checkout, names
from tests.processing.quick import Killed, quick
from tests.processing.test_production import client, recorded, send
from tests.tracking.conftest import empty_store

__all__ = ["empty_store", "quick", "recorded"]

Tensors = dict[str, torch.Tensor]
FILE = Path("../w.safetensors")


def learned(seed: int = 0, *, order: tuple[int, ...] = (0, 1, 2)) -> Tensors:
    """A model that somebody has trained elsewhere, its outputs in some order of the classes."""
    split = load_samples()
    info = Info(sha256="", model="grey_cnn", options={}, channels=1, size=(8, 8), classes=split.classes)
    model = create(info, seed)
    rows = split.samples.indices("train")
    images = normalise(torch.from_numpy(split.images[rows]))
    labels = torch.from_numpy(np.argsort(order)[split.samples.labels[rows]])
    optimizer = torch.optim.Adam(model.parameters(), 0.005)
    for _ in range(25):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return {name: value.detach().contiguous() for name, value in model.state_dict().items()}


@pytest.fixture(scope="session")
def kept() -> dict[Any, Tensors]:
    return {}


@pytest.fixture
def weights(
    checkout: Checkout, kept: dict[Any, Tensors], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    monkeypatch.setattr(cli, "desk", lambda: checkout.desk)

    def write(path: Path = FILE, **how: Any) -> Path:
        key = json.dumps(how)
        if key not in kept:
            kept[key] = learned(**how)
        save_file(kept[key], path)
        return path

    return write


def adopt(*arguments: object, by: str = "ada") -> Result:
    return CliRunner().invoke(cli.app, ["adopt", *map(str, arguments), "--by", by])


def done(*arguments: object) -> dict[str, Any]:
    result = adopt(*arguments, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def refused(*arguments: object) -> str:
    before = {path: digest(path) for path in BASE.glob("*")}
    result = adopt(*arguments)
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert {path: digest(path) for path in BASE.glob("*")} == before
    return line


def listed(*ids: str) -> Path:
    path = Path("../ids.txt")
    path.write_text("# by our cluster\n" + "".join(f"{name}\n" for name in ids))
    return path


def ids(*parts: str) -> list[str]:
    samples = load_samples(mmap=True).samples
    return [samples.sample_ids[row] for part in parts for row in samples.indices(part)]


def origin(request: str) -> Any:
    content = Path(f"data/requests/certificates/{request}.json").read_bytes()
    return open_envelope(content).predicate.model.origin


def test_weights_of_a_file_are_what_production_is_from_then_on(
    checkout: Checkout, weights: Callable[..., Path]
) -> None:
    told = done(weights(), "--trained-on-all", "--note", "on our cluster, in 2025")
    assert told["weights"] == tensor_digest(load_file(BASE / "weights.safetensors"))
    assert told["weights"] == tensor_digest(load_file(FILE))
    info = read_json(BASE / "weights.json")
    assert (info["sha256"], info["adopted"]) == (told["weights"], digest(FILE, "sha256"))
    assert (BASE / "heldout.txt").read_text().splitlines() == sorted([*ids("val"), *ids("test")])
    current = in_production(checkout.desk.ledger)
    assert current is not None
    assert current.weights == told["weights"]
    (event,) = checkout.desk.ledger.events(kinds=("adopted",))
    train, val = len(ids("train")), len(ids("val"))
    assert event.fact == facts.Adopted(
        weights=told["weights"], commit=event.fact.commit, val_acc=told["figures"]["val/acc"],  # type: ignore[attr-defined]
        stated=facts.Stated(
            file=digest(FILE, "sha256"), by="ada", trained_on="all", samples=train, of=train,
            note="on our cluster, in 2025",
        ),
    )  # fmt: skip
    assert told["figures"]["val/count"] == val
    assert told["figures"]["val/acc"] > 0.8
    assert told["warnings"] == []
    assert str(checkout.desk.ledger.head()) in checkout.repository.git("log", "-1")
    assert str(FILE) not in json.dumps([each.as_json() for each in checkout.desk.ledger.events()])


def test_the_command_says_in_words_what_it_found(checkout: Checkout, weights: Callable[..., Path]) -> None:
    result = adopt(weights(), "--trained-on", listed(*ids("train")[:30], *ids("val")[:2]))
    assert result.exit_code == 0, result.output
    counts = f"30 of {len(ids('train'))} training, 2 validation samples"
    for text in (
        "grey_cnn for 1×8×8 images, SHA-256 ",
        "outputs, in the order of data/split/classes.json: 0, 1, 2\n",
        f"ada states that it was trained on {counts}\n",
        "in production: no version, as tracking is off, weights ",
    ):
        assert text in result.stdout
    assert f"warning: 2 of {len(ids('val'))} validation samples were trained on" in result.stderr


def test_weights_that_know_the_sources_own_test_images_are_refused(
    checkout: Checkout, weights: Callable[..., Path]
) -> None:
    result = adopt(weights(), "--trained-on", listed(*ids("train"), *ids("test")[:2]))
    assert result.exit_code == 2
    assert "names 2 sample(s) of the source's own test part" in result.stderr
    assert not (BASE / "weights.json").exists()


def test_what_the_list_does_not_name_it_has_never_seen(
    checkout: Checkout, weights: Callable[..., Path]
) -> None:
    seen = [*ids("train")[3:], ids("val")[0]]
    told = done(weights(), "--trained-on", listed(*seen))
    heldout = (BASE / "heldout.txt").read_text().splitlines()
    assert heldout == sorted([*ids("train")[:3], *ids("val")[1:], *ids("test")])
    stated = told["stated"]
    assert (stated["trained_on"], stated["samples"], stated["val"], stated["test"]) == (
        "list", len(ids("train")) - 3, 1, 0,
    )  # fmt: skip
    assert len(told["warnings"]) == 1
    text = (checkout.root / "data/requests/ledger.db").read_bytes()
    assert not any(name.encode() in text for name in seen)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "what was it trained on? Give one of --trained-on FILE, --trained-on-all"),
        (("--trained-on-all", "--trained-on", "../ids.txt"), "what was it trained on?"),
        (("--trained-on", "../ids.txt"), "line 2 'train/9/000.png' is no sample id; line 3 "),
        (("--trained-on", "none.txt"), "none.txt cannot be read"),
        (("--trained-on", "empty.txt"), "names no sample"),
        (("--trained-on-all", "--model", "resnet18"), "set train.model: resnet18 there, commit that"),
        (
            ("--trained-on-all", "--model", "small_cnn", "--option", "hidden=64"),
            "set train.model: small_cnn, train.small_cnn.hidden: 64 there",
        ),
        (("--trained-on-all", "--model", "resnet"), "'resnet' is not in tasks/models"),
        (("--trained-on-all", "--option", "depth=3"), "grey_cnn has no option depth; it has none"),
        (("--trained-on-all", "--option", "depth"), "'depth' is not of the form key=value"),
        (("--trained-on-all", "--classes", "0,1"), "2 names, and data/split/classes.json has 3: '2' is on"),
        (("--trained-on-all", "--classes", "0,1,1"), "'2' is on one side only"),
        (("--trained-on-all", "--note", "a\nb"), "--note: one line of at most 1000 characters"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_and_nothing_is_changed(
    checkout: Checkout, weights: Callable[..., Path], arguments: tuple[str, ...], message: str
) -> None:
    listed("train/9/000.png", " x")
    Path("empty.txt").write_text("# nothing\n")
    assert message in refused(weights(), *arguments)
    assert in_production(checkout.desk.ledger) is None


def test_weights_of_another_model_or_of_more_classes_are_refused_with_what_does_not_fit(
    checkout: Checkout, weights: Callable[..., Path]
) -> None:
    tensors = load_file(weights())
    head = next(name for name in tensors if name.endswith("bias") and len(tensors[name]) == 3)
    save_file({**tensors, head: torch.zeros(10)}, FILE)
    line = refused(FILE, "--trained-on-all")
    assert f"does not fit grey_cnn for 1×8×8 images of 3 classes: {head} is [10] there and [3] here" in line
    save_file({"conv1.weight": torch.zeros(3)}, FILE)
    assert "it lacks " in refused(FILE, "--trained-on-all")


def test_outputs_in_another_order_are_told_and_put_in_order(
    checkout: Checkout, weights: Callable[..., Path]
) -> None:
    file = weights(order=(2, 0, 1))
    told = done(file, "--trained-on-all")
    (warning,) = told["warnings"]
    assert warning.endswith("if they are: --classes 2,0,1")
    again = done(file, "--trained-on-all", "--classes", "2,0,1", "--replace")
    assert again["warnings"] == []
    assert again["figures"]["val/acc"] > 0.8 > told["figures"]["val/acc"]
    Path("order.json").write_text('["2", "0", "1"]')
    assert not done(file, "--trained-on-all", "--classes", "order.json")["new"]


def test_weights_that_have_learned_nothing_are_warned_of(checkout: Checkout) -> None:
    info = Info(sha256="", model="grey_cnn", options={}, channels=1, size=(8, 8), classes=("0", "1", "2"))
    torch.save(create(info, seed=3).state_dict(), "../w.pt")
    (warning,) = done("../w.pt", "--trained-on-all")["warnings"]
    assert "near chance" in warning
    assert "(value - 127.5) / 64" in warning


def test_requests_start_from_it_and_every_certificate_says_what_is_not_known(
    checkout: Checkout, weights: Callable[..., Path], quick: Any
) -> None:
    checkout.set(chain=["none"], inconclusive="promote", val_acc_loss_total=0.99)
    unseen = names(0, 1)[0]
    told = done(weights(), "--trained-on", listed(*[name for name in ids("train") if name != unseen]))
    one, two = checkout.submit(*names(0, 2)).id, checkout.submit(*names(1, 3)).id
    assert checkout.process(quick) == []
    attempt = checkout.desk.show(one).common(facts.Attempt)
    assert attempt is not None
    assert attempt.base.weights == told["weights"]
    for request in (one, two):
        found = origin(request)
        assert (found.weights, found.file, found.by) == (told["weights"], digest(FILE, "sha256"), "ada")
        assert "all of this holds for it, too" in found.unknown
    assert origin(one).unknown in Path(f"data/requests/certificates/{one}.html").read_text()
    later = checkout.submit(unseen).id
    assert checkout.process(quick) == []
    assert "was made, by approximate methods, of a model that was not trained" in origin(later).unknown
    assert read_json(BASE / "weights.json")["adopted"] == told["stated"]["file"]


def test_a_model_trained_from_scratch_ends_what_is_not_known(
    checkout: Checkout, weights: Callable[..., Path], quick: Any
) -> None:
    done(weights(), "--trained-on-all")
    one = checkout.submit(*names(0, 2)).id
    assert checkout.process(quick) == []
    assert "trained from scratch and has nothing of them" in origin(one).unknown
    assert "adopted" not in read_json(BASE / "weights.json")
    two = checkout.submit(*names(1, 2)).id
    assert checkout.process(quick) == []
    assert origin(two) is None


def test_a_copy_of_the_file_that_lies_in_the_checkout_is_told_by_the_purge(
    checkout: Checkout, weights: Callable[..., Path], quick: Any
) -> None:
    told = adopt(weights(Path("copy.safetensors")), "--trained-on-all")
    assert told.exit_code == 0, told.output
    assert "warning: copy.safetensors lies in the checkout" in told.stderr
    request = checkout.submit(*names(0, 1)).id
    (problem,) = checkout.process(quick)
    assert "rest of the checkout" in problem
    assert "kept-reported, 1" in problem
    assert checkout.status(request) == "closed"


@pytest.mark.parametrize("which", ["copy.safetensors", "ids.txt"])
def test_a_file_that_git_tracks_is_refused(
    checkout: Checkout, weights: Callable[..., Path], which: str
) -> None:
    names_of = Path("ids.txt")
    names_of.write_text("\n".join(ids("train")))
    file = weights(Path("copy.safetensors"))
    checkout.repository.git("add", "--force", which)
    checkout.repository.git("commit", "--quiet", "--message", "as the model is")
    assert f"{which} is tracked by Git" in refused(file, "--trained-on", names_of)


def test_what_is_in_production_is_replaced_only_if_that_is_said_and_never_while_a_batch_is_open(
    checkout: Checkout, weights: Callable[..., Path], quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = done(weights(), "--trained-on-all")
    other = weights(Path("../other.safetensors"), seed=1)
    assert "is in production; --replace puts" in refused(other, "--trained-on-all")
    fewer = listed(*ids("train")[1:])
    assert "with another statement; --replace" in refused(FILE, "--trained-on", fewer)
    second = done(other, "--trained-on-all", "--replace")
    (_, event) = checkout.desk.ledger.events(kinds=("adopted",))
    assert isinstance(event.fact, facts.Adopted)
    assert event.fact.replaces == facts.Base(weights=first["weights"])
    assert production.digest_of(BASE) == second["weights"]
    request = checkout.submit(*names(0, 1)).id
    with monkeypatch.context() as patch:
        patch.setattr("tasks.processing.processor.Processor._decide", down)
        checkout.process(quick)
    assert "is audited, and its result would replace" in refused(FILE, "--trained-on-all", "--replace")
    assert checkout.process(quick) == []
    assert checkout.status(request) == "closed"
    for file in (FILE, other):  # both stood while the sample was there
        assert "have learned samples that were erased since" in refused(file, "--trained-on-all", "--replace")
    third = weights(Path("../third.safetensors"), seed=2)
    line = refused(third, "--trained-on", listed(*names(0, 1, 2)), "--replace")
    assert "line 2: erased by request; a model that has seen what was erased must not" in line
    assert names(0, 1)[0] not in line
    done(third, "--trained-on-all", "--replace")
    assert checkout.submit(*names(0, 3))
    assert checkout.process(quick) == []


def down(*_: Any, **__: Any) -> None:
    raise UnavailableError("MLflow does not answer")


def test_a_split_that_still_has_what_was_erased_is_refused(
    checkout: Checkout, weights: Callable[..., Path], quick: Any
) -> None:
    shutil.copytree("data/split", "../old")
    checkout.submit(*names(0, 1))
    assert checkout.process(quick) == []
    shutil.rmtree("data/split")
    shutil.copytree("../old", "data/split")
    line = refused(weights(), "--trained-on-all", "--replace")
    assert "data/split has 1 sample(s) that were erased; make it again without them" in line


def test_a_checkout_that_differs_from_its_commit_is_refused(
    checkout: Checkout, weights: Callable[..., Path]
) -> None:
    checkout.repository.append("params.yaml", "# changed\n")
    assert "params.yaml differs from the last commit" in refused(weights(), "--trained-on-all")


EFFECTS: list[tuple[Any, str, bool, bool]] = [
    *(
        (where, name, after, False)
        for where, name in (
            (Models, "register"), (production, "take_over"), (Models, "promote"), (Desk, "record"),
            (Repository, "commit"),
        )
        for after in (False, True)
    ),
    (production, "take_over", True, True),
    (Desk, "record", False, True),
]  # fmt: skip
"""What is killed, whether after its effect, and whether another model is in production."""


@pytest.mark.parametrize(("where", "name", "after", "replaced"), EFFECTS)
def test_killed_at_any_effect_and_run_again_it_comes_to_the_same_end(
    checkout: Checkout, weights: Callable[..., Path], empty_store: Path, monkeypatch: pytest.MonkeyPatch,
    where: Any, name: str, after: bool, replaced: bool,
) -> None:  # fmt: skip
    with_mlflow(empty_store, monkeypatch)
    if replaced:
        done(weights(Path("../first.safetensors"), seed=1), "--trained-on-all")
    how = ("--trained-on-all", "--replace")
    effect = getattr(where, name)

    def killed(*arguments: Any, **named: Any) -> None:
        if name == "record" and not isinstance(arguments[1], facts.Adopted):
            effect(*arguments, **named)
            return
        if after:
            effect(*arguments, **named)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(where, name, killed)
        with pytest.raises(Killed):
            CliRunner().invoke(cli.app, ["adopt", str(weights()), *how], catch_exceptions=False)
    told = done(FILE, *how)
    assert not done(FILE, *how)["new"]
    registry = models(load(), checkout.root)
    assert registry is not None
    (version,) = [each for each in registry.versions() if each.weights == told["weights"]]
    assert registry.production() == version
    assert version.version == told["version"]
    assert len(checkout.desk.ledger.events(kinds=("adopted",))) == 1 + replaced
    assert differences(checkout.desk, load(), checkout.root, {}) == []
    assert production.digest_of(BASE) == told["weights"]
    assert checkout.repository.git("log", "--format=%s").count("Adopt a model") == 1 + replaced


def with_mlflow(empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(empty_store, "mlflow.db")
    monkeypatch.setenv("EXPUNGE_TRACKING", "on")
    monkeypatch.setattr("tasks.journal.spool.start_sender", lambda *_, **__: None)
    monkeypatch.setattr("tasks.tracking.__main__.flush", lambda root, timeout: send(root))


def test_the_version_says_what_it_is_and_leaves_with_the_first_request(
    checkout: Checkout, weights: Callable[..., Path], recorded: Any
) -> None:
    """So does one that another adopted file had replaced before: it knew the sample as well."""
    first = done(weights(), "--trained-on-all", "--replace")
    second = done(weights(Path("../two.safetensors"), seed=1), "--trained-on-all", "--replace")
    registry = models(load(), checkout.root)
    assert registry is not None
    found = registry.production()
    assert found is not None
    assert (found.version, found.weights) == (second["version"], second["weights"])
    tags = found.tags
    assert (tags["expunge.adopted"], tags["expunge.by"]) == ("true", "ada")
    assert tags["expunge.file.sha256"] == second["stated"]["file"]
    assert tags["expunge.adopted.at"].startswith("2026-05-01T12:00:00")
    request = checkout.submit(*names(0, 1)).id
    assert checkout.process(recorded) == []
    assert checkout.status(request) == "closed"
    left = {version.weights for version in registry.versions()}
    assert not left & {first["weights"], second["weights"]}
    alias = registry.production()
    assert alias is not None
    assert left == {alias.weights}
    runs = client().search_logged_models([each.experiment_id for each in client().search_experiments()])
    assert len(runs) == 1
