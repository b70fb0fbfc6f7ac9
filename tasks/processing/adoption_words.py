"""What ``expunge adopt`` is told on the command line, and what it tells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.core.errors import ExpungeError
from tasks.core.files import read_json
from tasks.core.params import Params
from tasks.models import MODELS
from tasks.processing.adoption import Outcome
from tasks.processing.candidate import Candidate
from tasks.stage import flatten

SHOWN = 10
"""How many classes are shown."""


def parse_options(given: Sequence[str]) -> dict[str, object]:
    """Return options by name from ``key=value``, the value as YAML has it."""
    found: dict[str, object] = {}
    for text in given:
        key, sign, value = text.partition("=")
        try:
            found[key] = YAML(typ="safe").load(value)
        except YAMLError:
            sign = ""
        if not (key and sign):
            raise ExpungeError(f"--option: {text!r} is not of the form key=value, such as name=resnet50")
    return found


def parse_classes(given: str) -> tuple[str, ...]:
    """Return names of classes from ``a,b,c``, or from a JSON file that holds a list of them."""
    if not given:
        return ()
    if given.endswith(".json") and Path(given).is_file():
        value = read_json(Path(given))
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise ExpungeError(f"--classes: {given} holds no list of names")
        return tuple(value)
    return tuple(name.strip() for name in given.split(","))


def see_that_params_agree(params: Params, model: str, options: Mapping[str, object]) -> None:
    """See that the model and its options are those of ``params.yaml``, which every stage follows.

    Parameters
    ----------
    params
        Of the checkout.
    model, options
        As they were given; an empty name and no options agree with all.

    Raises
    ------
    ExpungeError
        Saying what to put there.
    """
    name = model or params.train.model
    schema = MODELS.get(name).Options
    section = params.train.model_copy(update={"model": name})
    there = flatten(section.options(schema, where="params.yaml: train").model_dump(mode="json"))
    unknown = [key for key in options if key not in there]
    if unknown:
        raise ExpungeError(
            f"--option: {name} has no option {unknown[0]}; it has {', '.join(there) or 'none'}"
        )
    wanted = {f"train.{name}.{key}": value for key, value in options.items() if there[key] != value}
    if name != params.train.model:
        wanted = {"train.model": name} | wanted
    if wanted:
        shown = ", ".join(f"{key}: {value}" for key, value in wanted.items())
        raise ExpungeError(
            f"params.yaml names another model than this one, and every stage follows it; set {shown} there, "
            "commit that, then run this again"
        )


def told(file: Path, candidate: Candidate, outcome: Outcome) -> Iterator[str]:
    """Say what was found and done, a line each."""
    info, stated, figures = candidate.info, candidate.stated, candidate.figures
    images = f"{info.channels}×{info.size[0]}×{info.size[1]} images"
    yield f"{file}: {info.model} for {images}, SHA-256 {stated.file}"
    yield from (f"{file}: {note}" for note in candidate.notes)
    more = f" and {len(info.classes) - SHOWN} more" if len(info.classes) > SHOWN else ""
    yield f"outputs, in the order of data/split/classes.json: {', '.join(info.classes[:SHOWN])}{more}"
    counts = {f"of {stated.of} training": stated.samples, "validation": stated.val, "test": stated.test}
    on = ", ".join(f"{count} {part}" for part, count in counts.items() if count)
    yield f"{stated.by} states that it was trained on {on} samples"
    for name, what in (("val", "on val that it has not seen"), ("seen", "on what it was trained on")):
        if f"{name}/acc" in figures:
            yield f"accuracy {what}: {figures[f'{name}/acc']:.3f} ({figures[f'{name}/count']:.0f} images)"
    version = f"version {outcome.base.version}" if outcome.base.version else "no version, as tracking is off"
    already = "" if outcome.is_new else " already"
    yield f"in production{already}: {version}, weights {outcome.base.weights}"
    yield (
        "requests start from it; keep no copy of the file longer than you must: it knows what requests will "
        "erase, and a purge finds copies only in this checkout and its stores"
    )


def as_json(candidate: Candidate, outcome: Outcome) -> dict[str, Any]:
    """Return the same as JSON values."""
    return {
        **outcome.base.model_dump(),
        "new": outcome.is_new,
        "commit": outcome.commit,
        "model": candidate.info.model,
        "options": candidate.info.options,
        "classes": list(candidate.info.classes),
        "stated": candidate.stated.model_dump(),
        "figures": dict(candidate.figures),
        "notes": list(candidate.notes),
        "warnings": list(candidate.warnings),
    }
