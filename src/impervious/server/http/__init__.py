"""HTTP, REST and streams: ASGI applications, and what makes Hypercorn's HTTP/1.1 fit to face strangers."""
