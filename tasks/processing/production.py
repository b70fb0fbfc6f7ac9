"""The model in production: its weights in ``data/base``, its version in MLflow, what it has never seen.

``data/base`` is where the next batch starts from. The ledger says which weights belong there; the alias
``production`` in MLflow's registry follows the ledger, not the other way round.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.errors import ExpungeError, UnavailableError
from tasks.core.files import content_digest, read_json, write_json, write_text, write_whole
from tasks.requests.events import Base
from tasks.requests.heldout import HELDOUT, listed
from tasks.requests.production import BASE
from tasks.samples.manifest import Manifest, Samples
from tasks.samples.table import SPLIT

if TYPE_CHECKING:
    from tasks.tracking.model_registry import Models

TRAINED = Path("data/train")

SPLIT_OUTPUTS = tuple(
    SPLIT / name
    for name in (
        "images", "pictures.npy", "copies.csv", "subjects.csv", "samples.csv", "manifest.csv",
        "classes.json", "rows.json", "run.json", "metrics.json",
    )
)  # fmt: skip
"""What stage ``split`` leaves; DVC takes it away before it runs the stage."""


def other_alias(registry: Models, current: Base) -> Iterator[str]:
    """Tell if the alias ``production`` in MLflow is not the ledger's model."""
    if current.version is None:
        return
    alias = registry.production()
    if alias is None or alias.version != current.version:
        found = "nothing" if alias is None else f"version {alias.version}"
        yield (
            f"MLflow: the alias production points at {found}, the ledger says version {current.version}; "
            "expunge rollback, or move the alias back"
        )
    elif alias.weights != current.weights:
        yield f"MLflow: version {alias.version} has other weights than the ledger's {current.weights[:12]}…"


def digest_of(folder: Path) -> str:
    """SHA-256 of the tensors of the weights in a folder, as they say of themselves."""
    return str(read_json(folder / "weights.json")["sha256"])


def run_of(stage: str) -> str:
    """Key of the run that made a stage's outputs."""
    return str(read_json(Path("data") / stage / "run.json")["run"])


def register(
    registry: Models | None, key: str, weights: str, root: Path, tags: Mapping[str, str], made: Path
) -> str | None:
    """Make the model of a run, by our key, a version of the registered model; return the version.

    A store that has lost the run, or in which somebody has deleted it, gets the weights anew as a run of
    their own.

    Parameters
    ----------
    registry
        MLflow's; ``None`` if it is switched off.
    key, weights
        Of the run, and SHA-256 of the tensors that it made.
    root, tags
        Of the project; and what the version is to tell.
    made
        Folder that holds the weights.

    Raises
    ------
    UnavailableError
        If MLflow does not answer, or takes no run at all.
    ExpungeError
        If it refuses.
    """
    if registry is None:
        return None
    from tasks.tracking.__main__ import flush
    from tasks.tracking.model_registry import INSTEAD, LostRunError

    flush(root, timeout=120)
    try:
        return registry.register(key, weights, tags).version
    except LostRunError:
        pass
    try:
        registry.see_that_it_takes_runs()
        again = _recorded_again(made, weights, root, registry)
        flush(root, timeout=120)
        return registry.register(again, weights, {**tags, INSTEAD: key}).version
    except UnavailableError:
        raise
    except ExpungeError as error:  # it is for a person to mend, and no failure of the batch
        raise UnavailableError(f"MLflow has lost a run and takes no other: {error}") from None


def _recorded_again(made: Path, weights: str, root: Path, registry: Models) -> str:
    """Record weights as a run of their own."""
    if digest_of(made) != weights:
        raise ExpungeError(f"{made} does not hold the weights {weights[:12]}…, and MLflow has lost their run")
    return record("recovered", made, root, registry, {})


def record(name: str, made: Path, root: Path, registry: Models, tags: Mapping[str, str]) -> str:
    """Record the weights in a folder as a run of their own, with tags; return our key of it."""
    from tasks import journal

    described = read_json(made / "weights.json")
    own = root / described["options"]["path"] if described["model"] == "module" else None
    with journal.record(name, registry.tracking, root) as run:
        run.model(made, own)
        run.tags({**tags, "weights.sha256": described["sha256"]})
        return run.key


def val_accuracy(folder: Path) -> float | None:
    """Accuracy on val of the model that a stage has made, if its metrics tell it."""
    try:
        return float(read_json(folder / "metrics.json")["val/acc"])
    except (ExpungeError, KeyError, TypeError, ValueError):
        return None


def adoptable() -> str:
    """Return the digest of the model of stage ``train``, if it fits the data as they are.

    Raises
    ------
    ExpungeError
        If it was trained on another split than the one that lies there.
    """
    made = read_json(TRAINED / "run.json")
    for name in ("images", "samples.csv"):
        path = SPLIT / name
        if made.get("inputs", {}).get(str(path)) != content_digest(path):
            raise ExpungeError(
                f"nothing is in production yet, and {TRAINED} was not trained on {path} as it is; "
                "run the pipeline first: dvc repro train"
            )
    return digest_of(TRAINED)


def take_over(source: Path, heldout: Iterable[str]) -> None:
    """Put weights into ``data/base``, with the ids of what they have not seen; each file whole.

    ``weights.json`` is written last: with it the base is complete.
    """
    with write_whole(BASE / "weights.safetensors") as file:
        file.write((source / "weights.safetensors").read_bytes())
    write_heldout(heldout)
    write_json(BASE / "weights.json", read_json(source / "weights.json"))


def write_heldout(heldout: Iterable[str]) -> None:
    """Write the ids of what the model in production has not seen, whole."""
    write_text(HELDOUT, "".join(f"{sample_id}\n" for sample_id in sorted(heldout)))


def heldout_of_split() -> set[str]:
    """Ids of the validation and test samples."""
    samples = Samples.read(SPLIT / "samples.csv")
    return {samples.sample_ids[row] for part in ("val", "test") for row in samples.indices(part)}


def heldout_after(*, exact: bool) -> set[str]:
    """Ids of what the result of a batch has not seen.

    A model that was trained anew has seen neither val nor test. One that was changed has, beside, seen
    whatever its base was trained on.
    """
    manifest = Manifest.read(SPLIT / "manifest.csv")
    held_out = {manifest.sample_ids[row] for role in ("val", "test") for row in manifest.indices(role)}
    if exact or not HELDOUT.exists():
        return held_out
    return held_out & listed()


def check_base(expected: str) -> None:
    """See that ``data/base`` holds the weights that the ledger says are in production.

    Raises
    ------
    ExpungeError
        If it does not.
    """
    if not (BASE / "weights.json").exists() or digest_of(BASE) != expected:
        raise ExpungeError(
            f"{BASE} does not hold the weights in production, {expected[:12]}…; restore them from the "
            "commit that promoted them (docs/operations.md, Restore); if expunge adopt was cut short, run "
            "it again"
        )
