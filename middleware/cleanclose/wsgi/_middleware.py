"""The middleware as its users have it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Unpack

from cleanclose.core import Outlet, Settings, SettingsOptions
from cleanclose.core.deliver.early import leave_alone
from cleanclose.core.setup import Setup
from cleanclose.core.stop import Stoppable
from cleanclose.core.tell.reporter import Reporter
from cleanclose.core.wrapper import Wrapper
from cleanclose.quiet import quieten
from cleanclose.surge import make_reporter
from cleanclose.wsgi._input import WitnessedInput
from cleanclose.wsgi._serving import Serving, WSGIApp
from cleanclose.wsgi._witness import Environ, StartResponse

__all__ = ["CleanCloseMiddleware", "skip"]


class CleanCloseMiddleware(Wrapper):
    """WSGI middleware: delivers early responses, and reports whose fault an error is.

    It belongs outermost: then ``start_response`` is the server's own. Requests that ask for a
    websocket pass through.

    Args:
        app: The WSGI application.
        outlets: What receives the events, in this order; see `cleanclose.core.Outlet`.
            Default: one `cleanclose.core.StructlogOutlet`.
        stop_work: In which requests to ask the kernel, before each piece of a response that is made
            while it is sent, whether the client is still there. If it has left, the iterable is
            closed. True: those with a safe method. A callable: those of them for which it returns
            true, given the environ. A `cleanclose.core.Stoppable` may name unsafe methods, too.
            Default: none. (Code before the response has to ask by itself: see
            `cleanclose.core.raise_if_gone`.)
        **settings: The fields of `cleanclose.core.Settings`.

    Raises:
        ValueError: A setting is out of its range, or ``stop_work`` is none of these.
    """

    def __init__(
        self,
        app: WSGIApp,
        *,
        outlets: Sequence[Outlet] | None = None,
        stop_work: bool | Callable[[Environ], bool] | Stoppable = False,
        **settings: Unpack[SettingsOptions],
    ) -> None:
        limits = Settings(**settings)
        setup = Setup.of(limits, make_reporter(outlets, limits))
        serving = Serving(app, setup, Stoppable.of(stop_work))
        self._serve = serving.serve
        super().__init__(serving)

    @property
    def reporter(self) -> Reporter:
        """Reports the events."""
        reporter: Reporter = self._serving.reporter
        return reporter

    def _begin(self) -> None:
        quieten(self._serving.setup.settings, self.app)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        return self._serve(environ, start_response)


def skip(environ: Environ) -> None:
    """Leave this request's response alone: send it as if there were no middleware.

    Call it before the response begins. It has no effect if the middleware is not installed.

    Args:
        environ: The request's environ (``request.environ`` in Flask, ``request.META`` in
            Django).
    """
    # Copies of the environ share it, and code that replaces it has read it.
    stream: object = environ.get("wsgi.input")
    if isinstance(stream, WitnessedInput) and stream.watch is not None:
        leave_alone(stream.watch)
