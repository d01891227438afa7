"""Tiny real tokenizers, trained on the spot, in folders as transformers writes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizing import SPECIALS, byte_pairs, unigram, word_pieces

ROLES = {
    "bert": ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"),
    "roberta": ("cls_token", "pad_token", "sep_token", "unk_token", "mask_token"),
}
CONFIGS = {
    "bert": {"max_position_embeddings": 64, "type_vocab_size": 2, "pad_token_id": 0},
    "electra": {"max_position_embeddings": 64, "type_vocab_size": 2, "pad_token_id": 0},
    "distilbert": {"max_position_embeddings": 64, "pad_token_id": 0},
    "roberta": {"max_position_embeddings": 66, "type_vocab_size": 1, "pad_token_id": 1},
    "xlm-roberta": {"max_position_embeddings": 66, "type_vocab_size": 1, "pad_token_id": 1},
}
CLASSES = {
    "bert": "BertTokenizer",
    "electra": "ElectraTokenizer",
    "distilbert": "DistilBertTokenizer",
    "roberta": "RobertaTokenizer",
    "xlm-roberta": "PreTrainedTokenizerFast",
}


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function: the folder of a model type's tokenizer, with the given config entries."""

    def make(kind: str, *, padded: bool = False, told: dict | None = None, **config) -> Path:
        folder = tmp_path_factory.mktemp(kind)
        told = told or {}
        if kind == "roberta":
            made = byte_pairs()
        elif kind == "xlm-roberta":
            made = unigram()
        else:
            made = word_pieces(told.get("do_lower_case", True))
        if padded:  # as sentence-transformers save theirs
            made.enable_padding(length=48)
            made.enable_truncation(48)
        made.save(str(folder / "tokenizer.json"))
        style = "roberta" if "roberta" in kind else "bert"
        names = dict(zip(ROLES[style], SPECIALS[style], strict=True))
        saved = {"tokenizer_class": CLASSES[kind], "model_max_length": 64, **names, **told}
        (folder / "tokenizer_config.json").write_text(json.dumps(saved))
        about = {"model_type": kind, **CONFIGS[kind], **config}
        (folder / "config.json").write_text(json.dumps(about))
        return folder

    return make


@pytest.fixture(scope="session")
def embedded() -> Callable[..., Path]:
    """Return a function: gives a tokenizer's folder weights with a table of embeddings.

    `near`: groups of words whose embeddings are nearly one; all others point anywhere.
    """
    import numpy as np
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer

    def make(folder: Path, near: tuple[tuple[str, ...], ...] = (), *, dtype=np.float32) -> Path:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        size, draw = tokenizer.get_vocab_size() + 3, np.random.default_rng(0)
        table = draw.standard_normal((size, 16)).astype(dtype)
        for group in near:
            ids = [tokenizer.encode(f" {each}", add_special_tokens=False).ids for each in group]
            assert all(len(each) == 1 for each in ids), (group, ids)
            for step, (index,) in enumerate(ids):
                table[index] = table[ids[0][0]] + dtype(0.01 * step)
        position = draw.standard_normal((66, 16)).astype(dtype)
        names = "bert.embeddings.word_embeddings.weight", "bert.embeddings.position.weight"
        save_file(dict(zip(names, (table, position), strict=True)), folder / "model.safetensors")
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "vocab_size": size}))
        return folder

    return make
