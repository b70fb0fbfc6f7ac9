from __future__ import annotations

import json
import random
import time
from typing import Any

import pytest
from ruamel.yaml import YAML

from tasks.requests.lines import CHUNK, JsonLines
from tasks.requests.parsing import parse
from tasks.requests.schema import Named, SubmissionError
from tests.requests.conftest import submission


def of_yaml(text: str, path: tuple[int | str, ...]) -> int:
    """Line of a value, by a parser that is not ours."""
    node = YAML(typ="safe", pure=True).compose(text)
    for part in path:
        below = {key.value: value for key, value in node.value} if isinstance(part, str) else node.value
        node = below[part]
    line: int = node.start_mark.line
    return line + 1


@pytest.mark.parametrize("seed", range(30))
def test_lines_are_those_of_another_parser(seed: int) -> None:
    chance = random.Random(seed)
    paths: list[tuple[int | str, ...]] = []

    def blanks() -> str:
        return "".join(chance.choices(" \n", k=chance.randrange(4)))

    def written(path: tuple[int | str, ...], depth: int) -> str:
        paths.append(path)
        kind = chance.randrange(6) if depth else 2
        if kind == 0:
            items = [written((*path, place), depth - 1) for place in range(chance.randrange(5))]
            return f"[{blanks()}" + f"{blanks()},{blanks()}".join(items) + f"{blanks()}]"
        if kind == 1:
            keys = [f"k{number}" for number in range(chance.randrange(5))]
            members = [f'"{key}" : {blanks()}{written((*path, key), depth - 1)}' for key in keys]
            return f"{{{blanks()}" + f"{blanks()},{blanks()}".join(members) + f"{blanks()}}}"
        return chance.choice(['"a"', '"[,\\"]\\\\"', "-1.5e3", "true", "null", '""', '"]"', "0"])

    text = '{"samples": ' + written(("samples",), 4) + "}"
    json.loads(text)
    lines = JsonLines(text)
    chance.shuffle(paths)
    for path in paths:
        assert lines.at(path) == of_yaml(text, path), path


def test_a_text_that_is_longer_than_a_chunk_is_counted_right() -> None:
    ids = [str(number) for number in range(3 * CHUNK)]
    lines = JsonLines(json.dumps({"samples": {"id": ids}}, indent=0))
    for place in (len(ids) - 1, 0, CHUNK, 1, 2 * CHUNK):
        assert lines.of(Named("id", ids[place], place)) == place + 4


@pytest.mark.parametrize(
    "content",
    [
        b'\xef\xbb\xbf{\r\n"samples":\r\n{"id":\r\n["a",\r\n7]}}',
        b'{\n\t"samples":\n\t{"id":\n\t["a",\n\t7\t]}}',
        b'\n{"samples": {"id": [\n"a",\n\n7]}}',
        '{"other": "\u2028\x85\\n",\n\n"samples": {"id": [\n"a",\n7]}}'.encode(),
        b'{"other": [[{"id": ["\\"]}"]}], [], {}],\n\n"samples": {"id": [\n"a",\n7]}}',
    ],
)
def test_tabs_line_ends_and_a_byte_order_mark_are_no_obstacle(content: bytes) -> None:
    with pytest.raises(SubmissionError) as caught:
        parse(content, "a.json")
    (line,) = [problem.line for problem in caught.value.problems if problem.where == "samples.id[1]"]
    assert line == 5


def test_without_a_text_there_are_no_lines_and_what_is_missing_is_where_it_would_be() -> None:
    assert JsonLines(None).at(("samples",)) is None
    lines = JsonLines('{\n"samples":\n{"id": []}}')
    assert lines.at(("samples", "id", 3)) == lines.at(("samples", "path", 0)) == 3
    assert lines.at(("ground",)) == 1


def test_what_is_nested_as_deep_as_can_just_be_read_has_problems_not_a_traceback() -> None:
    for depth in range(900, 1100, 7):
        text = '{"samples": {"id": ' + "[" * depth + "]" * depth + "}}"
        with pytest.raises(SubmissionError):
            parse(text.encode(), "a.json")


def _seconds(samples: dict[str, Any]) -> float:
    content = submission(samples=samples)
    start = time.process_time()
    with pytest.raises(SubmissionError):
        parse(content, "a.json")
    return time.process_time() - start


@pytest.mark.parametrize("element", ["7", "[]", "{}", '["a"]'])
def test_time_grows_with_the_length_alone_however_much_is_wrong(element: str) -> None:
    names: list[Any] = [f"train/{row}.png" for row in range(40_000)]
    assert _seconds({"id": [*names, 7]}) < 2  # 1 MB; a parser in Python took 4.8 s
    assert _seconds({"id": [json.loads(element)] * 40_000}) < 5
