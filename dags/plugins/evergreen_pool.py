"""The pool `training`, in which dvc.yaml puts `finetune`: one training at a time, whichever run it is of.

A task whose pool does not exist would wait for ever, so the pool is made when the scheduler starts, unless
there is one: its slots are yours to change in Airflow (Admin, Pools).
"""

from __future__ import annotations

import logging
from typing import Any

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin

POOL = "training"
log = logging.getLogger(__name__)


class MakePool:
    @hookimpl
    def on_starting(self, component: Any) -> None:
        """Of tasks, which cannot reach the database, and of jobs: scheduler, triggerer, DAG processor."""
        if type(component).__name__ != "Job":
            return
        from airflow.models.pool import Pool
        from airflow.utils.session import create_session
        from sqlalchemy.exc import IntegrityError

        try:
            with create_session() as session:
                if Pool.get_pool(POOL, session=session) is None:
                    what = "Trainings of Evergreen at a time"
                    session.add(Pool(pool=POOL, slots=1, description=what, include_deferred=False))
        except IntegrityError:
            log.debug("another job has just made the pool %s", POOL)


class EvergreenPool(AirflowPlugin):
    name = "evergreen_pool"
    listeners = [MakePool()]  # noqa: RUF012 (Airflow's own shape)
