"""Who is answered: known names, the token, the same origin; what every answer carries."""

import pytest
from tests.web.sites import filled, key, running

from isthmus.web.guard import COOKIE, session

TOKEN = "a-token-of-some-length"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    store = filled(tmp_path_factory.mktemp("guarded") / "store", 2)
    with running(store, token=TOKEN, hosts=("localhost", "station"), addresses=True) as made:
        yield made


@pytest.mark.parametrize(
    "path", ["/", "/studies", "/nothing", "/static/site.css", "/static/tokens.css", "/static/none"]
)
def test_every_answer_forbids_what_it_does_not_need(site, path):
    headers = site.ask(path).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert policy["style-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert "server" not in headers


def test_nothing_in_a_page_is_inline(site):
    for path in ("/", "/studies", f"/runs/{key(1)}", "/help"):
        text = site.ask(path).text
        assert "<style" not in text
        assert " style=" not in text
        assert " on" not in text.replace(" on ", " ").split("<main")[0]
        assert all("src=" in part.split(">")[0] for part in text.split("<script")[1:])


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "localhost.evil.example", "", "[", "10.0.0.7", "127.0.0.1.nip.io"]
)
def test_a_foreign_name_for_this_machine_is_refused(site, host):
    assert site.ask("/", host=host or " ").status in (400, 421)
    assert "widths" not in site.ask("/studies", host=host or " ").text


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:99"])
def test_the_loopback_names_are_known(site, host):
    assert site.ask("/", host=host).status == 200


def test_without_the_token_nothing_is_shown(guarded):
    for path in ("/", "/studies", f"/runs/{key(0)}/run.json", "/events", "/table.csv", f"/runs/{key(0)}/weights/final"):
        answer = guarded.ask(path, Accept="text/html")
        assert (answer.status, answer.headers["location"]) == (303, "/enter")
        assert b"mlp" not in answer.body
        assert guarded.ask(path).status == 401
    assert guarded.ask("/enter").status == 200
    assert guarded.ask("/static/site.css").status == 200


@pytest.mark.parametrize("wrong", ["", "x", TOKEN[:-1], TOKEN + "x", session("other"), "\u00e9"])
def test_a_wrong_token_does_not_open(guarded, wrong):
    from urllib.parse import quote

    assert guarded.ask(f"/?token={quote(wrong)}").status == 401
    assert guarded.ask("/", Cookie=f"{COOKIE}={quote(wrong)}").status == 401
    assert guarded.ask("/", Authorization=f"Bearer {quote(wrong)}").status == 401
    assert guarded.post("/enter", {"token": wrong}).status == 401


def test_the_token_opens_once_and_leaves_the_address(guarded):
    answer = guarded.ask(f"/studies?token={TOKEN}&lang=ja")
    assert (answer.status, answer.headers["location"]) == (303, "/studies?lang=ja")
    cookie = answer.headers["set-cookie"]
    assert TOKEN not in cookie
    assert {"httponly", "samesite=strict", "path=/"} <= {part.strip().lower() for part in cookie.split(";")}
    assert guarded.ask("/", Cookie=cookie.split(";")[0]).status == 200
    assert guarded.ask("/", Authorization=f"Bearer {TOKEN}").status == 200
    entered = guarded.post("/enter", {"token": f" {TOKEN} "})
    assert (entered.status, entered.headers["location"]) == (303, "/")


def test_a_path_that_looks_like_another_host_leads_nowhere(guarded):
    answer = guarded.ask(f"//evil.example/?token={TOKEN}")
    assert answer.headers["location"].startswith("/")
    assert not answer.headers["location"].startswith(("//", "/\\"))


@pytest.mark.parametrize(
    "headers", [{}, {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec_Fetch_Site": "cross-site"}]
)
def test_a_change_asked_for_by_a_foreign_page_is_refused(guarded, headers):
    cookie = f"{COOKIE}={session(TOKEN)}"
    answer = guarded.ask("/jobs", method="POST", form={"kind": "check", "study": "widths"}, Cookie=cookie, **headers)
    assert answer.status == 403
    assert guarded.ask("/jobs", method="DELETE", Cookie=cookie, **headers).status == 403


def test_names_that_were_given_and_numeric_addresses_are_known(guarded):
    bearer = f"Bearer {TOKEN}"
    for host in ("station", "station:8642", "192.168.1.5:8642", "[fe80::1]:8642", "localhost"):
        assert guarded.ask("/", host=host, Authorization=bearer).status == 200, host
    assert guarded.ask("/", host="evil.example", Authorization=bearer).status == 421


def test_large_requests_are_refused(site):
    assert site.post("/jobs", {"kind": "x" * 300_000}).status == 413
