"""A random BERT of two layers on disk and loaded, and texts that it can learn to tell apart."""

from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel

from rmtllmf_lib.model.backbone import Backbone, load_backbone
from rmtllmf_lib.tasks.base import Split, Task

TOPICS = {
    "sport": ("ball", "goal", "team", "race"),
    "money": ("bank", "price", "loan", "coin"),
    "weather": ("rain", "wind", "snow", "sun"),
}
COMMON = ("the", "a", "is", "of", "and", "today", "we", "saw", "about")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
WORDS = (*SPECIAL, *COMMON, *TOPICS, *(word for words in TOPICS.values() for word in words), "##s")
LENGTH = 16


def write_tokenizer(file: Path, words: tuple[str, ...] = WORDS) -> None:
    number = {word: place for place, word in enumerate(words)}
    pieces = Tokenizer(WordPiece(number, unk_token="[UNK]"))
    pieces.normalizer, pieces.pre_tokenizer = BertNormalizer(lowercase=True), BertPreTokenizer()
    pieces.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", number["[CLS]"]), ("[SEP]", number["[SEP]"])]
    )
    pieces.add_special_tokens(list(SPECIAL))
    pieces.save(str(file))


def write_text_model(folder: Path, seed: int = 0, width: int = 32, **settings: Any) -> Path:
    """A random BERT as sentence-transformers lays it out; with a pooler, which is to be left out."""
    config = BertConfig(**{
        "vocab_size": len(WORDS), "hidden_size": width, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 2 * width, "max_position_embeddings": LENGTH, "initializer_range": 0.2, **settings,
    })  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        BertModel(config).save_pretrained(folder)
    write_tokenizer(folder / "tokenizer.json")
    return folder


@cache
def text_backbone(seed: int = 0) -> Backbone:
    return load_backbone(write_text_model(Path(mkdtemp()), seed))


def text_split(n: int, seed: int = 0, topics: dict[str, tuple[str, ...]] | None = None) -> Split:
    """Texts of three to seven words, one or two of them of the topic that is the label."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % len(topics or TOPICS)

    def some(words: tuple[str, ...], count: int) -> list[str]:
        return [words[int(i)] for i in torch.randint(len(words), (count,), generator=generator)]

    texts = []
    for label in labels.tolist():
        count = int(torch.randint(2, 6, (1,), generator=generator))
        words = some(COMMON, count) + some([*(topics or TOPICS).values()][label], 1 + count % 2)
        texts.append(" ".join(words[i] for i in torch.randperm(len(words), generator=generator).tolist()))
    return Split(tuple(texts), labels)


def text_task(name: str = "topics", seed: int = 0, n: int = 60) -> Task:
    """Topics; another seed gives other texts and another order of the topics."""
    names = [*TOPICS][seed % 3 :] + [*TOPICS][: seed % 3]
    topics = {topic: TOPICS[topic] for topic in names}
    splits = [text_split(count, 3 * seed + part, topics) for part, count in enumerate((n, 21, n))]
    return Task(name, name.title(), tuple(names), ("about {}",), *splits, "folder", f"{name} {seed}")


def write_texts(folder: Path, n: int = 30, seed: int = 0) -> Path:
    """The same task as the tables of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", n), ("test", n // 2)):
        split = text_split(count, seed + (part == "test"))
        rows = zip(split.labels.tolist(), split.inputs, strict=True)
        lines = [f"{[*TOPICS][label]}\t{text}" for label, text in rows]
        (folder / f"{part}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
