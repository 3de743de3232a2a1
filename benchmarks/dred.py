"""DRED: zero-shot transfer to held-out caves after training on a set of levels, against replay, random and evolved levels.

The paper claims that generating levels near a training set, and mixing them with it, transfers better than replay of the set
alone, which overfits, and than levels from a random generator or editor, which drift from it; VAE-DRED's return on held-out
levels is about 1.2 times that of the next best (figures not verified: an ordering claim). Our levels are made by the paper's
recipe from templates of our own.

Every method has the same student and the same number of updates, as in the paper. Rollouts that only look at levels come on
top: methods that look at as many levels as they play take twice the environment steps, and the results have both numbers.
First visits of a training set count as updates, though nothing is learned from them. Zero-shot scores are mean returns of the
stochastic policy over four episodes on each level of a set that no method has seen. GenGap is the score on the training set
less that on the test set; ShiftGap, as far as it can be computed, that on the levels a method generates less that on the
training set. The probe tells levels apart by the policy's memory.

Measured at size small, five seeds, 210 updates each: DRED is above DR, uniform sampling, PLR and robust PLR on every held-out
set (its lead over ACCEL under much lava is open), and on the test set 1.13 times (1.06 to 1.19) the best that is not a variant
of it, uniform sampling. EL-DRED, which edits (0.78 as DRED), and codes from the autoencoder's prior (0.79) are its equals: that
codes lie between those of two levels is not shown to matter here. PLR is DR's equal on the test set; sets that are unlike the
training set favour random levels over replay. At equal environment steps, half of their updates, DRED, EL-DRED and the prior
(0.66 to 0.70) are no better than uniform sampling after all of its (0.70): their gain on the test set takes the second half.
The autoencoder makes too little lava: in that statistic random levels are closer to the set.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

import jaxpg
import jaxpg_envs
from benchmarks._claims import above, at_least, claim, estimate, near, ratio_of
from jaxpg.algorithm import Policy, configure
from jaxpg.algorithms.environment_design.dred import DREDConfig, make_autoencoder, train_autoencoder
from jaxpg.algorithms.environment_design.level_vae import LevelVAE, generate, interpolate, reconstruction_log_prob
from jaxpg.algorithms.environment_design.measures import (
    distribution_distance,
    mutual_information_probe,
    returns_on_levels,
    statistics_of,
)
from jaxpg.experiment.devices import seed_mesh
from jaxpg.experiment.plots import COLOURS, Picture, plain_axes
from jaxpg.experiment.program import over_seeds
from jaxpg.experiment.statistics import bootstrap_interval, interquartile_mean
from jaxpg.training import advance
from jaxpg_envs.levels import level_set

PAPER = "Garcin et al. 2024, arXiv 2402.03479"
SYSTEMS = {"dred": "(?!test, PLR|probe)", "plr": "test, PLR|probe"}
SEEDS = {"smoke": 2, "small": 5, "full": 3}
PIECES = 10  # points of a learning curve
EPISODES = 4
EDGES = ("unseen", "unseen_little_moss", "unseen_much_lava")


class Setting(NamedTuple):
    """A size of the benchmark: cells per side, time limit, numbers of levels, hyperparameters.

    `steps` are those of a method that plays no levels without learning from them, which gives the updates of all.
    """

    size: int
    time_limit: int
    num_train: int
    num_test: int
    num_edge: int
    steps: int
    student: dict[str, Any]
    autoencoder: dict[str, Any]
    buffer_size: int


SETTINGS = {
    "smoke": Setting(
        7,
        50,
        16,
        16,
        8,
        30_000,
        {"num_envs": 12, "num_steps": 64, "memory_size": 32, "learning_rate": 1e-3},
        {"vae_latent_size": 16, "vae_hidden_sizes": (64, 32), "vae_batch_size": 16},
        64,
    ),
    "small": Setting(
        9,
        100,
        64,
        256,
        64,
        1_000_000,
        {"num_envs": 36, "num_steps": 128, "memory_size": 64, "learning_rate": 1e-3},
        {"vae_latent_size": 64, "vae_hidden_sizes": (256, 128), "vae_epochs": 1000},
        512,
    ),
    # 14 minibatches of 36 environments each: the authors' 36 environments take as many gradient steps, about 143,800.
    "full": Setting(13, 250, 512, 2048, 64, 265_000_000, {"num_envs": 504, "num_minibatches": 14}, {}, 4000),
}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "uniform": ("domain_randomization", {"levels": "dataset"}),
    "PLR": ("plr", {}),
    "DR": ("domain_randomization", {}),
    "robust PLR": ("robust_plr", {}),
    "ACCEL": ("accel", {}),
    "ACCEL-D": ("accel", {"levels": "dataset", "score": "grounded_value_l1", "temperature": 0.1}),
    "EL-DRED": ("dred", {"generation": "edits"}),
    "DRED": ("dred", {}),
    "SFL": ("sfl", {"buffer_size": 100}),
    "PAIRED": ("paired", {}),
}
ABLATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "DRED, eta 0": ("dred", {"eta_end": 0.0}),
    "DRED, eta 1": ("dred", {"eta_start": 1.0}),
    "DRED, prior": ("dred", {"generation": "prior"}),
    "DRED, not grounded": ("dred", {"grounded": False}),
}
LOOKS = ("robust_plr", "accel", "dred", "sfl", "paired")  # two rollouts per update, of which the student learns from one
RUNS = {
    "smoke": {"DRED": METHODS["DRED"]},
    "small": METHODS | {"DRED, prior": ABLATIONS["DRED, prior"]},
    "full": METHODS | ABLATIONS,
}


class Outcome(NamedTuple):
    """Of each seed: learning curves and final scores by level set, the probe, and the last metrics; and what they took."""

    updates: int
    steps: int
    curves: dict[str, Float[np.ndarray, "seed point"]]
    scores: dict[str, Float[np.ndarray, " seed"]]
    solved: dict[str, Float[np.ndarray, " seed"]]
    probe: dict[str, Float[np.ndarray, " seed"]]
    metrics: dict[str, Float[np.ndarray, " seed"]]


def learn(method: tuple[str, dict[str, Any]], setting: Setting, sets: dict[str, Any], num_seeds: int) -> Outcome:
    """Trains one method, all seeds in one program, and measures it."""
    env, params = jaxpg_envs.make("CaveEscape-v0", size=setting.size, max_steps_in_episode=setting.time_limit)
    name, fields = method
    sizes = {} if name in ("domain_randomization", "paired", "plr") else {"buffer_size": setting.buffer_size}
    sizes |= setting.autoencoder if name == "dred" and fields.get("generation") != "edits" else {}
    algorithm = jaxpg.make(
        name,
        env,
        params.replace(level=sets["train"]),
        **{"total_steps": setting.steps * (2 if name in LOOKS else 1), **setting.student, **sizes, **fields},
    )
    updates = max(1, algorithm.num_updates // PIECES)
    num_devices = max(n for n in range(1, len(jax.devices()) + 1) if num_seeds % n == 0)
    mesh = seed_mesh(num_seeds, num_devices)
    few = {name: jax.tree.map(lambda x: x[: setting.num_train], sets[name]) for name in ("train", "test")}
    probed = jax.tree.map(lambda x: x[:64], sets["train"])

    def returns_by_set(policy: Policy, levels: dict[str, Any], key: Array, episodes: int) -> dict[str, Array]:
        """All sets at once: one program compiles sooner than one for each."""
        together = jax.tree.map(lambda *x: jnp.concatenate(x), *levels.values())
        ends = np.cumsum([len(some.goal) for some in levels.values()])
        returns = jnp.split(returns_on_levels(policy, env, params, together, key, episodes), ends[:-1])
        return dict(zip(levels, returns, strict=True))

    def piece(state: PyTree, key: jax.Array) -> tuple[PyTree, dict[str, Array], dict[str, Array]]:
        state, metrics = advance(algorithm.update, state, updates)
        returns = returns_by_set(algorithm.policy(state, False), few, key, 1)
        return state, jax.tree.map(jnp.mean, returns), metrics

    def final(state: PyTree, key: jax.Array) -> tuple[dict[str, Array], dict[str, Array], dict[str, Array]]:
        policy = algorithm.policy(state, False)
        returns = returns_by_set(policy, sets, key, EPISODES)
        probe = mutual_information_probe(policy, env, params, probed, key, setting.time_limit)
        return jax.tree.map(jnp.mean, returns), jax.tree.map(lambda x: (x > 0).mean(), returns), probe

    keys = jax.random.split(jax.random.key(0), num_seeds)
    states, points = over_seeds(algorithm.init, mesh)(keys), []
    advance_all = over_seeds(piece, mesh)
    for index in range(PIECES):
        states, means, metrics = advance_all(states, jax.vmap(partial(jax.random.fold_in, data=index))(keys))
        points.append(jax.device_get(means))
    scores, solved, probe = jax.device_get(over_seeds(final, mesh)(states, keys))
    curves = {name: np.stack([point[name] for point in points], axis=1) for name in points[0]}
    made = PIECES * updates
    return Outcome(made, made * algorithm.env_steps_per_update, curves, scores, solved, probe, jax.device_get(metrics))


class Generated(NamedTuple):
    """What generators make, next to the training set: levels by the name of the generator, and the autoencoder's figures."""

    levels: dict[str, Any]
    log_prob: float
    baseline_log_prob: float


def generate_levels(setting: Setting, sets: dict[str, Any]) -> Generated:
    """As many levels as in the set: by the runs' autoencoder, between levels and from its prior, random ones, and edits."""
    env, _ = jaxpg_envs.make("CaveEscape-v0", size=setting.size)
    number, shape = setting.num_train, (setting.size, setting.size)
    config = configure("dred", DREDConfig, setting.autoencoder)
    vae = make_autoencoder(config, shape)
    keys = jax.random.split(jax.random.key(1), 5)
    train, test = (jax.tree.map(jnp.asarray, sets[name]) for name in ("train", "test"))
    variables = jax.jit(partial(train_autoencoder, config, vae))(train)
    means, deviations = vae.apply(variables, train, method=LevelVAE.encode)
    codes = interpolate(keys[1], means, deviations, math.ceil(number / config.num_points), config.num_points)[:number]
    prior = jax.random.normal(keys[2], (number, vae.latent_size))
    levels = {
        "training set": train,
        "autoencoder": generate(keys[3], vae, variables, codes, shape),
        "prior": generate(keys[3], vae, variables, prior, shape),
        "random": jax.vmap(env.sample_level)(jax.random.split(keys[4], number)),
        "edits": jax.vmap(lambda key, level: env.mutate_level(key, level, 5))(jax.random.split(keys[4], number), train),
    }
    # Held-out levels by the codes' means, and by the frequencies of what each cell holds in the training set.
    logits = vae.apply(variables, vae.apply(variables, test, method=LevelVAE.encode)[0], method=LevelVAE.decode)
    shares = jax.nn.one_hot(train.layout, 4).mean(0).reshape(-1, 4)
    shares = (number * shares + 0.25) / (number + 1)
    baseline = logits._replace(layout=jnp.broadcast_to(jnp.log(shares), logits.layout.shape))
    log_prob, baseline_log_prob = (float(reconstruction_log_prob(x, test)["layout"].mean()) for x in (logits, baseline))
    return Generated(jax.device_get(levels), log_prob, baseline_log_prob)


def run(size: str, num_seeds: int) -> tuple[dict[str, Any], Picture]:
    """Every method of the size, and what the generators make."""
    setting = SETTINGS[size]
    sets = {"train": level_set("train", 0, setting.num_train, setting.size)}
    sets["test"] = level_set("test", 1, setting.num_test, setting.size)
    sets |= {name: level_set(name, 2, setting.num_edge, setting.size) for name in EDGES}
    generated = generate_levels(setting, sets)
    statistics = {name: statistics_of(levels) for name, levels in generated.levels.items()}
    distances = {name: distribution_distance(values, statistics["training set"]) for name, values in statistics.items()}
    played = sets | {f"generated: {name}": generated.levels[name] for name in ("autoencoder", "random", "edits")}
    outcomes = {}
    for name, method in RUNS[size].items():
        outcomes[name] = learn(method, setting, played, num_seeds)
        print(
            f"{name}: " + ", ".join(f"{s} {outcomes[name].scores[s].mean():.3f}" for s in ("train", "test", *EDGES)), flush=True
        )
    results = {
        "level statistics": {
            name: {key: float(value.mean()) for key, value in values.items()} | {"solvable": solvable(values)}
            for name, values in statistics.items()
        },
        "distance to the training set": distances,
        "log-probability of held-out maps, per cell": {
            "autoencoder": generated.log_prob,
            "frequencies of every cell": generated.baseline_log_prob,
        },
        "methods": {name: summary(name, outcome) for name, outcome in outcomes.items()},
    }
    return results, picture(outcomes, statistics, generated, setting)


def solvable(statistics: dict[str, Float[np.ndarray, " level"]]) -> float:
    """Share of the levels that can be solved."""
    return float((statistics["path_length"] >= 0).mean())


SHIFT = {"DRED": "autoencoder", "DRED, prior": "autoencoder", "EL-DRED": "edits", "ACCEL-D": "edits"}
SHIFT |= {"DR": "random", "robust PLR": "random", "ACCEL": "random", "SFL": "random"}


def summary(name: str, outcome: Outcome) -> dict[str, Any]:
    """Of one method: scores with intervals over seeds, gaps, the probe, and its last metrics."""

    def with_interval(values: np.ndarray) -> dict[str, Any]:
        low, high = bootstrap_interval(values)
        return {"seeds": values.tolist(), "iqm": float(interquartile_mean(values)), "interval": [float(low), float(high)]}

    scores = outcome.scores
    rows: dict[str, Any] = {"updates": outcome.updates, "environment steps": outcome.steps}
    rows |= {f"score {name}": with_interval(values) for name, values in scores.items() if not name.startswith("generated")}
    rows["GenGap"] = with_interval(scores["train"] - scores["test"])
    if name in SHIFT:
        rows["ShiftGap"] = with_interval(scores[f"generated: {SHIFT[name]}"] - scores["train"])
    rows |= {f"probe {name}": with_interval(values) for name, values in outcome.probe.items()}
    rows["solved"] = {name: float(values.mean()) for name, values in outcome.solved.items()}
    rows["curves"] = {name: values.tolist() for name, values in outcome.curves.items()}
    rows["metrics"] = {key: float(np.mean(v)) for key, v in outcome.metrics.items() if np.isfinite(v).all()}
    return rows


def claims(size: str, results: dict[str, Any]) -> list[dict[str, Any]]:
    """The protocol's claims; of orderings, the difference of means over seeds and its bootstrap interval."""
    train, near_set, random = (results["level statistics"][name] for name in ("training set", "autoencoder", "random"))
    moss = "moss_distance_correlation"
    share = near_set[moss] / train[moss]
    logs = results["log-probability of held-out maps, per cell"]
    gained = logs["autoencoder"] - logs["frequencies of every cell"]
    distances = results["distance to the training set"]
    closer = [distances["autoencoder"][key] < distances["random"][key] for key in distances["random"]]
    text = f"autoencoder's levels that can be solved (random: {random['solvable']:.2f})"
    # Of hundreds of levels, whose chance is next to nothing; the null are random levels, or the frequencies of every cell.
    exactly = lambda text, measured, expected, null: claim(text, PAPER, float(measured), expected, null=null, exact=True)
    of_random = float(random[moss] / train[moss])
    gain = "held-out maps: log-probability per cell less that by frequencies of every cell"
    found = [
        exactly("autoencoder's levels: moss-distance correlation over the training set's", share, at_least(0.5), of_random),
        exactly("random levels: moss-distance correlation", random[moss], near(0, 0.05), float(train[moss])),
        exactly(text, near_set["solvable"], at_least(0.6), random["solvable"]),
        exactly(gain, gained, above(0), 0),
    ]
    text = "statistics in which the autoencoder's levels are closer to the training set than random ones: all"
    found.append(exactly(text, sum(closer), above(len(closer) - 1), 0))
    if size == "smoke":  # too short for a claim on learning
        return found
    of_seeds = lambda name, measure: np.array(results["methods"][name][measure]["seeds"])
    gaps = [of_seeds(name, "GenGap") for name in ("uniform", "DRED")]
    found.append(_difference("GenGap, uniform less DRED", gaps, 0.05))
    for name in ("PLR", "DRED"):
        scores = [of_seeds(one, "score test") for one in (name, "DR")]
        found.append(_difference(f"test, {name} less DR", scores, 0.0))
    accuracies = [of_seeds(name, "probe accuracy") for name in ("uniform", "PLR")]
    found.append(_difference("probe's accuracy, uniform less PLR", accuracies, 0.0))
    for rival in ("uniform", "PLR", "robust PLR", "ACCEL"):
        for levels in ("test", *EDGES):
            scores = [of_seeds(name, f"score {levels}") for name in ("DRED", rival)]
            found.append(_difference(f"{levels}, DRED less {rival}", scores, 0.0))
    rivals = {name: of_seeds(name, "score test").mean() for name in METHODS if "DRED" not in name}
    best = max(rivals, key=lambda name: rivals[name])
    ratio, interval = estimate(ratio_of(np.mean), of_seeds("DRED", "score test"), of_seeds(best, "score test"))
    text = f"test, DRED over the next best ({best}); paper: about 1.2"
    return [*found, claim(text, PAPER, ratio, at_least(1.05), null=1, interval=interval)]


def _difference(text: str, samples: list[Float[np.ndarray, " seed"]], least: float) -> dict[str, Any]:
    one, other = samples
    measured, interval = estimate(np.mean, one - other)  # the seeds' training sets are the same, and so are their keys
    return claim(text, PAPER, measured, at_least(least) if least else above(0), null=0, interval=interval)


def picture(outcomes: dict[str, Outcome], statistics: dict[str, Any], generated: Generated, setting: Setting) -> Picture:
    """Learning curves on both sets, level statistics by generator, and some levels of each."""
    env, _ = jaxpg_envs.make("CaveEscape-v0", size=setting.size)
    figure = Picture(figsize=(11, 12), layout="constrained")
    parts: Any = figure.subfigures(3, 1, height_ratios=(1.1, 0.9, 1.6))
    curves, bars, shown = parts
    at = np.linspace(setting.steps / PIECES, setting.steps, PIECES)  # of the steps that updates play, the same for all
    for axes, name in zip(curves.subplots(1, 2, sharey=True), ("train", "test"), strict=True):
        plain_axes(axes)
        for index, (label, outcome) in enumerate(outcomes.items()):
            style = "-" if index < len(COLOURS) else "--"
            axes.plot(at, outcome.curves[name].mean(0), style, color=COLOURS[index % len(COLOURS)], label=label)
        axes.set_title(f"return on the {name} set", loc="left", fontsize=9)
        axes.set_xlabel("environment steps of the student's updates")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=6, fontsize=8, frameon=False)
    keys = list(next(iter(statistics.values())))
    for axes, key in zip(bars.subplots(1, len(keys)), keys, strict=True):
        plain_axes(axes)
        axes.boxplot([values[key] for values in statistics.values()], showfliers=False)
        axes.set_xticks(range(1, len(statistics) + 1), statistics, rotation=60, fontsize=7)
        axes.set_title(key.replace("_", " "), loc="left", fontsize=8)
    for row, (name, levels) in zip(shown.subplots(len(statistics), 8), generated.levels.items(), strict=True):
        for index, axes in enumerate(row):
            axes.imshow(env.draw_level(jax.tree.map(lambda x, index=index: x[index], levels)))
            axes.axis("off")
        row[0].set_title(name, loc="left", fontsize=8)
    return figure
