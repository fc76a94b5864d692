"""The programs of others that are run unmodified, one row each.

A program is a folder of `programs/` with a recipe: what its user writes, then `# checks` (in
JavaScript `// checks`) and what came back. It fails by its exit status. `python -m
tests.clients.page` writes docs/clients.md from the recipes and from the results of their runs.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

FOLDER = Path(__file__).parent
PROGRAMS_FOLDER = FOLDER / "programs"
REQUIREMENTS = FOLDER / "requirements"

CHECKS = re.compile(r"^(#|//) checks\n", re.MULTILINE)
DOCSTRING = re.compile(r'\A""".*?"""\n+', re.DOTALL)

LANGUAGES = {".py": "python", ".mjs": "javascript", ".sh": "sh", ".yaml": "yaml"}


@dataclass(frozen=True)
class Program:
    """A recipe in an environment."""

    title: str
    folder: str
    done: str
    """What the recipe does, for the table of results."""
    environment: str
    """The name of `requirements/<environment>.txt`, or of the folder with a `package.json`."""
    package: str
    """Whose version the table of results shows."""
    note: str = ""
    """What its user must know, in Markdown."""
    kind: Literal["python", "node"] = "python"
    timeout_seconds: float = 300

    @property
    def sources(self) -> Path:
        return PROGRAMS_FOLDER / self.folder

    @cached_property
    def recipe_file(self) -> Path:
        (found,) = self.sources.glob("recipe.*")
        return found

    @property
    def pinned(self) -> Path:
        """The file that pins the environment."""
        if self.kind == "node":
            return self.sources / "package-lock.json"
        return REQUIREMENTS / f"{self.environment}.txt"

    @property
    def blocks(self) -> list[tuple[str, str, str]]:
        """The files of a recipe for its reader, the recipe last: (name, language, text)."""
        shown = sorted(self.sources.glob("*.yaml")) + sorted(self.sources.glob("task.py"))
        files = [(path.name, LANGUAGES[path.suffix], path.read_text()) for path in shown]
        text = CHECKS.split(self.recipe_file.read_text())[0]
        text = DOCSTRING.sub("", text).removeprefix("set -euo pipefail\n")
        return [*files, ("", LANGUAGES[self.recipe_file.suffix], text.strip() + "\n")]


OPENAI_PYTHON = {"title": "openai-python", "package": "openai"}
OLD = "A file, a job, its model, a tool call, a stream"

PROGRAMS = (
    Program(folder="openai_python", environment="openai_1", done=OLD, **OPENAI_PYTHON),
    Program(folder="openai_python", environment="openai_2", done=OLD, **OPENAI_PYTHON),
    Program(folder="openai_python", environment="openai", done=OLD, **OPENAI_PYTHON),
    Program(
        folder="openai_python_newer",
        environment="openai_2",
        done="Responses with tools and streams, parsed answers, embeddings, a batch",
        **OPENAI_PYTHON,
    ),
    Program(
        folder="openai_python_newer",
        environment="openai",
        done="Responses with tools and streams, parsed answers, embeddings, a batch",
        **OPENAI_PYTHON,
    ),
    Program(
        title="openai-node",
        folder="openai_node",
        environment="openai_node",
        package="openai",
        done="A file, a job, its model, responses, tools, embeddings, a batch",
        kind="node",
    ),
    Program(
        title="AI SDK",
        folder="ai_sdk",
        environment="ai_sdk",
        package="ai",
        done="Responses: text, stream, tools, an object; chat; embeddings",
        kind="node",
    ),
    Program(
        title="LiteLLM",
        folder="litellm",
        environment="litellm",
        package="litellm",
        done="A file, a job, chat with tools and streams, responses, embeddings, a batch",
        note="`MODEL` needs no `openai/` before it if its base has a name of OpenAI's, such as "
        "the alias `gpt-4o-mini-2024-07-18`.",
    ),
    Program(
        title="LangChain",
        folder="langchain",
        environment="langchain",
        package="langchain-openai",
        done="Text, stream, tools, a form, responses, embeddings",
        note="Without `check_embedding_ctx_length=False`, LangChain sends the token numbers of "
        "OpenAI's vocabulary instead of texts.",
    ),
    Program(
        title="instructor",
        folder="instructor",
        environment="instructor",
        package="instructor",
        done="A form by tool call, an iterable, a batch",
    ),
    Program(
        title="OpenAI Agents SDK",
        folder="openai_agents",
        environment="openai_agents",
        package="openai-agents",
        done="Plain model string: a handoff, a tool, a stream",
        note="A model's name must not contain a slash, because the SDK takes what is before it "
        "for a provider. Names of models whose base was asked for by an alias contain none.",
    ),
    Program(
        title="Pydantic AI",
        folder="pydantic_ai",
        environment="pydantic_ai",
        package="pydantic-ai-slim",
        done="A tool, a typed result, a stream, chat",
    ),
    Program(
        title="DSPy",
        folder="dspy",
        environment="dspy",
        package="dspy",
        done="`BootstrapFinetune`, through the answer of its tuned program",
        timeout_seconds=600,
    ),
    Program(
        title="Inspect",
        folder="inspect_ai",
        environment="inspect_ai",
        package="inspect-ai",
        done="An evaluation with live requests, the same as a batch",
    ),
    Program(
        title="lm-evaluation-harness",
        folder="lm_eval",
        environment="lm_eval",
        package="lm-eval",
        done="A task of scored choices, a task of written answers",
        note="It fetches the tokens of a text from `/tokenize`.",
    ),
    Program(
        title="GuideLLM",
        folder="guidellm",
        environment="guidellm",
        package="guidellm",
        done="A benchmark with synthetic prompts",
        note="`TOKENIZER` is the folder of the base's tokenizer, for instance an unpacked adapter.",
    ),
    Program(
        title="AIPerf",
        folder="aiperf",
        environment="aiperf",
        package="aiperf",
        done="A benchmark of streams",
        note="`TOKENIZER` is the folder of the base's tokenizer, for instance an unpacked adapter.",
    ),
    Program(
        title="vLLM's benchmark",
        folder="vllm",
        environment="vllm",
        package="vllm",
        done="`vllm bench serve` with the backends `openai` and `openai-chat`",
        note="`TOKENIZER` is the folder of the base's tokenizer, for instance an unpacked adapter.",
    ),
    Program(
        title="huggingface_hub",
        folder="huggingface_hub",
        environment="huggingface_hub",
        package="huggingface-hub",
        done="`InferenceClient` with a URL: the default model, a named one, a stream, forms",
        note="Without a model it asks for a model called `dummy`: set "
        "`TUNESMITH_DEFAULT_MODEL` to the model that answers.",
    ),
    Program(
        title="promptfoo",
        folder="promptfoo",
        environment="promptfoo",
        package="promptfoo",
        done="Chat and responses, compared by text and by embeddings",
        note="Without `max_tokens` it asks for 1024 tokens, as many as the whole context of tiny, "
        "which is a 400 `context_length_exceeded` as at OpenAI.",
        kind="node",
    ),
    Program(
        title="llm",
        folder="llm",
        environment="llm",
        package="llm",
        done="Text, a stream, a form, a tool, embeddings",
    ),
    Program(
        title="Weights & Biases",
        folder="wandb",
        environment="wandb",
        package="wandb",
        done="`WandbLogger.sync` of a job",
        note="`JOB` is the id of a job. `mode` is an option of `wandb.init`; without it the run is "
        "sent to Weights & Biases. No test has an account there: a server of the test accepts the "
        "login, and losses and settings are read from an offline run, which `sync` ends at the "
        "job's files, because Weights & Biases uses artifacts only online.",
    ),
    Program(
        title="MLflow",
        folder="mlflow",
        environment="mlflow",
        package="mlflow",
        done="`mlflow.openai.autolog` of chat, responses and embeddings",
    ),
)
