"""Check all of params.yaml, the options of models and methods included.

``python -m tasks.check`` is for people, and runs beside the first stages: a wrong option of a later
stage then shows before hours of training, not after.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tasks.core.checked import fingerprint, remember
from tasks.core.errors import ExpungeError
from tasks.core.params import Choice, Params, Split, Train, load
from tasks.core.plugins import Registry, stand_for
from tasks.requests.high_water import list_of
from tasks.requests.settings import settings_of

WITHOUT_FILES = ("cifar10", "digits")
"""Sources that need no files of yours; DVC looks for what ``split.path`` names all the same."""


def check(params: Params) -> None:
    """Validate the options of every file that is chosen, or that options are given for.

    Raises
    ------
    ExpungeError
        If an option is unknown or impossible, or a file does not register anything.
    """
    from tasks.datasets import SOURCES
    from tasks.methods import METHODS
    from tasks.models import MODELS

    SOURCES.get(params.split.source)
    _check_options(params.train, MODELS, "params.yaml: train")
    _check_options(params.unlearn, METHODS, "params.yaml: unlearn")


def _check_options(section: Choice, registry: Registry[Any], where: str) -> None:
    given = {name for name, options in (section.model_extra or {}).items() if options}
    for name in sorted(given | {section.chosen}):
        as_if_chosen = section.model_copy(update={section.key: name})
        as_if_chosen.options(registry.get(name).Options, where=where)


def _make_folder(section: Split) -> None:
    """Make the folder that DVC looks for, where the source fills it by itself or needs none."""
    path = Path(section.path)
    if section.source in WITHOUT_FILES and not path.exists():
        try:
            path.mkdir(parents=True)
        except OSError as error:
            raise ExpungeError(f"params.yaml: split.path: {path} cannot be made ({error.strerror})") from None


def _require_file(section: Train) -> None:
    """See that ``train.module.path`` is written down: DVC depends on it, whichever model is chosen."""
    given = (section.model_extra or {}).get("module") or {}
    if not given.get("path"):
        raise ExpungeError(
            "params.yaml: train.module.path is not named; DVC depends on it whichever model is chosen: "
            "docs/examples/my_model.py would do"
        )


def _make_stand_ins(params: Params, chain: Sequence[str]) -> None:
    """Write the files that stand for installed packages which are used; DVC depends on them."""
    methods = ("methods", params.unlearn.method), *(("methods", name) for name in chain)
    chosen = ("datasets", params.split.source), ("models", params.train.model), ("attacks", params.mia.attack)
    for room, name in (*chosen, *methods):
        file = stand_for(room, name)
        if file:
            print(f"{os.path.relpath(file)} says which package {name} is of; commit it")


def main() -> None:
    """Exit with 0 and a word, or with 2 and the line that says what is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tasks.check", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="names and values, not the options of a choice")
    arguments = parser.parse_args()
    try:
        params = load()  # first: it says in one line what is wrong with the file itself
        settings = settings_of(params)
        list_of(params.split)  # DVC depends on it, and would say that in its own words
        _make_folder(params.split)
        _require_file(params.train)
        _make_stand_ins(params, settings.chain)
        if not arguments.quick:
            before = fingerprint()
            check(load())
            with suppress(OSError):  # a full disk makes no parameter wrong
                remember(before)
    except ExpungeError as error:
        print(f"expunge check: {error}", file=sys.stderr)
        sys.exit(2)
    print("params.yaml is valid")


if __name__ == "__main__":
    main()
