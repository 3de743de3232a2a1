"""Steps per second of PLR on random mazes against jaxued and minimax: same sizes, alternating processes, each its environment.

How it is measured: `_peers/throughput.py`. All learn from every level and keep 128, so that the peers begin to replay, half
of the time, before the clock runs; what ours does is the same computation whether levels are new or not. jaxued's and minimax's
mazes have 25 walls, ours 0 to 60. The networks are alike: a convolution of 16 filters before an LSTM of 256 units. The loops
of the peers are their public code: jaxued's is an example in its repository, of which a checkout has to lie where
`_peers/jaxued_level_replay.py` says.
"""

from typing import Any

from benchmarks._peers.throughput import Row, claims_of, compare_all, picture
from jaxpg.experiment.plots import Picture

SYSTEMS = {"plr": ""}
SEEDS = {"smoke": 1, "small": 1, "full": 1}  # the seeds of a row are part of what is measured
ROUNDS = {"smoke": 1, "small": 2, "full": 5}
REPEATS = {"smoke": 1, "small": 3, "full": 5}

SETTING = {"size": 13, "num_walls": 25, "num_steps": 256, "memory_size": 256, "buffer_size": 128, "cpu_time": True}
PEERS, MODULE, LONGEST = ("jaxued", "minimax"), "level_replay", 1200
ROWS = [Row("PLR, mazes of 13 x 13, 32 levels, LSTM of 256", 1, 32, 4, 1, 1.0, SETTING, PEERS, MODULE, LONGEST)]
SIZES = {"smoke": [ROWS[0]._replace(num_updates=2)], "small": ROWS, "full": ROWS}


def run(size: str, num_seeds: int) -> tuple[dict[str, Any], Picture]:
    """Every row by everyone who runs here."""
    del num_seeds
    results = compare_all(SIZES[size], ROUNDS[size], REPEATS[size])
    return results, picture(results["rows"])


def claims(size: str, results: dict[str, Any]) -> list[dict[str, Any]]:
    """Of every row against its peers."""
    return claims_of(SIZES[size], results)
