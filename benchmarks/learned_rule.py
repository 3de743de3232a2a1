"""The rule that jaxpg ships, meta-trained on grid worlds, on environments of another kind, beside A2C and a random policy.

Agents are multilayer perceptrons that Adam moves where the rule says (`learned_rule`, its defaults); A2C has its own. Expected
is more than a random policy earns, which says that something carries over from tables on grid worlds, and no more: GROOVE's
figures on MinAtar are of rules from a thousand times as many steps, after 100,000 updates (128 million steps) of an agent.

Measured at size small, four seeds: on CartPole agents learn by the rule, more slowly than by A2C (403 of 500, A2C 500); on
MinAtar they do not: 0 on Breakout, where a random policy earns 0.4 and A2C 10, and 8.5 on SpaceInvaders (random 4.2, A2C 97).
"""

import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

import jaxpg
import jaxpg_envs
from benchmarks._claims import above, claim, difference_of, estimate
from benchmarks._runs import Task, train
from jaxpg.experiment.plots import Picture, plot_learning_curves

PAPER = "Oh et al. 2020, arXiv 2007.08794"
SYSTEMS = {"learned_rule": "learned_rule on "}
METHODS = ("learned_rule", "a2c")
SEEDS = {"smoke": 2, "small": 4, "full": 10}
CARTPOLE, GAMES = "CartPole-v1", ("Breakout-MinAtar", "SpaceInvaders-MinAtar")
TASKS = {
    "smoke": [Task(CARTPOLE, 20_000)],
    "small": [Task(CARTPOLE, 500_000), *(Task(game, 2_000_000) for game in GAMES)],
    "full": [Task(CARTPOLE, 500_000), *(Task(game, 20_000_000) for game in (*GAMES, "Asterix-MinAtar", "Freeway-MinAtar"))],
}


def run(size: str, num_seeds: int) -> tuple[dict[str, Any], Picture]:
    """Trains by the rule and by A2C on each task of the size."""
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folders: list[Path] = []
        for task in TASKS[size]:
            results[f"random {task.env}"] = random_returns(task, num_seeds).tolist()
            for method in METHODS:
                folders.append(Path(temporary) / str(len(folders)))
                results[f"{method} {task.env}"] = train(folders[-1], method, task, num_seeds)
        return results, plot_learning_curves(folders)


def random_returns(task: Task, num_seeds: int) -> Float[np.ndarray, " seed"]:
    """Means over 128 episodes of a policy that takes any action."""
    env, params = jaxpg_envs.make(task.env, **(task.env_options or {}))
    space = env.action_space(params)
    policy = jaxpg.Policy((), lambda params, key, observation, carry: (space.sample(key), carry))
    one = lambda key: jaxpg.evaluate(policy, env, params, key, 128).mean()
    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(5), num_seeds)), float)


def claims(size: str, results: dict[str, Any]) -> list[dict[str, Any]]:
    """Of the rule's returns on each task, against the random policy's and A2C's."""
    found = []
    for task in TASKS[size]:
        rule, a2c = (results[f"{method} {task.env}"]["returns"] for method in METHODS)
        for other, returns in (("a random policy's", results[f"random {task.env}"]), ("A2C's", a2c)):
            measured, interval = estimate(difference_of(np.mean), rule, returns)
            text = f"learned_rule on {task.env} after {task.steps:,} steps: mean return less {other}"
            found.append(claim(text, PAPER, measured, above(0), null=0, interval=interval))
    return found
