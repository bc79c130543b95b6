"""How the documentation is built: ``sphinx-build -W -n docs docs/_build``."""

from __future__ import annotations

import importlib
import re
from typing import Any

import isthmus
from isthmus.cli.main import COMMANDS

project = "isthmus"
author = "The isthmus developers"
copyright = "The isthmus developers, Apache-2.0"
version = release = isthmus.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
html_math_renderer = "mathml"  # drawn by the browser itself: a page loads nothing, with or without a network
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"isthmus {release}"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_theme_options = {"source_repository": "", "navigation_with_keys": True}

myst_enable_extensions = ["dollarmath", "substitution"]
myst_heading_anchors = 3
myst_substitutions = {
    "commands": "\n".join(
        [
            "| command | |",
            "| --- | --- |",
            *(f"| `isthmus {name}` | {line} |" for name, (_, line) in COMMANDS.items()),
        ]
    )
}

# Shapes such as Float[Tensor, "solutions solutions"] read best as they are written.
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = (
    True  # else a field is described twice, as an attribute and as a member
)
napoleon_custom_sections = [("Cost", "notes_style"), ("Reference", "notes_style")]

# Types of other libraries and shapes such as "solutions solutions" have no page here.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!isthmus\.).*")]


def lead(app: Any, environment: Any, node: Any, content: Any) -> Any:
    """A reference to ``isthmus.package.module.Name`` leads to where the package shows the name.

    What exists but is not public (type variables, parts of results) stays plain text; what does not exist is a warning.
    """
    target = str(node.get("reftarget", ""))
    if not target.startswith("isthmus."):
        return None
    parts = target.split(".")
    domain = environment.get_domain("py")
    for place in (".".join([*parts[:2], parts[-1]]), f"isthmus.{parts[-1]}"):
        if place in domain.objects:
            entry = domain.objects[place]
            from sphinx.util.nodes import make_refnode

            return make_refnode(
                app.builder,
                node["refdoc"],
                entry.docname,
                entry.node_id,
                content,
                place,
            )
    return content if exists(target) else None


def exists(dotted: str) -> bool:
    """Whether a module, or something in a module or class, has this name."""
    for cut in range(len(dotted.split(".")), 0, -1):
        module, rest = dotted.split(".")[:cut], dotted.split(".")[cut:]
        try:
            found: Any = importlib.import_module(".".join(module))
        except ImportError:
            continue
        for name in rest:
            if not hasattr(found, name) and name not in getattr(
                found, "__annotations__", {}
            ):
                return False
            found = getattr(found, name, None)
        return True
    return False


def escaped(*about: Any) -> None:
    """Bars are absolute values here, and underscores belong to names; to Sphinx they would be markup."""
    lines: list[str] = about[-1]
    for place, line in enumerate(lines):
        parts = (
            re.sub(r"_(?!\w)", r"\_", line) if line.startswith(":vartype") else line
        ).split("``")
        lines[place] = "``".join(
            part if odd % 2 else part.replace("|", r"\|")
            for odd, part in enumerate(parts)
        )


def shortened(
    app: Any, kind: str, name: str, value: Any, *_: Any
) -> tuple[str, str] | None:
    """The fields of a file's schema stand in its docstring; their validators are no signature to read."""
    return (
        ("", "")
        if kind == "class"
        and (hasattr(value, "model_fields") or hasattr(value, "__pydantic_fields__"))
        else None
    )


def drawn(displayed: str) -> Any:
    """A visitor that writes a formula as MathML, in a line or in a block of its own."""

    def visit(self: Any, node: Any) -> None:
        from docutils import nodes
        from latex2mathml.converter import convert

        formula = convert(node.astext().strip(), display=displayed)
        self.body.append(
            f'<div class="formula">{formula}</div>' if displayed == "block" else formula
        )
        raise nodes.SkipNode

    return visit


def bases(app: Any, name: str, found: Any, options: Any, listed: list[Any]) -> None:
    """What a reader can use of a class's bases: neither ``object`` nor what is private."""
    listed[:] = [
        base
        for base in listed
        if base is not object and not getattr(base, "__name__", "").startswith("_")
    ]


def skipped(app: Any, kind: str, name: str, *_: Any) -> bool | None:
    """Settings of the library that reads files of ours say nothing about them."""
    return True if name == "model_config" else None


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.add_html_math_renderer(
        "mathml", (drawn("inline"), None), (drawn("block"), None)
    )
    app.connect("autodoc-process-bases", bases)
    app.connect("autodoc-skip-member", skipped)
    app.connect("missing-reference", lead)
    app.connect("autodoc-process-docstring", escaped)
    app.connect("autodoc-process-signature", shortened)
