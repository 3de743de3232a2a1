"""PMOE-PPO against PPO: area under the learning curve on Brax tasks, and the routing estimator against exact frequencies.

The paper claims that mixtures of experts learn faster than one Gaussian: on average over six tasks the area under the curve
of PMOE-PPO is 56 % larger than that of PPO (a figure quoted from memory, per-task numbers were not available: an ordering
claim). Both algorithms have the same networks, budget and hyperparameters here; they differ in the mixture, the critic Q and
the routing loss.
"""

import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.stats

from benchmarks._runs import Task, train
from jaxpg import losses
from jaxpg.experiment.plots import Picture, plot_learning_curves, read_curves

PAPER = "Ren et al. 2021, arXiv 2104.09122"
SEEDS = {"smoke": 2, "small": 4, "full": 5}
SPRING = {"backend": "spring"}
SMALL = {"num_envs": 64, "num_steps": 32, "num_epochs": 4}
LARGE = {"num_envs": 2048, "num_steps": 16, "num_minibatches": 32, "num_epochs": 4}
SIX = ("halfcheetah", "hopper", "walker2d", "ant", "humanoid", "humanoidstandup")
TASKS = {
    "smoke": [Task("Pendulum-v1", 40_000)],
    "small": [Task("brax/hopper", 1_000_000, None, SPRING, SMALL)],
    "full": [Task(f"brax/{name}", 50_000_000, None, SPRING, LARGE) for name in SIX],
}
EXPERTS = {  # means and standard deviations of four experts, of the paper's setting in one state
    "apart": ((-1.0, -0.3, 0.4, 1.0), (0.3, 0.3, 0.3, 0.3)),
    "close": ((-0.3, -0.1, 0.1, 0.3), (0.5, 0.5, 0.5, 0.5)),
    "by spread": ((0.0, 0.0, 0.0, 0.0), (0.05, 0.3, 0.6, 1.0)),
}


def routing_weights(mean: jax.Array, scale: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Weights that 2000 Adam steps on the routing loss reach, and the true frequencies with which each expert is best.

    Q(a) = -(a - 0.5)^2; 64 fresh draws of every expert per step.
    """
    optimizer = optax.adam(1e-2)
    draw = lambda key, count: mean + scale * jax.random.normal(key, (count, mean.size))
    value = lambda action: -jnp.square(action - 0.5)

    def step(carry: tuple, key: jax.Array) -> tuple[tuple, None]:
        logits, optimizer_state = carry
        values = value(draw(key, 64))
        loss = lambda logits: losses.frequency_routing_loss(jnp.broadcast_to(jax.nn.softmax(logits), values.shape), values)
        changes, optimizer_state = optimizer.update(jax.grad(loss)(logits), optimizer_state)
        return (optax.apply_updates(logits, changes), optimizer_state), None

    start = jnp.zeros(mean.size)
    (logits, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), jax.random.split(key, 2000))
    winners = jnp.argmax(value(draw(jax.random.fold_in(key, 1), 400_000)), axis=-1)
    return jax.nn.softmax(logits), jnp.bincount(winners, length=mean.size) / winners.size


def area(folder: Path) -> np.ndarray:
    """Area under each seed's learning curve: the mean over training of the return of the episodes that ended, shape (seed,)."""
    return np.nanmean(read_curves(folder).metrics["episode_return"], axis=1)


def run(size: str, num_seeds: int) -> tuple[dict[str, Any], list[dict[str, Any]], Picture]:
    """The estimator test at every size, then PPO and PMOE-PPO on each task of the size."""
    results: dict[str, Any] = {"routing": {}}
    claims, worst = [], 0.0
    for name, (mean, scale) in EXPERTS.items():
        weights, frequencies = jax.jit(routing_weights)(jnp.array(mean), jnp.array(scale), jax.random.key(0))
        results["routing"][name] = {"weights": weights.tolist(), "frequencies": frequencies.tolist()}
        worst = max(worst, float(jnp.abs(weights - frequencies).max()))
    claims.append(
        {
            "claim": "routing weights converge to the frequencies with which each expert is best: largest difference",
            "paper": PAPER,
            "measured": worst,
            "expected": "< 0.03",
            "holds": worst < 0.03,
        }
    )
    with tempfile.TemporaryDirectory() as temporary:
        folders: list[Path] = []
        for task in TASKS[size]:
            areas = {}
            for algorithm in ("ppo", "pmoe_ppo"):
                folder = Path(temporary) / f"{len(folders)}"
                folders.append(folder)
                results[f"{algorithm} {task.env}"] = train(folder, algorithm, task, num_seeds)
                areas[algorithm] = area(folder)
            results[f"area {task.env}"] = {name: values.tolist() for name, values in areas.items()}
            claims.append(_comparison(task, areas))
        return results, claims, plot_learning_curves(folders)


def _comparison(task: Task, areas: dict[str, np.ndarray]) -> dict[str, Any]:
    """Ratio of the areas where returns are positive, else their difference, with a bootstrap interval over seeds."""
    positive = min(values.min() for values in areas.values()) > 0
    compare = np.divide if positive else np.subtract
    neutral = 1 if positive else 0
    statistic = lambda a, b, axis: compare(a.mean(axis), b.mean(axis))
    interval = scipy.stats.bootstrap(
        (areas["pmoe_ppo"], areas["ppo"]), statistic, method="percentile", vectorized=True, rng=np.random.default_rng(0)
    ).confidence_interval
    measured = float(compare(areas["pmoe_ppo"].mean(), areas["ppo"].mean()))
    word = "ratio" if positive else "difference"
    return {
        "claim": f"area under the curve, PMOE-PPO to PPO, {task.env}, {task.steps:,} steps: {word} "
        f"(95 % interval {interval.low:.3f} to {interval.high:.3f})",
        "paper": PAPER + " (1.56 on average over six tasks, from memory)",
        "measured": measured,
        "expected": f">= {neutral}; refuted if the interval lies below",
        "holds": bool(interval.high >= neutral),
    }
