"""Language models: loading, the real run with hooks, and the exact float64 tail."""

from sae_verify.model.agreement import Agreement, check_tail
from sae_verify.model.block import Block
from sae_verify.model.extract import make_tail
from sae_verify.model.hook_point import HookPoint
from sae_verify.model.language_model import Model
from sae_verify.model.load import load_model
from sae_verify.model.prompts import Prompts, encode_prompts, token_id
from sae_verify.model.run import Edit, Run, run
from sae_verify.model.tail import Tail

__all__ = [
    "Agreement",
    "Block",
    "Edit",
    "HookPoint",
    "Model",
    "Prompts",
    "Run",
    "Tail",
    "check_tail",
    "encode_prompts",
    "load_model",
    "make_tail",
    "run",
    "token_id",
]
