"""What the asset `events` is watched with: it hears of every N new events in the service's event store.

EVERGREEN_EVENTS is the store's address, as the service has it (docs/serving.md); it is read where the
triggerer runs, so that no password gets into Airflow's database. Airflow keeps up to which event was told, so
a restart tells of nothing twice. A store that does not answer is asked again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

ENVIRONMENT, TOLD = "EVERGREEN_EVENTS", "told"


class NewEvents(BaseEventTrigger):
    """Its events say `{"events": how many are new, "newest": the number of the last}`."""

    def __init__(self, every: int, poke_interval: float = 10.0) -> None:
        super().__init__()
        self.every, self.poke_interval = every, poke_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return "evergreen_events.NewEvents", {"every": self.every, "poke_interval": self.poke_interval}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        store = self.asset_state_store
        told = int(await store.aget(TOLD, 0)) if store is not None else 0
        while True:
            try:
                events, newest = await asyncio.to_thread(beyond, os.environ.get(ENVIRONMENT, ""), told)
            except Exception as error:  # the watch goes on, whatever happens to a database
                self.log.warning("%s: %s", ENVIRONMENT, str(error).splitlines()[0])
                events = 0
            if events >= self.every:
                yield TriggerEvent({"events": events, "newest": newest})
                told = newest
                if store is not None:  # behind the event: one that is told twice does less harm than none
                    await store.aset(TOLD, told)
            await asyncio.sleep(self.poke_interval)


def beyond(url: str, told: int) -> tuple[int, int]:
    """(events with greater numbers, the greatest number); none where no service has run yet."""
    import sqlalchemy as sa

    address = sa.make_url(os.path.expandvars(url))
    if address.get_backend_name() == "sqlite" and not Path(address.database or "").is_file():
        return 0, told  # a connection would make the file
    engine = sa.create_engine(address, poolclass=sa.pool.NullPool)
    with engine.connect() as connection:
        if not sa.inspect(connection).has_table("evergreen_events"):
            return 0, told
        query = sa.text("SELECT count(*), max(seq) FROM evergreen_events WHERE seq > :told")
        events, newest = connection.execute(query, {"told": told}).one()
    return int(events), int(newest or told)
