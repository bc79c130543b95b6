"""The public API changes only on purpose: names, signatures, fields and methods are held against a committed list."""

from __future__ import annotations

import difflib
import inspect

from tests import public_api

import isthmus


def test_nothing_public_changed_by_accident():
    before, now = public_api.LIST.read_text(encoding="utf-8"), public_api.listed()
    changes = list(
        difflib.unified_diff(before.splitlines(), now.splitlines(), "public_api.txt", "now", lineterm="", n=0)
    )
    assert not changes, "\n".join(
        [*changes[:40], "if this is meant: python tests/public_api.py --write, and a line in CHANGELOG.md"]
    )


def test_every_public_name_can_be_had_and_is_explained():
    for name in isthmus._public.PUBLIC:
        found = getattr(isthmus, name)
        assert inspect.getdoc(found), f"isthmus.{name} has no docstring"
    for package in public_api.PACKAGES:
        module = getattr(isthmus, package)
        for name in module.__all__:
            found = getattr(module, name)
            if inspect.isclass(found) or inspect.isfunction(found):
                assert found.__doc__, f"isthmus.{package}.{name} has no docstring"
                assert not found.__doc__.startswith(f"{name}("), f"isthmus.{package}.{name} has no docstring of its own"


def test_no_function_is_hidden_by_its_module():
    """A package that imports lazily gives a module where a function of the same name is meant, once it is loaded."""
    modules = {"isthmus.align.claims"}
    for package in public_api.PACKAGES:
        module = getattr(isthmus, package)
        for name in module.__all__:
            if inspect.ismodule(getattr(module, name)):
                assert f"isthmus.{package}.{name}" in modules


def test_a_change_is_noticed():
    def before(first, *, second=1): ...

    def after(first, *, second=2): ...

    assert list(public_api.described("f", before)) != list(public_api.described("f", after))
    assert list(public_api.described("f", before)) == ["f(first, *, second=1)"]
