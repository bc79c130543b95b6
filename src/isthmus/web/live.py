"""Live progress: one watcher looks at the store, every open page hears of it by server-sent events."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.concurrency import run_in_threadpool

from isthmus.core.errors import IsthmusError
from isthmus.web.jobs import Jobs
from isthmus.web.library import Library

# How often the store is looked at, and the share of one core that looking may take.
_EVERY, _SHARE = 1.0, 0.05
# A line now and then keeps connections open and tells us of those that went away.
_HEARTBEAT = 15.0


class Live:
    """Tells all listeners when something changed."""

    def __init__(self, library: Library, jobs: Jobs, *, every: float = _EVERY) -> None:
        self.library, self.jobs, self.every = library, jobs, every
        self._changed = asyncio.Condition()
        self._number = 0
        self._message = ""
        self._closed = False

    async def watch(self) -> None:
        """Look at the store until cancelled."""
        while True:
            began = time.monotonic()
            # The store may be on its way to another place; readers keep what they have.
            with contextlib.suppress(IsthmusError, OSError):
                await run_in_threadpool(self.library.refresh)
            took = time.monotonic() - began
            await self._tell(json.dumps(self.state()))
            await asyncio.sleep(max(self.every, took / _SHARE))

    def state(self) -> dict[str, Any]:
        """What listeners are told."""
        studies = [
            {
                "name": state.name,
                "share": round(state.share, 4),
                "present": state.present,
                "total": len(state.keys),
                "running": state.running,
            }
            for state in self.library.studies()
        ]
        jobs = [{"id": job.id, "state": job.state, "said": job.said()} for job in self.jobs.all()]
        return {"version": self.library.version, "studies": studies, "jobs": jobs}

    async def events(self) -> AsyncIterator[str]:
        """Every change as one event, the present state first."""
        heard = -1
        while not self._closed:
            async with self._changed:
                if self._number == heard:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._changed.wait(), _HEARTBEAT)
                number, message = self._number, self._message
            if number != heard and message:
                heard = number
                yield f"data: {message}\n\n"
            else:
                heard = number
                yield ": still here\n\n"

    async def close(self) -> None:
        """Let all listeners go."""
        async with self._changed:
            self._closed = True
            self._changed.notify_all()

    async def _tell(self, message: str) -> None:
        async with self._changed:
            if message != self._message:
                self._number, self._message = self._number + 1, message
                self._changed.notify_all()
