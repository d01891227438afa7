"""Tiny real tokenizers, trained on the spot; the same ones each time.

tokenizing.word_pieces()             WordPiece, as BERT has it
tokenizing.lay(folder, "roberta")    a tiny model's folder gets the tokenizer of its kind
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

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


def word_pieces(lowercase: bool = True) -> Any:
    """BERT's kind: words and ##pieces of words."""
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


def byte_pairs() -> Any:
    """RoBERTa's kind: bytes, merged."""
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


def unigram() -> Any:
    """XLM-RoBERTa's kind: pieces by their probability."""
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


MAKERS = {"bert": word_pieces, "roberta": byte_pairs, "xlm-roberta": unigram}


def lay(folder: Path, kind: str) -> Path:
    """Give the tiny model in a folder the real tokenizer of its kind, as many rows as it needs."""
    MAKERS[kind]().save(str(folder / "tokenizer.json"))
    return folder


def size(kind: str) -> int:
    """Return how many pieces the tokenizer of a kind has."""
    return int(MAKERS[kind]().get_vocab_size())
