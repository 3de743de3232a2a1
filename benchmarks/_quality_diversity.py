"""Quality-diversity methods side by side on one task: trained, run again, compared and drawn."""

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

import jaxpg
import jaxpg_envs
from benchmarks._claims import Expected, above, claim, estimate, ratio_of
from benchmarks._runs import Task, train
from jaxpg.algorithms.quality_diversity.repertoire import score
from jaxpg.algorithms.quality_diversity.reproducibility import reproducibility
from jaxpg.experiment import load
from jaxpg.experiment.plots import COLOURS, INK, Picture, plain_axes, read_curves
from jaxpg.experiment.repertoire_picture import COLUMNS, draw_repertoires
from jaxpg.experiment.statistics import bootstrap_interval, interquartile_mean

ABOVE_ONE = above(1)
PAPER = "Faldor et al. 2023, arXiv 2303.03832"


class Method(NamedTuple):
    """How it is called in the tables, the algorithm, and what differs from the protocol's hyperparameters."""

    name: str
    algorithm: str
    hyperparameters: dict[str, Any] = {}  # noqa: RUF012  (never changed)


MAP_ELITES = Method("MAP-Elites", "map_elites")
ME_ES = Method("ME-ES", "me_es")
PGA = Method("PGA-MAP-Elites", "pga_map_elites")
DCG = Method("DCG-MAP-Elites", "dcg_map_elites")
DCRL = Method("DCRL-MAP-Elites", "dcrl_map_elites")
ABLATIONS = [
    Method("DCG, ablation 1: no actor episodes", "dcg_map_elites", {"ablation": "no_actor_episodes"}),
    Method("DCG, ablation 2: relabelled negatives", "dcg_map_elites", {"ablation": "relabelled_negatives"}),
    Method("DCG, ablation 3: unconditioned actor", "dcg_map_elites", {"ablation": "unconditioned_actor"}),
]


class Protocol(NamedTuple):
    """One task: generations, sizes that all methods share, and what only those with critics and DCG's actor have."""

    env: str
    generations: int
    sizes: dict[str, Any]
    critics: dict[str, Any]
    actor: dict[str, Any]
    env_options: dict[str, Any] = {}  # noqa: RUF012  (never changed)


class Outcome(NamedTuple):
    """Of each seed: final measures, curves over generations, and the first seed's repertoire."""

    measures: dict[str, Float[np.ndarray, " seed"]]
    curves: dict[str, Float[np.ndarray, "seed point"]]
    env_steps: Float[np.ndarray, " point"]
    repertoire: Any
    seconds: float


def learn(method: Method, protocol: Protocol, num_seeds: int) -> Outcome:
    """Trains a method on the protocol's task and runs its repertoire, and its actor, again."""
    fields = protocol.sizes | method.hyperparameters
    if method.algorithm == "me_es":
        fields["num_offspring"] -= 1  # it needs an odd number
    if method.algorithm in ("pga_map_elites", "dcg_map_elites", "dcrl_map_elites"):
        fields |= protocol.critics
    if method.algorithm == "dcg_map_elites":
        fields |= protocol.actor
    env, params = jaxpg_envs.make(protocol.env, **protocol.env_options)
    per_update = jaxpg.make(method.algorithm, env, params, **fields).env_steps_per_update
    task = Task(protocol.env, protocol.generations * per_update, None, protocol.env_options, fields)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "run"
        summary = train(folder, method.algorithm, task, num_seeds)
        run, curves = load(folder), read_curves(folder)
    states = jax.device_put(run.states, jax.devices()[0])
    again = jax.jit(jax.vmap(lambda key, state: reproducibility(key, run.algorithm, env, params, state)))
    rerun = again(jax.random.split(jax.random.key(1), num_seeds), states)
    measures = jax.vmap(score)(states.repertoire) | {f"rerun_{name}": value for name, value in rerun.items()}
    kept = {name: curves.metrics[name] for name in ("qd_score", "coverage", "max_fitness")}
    first = jax.tree.map(lambda x: np.asarray(x[0]), states.repertoire._replace(genotypes=()))
    return Outcome(jax.tree.map(np.asarray, measures), kept, curves.env_steps, first, summary["train_seconds"])


def table(outcomes: dict[str, Outcome]) -> dict[str, Any]:
    """Every figure: interquartile mean and interval of each measure, each seed's, curves, and scores at equal steps.

    Methods are trained for equally many evaluations of offspring. Because DCG's actor runs episodes of its own, what each has
    reached after as many environment steps as the shortest run has is given too.
    """
    steps = min(outcome.env_steps[-1] for outcome in outcomes.values())
    results = {}
    for name, outcome in outcomes.items():
        point = int(np.argmin(np.abs(outcome.env_steps - steps)))
        at_equal_steps = {key: outcome.curves[key][:, point] for key in ("qd_score", "coverage")}
        results[name] = {
            "measures": {key: _summary(values) for key, values in outcome.measures.items()},
            f"at {steps:,.0f} environment steps": {key: _summary(values) for key, values in at_equal_steps.items()},
            "env_steps": outcome.env_steps.tolist(),
            "curves": {key: np.round(values, 4).tolist() for key, values in outcome.curves.items()},
            "train_seconds_of_all_seeds": round(outcome.seconds, 1),
        }
    return results


def _summary(values: Float[np.ndarray, " seed"]) -> dict[str, Any]:
    low, high = bootstrap_interval(values)
    return {"iqm": float(interquartile_mean(values)), "interval": [float(low), float(high)], "seeds": values.tolist()}


def ratio(
    text: str,
    one: Float[np.ndarray, " seed"],
    other: Float[np.ndarray, " seed"],
    expected: Expected = ABOVE_ONE,
    paper: str = PAPER,
    null: float = 1,
) -> dict[str, Any]:
    """A claim about the interquartile mean of `one` over that of `other`; the null is that of equal ones."""
    measured, interval = estimate(ratio_of(interquartile_mean), one, other)
    return claim(text, paper, measured, expected, null=null, interval=interval)


def picture(protocols: list[Protocol], outcomes: list[dict[str, Outcome]]) -> Picture:
    """Of each task: QD-score and coverage of every method over evaluations, and the first seed's final repertoires."""
    rows = -(-max(map(len, outcomes)) // COLUMNS)
    heights = [3.1, 2.8 * rows]
    figure = Picture(figsize=(11.6, 0.9 + sum(heights) * len(outcomes)), layout="constrained")
    parts: Any = figure.subfigures(2 * len(outcomes), 1, height_ratios=heights * len(outcomes))
    lines = {}
    for protocol, methods, upper, lower in zip(protocols, outcomes, parts[::2], parts[1::2], strict=True):
        env, params = jaxpg_envs.make(protocol.env, **protocol.env_options)
        repertoires = {name: outcome.repertoire for name, outcome in methods.items()}
        draw_repertoires(lower, repertoires, *env.descriptor_bounds(params))
        for axes, metric in zip(upper.subplots(1, 2), ("qd_score", "coverage"), strict=True):
            plain_axes(axes)
            axes.set_title(f"{protocol.env}: {metric.replace('_', ' ')}", loc="left", fontsize=10, color=INK)
            for index, (name, outcome) in enumerate(methods.items()):
                share = np.linspace(0, 1, outcome.curves[metric].shape[1] + 1)[1:]
                colour, style = COLOURS[index % len(COLOURS)], "--" if "ablation" in name else "-"
                (lines[name],) = axes.plot(share, interquartile_mean(outcome.curves[metric]), style, color=colour)
                axes.fill_between(share, *bootstrap_interval(outcome.curves[metric]), color=colour, alpha=0.15, linewidth=0)
            axes.set_xlabel("share of the evaluations")
    figure.legend(lines.values(), lines, loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    return figure
