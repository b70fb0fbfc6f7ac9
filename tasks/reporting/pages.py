"""Pages of HTML that need nothing else: no script, no other file, no network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def render(
    template: str,
    content: Mapping[str, Any],
    *,
    filters: Mapping[str, Callable[..., Any]] | None = None,
    finalize: Callable[[Any], Any] | None = None,
) -> str:
    """Fill in one of ``tasks/reporting/templates/``; whatever the content holds is text.

    Parameters
    ----------
    template
        Its file's name.
    content
        Values by name; a name that is missing is an error.
    filters, finalize
        As in Jinja's ``Environment``.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= filters or {}
    page = templates.get_template(template).render(content)
    return page.encode("utf-8", "replace").decode()  # a lone surrogate of JSON is no text
