"""Claims of the benchmarks: what holds, what is open and what fails, fed with nulls; and the results in the repository."""

import importlib
import json
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import __main__ as command
from benchmarks._claims import (
    Expected,
    above,
    above_all,
    at_least,
    at_most,
    below,
    claim,
    difference_of,
    estimate,
    judge,
    near,
    null_of,
    ratio_of,
)
from jaxpg import REGISTRY, InputError
from jaxpg.experiment.statistics import interquartile_mean

# --- One verdict at a time ----------------------------------------------------------------------------------------------

CASES = [
    # measured, interval, expected, null, verdict
    (480, (478, 490), at_least(475), 23, "holds"),
    (480, (470, 490), at_least(475), 23, "open"),  # the interval reaches back over the threshold
    (475, (475, 475), at_least(475), 23, "open"),  # a tie
    (480, (475, 490), at_least(475), 23, "open"),  # an end that ties
    (470, (460, 480), at_least(475), 23, "open"),  # missed, but not surely
    (470, (460, 474), at_least(475), 23, "fails"),
    (480, (478, 490), at_least(475), 476, "open"),  # whoever learned nothing passes
    (480, (478, 490), at_least(475), (20, 475), "open"),  # or may
    (480, (478, 490), at_least(475), (20, 474), "holds"),
    (480, (478, 490), at_least(475), None, "holds"),  # there is no null
    (1.2, (1.1, 1.3), above(1), 1, "holds"),
    (1.0, (1.0, 1.0), above(1), 1, "fails"),  # measured is the null: no more than equal
    (1.0, (0.9, 1.1), above(1), 1, "open"),
    (1.2, (1.0, 1.3), above(1), 1, "open"),  # the interval holds the null
    (1.2, (1.1, 1.3), at_least(1), 1, "open"),  # the null meets a claim of "no less"
    (0.8, (0.7, 0.9), below(1), 1, "holds"),
    (0.8, (0.7, 1.0), below(1), 1, "open"),
    (1.0, (1.0, 1.1), below(1), 1, "fails"),
    (0.4, (0.3, 0.45), at_most(0.5), 1, "holds"),
    (0.5, (0.5, 0.5), at_most(0.5), 1, "open"),
    (0.6, (0.55, 0.7), at_most(0.5), 1, "fails"),
    (0.4, (0.3, 0.45), at_most(0.5), 0.2, "open"),
    (0.01, (-0.02, 0.03), near(0, 0.05), 0.6, "holds"),
    (0.01, (-0.02, 0.05), near(0, 0.05), 0.6, "open"),
    (0.01, (-0.02, 0.03), near(0, 0.05), 0.04, "open"),
    (0.2, (0.1, 0.3), near(0, 0.05), 0.6, "fails"),
    (5, (4.5, 6), above_all((1, 4), ""), (1, 4), "holds"),  # the rival's interval
    (5, (3.5, 6), above_all((1, 4), ""), (1, 4), "open"),
    (3, (2, 4), above_all((1, 4), ""), (1, 4), "fails"),
    (470, (478, 490), at_least(475), 23, "open"),  # what was measured counts as part of its interval
    (480, None, at_least(475), 23, "open"),  # one seed
    (470, None, at_least(475), 23, "fails"),
    (None, None, at_least(475), 23, "open"),
    (math.nan, (478, 490), at_least(475), 23, "open"),
    (math.inf, (478, math.inf), at_least(475), 23, "open"),
]


@pytest.mark.parametrize(("measured", "interval", "expected", "null", "verdict"), CASES)
def test_verdicts(measured, interval, expected, null, verdict):
    assert judge(measured, interval, expected, null) == verdict


def test_a_claim_as_the_results_have_it():
    row = claim("return", "a paper", 480.0, at_least(475, " (target)"), null=(20.0, 30.0), interval=(478.0, 490.0))
    assert row == {
        "claim": "return",
        "paper": "a paper",
        "measured": 480.0,
        "interval": [478.0, 490.0],
        "expected": ">= 475 (target)",
        "null": [20.0, 30.0],
        "verdict": "holds",
        "holds": True,
    }
    assert json.loads(json.dumps(row, allow_nan=False)) == row
    assert claim("size", "", 0.02, at_most(0.1), null=1, exact=True)["verdict"] == "holds"
    assert claim("size", "", 0.02, at_most(0.1), null=1)["verdict"] == "open"
    nothing = claim("ratio", "", math.inf, at_most(0.1), null=1, exact=True)
    assert (nothing["measured"], nothing["interval"], nothing["verdict"]) == (None, None, "open")


numbers = st.floats(-100, 100)
regions = st.one_of(
    st.sampled_from([at_least, above, at_most, below]).flatmap(lambda make: numbers.map(make)),
    st.tuples(numbers, st.floats(0, 50)).map(lambda x: near(*x)),
)
intervals = st.lists(numbers, min_size=3, max_size=3).map(sorted)


@given(intervals, regions, st.one_of(st.none(), numbers, st.tuples(numbers, numbers).map(lambda x: tuple(sorted(x)))))
def test_what_holds_excludes_its_null(values, expected, null):
    low, measured, high = values
    verdict = judge(measured, (low, high), expected, null)
    meets = lambda value: expected.meets_any(value, value)
    if verdict == "holds":
        assert all(meets(value) and value not in (expected.low, expected.high) for value in values)
        ends = () if null is None else null if isinstance(null, tuple) else (null,)
        assert not any(meets(end) or low <= end <= high for end in ends)
    elif verdict == "fails":
        assert not any(map(meets, values))
    assert judge(measured, None, expected, null) != "holds"
    # No null, and a wider interval, never make more hold.
    assert verdict != "holds" or judge(measured, (low, high), expected, None) == "holds"
    assert verdict == "holds" or judge(measured, (low - 1, high + 1), expected, null) != "holds"


# --- Intervals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [2, 3, 5, 10])
@pytest.mark.parametrize("draw", ["normal", "exponential"])
def test_samples_of_the_null_seldom_hold(number, draw):
    """Of 300 samples drawn from the null's own distribution, whose mean is the threshold, in either direction."""
    generator = np.random.default_rng(0)
    held = {"above": 0, "below": 0}
    for _ in range(300):
        sample = generator.normal(1, 1, number) if draw == "normal" else generator.exponential(1, number)
        measured, interval = estimate(np.mean, sample)
        held["above"] += judge(measured, interval, above(1), 1) == "holds"
        held["below"] += judge(measured, interval, below(1), 1) == "holds"
    assert held["above"] < 0.05 * 300
    # Few exponential numbers tell nothing of the long tail above them: Student's own interval errs as often.
    assert held["below"] < (0.05 if draw == "normal" else 0.15) * 300


def test_equals_seldom_hold_and_differences_do():
    generator = np.random.default_rng(1)
    verdicts = {0.0: [], 5.0: []}
    for shift, found in verdicts.items():
        for _ in range(60):
            one, other = generator.normal(10 + shift, 1, 5), generator.normal(10, 1, 5)
            for statistic, neutral in ((difference_of(interquartile_mean), 0), (ratio_of(np.median), 1)):
                measured, interval = estimate(statistic, one, other)
                found.append(judge(measured, interval, above(neutral), neutral))
    assert verdicts[0.0].count("holds") < 0.05 * 120
    assert verdicts[5.0].count("holds") > 0.95 * 120


def test_estimates_by_hand():
    assert estimate(np.mean, []) == (None, None)
    assert estimate(np.mean, [3.0, None]) == (3.0, None)
    assert estimate(np.mean, [2.0, 2.0, math.nan, 2.0]) == (2.0, (2.0, 2.0))
    assert estimate(ratio_of(np.mean), [2.0, 4.0], [1.0]) == (3.0, None)
    assert null_of(np.mean, [3.0]) == 3.0
    assert null_of(np.mean, [3.0, 3.0]) == (3.0, 3.0)
    assert null_of(np.mean, [None]) is None
    measured, (low, high) = estimate(np.mean, [0.0, 1.0])
    # Its percentiles are 0 and 1; Student's 12.71 by the normal 1.96, times the root of 2.
    np.testing.assert_allclose([measured, low, high], [0.5, 0.5 - 4.584, 0.5 + 4.584], rtol=1e-3)


# --- The results --------------------------------------------------------------------------------------------------------

REPORTS = {path.stem: json.loads(path.read_text()) for path in sorted(command.RESULTS.glob("*.json"))}


def region_of(words):
    """What `Expected.words` say."""
    number = r"(-?[\d.]+(?:e-?\d+)?|-?inf)"
    if match := re.match(f"(>=|>|<=|<) {number}", words):
        return {">=": at_least, ">": above, "<=": at_most, "<": below}[match[1]](float(match[2]))
    if match := re.match(f"{number} within {number}", words):
        return near(float(match[1]), float(match[2]))
    match = re.match(f"{number} to {number}", words)
    return Expected(words, float(match[1]), float(match[2]), True)


@pytest.mark.parametrize("name", sorted(REPORTS))
def test_no_null_passes_what_holds(name):
    for row in REPORTS[name]["claims"]:
        assert row["verdict"] in ("holds", "open", "fails")
        assert row["holds"] == (row["verdict"] == "holds")
        null = row["null"] if isinstance(row["null"], list) else [row["null"]]
        if row["verdict"] == "holds" and row["null"] is not None:
            assert not region_of(row["expected"]).meets_any(min(null), max(null)), row["claim"]


@pytest.mark.parametrize("name", sorted(name for name, report in REPORTS.items() if report["name"] in command.NAMES))
def test_claims_are_what_the_figures_say(name):
    """By the code as it stands: `python -m benchmarks NAME --size SIZE --judge` writes them again."""
    report = REPORTS[name]
    if name == "ant_omni-full":  # without MAP-Elites, which is the null, nothing can be claimed
        assert report["claims"] == []
        return
    benchmark = importlib.import_module(f"benchmarks.{report['name']}")
    assert benchmark.claims(report["size"], report["results"]) == report["claims"]


def test_results_are_judged_again(tmp_path, monkeypatch, capsys):
    """From the command line, in a file of one's own; what cannot be judged is left as it is."""
    path, report = tmp_path / "mine.json", REPORTS["memory-small"]
    arguments = ["benchmarks", "memory", "--size", "small", "--judge", "--out", str(path)]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(InputError, match=r"there are no results to judge in .*mine\.json.*: run the benchmark without"):
        command.main()
    path.write_text("{}")
    with pytest.raises(InputError, match="KeyError"):
        command.main()
    assert path.read_text() == "{}"
    path.write_text(json.dumps(report | {"claims": []}))
    command.main()
    assert json.loads(path.read_text()) == report
    assert "holds" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", [*arguments, "--seeds", "2"])
    with pytest.raises(SystemExit):
        command.main()
    assert "--seeds is for a run" in capsys.readouterr().err


def test_words_say_what_is_judged():
    for expected in (
        at_least(1.5, ", half"),
        above(-2),
        at_most(1e-6),
        below(3),
        near(0.75, 0.1),
        Expected("0.9 to 1.2", 0.9, 1.2, True),
    ):
        assert region_of(expected.words)[1:] == expected[1:]


@pytest.mark.parametrize("name", command.NAMES)
def test_benchmarks_say_of_which_systems_they_are(name):
    """Registered ones, and of each there is a claim."""
    systems = importlib.import_module(f"benchmarks.{name}").SYSTEMS
    assert set(systems) <= set(REGISTRY)
    texts = [row["claim"] for stem, report in REPORTS.items() if report["name"] == name for row in report["claims"]]
    assert all(any(re.match(pattern, text, re.IGNORECASE) for text in texts) for pattern in systems.values())
