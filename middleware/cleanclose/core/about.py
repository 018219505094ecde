"""The installed version of cleanclose."""

from __future__ import annotations

__all__ = ["version"]


def version() -> str:
    """Look up the version of the installed distribution.

    There is no ``cleanclose.__version__``, because `cleanclose` is a namespace (PEP 420) and has no
    module that could hold it. The figure is the distribution's own (PEP 566), so it cannot differ
    from what pip shows.

    Returns:
        The version as PEP 440 writes it, for example ``1.0.0rc1``.

    Raises:
        importlib.metadata.PackageNotFoundError: The code runs from a folder that nobody has
            installed.
    """
    # It loads the email package, which takes ten times as long as all other look-ups of the core.
    from importlib.metadata import version as installed

    return installed("cleanclose")
