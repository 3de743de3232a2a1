"""The repertoire of MAP-Elites: the fittest genotype that was found for each cell of the space of descriptors.

The cells are the Voronoi cells of fixed centroids (Vassiliades et al. 2018, arXiv 1610.05729).
"""

from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

SAMPLES_PER_CELL, MOST_SAMPLES, ITERATIONS = 50, 50_000, 10  # of k-means


class Repertoire(NamedTuple):
    """One row per cell; descriptors and centroids in the task's units.

    Attributes:
      genotypes: leaves (cell, ...); of empty cells anything.
      fitnesses: -inf for an empty cell.
      descriptors: what the genotypes achieved.
    """

    genotypes: PyTree[Array]
    fitnesses: Float[Array, " cell"]
    descriptors: Float[Array, "cell descriptor"]
    centroids: Float[Array, "cell descriptor"]

    @property
    def filled(self) -> Bool[Array, " cell"]:
        """Which cells hold a genotype."""
        return self.fitnesses > -jnp.inf


@lru_cache
def unit_centroids(num_cells: int, dimension: int) -> Float[np.ndarray, "cell descriptor"]:
    """Centroids of a Voronoi tessellation of [-1, 1]^dimension into cells of about equal size.

    They are the means of clusters (k-means, started by k-means++) of uniform samples, 50,000 as in the paper's code, fewer
    for few cells. The same at every call.
    """
    from scipy.cluster.vq import kmeans2  # here, because it takes a tenth of a second, and every import of jaxpg would

    rng = np.random.default_rng(0)
    samples = rng.uniform(-1.0, 1.0, (max(min(SAMPLES_PER_CELL * num_cells, MOST_SAMPLES), num_cells), dimension))
    # k-means++ by hand: scipy's own measures every distance anew for each centroid, a minute for 1024.
    chosen = [samples[0]]
    distance = np.square(samples - chosen[0]).sum(1)
    for _ in range(num_cells - 1):
        total = np.cumsum(distance)
        chosen.append(samples[np.searchsorted(total, rng.random() * total[-1])])
        distance = np.minimum(distance, np.square(samples - chosen[-1]).sum(1))
    centroids, _ = kmeans2(samples, np.stack(chosen), iter=ITERATIONS, minit="matrix", missing="raise")
    return centroids.astype(np.float32)


def init_repertoire(genotypes: PyTree[Array], centroids: Float[Array, "cell descriptor"]) -> Repertoire:
    """An empty repertoire; `genotypes`, leaves (cell, ...), only give shapes."""
    return Repertoire(genotypes, jnp.full(len(centroids), -jnp.inf), jnp.zeros_like(centroids), centroids)


def nearest(
    centroids: Float[Array, "cell descriptor"], descriptors: Float[Array, "offspring descriptor"]
) -> Int[Array, " offspring"]:
    """The cell of each descriptor: that of the nearest centroid, of equally near ones the first."""

    def cell(descriptor: Float[Array, " descriptor"]) -> Int[Array, ""]:
        distances = sum(jnp.square(x - c) for x, c in zip(descriptor, centroids.T, strict=True))
        # An argmin that XLA vectorises on CPUs, on pieces that stay in the cache: 18 times as fast as `jnp.argmin` of all.
        return jnp.where(distances == distances.min(), jnp.arange(len(centroids)), len(centroids)).min()

    return jax.lax.map(cell, descriptors, batch_size=128)


def acceptable(
    fitnesses: Float[Array, " offspring"], descriptors: Float[Array, "offspring descriptor"]
) -> Bool[Array, " offspring"]:
    """Who has a finite fitness and a finite descriptor: nobody else becomes an elite."""
    return jnp.isfinite(fitnesses) & jnp.isfinite(descriptors).all(1)


def add(
    repertoire: Repertoire,
    genotypes: PyTree[Array],
    fitnesses: Float[Array, " offspring"],
    descriptors: Float[Array, "offspring descriptor"],
) -> tuple[Repertoire, Bool[Array, " offspring"]]:
    """Puts each offspring into its cell if it is fitter than what is there, and says which got in.

    Of several for one cell the fittest gets in, of equally fit ones the first, whole. Who is not `acceptable` does not.
    """
    num_cells, number = len(repertoire.fitnesses), len(fitnesses)
    fitnesses = jnp.where(acceptable(fitnesses, descriptors), fitnesses, -jnp.inf)
    cells = nearest(repertoire.centroids, descriptors)
    best = jax.ops.segment_max(fitnesses, cells, num_cells)[cells]
    candidate = (fitnesses == best) & (fitnesses > repertoire.fitnesses[cells])
    # One writer to each cell: of two, some leaves of one and some of the other could stay.
    place = jnp.arange(number)
    first = jax.ops.segment_min(jnp.where(candidate, place, number), cells, num_cells)[cells]
    added = candidate & (place == first)
    target = jnp.where(added, cells, num_cells)
    put = lambda old, new: old.at[target].set(new, mode="drop")
    new = Repertoire(
        jax.tree.map(put, repertoire.genotypes, genotypes),
        put(repertoire.fitnesses, fitnesses),
        put(repertoire.descriptors, descriptors),
        repertoire.centroids,
    )
    return new, added


def sample(key: jax.Array, repertoire: Repertoire, number: int) -> Int[Array, " {number}"]:
    """Filled cells, uniformly and with replacement."""
    ranks = jnp.cumsum(repertoire.filled)
    return jnp.searchsorted(ranks, jax.random.randint(key, (number,), 0, ranks[-1]) + 1)


def genotypes_at(repertoire: Repertoire, cells: Int[Array, "*number"]) -> PyTree[Array]:
    """The genotypes of these cells, leaves (*number, ...)."""
    return jax.tree.map(lambda x: x[cells], repertoire.genotypes)


def score(repertoire: Repertoire) -> dict[str, Float[Array, ""]]:
    """`qd_score`, the sum of the fitnesses; `coverage`, the share of filled cells; `max_fitness`.

    Source: Pugh et al. 2016, "Quality diversity: a new frontier for evolutionary computation".
    """
    filled = repertoire.filled
    return {
        "qd_score": jnp.where(filled, repertoire.fitnesses, 0.0).sum(),
        "coverage": filled.mean(),
        "max_fitness": repertoire.fitnesses.max(),
    }
