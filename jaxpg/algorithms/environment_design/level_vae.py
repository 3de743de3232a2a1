"""DRED's variational autoencoder of levels (Garcin et al., 2024, arXiv 2402.03479).

The encoder is a graph isomorphism network over the grid: cells that touch are neighbours if both are ground, or neither is.
On a grid its sum over neighbours is four shifted sums with a mask. The decoder gives logits of what every cell holds, and of
where goal and start are. A level's map has the codes of CaveEscape; other fields than map, goal and start are not generated.

Differences from the paper's code: the start is drawn after the goal, among the cells that remain, so that both cannot collide;
goal and start cells are empty.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree, ScalarLike

from jaxpg.gradient_descent import descend
from jaxpg_envs.levels import EMPTY, LAVA, MOSS, WALL, CaveLevel

CODES = (EMPTY, WALL, LAVA, MOSS)
LAYOUT_WEIGHT, NODE_WEIGHT = 0.04, 0.013  # of the reconstruction's parts: per cell, and of goal and start
IMPOSSIBLE = -1e9  # finite, so that gradients are


class Logits(NamedTuple):
    """What a decoder says of levels: unnormalised log-probabilities of every cell's code, and of goal and start nodes."""

    layout: Float[Array, "*level node 4"]
    goal: Float[Array, "*level node"]
    start: Float[Array, "*level node"]


class LevelVAE(nn.Module):
    """Encoder and decoder.

    `batch_stats` are the running statistics of batch normalisation: with `train` they are updated, else used.

    Attributes:
      num_nodes: cells of a level.
      latent_size: of the code.
      encoder_sizes: layers between the graph network and the code; the last is also the size of the decoder's two layers.
      width, depth: features per cell and layers of message passing.
    """

    num_nodes: int
    latent_size: int = 1024
    encoder_sizes: tuple[int, ...] = (2048, 256)
    width: int = 12
    depth: int = 3

    def setup(self) -> None:
        self.encoder = Encoder(self.latent_size, self.encoder_sizes, self.width, self.depth)
        self.decoder = Decoder(self.num_nodes, self.encoder_sizes[-1])

    def encode(self, levels: CaveLevel, train: bool = False) -> tuple[Float[Array, "level code"], Float[Array, "level code"]]:
        """Mean and standard deviation of q(z | level)."""
        return self.encoder(levels, train)

    def decode(self, codes: Float[Array, "level code"], train: bool = False) -> Logits:
        """p(level | z)."""
        return self.decoder(codes, train)

    def __call__(self, levels: CaveLevel, noise: Float[Array, "level code"], train: bool) -> tuple[Logits, Array, Array]:
        mean, deviation = self.encode(levels, train)
        return self.decode(mean + deviation * noise, train), mean, deviation


class Encoder(nn.Module):
    """Levels to mean and standard deviation of their codes; features of all depths, not pooled."""

    latent_size: int
    sizes: tuple[int, ...]
    width: int
    depth: int

    @nn.compact
    def __call__(self, levels: CaveLevel, train: bool) -> tuple[Float[Array, "level code"], Float[Array, "level code"]]:
        rectify = lambda x: nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        ground = is_ground(levels.layout)
        h = cell_features(levels)
        layers = [h]
        for _ in range(self.depth):
            epsilon = self.param(f"epsilon_{len(layers)}", nn.initializers.zeros, ())
            h = (1.0 + epsilon) * h + sum_of_neighbours(h, ground)
            h = rectify(nn.Dense(self.width, use_bias=False)(h))
            h = rectify(rectify(nn.Dense(self.width, use_bias=False)(h)))
            layers.append(h)
        x = jnp.concatenate(layers, axis=-1).reshape(h.shape[0], -1)
        for size in self.sizes:
            x = rectify(nn.Dense(size)(x))
        return nn.Dense(self.latent_size)(x), nn.softplus(nn.Dense(self.latent_size)(x))


class Decoder(nn.Module):
    """Codes to logits: two hidden layers and a head for each part of a level."""

    num_nodes: int
    size: int

    @nn.compact
    def __call__(self, codes: Float[Array, "level code"], train: bool) -> Logits:
        x = nn.Dense(self.size)(codes)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(nn.Dense(self.size)(x)))
        layout = nn.Dense(self.num_nodes * len(CODES))(x).reshape(-1, self.num_nodes, len(CODES))
        return Logits(layout, nn.Dense(self.num_nodes)(x), nn.Dense(self.num_nodes)(x))


def is_ground(layout: Int[Array, "*level height width"]) -> Bool[Array, "*level height width"]:
    """Where one can walk."""
    return (layout == EMPTY) | (layout == MOSS)


def cell_features(levels: CaveLevel) -> Float[Array, "level height width 6"]:
    """One-hot codes, and whether it is the goal, or the start."""
    shape = levels.layout.shape
    at = lambda node: jax.nn.one_hot(node, shape[1] * shape[2]).reshape(shape)
    one_hot = jax.nn.one_hot(levels.layout, len(CODES))
    return jnp.concatenate([one_hot, at(levels.goal)[..., None], at(levels.start)[..., None]], axis=-1)


def sum_of_neighbours(
    h: Float[Array, "level height width feature"], ground: Bool[Array, "level height width"]
) -> Float[Array, "level height width feature"]:
    """Sums features over the up to four neighbours of the same kind, ground or not."""
    height, width = ground.shape[1:]
    kind = jnp.pad(ground.astype(jnp.int8), ((0, 0), (1, 1), (1, 1)), constant_values=-1)
    padded = jnp.pad(h, ((0, 0), (1, 1), (1, 1), (0, 0)))
    total = jnp.zeros_like(h)
    for row, column in ((0, 1), (2, 1), (1, 0), (1, 2)):
        window = (slice(None), slice(row, row + height), slice(column, column + width))
        total += jnp.where((kind[window] == ground)[..., None], padded[window], 0.0)
    return total


# --- Training -----------------------------------------------------------------------------------------------------------


def reconstruction_log_prob(logits: Logits, levels: CaveLevel) -> dict[str, Float[Array, " level"]]:
    """log p of each part: `layout` is the mean over cells; `goal` and `start` among the cells where they can be.

    Goal and start can be on ground, the start not on the goal. At both, the layout's target is half empty and half moss.
    """
    number = levels.layout.shape[0]
    nodes = jnp.arange(logits.goal.shape[-1])
    layout = levels.layout.reshape(number, -1)
    is_goal, is_start = nodes == levels.goal[:, None], nodes == levels.start[:, None]
    can_hold = is_ground(layout) | is_goal | is_start
    half = 0.5 * (jax.nn.one_hot(EMPTY, len(CODES)) + jax.nn.one_hot(MOSS, len(CODES)))
    target = jnp.where((is_goal | is_start)[..., None], half, jax.nn.one_hot(layout, len(CODES)))

    def log_prob_of(logits: Array, possible: Array, node: Array) -> Array:
        log_prob = jax.nn.log_softmax(jnp.where(possible, logits, IMPOSSIBLE))
        return jnp.take_along_axis(log_prob, node[:, None], axis=-1)[:, 0]

    return {
        "layout": (target * jax.nn.log_softmax(logits.layout)).sum(-1).mean(-1),
        "goal": log_prob_of(logits.goal, can_hold, levels.goal),
        "start": log_prob_of(logits.start, can_hold & ~is_goal, levels.start),
    }


def vae_loss(
    logits: Logits,
    mean: Float[Array, "level code"],
    deviation: Float[Array, "level code"],
    levels: CaveLevel,
    kl_coefficient: ScalarLike,
) -> Float[Array, ""]:
    """-(0.04 log p(layout) + 0.013 log p(goal) + 0.013 log p(start)) + kl_coefficient * KL, mean over levels.

    KL is that of q from N(0, 1), as in the authors' code the mean over the code's entries, not their sum: with the sum, at
    these weights, the code would stay empty.
    """
    log_prob = reconstruction_log_prob(logits, levels)
    kl = 0.5 * (jnp.square(mean) + jnp.square(deviation) - 1.0 - 2.0 * jnp.log(deviation + 1e-8)).mean(-1)
    likelihood = LAYOUT_WEIGHT * log_prob["layout"] + NODE_WEIGHT * (log_prob["goal"] + log_prob["start"])
    return (kl_coefficient * kl - likelihood).mean()


def train_vae(
    key: jax.Array,
    vae: LevelVAE,
    levels: CaveLevel,
    num_epochs: int = 200,
    batch_size: int = 64,
    learning_rate: ScalarLike = 3.976e-4,
    kl_coefficient: ScalarLike = 0.0448,
) -> tuple[PyTree, Float[Array, " step"]]:
    """Fits a VAE to levels with Adam, in one scan; the rest of every epoch that fills no batch is left out.

    Args:
      levels: stacked.
      batch_size: at most the number of levels is used.

    Returns:
      The variables (`params` and `batch_stats`), and the loss at every step.
    """
    number = levels.layout.shape[0]
    batch_size = min(batch_size, number)
    init_key, order_key, noise_key = jax.random.split(key, 3)
    optimizer = optax.adam(learning_rate)
    noise_of = lambda key: jax.random.normal(key, (batch_size, vae.latent_size))
    batch_of = lambda indices: jax.tree.map(lambda x: x[indices], levels)
    variables = vae.init(init_key, batch_of(jnp.arange(batch_size)), noise_of(noise_key), True)
    params, statistics = variables["params"], variables["batch_stats"]

    def step(carry: tuple, x: tuple[Array, Array]) -> tuple[tuple, Array]:
        (params, statistics, optimizer_state), (indices, key) = carry, x
        batch = batch_of(indices)

        def loss(params: PyTree) -> tuple[Array, PyTree]:
            variables = {"params": params, "batch_stats": statistics}
            outputs, changed = vae.apply(variables, batch, noise_of(key), True, mutable=["batch_stats"])
            logits, mean, deviation = outputs
            return vae_loss(logits, mean, deviation, batch, kl_coefficient), changed["batch_stats"]

        (value, statistics), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        params, optimizer_state = descend(optimizer, gradient, params, optimizer_state)
        return (params, statistics, optimizer_state), value

    steps = number // batch_size
    orders = jax.vmap(lambda key: jax.random.permutation(key, number))(jax.random.split(order_key, num_epochs))
    indices = orders[:, : steps * batch_size].reshape(num_epochs * steps, batch_size)
    start = (params, statistics, optimizer.init(params))
    (params, statistics, _), losses = jax.lax.scan(step, start, (indices, jax.random.split(noise_key, len(indices))))
    return {"params": params, "batch_stats": statistics}, losses


# --- Generation ---------------------------------------------------------------------------------------------------------


def slerp(a: Float[Array, " code"], b: Float[Array, " code"], share: ScalarLike) -> Float[Array, " code"]:
    """Spherical interpolation from a (share 0) to b (share 1); linear where they nearly point the same or opposite ways.

    Source: Shoemake 1985; the bound on the cosine, 0.955, is that of DRED's code.
    """
    cosine = (a @ b) / jnp.maximum(jnp.linalg.norm(a) * jnp.linalg.norm(b), 1e-12)
    is_straight = jnp.abs(cosine) > 0.955
    angle = jnp.arccos(jnp.where(is_straight, 0.0, cosine))
    on_sphere = (jnp.sin((1.0 - share) * angle) * a + jnp.sin(share * angle) * b) / jnp.sin(angle)
    return jnp.where(is_straight, (1.0 - share) * a + share * b, on_sphere)


def interpolate(
    key: jax.Array, means: Float[Array, "level code"], deviations: Float[Array, "level code"], num_pairs: int, num_points: int
) -> Float[Array, "{num_pairs}*{num_points} code"]:
    """Codes between pairs of different levels, both ends included: samples of Gaussians between their posteriors.

    Means are interpolated spherically, standard deviations linearly.
    """
    pair_key, noise_key = jax.random.split(key)
    pairs = jax.random.choice(pair_key, means.shape[0], (num_pairs, 2), replace=False)
    shares = jnp.linspace(0.0, 1.0, num_points)

    def between(pair: Int[Array, "2"]) -> tuple[Array, Array]:
        first, second = pair
        mean = jax.vmap(lambda share: slerp(means[first], means[second], share))(shares)
        return mean, (1.0 - shares[:, None]) * deviations[first] + shares[:, None] * deviations[second]

    mean, deviation = (x.reshape(num_pairs * num_points, -1) for x in jax.vmap(between)(pairs))
    return mean + deviation * jax.random.normal(noise_key, mean.shape)


def sample_level(key: jax.Array, logits: Logits, shape: tuple[int, int]) -> CaveLevel:
    """A level drawn from the logits of one: ground, what is on it and elsewhere, a goal on ground, a start on what is left.

    Ground is where it is more likely than not. Where none is left for goal or start, they go anywhere, and make it ground:
    start and goal always differ and can be stood upon.
    """
    layout_key, goal_key, start_key = jax.random.split(key, 3)
    probabilities = jax.nn.softmax(logits.layout)
    ground = probabilities[:, EMPTY] + probabilities[:, MOSS] > 0.5
    is_ground_code = jnp.isin(jnp.array(CODES), jnp.array([EMPTY, MOSS]))
    fits = ground[:, None] == is_ground_code
    layout = jax.random.categorical(layout_key, jnp.where(fits, logits.layout, IMPOSSIBLE)).astype(jnp.int8)

    def node_of(key: jax.Array, logits: Array, possible: Array, otherwise: Array) -> Int[Array, ""]:
        chosen = jnp.where(possible.any(), jnp.where(possible, logits, IMPOSSIBLE), jnp.where(otherwise, 0.0, IMPOSSIBLE))
        return jax.random.categorical(key, chosen).astype(jnp.int32)

    goal = node_of(goal_key, logits.goal, ground, jnp.ones_like(ground))
    elsewhere = jnp.arange(ground.size) != goal
    start = node_of(start_key, logits.start, ground & elsewhere, elsewhere)
    layout = layout.at[jnp.stack([goal, start])].set(EMPTY)
    return CaveLevel(layout.reshape(shape), goal, start)


def generate(
    key: jax.Array, vae: LevelVAE, variables: PyTree, codes: Float[Array, "level code"], shape: tuple[int, int]
) -> CaveLevel:
    """Decodes codes to levels, stacked; batch normalisation uses its running statistics.

    Args:
      variables: of `train_vae`; those of the decoder are enough.
    """
    logits: Any = vae.apply(variables, codes, method=LevelVAE.decode)
    return jax.vmap(lambda key, logits: sample_level(key, logits, shape))(jax.random.split(key, codes.shape[0]), logits)
