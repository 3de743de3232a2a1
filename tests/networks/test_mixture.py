"""The Gaussian mixture against brute force, closed forms and large samples."""

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import assert_close, assert_same, quick_jit

from jaxpg.networks import GaussianMixture, GaussianMixtureActor

KEY = jax.random.key(0)
WEIGHTS = np.array([0.5, 0.2, 0.3])
MEANS = np.array([[-3.0, 0.0], [0.5, 4.0], [3.0, -1.0]])
SCALES = np.array([[0.3, 1.0], [0.5, 0.2], [1.0, 0.4]])
LOGITS = np.log(WEIGHTS) + 1.7  # unnormalised


def mixture(logits=LOGITS, means=MEANS, scales=SCALES):
    return GaussianMixture(*(jnp.asarray(x, jnp.float32) for x in (logits, means, scales)))


def densities(actions):
    """w_k N(a; mu_k, sigma_k), shape (sample, expert), in float64."""
    z = (actions[:, None] - MEANS) / SCALES
    return WEIGHTS * np.prod(np.exp(-0.5 * z**2) / (SCALES * np.sqrt(2 * np.pi)), axis=-1)


@pytest.fixture(scope="module")
def samples():
    return np.asarray(quick_jit(lambda key: mixture().sample(seed=key, sample_shape=200_000))(KEY), np.float64)


def expert_of(samples):
    return densities(samples).argmax(1)  # the experts lie far enough apart


def test_density_and_responsibilities_are_brute_force():
    actions = np.random.default_rng(0).normal(0, 2, (50, 2))
    each = densities(actions)

    @quick_jit
    def of(actions):
        batched = mixture(*(np.broadcast_to(x, (50, *x.shape)) for x in (LOGITS, MEANS, SCALES)))
        return batched.log_prob(actions), batched.responsibilities(actions), batched.weights

    log_density, responsibilities, weights = of(jnp.asarray(actions, jnp.float32))
    np.testing.assert_allclose(log_density, np.log(each.sum(1)), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(responsibilities, each / each.sum(1, keepdims=True), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(weights, np.broadcast_to(WEIGHTS, (50, 3)), rtol=1e-5)


def test_density_far_away_does_not_underflow():
    """exp(log-density) is zero in float32 and in float64; the nearest expert decides."""
    action = jnp.array([500.0, 0.0])
    of_logits = quick_jit(jax.value_and_grad(lambda logits: mixture(logits).log_prob(action)))
    log_density, gradient = of_logits(jnp.asarray(LOGITS, jnp.float32))
    expert = 2
    z = (np.asarray(action) - MEANS[expert]) / SCALES[expert]
    expected = np.log(WEIGHTS[expert]) - 0.5 * (z**2).sum() - np.log(SCALES[expert]).sum() - np.log(2 * np.pi)
    np.testing.assert_allclose(log_density, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, np.eye(3)[expert] - WEIGHTS, atol=1e-5)  # responsibility - weight
    np.testing.assert_array_equal(mixture().responsibilities(action), np.eye(3)[expert])


def test_samples_have_the_closed_form_moments(samples):
    mean = WEIGHTS @ MEANS
    second = np.einsum("k,ki,kj->ij", WEIGHTS, MEANS, MEANS) + np.diag(WEIGHTS @ SCALES**2)
    np.testing.assert_allclose(samples.mean(0), mean, atol=0.03)
    np.testing.assert_allclose(np.cov(samples.T), second - np.outer(mean, mean), atol=0.05)
    np.testing.assert_allclose(mixture().mean(), mean, rtol=1e-5)
    np.testing.assert_allclose(mixture().variance(), np.diag(second - np.outer(mean, mean)), rtol=1e-5)


def test_samples_visit_experts_by_weight(samples):
    expert = expert_of(samples)
    np.testing.assert_allclose(np.bincount(expert) / len(expert), WEIGHTS, atol=0.005)
    for k in range(3):
        np.testing.assert_allclose(samples[expert == k].mean(0), MEANS[k], atol=0.02)
        np.testing.assert_allclose(samples[expert == k].std(0), SCALES[k], rtol=0.02)


@pytest.mark.parametrize("way", ["many of one key", "one of each key"])
def test_the_noise_does_not_depend_on_the_expert(samples, way):
    """Nor do its coordinates on one another. Drawing index and noise from the same bits ties the first row of a key."""
    if way == "one of each key":
        keys = jax.random.split(KEY, 200_000)
        samples = np.asarray(quick_jit(jax.vmap(lambda key: mixture().sample(seed=key)))(keys), np.float64)
    expert = expert_of(samples)
    noise = (samples - MEANS[expert]) / SCALES[expert]
    table = np.stack([*noise.T, *np.square(noise).T, *(expert == np.arange(3)[:, None])]).astype(float)
    correlations = np.corrcoef(table)
    np.testing.assert_allclose(correlations[:4, 4:], 0.0, atol=0.01)  # four standard errors are 0.009
    np.testing.assert_allclose(correlations[0, 1], 0.0, atol=0.01)


def test_rows_of_a_batch_draw_their_own_experts():
    @quick_jit
    def draw(key):
        batched = mixture(*(np.broadcast_to(x, (4000, *x.shape)) for x in (LOGITS, MEANS, SCALES)))
        return batched.sample(seed=key), batched.sample_expert_mean(key)

    sampled, drawn = (np.asarray(x, np.float64) for x in draw(KEY))
    expert = expert_of(sampled)
    np.testing.assert_allclose(np.bincount(expert) / 4000, WEIGHTS, atol=0.04)
    index = np.abs(drawn[:, None] - MEANS).sum(-1).argmin(1)
    np.testing.assert_allclose(drawn, MEANS[index], rtol=1e-6)
    np.testing.assert_allclose(np.bincount(index) / 4000, WEIGHTS, atol=0.04)


def test_sampling_gives_the_density_of_the_whole_mixture():
    actions, log_density = quick_jit(lambda key: mixture().sample_and_log_prob(seed=key, sample_shape=9))(KEY)
    np.testing.assert_allclose(log_density, np.log(densities(np.asarray(actions)).sum(1)), rtol=1e-4, atol=1e-4)


def test_mode_is_the_mean_of_the_likeliest_expert():
    np.testing.assert_allclose(mixture().mode(), MEANS[0])
    logits = np.stack([LOGITS, np.array([0.0, 5.0, 1.0])])
    both = mixture(logits, *(np.broadcast_to(x, (2, *x.shape)) for x in (MEANS, SCALES)))
    np.testing.assert_allclose(both.mode(), MEANS[[0, 1]])


def gaussian_entropy(scales):
    return np.log(scales).sum(-1) + scales.shape[-1] / 2 * np.log(2 * np.pi * np.e)


def test_entropy_is_exact_far_apart_and_for_one_expert(samples):
    far_apart = WEIGHTS @ (gaussian_entropy(SCALES) - np.log(WEIGHTS))
    np.testing.assert_allclose(mixture().entropy(), far_apart, rtol=1e-5)
    sampled = -np.log(densities(samples).sum(1)).mean()
    np.testing.assert_allclose(mixture().entropy(), sampled, atol=0.05)
    one = mixture([3.0], MEANS[:1], SCALES[:1])
    np.testing.assert_allclose(one.entropy(), gaussian_entropy(SCALES[0]), rtol=1e-5)


@pytest.mark.parametrize("spread", [0.0, 0.1, 0.25])
def test_entropy_is_an_upper_bound_where_experts_overlap(spread):
    overlapping = mixture(LOGITS, spread * MEANS, SCALES)
    sample = lambda key: overlapping.sample_and_log_prob(seed=key, sample_shape=20_000)[1]
    sampled = -np.asarray(quick_jit(sample)(KEY)).mean()
    assert overlapping.entropy() > sampled + 0.05


def test_one_expert_is_the_gaussian_and_draws_its_samples():
    def both(key):
        gaussian = distrax.MultivariateNormalDiag(jnp.full((4, 2), 0.3), jnp.full((4, 2), 0.7))
        one = mixture(np.zeros((4, 1)), np.full((4, 1, 2), 0.3), np.full((4, 1, 2), 0.7))
        action = one.sample(seed=key)
        of = lambda policy: (policy.sample(seed=key), policy.log_prob(action), policy.entropy(), policy.mode())
        return of(one), of(gaussian), one.responsibilities(action)

    one, gaussian, responsibilities = quick_jit(both)(KEY)
    assert_close(one, gaussian)
    np.testing.assert_array_equal(responsibilities, 1.0)


@pytest.mark.parametrize("axes", [(), (1,), (5, 2)])
@pytest.mark.parametrize("experts", [1, 3])
@pytest.mark.parametrize("size", [1, 2])
def test_no_axis_is_lost(axes, experts, size):
    actor = GaussianMixtureActor(experts, size, (8,))

    def apply(key, x):
        policy = actor.apply(actor.init(key, jnp.zeros(4)), x)
        action = policy.sample(seed=key)
        per_expert = policy.weights, policy.logits, policy.responsibilities(action), policy.means[..., 0]
        per_row = policy.log_prob(action), policy.entropy()
        return (
            (action, policy.mode(), policy.sample_expert_mean(key)),
            per_expert,
            per_row,
            policy.sample(seed=key, sample_shape=7),
        )

    actions, per_expert, per_row, many = jax.eval_shape(apply, KEY, jnp.zeros((*axes, 4)))
    assert [x.shape for x in actions] == [(*axes, size)] * 3
    assert [x.shape for x in per_expert] == [(*axes, experts)] * 4
    assert [x.shape for x in per_row] == [axes] * 2
    assert many.shape == (7, *axes, size)


def test_actor_starts_with_equal_experts_and_routes_by_the_observation():
    actor = GaussianMixtureActor(3, 2, (8,))
    x = jax.random.normal(KEY, (6, 4))
    params = quick_jit(actor.init)(KEY, x[0])
    assert set(params["params"]) == {"MLP_0", "log_std", "routing"}
    assert params["params"]["routing"]["kernel"].shape == (4, 3)  # of the observation

    @quick_jit
    def parts(params):
        policy = actor.apply(params, x)
        return policy.weights, policy.logits, policy.means, policy.scales

    weights, logits, means, scales = parts(params)
    np.testing.assert_allclose(weights.sum(-1), 1.0, rtol=1e-6)
    assert np.abs(means).max() < 0.05
    np.testing.assert_array_equal(scales, 1.0)
    other = {
        "log_std": jnp.log(jnp.arange(1.0, 7.0).reshape(3, 2)),
        "MLP_0": jax.tree.map(jnp.zeros_like, params["params"]["MLP_0"]),
    }
    _, without_trunk, _, scales = parts({"params": params["params"] | other})
    np.testing.assert_allclose(scales, np.broadcast_to(np.arange(1.0, 7.0).reshape(3, 2), (6, 3, 2)), rtol=1e-6)
    assert_same(without_trunk, logits)
