"""The registry of recipes: one short file each, and the networks without spikes that they are compared with."""

from ..recipe import Recipe
from . import (
    adlif,
    alif,
    augmented,
    bntt,
    conv,
    delays,
    forecast,
    learned_decays,
    lif,
    own_loop,
    population,
    radlif,
    ralif,
    rate_loss,
    rate_regularized,
    recurrent_delays,
    resonate_fire,
    rlif,
    slstm,
    state_leaky,
    stdp,
    temporal_conv,
    temporal_loss,
)
from .baselines import BASELINES

_FILES = (
    *(lif, rlif, learned_decays, alif, ralif, adlif, radlif, slstm, resonate_fire, state_leaky, delays, bntt),
    *(
        rate_loss,
        temporal_loss,
        population,
        rate_regularized,
        stdp,
        temporal_conv,
        augmented,
        recurrent_delays,
        own_loop,
        conv,
        forecast,
    ),
)

RECIPES: dict[str, Recipe] = BASELINES | {file.__name__.rpartition(".")[2]: file.RECIPE for file in _FILES}
