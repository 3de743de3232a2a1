"""CMA-ME against MAP-Elites: a point mass steered by a network, and an arm of many joints.

The paper claims more than twice MAP-Elites' QD-score on its own tasks (distorted functions, a card game's decks), with full
covariances; expected here is more than MAP-Elites' on both of ours, at equally many evaluations, and so environment steps. What
is compared are the seeds' interquartile means.

Measured at size small: 1.10 times on the point mass, all of whose cells are filled after a sixth of the evaluations, where
MAP-Elites fills 93 % of them with all, and 1.79 times on the arm (1.59 with the learning rates of full covariances).
"""

from typing import Any

from benchmarks._quality_diversity import MAP_ELITES, Method, Protocol, compare, learn, picture, table
from jaxpg.experiment.plots import Picture

SYSTEMS = {"cma_me": ""}
SEEDS = {"smoke": 2, "small": 5, "full": 20}
CMA_ME = Method("CMA-ME", "cma_me")
PAPER = "Fontaine et al. 2020, arXiv 1912.02400"
POINT = Protocol("PointOmni-v0", 200, {"num_cells": 256, "num_offspring": 64, "hidden_sizes": (32, 32)}, {}, {})
ARM = Protocol(
    "PlanarArm-v0", 300, {"num_cells": 256, "num_offspring": 64, "controller": "open_loop"}, {}, {}, {"num_joints": 100}
)
PROTOCOLS = {
    "smoke": [POINT._replace(generations=10), ARM._replace(generations=10)],
    "small": [POINT, ARM],
    "full": [POINT._replace(generations=2_000), ARM._replace(generations=10_000)],
}


def run(size: str, num_seeds: int) -> tuple[dict[str, Any], list[dict[str, Any]], Picture]:
    """Both methods on both tasks."""
    protocols = PROTOCOLS[size]
    outcomes = [{method.name: learn(method, protocol, num_seeds) for method in (MAP_ELITES, CMA_ME)} for protocol in protocols]
    results, claims = {}, []
    for protocol, found in zip(protocols, outcomes, strict=True):
        results[protocol.name] = table(found)
        claims += compare(protocol.name, found, "qd_score", CMA_ME, MAP_ELITES, paper=PAPER)
    return results, claims, picture(protocols, outcomes)
