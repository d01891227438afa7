"""A tokenizer's files: tokenizer.json as it ships, and what travels beside it as settings.

tokenizer.json does not say which inputs the graph has, how batches are padded, and how long a text
may be: that is read once from the model's other files, and stands in every step and the manifest.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgedistill.errors import JobError, ModelError

FILE = "tokenizer.json"
UNLIMITED = 4096  # for models without a limit of their own (relative positions)
SHORTEST = 8
# What slow tokenizers read instead of tokenizer.json: of no use beside one that has changed.
STALE = ("added_tokens.json", "merges.txt", "vocab.json", "vocab.txt")
# Types that read segment ids although their config may not say so (a hand-written config.json).
SEGMENTED = ("albert", "bert", "convbert", "electra", "funnel", "mobilebert", "nezha", "roformer")
BERT_TOKENIZERS = ("bert", "convbert", "distilbert", "electra", "funnel", "mobilebert", "mpnet")
# Types that count positions from pad_token_id + 1: RoBERTa's 514 positions take 512 tokens.
OFFSET = (
    "bertweet", "camembert", "data2vec-text", "ibert", "longformer", "mpnet", "roberta",
    "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod",
)  # fmt: skip


def settings_of(
    model: Path | Mapping[str, Any], max_length: int | None = None, *, pair: bool = False
) -> dict[str, Any]:
    """Read what the encoder of a model is, from its folder or from a plain config.json.

    Returns {max_length (tokens; None: the most that the model takes), inputs (names in order), pad,
    pad_type, pad_side, cut_side, pair}; all of it is JSON, and loads no torch.
    Raises `ModelError` for a folder without tokenizer.json, `JobError` for a length out of range.
    """
    config, told, tokenizer = _files(model)
    limit = _limit(config, told)
    length = limit if max_length is None else int(max_length)
    if not SHORTEST <= length <= limit:
        raise JobError(
            f"max_length {length} is out of range: this model takes from {SHORTEST} to {limit}"
        )
    padding = tokenizer.get("padding") or {}
    pad_type = told.get("pad_token_type_id", padding.get("pad_type_id", 0))
    return {
        "max_length": length,
        "inputs": list(_inputs(config, tokenizer)),
        "pad": _pad(config, told, tokenizer),
        "pad_type": int(pad_type or 0),
        "pad_side": str(told.get("padding_side", "right")),
        "cut_side": str(told.get("truncation_side", "right")),
        "pair": pair,
    }


def _files(
    model: Path | Mapping[str, Any],
) -> tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]:
    """Return config.json, tokenizer_config.json with special_tokens_map.json, tokenizer.json."""
    if isinstance(model, Mapping):
        return model, {}, {}
    tokenizer = read_tokenizer(model)
    told = {**_json(model / "special_tokens_map.json"), **_json(model / "tokenizer_config.json")}
    return _json(model / "config.json"), told, tokenizer


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"'{path}' is not JSON: {error}") from None
    return read if isinstance(read, dict) else {}


def given_tokenizer(folder: Path) -> dict[str, Any]:
    """Read the tokenizer of a checkpoint as transformers has it, as plain JSON.

    What that takes from other files than tokenizer.json is written into it: what we write is read
    by `read_tokenizer`, and needs no other file. Raises `ModelError`.
    """
    read = read_tokenizer(folder)
    told, config = _json(folder / "tokenizer_config.json"), _json(folder / "config.json")
    return {**read, "normalizer": _normalizer(read.get("normalizer"), told, config)}


def read_tokenizer(folder: Path) -> dict[str, Any]:
    """Read tokenizer.json of a folder of ours as plain JSON. Raises `ModelError`."""
    read = _json(folder / FILE)
    if not isinstance(read.get("model"), dict):
        raise ModelError(
            f"'{folder}' has no {FILE}: AutoTokenizer.from_pretrained(folder).save_pretrained("
            "folder) writes it"
        )
    return read


def _normalizer(
    written: Any, told: Mapping[str, Any], config: Mapping[str, Any]
) -> Mapping[str, Any] | None:
    """Return the normalizer as transformers has it, so as the model was trained.

    For BERT's tokenizers transformers follows tokenizer_config.json (and lowercases where that is
    silent) whatever tokenizer.json says.
    """
    name = str(told.get("tokenizer_class") or config.get("model_type", "")).lower()
    plain = name.removesuffix("fast").removesuffix("tokenizer").replace("-", "")
    bert = isinstance(written, Mapping) and written.get("type") == "BertNormalizer"
    if not bert or plain not in BERT_TOKENIZERS or not (told or config):
        return written
    return {
        **written,
        "lowercase": bool(told.get("do_lower_case", True)),
        "strip_accents": told.get("strip_accents"),
        "handle_chinese_chars": bool(told.get("tokenize_chinese_chars", True)),
    }


def _limit(config: Mapping[str, Any], told: Mapping[str, Any]) -> int:
    """Return how many tokens the model can take at most."""
    limits = []
    positions = config.get("max_position_embeddings", config.get("n_positions"))
    if isinstance(positions, int) and positions > 0:
        offset = config.get("model_type") in OFFSET
        pad = config.get("pad_token_id")
        limits.append(positions - (1 if pad is None else int(pad)) - 1 if offset else positions)
    said = told.get("model_max_length")
    if isinstance(said, (int, float)) and 0 < said < 1e9:  # 1e30 says "none"
        limits.append(int(said))
    return max(SHORTEST, min(limits, default=UNLIMITED))


def _inputs(config: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> tuple[str, ...]:
    """Name a model's inputs in order: segment ids where it tells segments apart."""
    kind = config.get("model_type")
    types = config.get("type_vocab_size")
    if kind is None and types is None:  # no config.json: what the tokenizer writes for a pair
        segments = '"type_id": 1' in json.dumps(tokenizer.get("post_processor") or {})
        segments |= (tokenizer.get("post_processor") or {}).get("type") == "BertProcessing"
    else:
        segments = types > 1 if isinstance(types, int) else kind in SEGMENTED
    return ("input_ids", "attention_mask", *(("token_type_ids",) if segments else ()))


def _pad(config: Mapping[str, Any], told: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> int:
    """Return the id that fills a batch (masked, so that any valid one would do)."""
    token = told.get("pad_token")
    token = token.get("content") if isinstance(token, Mapping) else token
    tokens = [token] if token else []
    tokens += ["[PAD]", "<pad>"]
    added = {each["content"]: each["id"] for each in tokenizer.get("added_tokens") or ()}
    for name in tokens:
        if name in added:
            return int(added[name])
    padding = tokenizer.get("padding") or {}
    return int(padding.get("pad_id") or config.get("pad_token_id") or 0)


def write_tokenizer(folder: Path, file: Mapping[str, Any]) -> None:
    """Write tokenizer.json, the same bytes for the same content."""
    text = json.dumps(file, ensure_ascii=False, indent=1) + "\n"
    (folder / FILE).write_bytes(text.encode("utf-8"))


def lay_folded(folder: Path, encoder: Path, kept: Sequence[int]) -> None:
    """Lay the tokenizer.json of fewer pieces over a model folder's; what holds ids follows it.

    `kept`: the old id of each new one.
    """
    shutil.copyfile(encoder / FILE, folder / FILE)
    for stale in (*STALE, *(path.name for path in folder.glob("*.model"))):
        (folder / stale).unlink(missing_ok=True)
    told = _json(folder / "tokenizer_config.json")
    if "added_tokens_decoder" in told:
        new = {old: index for index, old in enumerate(kept)}
        listed = told["added_tokens_decoder"]
        told["added_tokens_decoder"] = {str(new[int(old)]): each for old, each in listed.items()}
        text = json.dumps(told, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
        (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
