"""Serving far more adapters than fit into memory, with a Zipf distribution of requests.

    python -m bench.zipf [--adapters 2000] [--resident 64] [--checked 10000] [--rounds 3] [--save]

See bench/README.md for what is compared and how to read the table.
"""

import argparse
import itertools
import statistics
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from bench.data import SMALL, build
from bench.measure import median_ratio
from bench.results import save_table, set_up
from bench.serving_engine import adapter_name, make_engine, require_answer, token_bytes_of
from bench.serving_setting import ALPHA, NEW_TOKENS, PROMPT_TOKENS, RANK, greedy, write_adapters
from core.artifacts.manifest import ADAPTER_FILE
from core.engine.engine import Engine
from core.engine.policy.request import ModelKey, Request
from core.engine.text.answers import Detokenizer, Item
from core.spec.base_model import BaseModelSpec
from core.spec.generation import ChoiceFinished, GenerationDelta, SamplingSpec

SEED = 20261125
FEW, ALL = "few", "all"
AT_ONCE = 32
IN_HAND = 64
"""Concurrent requests, waiting or running."""

SIGNATURE_PROMPT_TOKENS = 16
SIGNATURE_TOKENS = 8
NEAR_TIE_NATS = 1e-3
"""Below this margin, fp32 rounding may swap the first and the second choice."""


@dataclass(frozen=True)
class Asked:
    """One request: its adapter, prompt and number of new tokens."""

    adapter: int
    prompt: tuple[int, ...]
    new_tokens: int


@dataclass(frozen=True)
class Signature:
    """A prompt, and the answer that only one adapter gives."""

    prompt: tuple[int, ...]
    text: str


@dataclass(frozen=True)
class Checked:
    """The result of checking the adapters' signatures."""

    requests: int
    adapters: int
    """The number of different adapters."""
    loads: int
    wrong: int


def main() -> None:
    options = _options()
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = BaseModelSpec(id="benchmark-27m", source=str(build(folder, 8, SEED).base_folder))
        _say(f"writing {options.adapters} adapters")
        torch.manual_seed(SEED)
        model = AutoModelForCausalLM.from_pretrained(base.source)
        adapters = write_adapters(model, base, folder, options.adapters)
        engine = make_engine(adapters, at_once=AT_ONCE, waiting=IN_HAND, resident=options.resident)
        speeds = measure(engine, base, options)
        asked = list(itertools.islice(zipf(len(adapters), SEED - 1), options.checked))
        signatures = signatures_of(base, {each: adapters[each] for each in sorted(set(asked))})
        checked = check(engine, base, signatures, asked)
    report = markdown(options, speeds, checked)
    print(report)
    if options.save:
        figures = {"tokens_per_second": speeds, "checked": vars(checked)}
        print("Saved:", *save_table("serving-zipf", report, figures))
    if checked.wrong:
        raise SystemExit(f"{checked.wrong} answers did not match the requested adapter.")


def zipf(adapters: int, seed: int) -> Iterator[int]:
    """Yield adapters, the n-th most popular one with a probability proportional to 1/n."""
    draw = torch.Generator().manual_seed(seed)
    weights = 1 / torch.arange(1, adapters + 1, dtype=torch.float64)
    while True:
        yield from torch.multinomial(weights, 1024, replacement=True, generator=draw).tolist()


def serve(engine: Engine, base: BaseModelSpec, requests: Iterable[Asked]) -> list[str]:
    """Answer all requests, several concurrently; a rejection ends the benchmark."""
    token_bytes = token_bytes_of(base.source)
    texts: list[str] = []
    unfinished: set[int] = set()

    def submit(number: int, asked: Asked) -> None:
        def emit(item: Item) -> None:
            require_answer(item)
            if isinstance(item, GenerationDelta):
                texts[number] += item.text
            if isinstance(item, ChoiceFinished):
                unfinished.remove(number)

        request = Request(
            id=str(number),
            model=ModelKey(base, adapter_name(asked.adapter)),
            prompt_tokens=asked.prompt,
            sampling=SamplingSpec(temperature=0, seed=0),
            max_tokens=asked.new_tokens,
            end_token_ids=frozenset(),
        )
        texts.append("")
        unfinished.add(number)
        engine.submit(request, Detokenizer(request, token_bytes), emit)

    for number, asked in enumerate(requests):
        submit(number, asked)
        while len(unfinished) >= IN_HAND:
            engine.step()
    while engine.step():
        pass
    if unfinished:
        raise SystemExit(f"{len(unfinished)} requests got no answer.")
    return texts


def measure(
    engine: Engine, base: BaseModelSpec, options: argparse.Namespace
) -> dict[str, list[float]]:
    """Return generated tokens per second with few and with all adapters, by round."""
    speeds: dict[str, list[float]] = {FEW: [], ALL: []}
    popular = {FEW: options.resident, ALL: options.adapters}
    for number in range(options.rounds + 1):
        for name in list(speeds)[:: -1 if number % 2 else 1]:
            _say(f"round {number}: {name}")
            requests = traffic(popular[name], options.requests, seed=SEED + number)
            started = perf_counter()
            serve(engine, base, requests)
            if number:  # the first round warms up
                written = options.requests * NEW_TOKENS
                speeds[name].append(written / (perf_counter() - started))
    return speeds


def traffic(adapters: int, requests: int, seed: int) -> list[Asked]:
    """Return requests with different prompts."""
    draw = torch.Generator().manual_seed(seed)
    prompts_NT = torch.randint(10, SMALL.vocabulary, (requests, PROMPT_TOKENS), generator=draw)
    return [
        Asked(adapter, tuple(prompt_T), NEW_TOKENS)
        for adapter, prompt_T in zip(zipf(adapters, seed), prompts_NT.tolist(), strict=False)
    ]


@torch.inference_mode()
def signatures_of(base: BaseModelSpec, adapters: Mapping[int, Path]) -> dict[int, Signature]:
    """Return a prompt for each adapter, with the answer that only this one of them gives.

    Each is merged into a plain transformers model and run alone, without our code.
    """
    _say(f"asking {len(adapters)} adapters for their signatures, merged into plain models")
    model = AutoModelForCausalLM.from_pretrained(base.source, dtype=torch.float32).eval()
    plain = {name: weight.clone() for name, weight in model.state_dict().items()}
    token_bytes = token_bytes_of(base.source)
    signatures: dict[int, Signature] = {}
    texts: set[str] = set()
    for number, folder in adapters.items():
        model.load_state_dict(plain)
        merge(model, load_file(folder / ADAPTER_FILE), scale=ALPHA / RANK)
        for first in itertools.count(100):
            prompt = tuple(range(first, first + SIGNATURE_PROMPT_TOKENS))
            tokens = sure_answer(model, prompt)
            text = b"".join(map(token_bytes.text_bytes, tokens)).decode("utf-8", "replace")
            if len(tokens) == SIGNATURE_TOKENS and text not in texts:
                texts.add(text)
                signatures[number] = Signature(prompt, text)
                break
    return signatures


def sure_answer(model: PreTrainedModel, prompt: Sequence[int]) -> list[int]:
    """Return the most likely tokens, up to the first that rounding could change."""
    said = model.generate(
        input_ids=torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        generation_config=greedy(SIGNATURE_TOKENS, output_logits=True),
    )
    top_T2 = torch.stack(said.logits)[:, 0].topk(2).values
    is_sure_T = (top_T2[:, 0] - top_T2[:, 1] >= NEAR_TIE_NATS).cumprod(0)
    tokens: list[int] = said.sequences[0, len(prompt) :].tolist()
    return tokens[: int(is_sure_T.sum())]


def merge(model: PreTrainedModel, adapter: Mapping[str, Tensor], scale: float) -> None:
    """Add scale · B A to each matrix that the adapter changes."""
    suffix = ".lora_A.weight"
    for name, a_RI in adapter.items():
        if name.endswith(suffix):
            path = name.removeprefix("base_model.model.").removesuffix(suffix)
            b_OR = adapter[name.replace("lora_A", "lora_B")]
            model.get_submodule(path).weight.add_(b_OR @ a_RI, alpha=scale)


def check(
    engine: Engine,
    base: BaseModelSpec,
    signatures: Mapping[int, Signature],
    numbers: Sequence[int],
) -> Checked:
    """Ask adapters by their numbers, popular and rare ones mixed, and check their signatures."""
    _say(f"checking {len(numbers)} answers")
    before = _loads(engine)
    asked = [Asked(each, signatures[each].prompt, SIGNATURE_TOKENS) for each in numbers]
    answers = serve(engine, base, asked)
    wrong = sum(
        answer != signatures[each].text for each, answer in zip(numbers, answers, strict=True)
    )
    return Checked(len(numbers), len(set(numbers)), _loads(engine) - before, wrong)


def markdown(options: argparse.Namespace, speeds: dict[str, list[float]], checked: Checked) -> str:
    """Return the table, followed by the requirements."""
    lines = [
        *set_up(f"Serving {options.adapters} adapters: written tokens per second"),
        f"Llama {SMALL.name} in fp32; {options.requests} requests, {AT_ONCE} at once, with "
        f"{PROMPT_TOKENS} tokens of prompt and {NEW_TOKENS} of answer each; adapters of rank "
        f"{RANK} on all linear layers, {options.resident} in memory; popularity 1/n.",
        "",
        "| | tokens/s | lowest | highest |",
        "| --- | ---: | ---: | ---: |",
    ]
    names = {
        FEW: f"{options.resident} adapters registered, all in memory",
        ALL: f"{options.adapters} adapters registered, {options.resident} in memory",
    }
    for key, values in speeds.items():
        middle = statistics.median(values)
        lines.append(f"| {names[key]} | {middle:.0f} | {min(values):.0f} | {max(values):.0f} |")
    return "\n".join(
        [
            *lines,
            "",
            f"- With all of them: **{median_ratio(speeds[ALL], speeds[FEW]):.2f}** of the speed.",
            f"- {checked.requests} answers of {checked.adapters} adapters were checked, for which "
            f"adapters were loaded {checked.loads} times: **{checked.wrong} wrong**.",
            "",
        ]
    )


def _loads(engine: Engine) -> int:
    return int(engine.metrics.registry.get_sample_value("tunesmith_engine_adapter_loads") or 0)


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--adapters", type=int, default=2000, help="registered")
    parser.add_argument("--resident", type=int, default=64, help="in memory at a time")
    parser.add_argument("--requests", type=int, default=640, help="of each round")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved repeats")
    parser.add_argument("--checked", type=int, default=10_000, help="answers that are checked")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    parser.add_argument("--save", action="store_true", help="write the table into bench/results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
