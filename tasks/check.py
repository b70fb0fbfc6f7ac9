"""Check all of params.yaml, the options of the chosen model and method included.

``python -m tasks.check`` is for people, and runs beside the first stages: a wrong option of a later
stage then shows before hours of training, not after.
"""

from __future__ import annotations

import argparse
import sys

from tasks.errors import ExpungeError
from tasks.params import Params, load


def check(params: Params) -> None:
    """Validate the options of every chosen file.

    Raises
    ------
    ExpungeError
        If an option is unknown or impossible, or a chosen file does not register anything.
    """
    from tasks.datasets import SOURCES
    from tasks.methods import METHODS
    from tasks.models import MODELS

    SOURCES.get(params.split.source)
    params.train.options(MODELS.get(params.train.model).Options, where="params.yaml: train")
    params.unlearn.options(METHODS.get(params.unlearn.method).Options, where="params.yaml: unlearn")


def main() -> None:
    """Exit with 0 and a word, or with 2 and the line that says what is wrong."""
    argparse.ArgumentParser(prog="python -m tasks.check", description=__doc__).parse_args()
    try:
        check(load())
    except ExpungeError as error:
        print(f"expunge check: {error}", file=sys.stderr)
        sys.exit(2)
    print("params.yaml is valid")


if __name__ == "__main__":
    main()
