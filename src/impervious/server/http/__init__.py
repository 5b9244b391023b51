"""HTTP, REST and streams: ASGI applications, and a server of HTTP/1.1 that runs them on Trio."""
