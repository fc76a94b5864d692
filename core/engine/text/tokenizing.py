"""A model's tokenizer as a service: the tokens that a prompt has in a request."""

from core.batching.render import conversation_of_request
from core.batching.template import ChatTemplate, Unrenderable
from core.batching.tokenization import encode
from core.engine.text.prompt_tokens import prompt_tokens, refuse_a_text_too_long, require_known
from core.engine.text.served_model import ServedModel
from core.errors import InvalidRequest
from core.spec.generation import ChatPrompt
from core.spec.tokenization import (
    DetokenizeAnswer,
    DetokenizeRequest,
    TokenizeAnswer,
    TokenizerAnswer,
    TokenizeRequest,
)


def tokenize(asked: TokenizeRequest, model: ServedModel) -> TokenizeAnswer:
    """Return the token ids of a prompt; raises the errors of `prompt_tokens`, but for no length.

    Control tokens in a text are parsed as such; those in messages are plain text.
    """
    tokens = _tokens(asked, model)
    tokenizer = model.vocabulary.tokenizer
    with model.vocabulary.lock:
        names = tokenizer.convert_ids_to_tokens(tokens) if asked.with_names else None
    return TokenizeAnswer(
        tokens=tuple(tokens),
        names=None if names is None else tuple(names),
        context_length=model.longest_prompt,
    )


def detokenize(asked: DetokenizeRequest, model: ServedModel) -> DetokenizeAnswer:
    """Return the text of tokens, control tokens by name; InvalidRequest for unknown tokens."""
    require_known(asked.tokens, "tokens", model)
    with model.vocabulary.lock:
        return DetokenizeAnswer(text=model.vocabulary.tokenizer.decode(list(asked.tokens)))


def describe_tokenizer(model: ServedModel) -> TokenizerAnswer:
    """Return the facts of the model's tokenizer."""
    tokenizer = model.vocabulary.tokenizer
    template = tokenizer.chat_template
    if isinstance(template, dict):  # several by name
        template = template.get("default")
    names = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
    return TokenizerAnswer(
        tokenizer_class=type(tokenizer).__name__,
        context_length=model.longest_prompt,
        chat_template=template,
        **{f"{name}_token": getattr(tokenizer, f"{name}_token") for name in names},
    )


def _tokens(asked: TokenizeRequest, model: ServedModel) -> list[int]:
    prompt, tokenizer = asked.prompt, model.vocabulary.tokenizer
    if isinstance(prompt, ChatPrompt):
        if asked.add_generation_prompt or model.key.task == "seq2seq":
            return list(prompt_tokens(prompt, model))
        return _closed_conversation(prompt, model)
    if not prompt.text:
        return []
    if asked.add_special_tokens:
        return list(prompt_tokens(prompt, model))
    refuse_a_text_too_long(prompt.text, "prompt", model)
    with model.vocabulary.lock:
        return encode(tokenizer, [prompt.text])[0]


def _closed_conversation(prompt: ChatPrompt, model: ServedModel) -> list[int]:
    """Return the tokens of messages without the opening of an answer."""
    tokenizer = model.vocabulary.tokenizer
    refuse_a_text_too_long([prompt.messages, prompt.tools], "messages", model)
    template = ChatTemplate(tokenizer, model.template_context(prompt))
    messages = conversation_of_request(prompt.messages)
    with model.vocabulary.lock:
        try:
            control = template.source(prompt.tools).control
            text = template.render(control.hide(messages), control.hide(prompt.tools))
        except Unrenderable as problem:
            param = problem.field or "messages"
            raise InvalidRequest(f"Cannot render the messages: {problem}.", param=param) from None
        return control.encode(tokenizer, [text])[0]
