# SPDX-License-Identifier: LGPL-2.1-or-later
"""The process that owns a lab's QEMUs; it lives as long as the lab does.

It starts them, boots them again after a reset, writes events.log, and passes QMP commands on. It
ends, and they with it, when it is told to, at SIGTERM, or when its standard input ends: a test's
process has the other end and may be killed. If the keeper itself is killed, its children go too
(PDEATHSIG).

usage: python3 -m lab.keeper DIRECTORY          (in tests/)
"""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

from . import boot, qemu
from .plan import Plan

BOOTS_PER_MINUTE = 5    # more than these are a guest that cannot boot
START_LIMIT = 60.0      # for QEMU and virtiofsd to be there; 0.3 s on an idle host
LINE_LIMIT = 1 << 24    # QMP's answers are lines, some of them long
NOISE = ("RTC_CHANGE", "NIC_RX_FILTER_CHANGED")
SHOWN_IO_ERRORS = 5
KEPT = (".log", ".console", ".state", ".json")      # of a lab's files, when something has failed


class Fault(Exception):
    """Something that the one who asked is to be told."""


class Machine:
    """One host: its QEMU, its virtiofsds, its QMP connection."""

    def __init__(self, plan, name, event):
        self.plan = plan
        self.name = name
        self.event = lambda *words: event(name, *words)
        self.process = None
        self.reader = self.writer = None
        self.port = 0
        self.boots = []
        self.answer = None
        self.turn = asyncio.Lock()
        self.watcher = None
        self.io_errors = 0

    @property
    def on(self):
        """Whether its QEMU runs."""
        return self.process is not None and self.process.returncode is None

    async def _spawn(self, *arguments):
        with self.plan.path(self.name, "log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                "setpriv", "--pdeathsig", "KILL", *arguments,
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log)

    async def _wait_for(self, what, ready, process):
        end = time.monotonic() + START_LIMIT
        while not ready():
            if process.returncode is not None or time.monotonic() > end:
                log = self.plan.path(self.name, "log").read_text("utf-8", "replace")[-600:]
                raise Fault(f"{what} of {self.name} did not start: {log}")
            await asyncio.sleep(0.02)

    async def _serve(self, tag, cache):
        path = self.plan.path(self.name, tag)
        path.unlink(missing_ok=True)
        process = await self._spawn(
            boot.virtiofsd(), f"--socket-path={path}", "-o", "sandbox=chroot", "-o", "source=/",
            "-o", f"cache={cache}")
        await self._wait_for("virtiofsd", path.exists, process)
        return process

    async def power_on(self):
        """Boot it; returns when QEMU runs, not when the guest has booted."""
        if self.on:
            return
        if self.watcher:
            await self.watcher      # a QEMU that was killed may still be on its way out
        # the same tree twice: quick and frozen for the root, live for /host and the project
        served = [await self._serve("root", "always"), await self._serve("live", "auto")]
        self.plan.path(self.name, "qmp").unlink(missing_ok=True)
        self.io_errors = 0
        self.process = await self._spawn(*qemu.arguments(self.plan, self.name, boot.TREE))
        self.boots.append(time.monotonic())
        self.event("boot")
        try:
            await self._wait_for("QEMU", self.plan.path(self.name, "qmp").exists, self.process)
            await self._connect()
            self.watcher = asyncio.create_task(self._watch(served))
            await self.qmp("qmp_capabilities")
            table = await self.qmp("human-monitor-command", **{"command-line": "info usernet"})
            self.port = int(re.search(r"TCP\[HOST_FORWARD\]\s+\d+\s+\S+\s+(\d+)", table)[1])
        except BaseException:
            self.kill()
            raise

    async def _connect(self):
        path = str(self.plan.path(self.name, "qmp"))
        end = time.monotonic() + START_LIMIT
        while True:
            try:
                self.reader, self.writer = await asyncio.open_unix_connection(path, limit=LINE_LIMIT)
                break
            except OSError:
                if not self.on or time.monotonic() > end:
                    raise
                await asyncio.sleep(0.02)
        await self.reader.readline()        # the greeting

    async def qmp(self, command, **arguments):
        """Let QEMU do something; what it says."""
        if not self.on:
            raise Fault(f"{self.name} is off")
        async with self.turn:
            self.answer = asyncio.get_running_loop().create_future()
            self.writer.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
            answer = await self.answer
        if "error" in answer:
            raise Fault(f"{self.name}: {command}: {answer['error']['desc']}")
        return answer["return"]

    def _heard(self, line):
        """Sort one line from QEMU; why it will end, if it says so."""
        message = json.loads(line)
        name = message.get("event")
        if not name:
            if self.answer and not self.answer.done():
                self.answer.set_result(message)
            return ""
        data = message.get("data", {})
        self.io_errors += name == "BLOCK_IO_ERROR"
        if name not in NOISE and (name != "BLOCK_IO_ERROR" or self.io_errors <= SHOWN_IO_ERRORS):
            self.event(name, json.dumps(data) if data else "")
        return data.get("reason", "") if name == "SHUTDOWN" else ""

    async def _watch(self, served):
        """Follow QEMU to its end, and boot it again if that was a reset."""
        reason = ""
        with contextlib.suppress(OSError, ValueError):
            while line := await self.reader.readline():
                reason = self._heard(line) or reason
        code = await self.process.wait()
        self.writer.close()
        self.port = 0
        if self.answer and not self.answer.done():
            self.answer.set_result({"error": {"desc": "QEMU went away"}})
        for process in served:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
        self.event("off", reason or f"code {code}")
        if "reset" in reason or reason == "guest-panic":
            recent = [at for at in self.boots if at > time.monotonic() - 60]
            if len(recent) >= BOOTS_PER_MINUTE:
                self.event("given up: too many resets within a minute")
                return
            self.watcher = None
            try:
                await self.power_on()
            except (Fault, OSError) as error:
                self.event("cannot boot again:", error)

    def kill(self):
        """Cut its power."""
        if self.on:
            self.process.kill()

    async def power_cut(self):
        """Cut its power and wait until it is off."""
        if not self.on:
            raise Fault(f"{self.name} is off")
        self.event("power cut")
        self.kill()
        if self.watcher:
            await self.watcher


class Keeper:
    """All machines of a lab, and those who ask for something."""

    def __init__(self, plan):
        self.plan = plan
        self.log = plan.path("events.log").open("a", encoding="utf-8", buffering=1)
        self.machines = {name: Machine(plan, name, self.event) for name in plan.names}
        self.over = asyncio.Event()
        self.keep_logs = False

    def event(self, host, *words):
        """Write down what happened."""
        text = " ".join(str(word) for word in words if word != "")
        self.log.write(f"{time.time():.3f} {host} {text}\n")

    async def do(self, request):
        """Carry out one request."""
        machine = self.machines.get(request.get("host"))
        match request["do"]:
            case "status":
                return {"keeper": {"pid": os.getpid()}} | {
                    name: {"on": one.on, "port": one.port, "boots": len(one.boots),
                           "pid": one.process.pid if one.on else 0}
                    for name, one in self.machines.items()}
            case "power-on":
                await machine.power_on()
            case "power-cut":
                await machine.power_cut()
            case "qmp":
                return await machine.qmp(request["command"], **request["arguments"])
            case "signal":
                if not machine.on:
                    raise Fault(f"{machine.name} is off")
                machine.process.send_signal(request["number"])
            case "event":
                self.event(request["host"], request["text"])
            case "down":
                self.keep_logs = request["keep_logs"]
                self.over.set()
        return None

    async def serve(self, reader, writer):
        """Answer one connection's requests."""
        with contextlib.suppress(OSError, ValueError):
            while line := await reader.readline():
                try:
                    answer = {"return": await self.do(json.loads(line))}
                except (Fault, OSError) as error:
                    answer = {"error": str(error) or repr(error)}
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        writer.close()

    async def run(self, listener):
        """Serve until it is over."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self.over.set)
        if not os.isatty(0) and os.fstat(0).st_rdev != os.stat(os.devnull).st_rdev:
            loop.add_reader(0, self._lifeline)
        await asyncio.start_unix_server(self.serve, sock=listener, limit=LINE_LIMIT)
        await self.over.wait()
        for machine in self.machines.values():
            machine.kill()
        for machine in self.machines.values():
            if machine.on:
                await machine.process.wait()

    def _lifeline(self):
        if not os.read(0, 4096):
            asyncio.get_running_loop().remove_reader(0)
            self.over.set()


def main():
    """Keep the lab whose directory is named."""
    plan = Plan.load(sys.argv[1])
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(plan.path("keeper")))
    listener.listen()
    keeper = Keeper(plan)
    asyncio.run(keeper.run(listener))
    if keeper.keep_logs:
        for path in Path(plan.directory).iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.suffix not in KEPT:
                path.unlink()
    else:
        shutil.rmtree(plan.directory, ignore_errors=True)


if __name__ == "__main__":
    main()
