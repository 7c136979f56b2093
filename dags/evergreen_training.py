"""Train, evaluate, promote if that is better, make the lists: on request, by the calendar, or by hand."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import run_tasks
import yaml
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import DAG, AssetOrTimeSchedule, Context, Param, TriggerRule, task
from notices import page_of, tell
from run_tasks import AS_OF, REQUEST, Promote, stage_tasks

STAGES = ("collect", "preprocess", "finetune", "evaluate", "decide_promotion", "recommend")
GRAPH = run_tasks.graph()
PARAMS = {
    "as_of": AS_OF,
    "mode": Param(
        "full",
        enum=["full", "refresh", "judge", "none"],
        title="Mode",
        description="`full` trains everything; `refresh` keeps the champion's text encoder; `judge` evaluates"
        " the last challenger again; `none` makes the lists alone. A request by the monitoring has its own.",
    ),
    "encoder": Param(
        None,
        type=["null", "string"],
        maxLength=300,
        title="Encoder",
        description="Instead of `finetune.encoder`: `package:NAME/SUBDIR`, a folder, or a hub id.",
    ),
    "epochs": Param(
        None,
        type=["null", "integer"],
        minimum=1,
        maximum=100,
        title="Epochs",
        description="Instead of `finetune.epochs`.",
    ),
    "reason": Param(
        None,
        type=["null", "string"],
        maxLength=500,
        title="Reason",
        description="Why; kept in `data/history`.",
    ),
}


def waits_for_person() -> bool:
    """Also where params.yaml cannot be read: the DAG stays, and a run's first task says what is wrong."""
    try:
        content = yaml.safe_load((run_tasks.REPO / "params.yaml").read_text(encoding="utf-8"))
        return bool(content["decide_promotion"]["approval"] != "auto")
    except (OSError, ValueError, yaml.YAMLError, LookupError, TypeError):
        return True


FIRST = {"none": "recommend", "judge": "evaluate"}
"""The first stage behind preprocess that a run of this mode needs; any other trains."""


@task.branch(
    doc_md="Goes on with what the run's mode asks for: without a training it waits for no slot of the pool"
    " `training`."
)
def choose(ti: Any) -> str:
    return FIRST.get(ti.xcom_pull(task_ids="open")["mode"], "finetune")


@task.short_circuit(
    ignore_downstream_trigger_rules=False,
    doc_md="Nobody is asked about a challenger that the checks refuse. The lists are made either way.",
)
def may_be_promoted(ti: Any) -> bool:
    return bool(ti.xcom_pull(task_ids="decide_promotion")["promote"])


@task(doc_md="Tells of a promotion: log, webhook, e-mail, as configured. Without one it only logs.")
def notify(ti: Any) -> None:
    done = ti.xcom_pull(task_ids="promote") or {}
    if done.get("promoted"):
        text = f"Run {ti.run_id}: {done['text']}\n{page_of(ti.dag_id, ti.run_id)}"
        tell(f"{done['promoted']} is the champion", text)
    else:
        print("nothing was promoted")


class Approval(ApprovalOperator):
    """Airflow's (3.3) keeps no answer but *Approve*: it skips what follows a *Reject* before it returns."""

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        kept = {key: event.get(key) for key in ("chosen_options", "responded_by_user")}
        context["ti"].xcom_push(key="return_value", value=kept)
        return super().execute_complete(context=context, event=event)


def approve() -> Approval:
    hours = GRAPH.stages["decide_promotion"].hints.get("approval_hours", 72)
    return Approval(
        task_id="approve",
        subject="Promote the challenger of {{ run_id }}?",
        body="{{ (ti.xcom_pull(task_ids='decide_promotion') or {}).get('question') }}\n\n"
        "[The run's page](" + run_tasks.LINK + ")",
        defaults="Reject",
        response_timeout=timedelta(hours=hours),
        doc_md="Waits for a person, since `decide_promotion.approval` is `human`; no worker waits with it. No"
        " answer in time means no. Who says yes is named in the run's record and in the registry.",
    )


with DAG(
    "evergreen_training",
    description="Trains, evaluates, promotes if that is better, and makes the lists",
    doc_md=run_tasks.documentation("evergreen_training"),
    schedule=AssetOrTimeSchedule(
        timetable=run_tasks.calendar(GRAPH.stages["finetune"].hints.get("schedule", "@monthly")),
        assets=[REQUEST],
    ),
    catchup=False,
    max_active_runs=16,  # those that wait for the pool hold up no run for lists alone
    params=PARAMS,
    default_args=run_tasks.DEFAULTS,
    tags=["evergreen", "recommender", "training"],
) as dag:
    human = waits_for_person()
    opened = run_tasks.open_run(GRAPH)
    passed_over = {"trigger_rule": TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS}
    options = dict.fromkeys(("evaluate", "decide_promotion", "recommend"), passed_over)
    stages = stage_tasks(GRAPH, STAGES, **options)
    promote = Promote(
        task_id="promote",
        ask=human,
        doc_md="Makes the challenger the champion if `reports/promotion.json` allows it, by a git tag, and"
        " updates the asset `champion`; skipped otherwise. A repeated or late run never replaces a champion"
        " that knows newer data.",
    )
    opened >> stages["collect"]
    opened >> choose() >> [stages[name] for name in ("finetune", "evaluate", "recommend")]
    if human:
        stages["decide_promotion"] >> may_be_promoted() >> approve() >> promote
    else:
        stages["decide_promotion"] >> promote
    published = run_tasks.publish_run()
    promote >> stages["recommend"] >> published >> notify()
    run_tasks.close_run(opened, [published])
