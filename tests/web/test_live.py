"""Live progress and work: listeners hear of every change, and what readers start is run, shown and stopped."""

import contextlib
import http.client
import json
import time

import pytest
from tests.web.sites import filled, key, running, trained

from isthmus.studies.store.progress import Teller
from isthmus.web import jobs as jobs_module

TOKEN = "a-token-of-some-length"


class Listener:
    """An open page: what it has heard."""

    def __init__(self, site):
        self.connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=200)
        self.connection.request("GET", "/events")
        self.answer = self.connection.getresponse()

    def next(self):
        while True:
            line = self.answer.readline().decode()
            assert line, "the site hung up"
            if line.startswith("data: "):
                return json.loads(line[6:])

    def until(self, holds):
        began = time.monotonic()
        while time.monotonic() - began < 200:
            if holds(told := self.next()):
                return told
        raise AssertionError("never heard of it")

    def close(self):
        self.answer.close()
        self.connection.close()


def test_open_pages_hear_of_new_runs_and_of_progress(tmp_path):
    store = filled(tmp_path / "store", 3)
    with running(store) as site, contextlib.ExitStack() as opened:
        listeners = [opened.enter_context(contextlib.closing(Listener(site))) for _ in range(3)]
        first = [listener.next() for listener in listeners]
        assert all(told == first[0] for told in first)
        assert {study["name"]: study["present"] for study in first[0]["studies"]}["widths"] == 4
        store.add([trained(7)])
        for listener in listeners:
            told = listener.until(lambda told: told["version"] > first[0]["version"])
            assert next(s for s in told["studies"] if s["name"] == "widths")["present"] == 5
        assert key(7) in site.ask("/").text
        teller = Teller(store, "widths")
        teller.say(25, 100, "cell")
        told = listeners[0].until(lambda told: any(study["running"] for study in told["studies"]))
        assert next(s for s in told["studies"] if s["running"])["share"] == 0.25
        assert "at work" in site.ask("/studies").text
        teller.close()
        listeners[0].until(lambda told: not any(study["running"] for study in told["studies"]))


def test_a_site_that_only_shows_starts_nothing(site):
    assert site.post("/jobs", {"kind": "check", "study": "widths"}).status == 403
    assert "--allow-run" in site.ask("/jobs").text
    assert "Check" not in site.ask("/studies/widths").text


@pytest.fixture
def workshop(tmp_path, monkeypatch):
    """A site that may start work; the command is a stand-in that says its arguments and writes a result."""
    stand_in = (
        "import sys, time, json, pathlib\n"
        "print('at it', sys.argv[1:], flush=True)\n"
        "if any('slow' in a for a in sys.argv): time.sleep(60)\n"
        "if sys.argv[1] == 'glass': sys.exit('isthmus: it must not be so')\n"
        "target = pathlib.Path(sys.argv[-1].removeprefix('--output='))\n"
        "target.parent.mkdir(exist_ok=True)\n"
        "target.write_text(json.dumps({'kind': 'Check'}))\n"
        "sys.exit(1)\n"
    )
    monkeypatch.setattr(jobs_module, "_RUNNER", stand_in)
    store = filled(tmp_path / "store", 4)
    store.remember_study("slow", {"design": {}, "keys": [key(0), key(1)]})
    with running(store, allow_run=True, token=TOKEN) as site:
        real = site.ask
        site.ask = lambda path, **given: real(path, Authorization=f"Bearer {TOKEN}", **given)
        yield site


def started(site, **form):
    answer = site.post("/jobs", form)
    assert answer.status == 303, answer.text
    return answer.headers["location"]


def ended(site, path):
    job = site.state.jobs.find(path.rsplit("/", 1)[1])
    began = time.monotonic()
    while job.state in ("waiting", "running") and time.monotonic() - began < 200:  # on a busy machine, too
        time.sleep(0.02)
    return job


def test_a_check_of_chosen_runs_is_run_and_kept(workshop):
    path = started(workshop, kind="check", run=[key(1), key(2)])
    job = ended(workshop, path)
    # A check that says no leaves the exit code 1: it is as good an answer.
    assert job.state == "done"
    assert job.arguments[:4] == ("check", str(workshop.state.library.store.path), f"--run={key(1)}", f"--run={key(2)}")
    text = workshop.ask(path).text
    assert f'href="/results/{job.result}"' in text
    assert "at it" in text
    assert workshop.ask(f"/results/{job.result}.json").json() == {"kind": "Check"}


def test_what_fails_says_why(workshop):
    job = ended(workshop, started(workshop, kind="glass", study="widths"))
    assert job.state == "failed"
    assert "it must not be so" in workshop.ask(f"/jobs/{job.id}").text


def test_work_that_cannot_start_fails_and_the_next_goes_on(workshop, monkeypatch):
    real, refused = jobs_module.subprocess.Popen, [BlockingIOError(11, "Resource temporarily unavailable")]

    def popen(*arguments, **keywords):
        if refused:
            raise refused.pop()
        return real(*arguments, **keywords)

    monkeypatch.setattr(jobs_module.subprocess, "Popen", popen)
    job = ended(workshop, started(workshop, kind="check", study="widths"))
    assert job.state == "failed"
    assert "Resource temporarily unavailable" in workshop.ask(f"/jobs/{job.id}").text
    assert ended(workshop, started(workshop, kind="check", study="widths")).state == "done"


def test_work_waits_its_turn_and_can_be_stopped(workshop):
    slow = started(workshop, kind="check", study="slow")
    waiting = started(workshop, kind="check", study="widths")
    jobs = workshop.state.jobs
    first, second = (jobs.find(path.rsplit("/", 1)[1]) for path in (slow, waiting))
    while first.state == "waiting" or not first.text():
        time.sleep(0.02)
    assert (first.state, second.state) == ("running", "waiting")
    assert workshop.post(f"{slow}/stop", {}).status == 303
    assert first.process.wait(timeout=200) != 0
    assert ended(workshop, waiting).state == "done"
    assert first.state == "stopped"


@pytest.mark.parametrize(
    "form",
    [
        {"kind": "rm", "study": "widths"},
        {"kind": "check"},
        {"kind": "check", "run": [key(1)]},
        {"kind": "check", "run": [key(1), key(2)], "study": "widths"},
        {"kind": "check", "run": ["--help", key(1)]},
        {"kind": "check", "study": "--help"},
        {"kind": "glass", "run": [key(1), key(2)]},
        {"kind": "check", "run": ["../x", key(1)]},
        {},
    ],
)
def test_only_known_work_on_what_the_store_holds(workshop, form):
    assert workshop.post("/jobs", form).status == 400
    assert workshop.state.jobs.all() == []


def test_at_most_so_much_may_wait(workshop):
    for _ in range(8):
        started(workshop, kind="check", study="slow")
    assert workshop.post("/jobs", {"kind": "check", "study": "slow"}).status == 400
    assert "may wait" in workshop.post("/jobs", {"kind": "check", "study": "slow"}).text


def test_work_ends_with_the_site(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs_module, "_RUNNER", "import time; print('here', flush=True); time.sleep(60)")
    with running(filled(tmp_path / "store", 2), allow_run=True, token=TOKEN) as site:
        path = site.post("/jobs", {"kind": "check", "study": "widths"}, Authorization=f"Bearer {TOKEN}").headers[
            "location"
        ]
        job = site.state.jobs.find(path.rsplit("/", 1)[1])
        while not job.text():
            time.sleep(0.02)
    assert job.process.poll() is not None
