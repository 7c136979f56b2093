"""Values into HTML: Jinja with autoescape, every text cleaned, a page without any script."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from evergreen_pages.untrusted import plain

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-src 'self'; frame-ancestors 'self'; "
    "base-uri 'none'; form-action 'none'"
)
"""Of our own pages."""
REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
)
"""Of a run's report, which brings scripts: its origin is its own, without cookies, and it may ask nothing."""


def page(template: str, **values: Any) -> str:
    """Raises jinja2.UndefinedError for a value that the template lacks."""
    return environment().get_template(template).render(**values)


@cache
def environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _finalize(value: Any) -> Any:
    """The last gate before escaping: every text that a template prints."""
    return plain(value, 2000) if isinstance(value, str) and not hasattr(value, "__html__") else value
