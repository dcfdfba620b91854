"""A BERT as a tower: the tokens of texts in, the mean of the last layer's states out (Reimers and Gurevych, 2019).

BERT itself is that of `transformers`, tokens are those of `tokenizers`; both are imported when first used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.foreign import read_json, read_safetensors
from rmtllmf_lib.model.layout import TEXT_PREFIX, listing, require_float
from rmtllmf_lib.reprs import short_repr
from rmtllmf_lib.validated import validated_call, validated_init

LOGIT_SCALE = 20.0  # of cosines, as sentence-transformers trains such models

_WORDS = "embeddings.word_embeddings.weight"
_PARTS = ("embeddings.", "encoder.")  # of a BERT; its pooler and the heads of others give no features
_OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
_GROUP = 16  # texts of like lengths that are read at once
_SPARE = 128  # embeddings of no token, with which some models are padded


@contextmanager
def needs_language() -> Iterator[None]:
    """Turn a failed import of transformers or tokenizers into an `InputError` that says how to install them."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("transformers", "tokenizers"):
            raise
        raise InputError(
            f"text backbones need {error.name}, which is not installed: pip install 'rmtllmf[language]'"
        ) from error


class TextTower(nn.Module):
    """Tokens (n, T) int64 → features (n, d): the mean over each text's tokens of BERT's last states.

    Parameters
    ----------
    bert : transformers.BertModel
        Without a pooling layer.
    pad : int
        Token that fills short rows up.
    """

    def __init__(self, bert: nn.Module, pad: int) -> None:
        super().__init__()
        self.bert = bert
        self.pad = pad

    @property
    def output_dim(self) -> int:
        """Number of features."""
        return int(self.bert.config.hidden_size)  # type: ignore[union-attr,arg-type]  # untyped

    def forward(self, tokens: Tensor) -> Tensor:
        """Features of rows of tokens, which are filled up on the right."""
        # a mixed batch is as wide as its longest text: short ones are taken together, without the filling
        lengths = (tokens != self.pad).sum(1)
        order = lengths.argsort(stable=True)
        groups = [(rows, max(int(lengths[rows[-1]]), 1)) for rows in order.split(_GROUP)]
        return torch.cat([self.together(tokens[rows, :width]) for rows, width in groups])[order.argsort()]

    def together(self, tokens: Tensor) -> Tensor:
        """Features of all rows read at once, in their order, with what fills them up."""
        mask = (tokens != self.pad).long()
        states = self.bert(input_ids=tokens, attention_mask=mask).last_hidden_state
        counted = mask[..., None].to(states.dtype)
        return (states * counted).sum(1) / counted.sum(1)


@validated_init
@dataclass(frozen=True, eq=False)
class TextTokenizer:
    """Texts → rows of tokens.

    Attributes
    ----------
    pieces : tokenizers.Tokenizer
        Cuts after `context_length` tokens, and fills nothing up.
    context_length : int
        Tokens per text, start and end included; what is beyond is not read.
    pad : int
        Token that fills short rows up.
    """

    pieces: Any
    context_length: PositiveInt
    pad: NonNegativeInt

    __repr__ = short_repr

    @validated_call
    def __call__(self, texts: str | Sequence[str]) -> Tensor:
        """Tokens (n, T) int64, T those of the longest text; an InputError for a text without any."""
        found = self._encoded([texts] if isinstance(texts, str) else texts)
        rows = torch.full((len(found), max((len(each.ids) for each in found), default=0)), self.pad)
        for row, each in zip(rows, found, strict=True):
            row[: len(each.ids)] = torch.tensor(each.ids)
        return rows

    def _encoded(self, texts: Sequence[str]) -> list[Any]:
        # one by one: the threads of a batch would not survive a fork of the process
        found = [self.pieces.encode(text) for text in texts]
        for text, encoded in zip(texts, found, strict=True):
            if all(encoded.special_tokens_mask):
                raise InputError(f"{text[:60]!r} has no token: expected a text with words; remove it")
        return found

    @validated_call
    def beyond(self, texts: Sequence[str]) -> int:
        """Number of texts that are longer than `context_length` tokens; errors as when they are read."""
        return sum(bool(each.overflowing) for each in self._encoded(texts))


@validated_call
def bert_tensors(tensors: Mapping[str, Tensor], what: str) -> dict[str, Tensor]:
    """The parameters of the BERT in a file, named as in a layout, `bert.embeddings…` and `bert.encoder…`.

    Parameters
    ----------
    tensors : mapping of name to tensor
        Of a whole model, with any prefix; poolers, heads and `position_ids` are left out.
    what : str
        Name of the file, for messages.

    Raises
    ------
    InputError
        for no BERT, or more than one, and parameters that are no floating-point numbers.
    """
    prefixes = [name.removesuffix(_WORDS) for name in tensors if name == _WORDS or name.endswith("." + _WORDS)]
    if len(prefixes) != 1:
        found = "no BERT" if not prefixes else f"more than one BERT: {listing(prefixes)}"
        raise InputError(
            f"{what} holds {found}, among {listing(list(tensors))}; expected one, with a name that ends in {_WORDS!r}"
        )
    bert = {}
    for name, tensor in tensors.items():
        own = name.removeprefix(prefixes[0])
        if name.startswith(prefixes[0]) and own.startswith(_PARTS) and not own.endswith("position_ids"):
            require_float(name, tensor)
            for old, new in _OLD_NAMES.items():
                own = own.replace(old, new)
            bert[TEXT_PREFIX + own] = tensor
    return bert


@validated_call
def read_text_model(folder: Path) -> tuple[TextTower, TextTokenizer]:
    """Tower and tokenizer of a sentence-transformers model of BERT's type.

    Parameters
    ----------
    folder : path
        With config.json, tokenizer.json and model.safetensors; the length of texts is that of
        sentence_bert_config.json, if there is one, else what BERT has positions for.

    Raises
    ------
    InputError
        without transformers, for a file that is missing or damaged, a model of another type, one that pools otherwise
        than by the mean, and a tokenizer of another vocabulary.
    """
    config = read_json(folder / "config.json")
    if config.get("model_type") != "bert":
        raise InputError(
            f"{folder / 'config.json'} is of model_type {str(config.get('model_type'))[:40]!r}: expected 'bert', the "
            "architecture that text backbones have; choose such a model"
        )
    _require_mean(folder)
    tensors, _ = read_safetensors(folder / "model.safetensors")
    named = bert_tensors(tensors, str(folder / "model.safetensors"))
    _require_sizes(config, named, folder)
    tower = _built(config, named, folder)
    lengths = [int(config["max_position_embeddings"])]
    if (settings := folder / "sentence_bert_config.json").is_file():
        lengths.append(_whole(read_json(settings), "max_seq_length", settings, lengths[0]))
    return tower, _tokenizer(folder / "tokenizer.json", min(lengths), int(config["vocab_size"]), tower.pad)


def _require_mean(folder: Path) -> None:
    """Refuse a model whose features are not the mean of its states."""
    if (folder / "2_Dense").is_dir():
        raise InputError(f"{folder} has a dense layer after its pooling: expected the mean of BERT's states alone")
    if (pooling := folder / "1_Pooling" / "config.json").is_file():
        found = read_json(pooling)
        modes = sorted(name for name, on in found.items() if name.startswith("pooling_mode_") and on is True)
        if modes != ["pooling_mode_mean_tokens"]:
            raise InputError(f"{pooling} has {', '.join(modes) or 'no mode'}: expected pooling_mode_mean_tokens alone")


def _whole(settings: Mapping[str, Any], name: str, file: Path, default: int | None = None) -> int:
    value = settings.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 10**9:
        raise InputError(f"{name} in {file} is {str(value)[:40]}: expected a positive whole number; get the file again")
    return value


def _require_sizes(config: Mapping[str, Any], named: Mapping[str, Tensor], folder: Path) -> None:
    """Check the sizes in config.json with the tensors, so that no file makes room for more than it holds."""
    file = folder / "config.json"
    sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size", "max_position_embeddings")
    asked = {name: _whole(config, name, file) for name in sizes}
    blocks = {match[1] for name in named if (match := re.match(r"bert\.encoder\.layer\.(\d+)\.", name))}

    def shape(name: str) -> tuple[int, ...]:
        return tuple(named[TEXT_PREFIX + name].shape) if TEXT_PREFIX + name in named else ()

    found = {
        "vocab_size and hidden_size": (shape(_WORDS), (asked["vocab_size"], asked["hidden_size"])),
        "max_position_embeddings": (
            shape("embeddings.position_embeddings.weight"), (asked["max_position_embeddings"], asked["hidden_size"])),
        "num_hidden_layers": ((len(blocks),), (asked["num_hidden_layers"],)),
        "intermediate_size": (
            shape("encoder.layer.0.intermediate.dense.weight"), (asked["intermediate_size"], asked["hidden_size"])),
    }  # fmt: skip
    for name, (held, expected) in found.items():
        if held != expected:
            raise InputError(
                f"model.safetensors of {folder} does not hold the model of config.json: by {name} expected {expected}, "
                f"found {held}; get both from the same model"
            )


def _built(config: Mapping[str, Any], named: Mapping[str, Tensor], folder: Path) -> TextTower:
    with needs_language():
        from transformers import BertConfig, BertModel
    try:
        with torch.random.fork_rng(devices=[]):  # it draws weights that are replaced at once
            settings = BertConfig.from_dict(dict(config))
            tower = TextTower(BertModel(settings, add_pooling_layer=False), int(settings.pad_token_id or 0))
        tower.load_state_dict({name: tensor.float() for name, tensor in named.items()})
    except Exception as error:  # for strange settings transformers raises whatever comes
        detail = " ".join(str(error).split("\n\t")[:2])  # the first mismatched tensor is enough
        raise InputError(f"{folder} does not hold the BERT of its config.json: {detail[:500]}") from error
    return tower


def _tokenizer(file: Path, length: int, vocabulary: int, pad: int) -> TextTokenizer:
    with needs_language():
        from tokenizers import Tokenizer
    if not file.is_file():
        raise InputError(f"{file} does not exist: expected the tokenizer of the model; get it from where the model is")
    try:
        pieces = Tokenizer.from_file(str(file))
    except Exception as error:  # of a type of the Rust library's own
        raise InputError(f"{file} is no tokenizer ({str(error)[:200]}): get it again") from error
    size = pieces.get_vocab_size()
    if not 0 <= vocabulary - size < _SPARE or max(pieces.get_vocab().values()) >= vocabulary:
        raise InputError(
            f"{file} has a vocabulary of {size} tokens, and the model one of {vocabulary}: expected the same; get both "
            "from the same model"
        )
    pieces.enable_truncation(length)
    pieces.no_padding()
    return TextTokenizer(pieces, length, pad)
