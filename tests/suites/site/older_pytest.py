"""A name that Flask's suite takes from pytest, and that pytest 9.1 spells otherwise."""

from typing import Any

import _pytest.monkeypatch

_module: Any = _pytest.monkeypatch
if not hasattr(_module, "notset"):
    _module.notset = _module.NOTSET
