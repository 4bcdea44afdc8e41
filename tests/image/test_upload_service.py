# SPDX-License-Identifier: LGPL-2.1-or-later
"""As the operator of an upload service: a thousand images of all kinds, from a shell and from C."""

import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import forge_qcow2
import lock_rig
import pytest
import test_luks
import test_qcow2
import test_raw_and_old
# pylint: disable=unused-import
from image_rig import HOLDFAST, pytestmark

BUILD = lock_rig.build_dir()
HERE = Path(__file__).parent
SMALL = 2 << 20


def kinds():
    """(format, content, None or the reasons)."""
    yield from (("qcow2", content, None) for content in test_qcow2.SAFE.values())
    yield from (("qcow2", row[1], row[2]) for row in test_qcow2.HOSTILE)
    for name, rows in test_raw_and_old.SAFE.items():
        yield from ((name, content, None) for content in rows.values())
    for name, rows in test_raw_and_old.HOSTILE.items():
        yield from ((name, row[1], row[2]) for row in rows)
    yield from (("luks", content, None) for content, _ in test_luks.SAFE.values())
    yield from (("luks", row[1], row[2]) for row in test_luks.HOSTILE)


@pytest.fixture(scope="module", name="uploads")
def fixture_uploads(session_workdir):
    """A thousand files: {name: (format, reasons)}."""
    directory = session_workdir / "uploads"
    directory.mkdir()
    rng = random.Random(5)
    pool = [kind for kind in kinds() if len(kind[1]) <= SMALL]
    found = {}
    originals = {}
    for index in range(1000):
        at = index if index < len(pool) else rng.randrange(len(pool))
        name = f"{index}.{pool[at][0]}"
        if at in originals:
            os.link(directory / originals[at], directory / name)
        else:
            (directory / name).write_bytes(pool[at][1])
            originals[at] = name
        found[name] = (pool[at][0], pool[at][2])
    yield directory, found
    shutil.rmtree(directory)


def test_thousand_from_a_shell(uploads):
    """With xargs -P2, each in a process of its own: every verdict is the right one."""
    directory, expected = uploads
    script = ('"$0" image check --json --max-size 1T --format "${1##*.}" "$1" >"$1.verdict"; '
              'echo $? >"$1.status"')
    subprocess.run(["xargs", "-P2", "-n1", "sh", "-c", script, HOLDFAST], check=True,
                   cwd=directory, input="\n".join(expected), text=True, timeout=600)
    for name, (_, reasons) in expected.items():
        [image] = json.loads((directory / f"{name}.verdict").read_text())["images"]
        assert {reason["id"] for reason in image["reasons"]} == (reasons or set()), image
        assert int((directory / f"{name}.status").read_text()) == (3 if reasons else 0), image


def test_thousand_from_c(uploads, workdir):
    """From C, through libholdfast, in one process, which does not grow."""
    directory, expected = uploads
    program = workdir / "upload-service"
    linked = ["-I", HERE.parents[1] / "include", "-L", BUILD, "-lholdfast",
              f"-Wl,-rpath,{BUILD}"]
    options = json.loads(subprocess.run(
        ["meson", "introspect", "--buildoptions", BUILD], check=True, capture_output=True,
        text=True).stdout)
    [sanitizers] = [option["value"] for option in options if option["name"] == "b_sanitize"]
    if sanitizers != "none":
        linked.append(f"-fsanitize={sanitizers}")
    subprocess.run(["cc", "-std=gnu17", "-Wall", "-Wextra", "-Werror", "-o", program,
                    HERE / "upload-service.c", *linked], check=True)
    lines = "".join(f"{image_format} {name}\n" for name, (image_format, _) in expected.items())
    result = subprocess.run([program], check=True, cwd=directory, input=lines, text=True,
                            capture_output=True, timeout=600)
    told = [line.split() for line in result.stdout.splitlines()]
    assert len(told) == len(expected)
    for verdict, name, *reasons in told:
        wanted = expected[name][1]
        assert verdict == ("unsafe" if wanted else "safe"), (name, reasons)
        assert set("".join(reasons).split(",")) - {""} == (wanted or set())
    descriptors, kib = map(int, result.stderr.splitlines()[-1].split())
    assert descriptors == 3
    assert sanitizers != "none" or kib < 16384


def test_store(workdir):
    """The recipe of the documentation: what is safe gets its name, and nothing else is left."""
    store = workdir / "store"
    store.mkdir()
    script = ('"$0" image check --format qcow2 --max-size 100G --copy-to "store/$1" - <"$1" || :')
    uploads = {"good1": forge_qcow2.image(), "bad": forge_qcow2.with_name(b"/etc/passwd"),
               "large": forge_qcow2.image(size=200 << 30, l1_size=512),
               "good2": forge_qcow2.image(version=2)}
    for name, content in uploads.items():
        (workdir / name).write_bytes(content)
    subprocess.run(["xargs", "-P2", "-n1", "sh", "-c", script, HOLDFAST], check=True, cwd=workdir,
                   input="\n".join(uploads), text=True, capture_output=True, timeout=60)
    assert sorted(os.listdir(store)) == ["good1", "good2"]
    assert (store / "good1").read_bytes() == bytes(uploads["good1"])
