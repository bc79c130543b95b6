"""Stores to show, and a site that runs in this process on a free port of the loopback."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlencode

import torch

from isthmus.studies import Row, Store, Trained

HOSTILE = '<script>alert("x")</script>'
RIGHT_TO_LEFT = "\u202eevil\u202c שלום"
LONG = "very-long-" * 60
TRAVERSAL = "../../etc/passwd"


def key(number: int) -> str:
    return f"{number:064x}"


def trained(number: int, *, network: str = "mlp-64x2", data: str = "digits", **recipe) -> Trained:
    """A small run as a study leaves it."""
    curve = [{"kind": "Epoch", "number": n, "steps": 10 * (n + 1), "loss": 2 / (n + 1)} for n in range(5)]
    rows = [
        Row("training_curve", 1, {}, curve, "nats"),
        Row("score", 1, {}, {"training_loss": 0.01 * (number % 7), "test_error": number / 1000}, "nats, share"),
    ]
    if number:
        value = {"loss_barrier": number / 10, "error_barrier": 0.01}
        rows.append(Row("barrier", 1, {"other": key(number - 1), "points": 25}, value, "nats, share"))
    fields = {"schema": 1, "network": network, "data": data, "rate": 0.1 * (number % 5), "settings": {"width": 64}}
    made = {"status": "stopped", "created": f"2026-01-01T{number % 24:02d}:00:00+00:00", "seconds": 1.5}
    weights = {"final": {"layer.weight": torch.full((2, 3), float(number))}}
    return Trained(key(number), {**fields, **recipe}, weights, tuple(rows), made)


def filled(folder, count: int = 6) -> Store:
    """A store with runs, two studies and a hostile run."""
    store = Store.open(folder, create=True)
    for number in range(count):
        store.add([trained(number)])
    store.add([trained(count, network=HOSTILE, data=LONG, augmentation=[RIGHT_TO_LEFT, TRAVERSAL])])
    store.remember_study("widths", {"design": {"question": "Does width help?"}, "keys": [key(n) for n in range(8)]})
    store.remember_study(HOSTILE.replace("/", "\u2215"), {"design": {"question": HOSTILE}, "keys": [key(count)]})
    return store


@contextlib.contextmanager
def running(store: Store, **settings) -> Iterator[Site]:
    """A site of a store, answering until the block ends."""
    from isthmus.web.app import application, server_of

    listening = socket.create_server(("127.0.0.1", 0))
    app = application(store, **{"every": 0.1, **settings})
    server = server_of(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield Site(listening.getsockname()[1], app.app.state)
    finally:
        server.should_exit = True
        thread.join(timeout=15)
        listening.close()


class Site:
    """What a reader's program does with a site."""

    def __init__(self, port: int, state) -> None:
        self.port, self.state = port, state

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, *, method: str = "GET", host: str | None = None, form=None, **headers) -> Answer:
        """One request as it stands: nothing about the path is tidied up."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        sent["Host"] = host or f"127.0.0.1:{self.port}"
        body = None
        if form is not None:
            body = urlencode(form, doseq=True)
            sent.setdefault("Content-Type", "application/x-www-form-urlencoded")
        try:
            connection.request(method, path, body=body, headers=sent)
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.headers), answer.read())
        finally:
            connection.close()

    def post(self, path: str, form, **headers) -> Answer:
        """A form sent from a page of the site."""
        return self.ask(path, method="POST", form=form, **{"Origin": self.address, **headers})


class Answer:
    """Status, headers by their names in small letters, and text."""

    def __init__(self, status: int, headers, body: bytes) -> None:
        self.status, self.body = status, body
        self.headers = {name.lower(): value for name, value in headers.items()}

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self):
        return json.loads(self.body)
