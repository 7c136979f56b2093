"""Is it time to train again? Looks for new data and drift, decides, requests a training or says why not."""

from __future__ import annotations

import os
from typing import Any

import run_tasks
from airflow.sdk import DAG, Asset, AssetOrTimeSchedule, AssetWatcher, task
from run_tasks import AS_OF, RequestTraining, stage_tasks

STAGES = ("collect", "detect_drift", "decide_retraining", "preprocess", "recommend")
GRAPH = run_tasks.graph()


@task.branch(
    doc_md="Requests a training if one is due. Otherwise the lists alone are made: they use new histories,"
    " users and items, the model is unchanged."
)
def choose(ti: Any) -> str:
    decision = ti.xcom_pull(task_ids="decide_retraining")
    print(decision["text"])
    return "preprocess" if decision["mode"] == "none" else "request_training"


def schedule() -> Any:
    """As dvc.yaml says; and by events, where EVERGREEN_EVENTS names the store that has them."""
    hints = GRAPH.stages["detect_drift"].hints
    cron, every = hints.get("schedule"), hints.get("new_events")
    calendar = run_tasks.calendar(cron) if cron else None
    if not every or not os.environ.get("EVERGREEN_EVENTS"):
        return calendar
    from evergreen_events import NewEvents

    watched = AssetWatcher(name="new_events", trigger=NewEvents(every))
    events = Asset(name="events", uri="evergreen://events", watchers=[watched])
    return AssetOrTimeSchedule(timetable=calendar, assets=[events]) if calendar else [events]


with DAG(
    "evergreen_monitoring",
    description="Looks for new data and drift, decides, and requests a training or says why not",
    doc_md=run_tasks.documentation("evergreen_monitoring"),
    schedule=schedule(),
    catchup=False,
    max_active_runs=4,
    params={"as_of": AS_OF},
    default_args=run_tasks.DEFAULTS,
    tags=["evergreen", "recommender", "monitoring"],
) as dag:
    opened = run_tasks.open_run(GRAPH)
    stages = stage_tasks(GRAPH, STAGES)
    published = run_tasks.publish_run()
    request = RequestTraining(
        task_id="request_training",
        doc_md="Publishes the evidence on a branch and updates the asset `retraining_requested`, with"
        " `as_of`, mode and reasons. `evergreen_training` starts from it.",
    )
    opened >> stages["collect"]
    stages["decide_retraining"] >> choose() >> [request, stages["preprocess"]]
    stages["recommend"] >> published
    run_tasks.close_run(opened, [request, published])
