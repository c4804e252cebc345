"""Language models for prompt expansion: a folder that transformers opens, a CLIP that can write, or a server."""

import asyncio
import re
import socket
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import comfy.model_management
import comfy.text_encoders
import comfy.utils
import torch

from ..engine.prompt.chat_server import ChatServer
from ..engine.prompt.chats import FORMATS, chat_text, without
from ..engine.prompt.expansion import Expansion, ExpansionFailed, LanguageModel, Request, expand
from .models.memory import is_out_of_memory, on_device
from .models.pretrained import LOCAL, Managed, best_dtype, folder_of, model_folders, opened
from .settings import chat_server

FOLDER = "LLM"
SERVER, CLIP = "endpoint", "clip"  # what workflows hold
STOP, KEEP = "stop", "use the prompt as it is"
FAILURES = (STOP, KEEP)
TOP_P = 0.9
POLL_SECONDS = 0.1


def language_model_names() -> list[str]:
    return [*model_folders(FOLDER), SERVER, CLIP]


def check_language_model(name: str) -> None:
    """ValueError unless the model can be asked: its folder is whole, or its server's settings make sense."""
    if name == SERVER:
        chat_server()
    elif name != CLIP:
        folder_of(FOLDER, name, needs_tokenizer=True)


def state_of(name: str) -> str:
    """What an answer depends on beside the node's inputs: which server is asked, and whether anybody listens there."""
    if name != SERVER:
        return name
    asked = chat_server()
    parts = urlsplit(asked.url)
    try:
        socket.create_connection((parts.hostname or "", parts.port or {"http": 80, "https": 443}[parts.scheme]), timeout=1).close()
    except OSError:
        return f"nobody at {asked.shown}"
    return f"{asked.model} at {asked.shown}"


def language_model(name: str, clip: Any | None) -> LanguageModel:
    """Who answers: a folder's name, "endpoint", or "clip" with one connected. ValueError where that cannot be."""
    if name == SERVER:
        return partial(_answer_of_server, chat_server())
    if name == CLIP:
        return partial(_answer_of_clip, clip, writing_network(clip))
    return LocalModel(name).answer


def expanded(prompt: str, seed: int, model: LanguageModel, when_it_fails: str) -> Expansion:
    """The prompt rewritten. A failure is raised, or under KEEP the prompt comes back with a note."""
    try:
        return expand(prompt, seed, model)
    except ExpansionFailed as error:
        if when_it_fails == STOP:
            raise
        return Expansion(prompt, (f"Not expanded: {error}",))


def _answer_of_server(server: ChatServer, request: Request) -> str:
    """Asked in a thread of its own, since ComfyUI's runs an event loop already; interruption closes the connection at once."""
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(asyncio.run, _until(stop, server.answer(request)))
        try:
            while not wait([future], POLL_SECONDS).done:
                comfy.model_management.throw_exception_if_processing_interrupted()
        finally:
            stop.set()
    return future.result()


async def _until(stop: threading.Event, work: Coroutine[Any, Any, str]) -> str:
    task = asyncio.ensure_future(work)
    while not task.done():
        await asyncio.wait({task}, timeout=POLL_SECONDS)
        if stop.is_set():
            task.cancel()
    return await task


class LocalModel:
    """A causal language model in models/LLM; it is loaded when it is asked and gone from memory afterwards."""

    def __init__(self, name: str) -> None:
        self.name, self.folder = name, folder_of(FOLDER, name, needs_tokenizer=True)

    def answer(self, request: Request) -> str:
        from transformers import AutoModelForCausalLM, AutoTokenizer
        device = comfy.model_management.text_encoder_device()
        try:
            tokenizer = AutoTokenizer.from_pretrained(self.folder, **LOCAL)
            inputs = chat(tokenizer, request)
            managed = Managed(opened(AutoModelForCausalLM, self.folder, best_dtype(device)), device)
            try:
                managed.load(_cache_bytes(managed.network, inputs["input_ids"].shape[1] + request.max_new_tokens))
                return _generated(managed, tokenizer, inputs, request)
            finally:
                managed.unload()
        except comfy.model_management.InterruptProcessingException:
            raise
        except Exception as error:  # transformers raises whatever its many model classes raise
            cure = " Choose a smaller model or a chat server." if is_out_of_memory(error) else ""
            raise ExpansionFailed(f"models/{FOLDER}/{self.name} gave no answer: {error}.{cure}") from error


def chat(tokenizer: Any, request: Request) -> dict[str, torch.Tensor]:
    """Token ids and attention mask (1, L) of the request in the model's own chat format, thinking switched off where it can be.

    Special tokens in the user's text are taken out: they could end the user's turn and begin another.
    """
    if not tokenizer.chat_template:
        raise ValueError("it has no chat template; choose a model for chats, an Instruct one")
    special = {*tokenizer.all_special_tokens, *(token.content for token in tokenizer.added_tokens_decoder.values())}
    marks = re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))) or "(?!)")
    messages = replace(request, user=without(marks, request.user)).messages
    template = partial(tokenizer.apply_chat_template, add_generation_prompt=True, return_tensors="pt", return_dict=True, enable_thinking=False)
    from jinja2 import TemplateError
    try:
        encoded = template(messages)
    except TemplateError:  # some know no system role
        encoded = template([{"role": "user", "content": "\n\n".join(message["content"] for message in messages)}])
    return {name: encoded[name] for name in ("input_ids", "attention_mask")}


@torch.inference_mode()
def _generated(managed: Managed, tokenizer: Any, inputs: dict[str, torch.Tensor], request: Request) -> str:
    from transformers import StoppingCriteriaList
    devices = [] if managed.device.type == "cpu" else [managed.device]
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    with torch.random.fork_rng(devices, device_type=managed.device.type if devices else "cuda"), on_device(managed.device):
        torch.manual_seed(request.seed % 2**63)
        tokens = managed.network.generate(
            **{name: tensor.to(managed.device) for name, tensor in inputs.items()}, do_sample=True, temperature=request.temperature, top_p=TOP_P,
            max_new_tokens=request.max_new_tokens, stopping_criteria=StoppingCriteriaList([EachToken(request)]), pad_token_id=padding)
    return str(tokenizer.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))


class EachToken:
    """A stopping criterion that stops nothing but an interrupted graph, and moves the progress bar."""

    def __init__(self, request: Request) -> None:
        self.progress = comfy.utils.ProgressBar(request.max_new_tokens)

    def __call__(self, ids: torch.Tensor, _: Any, **__: Any) -> torch.Tensor:
        comfy.model_management.throw_exception_if_processing_interrupted()
        self.progress.update(1)
        return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)


def _cache_bytes(network: Any, tokens: int) -> float:
    """Keys and values of so many tokens, as if no heads shared theirs; 1 GB where the configuration has other words for it."""
    config = network.config.get_text_config()
    layers, width = (getattr(config, name, None) for name in ("num_hidden_layers", "hidden_size"))
    return 2.0 * layers * width * tokens * next(network.parameters()).element_size() if layers and width else 1e9


def writing_network(clip: Any | None) -> str:
    """What the text encoder of a CLIP that can write is called; ValueError with those that can."""
    if clip is None:
        raise ValueError(f"language_model is '{CLIP}', but no CLIP is connected. Connect one that writes, for example Qwen3 or Gemma.")
    writer = getattr(getattr(comfy.text_encoders, "llama", None), "BaseGenerate", None)
    writers = [module for module in clip.cond_stage_model.modules() if writer is not None and isinstance(module, writer)]
    for network in writers:
        name = type(network).__name__
        if name.startswith(tuple(FORMATS)) and getattr(network.model.config, "stop_tokens", None):
            return name
    raise ValueError("this CLIP cannot write text: UMT5 and CLIP-L only read. Connect a Qwen3, Gemma or Ministral text encoder, and use a ComfyUI "
                     "of February 2026 or newer.")


def _answer_of_clip(clip: Any, network: str, request: Request) -> str:
    """Through core's own generation, which shows progress and can be interrupted."""
    try:
        tokens = clip.tokenize(chat_text(network, request), llama_template="{}", skip_template=True, min_length=1, thinking=False)
        return str(clip.decode(clip.generate(tokens, do_sample=True, max_length=request.max_new_tokens, temperature=request.temperature,
                                             top_p=TOP_P, seed=request.seed)))
    except comfy.model_management.InterruptProcessingException:
        raise
    except Exception as error:  # whatever core's many text encoders raise
        raise ExpansionFailed(f"the text encoder {network} gave no answer: {error}.") from error
