"""Serving on a CPU, compared with PEFT, transformers and llama.cpp.

    python -m bench.serving [--base FOLDER] [--rounds N] [--requests 32] [--save]

See bench/README.md for what is compared and how to read the table.
"""

import argparse
import contextlib
import io
import os
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
from transformers import AutoModelForCausalLM, PreTrainedModel

from bench.llama_cpp import (
    BINARY,
    CACHES,
    Cache,
    LlamaServer,
    Slots,
    completion_requests,
    llama_server,
)
from bench.measure import stolen_seconds
from bench.results import save_table
from bench.serving_check import RecordedAnswer, record, require_same_model
from bench.serving_engine import adapter_name, make_engine, require_answer, token_bytes_of
from bench.serving_setting import (
    NEW_TOKENS,
    PROMPT_TOKENS,
    Setting,
    greedy,
    make_setting,
)
from bench.serving_table import Turn, markdown
from core.engine.engine import Engine
from core.engine.policy.request import BaseKey, ModelKey, Request
from core.engine.text.answers import Detokenizer
from core.engine.text.token_bytes import TokenBytes
from core.spec.generation import SamplingSpec

SHORTEST_TURN_SECONDS = 3.0


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
    token_bytes = token_bytes_of(setting.base.source)
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


def _require_length(tokens: int) -> None:
    if tokens != NEW_TOKENS:
        raise SystemExit(f"A peer generated {tokens} tokens instead of {NEW_TOKENS}.")


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
