"""Take a traceback's text apart: find its exceptions, and what the frames of each show.

The proof of a client's departure is weaker here than in the middleware, which compares sockets:
the innermost frame outside the socket libraries must be a server's own, and every exception in the
text, however it came there, must be the client's. One that is not makes the whole text unclear.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Final

from cleanclose.core.blame.upstreams import LOST

__all__ = ["Frame", "Raised", "exceptions_in", "kind_of", "library_in"]

_FRAME: Final = re.compile(r'File "([^"]+)", line \d+(?:, in (.+))?')
_RAISED: Final = re.compile(r"([A-Za-z_][\w.<>]*)(?:: ?(.*))?$")
_GROUPS: Final = re.compile(r"^[ ]*[|+][-| +\d.]*")

_GROUP_NAMES: Final = frozenset({"ExceptionGroup", "BaseExceptionGroup"})
_SENTENCES: Final = ("During handling of the above", "The above exception was the direct")


@dataclasses.dataclass(frozen=True, slots=True)
class Frame:
    """One frame, as a traceback prints it.

    Args:
        path: The file, relative to its package's parent; unchanged where it lies in no package.
        function: The function's name.
        owner: ``stdlib``, the name of an installed package, or empty for the application's own.
        code: The line of code below it, if the traceback has it.
    """

    path: str
    function: str
    owner: str
    code: str = ""


@dataclasses.dataclass(slots=True)
class Raised:
    """One exception of a traceback.

    Args:
        name: Its class as printed: with its module, except for builtins.
        text: Its message.
        frames: Its frames, the innermost last.
    """

    name: str
    text: str
    frames: list[Frame]

    @property
    def short(self) -> str:
        """The class without its module."""
        return self.name.rpartition(".")[2]


class Role:
    """The part of the stack that each file belongs to."""

    NEUTRAL: Final = (
        # These stand between any code and a socket, whoever owns the socket.
        *("anyio/", "eventlet/", "gevent/", "greenlet/", "h11/", "httptools/", "sniffio/", "trio/"),
        *("uvloop/", "websockets/", "wsproto/", "h2/", "asgiref/"),
        *("aiohttp/http_writer.py", "aiohttp/http_websocket.py", "aiohttp/_websocket/"),
        *("aiohttp/base_protocol.py", "aiohttp/streams.py", "aiohttp/helpers.py"),
        *("tornado/iostream.py", "tornado/http1connection.py", "tornado/gen.py"),
        *("tornado/concurrent.py", "tornado/ioloop.py", "tornado/platform/"),
    )
    NEUTRAL_STDLIB: Final = (
        *("asyncio/", "_pyio.py", "codecs.py", "concurrent/", "contextlib.py", "functools.py"),
        *("selectors.py", "socket.py", "ssl.py", "tempfile.py", "threading.py", "contextvars.py"),
    )
    SERVERS: Final = (
        *("cheroot/", "daphne/", "granian/", "gunicorn/", "hypercorn/", "uvicorn/", "waitress/"),
        *("gevent/pywsgi.py", "gevent/baseserver.py", "gevent/server.py", "werkzeug/serving.py"),
        *("tornado/web.py", "tornado/httpserver.py", "aiohttp/web", "_granian/"),
        *("websockets/asyncio/server.py", "websockets/legacy/server.py", "websockets/sync/server"),
        *("websockets/server.py", "django/core/servers/basehttp.py"),
    )
    INPUTS: Final[Mapping[str, frozenset[str]]] = {
        # Frameworks' own streams over a request's body: the file, and the functions that read.
        "django/core/handlers/wsgi.py": frozenset({"_read_limited", "read", "readline"}),
        "werkzeug/wsgi.py": frozenset({"on_disconnect", "read", "readall", "readinto"}),
    }
    SERVERS_STDLIB: Final = ("http/server.py", "socketserver.py", "wsgiref/")
    CLIENTS: Final = (
        *("tornado/simple_httpclient", "tornado/tcpclient", "tornado/httpclient", "aiohttp/client"),
        *("aiohttp/connector", "websockets/client", "websockets/asyncio/client"),
        *("websockets/legacy/client", "websockets/sync/client"),
    )
    CLIENTS_STDLIB: Final = (
        *("http/client.py", "urllib/", "smtplib.py", "ftplib.py", "imaplib.py", "poplib.py"),
        *("xmlrpc/", "telnetlib.py", "nntplib.py"),
    )
    LIBRARIES: Final = frozenset(
        {
            *("aiohttp", "aiomysql", "aiormq", "amqp", "asyncpg", "botocore", "httpcore", "httpx"),
            *("kombu", "pika", "psycopg", "psycopg2", "pymongo", "pymysql", "redis", "requests"),
            *("urllib3", "websockets", "tornado", "sqlalchemy", "elasticsearch", "grpc"),
        }
    )


_CALLS_THE_APPLICATION: Final = re.compile(
    r"\bapp\(|application\(|\.wsgi\(|\bapp\b.*\(|await result|\bfor \w+ in\b|await inner"
)
"""Such a line in a server calls the application, even where the application shows no frames."""
_TALKS: Final = re.compile(r"read|recv|receive|parse|chunk|write|send|flush|finish|handshake")
"""Servers' functions that talk to a client, for tracebacks that show no code."""
_SERVES: Final = "_server_request_loop"
"""Tornado reads requests and responses with the same code; below this function, it reads
requests."""
_PARSES: Final = frozenset({"parse_headers", "_read_headers"})
"""Functions of `http.client` that `http.server` uses."""
_READS: Final = re.compile(
    r"read|recv|receive|parse|body|input|unreader|chunk|handle_one|next_request|handshake|stream"
)

_WORDS: Final = {
    # For each class, the place where its own framework raises it.
    "ClientDisconnect": ("starlette/requests.py", "starlette/responses.py"),
    "ClientDisconnected": ("uvicorn/", "waitress/", "werkzeug/"),
    "NoMoreData": ("gunicorn/",),
    "RequestAborted": ("django/core/handlers/asgi.py",),
    "UnreadablePostError": ("django/http/request.py",),
    "WebSocketDisconnect": ("starlette/websockets.py",),
    "WebSocketDisconnected": ("gunicorn/asgi/",),
}
_RESETS: Final = frozenset({"ConnectionResetError", "BrokenPipeError", "ConnectionAbortedError"})
_RESET_TEXT: Final = re.compile(
    r"\[Errno (?:104|32|103|54)\]|\((?:104|32|103|54), |[Cc]onnection reset by peer|Broken pipe"
    r"|EOF occurred in violation of protocol|unexpected end of file|bytes read on a total of"
    r"|[Cc]onnection lost|closing transport"
)
_BOTH: Final = frozenset(
    {
        *("StreamClosedError", "WebSocketClosedError", "ConnectionClosedError", "EOFError"),
        *("ConnectionClosedOK", "ClientConnectionResetError", "IncompleteReadError"),
        *("BrokenResourceError",),
    }
)
"""Words that fit either side: only frames can tell."""
_TOLD: Final = frozenset(
    {
        *("psycopg.OperationalError", "psycopg2.OperationalError", "psycopg2.InterfaceError"),
        *("pymysql.err.OperationalError", "pymysql.err.InterfaceError"),
        *("redis.exceptions.ConnectionError", "requests.exceptions.ConnectionError"),
        *("requests.exceptions.ChunkedEncodingError", "urllib3.exceptions.ProtocolError"),
        *("httpx.RemoteProtocolError", "httpcore.RemoteProtocolError"),
        *("asyncpg.exceptions._base.InterfaceError", "aiohttp.client_exceptions.ClientOSError"),
    }
)
"""Classes with other meanings as well: their text decides."""
_LOST_TEXT: Final = re.compile(
    r"server closed the connection|Lost connection to|gone away|connection (?:is|already) closed"
    r"|Connection aborted|[Ss]erver disconnected|connection was closed|ConnectionTerminated"
    r"|terminating connection|without (?:sending a )?response|incomplete chunked read"
    r"|closed by (?:server|the remote)|Error while (?:reading|writing)|Connection closed by server"
    r"|Response ended prematurely|consuming input failed|\((?:2006|2013|2055|1053|1927|4031),"
    r"|closed the connection|peer closed connection|IncompleteRead|\(0, ''\)"
)
_OWNERS: Final[Mapping[str, frozenset[str]]] = {
    short: frozenset(name.partition(".")[0] for name in LOST if name.rpartition(".")[2] == short)
    for short in ("ReadError", "WriteError", "ServerDisconnectedError", "StreamLostError")
}
"""For each class, without its module: the libraries that raise it for a lost connection."""
_NEVER_CONNECTED: Final = re.compile(
    r"[Cc]onnection refused|connecting to|could not|Name or service|\[Errno 111\]|Max retries"
    r"|connection failed|No route to host"
)


def exceptions_in(lines: Sequence[str]) -> list[Raised]:
    """Find the exceptions in a traceback's text, in the text's order: the outermost is the last.

    Args:
        lines: The traceback's lines, without prefixes.
    """
    found: list[Raised] = []
    frames: list[Frame] = []
    is_open = False
    for line in lines:
        text = _GROUPS.sub("", line).strip() if line.lstrip()[:1] in ("|", "+") else line.strip()
        if text.endswith("Traceback (most recent call last):"):
            frames, is_open = [], True
            continue
        if not is_open or not text:
            continue
        frame = _FRAME.match(text)
        if frame is not None:
            frames.append(_frame(frame[1], frame[2] or ""))
        elif line[:1].isspace() and line.lstrip()[:1] not in ("|", "+"):
            _add_code(frames, text)
        elif not text.startswith(_SENTENCES):
            raised = _RAISED.match(text)
            if raised is None or " " in raised[1]:
                _add_code(frames, text)
            elif frames or found or raised[1]:
                found.append(Raised(raised[1], raised[2] or "", frames))
                frames, is_open = [], False
    return found


def _add_code(frames: list[Frame], text: str) -> None:
    if frames and not frames[-1].code and not text.startswith(("^", "~", "[Previous line")):
        frames[-1] = dataclasses.replace(frames[-1], code=text)


def _frame(file: str, function: str) -> Frame:
    for folder in ("site-packages/", "dist-packages/"):
        before, found, path = file.rpartition(folder)
        if found:
            return Frame(path, function, path.partition("/")[0].removesuffix(".py"))
        del before
    path = re.sub(r"^.*?(?:stdlib/|/lib(?:64)?/python3\.\d+/)", "", file)
    if path != file or file.startswith("<frozen"):
        return Frame(path, function, "stdlib")
    if file.endswith(".pyx"):
        path = file.removeprefix("src/")
        return Frame(path, function, path.partition("/")[0])
    return Frame(file, function, "")


def kind_of(raised: Sequence[Raised], *, is_whole: bool) -> str | None:
    """Find the name of a traceback's kind.

    Args:
        raised: Its exceptions.
        is_whole: Whether all of the traceback is there.

    Returns:
        A name in `KINDS`; None if the traceback is not about a broken connection.
    """
    parts: list[str | None] = []
    behind: str | None = None
    for each in reversed([each for each in raised if each.short not in _GROUP_NAMES]):
        part = _part(each)
        if part == "python_unproven" and _is_a_transports(each) and _is_clients(behind):
            # A transport raised it on its own; the outcome shows whose transport it was.
            part = behind
        parts.append(part)
        behind = part
    if not any(parts):
        return None
    if all(map(_is_clients, parts)):
        return parts[0] if is_whole else "python_unproven"
    if "python_upstream" in parts:
        return "python_upstream"
    return "python_mixed" if any(map(_is_clients, parts)) else "python_unproven"


def _is_clients(part: str | None) -> bool:
    return part is not None and part.startswith("python_client")


def _is_a_transports(raised: Raised) -> bool:
    is_either = raised.short in _RESETS or raised.short in _BOTH
    return is_either and all(
        _is_neutral(frame) and not frame.path.startswith(Role.CLIENTS) for frame in raised.frames
    )


def _part(raised: Raised) -> str | None:
    """Find out what one exception shows; None if it is not about a connection."""
    inner = next((frame for frame in reversed(raised.frames) if not _is_neutral(frame)), None)
    if raised.short in _WORDS:
        is_own = inner is not None and inner.path.startswith(_WORDS[raised.short])
        return "python_client_word" if is_own else "python_unproven"
    if _is_uwsgis(raised):
        return "python_client_write" if "write" in raised.text else "python_client_read"
    is_reset = (
        raised.short in _RESETS
        or raised.short in _BOTH
        or (raised.short.endswith("Error") and _RESET_TEXT.search(raised.text) is not None)
    )
    if _is_lost(raised) or (is_reset and _is_a_client_librarys(raised, inner)):
        return "python_upstream"
    if not is_reset:
        return None
    if inner is None or not _is_servers(inner, raised):
        return "python_unproven"
    is_read = _READS.search(inner.function) or _READS.search(inner.code)
    return "python_client_read" if is_read else "python_client_write"


def _is_lost(raised: Raised) -> bool:
    """Whether a client library raised its own class for a lost connection."""
    if raised.name not in LOST:
        # granian prints classes without their modules: the frames must name the library.
        return "." not in raised.name and any(
            frame.owner == owner
            for frame in raised.frames[-2:]
            for owner in _OWNERS.get(raised.name, ())
        )
    if raised.short in _BOTH:
        return False
    if raised.name not in _TOLD:
        return raised.name != "http.client.IncompleteRead" or bool(raised.frames)
    if _NEVER_CONNECTED.search(raised.text):
        return False
    return bool(_LOST_TEXT.search(raised.text) or _RESET_TEXT.search(raised.text))


def _is_neutral(frame: Frame) -> bool:
    if frame.owner == "stdlib":
        is_shared = frame.path == "http/client.py" and frame.function in _PARSES
        return is_shared or frame.path.startswith(Role.NEUTRAL_STDLIB)
    if not frame.owner or frame.path.startswith((*Role.SERVERS, *Role.CLIENTS)):
        return False
    return frame.path.startswith(Role.NEUTRAL) and frame.function != _SERVES


def _is_servers(inner: Frame, raised: Raised) -> bool:
    """Whether the innermost frame is a server's own, at a place where it talks to its client."""
    if any(frame.path.startswith(Role.CLIENTS) for frame in raised.frames if frame.owner):
        return False
    if not inner.owner:
        return _is_tornados_handler(raised)
    if inner.owner == "stdlib":
        is_server = inner.path.startswith(Role.SERVERS_STDLIB)
    else:
        is_server = (
            inner.path.startswith(Role.SERVERS)
            or inner.function == _SERVES
            or inner.function in Role.INPUTS.get(inner.path, ())
        )
    if not inner.code:
        return is_server and _TALKS.search(inner.function) is not None
    return is_server and not _CALLS_THE_APPLICATION.search(inner.code)


_FLUSHES: Final = re.compile(r"(?:await |yield )?self\.(?:flush|finish|write_message)\(")


def _is_tornados_handler(raised: Raised) -> bool:
    """Whether a Tornado handler, called by Tornado, awaits its own response."""
    kept = [frame for frame in raised.frames if not _is_neutral(frame)]
    while kept and kept[-1].owner:
        kept.pop()
    return (
        len(kept) > 1
        and kept[-2].path.startswith("tornado/web")
        and _FLUSHES.match(kept[-1].code) is not None
        and raised.short in ("StreamClosedError", "WebSocketClosedError")
    )


def _is_a_client_librarys(raised: Raised, inner: Frame | None) -> bool:
    """Whether the frames go through a library that makes connections of its own."""
    if any(frame.path.startswith(Role.CLIENTS) for frame in raised.frames if frame.owner):
        return True
    if inner is None:
        return False
    if inner.owner == "stdlib":
        return inner.path.startswith(Role.CLIENTS_STDLIB)
    shared = {"tornado", "websockets", "aiohttp"}
    return inner.owner in Role.LIBRARIES - shared


def _is_uwsgis(raised: Raised) -> bool:
    if raised.name not in ("OSError", "IOError"):
        return False
    return raised.text == "write error" or (
        raised.text.startswith("error during read") and raised.text.endswith("on wsgi.input")
    )


def library_in(raised: Sequence[Raised]) -> str | None:
    """Find the innermost client library that a traceback goes through.

    Args:
        raised: Its exceptions.
    """
    for each in raised:
        for frame in reversed(each.frames):
            if frame.owner == "stdlib" and frame.path.startswith(Role.CLIENTS_STDLIB):
                return frame.path.removesuffix(".py").replace("/", ".")
            if frame.owner in Role.LIBRARIES and not frame.path.startswith(Role.SERVERS):
                return frame.owner
        package = each.name.partition(".")[0]
        if package in Role.LIBRARIES:
            return package
    return None
