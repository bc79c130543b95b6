"""How the documentation is built: ``sphinx-build -W -n docs docs/_build``."""

from __future__ import annotations

import isthmus

project = "isthmus"
author = "The isthmus developers"
copyright = "The isthmus developers, Apache-2.0"
version = release = isthmus.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"isthmus {release}"
html_static_path: list[str] = []
html_theme_options = {"source_repository": "", "navigation_with_keys": True}

myst_enable_extensions = ["dollarmath", "deflist", "colon_fence"]
myst_heading_anchors = 3

# Shapes such as Float[Tensor, "solutions solutions"] read best as they are written.
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Cost", "notes_style"), ("Reference", "notes_style")]

# Types of other libraries, of private names and of shapes have no page here; every other reference must lead somewhere.
nitpicky = True
nitpick_ignore_regex = [("py:(class|obj|data|exc|meth|attr|func)", r"(?!isthmus\.)[\w.:|\[\] ]+.*")]
