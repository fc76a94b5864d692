set -euo pipefail
inspect eval task.py --model "openai/$MODEL" --log-dir live
inspect eval task.py --model "openai/$MODEL" --log-dir batch --batch

# checks
python - <<'END'
from pathlib import Path

from inspect_ai.log import read_eval_log

for folder in ("live", "batch"):
    (path,) = Path(folder).glob("*.eval")
    log = read_eval_log(str(path))
    assert log.status == "success", log.error
    assert log.results.completed_samples == 4
    (score,) = log.results.scores
    assert score.metrics["mean"].value == 1.0, log.samples
END
