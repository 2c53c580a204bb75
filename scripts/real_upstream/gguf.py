"""The tiny model that recites as one GGUF file, which is how llama.cpp reads models (its format, version 3).

Run with the Python of scripts/real-upstream's llama.cpp: `python -m scripts.real_upstream.gguf FOLDER OUT`.
Rule: nothing but numpy is needed; the file says the same as the folder, weights in 16 bits.
Surprise: llama.cpp turns pairs of neighbours where transformers turns halves of a head, so the rows of queries and keys change
places. And it knows DeepSeek's way to cut text only by name.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ALIGNMENT = 32
F32, F16 = 0, 1
"""Types of tensors."""
U32, FLOAT, BOOL, STRING, ARRAY, INT32 = 4, 6, 7, 8, 9, 5
"""Types of values."""
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
"""Types of tokens."""

TOP = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
PARTS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def text(value: str) -> bytes:
    """A string as the format has it."""
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def value(kind: int, given: Any) -> bytes:
    """A value of a plain type."""
    if kind == STRING:
        return text(given)
    return struct.pack({U32: "<I", INT32: "<i", FLOAT: "<f", BOOL: "<?"}[kind], given)


def field(name: str, kind: int, given: Any) -> bytes:
    """A name with its value; a list is one of that kind."""
    if isinstance(given, list):
        items = b"".join(value(kind, one) for one in given)
        return text(name) + struct.pack("<IIQ", ARRAY, kind, len(given)) + items
    return text(name) + struct.pack("<I", kind) + value(kind, given)


def tensors(path: Path, heads: int) -> Iterator[tuple[str, np.ndarray]]:
    """The weights of a safetensors file in bfloat16, under llama.cpp's names."""
    raw = path.read_bytes()
    [size] = struct.unpack("<Q", raw[:8])
    for name, about in json.loads(raw[8 : 8 + size]).items():
        if name == "__metadata__":
            continue
        start, end = (8 + size + offset for offset in about["data_offsets"])
        halves = np.frombuffer(raw[start:end], dtype="<u2").astype("<u4") << 16
        weight = halves.view("<f4").reshape(about["shape"])
        if name in TOP:
            yield TOP[name], weight
            continue
        _, _, layer, rest = name.split(".", 3)
        part, kind = rest.rsplit(".", 1)
        if PARTS[part] in ("attn_q", "attn_k"):
            weight = weight.reshape(heads, 2, len(weight) // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)
        yield f"blk.{layer}.{PARTS[part]}.{kind}", weight


def vocabulary(folder: Path, size: int) -> tuple[list[str], list[int], list[str]]:
    """Tokens, their types, and the merges."""
    data = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    words = [f"[unused{number}]" for number in range(size)]
    kinds = [UNUSED] * size
    for word, number in data["model"]["vocab"].items():
        words[number], kinds[number] = word, NORMAL
    for token in data["added_tokens"]:
        words[token["id"]] = token["content"]
        kinds[token["id"]] = CONTROL if token["special"] else USER_DEFINED
    merges = [" ".join(merge) if isinstance(merge, list) else merge for merge in data["model"]["merges"]]
    return words, kinds, merges


def write(folder: Path, out: Path) -> None:
    """Write the file, under another name until it is whole."""
    about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    words, kinds, merges = vocabulary(folder, about["vocab_size"])
    heads = about["num_attention_heads"]
    theta = (about.get("rope_parameters") or about).get("rope_theta", 10000.0)
    fields = [
        field("general.architecture", STRING, "llama"),
        field("general.name", STRING, "recite"),
        field("general.file_type", U32, F16),
        field("llama.context_length", U32, about["max_position_embeddings"]),
        field("llama.embedding_length", U32, about["hidden_size"]),
        field("llama.block_count", U32, about["num_hidden_layers"]),
        field("llama.feed_forward_length", U32, about["intermediate_size"]),
        field("llama.attention.head_count", U32, heads),
        field("llama.attention.head_count_kv", U32, about["num_key_value_heads"]),
        field("llama.attention.layer_norm_rms_epsilon", FLOAT, about["rms_norm_eps"]),
        field("llama.rope.dimension_count", U32, about["hidden_size"] // heads),
        field("llama.rope.freq_base", FLOAT, theta),
        field("llama.vocab_size", U32, about["vocab_size"]),
        field("tokenizer.ggml.model", STRING, "gpt2"),
        field("tokenizer.ggml.pre", STRING, "deepseek-v3"),
        field("tokenizer.ggml.tokens", STRING, words),
        field("tokenizer.ggml.token_type", INT32, kinds),
        field("tokenizer.ggml.merges", STRING, merges),
        field("tokenizer.ggml.bos_token_id", U32, about["bos_token_id"]),
        field("tokenizer.ggml.eos_token_id", U32, about["eos_token_id"]),
        field("tokenizer.ggml.add_bos_token", BOOL, False),
        field("tokenizer.chat_template", STRING, (folder / "chat_template.jinja").read_text(encoding="utf-8")),
    ]
    infos, blobs, offset = [], [], 0
    for name, weight in tensors(folder / "model.safetensors", heads):
        kind, stored = (F32, weight.astype("<f4")) if weight.ndim == 1 else (F16, weight.astype("<f2"))
        shape = struct.pack(f"<{weight.ndim}Q", *reversed(weight.shape))
        infos.append(text(name) + struct.pack("<I", weight.ndim) + shape + struct.pack("<IQ", kind, offset))
        raw = stored.tobytes()
        blobs.append(raw + bytes(-len(raw) % ALIGNMENT))
        offset += len(blobs[-1])
    head = b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(fields)) + b"".join(fields) + b"".join(infos)
    part = out.with_suffix(".part")
    part.write_bytes(head + bytes(-len(head) % ALIGNMENT) + b"".join(blobs))
    part.rename(out)


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
