"""What every request passes: a known host name, the token, the same origin for anything that changes something.

A page in a reader's browser can send requests to addresses of the reader's machine. Three things keep such a page out:
the name in the ``Host`` header must be one of ours (a foreign name that resolves to this machine is not), a request
that changes something must come from one of our own pages, and where a token is set it must be known.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Collection
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from isthmus.web.pages import words_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "isthmus-session"
# A form of ours is a few hundred bytes; a thousand chosen runs are 70 kB.
_LARGEST_BODY = 200_000
_READING = ("GET", "HEAD")
# No script, style, picture or connection but our own, no frames, no forms to elsewhere; nothing is inline.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # With "no-referrer" browsers would name no origin for our own forms, and they would look like foreign ones.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "private, no-cache",
}


class Guard:
    """Lets requests through that may be answered, and gives every answer its headers.

    Attributes:
        app: what answers.
        token: that a request must bring; ``None`` where anybody on this machine may read.
        hosts: names under which the site is reached.
        addresses: whether any numeric address is a known name too; a foreign page cannot have one as its name.
    """

    def __init__(
        self, app: ASGIApp, *, token: str | None = None, hosts: Collection[str] = (), addresses: bool = False
    ) -> None:
        self.app, self.token, self.addresses = app, token, addresses
        self.hosts = {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        sender = _headed(send)
        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, sender)
            return
        await self.app(scope, _bounded(receive), sender)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if not self._knows(headers.get("host", "")):
            return _plain(scope, "site.problem.name", 421)
        if int(headers.get("content-length") or 0) > _LARGEST_BODY:
            return _plain(scope, "site.problem.large", 413)
        bearer = headers.get("authorization", "").partition("Bearer ")[2]
        if scope["method"] not in _READING and not (self._is_token(bearer) or _from_here(headers)):
            return _plain(scope, "site.problem.foreign", 403)
        if self.token is None or scope["path"].startswith("/static/") or self._is_token(bearer):
            return None
        connection = HTTPConnection(scope)
        if hmac.compare_digest(connection.cookies.get(COOKIE, "").encode(), session(self.token).encode()):
            return None
        if self._is_token(connection.query_params.get("token", "")) and scope["method"] in _READING:
            return entered(scope, self.token)
        if scope["path"] == "/enter":
            return None
        # People get the form, programs the plain answer.
        if "text/html" in headers.get("accept", ""):
            return RedirectResponse("/enter", 303)
        return _plain(scope, "site.problem.token", 401)

    def _is_token(self, given: str) -> bool:
        """Compared in a time that does not tell how much of it is right."""
        return self.token is not None and hmac.compare_digest(given.encode(), self.token.encode())

    def _knows(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            return False
        if name in self.hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self.addresses


def _plain(scope: Scope, key: str, status: int) -> Response:
    """A line for programs and for people, in the language that the request prefers."""
    return PlainTextResponse(words_of(Request(scope))(key) + "\n", status)


def session(token: str) -> str:
    """What a browser keeps instead of the token itself."""
    return hmac.new(token.encode(), b"isthmus session", hashlib.sha256).hexdigest()


def entered(scope: Scope, token: str, *, to: str | None = None) -> Response:
    """Let a browser in, and lead it on to the address without the token in it."""
    # Slashes at the beginning would make it the address of another host.
    target = to or "/" + scope["path"].lstrip("/\\")
    rest = [(name, value) for name, value in parse_qsl(scope["query_string"].decode("latin-1")) if name != "token"]
    response = RedirectResponse(f"{target}?{urlencode(rest)}" if rest and to is None else target, 303)
    secure = scope.get("scheme") == "https"
    response.set_cookie(COOKIE, session(token), httponly=True, samesite="strict", secure=secure, path="/")
    return response


def _from_here(headers: Headers) -> bool:
    """Whether a page of this very site sent a request, as browsers say and pages cannot."""
    origin = headers.get("origin")
    if origin is not None:
        return urlsplit(origin).netloc.lower() == headers.get("host", "").lower() != ""
    return headers.get("sec-fetch-site") == "same-origin"


def _headed(send: Send) -> Send:
    async def sender(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sender


def _bounded(receive: Receive) -> Receive:
    """A body without a declared length ends where it is too long; what is cut off cannot be read as a form."""
    taken = 0

    async def receiver() -> Message:
        nonlocal taken
        message = await receive()
        if message["type"] == "http.request":
            taken += len(message.get("body", b""))
            if taken > _LARGEST_BODY:
                return {"type": "http.disconnect"}
        return message

    return receiver
