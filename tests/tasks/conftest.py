"""Tiny real tokenizers, trained on the spot, in folders as transformers writes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

CORPUS = [
    "what is the weather like in lisbon tomorrow",
    "please move money to my savings account",
    "play the next song on the list and turn the volume up",
    "how do i say good morning in italian",
    "Héllo WORLD, naïve café! 今天的会议改到下午三点。",
] * 4

SPECIALS = {
    "bert": ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    "roberta": ("<s>", "<pad>", "</s>", "<unk>", "<mask>"),
}
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


def _word_pieces(lowercase: bool):
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    specials = list(SPECIALS["bert"])
    made.train_from_iterator(
        CORPUS,
        trainers.WordPieceTrainer(vocab_size=200, special_tokens=specials, show_progress=False),
    )
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return made


def _bytes():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        show_progress=False,
        special_tokens=list(SPECIALS["roberta"]),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    made.train_from_iterator(CORPUS, trainer)
    made.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), add_prefix_space=False
    )
    return made


def _unigram():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120,
        show_progress=False,
        special_tokens=list(SPECIALS["roberta"]),
        unk_token="<unk>",
    )
    made.train_from_iterator(CORPUS, trainer)
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return made


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function: the folder of a model type's tokenizer, with the given config entries."""

    def make(kind: str, *, padded: bool = False, told: dict | None = None, **config) -> Path:
        folder = tmp_path_factory.mktemp(kind)
        told = told or {}
        if kind == "roberta":
            made = _bytes()
        elif kind == "xlm-roberta":
            made = _unigram()
        else:
            made = _word_pieces(told.get("do_lower_case", True))
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
