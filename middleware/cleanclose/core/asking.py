"""Questions that an application can ask about the exchange that it is working for."""

from __future__ import annotations

from collections.abc import Callable

from cleanclose.core.blame.watch import Watch, current
from cleanclose.core.stop import ClientLeft

__all__ = ["client_gone", "raise_if_gone", "stop_if_gone"]


def client_gone() -> bool:
    """Whether the client of the request that is being handled here has left.

    A handler, sync or async, can call this to find out whether anybody still waits for its work. It
    does not wait. How much it can see depends on the server: on what the application's own
    ``receive()`` returned, on what the server knows, and on what the kernel says about the socket
    if it is in reach. It returns False if it can see nothing, outside a request, and where the
    middleware is not installed.
    """
    watch = current()
    if watch is None or watch.ended:
        return False
    watch.ask()
    return watch.departure is not None or watch.goodbye is not None


def raise_if_gone() -> None:
    """Raise `ClientLeft` if the client of the request that is handled here has left.

    This is for work that nothing can cancel: a WSGI application, a thread. It looks where
    `client_gone` looks, and does not wait. Where the client's socket is in reach (most WSGI
    servers), it costs one system call, a microsecond or two: cheap enough for each row of a report.

    Raises:
        ClientLeft: The client has left. It is never raised while the process is stopping, because
            the server then ends requests in its own way.
    """
    watch = current()
    if watch is not None and not watch.ended:
        stop_if_gone(watch)


def stop_if_gone(watch: Watch, clean_up: Callable[[], object] | None = None) -> None:
    """The same for an exchange that is not over.

    Args:
        watch: The exchange. It is asked for what else it can see.
        clean_up: Called before, if the client has left.

    Raises:
        ClientLeft: The client has left.
    """
    watch.ask()
    if watch.may_stop():
        watch.write_stops().ended(cut=True)
        if clean_up is not None:
            clean_up()
        raise ClientLeft
