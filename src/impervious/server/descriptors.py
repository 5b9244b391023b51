"""What our services and messages look like in .proto files: protoc's descriptor set, comments included.

betterproto2's classes know neither their file nor its comments, so both are read from the set that `just proto` writes
beside them. Services of third parties add their own sets, or classes of google.protobuf, which carry theirs.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError

logger = logging.getLogger(__name__)

_MESSAGES: Final = FileDescriptorProto.MESSAGE_TYPE_FIELD_NUMBER
_SERVICES: Final = FileDescriptorProto.SERVICE_FIELD_NUMBER
_FIELDS: Final = DescriptorProto.FIELD_FIELD_NUMBER
_NESTED: Final = DescriptorProto.NESTED_TYPE_FIELD_NUMBER
_METHODS: Final = 2
"""ServiceDescriptorProto.method; with the four above, the steps of a comment's path (descriptor.proto, Location)."""

Path = tuple[int, ...]


@cache
def published() -> FileDescriptorSet:
    """Read the set of everything in proto/."""
    return FileDescriptorSet.FromString(files("impervious.pb").joinpath("descriptors.bin").read_bytes())


class CommentedFile:
    """A file as grpclib's reflection service copies it, with the comments that a pool forgets."""

    def __init__(self, file: FileDescriptorProto) -> None:
        self._file = file

    def CopyToProto(self, proto: FileDescriptorProto) -> None:
        """Fill `proto`."""
        proto.CopyFrom(self._file)


class Descriptors:
    """A pool of descriptors: what grpclib's reflection service asks of one, and ways to fill it."""

    def __init__(self) -> None:
        self._pool = DescriptorPool()
        self._files: dict[str, FileDescriptorProto] = {}
        self._file_names: dict[str, str] = {}
        """Symbol -> file: the pool finds no methods."""

    def add_set(self, serialized: bytes, source: str) -> None:
        """Add a descriptor set, as `protoc --descriptor_set_out --include_imports` writes it.

        Args:
          serialized: the set. What cannot be used of it is left out, and logged.
          source: for the log: whose it is.
        """
        try:
            found = FileDescriptorSet.FromString(serialized)
        except DecodeError:
            logger.warning("%s: its descriptors are no FileDescriptorSet: gRPC reflection goes without them", source)
            return
        self.add_files(found.file, source)

    def add_files(self, found: Iterable[FileDescriptorProto], source: str) -> None:
        """Add files, each after those that it imports."""
        for file in found:
            if file.name in self._files:
                if not _alike(self._files[file.name], file):
                    logger.warning("%s: %s is another file here: gRPC reflection shows that one", source, file.name)
                continue
            try:
                self._pool.Add(file)
            except TypeError as error:  # names taken by another file, or an import that is not there
                logger.warning("%s: gRPC reflection goes without %s: %s", source, file.name, error)
                continue
            self._files[file.name] = file
            self._file_names |= {f"{file.package}.{name}": file.name for _, name in _names(file)}

    def add_file_of(self, service: str, types: Iterable[type]) -> None:
        """Add the file that defines a service, where its message types are classes of google.protobuf.

        Args:
          service: full name, such as "kv.KeyValue".
          types: what its methods take and return.
        """
        for each in types:
            descriptor = getattr(each, "DESCRIPTOR", None)
            if isinstance(descriptor, Descriptor):
                try:
                    file = descriptor.file.pool.FindServiceByName(service).file
                except KeyError:  # messages of one file, a service written by hand
                    file = descriptor.file
                self.add_files(map(_proto_of, _with_imports(file)), service)

    def FindFileByName(self, name: str) -> CommentedFile:
        """Look a file up; KeyError if there is none."""
        return CommentedFile(self._files[name])

    def FindFileContainingSymbol(self, symbol: str) -> CommentedFile:
        """Look the file up that defines a service, a method, a message or a field; KeyError if there is none."""
        name = self._file_names.get(symbol) or self._pool.FindFileContainingSymbol(symbol).name
        return self.FindFileByName(name)

    def FindMessageTypeByName(self, full_name: str) -> Descriptor:
        """Look a message type up; KeyError if there is none."""
        return self._pool.FindMessageTypeByName(full_name)

    def FindExtensionByNumber(self, message: Descriptor, number: int) -> FieldDescriptor:
        """Look an extension up; KeyError if there is none."""
        return self._pool.FindExtensionByNumber(message, number)

    def FindAllExtensions(self, message: Descriptor) -> Sequence[FieldDescriptor]:
        """List the extensions of a message type."""
        return self._pool.FindAllExtensions(message)


def _alike(one: FileDescriptorProto, other: FileDescriptorProto) -> bool:
    return _bare(one) == _bare(other)


def _bare(file: FileDescriptorProto) -> FileDescriptorProto:
    bare = FileDescriptorProto()
    bare.CopyFrom(file)
    bare.ClearField("source_code_info")
    return bare


def _with_imports(file: FileDescriptor) -> Iterator[FileDescriptor]:
    for each in file.dependencies:
        yield from _with_imports(each)
    yield file


def _proto_of(file: FileDescriptor) -> FileDescriptorProto:
    proto = FileDescriptorProto()
    file.CopyToProto(proto)
    return proto


# --- Names and comments -----------------------------------------------------------------------------------------------


@cache
def comments() -> Mapping[str, str]:
    """Give the comments of our files by what they stand before, such as "messaging.SendMessageRequest.msg"."""
    return {name: text for file in published().file for name, text in _comments_of(file)}


def _comments_of(file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    names = dict(_names(file))
    for location in file.source_code_info.location:
        name, text = names.get(tuple(location.path)), " ".join(location.leading_comments.split())
        if name and text:
            yield f"{file.package}.{name}", text


def _names(file: FileDescriptorProto) -> Iterator[tuple[Path, str]]:
    for index, message in enumerate(file.message_type):
        yield from _message_names(message, (_MESSAGES, index), message.name)
    for index, service in enumerate(file.service):
        path = (_SERVICES, index)
        yield path, service.name
        for number, method in enumerate(service.method):
            yield (*path, _METHODS, number), f"{service.name}.{method.name}"


def _message_names(message: DescriptorProto, path: Path, name: str) -> Iterator[tuple[Path, str]]:
    yield path, name
    for index, field in enumerate(message.field):
        yield (*path, _FIELDS, index), f"{name}.{field.name}"
    for index, nested in enumerate(message.nested_type):
        yield from _message_names(nested, (*path, _NESTED, index), f"{name}.{nested.name}")
