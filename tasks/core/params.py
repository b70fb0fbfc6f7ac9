"""The frozen, validated model of ``params.yaml``.

The file is read once, by the parser that DVC uses (YAML 1.2), and checked whole: unknown keys, wrong
types, NaN and impossible values are refused with the key's path and what would be right. Nothing
deeper in the code reads settings from anywhere else.

Options of a single choice (``unlearn.ssd``, ``train.resnet18``, ...) are described by the file that
implements the choice; see :class:`Choice`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from tasks.core.errors import ExpungeError
from tasks.core.plugins import choices, gone, instead

Fraction = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Section(BaseModel):
    """A mapping in ``params.yaml``: frozen, no unknown keys, no type coercion, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


S = TypeVar("S", bound=Section)


class Choice(Section):
    """A section that selects one file of a room and holds the options of any of them.

    ``unlearn: {method: ssd, ssd: {...}, influence: {...}}`` selects ``tasks/methods/ssd.py``; the
    mapping beside the key ``method`` that is named like a file holds that file's options.
    """

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, allow_inf_nan=False)

    room: ClassVar[str]
    key: ClassVar[str]

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        known = choices(self.room)
        chosen = self.chosen
        if chosen not in known:
            raise ValueError(f"{self.key} is {chosen!r}; {instead(self.room, chosen)}")
        for name, value in (self.model_extra or {}).items():
            if name not in known:
                raise ValueError(
                    f"unknown key {name!r}; known keys: {', '.join(type(self).model_fields)}, "
                    f"and the options of {', '.join(known)}{gone(self.room, name)}"
                )
            if value is not None and not isinstance(value, Mapping):
                raise ValueError(f"{name} is {value!r}; it holds options, so it must be a mapping")
        return self

    @property
    def chosen(self) -> str:
        """Name of the selected file."""
        name: str = getattr(self, self.key)
        return name

    def options(self, schema: type[S], *, where: str) -> S:
        """Options of the selected file, validated by the schema that the file declares.

        Parameters
        ----------
        schema
            The file's own :class:`Section`.
        where
            Path of this section in ``params.yaml``, for messages.
        """
        given = (self.model_extra or {}).get(self.chosen) or {}
        return validated(schema, given, f"{where}.{self.chosen}.")


class Forget(Section):
    """Which training samples are to be forgotten.

    ``random``: ``fraction`` of every class, a tenth if none is given. ``class``: all samples of ``classes``,
    or ``fraction`` of them. ``ids``: the sample ids in the text file ``ids_file``, one a line; other kinds
    ignore it. They may take all samples of a class only if ``classes`` lists it.
    """

    kind: Literal["random", "class", "ids"] = "random"
    fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    classes: tuple[Annotated[int, Field(ge=0)], ...] = ()
    ids_file: Annotated[str, Field(min_length=1)] = "data/forget.txt"

    @model_validator(mode="before")
    @classmethod
    def _lists_become_tuples(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and isinstance(value.get("classes"), list):
            return {**value, "classes": tuple(value["classes"])}
        return value

    @model_validator(mode="after")
    def _kind_has_what_it_needs(self) -> Self:
        if self.kind == "random" and self.fraction == 1:
            raise ValueError("kind random needs a fraction above 0 and below 1")
        if self.kind == "class" and not self.classes:
            raise ValueError("kind class needs classes, a list of class numbers such as [3]")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes {list(self.classes)} names a class twice")
        if self.kind == "random" and self.classes:
            raise ValueError("classes belongs to kind class, not to kind random")
        if self.kind == "ids" and self.fraction is not None:
            raise ValueError("fraction does not belong to kind ids")
        return self

    @property
    def part(self) -> float:
        """Which part of every class, or of ``classes``, is to be forgotten."""
        if self.fraction is not None:
            return self.fraction
        return 0.1 if self.kind == "random" else 1.0


COLOURS = {"black": "#000000", "grey": "#808080", "white": "#ffffff"}


class Split(Section):
    """Where the images come from, and who is retain, forget, val and test.

    ``resize``: side of the square that every image is scaled to; ``fit``: how one gets there that is no
    square. ``background``: what shows through transparency and fills what padding adds. ``bits``: those in
    use of images with 16 bits a value. ``max_megapixels``: above it an image is refused unread.
    ``store``: how images lie in ``data/split/images``; ``shard_mib``: pixels in a file there, in MiB.
    ``table``, ``root``: of source ``table``, below ``path``. ``label_column``, ``subject``: columns of a
    table; of ``image_folder``, ``subject`` is a table of paths and subjects below ``path``.
    ``val_fraction``, ``test_fraction``: of the images, where the source has no such part of its own.
    ``erased``: the list of samples that requests have erased and that no source may bring back.
    """

    source: str
    path: Annotated[str, Field(min_length=1)]
    table: Annotated[str, Field(min_length=1)] | None = None
    root: Annotated[str, Field(min_length=1)] = "."
    label_column: Annotated[str, Field(min_length=1)] | None = None
    subject: Annotated[str, Field(min_length=1)] | None = None
    resize: Annotated[int, Field(ge=8, le=1024)] | None = None
    fit: Literal["stretch", "crop", "pad"] = "stretch"
    background: Annotated[str, Field(pattern=rf"^(#[0-9a-fA-F]{{6}}|{'|'.join(COLOURS)})$")] | None = None
    bits: Annotated[int, Field(ge=8, le=16)] | None = None
    max_megapixels: Annotated[float, Field(gt=0, le=4096)] = 128.0
    store: Literal["pixels", "jpeg"] = "pixels"
    shard_mib: Annotated[float, Field(gt=0, le=4096)] = 16.0
    seed: Seed = 0
    val_fraction: Fraction = 0.1
    test_fraction: Fraction = 0.2
    erased: Annotated[str, Field(min_length=1)] | None = None
    forget: Forget

    @model_validator(mode="after")
    def _source_is_known(self) -> Self:
        if self.source not in choices("datasets"):
            raise ValueError(f"source is {self.source!r}; {instead('datasets', self.source)}")
        return self

    @model_validator(mode="after")
    def _fit_has_a_size(self) -> Self:
        if self.fit != "stretch" and self.resize is None:
            raise ValueError(f"fit is {self.fit!r}, which needs resize, the side in pixels")
        return self

    @property
    def rgb(self) -> tuple[int, int, int] | None:
        """Red, green and blue of ``background``, 0 to 255 each."""
        if self.background is None:
            return None
        red, green, blue = bytes.fromhex(COLOURS.get(self.background, self.background)[1:])
        return red, green, blue


class Augment(Section):
    """Augmentation of training batches; 0 or false switches a part off. Sizes in pixels.

    ``flip``: ``true`` mirrors half of the images in each epoch; ``alternating`` draws for each image whether
    it is mirrored in the epochs of odd or of even number, so that two epochs show both sides of each.
    """

    flip: bool | Literal["alternating"] = False
    crop: Annotated[int, Field(ge=0, le=32)] = 0
    cutout: Annotated[int, Field(ge=0, le=64)] = 0


class Recipe(Section):
    """Everything that the training loop needs to know, for training and for fine-tuning.

    ``accumulate``: batches whose gradients make one step. ``optimizer``: ``sgd`` has ``momentum`` and
    ``nesterov``, ``adamw`` (Loshchilov & Hutter 2019) ``betas`` and ``eps``.
    ``schedule``: ``one_cycle`` rises to ``lr`` over the first ``warmup`` share of the steps and falls to
    zero (Smith & Topin 2018); ``cosine`` falls from ``lr`` to zero; ``cosine_restarts`` does so again and
    again, first in ``restart_epochs``, then in ``restart_mult`` times as many as before (Loshchilov &
    Hutter 2017); ``constant`` stays. All but ``one_cycle`` may rise for ``warmup_epochs`` first.
    ``start_scale``: share of their height and width that images are scaled to at the first step; they grow
    evenly, and are whole from the share ``full_scale`` of the steps on (progressive resizing: Howard 2018, in
    fast.ai's entry to DAWNBench; Tan & Le 2021, section 4.2).
    ``amp``: ``auto`` uses bfloat16 where the device computes in it natively, ``bfloat16`` anywhere;
    ``float16`` is for CUDA, with scaled losses; ``off`` is float32.

    What belongs to an optimizer or a schedule that is not chosen is ignored, see :attr:`unused`.
    """

    epochs: Annotated[int, Field(ge=1, le=10_000)]
    batch_size: Annotated[int, Field(ge=2, le=65_536)] = 128
    accumulate: Annotated[int, Field(ge=1, le=4096)] = 1
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: Positive
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = True
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    eps: Positive = 1e-8
    weight_decay: NonNegative = 5e-4
    schedule: Literal["one_cycle", "cosine", "cosine_restarts", "constant"] = "one_cycle"
    warmup: Fraction = 0.3
    warmup_epochs: NonNegative = 0.0
    restart_epochs: Annotated[int, Field(ge=1, le=10_000)] = 10
    restart_mult: Annotated[int, Field(ge=1, le=100)] = 1
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    augment: Augment = Augment()
    start_scale: Annotated[float, Field(ge=0.1, le=1)] = 1.0
    full_scale: Annotated[float, Field(gt=0, le=1)] = 0.6
    amp: Literal["off", "auto", "bfloat16", "float16"] = "off"
    compile: bool = False

    @model_validator(mode="before")
    @classmethod
    def _lists_become_tuples(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and isinstance(value.get("betas"), list):
            return {**value, "betas": tuple(value["betas"])}
        return value

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> Self:
        if self.optimizer == "sgd" and self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        return self

    @model_validator(mode="after")
    def _epochs_hold_the_schedule(self) -> Self:
        if self.schedule == "one_cycle" and self.warmup_epochs:
            raise ValueError("schedule one_cycle rises by its own share warmup; warmup_epochs must be 0")
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs is {self.warmup_epochs:g}; it must be below epochs ({self.epochs})"
            )
        if self.schedule == "cosine_restarts" and self.warmup_epochs + self.restart_epochs > self.epochs:
            raise ValueError(
                f"the first cycle of cosine_restarts, restart_epochs ({self.restart_epochs}) after "
                f"warmup_epochs ({self.warmup_epochs:g}), must fit into epochs ({self.epochs})"
            )
        return self

    @property
    def unused(self) -> set[str]:
        """Keys that do not belong to the optimizer and the schedule that are chosen."""
        others = {"betas", "eps"} if self.optimizer == "sgd" else {"momentum", "nesterov"}
        others |= {"warmup_epochs"} if self.schedule == "one_cycle" else {"warmup"}
        return others if self.schedule == "cosine_restarts" else others | {"restart_epochs", "restart_mult"}


class Train(Choice):
    """The model and the recipe of the original; ``retrain`` uses the same.

    ``start``: ``scratch`` trains; ``base`` takes the weights in ``data/base`` instead, such as those of
    the model in production.
    """

    room = "models"
    key = "model"

    model: str
    start: Literal["scratch", "base"] = "scratch"
    seed: Seed = 0
    recipe: Recipe


class Retrain(Section):
    """The reference model, trained by ``train``'s recipe on the retain set alone."""

    seed: Seed = 1


class Unlearn(Choice):
    """The unlearning method."""

    room = "methods"
    key = "method"

    method: str
    seed: Seed = 2


class Finetune(Section):
    """Repair on the retain set after unlearning; 0 epochs in ``recipe: null`` means no repair."""

    seed: Seed = 3
    recipe: Recipe | None


class Mia(Section):
    """The membership inference attack and its intervals.

    ``attack``: what scores the samples, a file of ``tasks/attacks`` or of a package.
    ``margin``: how far the result's AUC may lie from the reference's and still count as the same.
    """

    attack: str = "loss"
    seed: Seed = 4
    folds: Annotated[int, Field(ge=2, le=1000)] = 10
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    margin: Annotated[float, Field(gt=0, lt=0.5)] = 0.05

    @model_validator(mode="after")
    def _attack_is_known(self) -> Self:
        if self.attack not in choices("attacks"):
            raise ValueError(f"attack is {self.attack!r}; {instead('attacks', self.attack)}")
        return self


class Audit(Section):
    """What the audit judges: the result of ``finetune``, or ``retrain``'s, where retraining is the method."""

    result: Literal["finetune", "retrain"] = "finetune"


class Report(Section):
    """The HTML report."""

    title: Annotated[str, Field(min_length=1, max_length=200)] = "Unlearning report"


class Runtime(Section):
    """Where the arithmetic happens. Results are bit-identical at a fixed thread count and CPU class.

    ``threads``: of the CPU, all processes of this machine together. ``processes``: how many of them share
    a training.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Annotated[int, Field(ge=1, le=256)] = 2
    processes: Annotated[int, Field(ge=1, le=64)] = 1


class Tracking(Section):
    """Where MLflow records runs; a relative SQLite path is taken from the repository's root."""

    uri: Annotated[str, Field(min_length=1)] = "sqlite:///mlflow.db"
    experiment: Annotated[str, Field(min_length=1, max_length=200)] = "expunge"
    timeout: Annotated[int, Field(ge=1, le=600)] = 10


class Params(Section):
    """The whole of ``params.yaml``: one section a stage, where it runs and is recorded, and the requests."""

    split: Split
    train: Train
    retrain: Retrain
    unlearn: Unlearn
    finetune: Finetune
    mia: Mia
    audit: Audit = Audit()
    report: Report
    runtime: Runtime = Runtime()
    tracking: Tracking = Tracking()
    requests: dict[str, Any] = Field(default_factory=dict)
    """Checked by its owner, :mod:`tasks.requests.settings`: a word in it must not retrain models."""


def in_use(params: Params) -> dict[str, Any]:
    """Parameters as plain values, without what belongs to a model, method, … that is not chosen."""
    values: dict[str, Any] = params.model_dump(mode="json")
    for name, recipe in (("train", params.train.recipe), ("finetune", params.finetune.recipe)):
        for key in recipe.unused if recipe else ():
            del values[name]["recipe"][key]
    for name, section in params:
        if isinstance(section, Choice):
            for other in set(section.model_extra or {}) - {section.chosen}:
                del values[name][other]
    return values


def load(path: Path = Path("params.yaml")) -> Params:
    """Read and check a params file.

    Raises
    ------
    ExpungeError
        If the file is missing, does not parse, or holds an unknown key or an impossible value.
    """
    return validate(read_yaml(path), str(path))


def read_yaml(path: Path) -> Any:
    """Parse a file as DVC does: YAML 1.2, duplicate keys refused.

    Raises
    ------
    ExpungeError
        If the file is missing, is not UTF-8, or does not parse.
    """
    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        raise ExpungeError(f"{path} is missing; run from the repository's root") from None
    except UnicodeDecodeError as error:
        raise ExpungeError(f"{path} is not UTF-8 text: byte {error.start}") from None
    except YAMLError as error:
        raise ExpungeError(f"{path} does not parse: {_yaml_problem(error)}") from None
    except (ValueError, LookupError, RecursionError) as error:  # the parser's own, for 2020-13-45 and such
        raise ExpungeError(f"{path} does not parse: a value cannot be read ({error})") from None


def validate(value: Any, where: str = "params") -> Params:
    """Check parsed parameters; ``where`` names their origin in messages."""
    if not isinstance(value, Mapping):
        kind = "nothing" if value is None else type(value).__name__
        raise ExpungeError(f"{where} must hold a mapping of sections, not {kind}")
    return validated(Params, value, f"{where}: ")


def validated(schema: type[S], value: Mapping[str, Any], where: str) -> S:
    """Validate; ``where`` is what stands before the key's path in messages."""
    try:
        return schema.model_validate(dict(value))
    except ValidationError as error:
        raise ExpungeError("; ".join(_problem(entry, schema, where) for entry in error.errors())) from None


PLAIN = {"model_type": "input should be a mapping", "tuple_type": "input should be a list"}
"""What pydantic says in terms of Python's types."""


def _problem(entry: Any, schema: type[Section], where: str) -> str:
    """One line for one pydantic error: key, what is wrong, what would be right."""
    path = ".".join(str(part) for part in entry["loc"])
    prefix = f"{where}{path}" if path else where.rstrip(":. ")
    if entry["type"] == "extra_forbidden":
        known = ", ".join(_fields_at(schema, entry["loc"][:-1])) or "none"
        return f"{prefix} is an unknown key; known keys: {known}"
    if entry["type"] == "missing":
        return f"{prefix} is missing"
    message = PLAIN.get(entry["type"], entry["msg"]).removeprefix("Value error, ").replace("Tuple", "List")
    if entry["type"] == "value_error":
        return f"{prefix}: {message}"
    value = repr(entry["input"])
    shown = value if len(value) <= 80 else f"{value[:77]}..."
    return f"{prefix} is {shown}; {message[0].lower()}{message[1:]}"


def _fields_at(schema: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    for part in path:
        field = schema.model_fields.get(str(part))
        models = _models_in(field.annotation) if field else []
        if not models:
            return []
        schema = models[0]
    return list(schema.model_fields)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [kind for part in getattr(annotation, "__args__", ()) for kind in _models_in(part)]


def _yaml_problem(error: YAMLError) -> str:
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return str(error).splitlines()[0]
