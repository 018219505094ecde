"""The one end of an exchange: the application's exception, and what the server closes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from cleanclose.core.blame.blocking import broken_pipe
from cleanclose.core.blame.provenance import raise_as_it_is
from cleanclose.core.blame.watch import CURRENT
from cleanclose.core.conduct import Conduct, End, answer_of, breaks_off
from cleanclose.core.setup import Setup
from cleanclose.core.tell.reporter import Reporter
from cleanclose.servers import forget_head, wsgi_response
from cleanclose.wsgi._witness import WsgiWatch

__all__ = ["Ending"]

# Looked up once: this is done for every request.
_current: Final = CURRENT.get
_enter: Final = CURRENT.set


class Ending:
    """Ends the exchanges of one application, and reports what there is to report.

    Args:
        setup: What all exchanges share.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.reporter: Reporter = setup.reporter

    def answer_call(self, error: BaseException, watch: WsgiWatch) -> list[bytes]:
        """The application has raised from its call.

        Returns:
            The response that replaces the error.

        Raises:
            BaseException: What the server is to see.
        """
        try:
            return self.answer(error, watch)
        except BaseException:
            self.abandon(watch)
            # Its traceback refers to this frame.
            del error
            raise

    def answer(self, error: BaseException, watch: WsgiWatch) -> list[bytes]:
        """The application has raised, from its call or from its response's iteration.

        Called while the exception is being handled.

        Returns:
            What to respond with instead.

        Raises:
            BaseException: What the server is to see: the exception itself; or another one, where
                the response has begun and can only break off, or where the client's error hides
                one of the application's.
        """
        outcome = self._outcome(error, watch)
        if isinstance(outcome, list):
            return outcome
        if outcome is None:
            raise  # noqa: PLE0704 - it is being handled
        # Its traceback will refer to this frame.
        held = [outcome]
        del error, outcome
        return raise_as_it_is(held.pop())

    def _outcome(
        self, error: BaseException, watch: WsgiWatch
    ) -> list[bytes] | BaseException | None:
        if isinstance(error, Exception):
            # Whether the client has left as well.
            watch.ask()
        end = self._app_ended(watch, error)
        own = end.error or error
        outcome: list[bytes] | BaseException | None = self._answer(own, watch, end.conduct)
        if outcome is None:
            delivery = None if watch.body_complete else watch.delivering()
            if delivery is not None:
                delivery.app_failed(own)
            outcome = None if own is error else own
        if not isinstance(outcome, list) and watch.deliverer is not None:
            watch.deliverer.abandon()
        return outcome

    def _answer(
        self, error: BaseException, watch: WsgiWatch, conduct: Conduct
    ) -> list[bytes] | BrokenPipeError | None:
        if conduct.status is None:
            return None
        status, headers, body = answer_of(conduct.status, alone=not watch.bytes_out)
        traceback, server = error.__traceback__, watch.server
        if watch.status is not None:
            forget_head(wsgi_response(watch.server_start_response, server), server)
        try:
            watch.begin(status, headers, (type(error), error, traceback))
        except BaseException:  # noqa: BLE001 - PEP 3333: the error itself, if the head was sent
            # Without this frame, which refers to it.
            error.__traceback__ = traceback
            if breaks_off(error, conduct, server):
                return broken_pipe(error, watch.departure if conduct.quiet else None)
            return None
        return [body]

    def closed(
        self,
        watch: WsgiWatch,
        error: BaseException | None,
        close: Callable[[], object] | None = None,
        *,
        through: int | None = None,
    ) -> None:
        """The server closes the response.

        Args:
            watch: The exchange.
            error: What the server was handling when it closed the response, if anything.
            close: The application's own ``close()``, if there is one.
            through: The id of a file of the application's that the server itself has sent.
        """
        try:
            closing = watch.server_closes(error, time.monotonic(), through)
            if closing.failed is not None:
                self._app_ended(watch, closing.failed)
            closed = self._close(watch, close, all_sent=error is None)
            if closed and closing.open and not watch.ended:
                self._app_ended(watch, closing.outside)
            if watch.is_sample:
                self.reporter.request_over(watch)
        finally:
            self._leave(watch)

    def _close(
        self, watch: WsgiWatch, close: Callable[[], object] | None, *, all_sent: bool
    ) -> bool:
        """Close the application's iterable, and complete the delivery.

        Returns:
            Whether it did not raise.
        """
        try:
            if close is not None:
                close()
        except BaseException as failure:
            self._complete(watch, all_sent=all_sent)
            if not self._app_ended(watch, failure).conduct.quiet:
                raise
            return False
        self._complete(watch, all_sent=all_sent)
        return True

    def _complete(self, watch: WsgiWatch, *, all_sent: bool) -> None:
        if watch.deliverer is not None:
            watch.deliverer.close(all_sent=all_sent and watch.response_complete)

    def abandon(self, watch: WsgiWatch) -> None:
        """Nobody will see this response's end: report the exchange now."""
        try:
            if watch.deliverer is not None:
                watch.deliverer.close(all_sent=False)
            if not watch.ended:
                self._app_ended(watch, None)
        finally:
            self._leave(watch)

    def _app_ended(self, watch: WsgiWatch, error: BaseException | None) -> End:
        return self.reporter.app_ended(watch, time.monotonic(), error)

    def _leave(self, watch: WsgiWatch) -> None:
        """The exchange is over: this thread works for the next one."""
        if watch.input is not None:
            watch.leave_input()
        if _current() is watch:
            _enter(None)
