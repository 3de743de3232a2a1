"""PMOE: mixtures of experts against one Gaussian, with SAC and with PPO, and the routing gradient against its rivals.

The paper claims that true mixtures with the frequency estimator learn faster than one Gaussian: on average over six tasks
the area under the learning curve is 28 % larger with SAC and 56 % with PPO; and that the estimator beats Gumbel-softmax and
the score ratio (figures quoted from memory, per-task numbers were not available: an ordering claim). In every pair
networks, budget and hyperparameters are the same.

All sizes: weights against frequencies of winning, the estimators' signal-to-noise, one expert against SAC, some updates on
target reaching. Small: success on target reaching by number of experts and by estimator, what the experts do alone, noise
in what is observed; the PPO pair on hopper. Full: both pairs and the estimators on six Brax tasks.

On target reaching nobody arrives at size small, but for one seed of `gating`: all the others learn to stay away from walls and
discs and to loiter for the reward of moving, and what is compared is how well they do that. So does PPO with its defaults after
2 million steps (a return of 27). Tried, with two to five seeds, and at most a few arrivals seen: 200,000 steps, a step size of
1e-3 with and without 5,000 random steps at the start, target entropies of 0 and 0.8 nats, and walls that cost 10 at every step
but do not end the episode.
"""

import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxpg
import jaxpg_envs
from benchmarks import _gradient_signal, _target_reaching
from benchmarks._claims import Expected, above, at_least, at_most, below, claim, difference_of, estimate, near, ratio_of
from benchmarks._runs import Task, train
from jaxpg.experiment.plots import Picture, read_curves
from jaxpg.experiment.statistics import bootstrap_interval

PAPER = "Ren et al. 2021, arXiv 2104.09122"
SYSTEMS = {"pmoe_ppo": ".*pmoe_ppo", "pmoe_sac": "(?!.*pmoe_ppo)"}
SEEDS = {"smoke": 2, "small": 5, "full": 5}
SPRING = {"backend": "spring"}
SIX = ("halfcheetah", "hopper", "walker2d", "ant", "humanoid", "humanoidstandup")
PPO_SMALL = {"num_envs": 64, "num_steps": 32, "num_epochs": 4}
PPO_LARGE = {"num_envs": 2048, "num_steps": 16, "num_minibatches": 32, "num_epochs": 4}
SAC_LARGE = {"num_envs": 128, "gradient_steps": 16, "learning_starts": 10_000}
PPO_TASKS = {
    "smoke": [Task("Pendulum-v1", 40_000, hyperparameters={"num_envs": 16})],
    "small": [Task("brax/hopper", 1_000_000, None, SPRING, PPO_SMALL)],
    "full": [Task(f"brax/{name}", 50_000_000, None, SPRING, PPO_LARGE) for name in SIX],
}
SAC_TASKS = {
    "smoke": [Task("Pendulum-v1", 3_000, hyperparameters={"hidden_sizes": (64, 64)})],
    "small": [],
    "full": [Task(f"brax/{name}", 3_000_000, None, SPRING, SAC_LARGE) for name in SIX],
}
REACHING_STEPS = {"smoke": 1_000, "small": 40_000, "full": 40_000}
ESTIMATORS = ("frequency", "frequency_all", "score_ratio", "gumbel", "expectation", "gating", "multiplicative")
REACHING: dict[str, dict[str, dict[str, Any]]] = {
    "smoke": {"K = 4": {"num_experts": 4, "learning_starts": 100}},
    "small": {
        "K = 1": {"num_experts": 1},
        "K = 2": {"num_experts": 2},
        "K = 4": {"num_experts": 4},
        "K = 8": {"num_experts": 8},
    }
    | {f"K = 4, {name}": {"num_experts": 4, "estimator": name} for name in ESTIMATORS[1:]}
    | {"4 options": {"algorithm": "soft_option_critic", "num_experts": 4}},
}
REACHING["full"] = REACHING["small"] | {"K = 16": {"num_experts": 16}}


def run(size: str, num_seeds: int) -> tuple[dict[str, Any], list[dict[str, Any]], Picture]:
    """Everything of the size."""
    signal = _gradient_signal.examine()
    results: dict[str, Any] = dict(signal)
    claims = [*_signal_claims(signal), _one_expert_is_sac(results)]

    steps, outcomes = REACHING_STEPS[size], {}
    for label, hyperparameters in REACHING[size].items():
        outcomes[label] = _target_reaching.learn(hyperparameters, steps, num_seeds)
        last = outcomes[label].success[:, -3:].mean(), outcomes[label].returns[:, -3:].mean()
        print(f"target reaching, {label}: success {last[0]:.2f}, return {last[1]:.1f}", flush=True)
    trajectories = {
        label: _target_reaching.paths(outcome.actors, REACHING[size][label]["num_experts"])
        for label, outcome in outcomes.items()
        if label in ("K = 1", "K = 4")
    }
    results["target reaching"] = {label: _summary(outcome, steps) for label, outcome in outcomes.items()}
    results["primitives"] = _target_reaching.primitives(trajectories["K = 4"])
    claims += _reaching_claims(results, size)

    with tempfile.TemporaryDirectory() as temporary:
        for base, mixture, tasks in (("sac", "pmoe_sac", SAC_TASKS[size]), ("ppo", "pmoe_ppo", PPO_TASKS[size])):
            for task in tasks:
                areas = {}
                for algorithm in (base, mixture):
                    folder = Path(temporary) / f"{algorithm}-{task.env.replace('/', '-')}"
                    results[f"{algorithm} {task.env}"] = train(folder, algorithm, task, num_seeds)
                    areas[algorithm] = area(folder)
                results[f"area {base} {task.env}"] = {name: values.tolist() for name, values in areas.items()}
                claims.append(_comparison(task, areas[base], areas[mixture], base, mixture))
    curves = {label: outcome.returns for label, outcome in outcomes.items()}
    return results, claims, _target_reaching.picture(curves, trajectories, steps)


def _signal_claims(signal: dict[str, Any]) -> list[dict[str, Any]]:
    differences = [np.subtract(row["weights"], row["frequencies"]) for row in signal["routing"].values()]
    worst = float(np.abs(differences).max())
    text = "routing weights converge to the frequencies with which each expert is best: largest difference"
    uniform = max(float(np.abs(np.subtract(0.25, row["frequencies"])).max()) for row in signal["routing"].values())
    claims = [_exactly(text, worst, below(0.03), uniform)]
    rows = signal["signal to noise"]
    errors = [cell["measured"] / cell["expected"] for row in rows.values() for cell in row.values()]
    worst = max(max(error, 1 / error) for error in errors)
    claims.append(_exactly("signal-to-noise of four estimators in four cases: largest factor off", worst, below(1.2), None))
    best = [max(row, key=lambda name: row[name]["measured"]) for row in rows.values()]
    share = sum(name == "expectation" for name in best) / len(best)
    claims.append(_exactly("share of cases in which the exact expectation has the best signal", share, near(1, 0.1), 0.25))
    wins = [row["frequency"]["measured"] > row["score ratio with baseline"]["measured"] for row in rows.values()]
    share = sum(wins) / len(wins)
    text = "share of cases in which frequencies beat the score ratio with baseline: not all"
    claims.append(_exactly(text, share, near(0.75, 0.1), 0.5))
    return claims


def _one_expert_is_sac(results: dict[str, Any]) -> dict[str, Any]:
    env, params = jaxpg_envs.make("Pendulum-v1")
    setting = {"hidden_sizes": (16,), "batch_size": 32, "learning_starts": 32, "num_envs": 4, "total_steps": 400}
    learners = []
    for name, extra in (("sac", {}), ("pmoe_sac", {"num_experts": 1})):
        agent = jaxpg.make(name, env, params, **setting, **extra)
        state = agent.init(jax.random.key(0))
        for _ in range(20):
            state, _ = agent.update(state)
        learners.append({name: layer for name, layer in state.learner.actor["params"].items() if name != "routing"})
    worst = max(jax.tree.leaves(jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), *learners)))
    results["one expert against SAC"] = worst
    text = "one expert and SAC after 13 gradient steps from one key: largest difference of parameters"
    return _exactly(text, worst, at_most(1e-6), None)


def _summary(outcome: _target_reaching.Outcome, steps: int) -> dict[str, Any]:
    last = max(1, round(_target_reaching.PIECES * 5_000 / steps)) if steps > 5_000 else 1
    final = outcome.success[:, -last:].mean(1)
    low, high = bootstrap_interval(final, np.mean)
    half = [int((np.argmax(row >= 0.5) + 1) * steps / row.size) if (row >= 0.5).any() else None for row in outcome.success]
    return {
        "success in the last 5,000 steps": final.tolist(),
        "mean": float(final.mean()),
        "interval": [float(low), float(high)],
        "area under the return's curve": outcome.returns.mean(1).tolist(),
        "steps to half": half,
        "success curve": outcome.success.mean(0).tolist(),
        "return curve": outcome.returns.mean(0).tolist(),
        "success with observation noise": dict(
            zip(map(str, _target_reaching.NOISES), outcome.noisy_success.mean(0).tolist(), strict=True)
        ),
    }


def _reaching_claims(results: dict[str, Any], size: str) -> list[dict[str, Any]]:
    rows, found = results["target reaching"], results["primitives"]
    if size == "smoke":  # too short for a claim
        return []
    one, four = rows["K = 1"], rows["K = 4"]
    success = "success in the last 5,000 steps"
    measured, interval = estimate(difference_of(np.mean), four[success], one[success])
    text = "target reaching, success of K = 4 less that of K = 1"
    claims = [claim(text, PAPER, measured, at_least(0.05), null=0, interval=interval)]
    text = "experts alone: distance between their mean paths, in spreads of one expert's paths"
    measured, interval = estimate(ratio_of(np.mean), found["apart"], found["spread"])
    claims.append(claim(text, PAPER, measured, at_least(2), null=1, interval=interval))
    text = "experts alone: sides of the first disc on which they pass, over all seeds"
    claims.append(claim(text, PAPER, found["number_of_sides"], above(1), null=1))
    for name in ("gumbel", "score_ratio"):
        areas = [row["area under the return's curve"] for row in (four, rows[f"K = 4, {name}"])]
        measured, interval = estimate(difference_of(np.mean), *areas)
        text = f"target reaching, area under the return's curve: frequencies less {name}"
        claims.append(claim(text, PAPER, measured, above(0), null=0, interval=interval))
    return claims


def area(folder: Path) -> np.ndarray:
    """Area under each seed's learning curve: the mean over training of the return of the episodes that ended, shape (seed,)."""
    return np.nanmean(read_curves(folder).metrics["episode_return"], axis=1)


def _comparison(task: Task, base: np.ndarray, mixture: np.ndarray, base_name: str, name: str) -> dict[str, Any]:
    """Ratio of the areas where returns are positive, else their difference."""
    positive = min(base.min(), mixture.min()) > 0
    neutral, word = (1, "ratio") if positive else (0, "difference")
    measured, interval = estimate((ratio_of if positive else difference_of)(np.mean), mixture, base)
    average = {"sac": 1.28, "ppo": 1.56}[base_name]
    text = f"area under the curve, {name} to {base_name}, {task.env}, {task.steps:,} steps: {word} "
    text += f"(on average over six tasks {average}, from memory)"
    return claim(text, PAPER, measured, above(neutral), null=neutral, interval=interval)


def _exactly(text: str, measured: float, expected: Expected, null: float | None) -> dict[str, Any]:
    """A claim about a quantity without chance, or one of 200,000 samples."""
    return claim(text, PAPER, measured, expected, null=null, exact=True)
