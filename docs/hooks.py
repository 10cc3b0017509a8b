"""What MkDocs cannot read from a page: generated tables, sections of READMEs, and formulas without JavaScript.

A page holds a comment, and the build replaces it:

    <!-- include: agents/README.md -->                       a file, without its first heading
    <!-- include: agents/README.md # An agent of your own -->  one section of a file, without its heading
    <!-- settings: dqn -->                                   the fields of the agent's Config
    <!-- presets: dqn -->                                    the agent's part of agents/presets.toml
    <!-- results: dqn -->                                    the agent's rows of docs/results.md
    <!-- help: train -->                                     the command's --help
    <!-- neat-python -->                                     the keys of neat-python that `--config` reads
"""

import contextlib
import dataclasses
import importlib
import io
import os
import posixpath
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from rl_lab.experiment import find_agent
from rl_lab.experiment.agent import NOTE
from rl_lab.experiment.config import field_types, option_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGE_OF = {"README.md": "index.md", "agents/README.md": "agents/index.md", "rl_lab/README.md": "core.md"}
"""The page that shows a file outside of docs/."""
FENCE = re.compile(r"(^```.*?^```$)", flags=re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
COMMENT = re.compile(r"^<!-- (include|settings|presets|results|help|neat-python)(?:: (.+?))? -->$", flags=re.MULTILINE)


# --- generated parts -------------------------------------------------------------------------------------------------


def settings(agent: str) -> str:
    """Table of the fields of an agent's Config: name, default, allowed values, meaning."""
    config = find_agent(agent).Config
    kinds = field_types(config)
    rows = ["| setting | default | allowed | meaning |", "|---|---|---|---|"]
    for field in dataclasses.fields(config):
        text = field.metadata["help"].replace("|", "\\|")
        default = "" if field.default is None else f"`{shown(field.default)}`"
        rows.append(f"| `{field.name}` | {default} | {allowed(kinds[field.name], field.metadata)} | {text} |")
    return "\n".join(rows)


def shown(value: object) -> str:
    """A default as one writes it on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:_}"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def allowed(kind: type, rules: dict) -> str:
    """The values that a field takes, in words."""
    if rules["choices"]:
        return ", ".join(f"`{choice}`" for choice in rules["choices"])
    names = {bool: "true, false", int: "integer", float: "number", str: "text"}
    bounds = [("above", "above"), ("least", "at least"), ("most", "at most")]
    limits = [f"{words} {rules[name]:g}" for name, words in bounds if rules[name] is not None]
    return ", ".join([names.get(kind, "list"), *limits])


def presets(agent: str) -> str:
    """The presets of an agent, one foldable block per environment."""
    tables = tomllib.loads((ROOT / "agents" / "presets.toml").read_text(encoding="utf-8"))
    blocks = []
    for env, values in tables.get(agent, {}).items():
        lines = "".join(f"    {name} = {written(value)}\n" for name, value in values.items() if name != NOTE)
        said = f"    {values[NOTE]}\n\n" if NOTE in values else ""
        blocks.append(f'??? note "{env}"\n\n{said}    ```toml\n{lines}    ```\n')
    return "\n".join(blocks) or "This agent has no presets."


def written(value: object) -> str:
    """A value in TOML."""
    return f'"{value}"' if isinstance(value, str) else shown(value)


def results(agent: str) -> str:
    """The rows of docs/results.md that are about an agent, table by table, under the headings of their sections."""
    parts = []
    for section in re.split(r"^(?=## )", (ROOT / "docs" / "results.md").read_text(encoding="utf-8"), flags=re.MULTILINE):
        heading = re.match(r"## (.*)", section)
        table = [line for line in section.splitlines() if line.startswith("|")]
        rows = [line for line in table[2:] if line.startswith(f"| `{agent}` ")]
        if rows:
            parts.append("\n".join([*([f"{heading[1]}:", ""] if heading else []), *table[:2], *rows]))
    more = "[Results](../results.md) says how they were measured, and has the other agents."
    return "\n\n".join([*parts, more]) if parts else "This agent has no presets, so no results are kept."


def help_text(command: str) -> str:
    """What ``python -m rl_lab.<command> --help`` prints."""
    body = importlib.import_module(f"rl_lab.{command}").main
    text = io.StringIO()
    with mock.patch.dict(os.environ, {"COLUMNS": "100"}), contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        body(["--help"])
    return f"```text\n{text.getvalue().rstrip()}\n```"


def neat_python(_: str) -> str:
    """Table of the keys of neat-python with a setting of the same meaning."""
    names = importlib.import_module("rl_lab.agents.neat.importing")._SAME
    rows = [f"| `{theirs}` | `{ours}` | `{option_name(ours)}` |" for theirs, ours in names.items()]
    return "\n".join(["| neat-python | here | option |", "|---|---|---|", *rows])


def include(what: str, page: str) -> str:
    """The text of a file, or of one of its sections, without its heading and with links relative to ``page``.

    Raises ValueError if there is no such section.
    """
    source, _, heading = (part.strip() for part in what.partition(" # "))
    text = (ROOT / source).read_text(encoding="utf-8")
    if heading:
        found = re.search(rf"^## {re.escape(heading)}$\n(.*?)(?=^## |\Z)", text, flags=re.DOTALL | re.MULTILINE)
        if found is None:
            raise ValueError(f"{source} has no section {heading!r}")
        text = found[1]
    else:
        text = re.sub(r"\A# .*\n", "", text)
    return relink(text.strip(), source, page)


MAKERS = {"settings": settings, "presets": presets, "results": results, "help": help_text, "neat-python": neat_python}


def relink(text: str, source: str, page: str) -> str:
    """Links of a file of the repository as links of a page. A link to a file that has no page becomes its name."""

    def replace(link: re.Match) -> str:
        target, _, anchor = link[3].partition("#")
        if "://" in link[3] or not target:
            return link[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if path not in PAGE_OF and not path.startswith("docs/"):
            return link[2]
        there = PAGE_OF.get(path, path.removeprefix("docs/"))
        relative = posixpath.relpath(there, posixpath.dirname(page) or ".")
        return f"{link[1]}[{link[2]}]({relative}{'#' + anchor if anchor else ''})"

    parts = FENCE.split(text)
    return "".join(part if number % 2 else LINK.sub(replace, part) for number, part in enumerate(parts))


# --- the calls of MkDocs ---------------------------------------------------------------------------------------------


def on_startup(**_: object) -> None:
    """Lay the package out as it is installed, for the API pages: agents/ and envs/ as parts of rl_lab."""
    place = ROOT / "build" / "documented" / "rl_lab"
    shutil.rmtree(place, ignore_errors=True)
    ignored = shutil.ignore_patterns("__pycache__")
    for source, target in (("rl_lab", place), ("agents", place / "agents"), ("envs", place / "envs")):
        shutil.copytree(ROOT / source, target, ignore=ignored)


def on_config(config: "MkDocsConfig") -> "MkDocsConfig":
    """Add pages that the navigation does not list."""
    listed = str(config.nav)
    docs = Path(config.docs_dir)
    others = sorted(path.relative_to(docs).as_posix() for path in docs.rglob("*.md"))
    missing = [page for page in others if f"'{page}'" not in listed]
    if missing:
        config.nav.append({"More": missing})
    return config


def on_page_markdown(markdown: str, page: "Page", **_: object) -> str:
    """Replace the comments of a page, and links that leave docs/."""
    uri = page.file.src_uri

    def replace(comment: re.Match) -> str:
        return include(comment[2], uri) if comment[1] == "include" else MAKERS[comment[1]](comment[2])

    return COMMENT.sub(replace, relink(markdown, f"docs/{uri}", uri))


def on_page_content(html: str, **_: object) -> str:
    """Turn formulas into MathML, which browsers draw without a script."""
    from html import unescape

    from latex2mathml.converter import convert

    html = re.sub(
        r'<div class="arithmatex">\\\[(.*?)\\\]</div>',
        lambda found: f'<p class="formula">{convert(unescape(found[1]).strip(), display="block")}</p>',
        html,
        flags=re.DOTALL,
    )
    return re.sub(r'<span class="arithmatex">\\\((.*?)\\\)</span>', lambda found: convert(unescape(found[1])), html)
