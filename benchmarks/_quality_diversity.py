"""Quality-diversity methods side by side on one task: trained, run again, compared and drawn."""

import tempfile
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

import jaxpg
import jaxpg_envs
from benchmarks._claims import Expected, above, at_least, at_most, claim, estimate, null_of, ratio_of
from benchmarks._runs import Task, train
from jaxpg.algorithms.quality_diversity.repertoire import score
from jaxpg.algorithms.quality_diversity.reproducibility import reproducibility
from jaxpg.experiment import load
from jaxpg.experiment.plots import COLOURS, INK, Picture, plain_axes, read_curves
from jaxpg.experiment.repertoire_picture import COLUMNS, draw_repertoires
from jaxpg.experiment.statistics import bootstrap_interval, interquartile_mean

ABOVE_ONE = above(1)
PAPER = "Faldor et al. 2023, arXiv 2303.03832"
AT_EVALUATIONS, AT_STEPS = "at equal evaluations", "at equal environment steps"
AT_BOTH = "at equal evaluations and environment steps"
TITLES = {
    "qd_score": "QD-score",
    "corrected_qd_score": "corrected QD-score",
    "coverage": "coverage",
    "descriptor_error": "descriptor error",
    "descriptor_error_in_cells": "descriptor error in widths of a cell",
}


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
    """One task: generations, sizes that all methods share, and what only those with critics and DCG's actor have.

    `variant` tells it from the others on its environment.
    """

    env: str
    generations: int
    sizes: dict[str, Any]
    critics: dict[str, Any]
    actor: dict[str, Any]
    env_options: dict[str, Any] = {}  # noqa: RUF012  (never changed)
    variant: str = ""

    @property
    def name(self) -> str:
        """What results and claims call it."""
        return ", ".join(filter(None, (self.env, self.variant)))


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
        row: dict[str, Any] = {"measures": {key: _summary(values) for key, values in outcome.measures.items()}}
        row |= {"env_steps": outcome.env_steps.tolist()}
        row |= {"curves": {key: np.round(values, 4).tolist() for key, values in outcome.curves.items()}}
        at_equal_steps = {key: _summary(after(row, key, steps)) for key in ("qd_score", "coverage")}
        row |= {f"at {steps:,.0f} environment steps": at_equal_steps}
        results[name] = row | {"train_seconds_of_all_seeds": round(outcome.seconds, 1)}
    return results


def of_seeds(row: dict[str, Any], measure: str) -> Float[np.ndarray, " seed"]:
    """A measure at the end, of a method's row of the table."""
    return np.array(row["measures"][measure]["seeds"])


def after(row: dict[str, Any], measure: str, env_steps: float) -> Float[np.ndarray, " seed"]:
    """A measure of the curves after at most so many environment steps."""
    return np.array(row["curves"][measure])[:, np.searchsorted(row["env_steps"], env_steps, side="right") - 1]


def _summary(values: Float[np.ndarray, " seed"]) -> dict[str, Any]:
    low, high = bootstrap_interval(values)
    return {"iqm": float(interquartile_mean(values)), "interval": [float(low), float(high)], "seeds": values.tolist()}


def compare(
    task: str,
    found: dict[str, Any],
    measure: str,
    one: Method,
    other: Method,
    expected: Expected = ABOVE_ONE,
    uninformed: Method | None = None,
    paper: str = PAPER,
) -> list[dict[str, Any]]:
    """Claims about the interquartile mean of `one`'s measure over that of `other`'s: at equally many evaluations of offspring,
    and at equally many environment steps where these are not the same.

    Args:
      found: the table of the task.
      uninformed: the method whose ratio to `other` is the null; without it, the null is 1, that of equal ones.
    """
    rows = [found[method.name] for method in (one, other, uninformed or other)]
    env_steps = [row["env_steps"][-1] for row in rows]
    samples = {AT_EVALUATIONS: [of_seeds(row, measure) for row in rows]}
    samples |= {AT_STEPS: [after(row, measure, min(env_steps)) for row in rows]}
    if len({*env_steps}) == 1:
        samples = {AT_BOTH: samples[AT_EVALUATIONS]}
    text = f"{task}: {TITLES[measure]}, {one.name} to {other.name}"
    return [ratio(f"{text}, {where}", x, y, expected, paper, z if uninformed else None) for where, (x, y, z) in samples.items()]


def ratio(
    text: str,
    one: Float[np.ndarray, " seed"],
    other: Float[np.ndarray, " seed"],
    expected: Expected,
    paper: str = PAPER,
    uninformed: Float[np.ndarray, " seed"] | None = None,
) -> dict[str, Any]:
    """A claim about the interquartile mean of `one` over that of `other`.

    Args:
      uninformed: what stands in the place of `one` in the null; without it, the null is 1, that of equal ones.
    """
    statistic = ratio_of(interquartile_mean)
    measured, interval = estimate(statistic, one, other)
    null = 1 if uninformed is None else null_of(statistic, uninformed, other)
    return claim(text, paper, measured, expected, null=null, interval=interval)


def distilled(
    task: str, found: dict[str, Any], measures: tuple[str, str], least: float, most: Expected
) -> list[dict[str, Any]]:
    """Claims about DCG's actor in the place of its repertoire, told descriptors and told centroids: a score of at `least` so
    many times the repertoire's, and `most` of an error. The null is the actor that is told nothing.

    Args:
      found: the table of the task.
      measures: the score and the error, as `reproducibility` calls them.
    """
    measured = partial(of_seeds, found[DCG.name])
    score, error = measures
    claims = []
    for actor, told in (("actor", "descriptors"), ("centroid_actor", "centroids")):
        text = lambda measure, told=told: f"{task}: {TITLES[measure]}, distilled actor told {told}"
        scores, errors = (measured(f"rerun_{actor}_{measure}") for measure in measures)
        no_scores, no_errors = (measured(f"rerun_untold_actor_{measure}") for measure in measures)
        missed_by, interval = estimate(interquartile_mean, errors)
        null = null_of(interquartile_mean, no_errors)
        claims += [
            ratio(f"{text(score)}, to repertoire", scores, measured("qd_score"), at_least(least), uninformed=no_scores),
            claim(text(error), PAPER, missed_by, most, null=null, interval=interval),
        ]
    return claims


def distilled_on_ants(task: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    """Nine tenths of the repertoire's QD-score, within ten metres of where the actor is to go; in the paper 6."""
    return distilled(task, found, ("qd_score", "descriptor_error"), 0.9, at_most(10, " m"))


def in_words(comparison: list[dict[str, Any]]) -> str:
    """What claims of `compare` say of the order of the two, whatever was expected: whether it is another at equal steps."""
    text, _, _ = comparison[0]["claim"].rpartition(", at equal")
    signs, parts = [], []
    for row in comparison:
        low, high = row["interval"] or (-np.inf, np.inf)
        signs.append("more" if low > 1 else "less" if high < 1 else "open")
        measured = "no number" if row["measured"] is None else f"{row['measured']:.3g}"
        interval = f"{low:.3g} to {high:.3g}" if row["interval"] else "no interval"
        parts.append(f"{signs[-1]} {row['claim'].removeprefix(f'{text}, ')} ({measured}; {interval})")
    order = "is open" if "open" in signs else "is the same" if len({*signs}) == 1 else "reverses"
    return f"{text}: the order {order}: {', '.join(parts)}"


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
            axes.set_title(f"{protocol.name}: {TITLES[metric]}", loc="left", fontsize=10, color=INK)
            for index, (name, outcome) in enumerate(methods.items()):
                share = np.linspace(0, 1, outcome.curves[metric].shape[1] + 1)[1:]
                colour = COLOURS[index % len(COLOURS)]
                style = "--" if "ablation" in name else ":" if index >= len(COLOURS) else "-"
                (lines[name],) = axes.plot(share, interquartile_mean(outcome.curves[metric]), style, color=colour)
                axes.fill_between(share, *bootstrap_interval(outcome.curves[metric]), color=colour, alpha=0.15, linewidth=0)
            axes.set_xlabel("share of the evaluations")
    figure.legend(lines.values(), lines, loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    return figure
