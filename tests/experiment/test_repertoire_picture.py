"""Pictures of repertoires: the cells tile the plane, and colours are fitnesses."""

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.collections import PolyCollection

import jaxpg_envs
from jaxpg.algorithm import InputError
from jaxpg.algorithms.quality_diversity.generations import QualityDiversityState
from jaxpg.algorithms.quality_diversity.repertoire import Repertoire, unit_centroids
from jaxpg.experiment import plot_repertoires
from jaxpg.experiment.pictures import draw_repertoire

LOW, HIGH = np.array([-2.0, 10.0]), np.array([4.0, 20.0])


def repertoire(num_cells=32):
    centroids = LOW + (unit_centroids(num_cells, 2) + 1) * (HIGH - LOW) / 2
    fitnesses = jnp.where(jnp.arange(num_cells) % 4 == 0, -jnp.inf, jnp.arange(num_cells, dtype=jnp.float32))
    return Repertoire((), fitnesses, jnp.zeros((num_cells, 2)), jnp.asarray(centroids))


def area(corners):
    x, y = corners.T
    return 0.5 * abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))


def test_cells_tile_the_plane_around_their_centroids_and_show_fitness():
    shown = repertoire()
    figure = plot_repertoires({"a": shown, "b": shown}, LOW, HIGH)
    (axes, other, _) = figure.axes
    (cells,) = (artist for artist in axes.collections if isinstance(artist, PolyCollection))
    corners = [path.vertices[:-1] for path in cells.get_paths()]
    np.testing.assert_allclose(sum(map(area, corners)), 6 * 10, rtol=1e-6)
    for polygon, centroid, path in zip(corners, shown.centroids, cells.get_paths(), strict=True):
        assert path.contains_point(centroid)
        assert (polygon >= LOW - 1e-6).all()
        assert (polygon <= HIGH + 1e-6).all()
    np.testing.assert_array_equal(np.ma.getmaskarray(cells.get_array()), ~np.asarray(shown.filled))
    assert cells.get_clim() == (1.0, 31.0)
    assert "75% filled" in axes.get_title(loc="left")
    assert other.get_title(loc="left").startswith("b")


def test_what_cannot_be_drawn_is_refused(tmp_path):
    with pytest.raises(InputError, match="over two descriptors, this one has 3"):
        plot_repertoires({"a": repertoire()}, np.zeros(3), np.ones(3))
    with pytest.raises(InputError, match="no repertoires"):
        plot_repertoires({}, LOW, HIGH)


def test_a_run_s_picture_is_drawn_where_there_is_a_plane(tmp_path):
    env, params = jaxpg_envs.make("PlanarArm-v0")
    state = QualityDiversityState((), repertoire(), (), jnp.int32(1))
    assert draw_repertoire(state, env, params, tmp_path) == [tmp_path / "repertoire.png"]
    assert (tmp_path / "repertoire.png").stat().st_size > 1_000
    line = repertoire()._replace(centroids=jnp.zeros((32, 1)))
    assert draw_repertoire(state._replace(repertoire=line), env, params, tmp_path) == []
    assert draw_repertoire((), env, params, tmp_path) == []


def test_axes_say_what_the_descriptors_are(tmp_path):
    env, params = jaxpg_envs.make("PointOmni-v0")
    figure = plot_repertoires({"a": repertoire()}, LOW, HIGH, names=env.descriptor_names(params), caption="me_es, seed 1")
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("final x (m)", "final y (m)")
    assert figure.get_suptitle() == "me_es, seed 1"
    assert min(figure.get_size_inches()) >= 6
    foreign = plot_repertoires({"a": repertoire()}, LOW, HIGH).axes[0]
    assert (foreign.get_xlabel(), foreign.get_ylabel()) == ("descriptor 1", "descriptor 2")


@pytest.mark.parametrize("name", ["PointOmni-v0", "TrapOmni-v0", "PlanarArm-v0"])
def test_there_is_a_name_for_each_descriptor(name):
    env, params = jaxpg_envs.make(name)
    assert len(set(env.descriptor_names(params))) == len(env.descriptor_bounds(params)[0])
