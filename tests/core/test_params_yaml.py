"""How ``params.yaml`` is parsed: as DVC does, and with one line where it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.core.errors import ExpungeError
from tasks.core.params import Recipe, load, read_yaml
from tasks.core.plugins import choices
from tasks.requests.settings import settings_of

SHIPPED = Path(__file__).parents[2] / "params.yaml"

SCALARS = [
    ("1e-3", 1e-3),
    ("1E5", 1e5),
    (".5", 0.5),
    ("010", 10),
    ("0o10", 8),
    ("0x10", 16),
    ("no", "no"),
    ("yes", "yes"),
    ("on", "on"),
    ("off", "off"),
    ("True", True),
    ("~", None),
    ("", None),
    ("1:30", "1:30"),
    ("1_000", 1000),
    ("'1'", "1"),
    ("٣", "٣"),
]


def refusal(tmp_path: Path, text: str | bytes) -> str:
    """The message about a file of this content, without the folder."""
    path = tmp_path / "params.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ExpungeError) as caught:
        load(path)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(f"{tmp_path}/", "")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    with pytest.raises(ExpungeError) as caught:
        load(path)
    assert str(caught.value) == f"{path} is missing; run from the repository's root"
    path.mkdir()
    with pytest.raises(ExpungeError, match="is missing; run from the repository's root"):
        load(path)


@pytest.mark.parametrize(
    ("text", "kind"),
    [("", "nothing"), ("# only a comment\n", "nothing"), ("- a", "list"), ("3", "int"), ("a", "str")],
)
def test_a_file_without_sections_is_refused(tmp_path: Path, text: str, kind: str) -> None:
    assert refusal(tmp_path, text) == f"params.yaml must hold a mapping of sections, not {kind}"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\na: 2\n", 'line 2, column 1: found duplicate key "a" with value "2" (original value: "1")'),
        ("mia:\n  seed: 1\n  seed: 1\n", "line 3, column 3: found duplicate key"),
        ("mia:\n\tseed: 1\n", "line 2, column 1: found character '\\t' that cannot start any token"),
        ("mia: 'unterminated", "line 1, column 19: found unexpected end of stream"),
        ("mia: *nowhere", "line 1, column 6: found undefined alias 'nowhere'"),
        ("a: 1\n---\nb: 2\n", "line 2, column 1: but found another document"),
        ("a: !!python/name:os.system x", "line 1, column 4: could not determine a constructor"),
        ("? {a: b}\n: c", "line 1, column 3: found unhashable key"),
        ("a: \x01", "unacceptable character #x0001"),
        ("a: 2020-13-45", "a value cannot be read (month must be in 1..12)"),
        ("a: !!int foo", "a value cannot be read (invalid literal for int() with base 10: 'foo')"),
        ("a: !!bool maybe", "a value cannot be read ('maybe')"),
        ("a: !!float ''", "a value cannot be read (string index out of range)"),
        (f"a: {'9' * 5000}", "a value cannot be read (Exceeds the limit (4300 digits)"),
        (f"a: {'[' * 3000}", "a value cannot be read (maximum recursion depth exceeded"),
    ],
)  # fmt: skip
def test_text_that_is_no_yaml_is_refused_with_the_reason(tmp_path: Path, text: str, problem: str) -> None:
    assert refusal(tmp_path, text).startswith(f"params.yaml does not parse: {problem}")


def test_text_that_is_no_utf8_is_refused_with_its_place(tmp_path: Path) -> None:
    assert refusal(tmp_path, b"mia: caf\xe9") == "params.yaml is not UTF-8 text: byte 8"


@pytest.mark.parametrize(("text", "expected"), SCALARS)
def test_scalars_follow_yaml_1_2(tmp_path: Path, text: str, expected: object) -> None:
    path = tmp_path / "values.yaml"
    path.write_text(f"key: {text}\n", encoding="utf-8")
    value = read_yaml(path)["key"]
    assert value == expected
    assert type(value) is type(expected)


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(SHIPPED.read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert load(path) == load(SHIPPED)


def test_dvc_reads_the_same_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import dvc.api
    from dvc.repo import Repo

    monkeypatch.chdir(tmp_path)
    Repo.init(no_scm=True).close()
    path = tmp_path / "params.yaml"
    scalars = "".join(f"  key{number}: {text}\n" for number, (text, _) in enumerate(SCALARS))
    path.write_text(f"{SHIPPED.read_text(encoding='utf-8')}\nscalars:\n{scalars}", encoding="utf-8")
    ours, theirs = read_yaml(path), dvc.api.params_show("params.yaml")
    assert repr(theirs) == repr(ours)  # types too: 1 is not 1.0 is not True


class TestShipped:
    def test_it_is_valid(self) -> None:
        settings_of(load(SHIPPED))

    def test_every_section_lists_all_of_its_keys(self) -> None:
        params, values = load(SHIPPED), read_yaml(SHIPPED)
        for name in type(params).model_fields:
            section = settings_of(params) if name == "requests" else getattr(params, name)
            assert set(type(section).model_fields) <= set(values[name]), name
        assert set(values["split"]["forget"]) == set(type(params.split.forget).model_fields)
        assert set(values["train"]["recipe"]) == set(Recipe.model_fields)
        assert set(values["train"]["recipe"]["augment"]) == set(
            type(params.train.recipe.augment).model_fields
        )

    def test_the_recipe_shows_the_defaults(self) -> None:
        recipe = load(SHIPPED).train.recipe
        assert recipe == Recipe(epochs=recipe.epochs, lr=recipe.lr)

    @pytest.mark.parametrize("name", choices("methods"))
    def test_every_method_is_listed_with_its_defaults(self, name: str) -> None:
        from tasks.methods import METHODS

        defaults = METHODS.get(name).Options().model_dump(mode="json")
        assert read_yaml(SHIPPED)["unlearn"][name] == defaults

    @pytest.mark.parametrize("name", choices("models"))
    def test_every_model_is_listed_with_its_defaults(self, name: str) -> None:
        from tasks.models import MODELS

        assert read_yaml(SHIPPED)["train"][name] == MODELS.get(name).Options().model_dump(mode="json")
