"""All claims of the paper, in its order: those of claims.toml with their measures."""

import tomllib
from pathlib import Path

from rmtllmf_lib.chapters.verdicts import experiments, link, model  # noqa: F401 - their measures
from rmtllmf_lib.chapters.verdicts.claims import MEASURES, Claim

_TEXT = (Path(__file__).parent / "claims.toml").read_text(encoding="utf-8")
CLAIMS = tuple(Claim(**claim, measure=MEASURES[claim["label"]]) for claim in tomllib.loads(_TEXT)["claims"])
