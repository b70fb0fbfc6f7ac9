"""Stage ``sample``: the working copy of the embedded images.

``data/fashion-mnist-10k`` lies in Git, which forgets nothing, and is a public data set. Requests are carried
out on a copy of it that Git ignores and DVC tracks. The stage makes that copy where there is none, and leaves
one that is there as it is: requests may have taken samples out of it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tasks.core.errors import ExpungeError
from tasks.core.files import only_writer
from tasks.core.params import Forget, Params, Split, load
from tasks.requests.high_water import read_checked
from tasks.requests.key_folder import open_keys
from tasks.requests.keys import KeyStore
from tasks.requests.settings import settings_of

EMBEDDED = Path("data/fashion-mnist-10k")
COPY = Path("data/sample")
PART = Path("data/.sample.part")
"""The copy until it is whole."""

PUBLIC = "PUBLIC"
"""File that says of the embedded images what they are; of a copy that may change it would not be true."""


def sample(params: Params, keys: KeyStore) -> bool:
    """Make the copy, whole or not at all, without what requests have erased.

    Parameters
    ----------
    params
        Parameters of all stages, which name the list of what was erased.
    keys
        Holds the key to that list; it is asked for only if the list names something.

    Returns
    -------
    bool
        False if there is a copy already.

    Raises
    ------
    ExpungeError
        If the embedded images are missing, or it cannot be told which of them were erased.
    """
    with only_writer(COPY):
        if COPY.exists() and not (COPY.is_dir() and not any(COPY.iterdir())):
            return False
        files = sorted(EMBEDDED.glob("*"))
        if not any(file.suffix == ".parquet" for file in files):
            raise ExpungeError(
                f"{EMBEDDED} holds no Parquet file; restore it: git checkout -- {EMBEDDED}, or, if you have "
                "images of your own, take stage sample out of dvc.yaml"
            )
        if PART.exists():  # of a process that was killed
            shutil.rmtree(PART)
        PART.mkdir(parents=True)
        for file in files:
            if file.name != PUBLIC:
                shutil.copyfile(file, PART / file.name)
        _take_out(params.split, keys)
        for file in PART.iterdir():
            _sync(file)
        _sync(PART)
        PART.replace(COPY)
        _sync(COPY.parent)
    return True


def _take_out(section: Split, keys: KeyStore) -> None:
    """Take out of the unfinished copy what requests have erased: a clone must not bring it back."""
    erased = read_checked(Path(section.erased) if section.erased is not None else None, keys)
    if not erased.lines:
        return
    from tasks.datasets.parquet import parquet, remove

    # pixels are compared as split sees them; of another source the list says nothing by pixels
    whole = (
        section if Path(section.path) == COPY else Split(source="parquet", path=str(COPY), forget=Forget())
    )
    images = parquet(PART, whole)
    kept = set(erased.kept(images.sample_ids, images.images, images.pictures, keys).tolist())
    remove(PART, [source for row, source in enumerate(images.sources) if row not in kept], whole)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    from tasks.stage import run_as_command

    def _sample() -> None:
        params = load()
        made = sample(params, open_keys(settings_of(params), os.environ, Path.cwd()))
        print(f"{COPY} is {'a new copy of ' + str(EMBEDDED) if made else 'there; it is left as it is'}")

    run_as_command("sample", __doc__ or "", _sample)
