# SPDX-License-Identifier: LGPL-2.1-or-later
"""Completions in real shells, and that these, the manual pages and the help tell the same."""

import os
import pty
import re
import select
import shutil
import subprocess
import time

import lock_rig
import pytest
# pylint: disable=unused-import
from cli_rig import HOLDFAST, fixture_daemon, fixture_holdfast, pytestmark

COMPLETIONS = lock_rig.REPOSITORY / "completions"
MAN = lock_rig.REPOSITORY / "docs" / "man"
BUILTIN = ("help", "version")  # verbs without a manual page of their own
VERBS = ("run", "acquire", "release", "locks", "who", "status", "metrics", "watch", "drivers",
         "pr", "image", "check-config")

# Each shell prints <<BUFFER>> on Ctrl-X P, completes with one Tab, and never asks or pages.
SETUP = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], f"""
bind 'set show-all-if-ambiguous on'; bind 'set completion-query-items 0'
bind 'set page-completions off'; bind 'set enable-bracketed-paste off'; bind 'set bell-style none'
show() {{ printf '\\n<<%s>>\\n' "$READLINE_LINE"; READLINE_LINE=; READLINE_POINT=0; }}
bind -x '"\\C-xp": show'
source {COMPLETIONS}/bash/holdfast
"""),
    "zsh": (["zsh", "-f", "-i"], f"""
unsetopt zle_bracketed_paste prompt_sp beep 2>/dev/null; unset zle_bracketed_paste
LISTMAX=9999; fpath=({COMPLETIONS}/zsh $fpath); autoload -U compinit; compinit -u -D
zstyle ':completion:*' verbose no
show() {{ print -r -- $'\\n'"<<$BUFFER>>"; BUFFER=; zle reset-prompt; }}
zle -N show; bindkey '^Xp' show
"""),
}
BASH_COMPLETION = "/usr/share/bash-completion/bash_completion"
if os.path.exists(BASH_COMPLETION):
    SETUP["bash with bash-completion"] = (
        SETUP["bash"][0], f"source {BASH_COMPLETION}\n{SETUP['bash'][1]}")


class Shell:
    """An interactive shell on a terminal of its own."""

    def __init__(self, name, workdir):
        arguments, setup = SETUP[name]
        pid, self.terminal = pty.fork()
        if pid == 0:
            os.chdir(workdir)
            os.environ.update({"TERM": "vt100", "PS1": "", "PS2": "", "HISTFILE": "/dev/null",
                               "HOME": str(workdir), "COLUMNS": "200", "LINES": "500",
                               "PATH": f"{HOLDFAST.parent}:{workdir}/bin:{os.environ['PATH']}"})
            os.execvp(arguments[0], arguments)
        self.pid = pid
        (workdir / "setup").write_text(setup)
        self.send("stty -echo cols 200 rows 500\n. ./setup\n")
        self.send("echo '<<rea''dy>>'\n")
        self.read_until("<<ready>>")

    def send(self, text):
        """Type."""
        os.write(self.terminal, text.encode())

    def read_until(self, end, seconds=60):
        """What is printed until the regular expression appears."""
        output, limit = "", time.monotonic() + seconds
        while not re.search(end, output):
            ready, _, _ = select.select([self.terminal], [], [], max(0, limit - time.monotonic()))
            assert ready, f"{end!r} did not come, but {output!r}"
            output += os.read(self.terminal, 65536).decode(errors="replace")
            # Padding, and what moves the cursor or clears a part of the screen.
            output = re.sub(r"\0|\x1b\[[0-9;?]*[A-Za-z]", "", output)
        return output

    def complete(self, text):
        """Complete text: the words that are offered, and what the line is then."""
        self.send(text + "\t\x18p")
        output = self.read_until("<<.*>>")
        # What the shell may still paint belongs to this one, not to the next.
        self.send("echo '<<do''ne>>'\n")
        self.read_until("<<done>>")
        return output, re.search("<<(.*)>>", output)[1]

    def close(self):
        """End it."""
        os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)
        os.close(self.terminal)


@pytest.fixture(name="shell", params=sorted(SETUP))
def fixture_shell(request, workdir, monkeypatch):
    """A shell in workdir, which has a few files."""
    if not shutil.which(request.param.split()[0]):
        pytest.skip(f"{request.param.split()[0]} is not installed")
    (workdir / "a.img").touch()
    (workdir / "blank name.img").touch()
    (workdir / "locks").mkdir()
    (workdir / "bin").mkdir()
    (workdir / "bin" / "start-my-guest").touch(0o755)
    monkeypatch.setenv("HOLDFAST_SOCKET", str(workdir / "s"))
    shell = Shell(request.param, workdir)
    yield shell
    shell.close()


def test_completion(shell, daemon):
    """What can only be one thing is completed."""
    daemon.replies["query-drivers"] = {"drivers": [{"name": "lockd"}, {"name": "$(touch x)"}]}
    for text, line in (
            ("lo", "locks "),
            ("--js", "--json "),
            ("--json sta", "--json status "),
            ("--socket a.i", "--socket a.img "),
            ("run --wit", "run --with-children "),
            ("run --disk a.i", "run --disk a.img"),
            ("run --disk=a.i", "run --disk=a.img"),
            ("run -d bla", "run -d blank\\ name.img"),
            ("run -d a.img,sh", "run -d a.img,shared"),
            ("run --disk a.img,exc", "run --disk a.img,exclusive"),
            ("run --domain a.i", "run --domain a.img"),
            ("run -d a.img start-my-g", "run -d a.img start-my-guest"),
            ("run -d a.img -- start-my-g", "run -d a.img -- start-my-guest"),
            ("run -d a.img -- cat a.i", "run -d a.img -- cat a.img"),
            ("run --disk a.img cat a.i", "run --disk a.img cat a.img"),
            ("acquire --wa", "acquire --wait"),
            ("release --lease lo", "release --lease locks"),
            ("who a.i", "who a.img"),
            ("watch -e LEASE_REF", "watch -e LEASE_REFUSED"),
            ("metrics --out", "metrics --output "),
            ("metrics -o a.i", "metrics -o a.img"),
            ("drivers lo", "drivers lockd"),
            ("pr sta", "pr status"),
            ("pr status a.i", "pr status a.img"),
            ("pr log --fol", "pr log --follow"),
            ("pr log --file a.i", "pr log --file a.img"),
            ("check-config a.i", "check-config a.img"),
            ("image ch", "image check"),
            ("image check --format qco", "image check --format qcow"),
            ("image check --allow siz", "image check --allow size-"),
            ("image check --allow wr", "image check --allow wrong-format"),
            ("image check --format raw a.i", "image check --format raw a.img"),
            ("help rel", "help release")):
        _, completed = shell.complete(f"holdfast {text}")
        # Whether a blank, a slash or "=" follows is up to the shell.
        assert re.fullmatch(re.escape(f"holdfast {line}".rstrip()) + "[ /=]*", completed), text
    assert not os.path.exists(os.path.join(os.path.dirname(daemon.path), "x"))


def test_completion_reasons(shell):
    """Each reason of the page can be allowed."""
    page = (MAN.parent / "checking-images.rst").read_text(encoding="utf-8")
    table = re.search(r"\nReasons\n(.*?)\nStricter than QEMU\n", page, re.DOTALL)[1]
    reasons = set(re.findall(r"(?m)^([a-z][a-z0-9-]+) {2,}[A-Z]", table))
    words = shell.complete("holdfast image check --allow ")[0].split()
    assert len(reasons) > 30 and set(words) & reasons == reasons


def test_completion_offers(shell):
    """What can be several things is offered."""
    assert set(VERBS + BUILTIN) <= set(shell.complete("holdfast ")[0].split())
    words = shell.complete("holdfast watch --event ")[0].split()
    assert {"LEASE_ACQUIRED", "LEASE_RELEASED", "LEASE_REFUSED", "OWNER_STOPPING",
            "OWNER_GONE"} <= set(words)
    words = shell.complete("holdfast acquire --pid ")[0].split()
    assert {"1", str(os.getpid())} <= set(words)
    words = shell.complete("holdfast run -d a.img,")[0].replace("a.img,", " ").split()
    assert {"exclusive", "shared", "ro", "readonly"} <= set(words)


def options_of(holdfast, verb):
    """The long options of a verb, as its help has them: all, and those that only it has."""
    own, common = holdfast("help", verb).stdout.split("\nGlobal options:\n")
    return [set(re.findall(r"^  (?:-\w, |    )(--[\w-]+)", part, re.MULTILINE))
            for part in (own, common)]


def test_completion_options(shell, holdfast):
    """Every option in the help is offered, and no other."""
    for verb in VERBS + BUILTIN:
        own, common = options_of(holdfast, verb)
        words = set(re.findall(r"--[a-z-]+(?![^\s=])", shell.complete(f"holdfast {verb} --")[0]))
        assert words - {"--"} == own | common, verb


@pytest.mark.skipif(not shutil.which("rst2man"), reason="rst2man is not installed")
@pytest.mark.parametrize("page", sorted(path.name for path in MAN.glob("*.rst")))
def test_manual_page(page, workdir):
    """Each page is without fault for rst2man and for man."""
    subprocess.run(["rst2man", "--strict", MAN / page, workdir / "page"], check=True)
    if shutil.which("man"):
        result = subprocess.run(["man", "--warnings", "-E", "UTF-8", "-l", workdir / "page"],
                                check=True, capture_output=True, text=True)
        assert not result.stderr and "NAME" in result.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_manual_options(holdfast, verb):
    """Each option in the help is in the manual, and the other way round."""
    own, _ = options_of(holdfast, verb)
    text = (MAN / f"holdfast-{verb}.1.rst").read_text()
    assert set(re.findall(r"^(?:-\w.*?, )?(--\w[\w-]*)(?: [A-Z]+)?$", text, re.MULTILINE)) == own


def test_manual_global(holdfast):
    """The overview has every verb and the global options."""
    text = (MAN / "holdfast.1.rst").read_text()
    _, common = options_of(holdfast, "run")
    assert set(re.findall(r"^(?:-\w, )?(--\w[\w-]*)(?: [A-Z]+)?$", text, re.MULTILINE)) == common
    assert set(re.findall(r"^\*\*([\w-]+)\*\*(?: \[\*VERB\*\])?$", text, re.MULTILINE)) >= set(
        VERBS + BUILTIN)
