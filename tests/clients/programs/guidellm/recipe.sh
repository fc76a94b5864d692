set -euo pipefail
guidellm benchmark --target "${OPENAI_BASE_URL%/v1}" --model "$MODEL" --processor "$TOKENIZER" \
    --rate-type synchronous --max-requests 4 --data prompt_tokens=20,output_tokens=8

# checks
python - <<'END'
import json
from pathlib import Path

(path,) = Path().glob("benchmarks.json")
(benchmark,) = json.loads(path.read_text())["benchmarks"]
totals = benchmark["metrics"]["request_totals"]
assert (totals["successful"], totals["errored"]) == (4, 0), totals
END
