"""One site for all tests that only read."""

import pytest

pytest.importorskip("starlette", reason="the site needs starlette: pip install 'isthmus[web]'")
pytest.importorskip("uvicorn", reason="the site needs uvicorn: pip install 'isthmus[web]'")

from tests.web.sites import filled, running


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    with running(filled(tmp_path_factory.mktemp("web") / "store")) as made:
        yield made
