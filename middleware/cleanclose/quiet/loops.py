"""Raw asyncio servers: quiets their loop's exception handler about departures."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from cleanclose.core.blame.judge import judge, mark
from cleanclose.core.blame.provenance import LOST_ERRNOS, frames_of, package_of
from cleanclose.core.blame.records import fields_of
from cleanclose.core.counters import PROCESS
from cleanclose.core.events import Mechanism, Phase, Side, Verdict, Witness
from cleanclose.core.levels import Levels, row_of_departure
from cleanclose.servers import find

__all__ = ["install_quiet_asyncio"]

_OF_THE_SERVER: Final = "Unhandled exception in client_connected_cb"
"""The message of `asyncio.StreamReaderProtocol` about the server's side, and only about that."""

_Handler = Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object]


def install_quiet_asyncio(
    loop: asyncio.AbstractEventLoop, levels: Levels | None = None
) -> Callable[[], None]:
    """Quiet departures on a server that was made with `asyncio.start_server`, without a shim.

    When such a server's callback ends with its own client's departure, the loop's exception
    handler gets an error with a traceback. This one stands before it: if the exception came out of
    the reader or the writer of the very connection that the callback serves, the record gets the
    level of a departure. Everything else goes to the previous handler, or to the loop's default.

    Args:
        loop: The loop. It has one handler; this one keeps the previous one.
        levels: How loud departures are. Default: the table as it stands.

    Returns:
        A function that takes the handler away again. If somebody has meanwhile set another handler,
        which may call this one, it stays and passes everything on.
    """
    handler = _LoopHandler(loop.get_exception_handler(), levels or Levels())
    loop.set_exception_handler(handler)

    def uninstall() -> None:
        handler.active = False
        if loop.get_exception_handler() is handler:
            loop.set_exception_handler(handler.earlier)

    return uninstall


class _LoopHandler:
    def __init__(self, earlier: _Handler | None, levels: Levels) -> None:
        self.earlier = earlier
        self.active = True
        self._levels = levels

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        verdict = _verdict_of_context(context) if self.active else None
        level = logging.ERROR
        if verdict is not None:
            level = self._levels.of_row(row_of_departure(verdict))
        if verdict is not None and level < logging.ERROR:
            PROCESS.count_quieted_record()
            extra = {"original_level": logging.ERROR, **fields_of(verdict)}
            logging.getLogger("asyncio").log(level, "%s", context["message"], extra=extra)
        elif self.earlier is None:
            loop.default_exception_handler(context)
        else:
            self.earlier(loop, context)


def _verdict_of_context(context: Mapping[str, Any]) -> Verdict | None:
    error: object = context.get("exception")
    transport: object = context.get("transport")
    if context.get("message") != _OF_THE_SERVER or transport is None:
        return None
    # asyncio raises these without a cause. If there is one, the application has raised the error
    # again.
    if not isinstance(error, Exception) or not _is_lost(error) or error.__cause__ is not None:
        return None
    witness = _came_out_of(transport, error)
    if witness is None:
        return None
    mechanism = Mechanism.of(error)
    if isinstance(error, asyncio.IncompleteReadError):
        mechanism = Mechanism.EOF
    verdict = Verdict(
        side=Side.CLIENT, phase=Phase.HANDLER, mechanism=mechanism, witnesses=(witness,)
    )
    # The same rule holds for its causes: it must not hide a lost upstream.
    mark(error, verdict)
    judged = judge(error, None, Phase.HANDLER)
    return judged if judged.side is Side.CLIENT else None


def _is_lost(error: Exception) -> bool:
    if isinstance(error, asyncio.IncompleteReadError | ConnectionError):
        return True
    return isinstance(error, OSError) and error.errno in LOST_ERRNOS


def _came_out_of(transport: object, error: Exception) -> Witness | None:
    """Whether an exception came out of this connection's own reader or writer.

    From there inwards all frames must be asyncio's own: `StreamReader.readexactly` is no witness
    for an exception that the application's callback raises inside it.
    """
    witness: Witness | None = None
    for frame in frames_of(error):
        if package_of(frame) != "asyncio":
            witness = None
        elif witness is None:
            stream: object = frame.f_locals.get("self")
            if isinstance(stream, asyncio.StreamReader | asyncio.StreamWriter) and (
                find(stream, "_transport") is transport
            ):
                is_reader = isinstance(stream, asyncio.StreamReader)
                witness = Witness.RECEIVE if is_reader else Witness.SEND
    return witness
