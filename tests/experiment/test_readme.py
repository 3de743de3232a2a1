"""The README says what the registry and the benchmarks' results say."""

import json

import jaxpg
from jaxpg.experiment.readme import README, claims_of_systems, in_words, systems_table, with_table


def test_the_table_of_systems_is_up_to_date():
    text = README.read_text()
    assert with_table(text) == text, "run: python -m jaxpg.experiment.readme"
    assert with_table(text.replace(systems_table(), "an old table")) == text


def test_every_registered_algorithm_has_a_row():
    rows = systems_table().splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == sorted(jaxpg.REGISTRY)


def test_claims_are_counted_by_system_and_verdict(tmp_path):
    """Old results have `holds` alone; a benchmark that is no more, and one of size smoke, do not count."""
    claims = [
        {"claim": "dqn on CartPole-v1", "holds": True},
        {"claim": "sac on Pendulum-v1", "holds": False},
        {"claim": "sac on CartPole-v1", "holds": False, "verdict": "open"},
        {"claim": "sac_discrete on CartPole-v1", "holds": True, "verdict": "holds"},
    ]
    for name, size in (("off_policy", "small"), ("off_policy", "full"), ("off_policy", "smoke"), ("abandoned", "small")):
        (tmp_path / f"{name}-{size}.json").write_text(json.dumps({"name": name, "size": size, "claims": claims}))
    found = claims_of_systems(tmp_path)
    assert found == {
        "dqn": {"holds": {"off_policy": 2}},
        "sac": {"fails": {"off_policy": 2}, "open": {"off_policy": 2}},
        "sac_discrete": {"holds": {"off_policy": 2}},
    }
    assert in_words(found["sac"]) == "open: off_policy 2; fails: off_policy 2"
    assert in_words({}) == "none"
