"""The WSGI shim: ``app.wsgi_app = CleanCloseMiddleware(app.wsgi_app)``."""

from cleanclose.wsgi._middleware import CleanCloseMiddleware, skip

__all__ = ["CleanCloseMiddleware", "skip"]
