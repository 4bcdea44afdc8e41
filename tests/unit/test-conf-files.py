#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Holds the table of settings, the shipped holdfast.conf and its Augeas lens against each other.

Speaks TAP. G_TEST_SRCDIR may name the directory of this file, for a copy that lies elsewhere.

    test-conf-files.py --update

writes the shipped holdfast.conf, with all its settings switched on, and the tree that it has to
become into conf/augeas/test_holdfast.aug. Run it after a change of holdfast.conf, and look at
the difference.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TOP = Path(os.environ.get("G_TEST_SRCDIR", Path(__file__).parent)).resolve().parents[1]
SCHEMA = TOP / "src/core/settings-schema.c"
CONF = TOP / "conf/holdfast.conf"
LENS = TOP / "conf/augeas/holdfast.aug"
LENS_TEST = TOP / "conf/augeas/test_holdfast.aug"

BEGIN = "(* shipped: begin; written by test-conf-files.py --update *)\n"
END = "(* shipped: end *)\n"

SETTING = re.compile(r"^#?([a-z_]+) = (.*)$")

# The lists of names in the lens, and the kinds of the table that belong into them.
LENS_LISTS = {
    "flag_names": {"BOOL"},
    "number_names": {"NUMBER"},
    "list_names": {"DRIVER_OPTIONS", "PR_RULES"},
    "text_names": {"PATH", "SOCKET", "GROUP", "HOST", "DRIVER", "CHOICE", "PR_LOG",
                   "LOG_FILTERS", "LOG_OUTPUTS"},
}


class Skip(Exception):
    """The reason why a test can't run here."""


def schema_keys():
    """The keys of holdfast.conf in the table: name -> kind."""
    entry = re.compile(r"MEMBER\((\w+)\), \.kind = SETTINGS_(\w+), \.files = ([^,]+),")
    return {
        name: kind
        for name, kind, files in entry.findall(SCHEMA.read_text())
        if "HOLDFAST" in files.split(" | ")
    }


def conf_keys():
    """The keys that holdfast.conf shows, in its order."""
    matches = map(SETTING.match, CONF.read_text().splitlines())
    return [match[1] for match in matches if match]


def lens_keys():
    """The lists of names in the lens: name of the list -> names."""
    lists = re.findall(r'^let (\w+_names) = ((?:"\w+"[\s|]*)+)', LENS.read_text(), re.MULTILINE)
    return {name: re.findall(r"\w+", names) for name, names in lists}


def conf_switched_on():
    """The shipped holdfast.conf with the '#' in front of every setting removed."""
    return re.sub(r"(?m)^#(?=[a-z_]+ = )", "", CONF.read_text())


def aug_string(text):
    """The text as a string of Augeas' language."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def tree_of(line):
    """The node that a line of holdfast.conf has to become."""
    match = SETTING.match(line)
    text = line.lstrip("#").strip() if line.strip("# \t") else line[1:]
    if match and not line.startswith("#"):
        value = match[2]
        return f"{{ \"{match[1]}\" }}" if value == "[ ]" else \
            f"{{ \"{match[1]}\" = {aug_string(value.strip(chr(34)))} }}"
    return f"{{ \"#comment\" = {aug_string(text)} }}" if text else "{ }"


def shipped_test():
    """The part of the lens' test that covers the shipped file."""
    text = conf_switched_on()
    nodes = "\n".join("  " + tree_of(line) for line in text.splitlines())
    return f"let shipped = {aug_string(text)}\n\ntest Holdfast.lns get shipped =\n{nodes}\n"


def split_lens_test():
    """The lens' test: what is before, in and after the part that is written for it."""
    head, rest = LENS_TEST.read_text().split(BEGIN)
    body, tail = rest.split(END)
    return head, body, tail


def augparse(path):
    """Runs a file of Augeas' language against our lens."""
    if not shutil.which("augparse"):
        raise Skip("augparse is not installed")
    result = subprocess.run(["augparse", "-I", LENS.parent, path], capture_output=True, text=True,
                            check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_key_lists():
    """table, holdfast.conf and lens know the same keys"""
    table = schema_keys()
    lens = [name for names in lens_keys().values() for name in names]
    assert len(table) > 10, table
    assert conf_keys() == list(table), f"holdfast.conf: {conf_keys()}\ntable: {list(table)}"
    assert sorted(lens) == sorted(table), f"lens: {sorted(lens)}\ntable: {sorted(table)}"


def test_kinds():
    """the lens takes numbers, strings and lists where the table does"""
    table = schema_keys()
    for name, names in lens_keys().items():
        for key in names:
            kind = table.get(key)
            assert kind in LENS_LISTS[name], f"{key} is of the kind {kind}, but in {name}"


def test_lens():
    """the lens passes its own test"""
    augparse(LENS_TEST)


def test_lens_test_is_current():
    """the lens' test has the shipped holdfast.conf as it is now"""
    assert split_lens_test()[1] == shipped_test(), "run test-conf-files.py --update"


def test_as_shipped():
    """the lens reads holdfast.conf as shipped, and writes it back unchanged"""
    text = CONF.read_text()
    nodes = "\n".join(tree_of(line) for line in text.splitlines())
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "as_shipped.aug"
        path.write_text("module As_shipped =\n"
                        f"let text = {aug_string(text)}\n"
                        f"test Holdfast.lns get text =\n{nodes}\n"
                        'test Holdfast.lns put text after rm "/none" = text\n')
        augparse(path)


def main():
    """Runs every test_... of this file."""
    tests = [item for name, item in globals().items() if name.startswith("test_")]
    failed = False
    print(f"1..{len(tests)}")
    for number, test in enumerate(tests, 1):
        try:
            test()
            print(f"ok {number} {test.__doc__}")
        except Skip as reason:
            print(f"ok {number} {test.__doc__} # SKIP {reason}")
        except AssertionError as error:
            failed = True
            print(f"not ok {number} {test.__doc__}")
            print("\n".join("# " + line for line in str(error).splitlines()))
    return failed


def update():
    """Writes the shipped file into the lens' test."""
    head, _, tail = split_lens_test()
    LENS_TEST.write_text(head + BEGIN + shipped_test() + END + tail)


if __name__ == "__main__":
    sys.exit(update() if sys.argv[1:] == ["--update"] else main())
