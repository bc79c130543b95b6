"""A chart as a file, without a browser."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isthmus.core.errors import SettingError
from isthmus.core.files import atomic


def write_picture(spec: Mapping[str, Any], path: str | Path) -> Path:
    """Write a chart as ``.svg``, ``.png`` or ``.pdf``, without a browser; text in black on white.

    Raises:
        SettingError: another suffix.
    """
    import vl_convert

    target = Path(path)
    text = json.dumps(spec).replace("currentColor", "black")
    if target.suffix == ".svg":
        content = vl_convert.vegalite_to_svg(text).encode()
    elif target.suffix == ".png":
        content = vl_convert.vegalite_to_png(
            text.replace('"background": "transparent"', '"background": "white"'), scale=2
        )
    elif target.suffix == ".pdf":
        content = vl_convert.vegalite_to_pdf(text)
    else:
        raise SettingError(f"a picture is written as .svg, .png or .pdf, got {target.name}")
    with atomic(target) as temporary:
        temporary.write_bytes(content)
    return target
