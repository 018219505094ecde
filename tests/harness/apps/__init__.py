"""The apps that the tests serve: the same routes on every framework, bare or wrapped.

See :mod:`tests.harness.apps.routes` for the routes and the environment variables.
"""

import sys
from importlib import import_module

# structlog imports rich and twisted where they are installed, as they are for the tests of others:
# half of the time that most servers take to start. No application here logs through either.
_DEAR = [name for name in ("rich", "twisted") if name not in sys.modules]
sys.modules.update(dict.fromkeys(_DEAR))  # type: ignore[arg-type]
try:
    import_module("structlog")
finally:
    for _name in _DEAR:
        del sys.modules[_name]
