set -euo pipefail
aiperf profile --model "$MODEL" --url "${OPENAI_BASE_URL%/v1}" --endpoint-type chat --streaming \
    --tokenizer "$TOKENIZER" --request-count 8 --concurrency 2 \
    --synthetic-input-tokens-mean 20 --output-tokens-mean 8

# checks
python - <<'END'
import json
from pathlib import Path

(path,) = Path("artifacts").rglob("profile_export_aiperf.json")
told = json.loads(path.read_text())
assert told["request_count"]["avg"] == 8, told
assert told["time_to_first_token"]["avg"] > 0, told
assert not told.get("error_summary"), told["error_summary"]
END
