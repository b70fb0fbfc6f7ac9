"""Stage ``split``: decode the images once and decide who is retain, forget, val and test."""

from __future__ import annotations

import os
from pathlib import Path

from tasks.core.files import write_json
from tasks.core.params import Params
from tasks.datasets import SOURCES
from tasks.requests.keys import KeyStore
from tasks.requests.settings import settings_of
from tasks.requests.suppression import Erased
from tasks.samples.check import check
from tasks.samples.manifest import LoadedSplit, Manifest, Samples
from tasks.samples.roles import assign_roles
from tasks.samples.table import SPLIT


def split(params: Params, keys: KeyStore | None = None) -> dict[str, float]:
    """Read the source and write ``data/split``, without what was erased.

    Parameters
    ----------
    params
        Of all stages.
    keys
        Holds the key to the list of erased samples; by default the folder that ``params`` names.

    Returns
    -------
    dict[str, float]
        The number of samples of each role and of classes, also written to ``metrics.json``.

    Raises
    ------
    ExpungeError
        If the source cannot be read whole, the forget set asked for is impossible, or it cannot be
        told which samples were erased. Nothing is written then.
    """
    section = params.split
    image_set = check(
        SOURCES.get(section.source)(Path(section.path), section.resize), f"{section.source} {section.path}"
    )
    if section.erased is not None:
        keys = keys or KeyStore(Path(settings_of(params).keys), Path.cwd())
        erased = Erased.read(Path(section.erased))
        image_set = image_set.subset(erased.kept(image_set.sample_ids, image_set.images, keys))
    parts, roles = assign_roles(image_set, section)
    columns = (image_set.sample_ids, image_set.sources, image_set.labels)
    manifest = Manifest(*columns, roles)
    write_json(SPLIT / "rows.json", [{"file": file, "rows": rows} for file, rows in image_set.row_counts])
    LoadedSplit(image_set.images, Samples(*columns, parts), manifest, image_set.classes).write()
    metrics: dict[str, float] = {f"{role}/count": len(manifest.indices(role)) for role in Manifest.groups}
    metrics["classes/count"] = len(image_set.classes)
    write_json(SPLIT / "metrics.json", metrics)
    return metrics


def reads(params: Params) -> tuple[str, ...]:
    """Inputs: the source, what was erased, and the list of ids where that decides who is forgotten."""
    section = params.split
    listed = (section.forget.ids_file,) if section.forget.kind == "ids" else ()
    return (section.path, *((section.erased,) if section.erased else ()), *listed)


if __name__ == "__main__":
    from tasks.stage import Stage

    def _split(params: Params, _: object) -> dict[str, float]:
        return split(params, KeyStore.of(settings_of(params), os.environ, Path.cwd()))

    Stage("split", _split, reads, ("split",), expensive=True).main()
