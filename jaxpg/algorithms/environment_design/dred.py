"""DRED: data-regularised environment design (Garcin et al., 2024, arXiv 2402.03479).

Trained on a set of levels alone a student overfits to them; trained on generated levels, it learns what does not occur. DRED
generates levels near those of the set, by a variational autoencoder trained on it, and mixes both: replayed are levels of
the set by their value loss and, more and more, all levels by their value loss if they were ever solved. Generated levels
enter the buffer by the latter score.

`generation` = edits is EL-DRED, whose new levels are edits of the easiest levels just played, as in `accel`; the other values,
and the fields `eta_...` and `grounded`, are the paper's ablations.

Differences from the authors' code: levels never solved have no share in the secondary distribution (there, the last ranks);
nothing is generated until every level of the set was played; `level_vae` and `curriculum` say more.
"""

import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int, PyTree

from jaxpg.algorithm import Algorithm, InputError, Metrics, Scalar, hyperparameter, register, static
from jaxpg.algorithms.environment_design import level_buffer, scores
from jaxpg.algorithms.environment_design.accel import edit_easiest
from jaxpg.algorithms.environment_design.curriculum import (
    Choice,
    Curriculum,
    CurriculumConfig,
    Outcome,
    as_algorithm,
    num_updates,
    split_params,
)
from jaxpg.algorithms.environment_design.level_buffer import LevelBuffer
from jaxpg.algorithms.environment_design.level_vae import LevelVAE, generate, interpolate, train_vae
from jaxpg.algorithms.environment_design.plr import first_visits, measure, replay_or_visit
from jaxpg.algorithms.online.ppo import LAMBDA_HELP
from jaxpg.counting import fraction
from jaxpg_envs.levels import CaveLevel

VAE_SEED = 20211201  # the same autoencoder for all agents

PAIRS, CODES, EDITS = ({"generation": kinds} for kinds in (("interpolation",), ("interpolation", "prior"), ("edits",)))


@struct.dataclass
class DREDConfig(CurriculumConfig):
    """The student's hyperparameters, those of the buffer and of the autoencoder."""

    levels: Literal["dataset"] = static("dataset", "DRED begins with a training set")
    generation: Literal["interpolation", "prior", "edits"] = static(
        "interpolation", "where new levels come from: between two of the set, the autoencoder's prior, or edits of easy ones"
    )
    grounded: bool = static(True, "only levels that were solved enter the buffer and are replayed by the second score")
    buffer_size: int = static(4000, "levels that are remembered, those of the set included", high=1_000_000)
    num_points: int = static(6, "new levels per pair of levels, both ends included", low=2, needs=PAIRS)
    num_edits: int = static(5, "random edits of a level", needs=EDITS)
    vae_latent_size: int = static(1024, "length of a level's code", needs=CODES)
    vae_hidden_sizes: tuple[int, ...] = static((2048, 256), "layers of the autoencoder", needs=CODES)
    vae_epochs: int = static(200, "passes over the set", needs=CODES)
    vae_batch_size: int = static(64, "levels per gradient step of the autoencoder", needs=CODES)
    vae_learning_rate: Scalar = hyperparameter(3.976e-4, "step size of the autoencoder", low=0, needs=CODES)
    vae_kl_coefficient: Scalar = hyperparameter(0.0448, "weight of the divergence from the prior", low=0, needs=CODES)
    temperature: Scalar = hyperparameter(0.1, "of the ranks of the set's levels", low=1e-3)
    gae_lambda: Scalar = hyperparameter(0.95, LAMBDA_HELP, low=0, high=1)
    second_temperature: Scalar = hyperparameter(1.0, "of the ranks of all levels", low=1e-3)
    staleness_coefficient: Scalar = hyperparameter(0.3, "share of levels that are replayed by staleness", low=0, high=1)
    eta_start: Scalar = hyperparameter(0.0, "share of the second distribution at the start of training", low=0, high=1)
    eta_end: Scalar = hyperparameter(1.0, "the same at its end", low=0, high=1)


class Autoencoder(NamedTuple):
    """What generation needs of a trained autoencoder: the decoder's variables, and the posteriors of the set's levels."""

    variables: PyTree
    means: Float[Array, "level code"]
    deviations: Float[Array, "level code"]


class Memory(NamedTuple):
    """The buffer and the autoencoder, `()` if levels are edited."""

    buffer: LevelBuffer
    autoencoder: Any


def second_score(
    config: DREDConfig, value_l1: Float[Array, "*level"], max_returns: Float[Array, "*level"]
) -> Float[Array, "*level"]:
    """S': the value loss of levels that were ever solved, else 0 (not with `grounded` = False)."""
    return scores.grounded(value_l1, max_returns) if config.grounded else value_l1


def priorities(
    config: DREDConfig, buffer: LevelBuffer, eta: Float[Array, ""], now: Int[Array, "*digit"] | int
) -> Float[Array, " slot"]:
    """P = (1 - rho) [(1 - eta) P_S + eta P_S'] + rho P_C.

    P_S ranks the set's levels by value loss, P_S' all levels that were solved, and P_C is the staleness of the set's levels.
    P_S stands in for P_S' as long as nothing was solved.

    Source: Garcin et al. 2024 (arXiv 2402.03479) and the authors' code.
    """
    of_set = buffer.is_dataset & buffer.seen
    score = second_score(config, buffer.score, buffer.max_return)
    first = level_buffer.rank_weights(buffer.score, of_set, config.temperature)
    second = level_buffer.rank_weights(score, buffer.seen & (score > 0), config.second_temperature)
    second = jnp.where(second.sum() > 0, second, first)
    stale = level_buffer.staleness_weights(buffer, of_set, now)
    return (1.0 - config.staleness_coefficient) * ((1.0 - eta) * first + eta * second) + config.staleness_coefficient * stale


def make_autoencoder(config: DREDConfig, shape: tuple[int, ...]) -> LevelVAE:
    """Of levels of this shape."""
    return LevelVAE(math.prod(shape), config.vae_latent_size, config.vae_hidden_sizes)


def train_autoencoder(config: DREDConfig, vae: LevelVAE, levels: CaveLevel) -> PyTree:
    """Its variables; all agents with the same set have the same."""
    return train_vae(
        jax.random.key(VAE_SEED),
        vae,
        levels,
        config.vae_epochs,
        config.vae_batch_size,
        config.vae_learning_rate,
        config.vae_kl_coefficient,
    )[0]


@register(
    "dred",
    DREDConfig,
    paper="Garcin et al. 2024, arXiv 2402.03479",
    field="environment_design",
    actions="discrete, continuous",
    status="results",
)
def dred(config: DREDConfig, env: Any, params: PyTree) -> Algorithm:
    """Replay of a training set and of levels generated near it."""
    params, dataset = split_params("dred", config, env, params)
    number = jax.tree.leaves(dataset)[0].shape[0]
    _check(config, params, number)
    shape = params.level[0].shape
    vae = make_autoencoder(config, shape)
    updates = num_updates(config, 2)

    def init(key: jax.Array) -> Memory:
        buffer = level_buffer.init_buffer(config.buffer_size, jax.eval_shape(env.sample_level, key), dataset)
        if config.generation == "edits":
            return Memory(buffer, ())
        levels = jax.tree.map(jnp.asarray, dataset)
        variables = train_autoencoder(config, vae, levels)
        means, deviations = vae.apply(variables, levels, method=LevelVAE.encode)
        decoder = {kind: {"decoder": parts["decoder"]} for kind, parts in variables.items()}
        return Memory(buffer, Autoencoder(decoder, means, deviations))

    def probabilities(buffer: LevelBuffer, now: Int[Array, "*digit"]) -> Float[Array, " slot"]:
        eta = config.eta_start + (config.eta_end - config.eta_start) * fraction(now, updates)
        return priorities(config, buffer, eta, now)

    def choose(key: jax.Array, memory: Memory, now: Int[Array, "*digit"]) -> Choice:
        return replay_or_visit(key, config, memory.buffer, probabilities(memory.buffer, now))

    def record(memory: Memory, choice: Choice, outcome: Outcome, now: Int[Array, "*digit"]) -> Memory:
        played = outcome.slots
        return memory._replace(buffer=level_buffer.update_scores(memory.buffer, played, played.value_l1, now))

    def propose(key: jax.Array, memory: Memory, choice: Choice, outcome: Outcome) -> PyTree:
        code_key, level_key = jax.random.split(key)
        if config.generation == "edits":
            return edit_easiest(env, level_key, choice, outcome, config.num_edits)
        _, means, deviations = memory.autoencoder
        if config.generation == "prior":
            codes = jax.random.normal(code_key, (config.num_envs, config.vae_latent_size))
        else:
            codes = interpolate(code_key, means, deviations, config.num_envs // config.num_points, config.num_points)
        return generate(level_key, vae, memory.autoencoder.variables, codes, shape)

    def admit(memory: Memory, levels: PyTree, outcome: Outcome, now: Int[Array, "*digit"]) -> tuple[Memory, Metrics]:
        buffer, (value_l1, max_returns) = memory.buffer, (outcome.slots.value_l1, outcome.slots.max_return)
        score = second_score(config, value_l1, max_returns)
        enters = (score > 0) & ~level_buffer.to_visit(buffer).any()
        priority = jnp.where(enters, score, -jnp.inf)
        old = second_score(config, buffer.score, buffer.max_return)
        weights = jnp.where(buffer.is_dataset, jnp.inf, probabilities(buffer, now))
        buffer, entered = level_buffer.insert(buffer, levels, value_l1, max_returns, priority, old, weights, now)
        metrics = {
            "admitted": entered.mean(dtype=jnp.float32),
            "generated_solved": (max_returns > 0).mean(dtype=jnp.float32),
        }
        return memory._replace(buffer=buffer), metrics

    def measure_memory(memory: Memory, choice: Choice, now: Int[Array, "*digit"]) -> Metrics:
        generated = ~memory.buffer.is_dataset[choice.slots]
        return measure(memory.buffer, choice, now) | {"generated_played": generated.mean(dtype=jnp.float32)}

    curriculum = Curriculum(init, choose, record, propose, admit, measure_memory)
    return as_algorithm(config, env, params, curriculum, *first_visits(config, dataset))


def _check(config: DREDConfig, params: PyTree, number: int) -> None:
    """Raises `InputError` if sizes do not fit together, or the autoencoder has no such levels."""
    if config.generation != "edits" and not isinstance(params.level, CaveLevel):
        raise InputError("dred: the autoencoder is one of CaveEscape's levels; for others use generation = edits")
    if not config.num_envs <= number <= config.buffer_size:
        raise InputError(
            f"dred: {number} levels of the training set must be at least num_envs = {config.num_envs} and at most "
            f"buffer_size = {config.buffer_size}"
        )
    if config.generation == "interpolation" and config.num_envs % config.num_points:
        raise InputError(f"dred: num_envs = {config.num_envs} does not divide into pairs of num_points = {config.num_points}")
    if config.generation == "interpolation" and 2 * (config.num_envs // config.num_points) > number:
        raise InputError(f"dred: {config.num_envs // config.num_points} pairs of different levels need more than {number}")
    if config.generation != "edits" and config.vae_batch_size > number:
        raise InputError(
            f"dred: vae_batch_size = {config.vae_batch_size} levels per step are more than the training set's {number}: "
            f"give at most {number}"
        )
