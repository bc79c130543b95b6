"""From values to HTML: templates that escape everything, in the reader's language."""

from __future__ import annotations

import datetime
import functools
from typing import Any
from urllib.parse import parse_qs, urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from isthmus.core.errors import SettingError
from isthmus.report.page import number
from isthmus.report.words import LANGUAGES, Words, words_for

_LANGUAGE_COOKIE = "isthmus-language"


def language_of(request: Request) -> str:
    """The language that a reader asked for, kept, or prefers."""
    for wanted in (request.query_params.get("lang"), request.cookies.get(_LANGUAGE_COOKIE)):
        if wanted in LANGUAGES:
            return wanted
    for part in request.headers.get("accept-language", "").split(","):
        if (short := part.split(";")[0].strip().lower()[:2]) in LANGUAGES:
            return short
    return LANGUAGES[0]


def words_of(request: Request) -> Words:
    """The words of a reader's language."""
    return words_for(language_of(request))


def page(request: Request, template: str, *, status: int = 200, **values: Any) -> Response:
    """A page of the site."""
    language = language_of(request)
    words = words_for(language)
    html = _environment().get_template(f"{template}.html.j2").render(
        words=words,
        language=language,
        languages=LANGUAGES,
        here=request.url.path,
        link=functools.partial(_link, request),
        site=request.app.state,
        number=number,
        when=_when,
        version=request.app.state.library.version,
        **values,
    )  # fmt: skip
    response = HTMLResponse(html, status)
    if request.query_params.get("lang") == language:
        response.set_cookie(_LANGUAGE_COOKIE, language, samesite="strict", httponly=True, max_age=31_536_000)
    return response


class SiteError(SettingError):
    """What is wrong with a request, by the key of its sentence, so that a page says it in the reader's language."""

    def __init__(self, key: str, **values: object) -> None:
        super().__init__(words_for(LANGUAGES[0])(key, **values))
        self.key, self.values = key, values


def problem(request: Request, what: str | Exception, *, status: int) -> Response:
    """A page that says what is wrong, in one line.

    Args:
        request: that was refused.
        what: the key of a sentence, or an error; those of the library speak English, under a sentence that does not.
        status: of the answer.
    """
    words = words_of(request)
    of = ""  # what the library complains of, in the reader's language; its own line follows as it was written
    if isinstance(what, SiteError):
        line = words(what.key, **what.values)
    elif isinstance(what, Exception):
        key = f"site.problem.of.{type(what).__name__}"
        line, of = str(what), words(key if key in words else "site.problem.of.other")
    else:
        line = words(what)
    return page(request, "problem", status=status, line=line, of=of, code=status)


async def form_of(request: Request) -> dict[str, list[str]]:
    """What a form sent, by name; the guard has seen to it that it is short."""
    body = (await request.body()).decode("utf-8", "replace")
    try:
        return parse_qs(body, max_num_fields=200)
    except ValueError:
        return {}


def integer(request: Request, name: str, *, default: int, low: int, high: int) -> int:
    """A whole number from the address, within its bounds.

    Raises:
        SiteError: it is no such number.
    """
    given = request.query_params.get(name, "")
    if not given:
        return default
    if not (given.isascii() and given.isdigit() and len(given) < 10 and low <= int(given) <= high):
        raise SiteError("site.problem.number", name=name, low=low, high=high, given=repr(given[:20]))
    return int(given)


def _link(request: Request, path: str | None = None, **changes: Any) -> str:
    """An address of this site; without a path that of the present page, with some parameters changed."""
    kept = [] if path is not None else [(n, v) for n, v in request.query_params.multi_items() if n not in changes]
    pairs = [(name, value) for name, value in changes.items() if value is not None]
    query = urlencode([*((n, v) for n, v in kept if n != "token"), *pairs], doseq=True)
    return (path or request.url.path) + (f"?{query}" if query else "")


def _when(moment: str | float) -> str:
    """A moment as people write it, in the time of this machine."""
    try:
        made = (
            datetime.datetime.fromtimestamp(moment)
            if isinstance(moment, int | float)
            else datetime.datetime.fromisoformat(moment).astimezone()
        )
    except (ValueError, OverflowError, OSError):
        return "–"
    return made.strftime("%Y-%m-%d %H:%M")


@functools.cache
def _environment() -> Any:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.PackageLoader("isthmus.web", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
