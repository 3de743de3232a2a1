"""The README's table of systems, made from the registry: `python -m jaxpg.experiment.readme` rewrites it."""

from pathlib import Path

from jaxpg.algorithm import REGISTRY

README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- systems: begin", "<!-- systems: end -->"


def systems_table() -> str:
    """A row per registered algorithm, in Markdown."""
    rows = ["| name | paper | field | actions | status |", "|---|---|---|---|---|"]
    for _, entry in sorted(REGISTRY.items()):
        rows.append(f"| `{entry.name}` | {entry.paper} | {entry.field} | {entry.actions} | {entry.status} |")
    return "\n".join(rows)


def with_table(text: str) -> str:
    """The README's text with the table between its two marks made anew."""
    begin = text.index("\n", text.index(BEGIN)) + 1
    return text[:begin] + systems_table() + "\n" + text[text.index(END) :]


if __name__ == "__main__":
    README.write_text(with_table(README.read_text()))
