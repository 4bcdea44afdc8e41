# SPDX-License-Identifier: LGPL-2.1-or-later
"""The native protocol's page against the daemon: neither has anything that the other has not."""

import json
import re

from doc_pages import (NATIVE, REPOSITORY, code_blocks, definitions, doctree, documented_events,
                       first_column, literals, nodes, rows, section)
from native import Refused


def documented_commands():
    """The commands of the protocol's page: name -> (access, definition)."""
    found = {}
    for term, definition in definitions(section(doctree(NATIVE), "Commands")).items():
        name, _, access = term.partition(" ")
        found[name] = "full" if access == "(full)" else "read", definition
    return found


def argument_names():
    """Every name that the protocol's parser compares with."""
    text = (REPOSITORY / "src/protocol/native.c").read_text(encoding="utf-8")
    return set(re.findall(r'strcmp\(key, "(\w+)"\)', text)) - {"execute", "arguments", "id"}


def documented_arguments(definition):
    """The arguments that a command's definition lists, in a table or in its text."""
    tables = list(definition.findall(nodes.table))
    return set(first_column(tables[0])) if tables else literals(definition) & argument_names()


def refusal(client, command, **arguments):
    """The error of a request, or None."""
    try:
        client.call(command, **arguments)
    except Refused as error:
        return error
    return None


def knows_argument(client, command, name):
    """Whether a command of the daemon knows an argument; its value is always of a wrong type."""
    error = refusal(client, command, **{name: {"no": ["such", "thing"]}})
    return "is unknown to this command" not in error.desc


def test_protocol_commands(client):
    """The page has the daemon's commands, each with its access and its arguments."""
    documented = documented_commands()
    real = {command["name"]: command["access"]
            for command in client.call("query-commands")["commands"]}
    assert {name: access for name, (access, _) in documented.items()} == real
    assert len(argument_names()) >= 9
    for name, (_, definition) in documented.items():
        known = {argument for argument in argument_names()
                 if knows_argument(client, name, argument)}
        assert documented_arguments(definition) == known, name


def test_protocol_owner(client, vm):
    """The page names the members of an owner."""
    text = documented_commands()["acquire"][1]
    paragraph = next(found for found in text.findall(nodes.paragraph)
                     if found.astext().startswith("owner: "))
    for name in argument_names():
        error = refusal(client, "acquire", owner={"pid": vm.pid, name: 0.5})
        known = error and error.data["argument"] == f"owner.{name}"
        assert (name in literals(paragraph) - {"owner"}) == known, name


def documented_errors():
    """The error classes of the page: name -> members of data."""
    [table] = section(doctree(NATIVE), "Errors").findall(nodes.table)
    found = {row[0].astext(): (literals(row[2]), row[2].astext()) for row in rows(table)[1:]}
    return {name: found[text.removeprefix("as ")][0] if text.startswith("as ") else members
            for name, (members, text) in found.items()}


def test_protocol_errors():
    """The page has the error classes of the daemon and of the library's header."""
    text = (REPOSITORY / "src/core/fault.c").read_text(encoding="utf-8")
    assert set(documented_errors()) == set(re.findall(r'return "(\w+)"', text))
    text = (REPOSITORY / "include/holdfast/holdfast.h").read_text(encoding="utf-8")
    assert set(documented_errors()) == set(re.findall(r'HF_ERR_.*/\*\*< "(\w+)"', text))


def provoke_errors(client, vm, other_vm, image, workdir):
    """Errors of the daemon, one of each class that can be had here."""
    client.acquire(vm, image)
    owner = other_vm.owner()
    (workdir / "space").mkdir()
    requests = [
        ("aquire", {}),
        ("acquire", {"owner": 1}),
        ("acquire", {"owner": owner, "disks": [{"path": str(image)}]}),
        ("release", {"owner": {"pid": other_vm.pid}, "disks": [{"path": str(image)}]}),
        ("release", {"owner": {"pid": vm.pid}, "leases": [{"lockspace": "/", "key": "k"}]}),
        ("acquire", {"owner": {"pid": 2 ** 31 - 1}}),
        ("acquire", {"owner": owner, "disks": [{"path": str(workdir)}]}),
        ("acquire", {"owner": owner, "leases": [{"lockspace": f"{workdir}/space", "key": "k"}]}),
    ]
    yield from (refusal(client, command, **arguments) for command, arguments in requests)
    client.send_raw(b"{\n")
    yield Refused(client.recv()["error"])


def test_protocol_error_data(daemon, vm, other_vm, image, workdir):
    """Errors carry what the page says, no more and no less."""
    documented = documented_errors()
    seen = {}
    with daemon.client() as client:
        for error in provoke_errors(client, vm, other_vm, image, workdir):
            seen.setdefault(error.error_class, set()).update(set(error.data) - {"errno"})
    assert len(seen) == 7
    assert seen == {name: documented[name] for name in seen}


def documented_objects():
    """The objects of the page: name -> members."""
    return {term: {name for name in literals(definition) if re.fullmatch(r"[a-z]+", name)}
            for term, definition in definitions(section(doctree(NATIVE), "Objects")).items()}


def test_protocol_objects(client, vm, other_vm, image):
    """Leases, owners and holders have the members that the page lists."""
    documented = documented_objects()
    [lease] = client.acquire(vm, image)
    assert set(lease) <= documented["LEASE"] and set(lease["owner"]) <= documented["OWNER"]
    assert {"disk", "driver", "lockspace", "key", "mode", "since", "claims", "owner"} == set(lease)
    holders = refusal(client, "acquire", owner=other_vm.owner(),
                      disks=[{"path": str(image)}]).data["holders"]
    assert set(holders[0]) <= documented["HOLDER"]


def test_protocol_events(daemon, vm, other_vm, image):
    """The page has the events of the daemon, and their data."""
    sources = "".join(path.read_text(encoding="utf-8")
                      for path in (REPOSITORY / "src/daemon").glob("native-*.c"))
    documented = documented_events()
    assert set(documented) == set(re.findall(r'\[EVENT_\w+\] = "(\w+)"', sources))
    with daemon.client() as watcher, daemon.client() as client:
        for name in documented:
            watcher.call("subscribe", events=[name])
        assert refusal(watcher, "subscribe", events=["NO_SUCH_EVENT"])
        watcher.call("subscribe")
        client.acquire(vm, image)
        assert refusal(client, "acquire", owner=other_vm.owner(), disks=[{"path": str(image)}])
        client.release(vm, image)
        objects = documented_objects()
        for name, what in (("LEASE_ACQUIRED", "LEASE"), ("LEASE_REFUSED", None),
                           ("LEASE_RELEASED", "LEASE")):
            event = watcher.next_event()
            assert event["event"] == name
            members = literals(documented[name]) | objects.get(what, set())
            assert set(event["data"]) <= members, set(event["data"]) - members


def as_json(text):
    """Parse JSON with the placeholders of the page: TIME, LEASE, ..."""
    return json.loads(re.sub(r"(?<![\"\w])[A-Z]{2,}\b|\.\.\.(?=])", '"x"', text))


def example(command):
    """What the page shows as a command's return value."""
    definition = documented_commands()[command][1]
    for block in definition.findall(nodes.literal_block, include_self=False):
        return as_json(block.astext())
    return as_json(next(text for text in literals(definition) if text.startswith("{")))


def test_protocol_examples_are_json():
    """What the page shows is JSON."""
    shown = [line for block in code_blocks(NATIVE)
             for line in ([block] if "\n " in block else block.splitlines())]
    assert len(shown) >= 6
    for text in shown:
        as_json(text)


def assert_shape(shown, real, where):
    """The members of the example are those of the daemon, all the way down."""
    if isinstance(shown, dict):
        optional = {"operation", "since"} if where.endswith("lockspaces[]") else set()
        assert set(shown) - optional == set(real) - optional, where
        for name in set(shown) & set(real):
            assert_shape(shown[name], real[name], f"{where}.{name}")
    elif isinstance(shown, list) and shown and real and isinstance(shown[0], dict):
        assert_shape(shown[0], real[0], where + "[]")


def test_protocol_examples_are_real(client, vm, image):
    """query-status, query-disk and the like return what the page shows."""
    client.acquire(vm, image)
    assert_shape(example("query-status"), client.call("query-status"), "query-status")
    assert_shape(example("query-disk"), client.call("query-disk", disk=str(image)), "query-disk")
    assert_shape(example("query-metrics"), client.call("query-metrics"), "query-metrics")
    assert_shape(example("query-drivers"), client.call("query-drivers"), "query-drivers")
    assert_shape(as_json(code_blocks(NATIVE)[0]), {"holdfast": client.greeting}, "greeting")
