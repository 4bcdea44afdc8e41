# SPDX-License-Identifier: LGPL-2.1-or-later
"""The lab's command line.

A lab's directory comes from $LAB_RUN; without it, the verbs mean the one lab that runs.
"""

import argparse
import json
import os
import sys
import threading

from . import cluster
from .errors import LabError

EXIT_NO_LAB = 255       # as ssh: the command itself was not run


def _lab():
    if os.environ.get("LAB_RUN"):
        return cluster.Lab.join(os.environ["LAB_RUN"])
    found = cluster.running()
    if len(found) == 1:
        return cluster.Lab.join(found[0])
    if not found:
        raise LabError("no lab runs; start one: lab up 3")
    raise LabError("several labs run; choose one: "
                   + " or ".join(f"export LAB_RUN={path}" for path in found))


def _host(lab, name):
    try:
        return getattr(lab, name)
    except AttributeError:
        raise LabError(f"there is no host {name}; there are {' '.join(map(str, lab.hosts))}") from None


def up(options):
    """boot N hosts"""
    names = [f"h{n + 1}" for n in range(options.n)] if options.systemd == "all" else [
        name for name in options.systemd.split(",") if name]
    lab = cluster.Lab(options.n, detached=True, systemd=names, memory=options.memory,
                      processors=options.processors, shared=options.shared, sector=options.sector, nvme=options.nvme)
    print(f"export LAB_RUN={lab.directory}")


def execute(options):
    """run a command (one word: by bash); its output and exit code come back"""
    streams = {b"o": sys.stdout.buffer, b"e": sys.stderr.buffer}

    def show(letter, data):
        streams[letter].write(data)
        streams[letter].flush()

    words = options.command
    running = _host(_lab(), options.host).start(
        words[0] if len(words) == 1 else words, None if options.stdin else b"", on_output=show)
    if options.stdin:
        def feed():
            while data := sys.stdin.buffer.read1(65536):
                running.call.send_input(data)
            running.call.send_input(b"")
        threading.Thread(target=feed, daemon=True).start()
    try:
        result = running.wait(options.timeout, check=False)
    finally:
        running.kill()
    return 124 if result.code is None else result.code


def shell(options):
    """run a bash command on every host, each line with the host's name"""
    results = _lab().run(options.command, options.timeout)
    for name, result in results.items():
        lines = (result.out + result.err).splitlines()
        print("".join(f"{name}: {line}\n" for line in lines), end="")
        if result.code != 0:
            print(f"{name}: exit code {result.code}")
    return max((1 if one.code is None else one.code for one in results.values()), default=0)


def _show(lab):
    for host in lab.hosts:
        facts = host.status()
        print(f"{host} {'on' if facts['on'] else 'off'} boots={facts['boots']} pid={facts['pid']}")


def _iscsi(options):
    print(_lab().iscsi(paths=options.paths, multipath=options.multipath))


def _verbs():
    """name: (function, help, its arguments)"""
    host = ("host", {})
    lan = ("--lan", {"type": int, "choices": (0, 1), "help": "one of the two LANs only"})
    seconds = {"type": float, "metavar": "SECONDS"}

    def on_host(action):
        return lambda options: action(_host(_lab(), options.host), options)

    return {
        "up": (up, up.__doc__, ("n", {"type": int}),
               ("--systemd", {"default": "", "metavar": "HOSTS",
                              "help": "hosts with systemd as process 1, such as h1,h3, or all"}),
               ("--memory", {"type": int, "default": 512, "help": "of each, in MiB"}),
               ("--processors", {"type": int, "default": 1, "help": "of each"}),
               ("--shared", {"default": "256M", "help": "size of the shared disk"}),
               ("--sector", {"type": int, "default": 512, "help": "its sector size"}),
               ("--nvme", {"action": "store_true", "help": "an NVMe disk, too, that all see"})),
        "exec": (execute, execute.__doc__, ("-i", {"dest": "stdin", "action": "store_true",
                                                   "help": "pass standard input on"}),
                 ("-t", {"dest": "timeout", "default": 1e9, **seconds}), host,
                 ("command", {"nargs": argparse.REMAINDER})),
        "sh": (shell, shell.__doc__, ("-t", {"dest": "timeout", "default": 600.0, **seconds}),
               ("command", {})),
        "power-cut": (on_host(lambda h, _: h.power_cut()), "take its power, nothing is flushed", host),
        "power-on": (on_host(lambda h, _: h.power_on()), "boot it", host),
        "reboot": (on_host(lambda h, _: h.reboot()), "press the reset button", host),
        "partition": (on_host(lambda h, o: h.partition(o.lan, o.carrier)), "cut it off the LANs", host, lan,
                      ("--carrier", {"action": "store_true", "help": "and its NIC sees that"})),
        "heal": (on_host(lambda h, o: h.heal(o.lan)), "undo partition", host, lan),
        "freeze": (on_host(lambda h, o: h.freeze(o.stall)), "stop it and its clock", host,
                   ("--stall", {"action": "store_true", "help": "its clock will jump"})),
        "thaw": (on_host(lambda h, _: h.thaw()), "undo freeze", host),
        "storage-cut": (on_host(lambda h, o: h.storage_cut(o.how)), "break the shared disk for it", host,
                        ("how", {"nargs": "?", "default": "hang",
                                 "choices": ("hang", "error", "unplug")})),
        "storage-heal": (on_host(lambda h, _: h.storage_heal()), "undo storage-cut", host),
        "nfs": (lambda o: _lab().nfs(lease=o.lease, options=o.options),
                "h1 serves NFSv4.2 to the others, at /mnt/nfs",
                ("--lease", {"type": int, "default": 20, "metavar": "SECONDS"}),
                ("--options", {"default": "hard", "help": "of the mount"})),
        "iscsi": (_iscsi, "h1 serves an iSCSI LUN to the others; prints its path there",
                  ("--paths", {"type": int, "choices": (1, 2), "default": 1}),
                  ("--multipath", {"action": "store_true", "help": "with dm-multipath"})),
        "tcm-loop": (on_host(lambda h, _: print(h.tcm_loop())),
                     "a LUN of its own by LIO's loopback; prints its path", host),
        "install": (on_host(lambda h, _: h.install()), "install the build into it, with its units", host),
        "events": (lambda _: print(_lab().events(), end=""), "what has happened"),
        "status": (lambda _: _show(_lab()), "which hosts have power"),
        "console": (on_host(lambda h, _: print(h.console(), end="")), "what a host wrote on its console",
                    host),
        "qmp": (on_host(lambda h, o: print(json.dumps(h.qmp(o.command, **json.loads(o.arguments)),
                                                      indent=1))),
                "a command for its QEMU", host, ("command", {}),
                ("arguments", {"nargs": "?", "default": "{}", "help": "as JSON"})),
        "down": (lambda _: _lab().close(), "end the lab"),
    }


def main():
    """Do what the arguments say; the exit code."""
    parser = argparse.ArgumentParser(prog="lab", description=__doc__.strip(),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    table = _verbs()
    for name, (_, text, *arguments) in table.items():
        verb = verbs.add_parser(name, help=text)
        for argument, how in arguments:
            verb.add_argument(argument, **how)
    options = parser.parse_args()
    try:
        return table[options.verb][0](options) or 0
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return EXIT_NO_LAB
    except KeyboardInterrupt:
        return 130
