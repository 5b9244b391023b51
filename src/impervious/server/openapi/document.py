"""The OpenAPI document: a path for each row of the table, each command of a service, the stream, and the health checks.

It is written once for each encoding, because `msg` and `data` look different in them.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Final

from impervious.pb.websocket import SubscribeResponse
from impervious.server.commands import Route
from impervious.server.convert import HTTP_STATUSES
from impervious.server.descriptors import comments
from impervious.server.openapi import OPENAPI
from impervious.server.openapi.messages import Messages, Schema, Way, described
from impervious.server.openapi.values import PUBKEY, given, taken
from impervious.server.operations import Operation
from impervious.wire.json import Encoding, encode

_JSON: Final = "application/json"
_PROBLEM: Final[Schema] = {"$ref": "#/components/responses/Problem"}
_STATUS: Final[Schema] = {"$ref": "#/components/schemas/google.rpc.Status"}

_ABOUT: Final = """\
An application bus over Lightning. The same calls can be made over gRPC, and a server that you know nothing of describes
itself to grpcurl.

A body is the request as JSON, whatever its Content-Type says; an empty one is the default request. Names are taken in
lowerCamelCase and in snake_case, unknown ones are ignored, null stands for the default, numbers may be strings. Answers
hold every field; numbers of 64 bits are strings in them, because JavaScript's end at 2**53.

This document is for the {encoding} encoding, in which `msg` and `data` are {looks}. `?encoding=text|base64` chooses for
one request, also for this document.
"""
_LOOKS: Final = {Encoding.TEXT: "text", Encoding.BASE64: "base64, in either alphabet, with or without padding"}

_SUBSCRIBE: Final = """\
Every event of this node, in order. With an upgrade to a websocket: one text frame an event; what the client sends is
ignored. Without: one line of JSON an event, or server-sent events if the client accepts `text/event-stream`. A stream
that fails ends with `{"error": ...}`.
"""


class Document:
    """The document of a node.

    Args:
      operations: the table.
      commands: those of services that bring their own.
      known_types: service types that events can have.
    """

    def __init__(self, operations: Sequence[Operation], commands: Sequence[Route], known_types: Iterable[str]) -> None:
        self._operations = operations
        self._commands = commands
        self._known_types = sorted(known_types)
        self._made: dict[Encoding, bytes] = {}

    def as_json(self, encoding: Encoding) -> bytes:
        """Write the document, or return what was written for an earlier request."""
        if encoding not in self._made:
            self._made[encoding] = json.dumps(self._document(encoding), ensure_ascii=False, indent=1).encode()
        return self._made[encoding]

    def _document(self, encoding: Encoding) -> Schema:
        messages = Messages(encoding)
        paths: dict[str, Schema] = {}
        for row in self._operations:
            paths.setdefault(row.route, {})[row.method.lower()] = _operation(row, messages, encoding)
        for command in self._commands:
            paths[command.path] = {"post": _command(command, encoding)}
        paths["/v1/subscribe"] = {"get": self._subscribe(messages)}
        paths |= _about_the_daemon()
        return {
            "openapi": "3.1.0",
            "info": {
                "title": "Impervious",
                "version": version("impervious"),
                "summary": "An application bus over Lightning",
                "description": _ABOUT.format(encoding=encoding.value, looks=_LOOKS[encoding]),
                "license": {"name": "MIT", "identifier": "MIT"},
            },
            "servers": [{"url": "/"}],
            "tags": self._tags(),
            "paths": paths,
            "components": {
                "parameters": {**_PARAMETERS, "encoding": _encoding([encoding])},
                "responses": {"Problem": _problem()},
                "schemas": {"google.rpc.Status": _status(), **messages.schemas},
            },
        }

    def _tags(self) -> list[Schema]:
        services = dict.fromkeys(row.service_name for row in self._operations)
        tags: list[Schema] = [described({"name": name}, comments().get(name)) for name in services]
        tags.append(described({"name": "websocket.Websocket"}, comments().get("websocket.Websocket")))
        brought = dict.fromkeys(command.service_type for command in self._commands)
        tags.extend({"name": name, "description": f"Commands of the {name} service."} for name in brought)
        return [*tags, {"name": "daemon", "description": "How the daemon is."}]

    def _subscribe(self, messages: Messages) -> Schema:
        event = messages.reference(SubscribeResponse, Way.OUT)
        lines: Schema = {
            "description": "One line of the stream.",
            "oneOf": [
                {"type": "object", "properties": {"result": event}, "required": ["result"]},
                {"type": "object", "properties": {"error": _STATUS}, "required": ["error"]},
            ],
        }
        return {
            "operationId": "Websocket_Subscribe",
            "summary": "Stream events.",
            "description": _SUBSCRIBE,
            "tags": ["websocket.Websocket"],
            "parameters": [
                *_stream_parameters(self._known_types),
                *(_parameter(name) for name in ("encoding", "v")),
            ],
            "responses": {
                "101": {"description": "A websocket: each text frame holds what a line would."},
                "200": {
                    "description": "The stream, for as long as the client stays.",
                    "headers": {
                        "impervious-seq": {
                            "description": "The seq behind which the stream begins.",
                            "schema": {"type": "string"},
                        }
                    },
                    "content": {
                        _JSON: {"schema": lines},
                        "text/event-stream": {
                            "schema": {
                                "type": "string",
                                "description": "Events whose id is the seq and whose data is such a line.",
                            }
                        },
                    },
                },
                "default": _PROBLEM,
            },
        }


# --- Operations -------------------------------------------------------------------------------------------------------


def _operation(row: Operation, messages: Messages, encoding: Encoding) -> Schema:
    _, service, method = row.path.split("/")
    said = comments().get(f"{service}.{method}", "")
    parameters = [_parameter(name) for name in _parameters(row)]
    if not row.has_body:
        fields = messages.fields(row.request_type, Way.IN).items()
        parameters = [*(_query(name, str(field.pop("description", "")), field) for name, field in fields), *parameters]
    operation: Schema = {
        "operationId": f"{service.rpartition('.')[2]}_{method}",
        "summary": _first_sentence(said) or method,
        "description": f"{said}\n\ngRPC: `{row.path}`".strip(),
        "tags": [service],
        "parameters": parameters,
    }
    if row.has_body:
        schema = messages.reference(row.request_type, Way.IN, needs=row.needs)
        content: Schema = {"schema": schema, "example": example(row, encoding)}
        operation["requestBody"] = {"content": {_JSON: content}, "required": bool(row.needs)}
    answer = messages.reference(row.response_type, Way.OUT)
    operation["responses"] = {
        "200": {"description": "Done.", "content": {_JSON: {"schema": answer}}},
        "default": _PROBLEM,
    }
    return operation


def example(row: Operation, encoding: Encoding) -> Schema:
    """Write a row's example without what is as it would be anyway."""
    shown = json.loads(encode(row.example, encoding=encoding))
    plain = json.loads(encode(row.request_type(), encoding=encoding))
    return {name: value for name, value in shown.items() if value != plain.get(name)}


def _parameters(row: Operation) -> list[str]:
    names = ["encoding", "v"]
    if hasattr(row.request_type(), "wait"):
        names.insert(0, "wait")
    if row.keyed:
        names.append("idempotency-key")
    return names


def _command(command: Route, encoding: Encoding) -> Schema:
    schema: Schema = {
        "type": "object",
        "properties": {each.json_name: taken(each.hint, encoding) for each in command.parameters},
    }
    required = [each.json_name for each in command.parameters if each.required]
    if required:
        schema["required"] = required
    # A command that returns nothing answers with an empty object.
    nothing = command.answer in (None, type(None))
    answer: Schema = {"type": "object"} if nothing else given(command.answer, encoding)
    return {
        "operationId": command.path.removeprefix("/v1/x/").replace("/", "_"),
        "summary": _first_sentence(" ".join(command.description.split())) or command.path.rpartition("/")[2],
        "description": command.description,
        "tags": [command.service_type],
        "parameters": [_parameter(name) for name in ["encoding", "v", *(["idempotency-key"] if command.keyed else [])]],
        "requestBody": {"content": {_JSON: {"schema": schema}}, "required": bool(required)},
        "responses": {
            "200": {"description": "Done.", "content": {_JSON: {"schema": answer}}},
            "default": _PROBLEM,
        },
    }


def _first_sentence(text: str) -> str:
    first, found, _ = text.partition(". ")
    return first + "." if found else first


# --- What all have in common ------------------------------------------------------------------------------------------


def _query(name: str, description: str, schema: Schema) -> Schema:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _header(name: str, description: str, schema: Schema) -> Schema:
    return {"name": name, "in": "header", "description": description, "schema": schema}


_PARAMETERS: Final[Mapping[str, Schema]] = {
    "wait": _query(
        "wait", "Answer only after the outcome, with the error if it failed.", {"type": "boolean", "default": False}
    ),
    "v": _query(
        "v",
        "2: the client knows what was added to the API of 2021, so streams show it in text mode too, and they show what"
        " nobody proved to have sent.",
        {"type": "string", "enum": ["1", "2"], "default": "1"},
    ),
    "idempotency-key": _header(
        "Idempotency-Key",
        "Any text of 1 to 255 bytes: a call that is repeated with the same key sends and pays nothing again and gives"
        " the same answer. Calls without this parameter may be repeated without it, or refuse the header.",
        {"type": "string", "minLength": 1},
    ),
}


def _encoding(which: Iterable[Encoding]) -> Schema:
    return _query(
        "encoding",
        "How `msg` and `data` look, whatever the listener's own way is. For the other way there is another document.",
        {"type": "string", "enum": [each.value for each in which]},
    )


def _parameter(name: str) -> Schema:
    return {"$ref": f"#/components/parameters/{name}"}


def _stream_parameters(known_types: Sequence[str]) -> list[Schema]:
    seq: Schema = {"type": "integer", "format": "uint64", "minimum": 0}
    return [
        _query("since", "Only events with a higher seq; 0: everything kept; absent: live only.", seq),
        _query(
            "service_type",
            "Only events of these services.",
            {"type": "array", "items": {"type": "string", "enum": list(known_types)}},
        ),
        _query(
            "from",
            "Only events of these senders: public keys, or @imp_id of live peers.",
            {"type": "array", "items": _NODE},
        ),
        _header("Last-Event-ID", "As `since`, which it overrides: sent by browsers that reconnect.", seq),
    ]


_NODE: Final[Schema] = {"type": "string", "pattern": f"{PUBKEY}|^@."}


def _status() -> Schema:
    return {
        "type": "object",
        "description": "Why a call failed.",
        "properties": {
            "code": {
                "type": "integer",
                "description": "gRPC's code.",
                "enum": [code.value for code in HTTP_STATUSES if code.value],
            },
            "message": {"type": "string", "description": "A sentence that says what to do."},
            "details": {"type": "array"},
        },
        "required": ["code", "message", "details"],
    }


def _problem() -> Schema:
    rows = [f"- {code.value} {code.name}: {status}" for code, status in HTTP_STATUSES.items() if code.value]
    return {
        "description": "An error. Which HTTP status belongs to which code:\n\n" + "\n".join(rows),
        "content": {_JSON: {"schema": _STATUS}},
    }


def _about_the_daemon() -> dict[str, Schema]:
    alive: Schema = {"type": "object", "properties": {"alive": {"const": True}}, "required": ["alive"]}
    ready: Schema = {
        "type": "object",
        "properties": {
            "ready": {"type": "boolean"},
            "state": {"type": "string", "description": "`ready`, or what is missing."},
            "reason": {"type": "string", "description": "What is missing, and what cures it; empty when ready."},
        },
        "required": ["ready", "state", "reason"],
    }
    return {
        "/healthz": {"get": _check("healthz", "Whether the daemon is alive.", {"200": ("It is.", alive)})},
        "/readyz": {
            "get": _check(
                "readyz",
                "Whether the daemon can do its work now.",
                {"200": ("It can.", ready), "503": ("It cannot now.", ready)},
            )
        },
        OPENAPI: {"get": _check("openapi", "This document.", {"200": ("It.", {"type": "object"})})},
    }


def _check(name: str, summary: str, answers: Mapping[str, tuple[str, Schema]]) -> Schema:
    parameters = [_encoding(Encoding)] if name == "openapi" else []
    return {
        "operationId": name,
        "summary": summary,
        "tags": ["daemon"],
        "parameters": parameters,
        "responses": {
            **{
                status: {"description": text, "content": {_JSON: {"schema": schema}}}
                for status, (text, schema) in answers.items()
            },
            "default": _PROBLEM,
        },
    }
