"""Room for the connections that the configuration promises.

Most systems let a process have 1024 files open until it asks for more; a thousand subscribers and the database do not
fit into that.
"""

import logging
import resource
from typing import Final

logger = logging.getLogger(__name__)

SPARE_FILES: Final = 128
"""For the database, LND, and whatever else the process has open."""


def make_room(connections: int) -> None:
    """Raise the limit of open files as far as `connections` need it and the system allows it."""
    needed = connections + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, allowed), hard))
    except (OSError, ValueError) as error:  # macOS has limits beside the one it tells
        logger.debug("the limit of open files stays at %d: %s", soft, error)
        allowed = soft
    if allowed < needed:
        logger.warning(
            "only %d files can be open, so not all of %d connections (limits.subscribers) can be: raise `ulimit -n`",
            allowed,
            connections,
        )
