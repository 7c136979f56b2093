"""What goes to the event store: callers wait until it is durable, and share commits.

One thread writes. What arrives while it commits is one transaction after that, so a commit's wait for the
disk is paid once for all who wait. Impressions ride along, or are written a few times a second; nobody waits
for them.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass

from pipeline.serve.events import Impression, Row, Store, StoreError

log = logging.getLogger(__name__)
AT_ONCE = 512  # callers' batches in one transaction
MOST_WAITING = 20_000  # impressions beyond these are dropped, and counted
SHOW_SECONDS, RETRY_SECONDS = 0.25, 1.0  # between writes of impressions; after one that failed

Counts = tuple[int, int]


@dataclass(frozen=True)
class Job:
    rows: list[Row]
    done: Future[Counts]


class Erased(Exception):
    """Of a person who is forgotten nothing is kept."""


class Writer:
    def __init__(self, store: Store) -> None:
        self.store = store
        self.dropped = 0
        self._jobs: queue.SimpleQueue[Job | Impression | None] = queue.SimpleQueue()
        self._unshown: list[Impression] = []
        self._show_at = 0.0  # when the waiting impressions are written
        self._thread = threading.Thread(target=self._run, name="write", daemon=True)
        self._thread.start()

    def append(self, rows: list[Row]) -> Future[Counts]:
        """(accepted, duplicates) once they are durable; StoreError if they are not, Erased if somebody among
        them is forgotten."""
        job = Job(rows, Future())
        self._jobs.put(job)
        return job.done

    def show(self, impression: Impression) -> None:
        self._jobs.put(impression)

    def close(self) -> None:
        """Write what waits, then end."""
        self._jobs.put(None)
        self._thread.join(timeout=30)

    def _run(self) -> None:
        ended = False
        while not ended:
            jobs: list[Job] = []
            ended = self._sort(self._next(), jobs)
            while not ended and len(jobs) < AT_ONCE:
                try:
                    ended = self._sort(self._jobs.get_nowait(), jobs)
                except queue.Empty:
                    break
            if jobs:
                self._commit(jobs)
            if jobs or ended:
                self._show()

    def _next(self) -> Job | Impression | None:
        # Impressions wait for each other, or for the next events; those not written are tried again.
        while True:
            left = self._show_at - time.monotonic()
            if self._unshown and left <= 0:
                self._show()
                left = self._show_at - time.monotonic()
            try:
                return self._jobs.get(timeout=max(left, 0.001) if self._unshown else None)
            except queue.Empty:
                continue

    def _sort(self, work: Job | Impression | None, jobs: list[Job]) -> bool:
        if isinstance(work, Job):
            jobs.append(work)
        elif work is not None:
            if not self._unshown:
                self._show_at = time.monotonic() + SHOW_SECONDS
            self._unshown.append(work)
        return work is None

    def _commit(self, jobs: list[Job]) -> None:
        try:
            counts = self.store.append([job.rows for job in jobs])
        except Exception as error:  # whoever waits must hear of it, whatever it is
            told = error if isinstance(error, StoreError) else StoreError(f"event store: {error}")
            for job in jobs:
                job.done.set_exception(told)
            return
        for job, count in zip(jobs, counts, strict=True):
            if count is None:
                job.done.set_exception(Erased())
            else:
                job.done.set_result(count)

    def _show(self) -> None:
        if not self._unshown:
            return
        try:
            self.store.show(self._unshown)
            self._unshown = []
        except Exception as error:  # the thread must outlive it: feedback waits for it
            self._show_at = time.monotonic() + RETRY_SECONDS
            beyond = len(self._unshown) - MOST_WAITING
            if beyond > 0:
                self.dropped += beyond
                self._unshown = self._unshown[beyond:]
                log.warning("%d impressions dropped: %s", beyond, error)
