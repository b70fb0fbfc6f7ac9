from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import RESTORE, ExpungeError
from tasks.core.files import (
    clear_parts,
    content_digest,
    digest,
    only_writer,
    read_json,
    write_json,
    write_text,
    write_whole,
)

ROOT = Path(__file__).parents[2]


def python(code: str, *arguments: str | Path, **options: Any) -> subprocess.Popen[str]:
    """Another process that can import ``tasks``."""
    return subprocess.Popen(
        (sys.executable, "-c", code, *map(str, arguments)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        **options,
    )


class TestWriteWhole:
    def test_the_file_appears_when_the_body_ends_and_not_before(self, tmp_path: Path) -> None:
        path = tmp_path / "new" / "folder" / "file.bin"
        with write_whole(path) as file:
            file.write(b"content")
            assert not path.exists()
        assert path.read_bytes() == b"content"
        assert list(path.parent.iterdir()) == [path]

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
    def test_a_body_that_raises_leaves_the_old_file_and_nothing_else(
        self, tmp_path: Path, error: type[BaseException]
    ) -> None:
        path = tmp_path / "file"
        path.write_bytes(b"old")
        with pytest.raises(error):
            write_and_raise(path, error)
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]

    def test_a_body_that_raises_leaves_nothing_where_nothing_was(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="why"), write_whole(tmp_path / "file"):
            raise ValueError("why")
        assert list(tmp_path.iterdir()) == []

    def test_a_full_disk_is_an_error_and_leaves_the_old_file(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_bytes(b"old")
        with python(LIMITED, path) as child:
            output, errors = child.communicate()
        assert (output, errors) == ("File too large\n", "")
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]

    def test_others_may_read_the_file(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        write_text(path, "x")
        assert path.stat().st_mode & 0o777 == 0o644

    def test_a_private_file_and_the_folder_made_for_it_are_its_owners_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "keys" / "file"
        with write_whole(path, private=True) as file:
            file.write(b"secret")
        assert [each.stat().st_mode & 0o777 for each in (path, path.parent)] == [0o600, 0o700]

    def test_a_link_is_replaced_and_what_it_leads_to_is_not_written(self, tmp_path: Path) -> None:
        cached, path = tmp_path / "cached", tmp_path / "file"
        cached.write_text("old")
        path.symlink_to(cached)
        write_text(path, "new")
        assert cached.read_text() == "old"
        assert path.read_text() == "new"
        assert not path.is_symlink()

    def test_two_writers_of_one_file_do_not_mix(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        with write_whole(path) as first:
            first.write(b"first ")
            with write_whole(path) as second:
                second.write(b"second")
            assert path.read_bytes() == b"second"
            first.write(b"whole")
        assert path.read_bytes() == b"first whole"


def write_and_raise(path: Path, error: type[BaseException]) -> None:
    with write_whole(path) as file:
        file.write(b"x" * 100_000)
        raise error


LIMITED = """
import resource, sys
from pathlib import Path
from tasks.core.files import write_whole

resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    with write_whole(Path(sys.argv[1])) as file:
        file.write(b"x" * 10_000)
except OSError as error:
    print(error.strerror)
"""


class TestText:
    def test_text_is_utf8_without_translation_of_line_ends(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        write_text(path, "é\r\nb\n")
        assert path.read_bytes() == b"\xc3\xa9\r\nb\n"

    def test_json_comes_back_with_its_keys_in_order(self, tmp_path: Path) -> None:
        path = tmp_path / "file.json"
        value = {"z": [1, 2.5, None], "a": {"é": True}, "tiny": 5e-324}
        write_json(path, value)
        assert read_json(path) == value
        assert list(read_json(path)) == ["z", "a", "tiny"]
        assert path.read_text().endswith("}\n")

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    def test_a_number_that_json_does_not_have_is_not_written(self, tmp_path: Path, value: float) -> None:
        path = tmp_path / "file.json"
        write_json(path, {"a": 1})
        with pytest.raises(ValueError, match="not JSON compliant"):
            write_json(path, {"a": value})
        assert read_json(path) == {"a": 1}
        assert list(tmp_path.iterdir()) == [path]

    def test_missing_json_is_an_error_of_one_line(self, tmp_path: Path) -> None:
        path = tmp_path / "file.json"
        with pytest.raises(ExpungeError) as caught:
            read_json(path)
        assert str(caught.value) == f"{path} is missing; run the stage that writes it: dvc repro"

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"", "Expecting value: line 1 column 1 (char 0)"),
            (b"{\n\n'a': 1}", "Expecting property name"),
            (b'{"a": 1}}', "Extra data: line 1 column 9"),
            (b'{"a": "\xff"}', "'utf-8' codec can't decode byte 0xff in position 7"),
            (b'\xef\xbb\xbf{"a": 1}', "Unexpected UTF-8 BOM"),
            (b'{"a": NaN}', "NaN is not a number of JSON"),
            (b'{"a": [-Infinity]}', "-Infinity is not a number of JSON"),
            (b'{"a": 1, "a": 2}', "key 'a' stands twice"),
            (b'[{"b": {"a": 1, "a": 1}}]', "key 'a' stands twice"),
            (b"[" * 100_000, "maximum recursion depth exceeded"),
        ],
    )
    def test_what_is_no_json_is_an_error_of_one_line(
        self, tmp_path: Path, content: bytes, reason: str
    ) -> None:
        path = tmp_path / "file.json"
        path.write_bytes(content)
        with pytest.raises(ExpungeError) as caught:
            read_json(path)
        message = str(caught.value)
        assert "\n" not in message
        assert message.startswith(f"{path} is not valid JSON ({reason}")
        assert message.endswith(f"); {RESTORE}")


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_a_digest_is_that_of_the_bytes(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * (size // 256) + b"x" * (size % 256))
    assert digest(path) == hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    assert digest(path, "sha256") == hashlib.sha256(path.read_bytes()).hexdigest()


WRITER = """
import sys
from pathlib import Path
from tasks.core.files import write_whole

with write_whole(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    print("open", flush=True)
    sys.stdin.read()
"""


class TestClearParts:
    def test_what_a_writer_has_begun_goes_once_it_was_killed_and_not_before(self, tmp_path: Path) -> None:
        path = tmp_path / "data" / "a file.bin"
        with python(WRITER, path, stdin=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "open\n"
            (part,) = path.parent.iterdir()
            assert clear_parts(tmp_path) == 0
            assert part.read_bytes() == b"half"
            writer.kill()
        assert part.exists()
        assert clear_parts(tmp_path) == 1
        assert list(path.parent.iterdir()) == []
        assert clear_parts(tmp_path) == 0

    def test_it_stays_locked_until_it_is_in_its_place(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("chmod", "replace"):
            real = getattr(Path, name)

            def cleared(self: Path, *rest: Any, real: Any = real) -> Any:
                assert clear_parts(tmp_path) == 0
                return real(self, *rest)

            monkeypatch.setattr(Path, name, cleared)
        write_text(tmp_path / "file", "whole")
        assert [path.read_text() for path in tmp_path.iterdir()] == ["whole"]

    def test_a_part_that_is_cleared_before_its_writer_has_locked_it_is_begun_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made, cleared = tempfile.mkstemp, list[int]()

        def slow(**options: Any) -> Any:
            found = made(**options)
            if not cleared:
                cleared.append(clear_parts(tmp_path))
            return found

        monkeypatch.setattr(tempfile, "mkstemp", slow)
        write_text(tmp_path / "file", "whole")
        assert cleared == [1]
        assert [path.read_text() for path in tmp_path.iterdir()] == ["whole"]

    @pytest.mark.parametrize(
        "name",
        [
            "file.a1b2c3d4.part", ".file.part", ".file.a1b2c3d4.parts", ".file.A1B2C3D4.part",
            ".a1b2c3d4.part", "other/.git/.file.a1b2c3d4.part", "other/.file.a1b2c3d4.part",
            "venv/lib/.file.a1b2c3d4.part", ".dvc/tmp/.file.a1b2c3d4.part", "link/.file.a1b2c3d4.part",
        ],
    )  # fmt: skip
    def test_what_may_be_somebody_elses_stays(self, tmp_path: Path, name: str) -> None:
        root = tmp_path / "root"
        (root / "other/.git").mkdir(parents=True)
        (root / "venv").mkdir()
        (root / "venv/pyvenv.cfg").touch()
        (tmp_path / "elsewhere").mkdir()
        (root / "link").symlink_to(tmp_path / "elsewhere")
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        assert clear_parts(root) == 0
        assert path.exists()

    def test_where_there_is_no_folder_there_is_nothing(self, tmp_path: Path) -> None:
        assert clear_parts(tmp_path / "none") == 0


HOLDER = """
import sys
from pathlib import Path
from tasks.core.files import only_writer

with only_writer(Path("data/train")):
    print("held", flush=True)
    sys.stdin.read()
"""


class TestOnlyWriter:
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

    def test_a_second_process_is_refused_with_the_firsts_number_until_that_is_killed(self) -> None:
        with python(HOLDER, stdin=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(ExpungeError) as caught, only_writer(Path("data/train")):
                pass
            with only_writer(Path("data/retrain")):
                pass  # another folder is free
            holder.kill()
        assert holder.returncode == -signal.SIGKILL
        assert str(caught.value) == (
            f"data/train is being written by process {holder.pid}; "
            f"wait for it or end it (kill {holder.pid}), then run again"
        )
        with only_writer(Path("data/train")):
            pass

    def test_one_process_does_not_enter_twice_either(self) -> None:
        with (
            only_writer(Path("data/train")),
            pytest.raises(ExpungeError, match=f"by process {os.getpid()};"),
            only_writer(Path("data/train")),
        ):
            pass

    def test_an_error_frees_the_folder(self) -> None:
        with pytest.raises(ValueError, match="why"), only_writer(Path("data/train")):
            raise ValueError("why")
        with only_writer(Path("data/train")):
            pass

    def test_the_folder_may_be_deleted_and_made_again_meanwhile(self, tmp_path: Path) -> None:
        folder = Path("data/train")
        folder.mkdir(parents=True)
        with only_writer(folder):
            folder.rmdir()  # what DVC does to the outputs of a stage
            folder.mkdir()
            with pytest.raises(ExpungeError), only_writer(folder):
                pass
        assert list(folder.iterdir()) == []


class TestContentDigest:
    def test_a_file_has_the_md5_of_its_bytes(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"abc")
        assert content_digest(tmp_path / "a") == "900150983cd24fb0d6963f7d28e17f72"  # RFC 1321, A.5

    def test_a_folder_has_the_digest_of_its_listing(self, tmp_path: Path) -> None:
        for name in ("b/ä.txt", "b.txt", "a"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(b"abc")
        listing = ", ".join(
            f'{{"md5": "900150983cd24fb0d6963f7d28e17f72", "relpath": "{name}"}}'
            for name in ("a", "b.txt", "b/\\u00e4.txt")
        )
        assert content_digest(tmp_path) == hashlib.md5(f"[{listing}]".encode()).hexdigest() + ".dir"

    def test_what_python_compiles_does_not_count(self, tmp_path: Path) -> None:
        (tmp_path / "a.py").write_bytes(b"abc")
        before = content_digest(tmp_path)
        (tmp_path / "__pycache__").mkdir()
        (tmp_path / "__pycache__/a.pyc").write_bytes(b"compiled")
        assert content_digest(tmp_path) == before
