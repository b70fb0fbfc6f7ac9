"""Stage ``split``: decode the images once and decide who is retain, forget, val and test."""

from __future__ import annotations

from pathlib import Path

from tasks.datasets import SOURCES
from tasks.datasets._check import check
from tasks.datasets._manifest import SPLIT, LoadedSplit, Manifest, Samples
from tasks.datasets._roles import assign_roles
from tasks.files import write_json
from tasks.params import Params


def split(params: Params) -> dict[str, float]:
    """Read the source and write ``data/split``.

    Returns
    -------
    dict[str, float]
        The number of samples of each role and of classes, also written to ``metrics.json``.

    Raises
    ------
    ExpungeError
        If the source cannot be read whole, or the forget set asked for is impossible. Nothing is
        written then.
    """
    section = params.split
    image_set = check(
        SOURCES.get(section.source)(Path(section.path), section.resize), f"{section.source} {section.path}"
    )
    parts, roles = assign_roles(image_set, section)
    columns = (image_set.sample_ids, image_set.sources, image_set.labels)
    manifest = Manifest(*columns, roles)
    LoadedSplit(image_set.images, Samples(*columns, parts), manifest, image_set.classes).write()
    metrics: dict[str, float] = {f"{role}/count": len(manifest.indices(role)) for role in Manifest.groups}
    metrics["classes/count"] = len(image_set.classes)
    write_json(SPLIT / "metrics.json", metrics)
    return metrics


def reads(params: Params) -> tuple[str, ...]:
    """Inputs: the source, and the list of ids where that decides who is forgotten."""
    forget = params.split.forget
    return (params.split.path, forget.ids_file) if forget.kind == "ids" else (params.split.path,)


if __name__ == "__main__":
    from tasks.stage import Stage

    Stage("split", lambda params, _: split(params), reads, ("split",), expensive=True).main()
