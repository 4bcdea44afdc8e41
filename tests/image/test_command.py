# SPDX-License-Identifier: LGPL-2.1-or-later
"""`holdfast image check` as people and scripts use it: streams, odd files, what it touches."""

import json
import os
import re
import shutil
import subprocess
import threading

import forge_qcow2
import pytest
# pylint: disable=unused-import
from image_rig import (ERROR, HOLDFAST, SAFE, UNSAFE, USAGE, check, pytestmark, reasons)
from waiting import wait_until

MIB = 1 << 20


def run(*arguments, **kwargs):
    """The command to its end."""
    return subprocess.run([HOLDFAST, "image", "check", *map(str, arguments)], check=False,
                          **{"capture_output": True, "timeout": 60, **kwargs})


@pytest.fixture(name="images")
def fixture_images(workdir):
    """A safe and an unsafe image."""
    (workdir / "good").write_bytes(forge_qcow2.image())
    (workdir / "bad").write_bytes(forge_qcow2.with_name(b"/etc/passwd"))
    return workdir


# ---- arguments, output, exit codes -----------------------------------------------------------

@pytest.mark.parametrize("arguments, complaint", [
    ((), "what is to be done?"),
    (("good",), "which format"),
    (("--format", "qcow3", "good"), "'qcow3' is no format of images; there are raw, qcow2"),
    (("--format", "mbr", "good"), "'mbr' is no format"),
    (("--format", "raw"), "which image?"),
    (("--format", "raw", "--max-size", "0", "good"), "'0' is no size"),
    (("--format", "raw", "--max-size", "1X", "good"), "'1X' is no size"),
    (("--format", "raw", "--max-size", "9E", "good"), "'9E' is no size"),
    (("--format", "raw", "--allow", "backing-flie", "good"), "did you mean 'backing-file'?"),
    (("--format", "raw", "--copy-to", "x", "good", "bad"), "--copy-to is for one image"),
    (("--format", "raw", "--copy-to", "-", "good"), "--copy-to needs a path"),
])
def test_usage(images, arguments, complaint):
    """Wrong usage says what is wrong."""
    result = subprocess.run([HOLDFAST, "image", *(("check",) if arguments else ()), *arguments],
                            check=False, cwd=images, capture_output=True, text=True, timeout=30)
    assert result.returncode == USAGE and complaint in result.stderr


@pytest.mark.parametrize("text, size", [("1073741824", 1 << 30), ("1G", 1 << 30),
                                        ("1GiB", 1 << 30), ("1024m", 1 << 30), ("1T", 1 << 40)])
def test_max_size(images, text, size):
    """Sizes with units of 1024; the limit itself is allowed."""
    forge_qcow2_size = forge_qcow2.image(size=size, l1_size=2048, clusters=8)
    (images / "exact").write_bytes(forge_qcow2_size)
    assert check(images / "exact", "qcow2", "--max-size", text)["verdict"] == "safe"
    (images / "more").write_bytes(forge_qcow2.poke(forge_qcow2_size, size=size + 512,
                                                   l1_size=2049))
    assert reasons(check(images / "more", "qcow2", "--max-size", text)) == {"size-limit"}


def test_several(images):
    """Each image is reported, and the worst counts; an error is worse than unsafe."""
    result = run("--format", "qcow2", "good", "bad", cwd=images, text=True)
    assert result.returncode == UNSAFE
    assert result.stdout == (
        "good: safe, qcow2, a disk of 1073741824 bytes\n"
        "bad: unsafe, qcow2, a disk of 1073741824 bytes\n"
        "  backing-file at byte 8: The image has a backing file, '/etc/passwd'.\n")
    result = run("--format", "qcow2", "none", "bad", "good", cwd=images, text=True)
    assert result.returncode == ERROR
    assert "none: cannot open it: No such file or directory" in result.stderr
    assert "bad: unsafe" in result.stdout and "good: safe" in result.stdout
    result = run("--format", "qcow2", "--quiet", "bad", "good", cwd=images, text=True)
    assert result.returncode == UNSAFE and "good" not in result.stdout
    result = run("--format", "qcow2", "--json", "none", "bad", "good", cwd=images, text=True)
    assert [image["verdict"] for image in json.loads(result.stdout)["images"]] == [
        "error", "unsafe", "safe"]


def test_allow(images):
    """What is allowed is reported and no objection."""
    result = run("--format", "qcow2", "--allow", "backing-file", "bad", cwd=images, text=True)
    assert result.returncode == SAFE
    assert "bad: safe" in result.stdout and "  backing-file (allowed) at byte 8" in result.stdout
    image = check(images / "bad", "qcow2", "--allow", "also-vmdk")
    assert reasons(image) == {"backing-file"}


def test_names_of_strangers(images):
    """Control characters in names, of files and in images, do not reach the terminal."""
    (images / "a\033[31m").write_bytes(forge_qcow2.with_name(b"\033[31m/\n\xff"))
    result = run("--format", "qcow2", "a\033[31m", cwd=images)
    assert result.returncode == UNSAFE and b"\033" not in result.stdout
    assert b"'?[31m/??'" in result.stdout


# ---- odd files -------------------------------------------------------------------------------

@pytest.mark.parametrize("kind, complaint", [
    ("/", "it is a directory"), ("/dev/zero", "it is a character device"),
    ("/dev/null", "it is a character device"), ("socket", "cannot open it"),
    ("loop", "cannot open it"),
])
def test_no_files(workdir, kind, complaint):
    """What is no image is an error, at once."""
    path = workdir / kind
    if kind == "socket":
        subprocess.run(["python3", "-c", "import socket, sys; "
                        "socket.socket(socket.AF_UNIX).bind(sys.argv[1])", path], check=True)
    if kind == "loop":
        path.symlink_to(path)
    result = run("--format", "raw", path, text=True)
    assert result.returncode == ERROR and complaint in result.stderr


def test_zero_on_standard_input():
    """An endless device is no stream to be copied."""
    with open("/dev/zero", "rb") as zero:
        result = run("--format", "raw", "-", stdin=zero, text=True)
    assert result.returncode == ERROR and "it is a character device" in result.stderr


def test_no_reader(images):
    """A file that may not be read is an error."""
    path = images / "secret"
    path.write_bytes(b"x")
    path.chmod(0)
    command = [HOLDFAST, "image", "check", "--format", "raw", path]
    if os.geteuid() == 0:
        command = ["setpriv", "--bounding-set=-all", *command]  # a root without privileges
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    assert result.returncode == ERROR and "Permission denied" in result.stderr


def test_sparse(workdir):
    """The largest file that there can be takes no time; its size is the disk's."""
    path = workdir / "sparse"
    with path.open("wb") as file:
        size = 1 << 63
        while True:
            try:
                file.truncate(size - 1)
                break
            except OSError:
                size >>= 1
    image = check(path, "raw")  # which has a deadline
    assert image["virtual-size"] == size  # in whole sectors
    assert (reasons(image) == {"size-limit"}) == (size > 64 << 40)
    assert reasons(check(path, "raw", "--max-size", "1T")) == {"size-limit"}
    assert reasons(check(path, "qcow2")) == {"wrong-format"}


def test_fifo(images):
    """A FIFO by its name is a stream."""
    path = images / "fifo"
    os.mkfifo(path)
    with subprocess.Popen(f"cat {images}/good > {path}", shell=True):
        assert check(path, "qcow2")["verdict"] == "safe"


def test_fifo_without_a_writer(images):
    """One that nobody writes to is not an empty image: a writer is waited for, and that is told."""
    path = images / "fifo"
    os.mkfifo(path)
    with subprocess.Popen([HOLDFAST, "image", "check", "--format", "raw", path], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            told = process.stderr.readline()
            assert re.fullmatch(r"holdfast: \(\d+ s\) reading .*/fifo\n", told)
            path.write_bytes(bytes(5120))
            out, _ = process.communicate(timeout=60)
            assert (process.returncode, out) == (SAFE, f"{path}: safe, raw, a disk of 5120 bytes\n")
        finally:
            process.kill()


def test_offset(images):
    """The offset of a descriptor that others share does not move, and does not matter."""
    with (images / "good").open("rb") as image:
        image.seek(4711)
        assert run("--format", "qcow2", "-", stdin=image).returncode == SAFE
        assert os.lseek(image.fileno(), 0, os.SEEK_CUR) == 4711


def test_changes(workdir):
    """An image that somebody writes to has no verdict, or a right one."""
    path = workdir / "image"
    good, bad = forge_qcow2.image(), forge_qcow2.with_name(b"/etc/passwd")
    path.write_bytes(good)
    stop = threading.Event()

    def flip():
        with path.open("r+b", buffering=0) as file:
            while not stop.is_set():
                for content in (bad, good):
                    os.pwrite(file.fileno(), content[:2048], 0)

    writer = threading.Thread(target=flip)
    writer.start()
    try:
        def noticed():
            image = check(path, "qcow2")
            return "has changed" in image.get("error", "")
        wait_until(noticed, "a change to be noticed")
    finally:
        stop.set()
        writer.join()


def test_shrinks(workdir):
    """So has one that is cut meanwhile."""
    path = workdir / "image"
    stop = threading.Event()

    def cut():
        with path.open("r+b", buffering=0) as file:
            while not stop.is_set():
                file.truncate(0)
                file.truncate(64 * MIB)

    path.write_bytes(b"")
    writer = threading.Thread(target=cut)
    writer.start()
    try:
        def noticed():
            image = check(path, "raw")
            assert image["verdict"] in ("safe", "error")
            return re.search("has changed|shorter", image.get("error", ""))
        wait_until(noticed, "a cut to be noticed")
    finally:
        stop.set()
        writer.join()


# ---- streams ---------------------------------------------------------------------------------

def piped(content, *arguments, **kwargs):
    """The command with this at the other end of a pipe."""
    return run("--format", "qcow2", *arguments, "-", input=bytes(content), **kwargs)


def test_pipe(images):
    """A stream has the verdict of a file, and leaves nothing behind."""
    environment = {**os.environ, "TMPDIR": str(images)}
    before = set(os.listdir(images))
    assert piped((images / "good").read_bytes(), env=environment).returncode == SAFE
    assert piped((images / "bad").read_bytes(), env=environment).returncode == UNSAFE
    assert piped(b"", env=environment).returncode == UNSAFE
    assert set(os.listdir(images)) == before
    environment["TMPDIR"] = str(images / "none")
    assert piped(b"", env=environment).returncode == ERROR


@pytest.mark.parametrize("source", ["pipe", "file"])
def test_copy_to(images, source):
    """Only what is safe gets the name, whole; and nothing is replaced."""
    def copy(name):
        arguments = ("--copy-to", images / "copy")
        if source == "pipe":
            return piped((images / name).read_bytes(), *arguments)
        return run("--format", "qcow2", *arguments, images / name)

    before = set(os.listdir(images))
    assert copy("bad").returncode == UNSAFE
    assert set(os.listdir(images)) == before
    assert copy("good").returncode == SAFE
    assert (images / "copy").read_bytes() == (images / "good").read_bytes()
    assert (images / "copy").stat().st_mode & 0o7777 == 0o600
    assert set(os.listdir(images)) == before | {"copy"}
    result = copy("good")
    assert result.returncode == ERROR and b"exists, and nothing is replaced" in result.stderr
    (images / "copy").unlink()
    (images / "copy").symlink_to(images / "nowhere")
    assert copy("good").returncode == ERROR and not (images / "nowhere").exists()


def test_copy_to_nowhere(images):
    """A directory that does not exist is an error."""
    result = piped(b"", "--copy-to", images / "none" / "copy")
    assert result.returncode == ERROR and b"cannot make a file in" in result.stderr


def test_copy_without_nameless_files(images):
    """Where files without a name are not to be had, the copy has one for a while."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    before = set(os.listdir(images))
    for name, status in (("bad", UNSAFE), ("good", SAFE)):
        result = subprocess.run(
            ["strace", "-f", "-o", "/dev/null", "-e", "trace=openat", "-e",
             "inject=openat:error=EOPNOTSUPP:when=1", "-P", images, HOLDFAST, "image", "check",
             "--format", "qcow2", "--copy-to", images / "copy", images / name],
            check=False, capture_output=True, timeout=60,
            env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"})
        assert result.returncode == status, result.stderr
    assert set(os.listdir(images)) == before | {"copy"}
    assert (images / "copy").read_bytes() == (images / "good").read_bytes()


def test_stream_without_end(images):
    """A stream is read no further than an image within the limit can go."""
    for kind, limit in (("raw", MIB), ("qcow2", 2 * MIB + (64 << 20))):
        with subprocess.Popen(["cat", "/dev/zero"], stdout=subprocess.PIPE) as source:
            result = run("--format", kind, "--max-size", "1M", "--copy-to", images / "copy",
                         "--json", "-", stdin=source.stdout, text=True)
            source.kill()
        assert result.returncode == UNSAFE
        [reason] = json.loads(result.stdout)["images"][0]["reasons"]
        assert reason["id"] == "size-limit" and reason["offset"] == limit
        assert not (images / "copy").exists()
    # nor does it help to allow it: the rest is missing
    with subprocess.Popen(["cat", "/dev/zero"], stdout=subprocess.PIPE) as source:
        result = run("--format", "raw", "--max-size", "1M", "--allow", "size-limit",
                     "--copy-to", images / "copy", "-", stdin=source.stdout)
        source.kill()
    assert result.returncode == UNSAFE and not (images / "copy").exists()


def test_killed_copy(images):
    """Who is killed in the middle leaves nothing behind."""
    before = set(os.listdir(images))
    with subprocess.Popen([HOLDFAST, "image", "check", "--format", "raw", "--copy-to",
                           images / "copy", "-"], stdin=subprocess.PIPE) as command:
        command.stdin.write(bytes(4 * MIB))
        command.stdin.flush()
        command.kill()
    left = set(os.listdir(images)) - before
    try:
        os.close(os.open(images, os.O_TMPFILE | os.O_RDWR))
        assert not left
    except OSError:  # a file system without them: what is left has no name that anybody uses
        assert all(name.startswith(".holdfast-") for name in left)


# ---- what it touches -------------------------------------------------------------------------

CALL = re.compile(r"^(?:\[pid +)?(\d+)\]? +(\w+)\((.*)$")


def traced(images, *arguments):
    """The system calls of a run: (process, name, the rest)."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    log = images / "strace"
    # a search for leaks is not possible under strace
    options = os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"
    subprocess.run(["strace", "-f", "-o", log, HOLDFAST, "image", "check", *arguments],
                   check=False, capture_output=True, timeout=60,
                   env={**os.environ, "ASAN_OPTIONS": options})
    return [CALL.match(line).groups() for line in log.read_text().splitlines()
            if CALL.match(line)]


@pytest.mark.parametrize("name, content", [
    ("safe", forge_qcow2.image()),
    ("json", forge_qcow2.with_name(b'json:{"file.filename":"/etc/passwd"}')),
    ("path", forge_qcow2.with_name(b"/etc/passwd")),
    ("network", forge_qcow2.with_name(b"nbd://127.0.0.1:1/x")),
    ("data", forge_qcow2.image(incompatible=4, extensions=forge_qcow2.extension(
        forge_qcow2.DATA_NAME, b"/etc/passwd"))),
])
def test_strace(images, name, content):
    """Once the image is open nothing is opened, nobody is talked to, nothing is started; and the
    child does nothing but read, write its verdict and end."""
    path = images / name
    path.write_bytes(content)
    calls = traced(images, "--format", "qcow2", path)
    parent = calls[0][0]
    [opened] = [i for i, (_, call, rest) in enumerate(calls)
                if call == "openat" and str(path) in rest]
    after = calls[opened + 1:]
    forbidden = ("open", "openat", "openat2", "creat", "connect", "socket", "execve", "execveat",
                 "fork", "vfork", "link", "unlink", "rename", "mkdir")
    assert not [call for call in after if call[1] in forbidden]
    assert len([call for call in after if call[1] in ("clone", "clone3")]) == 1
    assert not [rest for _, _, rest in after if "/etc/passwd" in rest
                and not rest.startswith("1, ")]
    child = [(call, rest) for pid, call, rest in after if pid != parent]
    filtered = [i for i, (call, rest) in enumerate(child)
                if "SECCOMP_MODE_FILTER" in rest or call == "seccomp"]
    assert filtered, child
    assert {call for call, _ in child[filtered[0] + 1:]} == {"pread64", "write", "exit_group"}
    assert all(rest.startswith("0, ") for call, rest in child[filtered[0] + 1:]
               if call == "pread64")
    assert len([call for call, _ in child if call == "write"]) == 1
