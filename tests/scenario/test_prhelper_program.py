# SPDX-License-Identifier: LGPL-2.1-or-later
"""The persistent-reservation helper as a program: options, start and end, sockets, confinement."""

import os
import shutil
import signal
import socket
import subprocess
import threading
from contextlib import contextmanager

import pr_rig
import pr_wire
import pytest
from pr_wire import CHECK_CONDITION, PrClient
from waiting import DEADLINE, wait_until

PROGRAM = pr_rig.binary("holdfast")
STOCK_NAME = PROGRAM.with_name("qemu-pr-helper")
NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="not root")
pytestmark = pytest.mark.skipif(bool(pr_rig.missing("holdfast")),
                                reason=str(pr_rig.missing("holdfast")))


def run(*arguments, program=PROGRAM, **options):
    """Run the program to its end."""
    return subprocess.run([program, *arguments], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=2 * DEADLINE, check=False, **options)


@pytest.fixture(name="empty")
def fixture_empty(workdir):
    """A configuration without settings."""
    path = workdir / "empty.conf"
    path.touch()
    return path


@contextmanager
def background(workdir, empty, *arguments, program=PROGRAM):
    """A helper that was started with -d: its pid, and at the end it is ended."""
    pid_file = workdir / "pr.pid"
    result = run("-d", "-k", workdir / "pr.sock", "-f", pid_file, "-c", empty, *arguments,
                 program=program)
    assert result.returncode == 0, result.stderr
    pid = int(pid_file.read_text(encoding="ascii"))  # run() has waited for its end of our pipes
    pidfd = os.pidfd_open(pid)
    try:
        yield pid
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        wait_until(lambda: is_gone(pid), "the helper to end")
    except BaseException:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        raise
    finally:
        os.close(pidfd)


def is_gone(pid):
    """Whether the process has ended (where nobody waits for it, it stays as a zombie)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def answers(path):
    """Whether a helper at that path carries a request out."""
    device = pr_wire.open_device("/dev/null")
    try:
        with PrClient(path) as client:
            return client.read(device).status == CHECK_CONDITION
    finally:
        os.close(device)


# ---- options -------------------------------------------------------------------------------------

@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help(option):
    """The help names every option of qemu-pr-helper."""
    result = run(option)
    assert result.returncode == 0 and not result.stderr
    for name in ("-h, --help", "-V, --version", "-d, --daemon", "-f, --pidfile=", "-k, --socket=",
                 "-T, --trace", "-u, --user=", "-g, --group=", "-v, --verbose", "-q, --quiet",
                 "/run/qemu-pr-helper.sock", "/run/qemu-pr-helper.pid"):
        assert name in result.stdout, name


@pytest.mark.parametrize("program", [PROGRAM, STOCK_NAME], ids=lambda path: path.name)
def test_version(program):
    """It says who it is, by the name by which it was called."""
    result = run("-V", program=program)
    assert result.returncode == 0 and result.stdout.startswith(f"{program.name} (Holdfast) ")
    assert run("--version", program=program).stdout == result.stdout


@pytest.mark.parametrize("arguments, complaint", [
    (["--nonsense"], "nonsense"), (["-k"], "k"), (["file"], "'file'"),
    (["--config", "/nonexistent/x"], "/nonexistent/x"), (["-u", "no-such-user"], "no-such-user"),
    (["-g", "no-such-group"], "no-such-group"), (["-k", "/tmp/" + 200 * "x"], "too long"),
    (["-k", "/nonexistent/pr.sock"], "/nonexistent/pr.sock")])
def test_wrong_arguments(arguments, complaint, workdir):
    """What cannot be is told, and nothing is served."""
    result = run(*([] if "-k" in arguments else ["-k", workdir / "pr.sock"]), *arguments)
    assert result.returncode in (1, 2) and complaint in result.stderr
    assert not list(workdir.iterdir())


def test_quiet_and_verbose(workdir):
    """-q leaves only errors; -T is accepted."""
    for option, talks in (("-q", False), ("-v", True)):
        with pr_rig.Helper("holdfast", workdir, option, name=f"pr{option}") as helper:
            assert helper.end() == 0
            assert bool(helper.text()) == talks, helper.text()
    with pr_rig.Helper("holdfast", workdir, "-T", "enable=pr_*", name="pr-T") as helper:
        assert answers(helper.socket) and helper.end() == 0


# ---- in the background ---------------------------------------------------------------------------

@pytest.mark.parametrize("program", [PROGRAM, STOCK_NAME], ids=lambda path: path.name)
def test_background(workdir, empty, program):
    """-d returns when it serves; socket and pid file are removed at the end."""
    with background(workdir, empty, program=program) as pid:
        assert answers(workdir / "pr.sock")
        assert os.readlink(f"/proc/{pid}/fd/2") == "/dev/null"
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert sorted(path.name for path in workdir.iterdir()) == ["empty.conf"]


@needs_root
@pytest.mark.parametrize("directory_uid", [0, 1234], ids=["root's", "another's"])
@pytest.mark.parametrize("arguments", [[], ["-u", "nobody"], ["-u", "1234", "-g", "12"],
                                       ["-g", "nogroup"]], ids=" ".join)
def test_other_user(workdir, empty, arguments, directory_uid):
    """-u and -g are who it becomes; socket and pid file are removed all the same."""
    wanted = {"-u": 0, "-g": 0}
    given = dict(zip(arguments[::2], arguments[1::2]))
    wanted.update((key, NOBODY if value in ("nobody", "nogroup") else int(value))
                  for key, value in given.items())
    if given.get("-u") == "nobody" and "-g" not in given:
        wanted["-g"] = NOBODY
    os.chown(workdir, directory_uid, 0)
    with background(workdir, empty, *arguments) as pid:
        status = dict(line.split(":", 1) for line in
                      (pr_status(pid)).splitlines() if ":" in line)
        assert status["Uid"].split() == 4 * [str(wanted["-u"])]
        assert status["Gid"].split() == 4 * [str(wanted["-g"])]
        if given:
            assert not status["Groups"].split()
        assert answers(workdir / "pr.sock")
    wait_until(lambda: sorted(path.name for path in workdir.iterdir()) == ["empty.conf"],
               "socket and pid file to be removed")


def pr_status(pid):
    """Its /proc/PID/status."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return status.read()


@needs_root
def test_killed(workdir, empty):
    """With -u they are removed even when it is killed."""
    with background(workdir, empty, "-u", "nobody") as pid:
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not (workdir / "pr.sock").exists(), "the socket to be removed")
        wait_until(lambda: not (workdir / "pr.pid").exists(), "the pid file to be removed")


@pytest.mark.parametrize("obstacle", ["no directory", "live socket", "a file", "bad setting",
                                      "pid file"])
def test_background_fails_loudly(workdir, empty, obstacle):
    """When it cannot serve, -d says why and returns an error; nothing is left."""
    path, config, pid_file = workdir / "pr.sock", empty, workdir / "pr.pid"
    if obstacle == "no directory":
        path = workdir / "none" / "pr.sock"
    elif obstacle == "a file":
        path.write_text("mine", encoding="ascii")
    elif obstacle == "bad setting":
        config = workdir / "bad.conf"
        config.write_text("no_such_setting = 1\n", encoding="ascii")
    elif obstacle == "pid file":
        pid_file = workdir / "none" / "x" / "pr.pid"
        (workdir / "none").write_text("a file, where a directory would have to be",
                                      encoding="ascii")
    with socket.socket(socket.AF_UNIX) as other:
        if obstacle == "live socket":
            other.bind(str(path))
            other.listen()
        before = sorted(workdir.rglob("*"))
        result = run("-d", "-k", path, "-f", pid_file, "-c", config)
    assert result.returncode == 1 and result.stderr.startswith("holdfast-pr-helper: ")
    assert {"no directory": str(path), "live socket": "another helper serves", "a file": "no socket",
            "bad setting": "no_such_setting", "pid file": str(pid_file)}[obstacle] in result.stderr
    assert sorted(workdir.rglob("*")) == before


# ---- the socket ----------------------------------------------------------------------------------

def test_live_socket(workdir):
    """A socket that somebody serves is not taken over; that helper goes on."""
    with pr_rig.Helper("holdfast", workdir) as helper:
        for _ in range(2):
            result = run("-k", helper.socket, "-c", helper.config)
            assert result.returncode == 1 and "another helper serves" in result.stderr
        assert answers(helper.socket) and helper.end() == 0
    assert not helper.socket.exists()


def test_stale_socket(workdir):
    """What a killed helper has left is replaced, and its end does not remove a later one's."""
    with pr_rig.Helper("holdfast", workdir) as helper:
        helper.end(signal.SIGKILL)
        assert helper.socket.exists()
        helper.start()
        assert answers(helper.socket)
        helper.socket.rename(workdir / "moved")
        with pr_rig.Helper("holdfast", workdir) as successor:
            wait_until(lambda: pr_rig.listens(successor.socket, 2), "the successor's socket")
            assert helper.end() == 0
            assert answers(successor.socket)


def test_two_start_at_once(workdir, empty):
    """Of several that start at a dead socket's path, one serves and the others say so."""
    path = workdir / "pr.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    processes = [subprocess.Popen([PROGRAM, "-k", path, "-c", empty], stdin=subprocess.DEVNULL,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
                 for _ in range(4)]
    try:
        wait_until(lambda: sum(process.poll() is None for process in processes) == 1,
                   "all but one to give up")
        wait_until(lambda: pr_rig.listens(path), "one to serve")
        assert answers(path)
    finally:
        for process in processes:
            if process.poll() is None:
                process.terminate()
            complaint = process.communicate(timeout=DEADLINE)[1]
            assert process.returncode == 0 or b"another helper serves" in complaint
    assert not path.exists()


# ---- activation ----------------------------------------------------------------------------------

@pytest.fixture(name="listener")
def fixture_listener(workdir):
    """A listening socket, as a socket unit has one."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(workdir / "activated.sock"))
        listener.listen(16)
        yield listener


def test_activation(workdir, empty, listener):
    """It serves the socket that is handed over, makes none, and leaves that one alone."""
    helper = pr_rig.activate("holdfast", listener, "-c", empty)
    try:
        assert answers(workdir / "activated.sock")
        helper.terminate()
        assert helper.wait(DEADLINE) == 0
        assert sorted(path.name for path in workdir.iterdir()) == ["activated.sock", "empty.conf"]
    finally:
        helper.kill()
        helper.communicate()


@pytest.mark.parametrize("number, arguments, complaint",
                         [(2, [], "more than one"), (1, ["-k", "/nonexistent"], "--socket")])
def test_wrong_activation(listener, empty, number, arguments, complaint):
    """More than one socket, or one and -k, is a mistake."""
    helper = pr_rig.activate("holdfast", listener, "-c", empty, *arguments, number=number)
    error = helper.communicate(timeout=DEADLINE)[1]
    assert helper.returncode == 1 and complaint in error


def test_activation_needs_a_listening_socket(workdir, empty):
    """Something else that is handed over is refused."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wrong:
        wrong.bind(str(workdir / "dgram"))
        helper = pr_rig.activate("holdfast", wrong, "-c", empty)
        error = helper.communicate(timeout=DEADLINE)[1]
    assert helper.returncode == 1 and "no listening unix stream socket" in error


# ---- restart -------------------------------------------------------------------------------------

class Guest(threading.Thread):
    """Sends commands without a pause, with QEMU's way to deal with a helper that goes away.

    QEMU tries five times, one second apart; on a busy machine a program may take longer to start.
    """

    ATTEMPTS, PAUSE = 60, 1.0

    def __init__(self, path, device):
        super().__init__()
        self.path, self.device = path, device
        self.client = None
        self.stop = threading.Event()
        self.errors, self.answers, self.connections = [], 0, 0

    def connect(self):
        """Try once; if it fails, wait a second, as QEMU."""
        try:
            self.client = PrClient(self.path)
            self.connections += 1
            return True
        except (OSError, pr_wire.Closed):
            self.client = None
            self.stop.wait(self.PAUSE)
            return False

    def command(self):
        """Send until a request went out; from then on every trouble is the guest's."""
        for _ in range(self.ATTEMPTS):
            if not self.client and not self.connect():
                continue
            try:
                self.client.send(pr_wire.cdb_in(0), self.device)
                return self.client.answer()
            except pr_wire.Closed as error:
                self.client.close()
                self.client = None
                if "of 104" in str(error):
                    raise
        raise pr_wire.Closed("no helper in all these attempts")

    def run(self):
        while not self.stop.is_set():
            try:
                assert self.command().code == "b/00/06"
                self.answers += 1
            except (pr_wire.Closed, AssertionError, OSError) as error:
                self.errors.append(repr(error))
        if self.client:
            self.client.close()


@contextmanager
def guests(path, number=4):
    """So many guests at work; at the end none has seen an error."""
    device = pr_wire.open_device("/dev/null")
    running = [Guest(path, device) for _ in range(number)]
    for guest in running:
        guest.start()
    try:
        yield running
    finally:
        for guest in running:
            guest.stop.set()
        for guest in running:
            guest.join(2 * DEADLINE)
        os.close(device)
    assert [guest.errors for guest in running] == [[]] * number


def all_progress(running):
    """Wait until each guest has got an answer to what it sent from now on: the second at the latest.

    The first may have come before, in a thread that had no time to count it.
    """
    before = [guest.answers for guest in running]
    wait_until(lambda: all(guest.answers > n + 1 or guest.errors
                           for guest, n in zip(running, before)), "an answer for each guest")
    assert [guest.errors for guest in running] == [[]] * len(running)


def test_restart_with_activation(workdir, empty, listener):
    """Guests do not notice that the helper is restarted: they wait in systemd's socket."""
    helper = pr_rig.activate("holdfast", listener, "-c", empty)
    try:
        with guests(workdir / "activated.sock") as running:
            for _ in range(5):
                all_progress(running)
                helper.terminate()
                assert helper.wait(DEADLINE) == 0
                helper.communicate()
                helper = pr_rig.activate("holdfast", listener, "-c", empty)
            all_progress(running)
            assert all(guest.connections == 6 for guest in running)
    finally:
        helper.kill()
        helper.communicate()


def test_restart_without_activation(workdir):
    """Nor without systemd: QEMU tries again every second, five times."""
    with pr_rig.Helper("holdfast", workdir) as helper:
        with guests(helper.socket) as running:
            for _ in range(2):
                all_progress(running)
                assert helper.end() == 0
                helper.start()
            all_progress(running)
        assert helper.end() == 0


def test_end_with_half_a_request(workdir):
    """Who has sent only half of a request does not hold up the end."""
    with pr_rig.Helper("holdfast", workdir) as helper, helper.client() as client:
        client.send(pr_wire.cdb_in(0)[:5])
        assert helper.end() == 0
        with pytest.raises(pr_wire.Closed):
            client.receive(1)


def test_end_between_the_parts_of_a_request(workdir):
    """The end comes between the two writes of a command: it is answered; no other one begins."""
    for _ in range(5):  # a second is what the helper waits for it; this machine may take longer
        with pr_rig.Helper("holdfast", workdir) as helper, helper.client() as client, \
                helper.client() as idle, open("/dev/null", "r+b") as device:
            client.send(pr_wire.cdb_out(pr_wire.REGISTER), device.fileno())
            helper.process.send_signal(signal.SIGTERM)
            with pytest.raises(pr_wire.Closed):  # it has begun to end
                idle.receive(1)
            try:
                client.send(pr_wire.parameters(0, 0xa))
                assert client.answer().code == "b/00/06"
            except pr_wire.Closed:
                continue
            with pytest.raises(pr_wire.Closed):
                client.receive(1)
            assert helper.end() == 0
            break
    else:
        pytest.fail("no answer")


# ---- confinement ---------------------------------------------------------------------------------

@needs_root
def test_confinement(workdir):
    """Of root's privileges those that the back ends need are left, for ever."""
    with pr_rig.Helper("holdfast", workdir) as helper:
        with helper.client():  # it listens first, and accepts when all is given up
            pass
        raw_io = 1 << 17
        for key in ("CapEff", "CapPrm", "CapBnd"):
            assert int(helper.status(key), 16) == raw_io, key
        for key in ("CapInh", "CapAmb"):
            assert int(helper.status(key), 16) == 0, key
        assert helper.status("NoNewPrivs") == "1" and helper.status("Seccomp") == "2"
        assert helper.end() == 0


@needs_root
def test_without_privileges(workdir, empty):
    """A user may run it: it says what will not work, and serves."""
    os.chown(workdir, NOBODY, NOBODY)
    path = workdir / "pr.sock"
    program = shutil.copy(PROGRAM, workdir)  # it may be in a directory of root's
    helper = subprocess.Popen([program, "-k", path, "-c", empty], stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                              user=NOBODY, group=NOBODY, extra_groups=[])
    try:
        wait_until(lambda: pr_rig.listens(path) or helper.poll() is not None, "it to serve")
        assert answers(path)
        helper.terminate()
        error = helper.communicate(timeout=DEADLINE)[1]
        assert helper.returncode == 0 and "CAP_SYS_RAWIO" in error
        assert not path.exists()
    finally:
        helper.kill()
        helper.communicate()
