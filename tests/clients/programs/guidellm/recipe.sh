set -euo pipefail
guidellm run --backend "kind=openai_http,target=${OPENAI_BASE_URL%/v1},model=$MODEL" \
    --tokenizer "kind=hf_auto,model=$TOKENIZER" --profile kind=synchronous \
    --constraint kind=max_requests,count=4 \
    --data kind=synthetic_text,prompt_tokens=20,output_tokens=8

# checks
python - <<'END'
import json
from pathlib import Path

(path,) = Path().glob("benchmarks.json")
(benchmark,) = json.loads(path.read_text())["benchmarks"]
totals = benchmark["metrics"]["request_totals"]
assert (totals["successful"], totals["errored"]) == (4, 0), totals
END
