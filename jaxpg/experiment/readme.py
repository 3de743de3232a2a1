"""The README's table of systems, made from the registry and the benchmarks' results: `python -m jaxpg.experiment.readme`."""

import importlib
import json
import re
from collections import defaultdict
from pathlib import Path

from jaxpg.algorithm import REGISTRY

ROOT = Path(__file__).parents[2]
README, BENCHMARKS = ROOT / "README.md", ROOT / "benchmarks"
BEGIN, END = "<!-- systems: begin", "<!-- systems: end -->"
VERDICTS = ("holds", "open", "fails")


def systems_table() -> str:
    """A row per registered algorithm, in Markdown."""
    verdicts = claims_of_systems(BENCHMARKS / "results")
    rows = ["| name | paper | field | actions | status | claims |", "|---|---|---|---|---|---|"]
    for _, entry in sorted(REGISTRY.items()):
        cells = (
            f"`{entry.name}`",
            entry.paper,
            entry.field,
            entry.actions,
            entry.status,
            in_words(verdicts.get(entry.name, {})),
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def claims_of_systems(results: Path) -> dict[str, dict[str, dict[str, int]]]:
    """How many claims there are about each system, by verdict, then benchmark: `{"ppo": {"holds": {"ppo": 3}}}`.

    Read are a folder's results of all sizes but smoke, which is too short for a claim; `SYSTEMS` of a benchmark's module says
    which claims are about whom. Results that were written before there were verdicts have `holds` alone.
    """
    found: dict[str, dict[str, dict[str, int]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(int)))
    for path in sorted(results.glob("*.json")):
        report = json.loads(path.read_text())
        module = f"benchmarks.{report['name']}"
        if report["size"] == "smoke" or not (BENCHMARKS / f"{report['name']}.py").exists():
            continue
        for system, pattern in importlib.import_module(module).SYSTEMS.items():
            for claim in report["claims"]:
                if re.match(pattern, claim["claim"], re.IGNORECASE):
                    found[system][claim.get("verdict", "holds" if claim["holds"] else "fails")][report["name"]] += 1
    return found


def in_words(verdicts: dict[str, dict[str, int]]) -> str:
    """`holds: on_policy 1, ppo 3; fails: ppo_throughput 2`."""
    listed = lambda counts: ", ".join(f"{name} {number}" for name, number in sorted(counts.items()))
    return "; ".join(f"{verdict}: {listed(verdicts[verdict])}" for verdict in VERDICTS if verdict in verdicts) or "none"


def with_table(text: str) -> str:
    """The README's text with the table between its two marks made anew."""
    begin = text.index("\n", text.index(BEGIN)) + 1
    return text[:begin] + systems_table() + "\n" + text[text.index(END) :]


if __name__ == "__main__":
    README.write_text(with_table(README.read_text()))
