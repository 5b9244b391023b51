"""REST: one Quart route for each operation of the table, what describes them all, and the two that say how we are.

A body is the request message as JSON, whatever the Content-Type says; an empty one is the default message. A GET
has its fields in the query. Every answer is JSON, errors included.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

import betterproto2 as proto
import trio
from hypercorn.typing import ASGIReceiveEvent
from quart import Response, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from impervious.server.closing import Closing
from impervious.server.commands import Route
from impervious.server.convert import STOPPING, Problem, problem
from impervious.server.guard import caller
from impervious.server.http.asgi import JSON_HEADERS, HttpCall, Receive, Send, WebScope, arrived, refuse
from impervious.server.http.bodies import Bodies, BodyRefused
from impervious.server.http.front import App, not_found, wrong_method
from impervious.server.openapi import OPENAPI
from impervious.server.operations import CallContext, Door, Operation
from impervious.server.options import Query, encoding_of, fields_of_query, is_extended
from impervious.server.readiness import Judged, readiness
from impervious.wire.json import Encoding, decode, encode

_HEADERS: Final = {name.decode(): value.decode() for name, value in JSON_HEADERS}

View = Callable[[], Awaitable[Response]]


def make_routes(
    operations: Sequence[Operation],
    commands: Sequence[Route],
    node: Judged,
    closing: Closing,
    *,
    document: Callable[[Encoding], bytes],
    bodies: Bodies,
) -> App:
    """Make the application behind `Front`.

    Args:
      operations: the table.
      commands: those of services that bring their own.
      node: asked for /readyz.
      closing: begins when calls that still run are to be answered that the daemon stops.
      document: writes the OpenAPI document for an encoding.
      bodies: those that are arriving.
    """
    # Its own name and folders are of no use here: nothing is read from disk.
    app = QuartTrio("impervious", static_folder=None, template_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = app.config["BODY_TIMEOUT"] = None  # bodies have arrived when it gets them
    app.url_map.strict_slashes = True
    app.url_map.merge_slashes = False
    for each in operations:
        _add(app, each.route, each.method, _view(each, closing))
    for command in commands:
        _add(app, command.path, "POST", _command_view(command, closing))
    _add(app, OPENAPI, "GET", _openapi(document))
    _add(app, "/healthz", "GET", _healthz)
    _add(app, "/readyz", "GET", _readyz(node))
    app.register_error_handler(HTTPException, _foreign_problem)
    app.register_error_handler(Exception, _any_problem)
    return _with_whole_bodies(app, bodies, frozenset(rule.rule for rule in app.url_map.iter_rules()))


def _add(app: QuartTrio, route: str, method: str, view: View) -> None:
    app.add_url_rule(route, endpoint=f"{method} {route}", view_func=view, methods=[method])


def _view(operation: Operation, closing: Closing) -> View:
    async def view() -> Response:
        call = arrived.get()
        body = await request.get_data(cache=False, as_text=False, parse_form_data=False)
        query = Query(call.query)
        if body or operation.has_body:
            query.check_once()
        else:
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
        query = Query(call.query)
        query.check_once()
        context = _context(call, query)
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
        query = Query(call.query)
        query.check_once()
        return _response(200, document(encoding_of(query, call.encoding)))

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


async def _foreign_problem(error: HTTPException) -> Response:
    await trio.lowlevel.checkpoint()
    path = arrived.get().path
    match error:
        case NotFound():
            return _problem_response(not_found(path))
        case MethodNotAllowed():
            return _wrong_method(path, error.valid_methods or ())
    return _problem_response(problem(error, path))


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


def _with_whole_bodies(app: QuartTrio, bodies: Bodies, paths: frozenset[str]) -> App:
    """Hand the application bodies that have arrived whole, and answer for those that do not.

    Paths are compared here, because Quart takes `//v1/sign` for `/v1/sign`.
    """

    async def with_whole_body(scope: WebScope, receive: Receive, send: Send) -> None:
        path = arrived.get().path
        if path not in paths:
            await refuse(send, not_found(path), is_websocket=False)
            return
        try:
            body = await bodies.read(arrived.get(), receive)
        except BodyRefused as refused:
            await refuse(send, refused.problem, is_websocket=False)
            return
        if body is None:
            return  # nobody waits for an answer
        given = False

        async def receive_whole() -> ASGIReceiveEvent:
            nonlocal given, body
            if given:
                return await receive()
            given, whole, body = True, body or b"", None
            await trio.lowlevel.checkpoint()
            return {"type": "http.request", "body": whole, "more_body": False}

        await app(scope, receive_whole, send)

    return with_whole_body
