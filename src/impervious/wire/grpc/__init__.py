"""gRPC over HTTP/2 without I/O, both roles, on h2.

Bytes in, calls that changed out; calls in, bytes out. `headers` and `status` translate header lists, `framing` the
length-prefixed messages, `http2` tames h2, `connection` holds what both roles share (windows, backlog, GOAWAY),
`client` and `server` the rest. No clock, no socket, no task: `impervious.rpc` brings those. The protocol is
https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md on RFC 9113.
"""
