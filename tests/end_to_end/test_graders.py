"""Graders with the stock client, a real engine and a real sandbox."""

from typing import Any

import openai
import pytest

from core.sandbox.availability import availability
from tests.end_to_end.service import Service

MODEL = "tunesmith/tiny"
ASKED = "Is `json` a module or a function?"


@pytest.fixture
def graders(service: Service) -> Any:
    return service.client.fine_tuning.alpha.graders


def test_model_can_answer_with_a_label_only(graders: Any) -> None:
    """The smallest of models follows the schema: each label is possible, and nothing else."""
    grader = {
        "type": "label_model",
        "name": "kind",
        "model": "tiny",
        "input": [{"role": "user", "content": f"{ASKED} {{{{ sample.output_text }}}}"}],
        "labels": ["module", "function"],
        "passing_labels": ["module", "function"],
        "sampling_params": {"seed": 1, "max_completions_tokens": 64},
    }
    assert graders.validate(grader=grader).grader.type == "label_model"
    result = graders.run(grader=grader, model_sample="A module.", item={})
    assert (result.reward, result.metadata.sampled_model_name) == (1.0, MODEL)
    assert result.metadata.token_usage == result.model_grader_token_usage_per_model[MODEL] > 10
    assert result.metadata.errors.details is None


def test_model_gives_a_score_or_says_that_its_tokens_were_too_few(graders: Any) -> None:
    grader: dict[str, Any] = {
        "type": "score_model",
        "name": "score",
        "model": MODEL,
        "input": [{"role": "user", "content": [{"type": "input_text", "text": ASKED}]}],
        "range": [0, 1],
        "sampling_params": {"seed": 1, "temperature": 0, "max_completions_tokens": 3},
    }
    result = graders.run(grader=grader, model_sample="")
    assert result.metadata.errors.model_grader_parse_error
    assert "max_completions_tokens" in result.metadata.errors.details
    for seed in range(8):
        grader["sampling_params"] = {"seed": seed, "max_completions_tokens": 400}
        result = graders.run(grader=grader, model_sample="")
        if not result.metadata.errors.model_grader_parse_error:
            break
    assert 0.0 <= result.reward <= 1.0
    assert result.metadata.errors.details is None


@pytest.mark.skipif(availability().kind is None, reason="this machine allows no sandbox")
def test_python_grades_beside_a_string_check(graders: Any) -> None:
    source = "def grade(sample, item):\n    return len(sample['output_text']) <= item['most']\n"
    grader = {
        "type": "multi",
        "name": "both",
        "graders": {
            "short": {"type": "python", "name": "short", "source": source},
            "right": {
                "type": "string_check",
                "name": "right",
                "input": "{{ sample.output_text }}",
                "reference": "{{ item.answer }}",
                "operation": "ilike",
            },
        },
        "calculate_output": "short * right",
    }
    item = {"answer": "paris", "most": 20}
    result = graders.run(grader=grader, item=item, model_sample="It is Paris.")
    assert (result.reward, result.sub_rewards) == (1.0, {"short": 1.0, "right": 1.0})
    result = graders.run(grader=grader, item=item, model_sample="It is Paris, as all of us know.")
    assert (result.reward, result.sub_rewards) == (0.0, {"short": 0.0, "right": 1.0})


def test_cosine_without_an_encoder_says_what_to_add(graders: Any) -> None:
    grader = {
        "type": "text_similarity",
        "name": "near",
        "input": "{{ sample.output_text }}",
        "reference": "Paris",
        "evaluation_metric": "cosine",
    }
    with pytest.raises(openai.BadRequestError) as caught:
        graders.validate(grader=grader)
    assert (caught.value.code, caught.value.param) == (
        "no_embedder",
        "grader.evaluation_metric",
    )
