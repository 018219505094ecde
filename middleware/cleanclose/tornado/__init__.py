"""The tornado shim: ``install(application)``."""

from cleanclose.tornado._install import install, skip

__all__ = ["install", "skip"]
