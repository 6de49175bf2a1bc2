"""Pages of one file: templates with everything inlined, and a policy that lets nothing else in."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from geoseg import __version__


def render(template: str, script: str, data: Mapping[str, Any], **context: Any) -> bytes:
    """A page as UTF-8. template, script: names of assets. data: for the script, as JSON. context: for the template.

    Text in the context is escaped; only Markup is not. Scripts and styles are those of the package, by their digest.
    """
    style, code = _asset("report.css"), _asset(script)
    page = _environment().get_template(template)
    text = page.render(
        **context,
        version=__version__,
        style=Markup(style),  # noqa: S704
        script=Markup(code),  # noqa: S704
        data=json_for_script(data),
        policy=policy(style, code),
    )
    return text.encode(errors="replace")  # names of files may hold what is no text


def policy(style: str, script: str) -> str:
    """A Content Security Policy: this style, this script, pictures inside the page, nothing from anywhere."""
    return (
        f"default-src 'none'; img-src data:; style-src {_source(style)}; script-src {_source(script)}; "
        "base-uri 'none'; form-action 'none'"
    )


def json_for_script(value: Any) -> Markup:
    """JSON that can stand in a script element: what HTML could take for markup is escaped as JSON allows."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, sort_keys=True, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)  # noqa: S704


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def _asset(name: str) -> str:
    return (files("geoseg.report") / "assets" / name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("geoseg.report", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
