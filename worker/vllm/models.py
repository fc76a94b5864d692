"""The models in the memory of a vLLM server: its base, and adapters that are loaded on demand.

Everything happens in the event loop; loads run one after another.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import PurePosixPath

from core.engine.policy.residency import Tally
from core.errors import Unavailable
from core.spec.bundle import BundleRef
from worker.vllm.server import Served, VllmServer

NAME_PREFIX = "tunesmith-"
"""Precedes the hash of a bundle. Adapters with other names belong to other clients."""


class ServedModels:
    """Tracks the loaded adapters, and unloads the least recently used ones above `capacity`."""

    def __init__(self, server: VllmServer, folder: PurePosixPath, capacity: int) -> None:
        self.tally = Tally()
        self._server = server
        self._folder = folder
        self._capacity = capacity
        self._served: Served | None = None
        self._loaded: dict[str, None] = {}  # by name, least recently used first
        self._users: Counter[str] = Counter()
        self._changing = asyncio.Lock()

    @property
    def adapters(self) -> list[str]:
        """The hashes of the bundles that are loaded."""
        return [name.removeprefix(NAME_PREFIX) for name in self._loaded]

    @property
    def context_length(self) -> int:
        """The context of the base in tokens; Unavailable until the server has been queried."""
        if self._served is None:
            raise Unavailable("The vLLM server was not queried yet.", code="engine_unavailable")
        return self._served.context_length

    def forget(self) -> None:
        """Query the server again before its next use, because it may have restarted."""
        self._served = None

    async def base(self) -> str:
        """Return the name of the base; queries the server if necessary."""
        if self._served is None:
            async with self._changing:
                if self._served is None:
                    await self._query()
        assert self._served is not None
        return self._served.base

    @asynccontextmanager
    async def holding(self, bundle: BundleRef | None) -> AsyncIterator[str]:
        """Load a model (None: the base), and keep it loaded until the block ends.

        Yields its name. The bundle must already be unpacked in the folder.
        """
        base = await self.base()
        if bundle is None:
            yield base
            return
        name = NAME_PREFIX + bundle.sha256
        self._users[name] += 1
        try:
            if name not in self._loaded:
                async with self._changing:
                    if name not in self._loaded:
                        await self._load(name, bundle)
            self._loaded[name] = self._loaded.pop(name, None)
            yield name
        finally:
            self._users[name] -= 1
            if not self._users[name]:
                del self._users[name]

    async def _query(self) -> None:
        """Ask the server for its models; after a restart it has no adapters."""
        served = await self._server.served()
        ours = [name for name in served.adapters if name.startswith(NAME_PREFIX)]
        self._loaded = {name: None for name in self._loaded if name in ours} | dict.fromkeys(ours)
        self._served = served

    async def _load(self, name: str, bundle: BundleRef) -> None:
        await self._server.load_adapter(name, self._folder / bundle.sha256)
        self.tally.loads += 1
        self._loaded[name] = None
        while len(self._loaded) > self._capacity:
            idle = next((each for each in self._loaded if not self._users[each]), None)
            if idle is None:
                return  # all are in use; the next load tries again
            del self._loaded[idle]
            await self._server.unload_adapter(idle)
            self.tally.evictions += 1
