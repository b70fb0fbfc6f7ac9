"""``dvc.lock`` after a kill: DVC writes it in place, so what ends DVC just then leaves half of it."""

from __future__ import annotations

from pathlib import Path

from tasks.core import git
from tasks.core.errors import RESTORE_LOCK, ExpungeError
from tasks.core.files import STATE, write_text, write_whole

LOCK = "dvc.lock"
CONFLICT = b"<<<<<<<"


def mend(root: Path) -> bool:
    """Put the last commit's ``dvc.lock`` in the place of a damaged one; return whether that was needed.

    What stages have made since then DVC finds in its run cache, or makes again. The damaged file is kept in
    ``.expunge``. A file that ends too early, and is sound as far as it goes, is DVC's to complete.

    Raises
    ------
    ExpungeError
        If it has the marks of a merge, which is somebody's work, or no commit has it.
    """
    path = root / LOCK
    if not path.exists() or is_sound(content := path.read_bytes()):
        return False
    if CONFLICT in content:
        raise ExpungeError(f"a merge in {LOCK} is not finished; finish it, or {RESTORE_LOCK}")
    committed = git.ask("show", f"HEAD:./{LOCK}", root=root)
    if not committed:
        raise ExpungeError(f"{LOCK} is damaged, and no commit has it; delete it and run: dvc repro")
    with write_whole(root / STATE / f"{LOCK}.damaged") as file:
        file.write(content)
    write_text(path, committed + "\n")
    return True


def is_sound(content: bytes) -> bool:
    """Whether DVC takes it."""
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError
    from voluptuous import Invalid

    try:
        COMPILED_LOCKFILE_SCHEMA(YAML(typ="safe").load(content) or {})
    except (YAMLError, Invalid, ValueError):
        return False
    return bool(content.strip())
