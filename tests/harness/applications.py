"""WSGI applications of others, as their users set them up."""

from __future__ import annotations

import importlib
import os
import tempfile
from typing import Any, Final

__all__ = ["FOLDER", "radicale", "wsgidav"]

FOLDER: Final = "TEST_FOLDER"
"""The environment variable with the folder that they keep their files in."""


def _folder() -> str:
    return tempfile.mkdtemp(dir=os.environ[FOLDER])


def radicale() -> Any:
    """Radicale: calendars and contacts."""
    configuration = importlib.import_module("radicale.config").load()
    configuration.update({"storage": {"filesystem_folder": _folder()}, "auth": {"type": "none"}})
    return importlib.import_module("radicale.app").Application(configuration)


def wsgidav() -> Any:
    """WsgiDAV: a folder by WebDAV."""
    settings = {
        "provider_mapping": {"/": _folder()},
        "simple_dc": {"user_mapping": {"*": True}},
        "verbose": 2,
    }
    return importlib.import_module("wsgidav.wsgidav_app").WsgiDAVApp(settings)
