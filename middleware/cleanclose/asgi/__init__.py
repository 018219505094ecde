"""The ASGI shim: ``app.add_middleware(CleanCloseMiddleware)``."""

from cleanclose.asgi._middleware import CleanCloseMiddleware, skip

__all__ = ["CleanCloseMiddleware", "skip"]
