"""The REST surface described for programs: an OpenAPI 3.1 document, made from the table that the routes are made from.

`messages` turns message types into schemas, by the rules of `wire.json`; `values` does it for the types of Python that
commands of services take and return; `document` puts the paths together.
"""

from typing import Final

OPENAPI: Final = "/openapi.json"
"""Where it is."""
