set -euo pipefail
lm_eval --model local-completions --model_args "model=$MODEL,base_url=$OPENAI_BASE_URL/completions" \
    --include_path . --tasks choices --output_path scored
lm_eval --model local-chat-completions --apply_chat_template \
    --model_args "model=$MODEL,base_url=$OPENAI_BASE_URL/chat/completions" \
    --include_path . --tasks written --output_path answered

# checks
python - <<'END'
import json
from pathlib import Path


def results(folder: str) -> dict:
    (path,) = Path(folder).rglob("results_*.json")
    return json.loads(path.read_text())["results"]


assert 0 <= results("scored")["choices"]["acc,none"] <= 1
assert results("answered")["written"]["exact_match,none"] == 1.0, results("answered")
END
