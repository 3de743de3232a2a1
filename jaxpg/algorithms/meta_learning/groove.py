"""GROOVE: meta-learned update rules on a curriculum of levels (Jackson et al., 2023, arXiv 2310.02782).

LPG whose agents live, half of the time, on levels that were played before and on which the rule does worst: their score is the
algorithmic regret, the return of A2C trained on it for as many updates less that of the agent at the end of its life.

Differences from the authors' code: the buffer remembers scored levels only, and new levels come straight from the generator
(there, as many levels as there are agents wait in it unplayed); what is replayed is drawn as there, from the best levels that
nobody plays, as many as there are agents.
"""

from typing import Any, Literal

from flax import struct
from jaxtyping import PyTree

from jaxpg.algorithm import Algorithm, register, static
from jaxpg.algorithms.meta_learning.lpg import SCORE_HELP, LPGConfig, meta_learner


@struct.dataclass
class GROOVEConfig(LPGConfig):
    """LPG's hyperparameters, with levels replayed by algorithmic regret."""

    score: Literal["uniform", "algorithmic_regret", "optimal_regret", "value_l1", "positive_value_loss"] = static(
        "algorithmic_regret", SCORE_HELP
    )


@register(
    "groove",
    GROOVEConfig,
    paper="Jackson et al. 2023, arXiv 2310.02782",
    field="meta_learning",
    actions="discrete",
    status="complete",
)
def groove(config: GROOVEConfig, env: Any, params: PyTree) -> Algorithm:
    """Meta-gradients of an update rule on levels of high regret."""
    return meta_learner("groove", config, env, params)
