"""Messages as JSON, by the rules of a gRPC gateway (proto3 JSON).

Requests come from strangers, and betterproto2's own reader lets 1.5 pass for 1 and bad base64 for nothing: here every
value is checked against its field, and the error names the field and what to do. Unknown fields are ignored, null means
default. Answers and events carry every field, default or not, except those that can be absent and are.

For each type of message the names, readers and writers of its fields are worked out once.
"""

from impervious.wire.json.fields import Encoding
from impervious.wire.json.reading import decode
from impervious.wire.json.writing import encode

__all__ = ("Encoding", "decode", "encode")
