"""Stage ``split``: decode the images once and decide who is retain, forget, val and test."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.core.errors import ExpungeError
from tasks.core.files import write_json
from tasks.core.params import Params, Split
from tasks.datasets import SOURCES
from tasks.requests.high_water import read_checked
from tasks.requests.key_folder import open_keys
from tasks.requests.keys import KeyStore
from tasks.requests.settings import settings_of
from tasks.requests.subjects import write_subjects
from tasks.samples.check import check
from tasks.samples.copies import find_copies, write_copies
from tasks.samples.image_set import ImageSet
from tasks.samples.manifest import LoadedSplit, Manifest, Samples
from tasks.samples.mapped import Images, Mapped
from tasks.samples.people import on_both_sides
from tasks.samples.pictures import write_pictures
from tasks.samples.roles import assign_roles
from tasks.samples.table import SPLIT, TAKEN

BEFORE = "images.npy"
"""What earlier versions wrote, and DVC no longer knows of: nobody would take out of it who is erased."""

log = logging.getLogger(__name__)


def split(params: Params, keys: KeyStore | None = None) -> dict[str, float]:
    """Read the source and write ``data/split``, without what was erased.

    Parameters
    ----------
    params
        Of all stages.
    keys
        Holds the key to the list of erased samples, and its mark; by default the folder that EXPUNGE_KEYS
        or ``params`` names.

    Returns
    -------
    dict[str, float]
        The number of samples of each role and of classes, also written to ``metrics.json``.

    Raises
    ------
    ExpungeError
        If the source cannot be read whole, the forget set asked for is impossible, or it cannot be
        told which samples were erased: the list is damaged, old, or of another key. Nothing is written
        then.
    """
    section = params.split
    keys = keys or open_keys(settings_of(params), os.environ, Path.cwd())
    erased = read_checked(Path(section.erased) if section.erased is not None else None, keys)
    image_set = check(
        SOURCES.get(section.source)(Path(section.path), section), f"{section.source} {section.path}"
    )
    _refuse_pixels(image_set.images, section)
    kept = erased.kept(image_set.sample_ids, image_set.images, image_set.pictures, keys)
    is_listed, delivered = erased.naming(keys), frozenset(image_set.sample_ids)
    image_set = image_set.subset(kept)
    left_out = delivered.difference(image_set.sample_ids)  # also what came under another name
    with ThreadPoolExecutor(1) as beside:  # what numpy does there takes no lock
        copies = beside.submit(find_copies, image_set.images)
        parts, roles = assign_roles(image_set, section, lambda name: name in left_out or is_listed(name))
        columns = (image_set.sample_ids, image_set.sources, image_set.labels)
        manifest = Manifest(*columns, roles)
        made = LoadedSplit(image_set.images, Samples(*columns, parts), manifest, image_set.classes)
        made.write(shard=int(section.shard_mib * 2**20))
    (SPLIT / BEFORE).unlink(missing_ok=True)
    same, alike = copies.result()
    write_copies(image_set.sample_ids, same, alike, SPLIT)
    write_pictures(image_set.pictures, SPLIT)
    write_subjects(image_set.sample_ids, image_set.subjects, keys, SPLIT)
    write_json(SPLIT / "rows.json", [{"file": file, "rows": rows} for file, rows in image_set.row_counts])
    metrics: dict[str, float] = {f"{role}/count": len(manifest.indices(role)) for role in Manifest.groups}
    metrics["classes/count"] = len(image_set.classes)
    if not image_set.has_test:
        metrics[TAKEN] = metrics["test/count"]
    metrics |= _leakage(image_set, alike, parts == "test")
    write_json(SPLIT / "metrics.json", metrics)
    return metrics


def _refuse_pixels(images: Images, section: Split) -> None:
    if section.store == "jpeg" and (not isinstance(images, Mapped) or images.packed() is None):
        raise ExpungeError(
            f"params.yaml: split.store is jpeg, but source {section.source} has no files that are decoded; "
            "set it to pixels"
        )


def _leakage(image_set: ImageSet, alike: Sequence[int], is_test: NDArray[np.bool_]) -> dict[str, float]:
    """Count the test samples that show a picture, or a person, of which other parts have an image, too."""
    groups = np.array(alike)
    elsewhere = np.unique(groups[~is_test])
    found = {
        "leakage/near_copies": int(np.count_nonzero(is_test & (groups > 0) & np.isin(groups, elsewhere)))
    }
    if image_set.subjects is not None:
        found["leakage/subjects"] = on_both_sides(image_set.subjects, is_test, ~is_test)
    for what, count in found.items():
        if count:
            shared = "nearly the same picture" if what == "leakage/near_copies" else "a person"
            log.warning(
                "%d of %d test samples show %s that training or val has, too", count, is_test.sum(), shared
            )
    return dict(found)


def reads(params: Params) -> tuple[str, ...]:
    """Inputs: the source, what was erased, and the list of ids where that decides who is forgotten."""
    section = params.split
    listed = (section.forget.ids_file,) if section.forget.kind == "ids" else ()
    return (section.path, *((section.erased,) if section.erased else ()), *listed)


if __name__ == "__main__":
    from tasks.stage import Stage

    Stage("split", lambda params, _: split(params), reads, ("split",), expensive=True).main()
