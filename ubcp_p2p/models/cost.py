"""What training by a recipe costs, counted from its network's shapes. Imports no torch: the price is known beforehand.

Counted are the multiplications and additions of matrix products and convolutions, forward and backward, as
`torch.utils.flop_counter` does; what is done to each value alone (norms, GELU, the optimizer) is some per cent more and
not counted. Tests compare with torch's own count.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from ubcp_p2p.errors import ConfigError
from ubcp_p2p.models.recipe import IMAGE_CLASSES, IMAGE_SIDE, VOCABULARY, CNNConfig, GPTConfig, Recipe

UNIT_FLOP: Final = 10**9  # 1 unit = 1 GFLOP, which costs 1 µcredit
MAC: Final = 2  # FLOP: a multiplication and an addition
# For each matrix product forward, backward has one for the gradient of its input, and one for that of its weights.
FORWARD_AND_BACKWARD: Final = 3
FIRST_LAYER: Final = 2  # nobody needs the gradient of the data


class Cost(NamedTuple):
    """Of one recipe with so many peers. Units are GFLOP; as many µcredits are paid. Each peer's round is rounded up."""

    flop_per_sample: int  # forward and backward
    samples_per_round: int  # of one peer
    peers: int
    rounds: int

    @property
    def units_per_peer_and_round(self) -> int:
        return -(-self.flop_per_sample * self.samples_per_round // UNIT_FLOP)

    @property
    def units_per_round(self) -> int:
        return self.units_per_peer_and_round * self.peers

    @property
    def units(self) -> int:
        """Of the whole run."""
        return self.units_per_round * self.rounds


def cost_of(recipe: Recipe, peers: int = 1) -> Cost:
    """What a run of this many peers costs. Raises ConfigError for more peers than the recipe admits."""
    if not 1 <= peers <= recipe.rounds.peers_max:
        raise ConfigError(
            f"{peers} peers are not between 1 and {recipe.rounds.peers_max}, rounds.peers_max of {recipe.name}",
            hint="choose fewer, or another recipe",
        )
    return Cost(flop_per_sample(recipe), recipe.inner.batch * recipe.rounds.local_steps, peers, recipe.rounds.total)


def flop_per_sample(recipe: Recipe) -> int:
    """Forward and backward, of one window of text or one image."""
    if isinstance(recipe.model, GPTConfig):
        return FORWARD_AND_BACKWARD * _gpt_forward(recipe.model)
    return _cnn(recipe.model, IMAGE_SIDE[recipe.data.source])


def _gpt_forward(config: GPTConfig) -> int:
    """Of a window of `context` bytes. The attention is counted whole: kernels that skip its masked half save nothing
    that an auditor could check."""
    t, c = config.context, config.width
    block = 4 * t * c * c + 2 * config.mlp_ratio * t * c * c + 2 * t * t * c  # qkv and out; feed-forward; attention
    return MAC * (config.layers * block + t * c * VOCABULARY)


def _cnn(config: CNNConfig, side: int) -> int:
    """Of a square image; each layer halves its side."""
    total, before, passes = 0, 1, FIRST_LAYER
    for channels in config.channels:
        side = (side + 1) // 2
        total += passes * MAC * 9 * before * channels * side * side
        before, passes = channels, FORWARD_AND_BACKWARD
    return total + FORWARD_AND_BACKWARD * MAC * before * side * side * IMAGE_CLASSES
