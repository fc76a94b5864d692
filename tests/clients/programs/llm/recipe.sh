set -euo pipefail
cat > "$(dirname "$(llm logs path)")/extra-openai-models.yaml" <<END
- model_id: weather
  model_name: $MODEL
  api_base: $OPENAI_BASE_URL
  supports_schema: true
  supports_tools: true
END
llm -m weather 'What is the weather in Bern?'

# checks
test "$(llm -m weather 'What is the weather in Bern?')" = 'It is sunny in Bern.'
test "$(llm -m weather --no-stream 'What is the weather in Oslo?')" = 'It is snowy in Oslo.'
llm -m weather --no-stream --schema 'city, weather' 'It is sunny in Bern.' > form.json
python -c 'import json; assert json.load(open("form.json")) == {"city": "Bern", "weather": "sunny"}'
tool='def get_weather(city: str) -> str:
    "What it does."
    return {"Bern": "sunny"}[city]'
test "$(llm -m weather --no-stream --functions "$tool" 'What is the weather in Bern?')" = 'It is sunny in Bern.'
