"""Python imports this before all else, where this folder is on its path.

So the subprocesses of a suite (a development server, a reloader) have the wrapped classes as well.
"""

import importlib.util
import os
import pathlib
from typing import Any

if suite := os.environ.get("CLEANCLOSE_SUITE"):
    _file = pathlib.Path(__file__).parents[1] / "wrapping.py"
    _spec: Any = importlib.util.spec_from_file_location("cleanclose_suites_wrapping", _file)
    _module: Any = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(_module)
    _module.WRAPPING[suite]()
