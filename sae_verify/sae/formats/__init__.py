"""File formats of SAEs; `docs/adding_a_format.md` shows how to add one."""

from sae_verify.sae.formats.files import read_json, renamed
from sae_verify.sae.formats.format import Format
from sae_verify.sae.formats.load import load_sae, load_transcoder
from sae_verify.sae.formats.registry import FORMATS
from sae_verify.sae.formats.save import save_sae
from sae_verify.sae.formats.settings import normalization, required
from sae_verify.sae.formats.stored import Stored
from sae_verify.sae.formats.tensors import read_safetensors, state_dict

__all__ = [
    "FORMATS",
    "Format",
    "Stored",
    "load_sae",
    "load_transcoder",
    "normalization",
    "read_json",
    "read_safetensors",
    "renamed",
    "required",
    "save_sae",
    "state_dict",
]
