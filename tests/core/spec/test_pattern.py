"""Which regular expressions a job may bring along."""

import pytest

from core.spec.pattern import require_simple

LAYERS = "|".join(map(str, range(80)))


@pytest.mark.parametrize(
    "pattern",
    [
        "q_proj",
        "model.layers.0.self_attn.q_proj",
        r"model\.layers\.[0-3]\.mlp\..*_proj",
        rf".*layers\.({LAYERS})\..*q_proj",
        r".*\.layers\.(?:1?\d)\..*attn.*",
        r"^h\.\d+\.attn$",
        "(?:q|k)_proj",
        r"layers\.\d{1,2}\.",
        r"layers\.\d{2}\.\w{4,}_proj",
        "((q|k)|v)_proj",
    ],
)
def test_the_patterns_that_name_layers_pass(pattern: str) -> None:
    require_simple([pattern])


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("(a+)+$", "too complex"),
        ("(a|a)*$", "too complex"),
        ("(a?){30}a{30}", "too complex"),
        ("(?=a*)b", "too complex"),
        (r"(a)\1", "too complex"),
        ("(?i)q", "too complex"),
        (".*" * 5 + "x", "too many ways"),
        ("a?" * 30 + "a" * 30, "too many ways"),
        ("(.|.)" * 40 + "x", "too many ways"),
        ("(", "not a regular expression"),
        ("a{99999999999}", "not a regular expression"),
        (rf".*layers.*({LAYERS})\..*q_proj", "too many ways"),
    ],
)
def test_a_costly_pattern_is_refused(pattern: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        require_simple([pattern])


def test_many_patterns_share_one_bound() -> None:
    patterns = [f".*{number}.*" for number in range(100)]
    require_simple(patterns)
    with pytest.raises(ValueError, match="too many ways"):
        require_simple(patterns * 2)
