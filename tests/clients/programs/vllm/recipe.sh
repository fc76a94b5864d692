set -euo pipefail
for backend in openai:/v1/completions openai-chat:/v1/chat/completions; do
    vllm bench serve --backend "${backend%%:*}" --endpoint "${backend#*:}" \
        --base-url "${OPENAI_BASE_URL%/v1}" --model "$MODEL" --tokenizer "$TOKENIZER" \
        --dataset-name random --random-input-len 20 --random-output-len 8 --num-prompts 4 \
        --save-result --result-filename "${backend%%:*}.json"
done

# checks
python - <<'END'
import json
from pathlib import Path

for backend in ("openai", "openai-chat"):
    told = json.loads(Path(f"{backend}.json").read_text())
    assert told["completed"] == 4, told
    assert told["total_output_tokens"] > 0, told
END
