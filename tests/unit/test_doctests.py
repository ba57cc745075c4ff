"""The examples in docstrings are run, and the public functions have one."""

from __future__ import annotations

import doctest
import importlib
import inspect

import pytest

#: Modules whose examples are run.  Add yours.
MODULES = [
    "n2n.bench",
    "n2n.bench.measure",
    "n2n.bench.options",
    "n2n.bench.results",
    "n2n.bench.runner",
    "n2n.bench.stats",
    "n2n.types",
    "n2n.wire",
    "n2n.wire.codec",
    "n2n.wire.constants",
    "n2n.wire.hashes",
    "n2n.wire.headers",
    "n2n.wire.messages",
    "n2n.crypto",
    "n2n.crypto.payload",
    "n2n.crypto.rsa",
    "n2n.identity",
    "n2n.identity.machine",
    "n2n.buffers",
    "n2n.config.durations",
    "n2n.config.load",
    "n2n.config.model",
    "n2n.net",
    "n2n.net.udp",
    "n2n.store",
    "n2n.store.keyfile",
    "n2n.config.kinds",
    "n2n.cli.history",
    "n2n.web.server",
    "n2n.web.text",
]

#: Packages each of whose public functions must have an example.
PUBLIC = ["n2n.wire", "n2n.crypto", "n2n.identity"]


@pytest.mark.parametrize("name", MODULES)
def test_examples_hold(name):
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert failed == 0


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_function_has_an_example(name):
    module = importlib.import_module(name)
    functions = [getattr(module, public) for public in module.__all__]
    functions = [function for function in functions if inspect.isfunction(function)]
    assert functions
    assert [f.__name__ for f in functions if ">>> " not in inspect.getdoc(f)] == []


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_class_is_described(name):
    module = importlib.import_module(name)
    for public in module.__all__:
        value = getattr(module, public)
        if inspect.isclass(value):
            assert inspect.getdoc(value), public
            assert not inspect.getdoc(value).startswith(f"{public}("), f"{public}: only what dataclass wrote"
