#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Sends commands to a persistent-reservation helper and prints the answers, one JSON object a line.

usage: pr_do.py SOCKET DEVICE COMMAND...

A COMMAND is a word: keys, reservation, status, capabilities; or ACTION:KEY:SERVICEKEY:TYPE, as in
register:0:0xa, reserve:0xa::5, preempt:0xa:0xb:5. All go over one connection.
"""

import json
import os
import sys

import pr_wire

READS = {"keys": pr_wire.READ_KEYS, "reservation": pr_wire.READ_RESERVATION,
         "capabilities": pr_wire.REPORT_CAPABILITIES, "status": pr_wire.READ_FULL_STATUS}
ACTIONS = {"register": pr_wire.REGISTER, "reserve": pr_wire.RESERVE, "release": pr_wire.RELEASE,
           "clear": pr_wire.CLEAR, "preempt": pr_wire.PREEMPT, "abort": pr_wire.PREEMPT_AND_ABORT,
           "ignore": pr_wire.REGISTER_AND_IGNORE, "move": pr_wire.REGISTER_AND_MOVE}
NAMES = {pr_wire.GOOD: "good", pr_wire.CHECK_CONDITION: "check", pr_wire.BUSY: "busy",
         pr_wire.RESERVATION_CONFLICT: "conflict"}


def number(text):
    """A number, 0 when it is left out."""
    return int(text, 0) if text else 0


def describe(name, answer):
    """The answer as an object."""
    told = {"command": name, "status": NAMES.get(answer.status, answer.status)}
    if answer.code:
        told["sense"] = answer.code
    if answer.status == pr_wire.GOOD and name == "keys":
        told["keys"] = [f"{key:#x}" for key in answer.keys]
    elif answer.status == pr_wire.GOOD and name == "reservation":
        held = answer.reservation
        told["reservation"] = held and [f"{held[0]:#x}", held[1]]
    elif answer.data:
        told["data"] = answer.data.hex()
    return told


def main():
    """Do it all, in order."""
    path, device, *commands = sys.argv[1:]
    fd = pr_wire.open_device(device)
    with pr_wire.PrClient(path) as client:
        for command in commands:
            name, *fields = command.split(":")
            if name in READS:
                answer = client.read(fd, READS[name])
            else:
                key, service_key, kind = map(number, (fields + ["", "", ""])[:3])
                answer = client.out(fd, ACTIONS[name], key, service_key, kind)
            print(json.dumps(describe(name, answer)), flush=True)
    os.close(fd)


if __name__ == "__main__":
    main()
