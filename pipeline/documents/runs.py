"""data/history/NAME/run.json: what one run of the loop was asked for, and what came of it."""

from __future__ import annotations

from typing import ClassVar, Literal

from pipeline.documents.base import Document, Moment


class RunRecord(Document):
    """A scheduler's run has `step` (the last begun), `error` (with what its last try failed), `looked`
    (whether anything was new), `trial` (another encoder or number of epochs was asked for), `approved_by`
    (who said yes to the promotion), `latest` (commit of the run that published last before) and `asked` (what
    it was begun with)."""

    remedy: ClassVar[str] = "remove the folder: no decision depends on it"

    run_id: str
    dag: str
    state: Literal["running", "success", "failed"]
    as_of: Moment | None = None
    champion: str | None = None  # before the run
    mode: Literal["none", "judge", "refresh", "full"] | None = None
    promoted: str | None = None
    approved_by: str | None = None
    commit: str | None = None
    branch: str | None = None
    started: Moment | None = None
    finished: Moment | None = None
    step: str | None = None
    error: str | None = None
    looked: bool | None = None
    trial: bool | None = None
    latest: str | None = None
    not_promoted: str | None = None  # why, where the checks allowed it
    challenger: str | None = None  # hash of the model that it judged, the only one that it may promote
    published: str | None = None  # commit
    reason: str | None = None
    asked: dict[str, str | int] | None = None
