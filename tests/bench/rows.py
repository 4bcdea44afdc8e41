# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is measured, what it is compared with, and the goals."""

import signal
import subprocess
from dataclasses import dataclass

from stage import DISKS, SLOW, SPACE, LoadError

BLOCKED_AFTER = 5  # seconds; what takes so long takes one otherwise
SLOW_MS = 20
HUNG_CALLERS = 16


# ---- measurements: functions of the stage, the daemon's name, and a scale (1, or less to be quick)

def _count(number, scale):
    return max(2, round(number * scale))


def _load(mode, count, **settings):
    """A measurement with the load generator on the shared rig."""
    def measure(stage, daemon, scale):
        return stage.rig(daemon).load(mode, count=_count(count, scale), **settings)
    return measure


def _floor(mode, count, **settings):
    """The same without a daemon; it needs a sandbox all the same."""
    def measure(stage, _daemon, scale):
        return stage.rig("holdfast").load(mode, count=_count(count, scale), **settings,
                                          socket=f"{DISKS}/floor.sock")
    return measure


def _memory(stage, daemon, scale):
    locks = _count(10000, scale)
    with stage.fresh(daemon) as rig:
        before = rig.memory()
        with rig.locked(locks):
            after = rig.memory()
    return {"rss_0": before["rss"], "pss_0": before["pss"], "rss": after["rss"],
            "pss": after["pss"], "locks": locks}


def _slow(stage, daemon, scale):
    starts = _count(200, scale)
    with stage.fresh(daemon) as rig:
        rig.mount_slow(SLOW_MS, 2 * starts)
        return rig.load("burst", dir=SLOW, made=True, leave=True, disks=2, count=starts,
                        at_once=starts)


def _beside_hung(stage, daemon, scale):
    count = _count(2000, scale)
    with stage.fresh(daemon) as rig:
        storage = rig.mount_slow(0, 0)
        rig.load("pairs", count=2, space=SLOW)  # makes it known as a lockspace
        normal = rig.load("pairs", count=count, space=SPACE)
        with rig.hung(storage):
            try:
                beside = rig.load("pairs", timeout=BLOCKED_AFTER, count=count, space=SPACE,
                                  hung=SLOW, idle=HUNG_CALLERS)
            except subprocess.TimeoutExpired:
                beside = {"p99_us": None}
    return {"normal_p99_us": normal["p99_us"], "p99_us": beside["p99_us"]}


def _outage(signal_number):
    """Locks are held, the daemon gets a signal: how long it is silent, and what is free then."""
    def measure(stage, daemon, scale):
        locks = _count(10000, scale)
        with stage.fresh(daemon) as rig, rig.locked(locks) as holder:
            result = rig.load("outage", pid=rig.daemon_pid(), signal=int(signal_number))
            result["lost"] = rig.load("free", count=locks, made=True)["free"]
            if result["outage_ms"] and not result["lost"]:
                holder.communicate()
                if holder.returncode:
                    raise LoadError(f"{daemon}: not all locks could be given back\n{rig.logs()}")
        return result
    return measure


@dataclass(frozen=True)
class Measurement:
    """How something is measured, and how often at most: some things do not vary, or take long."""

    measure: object
    rounds: int = 1000


MEASUREMENTS = {
    **{f"start-{disks}": Measurement(_load("start", count, disks=disks))
       for disks, count in ((1, 800), (2, 800), (16, 300), (64, 100))},
    **{f"space-{disks}": Measurement(_load("start", count, disks=disks, space=SPACE))
       for disks, count in ((1, 800), (2, 800), (16, 300), (64, 100))},
    **{f"native-{disks}": Measurement(_load("native", count, disks=disks))
       for disks, count in ((1, 800), (2, 800), (16, 300), (64, 100))},
    "burst-8": Measurement(_load("burst", 400, disks=2, at_once=8)),
    "pairs-0": Measurement(_load("pairs", 5000)),
    "pairs-900": Measurement(_load("pairs", 2000, idle=900)),
    "pairs-4000": Measurement(_load("pairs", 5000, idle=4000)),
    "memory": Measurement(_memory, 1),
    "hung": Measurement(_beside_hung),
    "hung-stock": Measurement(_beside_hung, 1),
    "kill": Measurement(_outage(signal.SIGKILL)),
    "restart": Measurement(_outage(signal.SIGUSR1)),
    "slow-200": Measurement(_slow, 1),
    "floor-trip": Measurement(_floor("floor-trip", 5000)),
    "floor-lock": Measurement(_floor("floor-lock", 5000)),
    "floor-lock-file": Measurement(_floor("floor-lock", 5000, space="made")),
    **{f"floor-start-{disks}": Measurement(_floor("floor-start", count, disks=disks))
       for disks, count in ((1, 800), (2, 800), (16, 300), (64, 100))},
}


# ---- rows ----------------------------------------------------------------------------------

@dataclass(frozen=True)
class Figure:
    """One number of a measurement of a daemon; "floor" is none."""

    daemon: str
    measurement: str
    field: str


@dataclass(frozen=True)
class Goal:
    """What the ratio to the base, or the value itself, must not exceed or fall below."""

    most: float = None
    least: float = None
    of_value: bool = False

    def text(self, unit):
        """The goal in words."""
        bound = f"at most {self.most:g}" if self.most is not None else f"at least {self.least:g}"
        return f"{bound} {unit}".rstrip() if self.of_value else f"{bound} x"

    def met(self, value, ratio):
        """Whether it is reached; None if that cannot be told."""
        number = value if self.of_value else ratio
        if number is None:
            return None
        return number <= self.most if self.most is not None else number >= self.least


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    key: str
    title: str
    unit: str
    base: Figure = None
    ours: Figure = None
    goal: Goal = None
    more_is_better: bool = False
    note: str = ""
    never: str = "blocked"  # what it means when there was no answer


def _start_rows():
    for disks in (1, 2, 16, 64):
        yield Row(f"start-{disks}", f"VM start, virtlockd's protocol, D = {disks}, p50", "µs",
                  Figure("stock", f"start-{disks}", "p50_us"),
                  Figure("holdfast", f"start-{disks}", "p50_us"), Goal(most=0.8))
    for disks in (1, 2, 16, 64):
        yield Row(f"space-{disks}", f"VM start, lock files in a directory, D = {disks}, p50", "µs",
                  Figure("stock", f"space-{disks}", "p50_us"),
                  Figure("holdfast", f"space-{disks}", "p50_us"), Goal(most=0.8))
    for disks, most in ((1, None), (2, 0.5), (16, 0.3), (64, 0.35)):
        yield Row(f"native-{disks}", f"VM start, native protocol, D = {disks}, p50", "µs",
                  Figure("stock", f"start-{disks}", "p50_us"),
                  Figure("holdfast", f"native-{disks}", "p50_us"), most and Goal(most=most))


def _floor_rows():
    yield Row("floor-trip", "floor: round trip over a socket, p50", "µs",
              ours=Figure("floor", "floor-trip", "p50_us"))
    yield Row("floor-lock", "floor: open, lock, close, p50", "µs",
              ours=Figure("floor", "floor-lock", "p50_us"))
    yield Row("floor-lock-file", "floor: make, lock, unlink, close, p50", "µs",
              ours=Figure("floor", "floor-lock-file", "p50_us"))
    for disks in (1, 2, 16, 64):
        yield Row(f"floor-start-{disks}", f"floor: a VM start, D = {disks}, p50", "µs",
                  Figure("stock", f"start-{disks}", "p50_us"),
                  Figure("floor", f"floor-start-{disks}", "p50_us"),
                  note="a daemon that only reads a call, locks and answers")


ROWS = (
    *_start_rows(),
    Row("burst-8", "8 VM starts at once, D = 2", "/s", Figure("stock", "burst-8", "per_s"),
        Figure("holdfast", "burst-8", "per_s"), Goal(least=1.5), more_is_better=True),
    Row("pairs-0", "acquire+release on one connection", "/s", Figure("stock", "pairs-0", "per_s"),
        Figure("holdfast", "pairs-0", "per_s"), more_is_better=True),
    Row("pairs-idle", "acquire+release beside 4,000 idle connections (stock: 900)", "/s",
        Figure("stock", "pairs-900", "per_s"), Figure("holdfast", "pairs-4000", "per_s"),
        Goal(least=10), more_is_better=True),
    Row("pairs-loss", "acquire+release beside none and 4,000 (Holdfast)", "/s",
        Figure("holdfast", "pairs-0", "per_s"), Figure("holdfast", "pairs-4000", "per_s"),
        Goal(least=0.9), more_is_better=True),
    Row("memory-0", "resident (RSS of all processes), no locks", "MB",
        Figure("stock", "memory", "rss_0"), Figure("holdfast", "memory", "rss_0"),
        Goal(most=10, of_value=True)),
    Row("memory-10000", "resident (RSS of all processes), 10,000 locks", "MB",
        Figure("stock", "memory", "rss"), Figure("holdfast", "memory", "rss"),
        Goal(most=16, of_value=True)),
    Row("memory-10000-pss", "resident with shared pages by share (PSS), 10,000 locks", "MB",
        Figure("stock", "memory", "pss"), Figure("holdfast", "memory", "pss")),
    Row("kill", "kill -9 with 10,000 locks, until the next reply", "ms",
        Figure("stock", "kill", "outage_ms"), Figure("holdfast", "kill", "outage_ms"),
        Goal(most=150, of_value=True), never="never"),
    Row("kill-lost", "locks lost by kill -9", "", Figure("stock", "kill", "lost"),
        Figure("holdfast", "kill", "lost"), Goal(most=0, of_value=True)),
    Row("restart", "orderly restart with 10,000 locks, until the next reply", "ms",
        Figure("stock", "restart", "outage_ms"), Figure("holdfast", "restart", "outage_ms"),
        Goal(most=40, of_value=True)),
    Row("restart-lost", "locks lost by an orderly restart", "", Figure("stock", "restart", "lost"),
        Figure("holdfast", "restart", "lost"), Goal(most=0, of_value=True)),
    Row("hung", "p99 of acquire, normal and beside a hung lockspace (Holdfast)", "µs",
        Figure("holdfast", "hung", "normal_p99_us"), Figure("holdfast", "hung", "p99_us"),
        Goal(most=2)),
    Row("hung-stock", "p99 of acquire, normal and beside a hung lockspace (stock)", "µs",
        Figure("stock", "hung-stock", "normal_p99_us"), Figure("stock", "hung-stock", "p99_us")),
    Row("slow-200", "200 VM starts at once, D = 2, each operation takes 20 ms", "s",
        Figure("stock", "slow-200", "total_s"), Figure("holdfast", "slow-200", "total_s"),
        Goal(most=0.125)),
    *_floor_rows(),
)
