"""``isthmus serve``: what is wrong with the input is one line; the address and the token are what a reader needs."""

import builtins
import http.client
import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from isthmus.studies import Store

pytest.importorskip("uvicorn", reason="the site needs uvicorn: pip install 'isthmus[web]'")
RUN = "import sys; from isthmus.cli.main import invoke; sys.exit(invoke(sys.argv[1:]))"


@pytest.fixture
def store(tmp_path):
    Store.open(tmp_path / "store", create=True)
    return tmp_path / "store"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--token", "short"], "token must have at least 16 characters, got 5"),
        (["--certificate", "c.pem"], "HTTPS needs both --certificate and --key"),
        (["--host", "203.0.113.7"], "must be free and of this machine"),
        (["--port", "99999"], "port must be between 0 and 65535, got 99999"),
    ],
)
def test_wrong_input_is_one_line(shell, store, arguments, said):
    code, _, err = shell("serve", store, *arguments)
    assert code == 2
    assert said in err
    assert err.count("\n") == 1


def test_a_store_must_be_there_and_the_port_free(shell, store, tmp_path):
    code, _, err = shell("serve", tmp_path / "none")
    assert (code, "a store must exist" in err) == (2, True)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, _, err = shell("serve", store, "--port", taken.getsockname()[1])
    assert (code, "try another --port" in err) == (2, True)


def test_without_its_libraries_it_says_what_to_install(shell, store, monkeypatch):
    real = builtins.__import__

    def missing(name, *rest, **more):
        if name.split(".")[0] in ("starlette", "uvicorn"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest, **more)

    for name in [name for name in sys.modules if name.startswith(("isthmus.web", "starlette", "uvicorn"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", missing)
    code, _, err = shell("serve", store)
    assert code == 2
    assert "pip install 'isthmus[web]'" in err


@pytest.mark.parametrize(("further", "guarded"), [([], False), (["--allow-run"], True)])
def test_it_answers_where_it_says_and_ends_when_interrupted(store, further, guarded):
    site = subprocess.Popen(
        [sys.executable, "-c", RUN, "serve", str(store), "--port", "0", "--json", *further],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        told = "".join(iter(lambda: site.stdout.readline(), "}\n")) + "}"
        address = json.loads(told)["address"]
        assert address.startswith("http://127.0.0.1:")
        assert ("?token=" in address) is guarded
        connection = http.client.HTTPConnection(address.split("/")[2], timeout=20)
        connection.request("GET", "/")
        assert connection.getresponse().status == (401 if guarded else 200)
        connection.close()
    finally:
        site.send_signal(signal.SIGINT)
        _, err = site.communicate(timeout=30)
    assert site.returncode == 0, err
    assert "Traceback" not in err
