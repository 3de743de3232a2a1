"""Meta-steps per second, compile time and peak memory of GROOVE against the authors' code, side by side.

How it is measured: `_peers/throughput.py`; here a "step" is a meta-step: K updates of every agent, the rule's update, and the
scores of levels on which a life has ended. Both have as many agents, environments of each, steps, updates that are
differentiated through and levels in the buffer, tables for agents, a GRU and bins of the same sizes, levels from the same
distribution and lives of the same length, all agents in one batch; our other settings are the defaults. The peer runs in the
environment that `python -m benchmarks._peers.build` makes, with a checkout of its repository as `source`; without it, the
results say so.

What differs by design: the authors' code trains an antagonist on every agent's level in every meta-step and discards it unless
the life has ended (their README says so); ours trains those that are needed. How many that are is what our lives are set to:
they end one after the other, evenly. Lives have the 250 updates of the authors' code, for which a meta-step of theirs takes
minutes; at size small they have 25, so that all their antagonists together cost a tenth. Their code evaluates every agent in
each meta-step for its metrics, observes one-hot vectors where ours reads tables, and keeps what all K updates need, where ours
computes it again. The row of LPG has neither antagonists nor a buffer.

Peak memory is the largest resident set of each process, what compiles its program included.
"""

from typing import Any

import numpy as np

from benchmarks._claims import at_most, claim, estimate, ratio_of
from benchmarks._peers.throughput import PAPER, Row, claims_of, compare_all, picture
from jaxpg.experiment.plots import Picture

SYSTEMS = {"groove": "GROOVE"}
SEEDS = {"smoke": 1, "small": 1, "full": 1}  # the seeds of a row are part of what is measured
ROUNDS = {"smoke": 1, "small": 3, "full": 5}

GROOVE = {"algorithm": "groove", "levels": "all_shortlife", "num_agents": 16, "agent_envs": 64, "agent_steps": 20}
GROOVE |= {"num_inner_updates": 5, "rule_size": 256, "num_bins": 8, "buffer_size": 4000, "num_steps": 1}
GROOVE |= {"peer_updates": 2, "lifetime": 250, "cpu_time": True, "warm_up": False}
SMOKE = GROOVE | {"levels": "small", "num_agents": 4, "agent_envs": 4, "rule_size": 16, "buffer_size": 16}
SHORT = GROOVE | {"lifetime": 25}
LPG = GROOVE | {"algorithm": "lpg"}

PEERS, MODULE, LONGEST = ("groove",), "meta_learning", 3600
ROWS = [
    Row("GROOVE, 16 agents in 64 environments each", 1, 1, 50, 1, 2.0, GROOVE, PEERS, MODULE, LONGEST),
    Row("LPG, 16 agents in 64 environments each", 1, 1, 5, 1, 2.0, LPG, PEERS, MODULE, LONGEST),
]
SIZES = {
    "smoke": [Row("GROOVE, 4 agents in 4 environments each", 1, 1, 25, 1, 2.0, SMOKE, PEERS, MODULE, LONGEST)],
    "small": [Row("GROOVE, 16 agents of 25 updates in 64 environments each", 1, 1, 10, 1, 2.0, SHORT, PEERS, MODULE, LONGEST)],
    "full": ROWS,
}


def run(size: str, num_seeds: int) -> tuple[dict[str, Any], Picture]:
    """Every row by ours and by the authors' code."""
    del num_seeds
    results = compare_all(SIZES[size], ROUNDS[size], repeats=1)
    return results, picture(results["rows"], "meta-step")


def claims(size: str, results: dict[str, Any]) -> list[dict[str, Any]]:
    """Of every row: speed, compile time and peak memory against the authors' code."""
    found = claims_of(SIZES[size], results)
    for name, row in results["rows"].items():
        measured = row["measured"]
        if {"jaxpg", "groove"} <= measured.keys():
            ours, theirs = (measured[label]["megabytes of each process"] for label in ("jaxpg", "groove"))
            ratio, interval = estimate(ratio_of(np.median), ours, theirs)
            text = f"{name}: peak memory of the process, ratio to groove"
            found.append(claim(text, PAPER, ratio, at_most(0.5), null=1, interval=interval))
    return found
