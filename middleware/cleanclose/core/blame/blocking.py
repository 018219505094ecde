"""What a blocking server shows of its client: by what it raises and reads, and by how it closes.

A WSGI server sends nothing that says "the client has left". It raises out of ``wsgi.input`` or out
of ``write()``; it closes the response before it has asked for all of it; it hands a part of a body
over as the whole. `BlockingWatch` reads these signs. Which server it is, and what its objects say,
the shim knows.
"""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Callable

from cleanclose.core.blame.calls import held_after
from cleanclose.core.blame.judge import is_wrapper, mark
from cleanclose.core.blame.provenance import came_from, says_lost
from cleanclose.core.blame.short_uploads import is_raised, is_refused
from cleanclose.core.blame.watch import COMPLETE, GONE, Watch
from cleanclose.core.conduct import (
    CUT_SHORT,
    Answer,
    Treatment,
    answer_of,
    is_lost_midway,
    wsgi_treatment,
)
from cleanclose.core.deliver.draining import tell_reading
from cleanclose.core.deliver.framing import ends_chunks
from cleanclose.core.errors import TruncatedBodyError
from cleanclose.core.events import Mechanism, Side, Verdict, Witness
from cleanclose.core.server import Server

__all__ = ["BlockingWatch", "Closing", "broken_off", "broken_pipe", "is_loss"]


def is_loss(error: BaseException, server: str, through: int | None = None) -> bool:
    """Whether a server has raised an error for its client's connection.

    Args:
        error: The error.
        server: The server's package.
        through: The id of an object of the application's own that the server used. An error that
            came through it is not the client's.
    """
    says_so = is_wrapper(error) or (isinstance(error, OSError) and says_lost(error))
    return says_so and came_from(error, server, through)


def broken_off(
    error: Exception, server: Server, ask: Callable[[], Mechanism | None]
) -> Mechanism | None:
    """How the client left whose body a server could not read on.

    Args:
        error: What the server's ``wsgi.input`` has raised.
        server: The server.
        ask: Asks the client's socket how it has left; called where the error does not tell.

    Returns:
        None if the error does not show that it has left.
    """
    is_word = server.breaks_off is not None and server.breaks_off(error)
    if not (is_word or isinstance(error, OSError)) or not came_from(error, server.name):
        return None
    if getattr(error, "errno", None) is None and not isinstance(
        error, ConnectionError | TimeoutError
    ):
        # The server's own error, for a broken-off body as for a malformed one.
        return ask()
    return Mechanism.of(error)


def broken_pipe(error: BaseException, departure: Verdict | None) -> BrokenPipeError:
    """An error that every server takes for the end of a connection, and for nothing else.

    Args:
        error: The application's, which it stands for.
        departure: How the client has left, if the error only says that; None if it is not the
            client's.
    """
    broken = BrokenPipeError(errno.EPIPE, "the response breaks off")
    broken.__cause__ = error
    if departure is not None:
        mark(broken, departure)
    return broken


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Closing:
    """What is left to report when a server closes a response.

    Args:
        failed: The application's own error, to report before anything else is closed.
        open: Whether the exchange's end is still to be reported behind that.
        outside: What has ended it, if that came from outside.
    """

    failed: BaseException | None = None
    open: bool = False
    outside: BaseException | None = None


class BlockingWatch(Watch):
    """One exchange's peer, as its witnesses on a blocking server see it."""

    __slots__ = ()

    bytes_in: int = 0
    read_error: Exception | None = None
    closing: bool = False
    """Whether the server is closing the response: nothing can be answered any more."""
    refused: bool = False
    """Whether the application answered half a body as if it were whole: nothing of that goes
    out."""
    ended_unnoticed: bool = False
    """Whether the application has found the stream's end before the body's, and got it as it is."""
    half_closed: bool = False
    """Whether the client has closed its half of the connection only to end its body."""
    left: int | None = 0
    """Bytes of the body that are still to come; None if only its end tells its length."""

    # What the shim knows of its server.

    @property
    def server(self) -> Server:
        """What is special about the server."""
        raise NotImplementedError

    @property
    def known_server(self) -> Server | None:
        """The server, if we know what it hides and if it calls us itself."""
        raise NotImplementedError

    def how_gone(self) -> Mechanism | None:
        """How the client has left, as its socket says; None if it has not."""
        raise NotImplementedError

    def seen_gone(self, witness: Witness, mechanism: Mechanism, now: float) -> None:
        """Something that was asked says that the peer has left.

        Args:
            witness: What was asked.
            mechanism: How it has left, by that.
            now: The time.
        """
        if mechanism is Mechanism.EOF and self.half_closed:
            return
        # A server that says so itself sends in a thread of its own: it may hold what it has taken.
        self.in_flight: int = held_after(self.bytes_out, waits=witness is not Witness.SERVER)
        self.peer_gone(witness, now, mechanism=mechanism, late=True)

    def has_server_read(self) -> bool:
        """Whether the server itself has read what is left of the body."""
        raise NotImplementedError

    def declared_out(self) -> int | None:
        """How many bytes of the response's body its head announces; None if it does not say."""
        raise NotImplementedError

    def awaited_out(self) -> int | None:
        """How many bytes of the response's body the peer waits for, by the head that it has."""
        # PEP 3333: the head goes out with the first of them.
        return self.declared_out() if self.bytes_out else None

    # The request's body.

    def body_read(
        self, size: int, now: float, *, at_end: bool, chunks_end: bytes | None = None
    ) -> bool:
        """The application has read a piece of the body.

        Args:
            size: The piece's length in bytes.
            now: The time.
            at_end: Whether the reading has found the stream's end.
            chunks_end: The last bytes that it has read of a body that the server passes on in its
                chunks; None if it decodes them.

        Returns:
            Whether the stream has ended before the body: call `body_ended`.
        """
        left = self.left
        if left is not None:
            if at_end and size < left and self.has_server_read():
                # No byte is missing on the connection.
                left = size
            self.left = left - size
            at_end = at_end and size < left
        self.bytes_in += size
        complete = at_end if left is None else size >= left
        if complete and left is None and chunks_end is not None:
            self.half_closed = complete = ends_chunks(chunks_end)
        if complete:
            self.body_complete = True
        if self.delivery is not None:
            tell_reading(self.delivery, size, at_end=at_end, complete=complete, now=now)
        return at_end and not complete

    def body_ended(
        self, now: float, *, size: int, asked: int | None, reader: str, failing: bool
    ) -> None:
        """The application has found the stream's end before the body's.

        Args:
            now: The time.
            size: How many bytes its reading has brought.
            asked: For how many it has asked; None or a negative number for all there are.
            reader: The module that has called the reading.
            failing: Whether another exception is being handled.

        Raises:
            TruncatedBodyError: Nobody else would notice. The error is marked as the client's.
        """
        status, departure = self.status, self.departure
        if not is_raised(
            asked=asked,
            left=None if self.left is None else self.left + size,
            reader=reader,
            begun=status is not None and is_refused(status),
            failing=failing,
            reset=departure is not None and departure.mechanism is Mechanism.RESET,
        ):
            self.ended_unnoticed = True
            self.body_truncated(now)
            return
        error = TruncatedBodyError(self.bytes_in, self.expected_in or 0)
        self.body_truncated(now, error)
        try:
            raise error
        finally:
            # Its traceback refers to this frame.
            del error

    def body_failed(self, error: Exception, now: float) -> None:
        """Reading the request's body raised.

        Args:
            error: What it raised.
            now: The time.
        """
        self.read_error = error
        mechanism = broken_off(error, self.server, self.how_gone)
        if mechanism is not None:
            self.peer_gone(Witness.INPUT, now, error, mechanism)
        if self.delivery is not None:
            self.delivery.reading_failed(error, now)

    def refusal(self, status: int) -> Answer | None:
        """What goes out in place of an answer that takes half a body for the whole.

        Args:
            status: The answer's status.

        Returns:
            None if that answer may go out.
        """
        if self.ended_unnoticed and is_refused(status):
            self.refused = True
            return answer_of(CUT_SHORT)
        return None

    # The response.

    def server_failed(
        self, witness: Witness, error: BaseException, now: float, through: int | None = None
    ) -> None:
        """The server raised, and the response did not go out because of it.

        Args:
            witness: Where it was seen.
            error: What it raised.
            now: The time.
            through: The id of an object of the application's own which the server used. An error
                that came through that is not the client's.
        """
        if is_loss(error, self.server.name, through):
            # The piece that it was sending.
            self.in_flight = self.bytes_out + 1
            self.peer_gone(witness, now, error, unsent=True)
            if self._is_sent_whole():
                # The server broke off in the last piece, before it could find out that it was.
                self.response_completed()

    def server_closes(
        self, error: BaseException | None, now: float, through: int | None = None
    ) -> Closing:
        """The server closes the response, for this reason if it is not its end.

        Args:
            error: What it was handling.
            now: The time.
            through: The id of a file of the application's that it has sent by itself.

        Returns:
            What is left to report.
        """
        self.closing = True
        if not self.ended:
            self.response_closed(error, now, through)
        is_exception = isinstance(error, Exception)
        if self.progress == COMPLETE and self.delivery is None:
            # An error that came out of the file is an upstream's, perhaps.
            return Closing(failed=error if is_exception and through is not None else None)
        # What ends an exchange from outside: a stopping worker, or a time limit.
        return Closing(open=True, outside=None if is_exception else error)

    def response_closed(
        self, error: BaseException | None, now: float, through: int | None = None
    ) -> None:
        """See what a closing says of the peer.

        It need not ask for pieces that the client does not want, or that exceed the length. If it
        gives no reason and has not asked for all that the client waits for, the client has left.

        Args:
            error: What it was handling.
            now: The time.
            through: The id of a file of the application's that it has sent by itself.
        """
        if isinstance(error, Exception):
            self.server_failed(Witness.CLOSE, error, now, through)
        elif error is None and self.progress not in (COMPLETE, GONE):
            if self._is_sent_whole():
                self.response_completed()
            else:
                self.peer_gone(Witness.CLOSE, now)

    def _is_sent_whole(self) -> bool:
        length = self.declared_out()
        return length is not None and self.bytes_out >= length

    # The end.

    def treatment(self, error: BaseException, side: Side) -> Treatment:
        """What the server would do with an exception of the application's."""
        lost = is_lost_midway(self.departure, begun=self.status is not None, closing=self.closing)
        return wsgi_treatment(self.known_server, error, answerable=not self.closing, lost=lost)

    def has_left(self, error: BaseException | None = None) -> bool:
        """Whether the client has left, for a line written before the exchange is over."""
        # Once it is over, an error is ours, and stands for one that has been judged.
        if self.departure is not None or error is None or self.stopping or self.ended:
            return super().has_left()
        return is_loss(error, self.server.name)
