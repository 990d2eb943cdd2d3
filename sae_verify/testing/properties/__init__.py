"""The theorems as properties that can be attacked on any SAE; one file a theorem.

`PROPERTIES` are those that `sae-verify falsify` and the pytest plugin try, from cheap to costly: one for every theorem
of theory/theorems.toml about one SAE, named by its slug, and `error-kept` and `undo` for parts (c) and (d) of
decoder-blindness; tests/testing/test_properties.py lists the others, with the reason. Each names the code under test as
a field, so that a wrong variant of it can be put in its place:

    replace(HeldCellProperty(), cells=my_cells).attempt(sae, x, np.random.default_rng(0)).falsified
"""

from sae_verify.testing.properties.all_radius_cap import AllRadiusCapProperty
from sae_verify.testing.properties.base import Attempt, Property
from sae_verify.testing.properties.bypass_cost import BypassCostProperty
from sae_verify.testing.properties.cell_size import CellSizeProperty
from sae_verify.testing.properties.cone_membership import ConeMembershipProperty
from sae_verify.testing.properties.decoder_blindness import DecoderBlindnessProperty
from sae_verify.testing.properties.error_kept import ErrorKeptProperty
from sae_verify.testing.properties.final_norm import FinalNormProperty
from sae_verify.testing.properties.first_order_closure import FirstOrderClosureProperty
from sae_verify.testing.properties.held_cell import HeldCellProperty
from sae_verify.testing.properties.linear_dual import LinearDualProperty
from sae_verify.testing.properties.modular_rank import ModularRankProperty
from sae_verify.testing.properties.pinned import PinnedProperty
from sae_verify.testing.properties.spectral_gap import SpectralGapProperty
from sae_verify.testing.properties.undo import UndoProperty
from sae_verify.testing.properties.whole_cone import WholeConeProperty
from sae_verify.testing.properties.witness_nearby import WitnessNearbyProperty

PROPERTIES: tuple[Property, ...] = (
    HeldCellProperty(),
    DecoderBlindnessProperty(),
    ErrorKeptProperty(),
    UndoProperty(),
    LinearDualProperty(),
    BypassCostProperty(),
    FirstOrderClosureProperty(),
    PinnedProperty(),
    WitnessNearbyProperty(),
    ModularRankProperty(),
    SpectralGapProperty(),
    CellSizeProperty(),
    ConeMembershipProperty(),
    WholeConeProperty(),
    AllRadiusCapProperty(),
    FinalNormProperty(),
)

__all__ = [
    "PROPERTIES",
    "AllRadiusCapProperty",
    "Attempt",
    "BypassCostProperty",
    "CellSizeProperty",
    "ConeMembershipProperty",
    "DecoderBlindnessProperty",
    "ErrorKeptProperty",
    "FinalNormProperty",
    "FirstOrderClosureProperty",
    "HeldCellProperty",
    "LinearDualProperty",
    "ModularRankProperty",
    "PinnedProperty",
    "Property",
    "SpectralGapProperty",
    "UndoProperty",
    "WholeConeProperty",
    "WitnessNearbyProperty",
]
