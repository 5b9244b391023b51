"""REST: one Quart route for each operation of the table, what describes them all, and the two that say how we are.

A body is the request message as JSON, whatever the Content-Type says; an empty one is the default message. A GET
has its fields in the query. Every answer is JSON, errors included.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

import betterproto2 as proto
import trio
from grpclib.const import Status
from hypercorn.typing import ASGIReceiveEvent, ASGISendEvent
from quart import Response, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound, RequestEntityTooLarge, RequestTimeout

from impervious.server.closing import Closing
from impervious.server.commands import Route
from impervious.server.convert import STOPPING, Problem, problem
from impervious.server.guard import caller
from impervious.server.http.asgi import JSON_HEADERS, HttpCall, Receive, Send, WebScope, arrived
from impervious.server.http.front import App, not_found, wrong_method
from impervious.server.openapi import OPENAPI
from impervious.server.operations import CallContext, Door, Operation
from impervious.server.options import Query, encoding_of, fields_of_query, is_extended
from impervious.server.readiness import Judged, readiness
from impervious.wire.json import Encoding, decode, encode

BODY_S: Final = 60
"""How long a body may take to arrive."""
LINGER_S: Final = 2.0
"""How long the rest of a refused body is read and thrown away: a socket closed on unread bytes would be reset, and the
client would see that instead of our answer."""

_HEADERS: Final = {name.decode(): value.decode() for name, value in JSON_HEADERS}

View = Callable[[], Awaitable[Response]]


def make_routes(
    operations: Sequence[Operation],
    commands: Sequence[Route],
    node: Judged,
    closing: Closing,
    *,
    document: Callable[[Encoding], bytes],
    max_body: int,
) -> App:
    """Make the application behind `Front`.

    Args:
      operations: the table.
      commands: those of services that bring their own.
      node: asked for /readyz.
      closing: begins when calls that still run are to be answered that the daemon stops.
      document: writes the OpenAPI document for an encoding.
      max_body: bytes of the largest body taken.
    """
    # Its own name and folders are of no use here: nothing is read from disk.
    app = QuartTrio("impervious", static_folder=None, template_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = max_body
    app.config["BODY_TIMEOUT"] = BODY_S
    app.url_map.strict_slashes = True
    app.url_map.merge_slashes = False
    for each in operations:
        _add(app, each.route, each.method, _view(each, closing))
    for command in commands:
        _add(app, command.path, "POST", _command_view(command, closing))
    _add(app, OPENAPI, "GET", _openapi(document))
    _add(app, "/healthz", "GET", _healthz)
    _add(app, "/readyz", "GET", _readyz(node))
    app.register_error_handler(HTTPException, _foreign_problem(max_body))
    app.register_error_handler(Exception, _any_problem)
    return _lingering(app)


def _add(app: QuartTrio, route: str, method: str, view: View) -> None:
    app.add_url_rule(route, endpoint=f"{method} {route}", view_func=view, methods=[method])


def _view(operation: Operation, closing: Closing) -> View:
    async def view() -> Response:
        call = arrived.get()
        body = await request.get_data(cache=False, as_text=False, parse_form_data=False)
        query = Query(call.query)
        if not (body or operation.has_body):
            body = fields_of_query(operation.request_type, query)
        context = _context(call, query)
        message = decode(operation.request_type, body, encoding=context.encoding)
        _ask_to_wait(message, query)
        with closing.wait() as running:
            answer = await operation.call(message, context)
        if running.cancelled_caught:
            return _response(STOPPING.http_status, STOPPING.body)
        return _response(200, encode(answer, encoding=context.encoding))

    return view


def _command_view(command: Route, closing: Closing) -> View:
    async def view() -> Response:
        call = arrived.get()
        body = await request.get_data(cache=False, as_text=False, parse_form_data=False)
        context = _context(call, Query(call.query))
        with closing.wait() as running:
            answer = await command.call(body, context)
        if running.cancelled_caught:
            return _response(STOPPING.http_status, STOPPING.body)
        return _response(200, answer)

    return view


def _context(call: HttpCall, query: Query) -> CallContext:
    return CallContext(
        door=Door.HTTP,
        principal=caller.get(),
        peer=call.peer,
        metadata=call.headers,
        idempotency_key=call.headers.get("idempotency-key"),
        encoding=encoding_of(query, call.encoding),
        extended=is_extended(query.one("v"), "?v="),
    )


def _ask_to_wait(message: proto.Message, query: Query) -> None:
    """Carry `?wait=true` over to the request; one that has no such field waits anyway."""
    if query.flag("wait") and hasattr(message, "wait"):
        message.wait = True


def _openapi(document: Callable[[Encoding], bytes]) -> View:
    async def view() -> Response:
        await trio.lowlevel.checkpoint()
        call = arrived.get()
        return _response(200, document(encoding_of(Query(call.query), call.encoding)))

    return view


async def _healthz() -> Response:
    await trio.lowlevel.checkpoint()
    return _response(200, b'{"alive":true}')


def _readyz(node: Judged) -> View:
    async def view() -> Response:
        await trio.lowlevel.checkpoint()
        found = readiness(node)
        return _response(200 if found.ready else 503, found.body)

    return view


def _response(status: int, body: bytes) -> Response:
    return Response(body, status=status, headers=_HEADERS)


# --- Errors -----------------------------------------------------------------------------------------------------------


def _foreign_problem(max_body: int) -> Callable[[HTTPException], Awaitable[Response]]:
    async def answer(error: HTTPException) -> Response:
        await trio.lowlevel.checkpoint()
        path = arrived.get().path
        match error:
            case NotFound():
                return _problem_response(not_found(path))
            case MethodNotAllowed():
                return _wrong_method(path, error.valid_methods or ())
            case RequestEntityTooLarge():
                text = f"the body has more than {max_body} bytes: send less (message.max_bytes bounds a message)"
                return _problem_response(Problem(code=Status.INVALID_ARGUMENT, message=text))
            case RequestTimeout():
                text = f"the body did not arrive within {BODY_S} s"
                return _problem_response(Problem(code=Status.DEADLINE_EXCEEDED, message=text))
        return _problem_response(problem(error, path))

    return answer


def _wrong_method(path: str, allowed: Iterable[str]) -> Response:
    usable = sorted(set(allowed) - {"HEAD", "OPTIONS"})
    response = _problem_response(wrong_method(arrived.get().method, path, " or ".join(usable)))
    response.headers["allow"] = ", ".join(sorted(allowed))
    return response


async def _any_problem(error: Exception) -> Response:
    await trio.lowlevel.checkpoint()
    return _problem_response(problem(error, arrived.get().path))


def _problem_response(found: Problem) -> Response:
    return _response(found.http_status, found.body)


def _lingering(app: QuartTrio) -> App:
    """Read a refused body to its end, within bounds, before the answer ends and with it the connection."""

    async def lingering(scope: WebScope, receive: Receive, send: Send) -> None:
        ended = trio.Event()

        async def receive_noting() -> ASGIReceiveEvent:
            event = await receive()
            if event["type"] != "http.request" or not event["more_body"]:
                ended.set()
            return event

        async def send_patiently(event: ASGISendEvent) -> None:
            if event["type"] == "http.response.body" and not event["more_body"]:
                with trio.move_on_after(LINGER_S):
                    await ended.wait()
            await send(event)

        await app(scope, receive_noting, send_patiently)

    return lingering
