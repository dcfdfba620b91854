"""The pre-trained model that all users share, with its tower as a flat point `theta_base`.

`load_backbone("tiny")` is the miniature CLIP that ships with the library, `load_backbone("ViT-B-16-quickgelu")` is
OpenAI's model through open_clip; their towers read images. `load_backbone("minilm")` is a language model, whose tower
reads texts. All run the same code.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import open_clip
import safetensors.torch
import torch
from pydantic import PositiveInt
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.minilm import unpacked_minilm
from rmtllmf_lib.model.task_vector import Weights
from rmtllmf_lib.model.text_tower import LOGIT_SCALE, TextTower, read_text_model
from rmtllmf_lib.reprs import short_repr
from rmtllmf_lib.storage.canonical import config_key
from rmtllmf_lib.tasks.base import CLIP_MEAN, CLIP_STD
from rmtllmf_lib.validated import validated_call, validated_init

ASSETS = Path(__file__).parents[1] / "assets"
OPENAI_VIT = "ViT-B-16-quickgelu"
MINILM = "minilm"

PAD, START = 0, 1  # the end token has the largest number: open_clip finds it by argmax


@validated_init
@dataclass(frozen=True)
class WordTokenizer:
    """Tokenizer with one token per word, in lower case and without punctuation.

    Attributes
    ----------
    words : tuple of str
        The vocabulary; token numbers start at 2.
    context_length : int
        Tokens per text, start and end included.
    """

    words: tuple[str, ...]
    context_length: PositiveInt

    __repr__ = short_repr

    @property
    def vocab_size(self) -> int:
        """Number of tokens: the words, padding, start and end."""
        return len(self.words) + 3

    @staticmethod
    def split(text: str) -> list[str]:
        """The words of a text, in any script."""
        return re.findall(r"[^\W_]+", text.lower())

    def unknown(self, text: str) -> list[str]:
        """Words of a text that are not in the vocabulary."""
        return [word for word in self.split(text) if word not in self.words]

    def __call__(self, texts: str | Sequence[str]) -> Tensor:
        """Tokens (n, context_length) int64; unknown words and texts that are too long are an InputError."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        number = {word: k + 2 for k, word in enumerate(self.words)}
        tokens = torch.full((len(texts), self.context_length), PAD)
        for row, text in enumerate(texts):
            words = self.split(text)
            if unknown := self.unknown(text):
                raise InputError(
                    f"the text tower does not know {', '.join(map(repr, unknown))} in {text!r}: expected words of its "
                    f"{len(self.words)}-word vocabulary; choose the prototype head, or other class names and templates"
                )
            if len(words) + 2 > self.context_length:
                raise InputError(
                    f"{text!r} has {len(words)} words: expected at most {self.context_length - 2}; shorten it"
                )
            tokens[row, : len(words) + 2] = torch.tensor([START, *(number[w] for w in words), self.vocab_size - 1])
        return tokens


@validated_init
@dataclass(frozen=True, eq=False)
class Backbone:
    """A pre-trained model whose tower makes features of images (a CLIP) or of texts (a BERT).

    Attributes
    ----------
    name : str
        Argument of `load_backbone`.
    model : open_clip.CLIP or TextTower
        Evaluation mode, float32, CPU; shared, never changed in place.
    tokenizer : callable
        list of str → (n, context) int64 tokens: of a CLIP for the class names, of a BERT for all texts.
    image_size : int or None
        Side of the input in pixels; None for a tower that reads texts.
    vocabulary : frozenset of str or None
        The words that the text tower knows; None for any text.
    weights : Weights
        `theta_base`: the tower as one flat buffer.
    mean, std : 3 floats
        Pixel statistics of its training images.
    """

    name: str
    model: open_clip.CLIP | TextTower
    tokenizer: Callable[[list[str]], Tensor]
    image_size: PositiveInt | None
    vocabulary: frozenset[str] | None
    weights: Weights
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD

    __repr__ = short_repr

    @property
    def logit_scale(self) -> float:
        """What cosines are multiplied by: exp(t) of a CLIP's training, or 20."""
        return LOGIT_SCALE if isinstance(self.model, TextTower) else float(self.model.logit_scale.exp())

    @property
    def reads(self) -> Literal["images", "texts"]:
        """What the tower reads."""
        return "texts" if isinstance(self.model, TextTower) else "images"

    @property
    def tower(self) -> nn.Module:
        """The module that maps inputs, as `training.loading.batches` yields them, to features (n, output_dim)."""
        return self.model if isinstance(self.model, TextTower) else self.model.visual

    @property
    def output_dim(self) -> int:
        """Number of features."""
        return int(self.tower.output_dim)  # type: ignore[arg-type]  # open_clip is untyped


@validated_call
def new_model(config: dict[str, Any]) -> open_clip.CLIP:
    """A randomly initialised open_clip.CLIP from a configuration with keys embed_dim, vision_cfg, text_cfg."""
    return open_clip.CLIP(
        embed_dim=config["embed_dim"],
        vision_cfg=open_clip.CLIPVisionCfg(**config["vision_cfg"]),
        text_cfg=open_clip.CLIPTextCfg(**config["text_cfg"]),
    )


@validated_call
def load_backbone(name: str | Path = "tiny", *, weights_file: str | Path | None = None) -> Backbone:
    """Load a pre-trained model.

    Parameters
    ----------
    name : str or path
        "tiny" (ships with the library), "ViT-B-16-quickgelu" (OpenAI's weights through open_clip), "minilm" (the
        language model all-MiniLM-L6-v2, with the extra `language`), a folder that `rmtllmf pretrain` has written, or
        that of a sentence-transformers model of BERT's type, see `text_tower.read_text_model`.
    weights_file : path, optional
        For ViT-B-16-quickgelu: a local file of OpenAI's weights in open_clip's format, to load without a network.

    Raises
    ------
    InputError
        for an unknown name; files that are missing, truncated or changed; weights that can neither be found nor
        downloaded; a text model without transformers, or of another type than BERT's.
    """
    if str(name) == OPENAI_VIT:
        return _openai(weights_file)
    if weights_file is not None:
        raise InputError(
            f"weights_file {str(weights_file)!r} is for {OPENAI_VIT!r} only, not for {str(name)!r}: leave it out"
        )
    if str(name) == "ViT-B-16":
        raise InputError(f"'ViT-B-16' would run OpenAI's weights with the wrong activation: expected {OPENAI_VIT!r}")
    if str(name) == MINILM:
        return _text(MINILM, unpacked_minilm())
    folder = ASSETS / "tiny" if str(name) == "tiny" else Path(name)
    if not (folder / "config.json").is_file():
        raise InputError(
            f"unknown backbone {str(name)!r}: expected 'tiny', {MINILM!r}, {OPENAI_VIT!r} or a folder with config.json "
            "and model.safetensors, of a text model or as written by `rmtllmf pretrain`"
        )
    folder = folder.resolve()
    if _is_text(folder / "config.json"):
        return _text(str(name), folder)
    files = [folder / file for file in ("config.json", "provenance.json", "model.safetensors")]
    if missing := [file.name for file in files if not file.is_file()]:
        raise InputError(
            f"{folder} lacks {' and '.join(missing)}: restore what is missing or run `rmtllmf pretrain` again"
        )
    return _assemble(str(name), folder, *(file.read_bytes() for file in files))


@lru_cache(maxsize=4)
def _assemble(name: str, folder: Path, config_json: bytes, provenance_json: bytes, tensors: bytes) -> Backbone:
    """A backbone from the contents of its files, which are the key of the cache, so that no change is missed."""
    file = folder / "model.safetensors"
    try:
        config, provenance = json.loads(config_json), json.loads(provenance_json)
        digests = {
            file: (hashlib.sha256(tensors).hexdigest(), provenance["sha256"]),
            folder / "config.json": (config_key(config), provenance["config_sha256"]),
        }
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"config.json or provenance.json of {folder} cannot be read ({type(error).__name__}: {error}): "
            "restore them or run `rmtllmf pretrain` again"
        ) from error
    for changed, (found, expected) in digests.items():
        if found != expected:
            raise InputError(
                f"{changed} has sha256 {found[:12]}…: expected {str(expected)[:12]}…; the file is damaged or was "
                "replaced: restore it or run `rmtllmf pretrain` again"
            )
    try:
        words = tuple(config["vocabulary"])
        tokenizer = WordTokenizer(words, config["text_cfg"]["context_length"])
        model = new_model(config)
        model.load_state_dict(safetensors.torch.load(tensors))
    except (SafetensorError, RuntimeError, KeyError, TypeError) as error:
        detail = " ".join(str(error).split("\n\t")[:2])  # the first mismatched tensor is enough
        raise InputError(f"{file} does not hold the model of config.json beside it: {detail}") from error
    return _finish(name, model, tokenizer, frozenset(words))


def _is_text(config: Path) -> bool:
    """Whether a configuration is one of transformers, which name their type; those of `rmtllmf pretrain` do not."""
    try:
        return "model_type" in json.loads(config.read_bytes())
    except (ValueError, TypeError, RecursionError):
        return False


def _text(name: str, folder: Path) -> Backbone:
    """A text model, read once for each state of its files."""
    files = [path for path in sorted(folder.glob("*")) if path.suffix in (".json", ".safetensors") and path.is_file()]
    return _read_text(name, folder, tuple((str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files))


@lru_cache(maxsize=2)
def _read_text(name: str, folder: Path, _state: tuple[tuple[str, int, int], ...]) -> Backbone:
    tower, tokenizer = read_text_model(folder)
    tower.eval().requires_grad_(False)
    return Backbone(name, tower, tokenizer, None, None, Weights.from_module(tower))


@lru_cache(maxsize=1)
def _openai(weights_file: str | Path | None) -> Backbone:
    source = "openai" if weights_file is None else str(weights_file)
    if weights_file is not None and not Path(weights_file).is_file():
        raise InputError(f"weights_file {source!r} does not exist: expected a file of OpenAI's ViT-B/16 weights")
    try:
        model = open_clip.create_model(OPENAI_VIT, pretrained=source)
    except Exception as error:  # the errors of the download layers change from version to version
        detail = f"{type(error).__name__}: {(str(error).splitlines() or ['no detail'])[0]}"
        raise InputError(
            f"the weights of {OPENAI_VIT!r} could not be loaded from {source!r} ({detail}). "
            "With a network, open_clip downloads them once (about 600 MB). Without one, download the model "
            "`timm/vit_base_patch16_clip_224.openai` elsewhere, copy its open_clip_model.safetensors here and pass "
            "weights_file=<that file>; or use the backbone 'tiny'"
        ) from error
    if not any(isinstance(part, open_clip.transformer.QuickGELU) for part in model.visual.modules()):
        raise InputError(
            f"{OPENAI_VIT!r} was built without QuickGELU, which OpenAI's weights need: update open_clip_torch"
        )
    return _finish(OPENAI_VIT, model, open_clip.get_tokenizer(OPENAI_VIT), None)


def _finish(name: str, model: open_clip.CLIP, tokenizer: Any, vocabulary: frozenset[str] | None) -> Backbone:
    model = model.float().eval().requires_grad_(False)
    size = model.visual.image_size
    side = size[0] if isinstance(size, tuple) else size
    return Backbone(name, model, tokenizer, side, vocabulary, Weights.from_state_dict(model.state_dict()))


@validated_call
@torch.no_grad()
def text_features(backbone: Backbone, texts: Sequence[str]) -> Tensor:
    """Features (n, output_dim) of texts, of norm 1, that are compared with those of inputs."""
    if not texts:
        raise InputError("texts is empty: expected at least one text")
    tokens = backbone.tokenizer(list(texts))
    if isinstance(backbone.model, TextTower):
        return functional.normalize(backbone.model(tokens), dim=-1)
    return backbone.model.encode_text(tokens, normalize=True)


@validated_call
def fresh_tower(backbone: Backbone, weights: Weights | None = None) -> nn.Module:
    """A copy of the tower, holding `weights` if given: inputs → features (n, output_dim)."""
    tower = copy.deepcopy(backbone.tower)
    if weights is not None:
        weights.load_into(tower)
    return tower
