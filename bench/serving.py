"""Serving on a CPU, compared with PEFT, transformers and llama.cpp.

    python -m bench.serving [--base FOLDER] [--rounds N] [--requests 32] [--save]

See bench/README.md for what is compared and how to read the table.
"""

import argparse
import contextlib
import io
import json
import os
import statistics
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter, sleep

import torch
import transformers
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from bench.data import SMALL, ModelSize, build, size_of
from bench.llama_cpp import (
    BINARY,
    CACHES,
    Cache,
    LlamaServer,
    Slots,
    completion_requests,
    llama_server,
)
from bench.measure import median_ratio, stolen_seconds
from bench.results import save_table, set_up
from bench.serving_check import RecordedAnswer, record, require_same_model
from bench.serving_engine import adapter_name, make_engine, require_answer, spelling
from core.artifacts.manifest import ADAPTER_FILE, write_manifest
from core.engine.engine import Engine
from core.engine.policy.request import BaseKey, ModelKey, Request
from core.engine.text.answers import Detokenizer
from core.engine.text.token_bytes import TokenBytes
from core.models.load import load_tokenizer
from core.spec.base_model import BaseModelSpec
from core.spec.generation import SamplingSpec
from core.spec.job import JobSpec
from core.spec.strategy import LoraSpec
from core.strategies.attach import attach

SEED = 20261124
PROMPT_TOKENS = 64
NEW_TOKENS = 48
RANK = 16
ALPHA = 2.0 * RANK
SHORTEST_TURN_SECONDS = 3.0
FIRST_DRAWN_TOKEN = 32
"""Prompts are drawn from the tokens after the control tokens."""


@dataclass(frozen=True)
class Setting:
    """The same requests for all contenders, with one length of prompts and of answers."""

    base: BaseModelSpec
    adapters: Sequence[Path]
    prompts: Sequence[tuple[int, ...]]
    size: ModelSize = SMALL


@dataclass(frozen=True)
class Contender:
    name: str
    run: Callable[[], None]
    """Answers every prompt of the setting."""


def main() -> None:
    options = _options()
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        setting = make_setting(Path(folder), options.requests, options.base)
        with llama_cpp(options.llama_server, setting, options.threads) as peers:
            turns = measure(setting, [*contenders(setting), *peers], options.rounds)
        report = markdown(setting, turns)
    print(report)
    if options.save:
        figures = {name: [vars(turn) for turn in own] for name, own in turns.items()}
        variant = setting.size.name if options.base else ""
        print("Saved:", *save_table("serving", report, figures, variant=variant))


def make_setting(folder: Path, requests: int, base_folder: Path | None = None) -> Setting:
    """Write one adapter per request, and the base unless given; draw the prompts."""
    size = size_of(base_folder) if base_folder else SMALL
    source = base_folder.resolve() if base_folder else build(folder, 8, SEED).base_folder
    base = BaseModelSpec(id=f"benchmark-{size.name.lower()}", source=str(source))
    torch.manual_seed(SEED)
    model = AutoModelForCausalLM.from_pretrained(base.source, dtype=torch.float32)
    adapters = []
    for number in range(requests):
        adapters.append(folder / f"adapter-{number}")
        write_adapter(model, base, adapters[-1])
    draw = torch.Generator().manual_seed(SEED)
    shape = requests, PROMPT_TOKENS
    prompts = torch.randint(FIRST_DRAWN_TOKEN, size.vocabulary, shape, generator=draw)
    return Setting(base, adapters, [tuple(prompt) for prompt in prompts.tolist()], size)


def write_adapter(model: PreTrainedModel, base: BaseModelSpec, folder: Path) -> None:
    """Write a bundle with a non-zero update, in the format of training."""
    strategy = LoraSpec(rank=RANK, alpha=ALPHA)
    adapted = attach(model, strategy, load_tokenizer(base), prepack=False)
    adapted.remove()
    for parameter in adapted.parameters:
        parameter.data += 0.02 * torch.randn_like(parameter)
    folder.mkdir()
    assert adapted.config is not None
    adapted.config.save_pretrained(folder)
    save_file(adapted.state(), folder / ADAPTER_FILE)
    write_manifest(folder, JobSpec(base=base, strategy=strategy, seed=SEED))


def contenders(setting: Setting) -> list[Contender]:
    """Return all contenders, loaded; the first run of each is a warm-up."""
    requests = len(setting.prompts)
    served = sorted({count for count in (1, 8, 32) if count < requests} | {requests})
    engine = engine_for(setting)
    base = AutoModelForCausalLM.from_pretrained(setting.base.source, dtype=torch.float32).eval()
    peers = [
        Contender("transformers generate, base", lambda: generate(base, setting)),
        Contender("transformers generate_batch, base", lambda: generate_batch(base, setting)),
    ]
    tuned = load_peft(setting)
    for count in served[1:]:
        names = [f"a{number % count}" for number in range(requests)]
        run = partial(generate, tuned, setting, adapter_names=names)
        peers.append(Contender(f"PEFT generate, {count} adapters", run))
    ours = [Contender("Tunesmith, base", lambda: serve(engine, setting, 0))]
    ours += [
        Contender(f"Tunesmith, {count} adapters", partial(serve, engine, setting, count))
        for count in served
    ]
    return [*ours, *peers]


@contextlib.contextmanager
def llama_cpp(binary: Path, setting: Setting, threads: int) -> Iterator[list[Contender]]:
    """Return llama.cpp's contenders with the base and with 8 adapters; none if it is not built."""
    if not binary.is_file():
        print(
            f"llama.cpp is skipped: {binary} does not exist. See bench/README.md.", file=sys.stderr
        )
        yield []
        return
    served, base = min(8, len(setting.prompts)), Path(setting.base.source)
    ask_for = partial(completion_requests, setting.prompts, NEW_TOKENS)
    alone, mixed = ask_for(adapters=0), ask_for(adapters=served)
    slots = Slots(len(setting.prompts), PROMPT_TOKENS + NEW_TOKENS, threads)
    peers = []
    with contextlib.ExitStack() as running:
        for cache in CACHES:
            server = running.enter_context(
                llama_server(binary, base, setting.adapters[:served], slots, cache)
            )
            check_llama_cpp(setting, server, cache, {0: alone, served: mixed})
            for name, requests in (
                ("base", alone),
                (f"{served} adapters", mixed),
                (f"any slot, {served} adapters", ask_for(adapters=served, placed=False)),
            ):
                run = partial(ask, server, requests)
                peers.append(Contender(f"llama.cpp, {cache.name}, {name}", run))
        yield peers


def check_llama_cpp(
    setting: Setting, server: LlamaServer, cache: Cache, requests: Mapping[int, Sequence[bytes]]
) -> None:
    """Stop unless llama.cpp gives our answers; `requests` by number of adapters."""
    engine, reference = engine_for(setting), load_peft(setting)
    for adapters, bodies in requests.items():
        ours: list[RecordedAnswer] = []
        serve(engine, setting, adapters, partial(record, ours))
        require_same_model(
            reference,
            setting.prompts,
            adapters,
            ours=[answer.tokens for answer in ours],
            theirs=server.answer(bodies),
            their_near_tie_nats=cache.near_tie_nats,
        )


def ask(server: LlamaServer, requests: Sequence[bytes]) -> None:
    for tokens in server.answer(requests):
        _require_length(len(tokens))


def engine_for(setting: Setting) -> Engine:
    """Return an engine that runs all requests of a setting concurrently."""
    requests = len(setting.prompts)
    resident = max(64, requests)
    return make_engine(setting.adapters, at_once=requests, waiting=requests, resident=resident)


def serve(
    engine: Engine,
    setting: Setting,
    adapters: int,
    answer: Callable[[Request, TokenBytes], Detokenizer] = Detokenizer,
) -> None:
    """Answer every prompt, cycling through this number of adapters, or with the base alone."""
    token_bytes = spelling(setting.base.source)
    for number, prompt in enumerate(setting.prompts):
        name = adapter_name(number % adapters) if adapters else None
        request = Request(
            id=str(number),
            model=ModelKey(setting.base, name),
            prompt_tokens=prompt,
            sampling=SamplingSpec(temperature=0, seed=0),
            max_tokens=NEW_TOKENS,
            end_token_ids=frozenset(),
        )
        engine.submit(request, answer(request, token_bytes), require_answer)
    while engine.step():
        pass
    # forget prompts between rounds, as the peers do
    engine.scheduler.drop(BaseKey(setting.base))


def load_peft(setting: Setting) -> PreTrainedModel:
    base = AutoModelForCausalLM.from_pretrained(setting.base.source, dtype=torch.float32)
    tuned = PeftModel.from_pretrained(base, setting.adapters[0], adapter_name="a0")
    for number, folder in enumerate(setting.adapters[1:], 1):
        tuned.load_adapter(folder, adapter_name=f"a{number}")
    return tuned.eval()


@torch.inference_mode()
def generate(model: PreTrainedModel, setting: Setting, **named: object) -> None:
    """Answer all prompts as one batch, the fastest way with `generate`."""
    ids_BT = torch.tensor(setting.prompts)
    output_BT = model.generate(
        input_ids=ids_BT,
        attention_mask=torch.ones_like(ids_BT),
        generation_config=greedy(NEW_TOKENS),
        **named,
    )
    _require_length(output_BT.shape[1] - PROMPT_TOKENS)


def generate_batch(model: PreTrainedModel, setting: Setting) -> None:
    """Answer all prompts with transformers' continuous batching."""
    with contextlib.redirect_stdout(io.StringIO()):
        answers = model.generate_batch(
            [list(prompt) for prompt in setting.prompts], generation_config=greedy(NEW_TOKENS)
        )
    for answer in answers.values():
        _require_length(len(answer.generated_tokens))


def greedy(new_tokens: int, output_logits: bool = False) -> GenerationConfig:
    """Return transformers' settings for greedy answers of this length."""
    return GenerationConfig(
        max_new_tokens=new_tokens,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        output_logits=output_logits,
        return_dict_in_generate=output_logits,
    )


def _require_length(tokens: int) -> None:
    if tokens != NEW_TOKENS:
        raise SystemExit(f"A peer generated {tokens} tokens instead of {NEW_TOKENS}.")


@dataclass(frozen=True)
class Turn:
    """One contender in one round."""

    tokens_per_second: float
    stolen: float
    """The share of CPU time that the host gave to others."""


def measure(setting: Setting, everybody: Sequence[Contender], rounds: int) -> dict[str, list[Turn]]:
    """Return the turns by contender, one per round, rounds interleaved.

    In its turn a contender answers the setting until some seconds have passed. Then the machine
    rests as long, because hosts take CPU time away from processes that compute without a pause.
    """
    turns: dict[str, list[Turn]] = {each.name: [] for each in everybody}
    for number in range(rounds + 1):
        for each in everybody[:: -1 if number % 2 else 1]:
            print(f"round {number}: {each.name}", file=sys.stderr, flush=True)
            started, stolen, answered = perf_counter(), stolen_seconds(), 0
            while perf_counter() - started < SHORTEST_TURN_SECONDS:
                each.run()
                answered += len(setting.prompts)
            seconds, stolen = perf_counter() - started, stolen_seconds() - stolen
            if number:  # the first round loads and warms up
                share = stolen / seconds / (os.cpu_count() or 1)
                turns[each.name].append(Turn(answered * NEW_TOKENS / seconds, share))
            sleep(seconds)
    return turns


def markdown(setting: Setting, turns: dict[str, list[Turn]]) -> str:
    """Return the table, followed by the key ratios."""
    requests = len(setting.prompts)
    speeds = {name: [turn.tokens_per_second for turn in own] for name, own in turns.items()}
    base_bytes, adapter_bytes = _weights(setting)
    lines = [
        *set_up("Serving: written tokens per second"),
        f"Llama {setting.size.name} in fp32, {requests} requests at once, with {PROMPT_TOKENS} "
        f"tokens of prompt and {NEW_TOKENS} of answer each, adapters of rank {RANK} on all linear "
        "layers.",
        "",
        "| | tokens/s | lowest | highest | stolen |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, values in speeds.items():
        middle = statistics.median(values)
        stolen = max(turn.stolen for turn in turns[name])
        lines.append(
            f"| {name} | {middle:.0f} | {min(values):.0f} | {max(values):.0f} | {stolen:.0%} |"
        )
    lines.append("")
    ours = speeds["Tunesmith, base"]
    for count in (1, 8, 32):
        name = f"Tunesmith, {count} adapters"
        if name in speeds:
            cap = base_bytes / (base_bytes + count * adapter_bytes)
            share = median_ratio(speeds[name], ours)
            lines.append(
                f"- {count} adapters: {share:.2f} of the speed of the base alone; the byte cap "
                f"W/(W + Σ adapter bytes) is {cap:.2f}, so **{share / cap:.2f} of the cap**."
            )
    for name, values in speeds.items():
        mine = f"Tunesmith, {name.split(', ')[-1]}"  # with the same adapters
        if mine != name and mine in speeds:
            ratio = median_ratio(speeds[mine], values)
            lines.append(f"- {mine} is **{ratio:.2f} times** {name}.")
    return "\n".join([*lines, ""])


def _weights(setting: Setting) -> tuple[int, int]:
    """Return the bytes of the base's matrices that multiply each token, and of an adapter."""
    config = json.loads((setting.adapters[0] / "adapter_config.json").read_text())
    size = (setting.adapters[0] / "adapter_model.safetensors").stat().st_size
    if config["r"] != RANK:
        raise SystemExit("The rank of the adapters differs from the table.")
    return int(4 * setting.size.matmul_parameters(labelled_share=1.0)), size


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--base", type=Path, help="folder of a Llama, instead of one with random weights"
    )
    parser.add_argument("--rounds", type=int, default=3, help="interleaved repeats")
    parser.add_argument(
        "--requests", type=int, default=32, help="concurrent requests, each with its own adapter"
    )
    parser.add_argument("--threads", type=int, default=2, help="threads of torch on all sides")
    parser.add_argument(
        "--llama-server", type=Path, default=BINARY, help="llama.cpp's server as a peer"
    )
    parser.add_argument("--save", action="store_true", help="write the table into bench/results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
