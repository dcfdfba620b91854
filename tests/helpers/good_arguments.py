"""Arguments that public functions accept: by name and type, and for some functions by their own names."""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from itertools import product
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from rmtllmf_lib.disentanglement.linearise import first_order, network
from rmtllmf_lib.disentanglement.noisy_logits import linearisation_error, perturb
from rmtllmf_lib.fusion.arithmetic import lambda_n
from rmtllmf_lib.model.backbone import OPENAI_VIT, fresh_tower, load_backbone
from rmtllmf_lib.model.foreign import read_safetensors
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.payload.cores import Cores
from rmtllmf_lib.payload.lora import Lora
from rmtllmf_lib.payload.low_rank import LowRank
from rmtllmf_lib.payload.payload import Full
from rmtllmf_lib.payload.peft_folder import save_adapter
from rmtllmf_lib.payload.signs import Signs
from rmtllmf_lib.payload.sparse import Sparse
from rmtllmf_lib.protection.memory import draw_memory
from rmtllmf_lib.protection.resilience import Station
from rmtllmf_lib.storage.store import Store
from rmtllmf_lib.study.file import SuiteSpec
from rmtllmf_lib.study.payloads import Way
from rmtllmf_lib.study.plan import PROJECTED, Counts
from rmtllmf_lib.study.study import Study, study_units
from rmtllmf_lib.study.units import Bench
from rmtllmf_lib.tasks.base import Task
from rmtllmf_lib.tasks.folder import read_folder
from rmtllmf_lib.tasks.images import LazyImages, open_rgb
from rmtllmf_lib.tasks.inventory import Holding
from rmtllmf_lib.tasks.sources import parse_tasks
from rmtllmf_lib.tasks.vision import SOURCES
from rmtllmf_lib.training.calibration import MEASURES
from rmtllmf_lib.training.evaluate import prepare
from rmtllmf_lib.training.finetune import Recipe, Trainee
from rmtllmf_lib.training.loading import Schedule
from rmtllmf_lib.training.pretrain import PretrainRecipe
from rmtllmf_lib.training.suite import Suite
from rmtllmf_lib.transport.balanced import scramble
from rmtllmf_lib.transport.coded_payload import Quantised
from rmtllmf_lib.transport.digital import Pcm
from rmtllmf_lib.transport.link import Link
from rmtllmf_lib.transport.mcs import Mcs, measured
from rmtllmf_lib.transport.modulation import Alphabet, Code
from rmtllmf_lib.transport.payload_file import write_payload
from rmtllmf_lib.transport.scenario import Scenario
from rmtllmf_lib.transport.schemes import Analog
from rmtllmf_lib.wireless.channel import Uplink
from rmtllmf_lib.wireless.receiver import sum_rate
from small import generator, small_backbone, small_head, small_split, small_task, small_tau
from texts import text_backbone, write_text_model, write_texts
from vision_files import write_mnist

# What no reader calls: figures and tables of the chapters, the shell of the command, and the brushes of drawn tasks.


@cache
def objects() -> dict[str, Any]:
    """Small objects, by the names that parameters for them have."""
    backbone = small_backbone(layers=1)
    base = backbone.weights
    tasks = {name: small_task(name, seed, n=10) for seed, name in enumerate("ab")}
    heads = {name: small_head(seed) for seed, name in enumerate("ab")}
    taus = {name: small_tau(base, seed, task=name) for seed, name in enumerate("ab", 1)}
    suite = Suite(backbone, tasks, heads, taus)
    images = {name: prepare(backbone, task.test) for name, task in tasks.items()}
    net = network(backbone, small_split(5), small_head())
    memory = draw_memory(tasks, 1, image_size=32, generator=generator())
    recipe = Recipe(steps=1, batch_size=2, lr=1e-4)
    moved = perturb({"a": net}, base, [1e-4, 1e-2], 1, generator=generator())
    uplink = Uplink(np.ones((4, 2)) + 1j * np.arange(8).reshape(4, 2), power=[1.0, 2.0], noise_floor=1.0)
    return {
        "a vector": small_tau(base, 3, task="x"), "a first order": first_order(net, base), "a layout": base.layout,
        "backbone": backbone, "base": base, "weights": base, "fused": base, "start": base, "imported": base,
        "tasks": tasks, "task": tasks["a"], "heads": heads, "head": heads["a"], "taus": [*taus.values()],
        "received": [*taus.values()], "suite": suite, "images": images, "net": net, "networks": {"a": net},
        "memory": memory, "recipe": recipe, "model": first_order(net, base), "layout": base.layout,
        "station": Station(backbone, taus, 0.3, heads, memory, np.eye(2), recipe), "split": small_split(5),
        "perturbed": moved, "table": linearisation_error(moved), "state_dict": backbone.model.state_dict(),
        "tower": backbone.model.visual, "visual": backbone.model.visual, "tensors": {"x": torch.ones(2)},
        "uplink": uplink, "scenario": Scenario("s", 0.1), "scheme": Analog(), "another scheme": Pcm(),
        "merged": [*taus.values()][0],
        "a payload": Full(), "low rank": LowRank(2), "sparse": Sparse(0.5),
        "a sign payload": Signs(), "lora": Lora(2, 2.0), "cores": Cores(small_tau(base, 3, task="x"), 2),
        "sent": Quantised(LowRank(2), 3), "mcs": Mcs(2, 0.5), "tau": small_tau(base, 3, task="x"),
        "direction": torch.ones(base.layout.size),
        "cotangent": torch.ones(5, 5), "numbers": torch.ones(3), "error_cov": np.eye(2),
        "models": {"a": first_order(net, base)}, "own": {"a": [0, 1, 2, 3, 4]}, "info": {"task": "x"},
        "metadata": {"base_hash": "x"}, "cosines": (0.1, 0.2, 0.3), "target": (0.15, 0.2), "grid": [0.1, 0.2],
        "first": [0.1], "second": [0.1], "fraction": 0.5, "level": 0.05, "change": np.zeros((5, 5)), "limit": 5,
        "kinds": ["patch"], "parts": [0.5], "device": "cpu", "autocast": None, "seed": 1, "name": "x", "what": "x",
        "score": float, "generator": torch.Generator, "rng": np.random.default_rng, "noise_cov": np.eye(4),
        "design_cov": np.eye(4), "names": ["a"], "optimizer": "adamw", "correlation": "independent", "scale": "task",
        "config": {"embed_dim": 8,
                   "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "head_width": 8},
                   "text_cfg": {"context_length": 8, "vocab_size": 20, "width": 16, "heads": 2, "layers": 1}},
    }  # fmt: skip


@cache
def of_functions() -> dict[str, dict[str, Any]]:
    """Arguments of single functions, where those of the parameter's name do not suit."""
    files, base = Path(mkdtemp()), objects()["base"]
    base.save(files / "base.safetensors")
    (base + objects()["taus"][0]).save(files / "tuned.safetensors")
    objects()["taus"][0].save(files / "tau.safetensors")
    rates = files / "rates.json"
    about = {"machine": "x", "rates": {name: 1.0 for name in PROJECTED.__dict__}}
    rates.write_text(json.dumps(about))
    tuned = {"path": files / "tuned.safetensors"}
    reading = {"path": files / "base.safetensors"}
    writing = {"path": files / "x.safetensors", "kind": "kind"}
    dof = {"dof": [4, 4]}
    uplink, net = objects()["uplink"], objects()["net"]
    letters = Alphabet(np.array([-1.0, 1.0]), np.array([[0], [1]], np.uint8))
    solvable = {"columns": uplink.G[None], "floor": np.array([0.1]), "gap": 1e-3, "limit": 20}
    uncoded = torch.nn.Identity()
    uncoded.k = 3  # bits of a word
    G = uplink.G
    tau, of_users = objects()["tau"], dict(zip("ab", objects()["taus"], strict=True))
    tiny, tower, lora = load_backbone("tiny"), fresh_tower(objects()["backbone"]).requires_grad_(True), Lora(2, 2.0)
    trainee = Trainee(tower, [{"params": [*tower.parameters()]}], lambda images, _step, _seed: tower(images))
    save_adapter(files / "adapter", lora, lora.encode(tau), base.layout)
    two_bits = Quantised(LowRank(2), 2)
    write_payload(files / "a.payload", tau, two_bits)
    (files / "settings.json").write_text("{}")
    spec = parse_tasks(["digits"], "procedural", None)[0]
    scenarios = (Scenario("s", 0.1),)
    study = Study(scenarios=scenarios, protections=("unprotected",), seeds=1, sizes=(1,))
    unit, store = study_units(study, objects()["suite"])[0], Store(files / "store")
    columns = {"protection": ["a", "b"], "normalized": [0.1, 0.2], "seed": [0, 0], "mean": [0.1, 0.2]}
    of_study = {"scenario": "s", "per_class": 1, "n_tasks": 1, "half_width": 0.1, "n": 2}
    table = {"table": pd.DataFrame({**columns, **of_study}), "by": ["protection"], "value": "normalized"}
    compared = table["table"].assign(correlation="half", lam_rule="given", lam=0.3, lr=1e-3, accuracy=0.5)
    over_suites = {"study": study, "suite_of": lambda _: objects()["suite"], "suites": 1, "store": store}
    fewest = PretrainRecipe(samples=2, pairs=2, batch_size=2)
    picture = Image.new("RGB", (8, 8))
    for part, label in product(("train", "test"), "ab"):
        (files / "photos" / part / label).mkdir(parents=True)
        for index in range(8):
            picture.save(files / "photos" / part / label / f"{index}.png")
    photos = {"root": files / "photos", "folder": files / "photos", "name": "photos"}
    picture_file = {"path": files / "photos" / "train" / "a" / "0.png"}
    write_mnist(files)
    texts, bert = write_texts(files / "texts"), write_text_model(files / "bert")
    pieces = {"pieces": text_backbone().tokenizer.pieces}
    study_file = files / "study.json"
    task_vector = TaskVector(tiny.weights.layout, torch.ones(tiny.weights.layout.size), tiny.weights.hash)
    task_vector.save(files / "taus" / "photos.safetensors")
    users = {"tasks": ["photos"], "source": "folder", "root": str(files / "photos"), "vectors": str(files / "taus")}
    few = {"scenarios": [], "protections": ["base"], "sizes": [1], "seeds": 1}
    study_file.write_text(json.dumps({"suite": users, "study": few}))
    return {
        "adversary.attack": {"power": 0.5, "kind": "sum-rate", "max_iterations": 20},
        "adversary.attacked_cov": {"kind": "sum-rate", "power": 0.5},
        "allocation.allocate": {"eigenvalues": [1.0, 2.0], "power": 0.5},
        "allocation.counted_twice": {"values": [1.0, 2.0]},
        "constrained.worst_rotation": {"eigenvalues": np.ones(4)},
        "constrained.worst_correlation": {"diagonal": np.ones(4), "gap": 1e-3, "max_iterations": 20},
        "channel.Uplink": {"H": G, "power": [1.0, 2.0], "noise_floor": 1.0},
        "channel.exponential_correlation": {"coefficient": 0.5},
        "minimax.minimax": solvable,
        "minimax.minimax_sic": solvable,
        "optimality.saddle_margins": {"rate": sum_rate, "power": 0.5},
        "path_loss.PathLoss": {"model": "UMa"},
        "path_loss.cell_db": {"distance_m": [100.0, 200.0], "carrier_hz": 2e9, "line_of_sight": [True, False]},
        "allocation.published_covariance_eigenvalues": {"eigenvalues": [1.0, 2.0], "power": 0.5},
        "receiver.by_rank": {"values": [0.1, 0.2]},
        "simulate.covariance_root": {"C": np.eye(4)},
        "simulate.decide": {"estimates": G, "mse": np.full(4, 0.5)},
        "simulate.receive": {"y": G, "sent": np.eye(2), "symbols": "gaussian"},
        "simulate.sample_cov": {"x": G, "signals": G},
        "sensing.draw_snapshots": {"count": 3},
        "sensing.sensed_cov": {"snapshots": G, "noise_floor": 0.5},
        "sensing.nulling_cov": {"directions": 1},
        "pilots.fading_power": {},
        "pilots.pilot_quality": {"length": 4, "noise": 0.5, "gain": [0.5, 1.0]},
        "pilots.channel_from_pilots": {"length": 4, "gain": [0.5, 1.0]},
        "pilots.with_estimation_error": {"quality": [0.5, 0.6], "gain": [0.5, 1.0]},
        "mismatch.mismatched_error_cov": {"csi": uplink},
        "mismatch.scaled_mse": {"csi": uplink},
        "linear_array.azimuths": {"places": [[100.0, 20.0], [200.0, -50.0]]},
        "linear_array.response": {"azimuth": [0.1, -0.2]},
        "linear_array.spread_correlation": {"azimuth": [0.1, -0.2], "spread": 0.1},
        "linear_array.draw_places": {"shape": (3,)},
        "linear_array.uplinks_from": {"places": [[100.0, 20.0], [200.0, -50.0]], "spread": 0.1},
        "linear_array.arriving_cov": {"azimuth": [0.1, -0.2], "power": 0.5, "spread": 0.1},
        "linear_array.surrogate_cov": {"azimuth": [0.1, -0.2], "eta": 0.5, "noise_floor": 1.0},
        "linear_array.sensed_directions": {"azimuth": [0.1, -0.2], "error": 0.1},
        "outage.outage_study": {"users": 3, "per_size": 1, "test_images": 5},
        "outage.uncoded_study": {"users": 3, "mse": [0.1, 1.0], "scales": ["task"], "test_images": 5},
        "outage.by_users_lost": {"rows": compared.assign(scale="task", mse=0.1, outage=1)},
        "atomic.sync": {"path": files},
        "canonical.plain": {"config": {}},
        "canonical.short": {"value": 1},
        "store.Store": {"root": files},
        "tensors.save_tensors": {"path": files / "tensors", "metadata": None},
        "compare.gap": {**table, "by": (), "one": {"protection": "a"}, "other": {"protection": "b"}},
        "compare.surely_above": {"gaps": table["table"]},
        "intervals.over_seeds": table,
        "intervals.agrees": {**table, "errors": 3.0, "expected": 0.1},
        "intervals.require_columns": {**table, "names": ["seed"]},
        "interference.cosine_study": {"scenarios": scenarios, "definitions": ["received"], "seeds": 1, "store": store},
        "interference.effective_vectors": {"definition": "received"},
        "interference.wde_under": {"scenarios": scenarios, "protections": ["base"], "seeds": 1,
                                   "images": 2, "store": store},
        "parts.build_parts": {"store": store, "configs": [{"x": 1}], "build": lambda _: table["table"]},
        "units.models": {"bench": Bench(objects()["suite"]), "unit": unit},
        "units.run_unit": {"bench": Bench(objects()["suite"]), "unit": unit},
        "units.specialists": {"bench": Bench(objects()["suite"]), "images": 2},
        "study.Study": {"scenarios": scenarios, "protections": ["base"], "lr": {}, "lam_grid": {}},
        "file.summary": table,
        "file.SuiteSpec": {"backbone": "tiny", "tasks": ["signs"], "head": "text"},
        "file.run_study_file": {"path": study_file, "out": None, "store": store},
        "study.provenance": {},
        "study.run_study": {"study": study, "store": store, "grid": None, "chosen": None},
        "study.study_units": {"study": study, "chosen": None},
        "study.choose_settings": {"study": study, "store": store},
        "study.conditions": {"study": study},
        "suites.choices_in": {"rows": compared, "study": study},
        "suites.run_over_suites": {**over_suites, "first": 0, "chosen": None},
        "suites.link_benefit": over_suites,
        "suites.by_suite": {"table": compared},
        "suites.leads": {"table": compared, "controls": ["a"]},
        "suites.grid_ends": {"rows": compared, "lr_grid": [1e-4, 1e-3], "lam_grid": {"a": [0.3]}},
        "study.write_table": {"study": study, "path": files / "table.csv"},
        "file.save_study": {"study": study, "suite": None, "path": files / "study.json"},
        "file.load_study": {"path": study_file},
        "file.read_study": {"path": study_file},
        "plan.Rates": {name: 1.0 for name in PROJECTED.__dict__ if name != "source"} | {"source": "x"},
        "plan.read_rates": {"path": rates},
        "plan.count_work": {"study": study, "suite": SuiteSpec(OPENAI_VIT, tasks=("torchvision:dtd",)), "suites": None},
        "plan.plan": {"counts": Counts(1, 1, 1, 1, 1, 1, 1, 1, False), "rates": PROJECTED, "gpus": 1},
        "payloads.Way": {"payload": LowRank(2), "bits": 2, "link": scenarios[0]},
        "payloads.arrivals": {"way": Way(LowRank(2), 2), "taus": objects()["taus"]},
        "payloads.error_ratios": {"link": scenarios[0], "taus": objects()["taus"]},
        "payloads.task_accuracies": {"bench": Bench(objects()["suite"]), "split": "test", "images": 2},
        "information.repeated_mse": {"mse": [0.5, 0.6], "uses": 2},
        "recorded.fill": {"notebook": {"cells": []}},
        "recorded.fill_page": {"text": "a <!--=x-->1<!--/-->", "known": {"x": 1.0}},
        "recorded.findings": {"notebook": {"cells": []}},
        "recorded.numbers": {"notebook": {"cells": []}},
        "recorded.shown": {"value": 1.5, "form": ".1f"},
        "recorded.typeset": {"number": "1.5"},
        "calibration.per_task": {"split": "test", "limit": 5},
        "calibration.distance": {"measures": dict.fromkeys(MEASURES, 0.5)},
        "calibration.closest": {"table": pd.DataFrame({"severity": [0.0, 0.2, 0.4], "distance": [0.2, 0.1, 0.3]})},
        "sources.severities": {"specs": [parse_tasks(["signs"], "procedural", None)[0]], "difficulty": "hard"},
        "sources.load_spec": {"spec": spec, "n_train": 60, "n_test": 20, "resolution": 32},
        "sources.load_task": {"name": "signs", "n_train": 90, "n_test": 30, "source": "procedural", "root": None},
        "sources.parse_tasks": {"texts": ["digits"], "source": "procedural", "root": None},
        "folder.read_folder": photos,
        "folder.find_folder": photos,
        "folder.holds_task": {"root": files / "photos", "folder": files / "photos"},
        "folder.class_folders": {"split": files / "photos" / "train"},
        "folder.read_classes": {"root": files / "photos", "classes": ["a", "b"]},
        "texts.read_texts": {"folder": texts},
        "text_tower.bert_tensors": {"tensors": {"embeddings.word_embeddings.weight": torch.ones(2, 2)}},
        "text_tower.read_text_model": {"folder": bert},
        "text_tower.TextTokenizer": pieces,
        "backbone.text_features": {"backbone": tiny, "texts": ["a photo"]},
        "loading.require_kind": {"what": "images"},
        "loading.require_tasks": {"tasks": [objects()["task"]]},
        "images.open_rgb": picture_file,
        "images.inspect_file": picture_file,
        "images.inspect_files": {"paths": [picture_file["path"]]},
        "images.to_rgb": {"image": picture},
        "images.resize_image": {"image": picture, "image_size": 4},
        "images.resize_batch": {"images": torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "image_size": 4},
        "images.decode_images": {"images": [picture], "image_size": 4},
        "images.opened": picture_file,
        "images.require_decodable": {"several": [LazyImages([picture_file["path"]], open_rgb)]},
        "images.require_regular": picture_file,
        "vision.read_data_set": {"name": "mnist", "root": files},
        "vision.missing_paths": {"source": SOURCES["mnist"], "root": files},
        "inventory.inspect": {"name": "mnist", "root": files, "contents": False, "sizes": {"mnist": (60, 20)}},
        "inventory.pin_state": {"holding": Holding("mnist", "complete"), "pins": {"mnist": "x"}},
        "decoded.with_decoded": {"image_size": 32, "folder": files / "decoded", "smallest": 1},
        "vision.read_idx": {"path": files / "MNIST" / "raw" / "train-labels-idx1-ubyte", "ndim": 1},
        "assemble.assemble_task": {"raw": read_folder(files / "photos")},
        "base.Split": {"inputs": small_split(5).inputs, "labels": small_split(5).labels},
        "base.Split.subset": {"indices": [0, 1]},
        "base.Split.joined": {"splits": [small_split(5), small_split(5)]},
        "base.Task": {each.name: getattr(small_task(), each.name) for each in dataclasses.fields(Task)},
        "base.carve_validation": {"labels": [0, 1], "keys": ["a", "b"]},
        "base.pinned_sample": {"labels": [0, 1], "keys": ["a", "b"]},
        "base.require_templates": {"templates": ["a {}."]},
        "base.stratified_counts": {"sizes": [2, 3]},
        "base.validation_count": {"images": 10},
        "combinations.evaluate_combinations": {"split": "test", "lam": lambda_n, "sizes": [2]},
        "evaluate.prepare": {"split": small_split(5)},
        "evaluate.accuracy": {"split": small_split(5)},
        "evaluate.predictions": {"images": objects()["images"]["a"], "split": small_split(5)},
        "combinations.normalized_accuracy": {"accuracy": [0.4], "reference": [0.5]},
        "finetune.Recipe.lr_at": {"step": 0},
        "finetune.precision": {"device": torch.device("cpu")},
        "finetune.recipe_for": {"backbone": tiny},
        "finetune.finetune": {"checkpoint": None},
        "finetune.train": {"trainee": trainee, "run": {"x": 1}, "checkpoint": None},
        "finetune.with_accuracy": {"trained": base},
        "lora.finetune_lora": {"checkpoint": None},
        "fedavg.federated_averaging": {"rounds": 1, "link": None},
        "heads.build_head": {"kind": "prototype"},
        "suite.load_suite": {"backbone": tiny, "names": ["digits"], "vectors": None, "root": None, "head": "prototype",
                             "source": "procedural"},
        "suite.assemble_suite": {"backbone": tiny, "specs": [spec], "taus": {}, "head": "prototype"},
        "combinations.choose_lambdas": {"limit": 5, "grid": [0.1]},
        "loading.Schedule": {"images": 5},
        "loading.training_batches": {"schedule": Schedule(5, 1, 2, 0)},
        "pretrain.PretrainRecipe": {},
        "pretrain.pretrain": {"out": files / "base", "recipe": fewest, "threads": None, "report": str},
        "pretrain.zero_shot_table": {"folder": "tiny"},
        "suite.Suite.accuracies": {"split": "test"},
        "suite.Suite.score": {"split": "test", "models": {"base": base}},
        "suite.Suite.train": {"name": "a"},
        "link.send": {"link": Link(uplink, np.eye(4)), "block": 2**12},
        "schemes.scheme_named": {"scheme": "analog-mmse"},
        "statistics.error_statistics": {"sent": objects()["taus"]},
        "surrogate.noise_power": {"tau": objects()["taus"][0]},
        "modulation.bits_of": {"index": torch.ones(3, 2, dtype=torch.int32), "alphabet": letters},
        "modulation.decode": {"code": Code(uncoded, lambda y, **_: ((y > 0).float(), y), lambda y, **_: (y, y)),
                              "logits": torch.ones(2, 3)},
        "modulation.expected_symbols": {"logits": torch.ones(4)},
        "modulation.symbols_of": {"index": torch.ones(3, 2, dtype=torch.int32), "levels": letters.levels},
        "payload.Full.decode": {"encoded": Full().encode(tau)},
        "payload.Encoded": {"numbers": tau},
        "payload.require_made_for": {"payload": Full(), "encoded": Full().encode(tau)},
        "low_rank.LowRank.decode": {"encoded": LowRank(2).encode(tau)},
        "tensor_file.mapped_numbers": reading | {"tensors": read_safetensors(files / "base.safetensors")[0]},
        "low_rank.require_rank": {"rank": 2},
        "low_rank.weight_matrices": {},
        "cores.Cores": {"known": tau, "rank": 2},
        "cores.Cores.decode": {"encoded": Cores(tau, 2).encode(tau)},
        "spreading.spread": {"numbers": tau, "rms": 0.1},
        "spreading.despread": {"received": tau, "numbers": base.layout, "rms": 0.1, "number_rms": 0.1, "error": 0.1},
        "few_shot_basis.received_cores": {"numbers": {"a": Cores(tau, 2).encode(tau).numbers},
                                          "payloads": {"a": Cores(tau, 2)}, "rms": 0.1, "scenario": scenarios[0]},
        "cores.finetune_cores": {"cores": Cores(small_tau(base, 3), 2)},
        "layout.Layout.from_shapes": {"shapes": {"visual.proj": (4, 2)}},
        "lora.Lora": {"matrices": ("q", "v")},
        "lora.Lora.decode": {"encoded": lora.encode(tau)},
        "lora.Lora.encoded": {"numbers": lora.encode(tau).numbers},
        "peft_folder.save_adapter": {"folder": files / "adapter", "encoded": lora.encode(tau)},
        "peft_folder.load_adapter": {"folder": files / "adapter"},
        "foreign.read_json": {"path": files / "settings.json"},
        "sparse.Sparse.decode": {"encoded": Sparse(0.5).encode(tau)},
        "signs.Signs.decode": {"encoded": Signs().encode(tau)},
        "mcs.thresholds": {"table": measured()},
        "mcs.word_errors": {"mcs": Mcs(6, 0.9), "words": 1, "snr_db": 30.0},
        "mcs.Mcs": {"rate": 0.5},
        "coded_payload.Quantised": {"payload": LowRank(2), "bits": 3},
        "coded_payload.plan": {"mse": 0.01, "ladder": [Quantised(LowRank(2), 3)], "budget": None},
        "coded_payload.deliver": {"taus": of_users, "mse": 0.01, "ladder": [Quantised(LowRank(2), 3)], "budget": None},
        "coded_payload.plans": {"taus": of_users, "mse": 0.01, "ladder": [Quantised(LowRank(2), 3)], "budget": None},
        "coded_payload.quantised": {"numbers": tau, "bits": 2, "clip": 3.0},
        "payload_file.write_payload": {"path": files / "new.payload", "sent": two_bits},
        "payload_file.read_payload": {"path": files / "a.payload", "sent": two_bits},
        "payload_file.payload_of_file": {"path": files / "a.payload"},
        "grammar_tasks.grammar_texts": {"name": "dates", "count": 3},
        "grammar_tasks.grammar_classes": {"name": "dates"},
        "grammar_tasks.grammar_task": {"name": "dates", "n_train": 30, "n_test": 10},
        "balanced.unscramble": {"taus": scramble(objects()["taus"]), "seed": 0},
        "mcs.channel_uses": {"numbers": 3},
        "scheme.checked": {"estimate": torch.ones(1, dtype=torch.complex64)},
        "scheme.padded": {"x": torch.ones(3)},
        "scenario.Scenario": {"mse": (0.1, 0.2)},
        "schemes.Analog.detect": {"estimate": torch.ones(1, dtype=torch.complex64)},
        "schemes.Analog.modulate": {"x": torch.ones(3)},
        "digital.Pcm.detect": {"estimate": torch.ones(4, dtype=torch.complex64)},
        "digital.Pcm.modulate": {"x": torch.ones(3)},
        "scenario.from_link": {"name": "x", "scale": "task"},
        "task_vector.Weights": {"values": base.values, "base_hash": None},
        "task_vector.Weights.load": reading,
        "task_vector.Weights.save": writing,
        "task_vector.Weights.load_into": {"module": objects()["backbone"].model},
        "task_vector.Weights.from_module": {"module": objects()["backbone"].model},
        "task_vector.TaskVector.load": {**reading, "path": files / "tau.safetensors"},
        "task_vector.TaskVector.save": writing,
        "task_vector.TaskVector.dot": {"other": objects()["taus"][0]},
        "task_vector.TaskVector": {"values": base.values, "base_hash": base.hash},
        "layout.Layout": {"names": ("visual.a",), "shapes": ((2,),)},
        "layout.Layout.views": {"values": base.values},
        "layout.Layout.flatten": {"state_dict": base.state_dict()},
        "layout.Layout.from_state_dict": {"state_dict": base.state_dict()},
        "layout.Layout.ranges": {"group": "mlp"},
        "layout.Layout.require_equal": {"other": base.layout},
        "backbone.WordTokenizer": {"words": ("a",), "context_length": 3},
        "backbone.Backbone": {"model": objects()["backbone"].model, "tokenizer": list, "vocabulary": None},
        "memory.Memory": {"splits": {"a": small_split(5)}},
        "resilience.Station": {"received": objects()["station"].received, "lam": 0.3, "memory": None},
        "resilience.Protection": {"start": list, "title": "x", "freeze": None},
        "first_order.FirstOrder": {"logits": np.ones((1, 2)), "gram": np.eye(2)[None]},
        "first_order.FirstOrder.classes_or_predicted": {"reference": [0, 1, 2, 3, 4]},
        "first_order.FirstOrder.difference_gram": {"reference": [0, 1, 2, 3, 4]},
        "first_order.FirstOrder.difference_norms": {"reference": [0, 1, 2, 3, 4]},
        "first_order.FirstOrder.margins": {"reference": [0, 1, 2, 3, 4]},
        "linearise.Network": {"tower": net.tower, "patches": net.patches, "labels": net.labels, "rows": net.rows},
        "linearise.Network.logits": {"values": base.values},
        "linearise.Network.differentiable": {"weights": base.state_dict(), "patches": None},
        "threads.ordered": {"function": abs, "items": [1, 2]},
        "tower.cut": {"images": torch.zeros(2, 3, 32, 32)},
        "layout.require_finite": {"values": objects()["base"].values},
        "chi_square_test.critical_value": dof,
        "chi_square_test.power": dof,
        "chi_square_test.statistic": {"change": np.zeros((5, 5))},
        "cosines.noisy_cosines": {"cosines": np.eye(2)},
        "noisy_logits.valid_std": {"limit": float(np.sqrt((objects()["table"]["error"] ** 2).mean()))},
        "wde.images_of": {"split": "test"},
        "backbone.load_backbone": {"name": "tiny", "weights_file": None},
        "published.import_task_vectors": {"files": {"a": tuned["path"]}, "out": files / "out", "overwrite": True,
                                            "published_base": None},
        "checkpoints.load_published": tuned,
        "checkpoints.task_vector_from_published": {**tuned, "published_base": None},
        "foreign.file_kind": reading,
        "foreign.model_file": reading,
        "export.export_open_clip": {"path": files / "out.safetensors"},
        "export.export_hugging_face": {"folder": files / "exported"},
        "foreign.require_file": reading,
        "foreign.read_foreign": reading,
        "foreign.read_safetensors": reading,
        "foreign.read_metadata": reading,
        "tensor_file.read_own": {**reading, "kind": "rmtllmf-weights"},
        "tensor_file.read_sealed": reading,
        "tensor_file.write_own": writing,
        "tensor_file.write_sealed": writing,
        "arithmetic.coefficients": {"lam": 0.3},
        "entries.emr": {"task": 0},
        "entries.tall": {"task": 0},
        "mergers.merge": {"name": "ties"},
        "mergers.merger_named": {"name": "ties"},
        "quadratic.fisher": {"fishers": [torch.ones(base.layout.size)] * 2},
        "quadratic.regmean": {"grams": [{"visual.proj": torch.eye(base.state_dict()["visual.proj"].shape[0])}] * 2},
        "scaling.weighted": {"coefficients": [0.3, 0.3]},
        "merging.learn_coefficients": {
            "splits": objects()["memory"].splits, "loss": "entropy", "steps": 1, "start": 0.3,
        },
        "merging.merge_suite": {"name": "ties", "splits": objects()["memory"].splits},
        "merging.training_sample": {"images": 2},
        "layout.group_of": {"name": "visual.proj"},
        "layout.listing": {"items": ["a", "b"]},
        "layout.require_float": {"tensor": torch.ones(2)},
        "vector_info.below_current": {"folder": "a"},
        "vector_info.checked_info": {"path": "x"},
        "resilience.protect": {"name": "unprotected"},
        "resilience.protection_named": {"name": "unprotected"},
    }  # fmt: skip
