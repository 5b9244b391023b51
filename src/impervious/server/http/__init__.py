"""HTTP, REST and streams: ASGI applications, and the adapter that runs them on Hypercorn's HTTP/1.1."""
