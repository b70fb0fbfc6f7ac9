"""How far the list of what was erased has come, kept beside its key and outside any branch.

Git can bring back any older list: another branch, a reset, a merge that took one side. So ``erased.mark``
in the folder of keys is a copy of the longest list that was seen there, and a list that lacks one of its
lines is refused. It only grows, and it is written after the list: whatever ends a process between the
two leaves a list that is longer than the mark, which the next reader takes over. A reader looks at the
mark first, so it never meets a list that is older only because the other was being written.

The mark is there before the key is. So a key without a mark means that the mark was lost, also if the list
that is checked out is empty, and a person has to accept that list. One folder of keys is of one project.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from tasks.core.errors import BusyError, ExpungeError
from tasks.core.files import write_whole
from tasks.core.params import Split
from tasks.requests.keys import LIST_KEY, KeyStore, check_value
from tasks.requests.suppression import FORMAT, RESTORE_LIST, SAMPLE, TELLING, Erased, Line, load_key

MARK = "erased.mark"
ADOPT = "expunge suppression adopt"
"""Command by which a person accepts a list whose mark was lost."""

PATIENCE = 60.0
"""Seconds to wait for another process that writes list and mark."""

OTHER_PROJECT = "if this is another project, give it a folder of keys of its own: EXPUNGE_KEYS"
CONFLICT = ("<<<<<<<", "|||||||", "=======", ">>>>>>>")
"""What Git puts between the sides of a merge."""


def list_of(section: Split) -> Path:
    """Return where the list lies that keeps erased samples out.

    Raises
    ------
    ExpungeError
        If none is named.
    """
    if section.erased is None:
        raise ExpungeError(
            "params.yaml: split.erased is null; name the list that keeps erased samples out, "
            "data/requests/erased.txt"
        )
    return Path(section.erased)


def read_checked(path: Path | None, keys: KeyStore) -> Erased:
    """Read the list and see that it is the newest that this folder of keys has seen.

    A longer list, which another machine has written, moves the mark.

    Parameters
    ----------
    path
        As ``split.erased`` names it.
    keys
        Hold the list's key and its mark.

    Raises
    ------
    ExpungeError
        If the list is damaged, older than the mark, of another key, or not there though samples were
        erased; if the key is missing, or the mark.
    """
    mark = _mark(keys)
    if path is None:
        if mark is not None and mark.lines:
            raise ExpungeError(
                "params.yaml: split.erased is null though samples were erased; name the list that keeps "
                f"them out, data/requests/erased.txt; {OTHER_PROJECT}"
            )
        return Erased(())
    listed = Erased.read(path)
    _refuse(path, listed, mark, keys)
    if mark is not None and len(listed.lines) > len(mark.lines):
        with _only_writer(keys):
            _refuse(path, listed, mark := _mark(keys), keys)
            if mark is not None and len(listed.lines) > len(mark.lines):
                _move(listed, keys)
    return listed


def check(path: Path | None, keys: KeyStore) -> None:
    """See that the list is whole and the newest; parameters and errors as :func:`read_checked`."""
    read_checked(path, keys)


def extend(path: Path, keys: KeyStore, lines: Callable[[bytes], Iterable[Line]]) -> Erased:
    """Enter samples into the list, and move the mark; doing it again changes nothing.

    Parameters
    ----------
    path, keys
        As for :func:`read_checked`. The key is drawn when it is needed first.
    lines
        Called with the key, gives the lines to be added.

    Raises
    ------
    ExpungeError
        As :func:`read_checked`; nothing is written then.
    """
    with _only_writer(keys):
        mark, listed = _mark(keys), Erased.read(path)
        _refuse(path, listed, mark, keys)
        if mark is None:
            _write(Erased(()), keys)
        key = keys.load(LIST_KEY) if keys.exists(LIST_KEY) else keys.create(LIST_KEY)
        longer = _under(key, {*listed.lines, *lines(key)})
        longer.write(path)
        _write(longer, keys)
    return longer


def restore(path: Path, keys: KeyStore) -> Erased:
    """Write the list of the mark, with what the file has beside; also after a merge with conflicts.

    Raises
    ------
    ExpungeError
        If there is no mark, or the file has lines of another key or what is no line of a list.
    """
    with _only_writer(keys):
        mark = _mark(keys)
        if mark is None:
            raise ExpungeError(
                f"{keys.folder} has no {MARK} to restore {path} from; restore it from the backup of the "
                f"keys, or bring back a list that Git has and accept it: {ADOPT}"
            )
        lines, named_keys = _salvaged(path)
        if not mark.lines and not lines:
            raise ExpungeError(f"nothing was erased; to have {path} again: git checkout -- {path}")
        key = load_key(keys)
        for named in (mark.key, *named_keys):
            _refuse_other_key(path, named, key, keys)
        united = _under(key, {*mark.lines, *lines})
        united.write(path)
        _write(united, keys)
    return united


def adopt(path: Path, keys: KeyStore) -> Erased:
    """Accept the list as the newest, because its mark was lost or never there.

    It is for a person to see that it is: the history of Git shows whether another was longer.

    Raises
    ------
    ExpungeError
        If there is a mark and the list is older, or the list is damaged or of another key.
    """
    with _only_writer(keys):
        mark, listed = _mark(keys), Erased.read(path)
        if mark is not None:
            _refuse(path, listed, mark, keys)
        if listed.lines:
            _refuse_other_key(path, listed.key, load_key(keys), keys)
        _move(listed, keys)
    return listed


def _refuse(path: Path, listed: Erased, mark: Erased | None, keys: KeyStore) -> None:
    """Raise unless ``listed`` is as new as ``mark`` and both are of the key that is there."""
    if listed.lines or (mark is not None and mark.lines):
        key = load_key(keys)
        if mark is not None and mark.key is not None and mark.key != check_value(key):
            raise ExpungeError(
                f"{MARK} and {LIST_KEY}.key in {keys.folder} do not belong together; "
                "restore both from the same backup of the keys"
            )
        _refuse_other_key(path, listed.key, key, keys)
    if mark is None:
        if listed.lines or keys.exists(LIST_KEY):
            raise ExpungeError(
                f"{keys.folder} has no {MARK}, which tells whether {path} is the newest list; restore it "
                f"from the backup of the keys, or if the list is the newest accept it: {ADOPT}; "
                f"{OTHER_PROJECT}"
            )
        return
    lacking = set(mark.lines).difference(listed.lines)
    if lacking:
        raise ExpungeError(
            f"{path} lacks {len(lacking)} of the {len(mark.lines)} lines that were in it: it is of an older "
            f"commit, another branch or a wrong merge; git pull, or run: {RESTORE_LIST}; {OTHER_PROJECT}"
        )


def _refuse_other_key(path: Path, named: str | None, key: bytes, keys: KeyStore) -> None:
    if named not in (None, check_value(key)):
        raise ExpungeError(
            f"{path} was written under another {LIST_KEY}.key than the one in {keys.folder}; "
            "restore the right one, or set EXPUNGE_KEYS to the folder that has it"
        )


def _salvaged(path: Path) -> tuple[set[Line], set[str]]:
    """Lines of a file that may have been merged, and check values of the keys that it names."""
    text = path.read_text(encoding="ascii", errors="replace") if path.exists() else ""
    lines: set[Line] = set()
    named_keys: set[str] = set()
    for number, line in enumerate(text.splitlines(), start=1):
        if sample := SAMPLE.fullmatch(line):
            lines.add((sample[1], sample[2]))
        elif told := TELLING.fullmatch(line):
            named_keys |= {told[2]} if told[1] == "key" else set()
        elif line and not line.startswith(("#", *CONFLICT)):
            raise ExpungeError(
                f"{path}, line {number} is damaged; take a whole one first: git checkout -- {path}"
            )
    return lines, named_keys


def _under(key: bytes, lines: Iterable[Line]) -> Erased:
    return Erased((), check_value(key)).having(lines)


def _mark(keys: KeyStore) -> Erased | None:
    path = keys.folder / MARK
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return None
    advice = f"restore it from the backup of the keys, or delete it and accept the list: {ADOPT}"
    mark = Erased.parse(text, str(path), advice)
    if f"format {FORMAT}\n" not in text:  # it was never written without
        raise ExpungeError(f"{path} is damaged; {advice}")
    return mark


def _move(listed: Erased, keys: KeyStore) -> None:
    """Make the mark that of a list which says of its key nothing or the right thing."""
    _write(_under(keys.load(LIST_KEY), listed.lines) if keys.exists(LIST_KEY) else listed, keys)


def _write(listed: Erased, keys: KeyStore) -> None:
    with write_whole(keys.folder / MARK, private=True) as file:
        file.write(listed.text.encode())


@contextmanager
def _only_writer(keys: KeyStore) -> Iterator[None]:
    """Hold the lock of this folder's list and mark; every checkout that has these keys waits for it."""
    keys.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = keys.folder / f"{MARK}.lock"
    try:
        with FileLock(path, timeout=PATIENCE, mode=0o600):
            yield
    except Timeout:
        raise BusyError(f"{path} is held by another process; wait for it to end, then run again") from None
