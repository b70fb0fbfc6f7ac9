"""A name is found however a text spells it, and only the whole name."""

from __future__ import annotations

import html
import json
import unicodedata
from urllib.parse import quote

import pytest

from tasks.erasure.formats.text import BLOCK
from tasks.erasure.search import Found, Sought, find
from tests.erasure.formats.samples import KEPT, NAME, ODD

ONE = Found(names=1)
NFD = unicodedata.normalize("NFD", ODD)
PLAIN = ODD.replace('"', "")


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (NAME.encode("utf-16-le"), NAME),
        (NAME.encode("utf-16-be"), NAME),
        (f"id\r\n{ODD}\r\n".encode("utf-16"), ODD),
        (b"\xfe\xff" + f"id\n{ODD}\n".encode("utf-16-be"), ODD),
        (f"x\n{ODD}\n".encode("utf-32"), ODD),
        (b"\1\2\3\0\xff" + NAME.encode("utf-16-le") + b"\xfe\1\2\0\0", NAME),
        (b"\1\0\xff\x12" + NAME.encode() + b"\0\0\x80", NAME),
        (ODD.encode("cp1252"), ODD),
        (NAME.replace("/", "\\").encode(), NAME),
        (f"copied {NAME} to x".replace("/", "\\").encode(), NAME),
        (json.dumps({"path": NAME.replace("/", "\\")}).encode(), NAME),
        (f"GET /image?id={quote(NAME, safe='')}&size=3".encode(), NAME),
        (f"id={quote(ODD, safe='')}".encode(), ODD),
        (f"id={quote(PLAIN, safe='').replace('%20', '+')}".encode(), PLAIN),
        (f"<td>{html.escape(ODD)}</td>".encode(), ODD),
        (b"<td>train/Gr&ouml;&#223;e, 1/my &quot;cat&#x22;.png</td>", ODD),
        (json.dumps([ODD]).encode(), ODD),
        (json.dumps(json.dumps({"a": [ODD]})).encode(), ODD),
        (json.dumps([NAME]).replace("/", "\\/").encode(), NAME),
        (b'"train/Gr\\303\\266\\303\\237e, 1/my \\"cat\\".png"\n', ODD),
        (f'a,b\n1,"{ODD.replace(chr(34), chr(34) * 2)}"\n'.encode(), ODD),
        (NFD.encode(), ODD),
        (json.dumps(NFD).encode(), ODD),
        (ODD.encode(), NFD),
        (f"  -   {NAME}   # mine\n".encode(), NAME),
        (f"./{NAME}\n".encode(), NAME),
        (b"x" * (BLOCK - 9) + b"," + NAME.encode() + b"," + b"y" * BLOCK, NAME),
    ],
)  # fmt: skip
def test_a_name_is_found_however_it_is_spelled(content: bytes, name: str) -> None:
    assert find(content, Sought.of_samples([name])) == ONE
    for other in (KEPT, f"{name}x", name[1:], f"x{name}", name.replace("1", "2")):
        assert not find(content, Sought.of_samples([other])).names


def test_names_are_found_whatever_is_known_of_them(search: Sought) -> None:
    assert find(f"{NAME},{KEPT}\n".encode(), search) == ONE
    assert find(json.dumps([ODD, KEPT]).encode(), search) == ONE
    assert find(json.dumps([ODD, NAME]).encode("utf-16"), search) == Found(names=2)
    assert not find(f"{NAME}.bak,x{NAME},{NAME}/x,{KEPT}".encode(), search)


def test_an_end_of_a_longer_path_is_weak_evidence(search: Sought) -> None:
    found = find(f"/mnt/other/{NAME}\n".encode(), search)
    assert found == Found(weak=1)
    assert found
    assert found.by_end
    assert "paths that end like" in found.why
    both = find(f"/mnt/other/{NAME}\n{NAME}\n".encode(), search)
    assert both == ONE
    assert not both.by_end


def test_below_the_folder_of_the_source_the_rest_of_a_path_is_the_name() -> None:
    sought = Sought.of_samples([NAME], roots=["/home/x/data/pets", "data/pets/"])
    for path in (f"/home/x/data/pets/{NAME}", f"data/pets/{NAME}"):
        assert find(f"lost {path}\n".encode(), sought) == ONE
    assert find(f"lost /home/x/data/more/pets/{NAME}\n".encode(), sought) == Found(weak=1)


def test_a_letter_before_a_name_in_a_binary_file_may_be_its_length() -> None:
    content = b"\1\0\xff\0\x11A" + NAME.encode() + b"\0\0\x80"
    assert find(content, Sought.of_samples([NAME])) == Found(weak=1)
    assert not find(content, Sought.of_samples([NAME[1:]])).names


def test_a_number_is_weak_evidence() -> None:
    table = b"epoch,loss\n17,0.2\n18,0.1\n"
    assert find(table, Sought.of_samples(["17"])).by_end
    assert not find(table, Sought.of_samples(["7"]))


def test_text_in_utf_16_is_searched_across_blocks() -> None:
    filler = "nothing to see\n" * (BLOCK // 20)
    for name in (NAME, ODD):
        text = f"{filler}{name}\n{filler}".encode("utf-16")
        assert find(text, Sought.of_samples([name])) == ONE
        assert not find(text, Sought.of_samples([KEPT]))
