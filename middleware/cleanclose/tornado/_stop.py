"""Whole requests as blocks: for applications that name them instead of changing their handlers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from tornado import httputil, web, websocket

from cleanclose.core import Stoppable, current
from cleanclose.core.deliver.early import is_unwanted
from cleanclose.servers.tornado import can_be_stopped
from cleanclose.stop import stop_work
from cleanclose.tornado._witness import TornadoWatch

__all__ = ["stop_handlers"]

_NAME: Final = "get_handler_delegate"


def stop_handlers(application: Any, which: Stoppable | None) -> None:
    """Make an application's handlers end when nobody waits for them, for the named requests.

    Args:
        application: The application. Anything but a `tornado.web.Application` has no handlers.
        which: Which requests; None to leave them alone again.
    """
    if not isinstance(application, web.Application):
        return
    # Application looks its own method up on the instance for each request.
    vars(application).pop(_NAME, None)
    if which is not None and can_be_stopped(web.RequestHandler):
        original = application.get_handler_delegate
        vars(application)[_NAME] = _Delegates(original, which)


class _Delegates:
    """Replaces the application's method."""

    def __init__(self, original: Callable[..., Any], which: Stoppable) -> None:
        self._original = original
        self._which = which
        self._classes: dict[type[web.RequestHandler], type[web.RequestHandler]] = {}

    def __call__(
        self,
        request: httputil.HTTPServerRequest,
        target_class: type[web.RequestHandler],
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        # A websocket's handler goes on after its request.
        if not issubclass(target_class, websocket.WebSocketHandler) and self._which.applies(
            request.method or "", request.path, request
        ):
            target_class = self._classes.setdefault(target_class, _stopped(target_class))
        return self._original(request, target_class, *args, **kwargs)


def _stopped(handler: type[web.RequestHandler]) -> type[web.RequestHandler]:
    """The same handler, with all that tornado calls of it for one request in a block."""
    base: Any = handler

    async def execute(self: Any, *args: Any, **kwargs: Any) -> None:
        # Quietly: tornado would log any exception that comes out of it, and nobody waits for an
        # answer.
        watch = current()
        async with stop_work(quiet=True) as block:
            await base._execute(self, *args, **kwargs)
        if block.stopped and isinstance(watch, TornadoWatch):
            # Nobody calls finish(), which would report it otherwise.
            watch.end(time.monotonic())

    def send_error(self: Any, *args: Any, **kwargs: Any) -> None:
        # Tornado answers a cancelled handler with a 500, for nobody; and logs it as an error.
        if not is_unwanted(current()):
            handler.send_error(self, *args, **kwargs)
            return
        self._finished = True
        self.on_finish()
        self._break_cycles()

    attributes = {
        "_execute": execute,
        "send_error": send_error,
        "__module__": handler.__module__,
        "__doc__": handler.__doc__,
    }
    made = type(handler.__name__, (handler,), attributes)
    made.__qualname__ = handler.__qualname__
    return made
