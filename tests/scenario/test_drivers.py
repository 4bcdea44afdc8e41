# SPDX-License-Identifier: LGPL-2.1-or-later
"""Drivers from outside: one that works, and those that are reported and left out.

They are built here, with the installed header alone.
"""

import shutil
import subprocess
from pathlib import Path

import lock_rig
import pytest
from native import Refused
from virtlockd_wire import Code, RemoteError
from waiting import wait_until

EXAMPLE = Path(__file__).with_name("example-driver.c")
INCLUDE = lock_rig.REPOSITORY / "include"

MINIMAL = """
#include <errno.h>
#include <stdio.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>
#include <holdfast/driver.h>

static int small_acquire(struct hf_call *call, void *space, const struct hf_resource *resource,
                         const struct hf_holder *owner, void **ret_handle)
{
    (void)space;
    (void)owner;
    if (strstr(resource->key, "silent"))
        return -1;
    if (strstr(resource->key, "busy")) {
        hf_call_error(call, HF_ERR_BUSY, EBUSY, NULL);
        return -1;
    }
    if (strstr(resource->key, "broken")) {
        hf_call_error(call, HF_ERR_STORAGE, EIO, "the first error; do this");
        hf_call_error(call, HF_ERR_INTERNAL, 0, "the second error; do that");
        return -1;
    }
    hf_call_claim(call, "small:%s", resource->key);
    *ret_handle = NULL;
    return 0;
}

static int small_release(struct hf_call *call, void *space, void *handle)
{
    (void)call;
    (void)space;
    (void)handle;
    return 0;
}
"""


@pytest.fixture(name="drivers")
def fixture_drivers(workdir):
    """The driver directory."""
    if not shutil.which("cc"):
        pytest.skip("cc is not installed")
    path = workdir / "drivers"
    path.mkdir()
    return path


def compile_driver(output, source):
    """Build a driver from a file or from text."""
    text = source.read_text(encoding="utf-8") if isinstance(source, Path) else source
    done = subprocess.run(
        ["cc", "-std=gnu17", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC",
         f"-I{INCLUDE}", "-o", output, "-x", "c", "-"], input=text, text=True, capture_output=True,
        check=False)
    assert done.returncode == 0, done.stderr
    return output


def small_driver(name="small", members="", functions="", size="sizeof(struct hf_driver)",
                 api="HF_DRIVER_API"):
    """The source of a driver that does next to nothing."""
    return (f"{MINIMAL}\n{functions}\nstatic const struct hf_driver small = {{\n"
            f"    .size = {size}, .api_version = {api}, .name = \"{name}\",\n"
            f"    .acquire = small_acquire, .release = small_release,\n{members}\n}};\n"
            "HF_REGISTER_DRIVER(small)\n")


# ---- a driver that works -------------------------------------------------------------------------


@pytest.fixture(name="locks")
def fixture_locks(workdir):
    """The directory of the example's lock files."""
    path = workdir / "locks"
    path.mkdir()
    return path


@pytest.fixture(name="start_example")
def fixture_start_example(start_daemon, drivers, locks):
    """Starts daemons that lock everything by the example driver."""
    compile_driver(drivers / "exclfile.so", EXAMPLE)

    def start_example(name="n1"):
        return start_daemon(name, driver_dir=drivers, default_driver="exclfile",
                            driver_config=[f"exclfile.directory={locks}"])
    return start_example


def test_example(start_example, vm, other_vm, image, locks):
    """The example locks, refuses, names the holder, and lets go."""
    daemon = start_example()
    with daemon.client() as client:
        lease, = client.acquire(vm, image)
        assert (lease["driver"], lease["lockspace"], lease["key"]) == ("exclfile", "", str(image))
        assert len(list(locks.iterdir())) == 1
        assert client.acquire(vm, image) == [lease]
        with pytest.raises(Refused) as refusal:
            client.acquire(other_vm, image)
        assert refusal.value.error_class == "Busy"
        holder, = refusal.value.data["holders"]
        assert (holder["name"], holder["pid"], holder["source"]) == (vm.name, vm.pid, "table")
        assert f"is held by VM {vm.name}" in refusal.value.desc
        assert client.release(vm) == 1
        assert list(locks.iterdir()) == []
        client.acquire(other_vm, image)


def test_example_from_another_host(start_example, vm, other_vm, image):
    """What the driver tells of a holder on another host is what the refused learn."""
    here, there = start_example("n1"), start_example("n2")
    with here.client() as client, there.client() as other_client, there.peer() as peer:
        lease, = client.acquire(vm, image)
        with pytest.raises(Refused) as refusal:
            other_client.acquire(other_vm, image)
        assert refusal.value.data["holders"] == [
            {"disk": str(image), "name": vm.name, "uuid": vm.uuid, "pid": vm.pid,
             "host": here.host, "since": lease["since"], "mode": "exclusive", "source": "record"}]
        assert f"on host {here.host} since" in refusal.value.desc
        state, (holder,) = other_client.holders(image)
        assert (state, holder["name"]) == ("held", vm.name)
        peer.register(other_vm.pid, other_vm.name)
        with pytest.raises(RemoteError) as remote:
            peer.acquire(str(image))
        assert remote.value.code == Code.RESOURCE_BUSY
        assert f"VM {vm.name}" in remote.value.message


def test_example_set(start_example, vm, other_vm, new_image, locks):
    """A whole set or nothing, with leases, and the end of the owner."""
    daemon = start_example()
    disks = [new_image("a"), new_image("b")]
    with daemon.client() as client:
        client.acquire(other_vm, disks[1])
        with pytest.raises(Refused):
            client.acquire(vm, *disks, leases=[("/space", "k")])
        assert len(list(locks.iterdir())) == 1
        client.release(other_vm)
        assert len(client.acquire(vm, *disks, leases=[("/space", "k")])) == 3
        vm.end()
        wait_until(lambda: not list(locks.iterdir()), "the locks of the VM that has ended to go")


def test_example_cannot_share(start_example, vm, image, locks):
    """What a driver cannot do is refused."""
    daemon = start_example()
    with daemon.client() as client:
        for mode in ("shared", "readonly"):
            with pytest.raises(Refused) as refusal:
                client.acquire(vm, (image, mode))
            assert refusal.value.error_class == "InvalidArgument"
            assert "exclfile" in refusal.value.desc
    assert list(locks.iterdir()) == []


def test_example_storage_error(start_example, vm, image, locks):
    """The driver's own sentence reaches the caller."""
    daemon = start_example()
    locks.rmdir()
    with daemon.client() as client:
        with pytest.raises(Refused) as refusal:
            client.acquire(vm, image)
        assert (refusal.value.error_class, refusal.value.data["errno"]) == ("StorageError", 2)
        assert "cannot make lock file" in refusal.value.desc
        assert refusal.value.data["driver"] == "exclfile"


def test_example_is_listed(start_example, drivers):
    """query-drivers tells what it is and where it comes from."""
    daemon = start_example()
    with daemon.client() as client:
        listed = {driver["name"]: driver for driver in client.call("query-drivers")["drivers"]}
    assert set(listed) == {"lockd", "nop", "exclfile"}
    assert listed["exclfile"] == {
        "name": "exclfile", "description": "files that must not exist yet, in one directory",
        "version": "1.0", "builtin": False, "path": str(drivers / "exclfile.so"),
        "capabilities": ["other-hosts"], "default": True}
    assert not listed["lockd"]["default"]


# ---- settings ------------------------------------------------------------------------------------


def fails_to_start(daemon):
    """Start a daemon that must refuse to; what it says."""
    daemon.launch()
    assert daemon.process.wait(30) == 1
    assert not daemon.socket.exists()
    return daemon.log()


@pytest.mark.parametrize("config,complaint", [
    (["exclfile.directory=/none"], "'/none' is no directory"),
    (["exclfile.colour=red"], "no setting 'colour'"),
    (["exclfil.directory=/"], "no driver 'exclfil'"),
    ([], "set exclfile.directory"),
    (["nop.x=1"], "no setting 'x'"),
], ids=["value", "key", "driver", "missing", "built-in"])
def test_wrong_settings(start_daemon, drivers, config, complaint):
    """A driver's wrong settings keep the daemon from starting; line and reason are said."""
    compile_driver(drivers / "exclfile.so", EXAMPLE)
    daemon = start_daemon(start=False, driver_dir=drivers, driver_config=config)
    said = fails_to_start(daemon)
    assert complaint in said
    if config:
        line = next(number for number, text in
                    enumerate(daemon.conf_path.read_text(encoding="utf-8").splitlines(), 1)
                    if text.startswith("driver_config"))
        assert f":{line}:" in said or "is not configured" in said


def test_no_such_default_driver(start_daemon, drivers):
    """A default_driver that is not there keeps the daemon from starting."""
    said = fails_to_start(start_daemon(start=False, driver_dir=drivers, default_driver="sanlok"))
    assert "sanlok" in said


def test_no_driver_directory(start_daemon, vm, image, workdir):
    """A driver directory that does not exist has no drivers."""
    daemon = start_daemon(driver_dir=workdir / "none")
    daemon.assert_serves(image, vm)


# ---- drivers that are left out -------------------------------------------------------------------


FAILING_LOAD = """
static int small_load(struct hf_call *call)
{
    hf_call_error(call, HF_ERR_INTERNAL, 0, "the library that it needs is missing");
    return -1;
}
"""

BAD_DRIVERS = {
    "api version": (small_driver(api="HF_DRIVER_API + 1"), "version 2 of the driver API"),
    "old api version": (small_driver(api="0"), "version 0 of the driver API"),
    "load fails": (small_driver(functions=FAILING_LOAD, members="    .load = small_load,"),
                   "the library that it needs is missing"),
    "no symbol": ("int x;\n", "HF_REGISTER_DRIVER"),
    "no struct": ("const void *holdfast_driver(void);\n"
                  "const void *holdfast_driver(void)\n{\n    return 0;\n}\n", "HF_REGISTER_DRIVER"),
    "no name": (small_driver(members="    .name = 0,").replace('.name = "small",', ""),
                "not a usable driver"),
    "odd name": (small_driver(name="../small"), "not a usable driver"),
    "no acquire": (small_driver().replace(".acquire = small_acquire,", "") .replace(
        "static int small_acquire", "int small_acquire(struct hf_call *call, void *space, const "
        "struct hf_resource *resource, const struct hf_holder *owner, void **ret_handle);\n"
        "int small_acquire"), "not a usable driver"),
    "too small": (small_driver(size="offsetof(struct hf_driver, acquire)"), "not a usable driver"),
    "built-in name": (small_driver(name="lockd"), "there is a driver 'lockd' already"),
}


@pytest.mark.parametrize("kind", BAD_DRIVERS)
def test_bad_driver(start_daemon, drivers, vm, image, kind):
    """A driver that cannot be used is reported and left out; the daemon serves all the same."""
    source, complaint = BAD_DRIVERS[kind]
    path = compile_driver(drivers / "small.so", source)
    daemon = start_daemon(driver_dir=drivers)
    assert complaint in daemon.log()
    assert str(path) in daemon.log()
    with daemon.client() as client:
        listed = [driver["name"] for driver in client.call("query-drivers")["drivers"]]
        assert sorted(listed) == ["lockd", "nop"]
    daemon.assert_serves(image, vm)


@pytest.mark.parametrize("kind", ["text", "empty", "directory", "dangling", "truncated"])
def test_no_shared_object(start_daemon, drivers, vm, image, kind):
    """A file that is no shared object at all."""
    path = drivers / "small.so"
    if kind == "text":
        path.write_text("hello\n", encoding="ascii")
    elif kind == "empty":
        path.touch()
    elif kind == "directory":
        path.mkdir()
    elif kind == "dangling":
        path.symlink_to("none.so")
    else:
        whole = compile_driver(drivers / "whole", small_driver()).read_bytes()
        path.write_bytes(whole[:40])
        (drivers / "whole").unlink()
    (drivers / "README").write_text("not a driver", encoding="ascii")
    daemon = start_daemon(driver_dir=drivers)
    assert "cannot load driver" in daemon.log()
    assert str(path) in daemon.log()
    assert "README" not in daemon.log()
    daemon.assert_serves(image, vm)


def test_bad_driver_beside_a_good_one(start_daemon, drivers, vm):
    """One that is left out does not keep the next from being loaded; a name is taken once."""
    (drivers / "a.so").write_text("hello\n", encoding="ascii")
    compile_driver(drivers / "b.so", small_driver())
    compile_driver(drivers / "c.so", small_driver())
    daemon = start_daemon(driver_dir=drivers, default_driver="small")
    assert "there is a driver 'small' already" in daemon.log()
    with daemon.client() as client:
        listed = {driver["name"]: driver for driver in client.call("query-drivers")["drivers"]}
        assert listed["small"]["path"] == str(drivers / "b.so")
        assert client.acquire(vm, "/anything")[0]["driver"] == "small"


# ---- what the daemon makes of a driver's answers -------------------------------------------------


BEYOND = """
static int small_beyond(struct hf_call *call, void *space, const struct hf_resource *resource,
                        int *ret_free)
{
    (void)call;
    (void)space;
    (void)resource;
    (void)ret_free;
    _exit(77);
}
"""


@pytest.fixture(name="small_client")
def fixture_small_client(start_daemon, drivers):
    """A connection to a daemon with the small driver, whose struct ends with what it must have.

    What stands behind the end, where an older version knew no member, is not to be called.
    """
    compile_driver(drivers / "small.so", small_driver(
        functions=BEYOND, members="    .holder = small_beyond,",
        size="offsetof(struct hf_driver, release) + sizeof(void *)"))
    with start_daemon(driver_dir=drivers, default_driver="small").client() as client:
        yield client


def test_smaller_struct(small_client, vm, other_vm):
    """A driver of an older version, with a smaller struct, gets the defaults for the rest."""
    lease, = small_client.acquire(vm, "/a")
    assert lease["claims"] == ["small:/a"]
    with pytest.raises(Refused) as refusal:
        small_client.acquire(other_vm, "/a")
    assert vm.name in refusal.value.desc
    with pytest.raises(Refused) as refusal:
        small_client.call("query-disk", disk="/b")
    assert "cannot tell who holds" in refusal.value.desc
    driver = next(driver for driver in small_client.call("query-drivers")["drivers"]
                  if driver["name"] == "small")
    assert (driver["description"], driver["version"], driver["capabilities"]) == ("", "", [])
    assert small_client.release(vm) == 1


def test_driver_that_says_nothing(small_client, vm):
    """A driver that fails without a reason is at fault, and named."""
    with pytest.raises(Refused) as refusal:
        small_client.acquire(vm, "/silent")
    assert refusal.value.error_class == "Internal"
    assert "driver small failed without saying why" in refusal.value.desc


def test_driver_that_knows_no_holder(small_client, vm):
    """Busy, and nobody knows by whom."""
    with pytest.raises(Refused) as refusal:
        small_client.acquire(vm, "/busy")
    assert refusal.value.error_class == "Busy"
    assert refusal.value.data["holders"] == []
    assert "cannot be seen from here" in refusal.value.desc


def test_driver_that_fails_twice(small_client, vm):
    """The first error is the cause."""
    with pytest.raises(Refused) as refusal:
        small_client.acquire(vm, "/broken")
    assert (refusal.value.error_class, refusal.value.data["errno"]) == ("StorageError", 5)
    assert refusal.value.desc == "the first error; do this"


LIFE = """
static void note(const char *word)
{
    FILE *file = fopen("%s", "a");

    if (file) {
        fprintf(file, "%%s\\n", word);
        fclose(file);
    }
}

static int small_load(struct hf_call *call)
{
    (void)call;
    note("load");
    return 0;
}

static int small_config(struct hf_call *call, const char *key, const char *value)
{
    (void)call;
    (void)value;
    note(key);
    return 0;
}

static int small_complete(struct hf_call *call)
{
    (void)call;
    note("complete");
    return 0;
}

static int small_open(struct hf_call *call, const char *space, unsigned flags, void **ret_space)
{
    (void)call;
    (void)flags;
    *ret_space = NULL;
    note(*space ? space : "default");
    return 0;
}

static void small_close(void *space)
{
    (void)space;
    note("close");
}

static void small_unload(void)
{
    note("unload");
}
"""


def test_life_of_a_driver(start_daemon, drivers, vm, workdir):
    """Its calls come in the order that the header promises, each lockspace is opened once."""
    notes = workdir / "notes"
    compile_driver(drivers / "small.so", small_driver(
        functions=LIFE % notes,
        members="    .load = small_load, .config = small_config, .unload = small_unload,\n"
                "    .config_complete = small_complete,\n"
                "    .open_space = small_open, .close_space = small_close,"))
    daemon = start_daemon(driver_dir=drivers, default_driver="small",
                          driver_config=["small.one=1", "small.two=2"])
    with daemon.client() as client:
        for _ in range(3):
            client.acquire(vm, "/a", leases=[("/space", "k")])
            client.release(vm)
    assert daemon.stop() == 0
    words = notes.read_text(encoding="ascii").split()
    assert words[:4] == ["load", "one", "two", "complete"]
    assert sorted(words[4:6]) == ["/space", "default"]
    assert words[6:] == ["close", "close", "unload"]
