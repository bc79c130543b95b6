"""Pictures for the site's pages: training curves of runs, as SVG that follows the reader's light or dark."""

from __future__ import annotations

import functools
import json

from starlette.requests import Request
from starlette.responses import Response

from isthmus.core.errors import SettingError
from isthmus.report import figures
from isthmus.web.pages import problem, words_of
from isthmus.web.runs import chosen

_MOST = 12
# A picture in a page takes its ink from itself; these are the inks of tokens.css.
_INK = "<style>svg{color:#1d2733}@media(prefers-color-scheme:dark){svg{color:#e6eaee}}</style>"


def curves(request: Request) -> Response:
    """The training loss of some runs over their steps."""
    try:
        runs = chosen(request, most=50)[:_MOST]
    except SettingError as wrong:
        return problem(request, wrong, status=400)
    words = words_of(request)
    rows = [
        {"series": run.key[:8], "steps": entry["steps"], "loss": entry["loss"]}
        for run in runs
        for row in run.rows
        if row.measure == "training_curve" and isinstance(row.value, list)
        for entry in row.value
        if isinstance(entry, dict) and isinstance(entry.get("loss"), int | float) and "steps" in entry
    ]
    if not rows:
        return problem(request, "site.problem.curve", status=404)
    spec = figures.curves(rows, x="steps", y="loss", x_title=words("site.curve.x"), y_title=words("site.curve.y"))
    drawn = _drawn(json.dumps(spec))
    headers = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
    return Response(drawn, media_type="image/svg+xml", headers=headers)


@functools.lru_cache(maxsize=256)
def _drawn(spec: str) -> str:
    import vl_convert

    picture = vl_convert.vegalite_to_svg(spec)
    end = picture.index(">") + 1
    return picture[:end] + _INK + picture[end:]
