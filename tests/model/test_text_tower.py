"""A BERT as a tower: its features against transformers' own pipeline, its tokens, its layout, its files."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import BertModel, PreTrainedTokenizerFast

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.fusion.arithmetic import fuse
from rmtllmf_lib.fusion.scaling import depths
from rmtllmf_lib.model import text_tower
from rmtllmf_lib.model.backbone import Backbone, fresh_tower, load_backbone, text_features
from rmtllmf_lib.model.checkpoints import load_published, task_vector_from_published
from rmtllmf_lib.model.differentiable_tower import features
from rmtllmf_lib.model.layout import block_of, group_of
from rmtllmf_lib.model.task_vector import TaskVector, Weights
from rmtllmf_lib.model.text_tower import bert_tensors
from rmtllmf_lib.model.tower import any_tower, encode, trainable_tower
from rmtllmf_lib.payload.published import import_task_vectors
from rmtllmf_lib.protection.embeddings import reload_embeddings
from small import small_backbone, small_tau
from texts import LENGTH, WORDS, text_backbone, text_split, write_text_model, write_tokenizer

TEXTS = ["the ball", "we saw the price of the bank today", "snow", "a loan is rain balls"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_text_model(tmp_path / "model")


def refused(folder: Path, match: str) -> None:
    with pytest.raises(InputError, match=match):
        load_backbone(folder)


# --- features ---------------------------------------------------------------------------------------------------------


def pipeline(folder: Path, texts: list[str]) -> torch.Tensor:
    """Transformers' tokenizer and model, and the mean by the attention mask."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), pad_token="[PAD]")
    rows = tokenizer(texts, padding=True, truncation=True, max_length=LENGTH, return_tensors="pt")
    model = BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    with torch.no_grad():
        states = model(input_ids=rows["input_ids"], attention_mask=rows["attention_mask"]).last_hidden_state
    mask = rows["attention_mask"][..., None].float()
    return (states * mask).sum(1) / mask.sum(1)


def test_features_are_those_of_transformers_own_pipeline(folder: Path) -> None:
    backbone = load_backbone(folder)
    expected = pipeline(folder, TEXTS)
    with torch.no_grad():
        assert (backbone.tower(backbone.tokenizer(TEXTS)) - expected).abs().max() < 1e-5
    assert (text_features(backbone, TEXTS) - functional.normalize(expected, dim=-1)).abs().max() < 1e-5
    assert backbone.output_dim == 32 and backbone.logit_scale == 20 and backbone.reads == "texts"


def test_features_do_not_depend_on_what_fills_rows_up() -> None:
    backbone = text_backbone()
    together = text_features(backbone, TEXTS)
    assert torch.stack([text_features(backbone, [text])[0] for text in TEXTS]).allclose(together, atol=1e-6)


def test_texts_are_read_in_groups_and_returned_in_their_order() -> None:
    """More texts than a group, of mixed lengths, have the features that each has alone."""
    backbone = text_backbone()
    texts = ["ball " * (1 + 5 * number % 7) for number in range(2 * text_tower._GROUP + 3)]
    together = text_features(backbone, texts)
    alone = torch.cat([text_features(backbone, [text]) for text in texts])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-5)


def test_features_at_named_weights_are_those_of_a_tower_with_them() -> None:
    backbone = text_backbone()
    moved = backbone.weights + small_tau(backbone.weights, 1)
    tokens = backbone.tokenizer(TEXTS)
    with torch.no_grad():
        expected = fresh_tower(backbone, moved)(tokens)
        assert torch.equal(encode(any_tower(backbone.tower), moved.state_dict(), tokens), expected)
    leaves = {name: view.clone().requires_grad_(True) for name, view in moved.state_dict().items()}
    found = features(trainable_tower(backbone.tower), leaves, tokens)
    assert found.allclose(expected, atol=1e-6)
    found.sum().backward()
    assert all(leaf.grad is not None for leaf in leaves.values())
    assert torch.equal(backbone.tower(tokens), text_backbone().tower(tokens))  # left as it was


# --- tokens -----------------------------------------------------------------------------------------------------------


def test_tokens_are_filled_up_and_cut() -> None:
    tokenizer = text_backbone().tokenizer
    rows = tokenizer(["ball", "the ball"])
    number = {word: place for place, word in enumerate(WORDS)}
    spelt = [["[CLS]", "ball", "[SEP]", "[PAD]"], ["[CLS]", "the", "ball", "[SEP]"]]
    assert rows.tolist() == [[number[word] for word in row] for row in spelt] and rows.dtype == torch.int64
    long = " ".join(["ball"] * (LENGTH - 2))
    assert tokenizer(long).shape == tokenizer(f"{long} ball").shape == (1, LENGTH)
    assert tokenizer.beyond([long, f"{long} ball", "ball"]) == 1
    assert tokenizer([]).shape == (0, 0)


@pytest.mark.parametrize("text", ["", " ", "\u200b", "\t\n"])
def test_a_text_without_tokens_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="has no token"):
        text_backbone().tokenizer(["ball", text])


# --- the layout -------------------------------------------------------------------------------------------------------


def test_groups_and_blocks() -> None:
    layout = text_backbone().weights.layout
    sizes = {group: sum(part.stop - part.start for part in layout.ranges(group)) for group in sorted({*layout.groups})}
    width, words = 32, len(WORDS)
    assert sizes == {
        "embeddings": width * (words + LENGTH + 2) + 2 * width,
        "attention": 2 * 4 * (width * width + width),
        "mlp": 2 * (2 * 2 * width * width + 3 * width),
        "norm": 2 * 4 * width,
    }
    assert group_of("bert.encoder.layer.1.output.LayerNorm.weight") == "norm"
    assert {block_of(name) for name in layout.names} == {None, 0, 1}
    assert depths(layout)["bert.embeddings.LayerNorm.bias"] == 0
    assert depths(layout)["bert.encoder.layer.1.output.dense.weight"] == 2


def test_embeddings_are_reloaded() -> None:
    base = text_backbone().weights
    fused = fuse(base, [small_tau(base, 1), small_tau(base, 2)], 0.5)
    clean = reload_embeddings(fused, base)
    changed = {group_of(name) for name, view in (clean - base).state_dict().items() if view.any()}
    assert changed == {"attention", "mlp", "norm"}
    assert (clean - base).values.count_nonzero() == (fused - base).without("embeddings").values.count_nonzero()
    with pytest.raises(InputError, match="patch"):
        reload_embeddings(fused, base, ["patch"])


def test_vectors_of_images_and_of_texts_do_not_mix() -> None:
    one, other = text_backbone().weights, small_backbone(layers=1).weights
    with pytest.raises(InputError, match="does not match"):
        fuse(one, [small_tau(one, 1), small_tau(other, 1)], 0.5)
    with pytest.raises(InputError, match="does not match"):
        fuse(other, [small_tau(one, 1)], 0.5)


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_model_is_read_once_and_survives_pickling(folder: Path) -> None:
    backbone = load_backbone(folder)
    assert load_backbone(folder) is backbone
    again: Backbone = pickle.loads(pickle.dumps(backbone))
    assert again.weights.hash == backbone.weights.hash
    assert torch.equal(text_features(again, TEXTS), text_features(backbone, TEXTS))
    state = load_file(folder / "model.safetensors")
    assert any(name.startswith("pooler.") for name in state)
    assert {f"bert.{name}" for name in state if not name.startswith("pooler.")} == {*backbone.weights.layout.names}


def test_reading_a_model_draws_no_random_number(folder: Path) -> None:
    before = torch.get_rng_state()
    load_backbone(folder)
    assert torch.equal(torch.get_rng_state(), before)


def renamed(state: dict[str, torch.Tensor], old: str, new: str) -> dict[str, torch.Tensor]:
    return {name.replace(old, new): tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    "change",
    [
        lambda state: {f"0.auto_model.{name}": x for name, x in state.items()},
        lambda state: {f"bert.{name}": x for name, x in state.items()} | {"classifier.weight": torch.ones(2, 32)},
        lambda state: state | {"embeddings.position_ids": torch.arange(LENGTH)[None]},
        lambda state: renamed(
            renamed(state, "LayerNorm.weight", "LayerNorm.gamma"), "LayerNorm.bias", "LayerNorm.beta"
        ),
    ],
)
def test_names_of_others_are_understood(folder: Path, change: Callable[..., Any], tmp_path: Path) -> None:
    base = load_backbone(folder).weights
    state = load_file(folder / "model.safetensors")
    save_file(change({name: x + 0.001 for name, x in state.items()}), tmp_path / "tuned.safetensors")
    tau = task_vector_from_published(tmp_path / "tuned.safetensors", base)
    assert tau.values.allclose(torch.full_like(tau.values, 0.001), atol=1e-6) and tau.info["names"] == "BERT"


def test_models_are_imported_by_their_folders(folder: Path, tmp_path: Path) -> None:
    base = load_backbone(folder).weights
    shutil.copytree(folder, tmp_path / "tuned")
    state = load_file(folder / "model.safetensors")
    save_file({name: x + 0.001 for name, x in state.items()}, tmp_path / "tuned" / "model.safetensors")
    table = import_task_vectors({"topics": tmp_path / "tuned"}, base, tmp_path / "tau", published_base=folder)
    assert table["task"].tolist() == ["topics"] and table["names"].tolist() == ["BERT"]
    assert TaskVector.load(tmp_path / "tau" / "topics.safetensors", base).norm > 0


def test_a_model_of_another_kind_is_no_import(folder: Path, tmp_path: Path) -> None:
    clip = small_backbone(layers=1)
    save_file(clip.model.state_dict(), tmp_path / "clip.safetensors")
    with pytest.raises(InputError, match="no BERT"):
        load_published(tmp_path / "clip.safetensors", load_backbone(folder).weights)
    with pytest.raises(InputError, match="no CLIP"):
        load_published(folder / "model.safetensors", clip.weights)
    other = load_backbone(write_text_model(tmp_path / "wide", width=16)).weights
    with pytest.raises(InputError, match="other shape"):
        load_published(folder / "model.safetensors", other)
    with pytest.raises(InputError, match="more than one BERT"):
        word = torch.ones(2, 2)
        bert_tensors({"a.embeddings.word_embeddings.weight": word, "b.embeddings.word_embeddings.weight": word}, "x")


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"model_type": "roberta"}, "model_type 'roberta': expected 'bert'"),
        ({"vocab_size": 10**8}, "vocab_size"),
        ({"hidden_size": 64}, "hidden_size"),
        ({"num_hidden_layers": 3}, "num_hidden_layers"),
        ({"intermediate_size": 10**8}, "intermediate_size"),
        ({"max_position_embeddings": 512}, "max_position_embeddings"),
        ({"hidden_size": "64"}, "hidden_size"),
        ({"num_attention_heads": 5}, "does not hold the BERT"),
        ({"hidden_act": "none of these"}, "does not hold the BERT"),
    ],
)
def test_a_configuration_of_another_model_is_refused(folder: Path, changes: dict[str, Any], match: str) -> None:
    edit(folder / "config.json", **changes)
    refused(folder, match)


def test_a_tokenizer_of_another_vocabulary_is_refused(folder: Path) -> None:
    write_tokenizer(folder / "tokenizer.json", (*WORDS, "other"))
    refused(folder, f"vocabulary of {len(WORDS) + 1} tokens, and the model one of {len(WORDS)}")
    (folder / "tokenizer.json").write_text("{}")
    refused(folder, "no tokenizer")
    (folder / "tokenizer.json").unlink()
    refused(folder, "tokenizer.json does not exist")


def test_other_poolings_are_refused(folder: Path) -> None:
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    assert load_backbone(folder).reads == "texts"
    edit(folder / "config.json", note="other")  # looked at again
    edit(folder / "1_Pooling" / "config.json", pooling_mode_mean_tokens=False, pooling_mode_cls_token=True)
    refused(folder, "pooling_mode_cls_token")
    shutil.rmtree(folder / "1_Pooling")
    (folder / "2_Dense").mkdir()
    refused(folder, "dense layer")


def test_the_length_is_the_shorter_one(folder: Path) -> None:
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 5}))
    assert load_backbone(folder).tokenizer(" ".join(["ball"] * 9)).shape == (1, 5)
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 0}))
    refused(folder, "max_seq_length")


def test_damaged_weights_are_refused(folder: Path) -> None:
    file = folder / "model.safetensors"
    state = load_file(file)
    save_file({name: x for name, x in state.items() if "query.bias" not in name}, file)
    refused(folder, "does not hold the BERT")
    file.write_bytes(file.read_bytes()[:1000])
    refused(folder, "corrupt or truncated")
    file.unlink()
    refused(folder, "does not exist")


def test_without_the_extra_one_sentence_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    refused(folder, r"pip install 'rmtllmf\[language\]'")


def test_padding_of_the_file_is_switched_off(folder: Path) -> None:
    pieces = Tokenizer.from_file(str(folder / "tokenizer.json"))
    pieces.enable_padding(length=12)
    pieces.enable_truncation(4)
    pieces.save(str(folder / "tokenizer.json"))
    assert load_backbone(folder).tokenizer("the ball is the ball").shape == (1, 7)


def test_splits_of_texts_have_a_size() -> None:
    split = text_split(6)
    assert split.bytes == sum(len(text) for text in split.inputs) + 6 * 8
    assert split.subset([1, 0]).inputs == (split.inputs[1], split.inputs[0])


def test_weights_go_in_and_out_of_a_tower() -> None:
    backbone = text_backbone()
    moved = backbone.weights + small_tau(backbone.weights, 1)
    assert Weights.from_module(fresh_tower(backbone, moved)).hash == Weights(moved.layout, moved.values).hash
