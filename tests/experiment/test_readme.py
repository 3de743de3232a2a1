"""The README says what the registry says."""

import jaxpg
from jaxpg.experiment.readme import README, systems_table, with_table


def test_the_table_of_systems_is_up_to_date():
    text = README.read_text()
    assert with_table(text) == text, "run: python -m jaxpg.experiment.readme"
    assert with_table(text.replace(systems_table(), "an old table")) == text


def test_every_registered_algorithm_has_a_row():
    rows = systems_table().splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == sorted(jaxpg.REGISTRY)
