"""Logits as stages leave them for the attacks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.core.errors import RESTORE, ExpungeError
from tasks.metrics.scores import check_logits


def read_logits(path: Path, labels: NDArray[np.int64]) -> NDArray[np.floating]:
    """Read ``float [N, K]``, a row for each of N samples with these labels.

    Raises
    ------
    ExpungeError
        If the file is missing or damaged, or does not fit the labels.
    """
    try:
        logits: NDArray[np.floating] = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise ExpungeError(f"{path} is missing; run the stage that writes it: dvc repro") from None
    except (OSError, ValueError, EOFError) as error:
        raise ExpungeError(f"{path} is damaged ({error}); {RESTORE}") from None
    check_logits(logits, labels, str(path))
    return logits
