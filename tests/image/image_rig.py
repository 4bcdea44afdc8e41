# SPDX-License-Identifier: LGPL-2.1-or-later
"""`holdfast image check` for tests, and qemu-img in a sandbox to compare it with."""

import json
import os
import shutil
import subprocess

import lock_rig
import pytest

HOLDFAST = lock_rig.build_dir() / "holdfast"
SAFE, ERROR, USAGE, UNSAFE = 0, 1, 2, 3

pytestmark = pytest.mark.skipif(not os.access(HOLDFAST, os.X_OK), reason="holdfast is not built")
needs_qemu_img = pytest.mark.skipif(not shutil.which("qemu-img"), reason="qemu-img is missing")


def check(path, image_format, *options, **kwargs):
    """The verdict on one image: an object as --json prints it, with its "status"."""
    result = subprocess.run([HOLDFAST, "image", "check", "--json", "--format", image_format,
                             *options, path], check=False, capture_output=True, timeout=60,
                            **kwargs)
    assert result.stdout, result.stderr
    image = json.loads(result.stdout)["images"][0]
    assert image["verdict"] == {SAFE: "safe", ERROR: "error", UNSAFE: "unsafe"}[result.returncode]
    return {**image, "status": result.returncode}


def check_all(paths, image_format, directory):
    """The verdicts on several images, from one run."""
    result = subprocess.run([HOLDFAST, "image", "check", "--json", "--format", image_format,
                             *paths], check=False, capture_output=True, timeout=300, cwd=directory)
    images = json.loads(result.stdout)["images"]
    assert [image["file"] for image in images] == list(map(str, paths)), result
    return images


def reasons(image):
    """The names of the reasons of a verdict that were not allowed."""
    assert image["verdict"] != "error", image
    return {reason["id"] for reason in image["reasons"] if not reason["allowed"]}


def verdict_on(directory, content, image_format, *options):
    """The same for an image of these bytes."""
    path = directory / "image"
    path.write_bytes(content)
    return check(path, image_format, *options)


def qemu_img(*arguments, check_it=True, program="qemu-img", **kwargs):
    """qemu-img or qemu-io, which open what images name: no network, bounds on time and memory."""
    command = ["prlimit", "--cpu=60", f"--as={2 << 30}", f"--fsize={1 << 30}", "--core=0"]
    if os.geteuid() == 0:
        command += ["unshare", "--net", "--ipc", "--"]
    return subprocess.run([*command, program, *map(str, arguments)], check=check_it,
                          capture_output=True, text=True, timeout=300, **kwargs)


def create_luks(*arguments):
    """`qemu-img create` with a key. It measures how fast it is by a clock of CPU time that stands
    still for milliseconds, and fails when it sees no time pass; another try is another chance."""
    for _ in range(50):
        result = qemu_img("create", "--object", "secret,id=s,data=x", *arguments, check_it=False)
        if "accurate CPU usage" not in result.stderr:
            break
    assert result.returncode == 0, result.stderr


def qemu_size(path, image_format):
    """The size of the disk that QEMU sees, or None if it does not open the image."""
    result = qemu_img("info", "--output=json", "-f", image_format, path, check_it=False)
    return json.loads(result.stdout)["virtual-size"] if result.returncode == 0 else None
