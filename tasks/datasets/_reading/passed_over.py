"""Files and folders beside images that are nobody's sample: what systems leave, and side files of sets."""

from __future__ import annotations

import re

LITTER = frozenset(
    {
        # Windows
        "thumbs.db", "thumbs.db:encryptable", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini",
        "$recycle.bin",
        "recycler", "system volume information", "picasa.ini",
        # macOS, Linux, Android
        "__macosx", "icon\r", "network trash folder", "temporary items", "lost+found", "lost.dir",
        # network storage
        "@eadir", "@tmp", "@recycle", "@recently-snapshot", "@sharebin", "#recycle", "#snapshot",
    }
)  # fmt: skip
"""What systems leave behind, in lower case."""

SIDE_FILES = re.compile(
    r".*_(boxes|annotations)\.txt|wnids\.txt|words\.txt|metadata\.(csv|jsonl|parquet)"
    r"|(readme|licen[sc]e|copying|citation|checksums|md5sums?|sha256sums?)(\.[a-z0-9]+)?"
    r"|.*\.(xmp|aae|thm|pp3|dop|lnk|url|md5|sha256)|.*\.(jpe?g|png|heic|tiff?|webp)\.json|.*:zone\.identifier"
)
"""Files of well-known data sets and of programs for photos that stand beside images, in lower case."""


def kind_of(name: str) -> str | None:
    """Say why a file or folder is passed over, for a count in the log; None if it is not."""
    if name.startswith("."):
        return "hidden"
    lower = name.casefold()
    if lower in LITTER:
        return name.strip()
    return "side files" if SIDE_FILES.fullmatch(lower) else None
