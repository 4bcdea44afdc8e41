# SPDX-License-Identifier: LGPL-2.1-or-later
"""The documentation as docutils reads it: pages, and what there is in them."""

import re
import subprocess

import lock_rig
import pytest

core = pytest.importorskip("docutils.core")
nodes = pytest.importorskip("docutils.nodes")

REPOSITORY = lock_rig.REPOSITORY
DOCS = REPOSITORY / "docs"
SOURCES = sorted([*DOCS.glob("*.rst"), *DOCS.glob("man/*.rst")])
BUILD = lock_rig.build_dir()
NATIVE = DOCS / "native-protocol.rst"


def doctree(path):
    """A page as docutils reads it; a warning is an error."""
    return core.publish_doctree(path.read_text(encoding="utf-8"), source_path=str(path),
                                settings_overrides={"halt_level": 2, "report_level": 2,
                                                    "syntax_highlight": "none"})


def section(tree, title):
    """The section of that title."""
    return next(found for found in tree.findall(nodes.section)
                if found[0].astext().lower() == title.lower())


def rows(table):
    """The rows of a table, each a list of entries."""
    return [list(row) for row in table.findall(nodes.row)]


def first_column(table):
    """The texts in the first column of a table, without its heading."""
    return [row[0].astext() for row in rows(table)[1:]]


def definitions(tree):
    """The terms of all definition lists, with their definitions."""
    return {item[0].astext(): item[-1] for item in tree.findall(nodes.definition_list_item)}


def literals(tree):
    """Everything that is set as a literal."""
    return {found.astext() for found in tree.findall(nodes.literal)}


def code_blocks(path, language=None):
    """The blocks of a page in that language, "" for those of none."""
    return [block.astext() for block in doctree(path).findall(nodes.literal_block)
            if [name for name in block["classes"] if name != "code"] ==
            ([language] if language else [])]


def page_id(path):
    """A page's name in a test's."""
    return path.name.removesuffix(".rst")


def run(*argv, **options):
    """Run a command to its end."""
    return subprocess.run([str(arg) for arg in argv], check=False, capture_output=True, text=True,
                          timeout=60, **options)


def shown_options(program, *verb):
    """The options that a program's help shows."""
    text = run(BUILD / program, *verb, "--help").stdout
    return set(re.findall(r"(?m)^  (?:-\w, |    )?(--[a-z-]+)", text)) | \
        set(re.findall(r"(?m)^  (-\w), --", text))


def documented_events():
    """The events of the page: name -> what its data is."""
    [table] = section(doctree(NATIVE), "Events").findall(nodes.table)
    return {row[0].astext(): row[1] for row in rows(table)[1:]}
