"""One row of each table with an owner, all of the project `alpha`."""

from sqlalchemy.orm import Session

from core.records.batches import NewBatch, create_batch
from core.records.eval_progress import add_results, begin_run
from core.records.eval_runs import (
    EVAL_RUN,
    create_run,
    items_from,
)
from core.records.evals import create_eval
from core.records.masks import request_audit
from core.records.models import (
    StoredBundle,
    add_checkpoint,
    add_final_model,
)
from core.records.owned import get_owned
from core.records.responses import (
    store_response,
)
from core.records.stored_completions import (
    store_completion,
)
from core.records.sweeps import (
    create_sweep,
)
from core.records.tables import (
    Batch,
    Checkpoint,
    Distillation,
    Eval,
    EvalRun,
    EvalRunItem,
    File,
    Job,
    OutputItem,
    Owned,
    StoredCompletion,
    StoredResponse,
    StoredVerdict,
    Sweep,
    Task,
    TunedModel,
)
from core.records.tasks import claim_next
from core.records.verdicts import add_verdict
from core.spec.base_model import BaseModelSpec
from core.spec.dry_run import CountedRows
from core.spec.job import JobSpec
from core.spec.search import GridSearch
from core.spec.serving import ADAPTER_FORM, ServingSpec
from core.spec.speed import SpeedResult, SpeedTarget
from core.spec.sweep import SweepSpec
from core.spec.verdict import HeldOut, Overfitting, Verdict
from tests.core.inference.responses.planned import answer, plan_of, response_of
from tests.core.records.distillation_rows import add_distillation
from tests.core.records.test_evals import new_eval, new_run, request_of, result

MODEL = "ft:tiny:alpha::1"
TARGET = SpeedTarget(
    base=BaseModelSpec(id="tiny", source="/models/tiny"), adapter=None, serving=ADAPTER_FORM
)
RESULT = SpeedResult(
    hardware="cpu", prompt_tokens=1, completion_tokens=1, levels=(), is_complete=True
)
COUNTED = CountedRows(
    rows=4, mean_tokens=8, longest_tokens=9, sequences_per_row=1, labelled_share=0.5
)
MERGED = ServingSpec(form="merged")
VERDICT = Verdict(
    status="unjudged",
    sentence="Not judged.",
    compared_with="tiny",
    held_out=HeldOut(rows=0, source=None),
    overfitting=Overfitting(status="unknown", reason="No evaluations."),
)

SWEEP = SweepSpec(
    job={},
    search=GridSearch(type="grid", parameters={"strategy.rank": [4, 8]}),
    halving=None,
    rungs=(),
)

Ids = dict[type[Owned], str]


def new_batch() -> NewBatch:
    """Return a batch of the project `alpha`."""
    return NewBatch("alpha", "/v1/completions", "file-1", "24h", 86_400, 1, None, None, None)


def rows_of_alpha(session: Session, file_id: str, job_id: str) -> Ids:
    """Add the rows that the file and the job have not; return the ids of all."""
    job = get_owned(session, Job, "alpha", job_id)
    bundle = StoredBundle("key", "0" * 64)
    add_final_model(session, job, MODEL, bundle)
    add_verdict(session, job, MODEL, VERDICT)
    add_checkpoint(session, job, MODEL, 7, {}, bundle)
    [checkpoint] = session.query(Checkpoint).all()
    audit = request_audit(session, "alpha", file_id, JobSpec.model_validate(job.spec))
    batch, _ = create_batch(session, new_batch(), "key", {})
    response = response_of(plan_of(), answer("Hi."))
    store_response(session, "alpha", response, [], kept_seconds=60)
    completion = {"id": "chatcmpl-1", "model": MODEL}
    store_completion(session, "alpha", completion, [], {"k": "v"}, bytes_=1, kept_seconds=60)
    run_id, item_id = add_eval_run(session)
    return {
        Batch: batch.id,
        Distillation: add_distillation(session, prompts_file=file_id).id,
        Eval: get_owned(session, EvalRun, "alpha", run_id).eval_id,
        EvalRun: run_id,
        EvalRunItem: item_id,
        StoredCompletion: "chatcmpl-1",
        File: file_id,
        Job: job_id,
        TunedModel: MODEL,
        Checkpoint: checkpoint.id,
        Task: audit.id,
        StoredResponse: response["id"],
        OutputItem: response["output"][0]["id"],
        StoredVerdict: MODEL,
        Sweep: create_sweep(session, "sweep-1", "alpha", SWEEP).id,
    }


def add_eval_run(session: Session) -> tuple[str, str]:
    """Add a run with one result; return their ids."""
    eval_ = create_eval(session, new_eval("alpha"))
    new = new_run(eval_.id, None, "alpha")
    create_run(session, new, request_of(new))
    claim = claim_next(session, "worker-1", [EVAL_RUN])
    assert claim is not None
    begin_run(session, claim, new.id)
    add_results(session, claim, new.id, [result(0, "pass", True, True)])
    [item] = items_from(session, "alpha", new.id, 0, 9)
    return new.id, item.id
