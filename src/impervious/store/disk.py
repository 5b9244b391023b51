"""How the disk and the file of an open database are, looked at from time to time and off the event loop."""

import logging
import shutil
from pathlib import Path
from typing import Final, NoReturn

import trio

from impervious.errors import StoreFull, StoreReplaced
from impervious.store.database import Store, ThreadRunner

logger = logging.getLogger(__name__)

LOOK_S: Final = 1.0
"""How often, while somebody can ask for readiness."""
LOOK_SELDOM_S: Final = 60.0


class Disk:
    """What was seen when it was last looked at.

    Args:
      store: the open database. *Ownership:* stays with the caller.
      path: its file.
      run_sync: runs what blocks: a disk that hangs must not hang the node.
    """

    def __init__(self, store: Store, path: Path, *, run_sync: ThreadRunner) -> None:
        self._store = store
        self.folder = path.parent
        self._run_sync = run_sync
        self._thread = trio.CapacityLimiter(1)
        self.free_bytes = 0
        self.replaced: str | None = None
        """Why the file cannot be written, whatever room there is; None: it can."""

    async def look(self) -> None:
        """Measure the room, and see that the file is still the one that was opened.

        Raises:
          StoreError: the database cannot be used.
        """
        before = self.replaced
        try:
            self.free_bytes = await self._run_sync(self._free, limiter=self._thread)
            await self._store.check()
            self.replaced = None
        except OSError as error:
            self.replaced = f"the folder of the database cannot be looked at: {self.folder}: {error.strerror}"
        except StoreFull as error:
            self.replaced = str(error) if isinstance(error, StoreReplaced) else None
        if self.replaced and self.replaced != before:
            logger.error("%s", self.replaced)
        elif before and not self.replaced:
            logger.warning("the database is where it was again: what waited goes on")

    def _free(self) -> int:
        return shutil.disk_usage(self.folder).free

    async def keep_looking(self, *, every_s: float) -> NoReturn:
        """Look again and again.

        Raises:
          StoreError: the database cannot be used.
        """
        while True:
            await trio.sleep(every_s)
            await self.look()
