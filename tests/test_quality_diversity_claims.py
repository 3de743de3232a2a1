"""Claims of the quality-diversity benchmarks: both accountings, the order in words, and nulls that know nothing."""

import math
import re

import numpy as np
import pytest

from benchmarks import _quality_diversity, ant_omni, cma_me, dcg_map_elites
from benchmarks._claims import at_least, at_most
from benchmarks._quality_diversity import (
    ABLATIONS,
    DCG,
    MAP_ELITES,
    PGA,
    Method,
    Outcome,
    Protocol,
    compare,
    distilled,
    in_words,
    table,
)

CURVE = np.array([1.0, 2.0, 4.0, 8.0])  # at a quarter, half, three quarters and all of a run


def outcome(final, steps=100, curve=CURVE, **measures):
    """Five seeds of nearly the final score."""
    seeds = final * np.array([0.99, 0.995, 1.0, 1.005, 1.01])
    curves = seeds[:, None] * curve / curve[-1]
    measures = {name: value * np.ones(5) for name, value in measures.items()}
    both = {"qd_score": seeds, "coverage": seeds}
    return Outcome(both | measures, dict.fromkeys(both, curves), steps * np.array([0.25, 0.5, 0.75, 1.0]), None, 1.0)


def verdicts(found, least=1.1):
    comparison = compare("a task", table(found), "qd_score", DCG, PGA, at_least(least))
    return {row["claim"].partition("MAP-Elites, ")[2]: row["verdict"] for row in comparison}, in_words(comparison)


def test_who_runs_twice_the_steps_is_compared_half_way_too():
    """8 to 4 at the end, 2 to 4 half way; a point later than the shorter run's end does not count."""
    found = {DCG.name: outcome(8, 200), PGA.name: outcome(4, 100)}
    by_both, words = verdicts(found)
    assert by_both == {"at equal evaluations": "holds", "at equal environment steps": "fails"}
    assert words.startswith(
        "a task: QD-score, DCG-MAP-Elites to PGA-MAP-Elites: the order reverses: more at equal evaluations (2; "
    )
    assert "less at equal environment steps (0.5; " in words
    rows = table({DCG.name: outcome(8, 200), PGA.name: outcome(4, 149)})
    early = [row["measured"] for row in compare("", rows, "qd_score", DCG, PGA)]
    np.testing.assert_allclose(early, [2, 0.5], rtol=1e-6)


def test_equal_steps_are_compared_once_and_ties_do_not_hold():
    tie, words = verdicts({DCG.name: outcome(4), PGA.name: outcome(4)}, least=1)
    assert tie == {"at equal evaluations and environment steps": "open"}
    assert "the order is open: open at equal evaluations and environment steps (1; 0.9" in words
    more, words = verdicts({DCG.name: outcome(5), PGA.name: outcome(4)})
    assert more == {"at equal evaluations and environment steps": "holds"}
    assert "the order is the same: more" in words
    late = np.array([1.0, 4.0, 4.0, 8.0])
    half_open, words = verdicts({DCG.name: outcome(8, 200, late), PGA.name: outcome(4, 100)})
    assert list(half_open.values()) == ["holds", "fails"]
    assert "the order is open: more at equal evaluations" in words


def test_what_needs_no_gradients_is_the_null():
    found = {DCG.name: outcome(8), PGA.name: outcome(4), MAP_ELITES.name: outcome(7)}
    (row,) = compare("", table(found), "qd_score", DCG, PGA, at_least(1.5), MAP_ELITES)
    assert row["verdict"] == "open"
    np.testing.assert_allclose(row["null"], [1.75, 1.75], rtol=0.05)
    (row,) = compare("", table(found | {MAP_ELITES.name: outcome(5)}), "qd_score", DCG, PGA, at_least(1.5), MAP_ELITES)
    assert row["verdict"] == "holds"


def test_an_actor_that_is_told_nothing_is_the_null_of_the_distilled():
    """It earns as much wherever it is, and is far from where it was to go."""

    def judged(**measures):
        found = {DCG.name: outcome(10, **{f"rerun_{name}": value for name, value in measures.items()})}
        rows = distilled("a task", table(found), ("qd_score", "descriptor_error"), 0.8, at_most(2))
        return {re.sub("a task: |distilled actor told ", "", row["claim"]): row["verdict"] for row in rows}

    told = {
        "actor_qd_score": 9,
        "actor_descriptor_error": 1,
        "centroid_actor_qd_score": 7,
        "centroid_actor_descriptor_error": 3,
    }
    texts = ("QD-score, descriptors, to repertoire", "descriptor error, descriptors")
    texts += ("QD-score, centroids, to repertoire", "descriptor error, centroids")
    lost = judged(**told, untold_actor_qd_score=1, untold_actor_descriptor_error=20)
    assert lost == dict(zip(texts, ("holds", "holds", "fails", "fails"), strict=True))
    still = judged(**told, untold_actor_qd_score=9, untold_actor_descriptor_error=1.5)
    assert still == dict(zip(texts, ("open", "open", "fails", "fails"), strict=True))


@pytest.mark.parametrize("size", ["smoke", "small", "full"])
@pytest.mark.parametrize("benchmark", [dcg_map_elites, ant_omni, cma_me])
def test_every_claim_is_made_by_both_accountings(benchmark, size, monkeypatch):
    """Of outcomes that no run has made: DCG and its third ablation take twice the steps, ME-ES a little less."""

    def made_up(method: Method, protocol: Protocol, num_seeds: int) -> Outcome:
        runs_actor = method.algorithm == "dcg_map_elites" and method not in ABLATIONS[:2]
        steps = {"me_es": 63}.get(method.algorithm, 64) * protocol.generations * (1 + runs_actor)
        told = [f"{actor}actor_{name}" for actor in ("", "centroid_", "untold_") for name in measured]
        return outcome(8, steps, **{f"rerun_{name}": 1.0 for name in told})

    measured = ("qd_score", "corrected_qd_score", "descriptor_error", "descriptor_error_in_cells")
    without_interval = lambda statistic, *samples: (float(statistic(*samples, axis=0)), None)
    monkeypatch.setattr(_quality_diversity, "estimate", without_interval)
    monkeypatch.setattr(_quality_diversity, "null_of", lambda *arguments: without_interval(*arguments)[0])
    monkeypatch.setattr(benchmark, "learn", made_up)
    monkeypatch.setattr(benchmark, "picture", lambda *_: None)
    results, _ = benchmark.run(size, 5)
    claims = benchmark.claims(size, results)
    assert all(row["null"] is not None for row in claims)
    texts = [row["claim"] for row in claims]
    assert len({*texts}) == len(texts)
    compared = {text.rpartition(", at equal ")[0] for text in texts if "distilled" not in text}
    for head in compared:
        accountings = {text.removeprefix(f"{head}, ") for text in texts if text.startswith(f"{head}, at equal ")}
        once = re.search("CMA-ME to|DCG-MAP-Elites to DCG, ablation 3", head)
        assert len(accountings) == (1 if once else 2), head
        assert once or any(words.startswith(f"{head}: the order ") for words in results["order"])
    if benchmark is not cma_me:
        assert len(results["order"]) == len(compared)
        for task in [ant_omni.TASK] if benchmark is ant_omni else [x.name for x in benchmark.PROTOCOLS[size]]:
            rivals = {f"{task}: QD-score, DCG-MAP-Elites to {method.name}" for method in (PGA, MAP_ELITES)}
            assert rivals <= compared
    assert not any("PGA-MAP-Elites to" in head for head in compared)
    assert all(math.isfinite(row["measured"]) for row in claims)
