"""``isthmus serve``: a store in a browser, read-only and on this machine unless told otherwise."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import sys
from typing import Annotated

import typer

from isthmus.cli import console, options

_LOCAL = ("127.0.0.1", "localhost", "::1")
_SHORTEST_TOKEN = 16


def serve(
    store: Annotated[str, typer.Argument(help="Folder of the store.")] = "isthmus-store",
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but this machine's own needs the token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 for any that is free.")] = 8642,
    allow_run: Annotated[
        bool, typer.Option("--allow-run", help="Let readers with the token start checks and reports here.")
    ] = False,
    token: Annotated[
        str | None,
        typer.Option(envvar="ISTHMUS_TOKEN", help="The token, 16 characters or more; by default one is made."),
    ] = None,
    name: Annotated[
        list[str] | None, typer.Option(help="A further name under which the site is reached; repeatable.")
    ] = None,
    certificate: Annotated[str | None, typer.Option(help="Certificate for HTTPS (.pem).")] = None,
    key: Annotated[str | None, typer.Option(help="Key of the certificate (.pem).")] = None,
    data_dir: options.DataDir = None,
    json: Annotated[bool, typer.Option("--json", help="Print the address as JSON.")] = False,
) -> None:
    """Show a store's runs, studies and results in a browser until interrupted."""
    from isthmus.core.errors import IsthmusError, SettingError

    local = host in _LOCAL
    if token is not None and len(token) < _SHORTEST_TOKEN:
        raise SettingError(f"token must have at least {_SHORTEST_TOKEN} characters, got {len(token)}")
    if bool(certificate) != bool(key):
        raise SettingError("HTTPS needs both --certificate and --key, got one of them")
    try:
        from isthmus.web.app import LOOPBACK, address_of, application, server_of
    except ImportError as missing:
        raise IsthmusError(f"serve needs {missing.name}, which is not installed; pip install 'isthmus[web]'") from None
    from isthmus.studies import Store

    # Whoever may start work here acts in the name of the user, and others may have accounts on this machine.
    secret = token or (None if local and not allow_run else secrets.token_urlsafe(24))
    opened = Store.open(store)
    listening = _listening(host, port)
    app = application(
        opened,
        token=secret,
        hosts=(*LOOPBACK, *(() if local else (host, socket.gethostname(), socket.getfqdn())), *(name or ())),
        addresses=not local,
        allow_run=allow_run,
        data_folder=data_dir,
    )
    address = address_of(host, listening.getsockname()[1], token=secret, secure=bool(certificate))
    if json:
        console.emit_json({"address": address, "process": os.getpid()})
    else:
        console.say(f"{store} is shown at {address} until you interrupt this (ctrl-C)")
    sys.stdout.flush()  # who started us through a pipe waits for this line
    if not local and not certificate:
        console.note("the token travels in the clear; use --certificate and --key, or an SSH tunnel to 127.0.0.1")
    # An interruption is how this ends: nothing went wrong.
    with contextlib.suppress(KeyboardInterrupt):
        server_of(app, certificate=certificate, key=key).run(sockets=[listening])


def _listening(host: str, port: int) -> socket.socket:
    """A socket that waits for readers.

    Raises:
        SettingError: the address is not ours, or taken.
    """
    from isthmus.core.errors import SettingError

    # The resolver would silently take the last 16 bits of a larger number.
    if not 0 <= port <= 65535:
        raise SettingError(f"port must be between 0 and 65535, got {port}")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=256)
    except OSError as problem:
        reason = problem.strerror or str(problem)
        raise SettingError(
            f"host and port must be free and of this machine, but {host}:{port}: {reason.lower()}; try another --port"
        ) from problem
