# SPDX-License-Identifier: LGPL-2.1-or-later
"""What `meson install` puts where, and that it works from there."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import lock_rig
import pytest
from native import sanitizer

BUILD = lock_rig.build_dir()
# Of systemd-analyze security, in tenths: what a daemon must have that opens every disk as root.
EXPOSURE_LIMIT = 25

CLIENT = """
#include <holdfast/holdfast.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    hf_error *error = NULL;
    hf_client *client = hf_connect(argv[1], 5000, &error);
    hf_request *request = hf_request_new(0);
    hf_leases *leases = NULL;
    int r = -1;

    if (client && argc > 2 && hf_request_add_disk(request, argv[2], HF_MODE_EXCLUSIVE) == 0)
        r = hf_acquire(client, request, &leases, &error);
    if (r == 0)
        printf("%zu %s %d\\n", hf_leases_count(leases), hf_leases_get(leases, 0)->disk,
               hf_leases_get(leases, 0)->owner_pid == getpid());
    else
        puts(hf_error_message(error));
    hf_leases_free(leases);
    hf_request_free(request);
    hf_disconnect(client);
    hf_error_free(error);
    return r ? 1 : 0;
}
"""

DRIVER = """
#include <holdfast/driver.h>

static int null_acquire(struct hf_call *call, void *space, const struct hf_resource *resource,
                        const struct hf_holder *owner, void **ret_handle)
{
    (void)space;
    (void)owner;
    hf_call_claim(call, "null:%s", resource->key);
    *ret_handle = 0;
    return 0;
}

static int null_release(struct hf_call *call, void *space, void *handle)
{
    (void)call;
    (void)space;
    (void)handle;
    return 0;
}

static const struct hf_driver driver = {
    .size = sizeof(struct hf_driver),
    .api_version = HF_DRIVER_API,
    .name = "null",
    .version = "7",
    .acquire = null_acquire,
    .release = null_release,
};

HF_REGISTER_DRIVER(driver)
"""


def run(*argv, check=True, **options):
    """Run a command to its end; it has to succeed unless check is false."""
    result = subprocess.run([str(arg) for arg in argv], check=False, capture_output=True, text=True,
                            timeout=120, stdin=subprocess.DEVNULL, **options)
    assert not check or result.returncode == 0, f"{argv}: {result.stdout}{result.stderr}"
    return result


def needs(*programs):
    """Skip the test unless all of these are installed."""
    for program in programs:
        if not shutil.which(program, path=lock_rig.SEARCH_PATH):
            pytest.skip(f"{program} is not installed")


@pytest.fixture(scope="module", name="options")
def fixture_options():
    """The options of the build."""
    shown = run("meson", "introspect", BUILD, "--buildoptions").stdout
    return {option["name"]: option["value"] for option in json.loads(shown)}


class Installed:
    """An installation below a directory, and where things are in it."""

    def __init__(self, root, options):
        self.root = root
        self.prefix = Path(options["prefix"])
        self.options = options

    def configured(self, option, *more):
        """The path of a directory option, without the root."""
        return self.prefix.joinpath(self.options[option], *more)

    def dir(self, option, *more):
        """The path of a directory option as it lies here."""
        return self.at(self.configured(option, *more))

    def at(self, path):
        """Where a path of the installed system lies here."""
        return self.root / str(path).lstrip("/")

    def unit_dirs(self):
        """Where the system's units lie here, and those of users."""
        found = sorted(self.root.rglob("holdfastd.service"))
        assert [path.parent.name for path in found] == ["system", "user"]
        return [path.parent for path in found]

    def pkg_config(self, *arguments):
        """What pkg-config says, with paths as they are here."""
        env = {**os.environ, "PKG_CONFIG_PATH": str(self.dir("libdir", "pkgconfig"))}
        return run("pkg-config", f"--define-variable=prefix={self.at(self.prefix)}", *arguments,
                   env=env).stdout.split()


@pytest.fixture(scope="module", name="installed")
def fixture_installed(session_workdir, options):
    """The build, installed below a directory."""
    root = session_workdir / "installed"
    run("meson", "install", "-C", BUILD, "--no-rebuild", "--destdir", root)
    return Installed(root, options)


# ---- programs and libraries ----------------------------------------------------------------------

def test_programs_run(installed):
    """The programs find their library and say who they are."""
    env = {**os.environ, "LD_LIBRARY_PATH": str(installed.dir("libdir"))}
    assert run(installed.dir("bindir", "holdfast"), "version", env=env).stdout
    assert "holdfastd" in run(installed.dir("sbindir", "holdfastd"), "--version", env=env).stdout


@pytest.mark.parametrize("name, place, program", [("virtlockd", "sbindir", "holdfastd"),
                                                  ("qemu-pr-helper", "bindir",
                                                   "holdfast-pr-helper")])
def test_links(installed, name, place, program):
    """libvirt finds our programs by stock's names, in a directory with nothing but the keeper."""
    directory = installed.dir("libexecdir", "holdfast")
    assert sorted(path.name for path in directory.iterdir()) == [
        "holdfast-keeper", "holdfast-pr-multipath", "qemu-pr-helper", "virtlockd"]
    link = directory / name
    assert not os.path.isabs(os.readlink(link))
    assert link.resolve() == installed.dir(place, program).resolve()
    env = {**os.environ, "LD_LIBRARY_PATH": str(installed.dir("libdir"))}
    assert run(link, "--version", env=env).stdout.startswith(f"{name} (Holdfast)")


def compiler_flags():
    """What a program needs to be linked with the library of this build."""
    return {"asan": ["-fsanitize=address,undefined"], "tsan": ["-fsanitize=thread"]}.get(
        sanitizer(), [])


@pytest.mark.parametrize("compiler, name", [("cc", "client.c"), ("c++", "client.cc")])
def test_client(installed, daemon, new_image, workdir, compiler, name):
    """A C and a C++ program are built with pkg-config, and lock a disk."""
    image = new_image(name)
    source = workdir / name
    source.write_text(CLIENT, encoding="utf-8")
    flags = installed.pkg_config("--cflags", "--libs", "libholdfast")
    assert str(installed.dir("includedir")) in " ".join(flags)
    run(compiler, "-Wall", "-Wextra", "-Werror", *compiler_flags(), source, "-o",
        workdir / "client", *flags)
    env = {**os.environ, "LD_LIBRARY_PATH": str(installed.dir("libdir"))}
    result = run(workdir / "client", daemon.socket, image, env=env)
    assert result.stdout == f"1 {image} 1\n"
    result = run(workdir / "client", daemon.socket, workdir / "none", env=env, check=False)
    assert result.returncode == 1 and "cannot find disk" in result.stdout


def test_driver(installed, start_daemon, vm, workdir):
    """A driver is built with pkg-config, and loaded."""
    source = workdir / "null.c"
    source.write_text(DRIVER, encoding="utf-8")
    drivers = workdir / "drivers"
    drivers.mkdir()
    run("cc", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", source, "-o", drivers / "null.so",
        *installed.pkg_config("--cflags", "holdfast-driver"))
    daemon = start_daemon(driver_dir=drivers, default_driver="null")
    with daemon.client() as client:
        [driver] = [found for found in client.call("query-drivers")["drivers"]
                    if found["name"] == "null"]
        assert driver["version"] == "7" and driver["path"] == str(drivers / "null.so")
        [lease] = client.acquire(vm, "/any/thing")
        assert lease["driver"] == "null" and lease["claims"] == ["null:/any/thing"]


def test_driver_dir(installed, options):
    """pkg-config tells where the daemon looks for drivers."""
    [told] = installed.pkg_config("--variable=driverdir", "holdfast-driver")
    expected = options["driverdir"] or installed.configured("libdir", "holdfast", "drivers")
    assert told == str(expected)


def test_exported_symbols(installed):
    """The library exports the functions of its headers and nothing else."""
    needs("nm")
    library = installed.dir("libdir", "libholdfast.so")
    shown = run("nm", "-D", "--defined-only", library).stdout
    symbols = {line.split()[2].partition("@")[0] for line in shown.splitlines()
               if line.split()[1] != "A"}
    header = "".join(installed.dir("includedir", "holdfast", name).read_text(encoding="utf-8")
                     for name in ("holdfast.h", "image.h"))
    header = re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)
    assert symbols == set(re.findall(r"\b(hf_\w+)\(", header))


def test_driver_symbols(installed):
    """The daemon exports the functions that drivers call."""
    needs("nm")
    shown = run("nm", "-D", "--defined-only", installed.dir("sbindir", "holdfastd")).stdout
    symbols = set(re.findall(r"\bhf_\w+", shown))
    header = installed.dir("includedir", "holdfast", "driver.h").read_text(encoding="utf-8")
    header = re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)
    assert symbols == set(re.findall(r"\b(hf_call_\w+)\(", header))


# ---- units ---------------------------------------------------------------------------------------

def expected_units(kind):
    """The names of the units."""
    more = ["holdfast-metrics.service", "holdfast-metrics.timer", "holdfast-pr-helper.service",
            "holdfast-pr-helper.socket"]
    return [*(more if kind == "system" else []),
            "holdfast-virtlockd.socket", "holdfastd.service", "holdfastd.socket"]


@pytest.mark.parametrize("kind", ["system", "user"])
def test_units(installed, kind, workdir):
    """systemd has nothing to say about the units."""
    needs("systemd-analyze")
    directory = dict(zip(("system", "user"), installed.unit_dirs()))[kind]
    assert sorted(path.name for path in directory.iterdir()) == expected_units(kind)
    for path in directory.iterdir():
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"@\w+@", text), "a variable was not replaced"
        if path.suffix == ".service":
            [program] = re.findall(r"(?m)^ExecStart=(\S+)", text)
            place = "sbindir" if path.stem == "holdfastd" else "bindir"
            name = "holdfast" if path.stem == "holdfast-metrics" else path.stem
            assert program == str(installed.configured(place, name))
            text = text.replace(program, str(installed.at(program)))
        # manual pages are looked for where they are not installed
        text = re.sub(r"(?m)^Documentation=.*\n", "", text)
        (workdir / path.name).write_text(text, encoding="utf-8")
    env = {**os.environ, "XDG_RUNTIME_DIR": str(workdir), "SYSTEMD_LOG_LEVEL": "warning"}
    result = run("systemd-analyze", "verify", f"--{kind}", "--recursive-errors=no",
                 *[workdir / name for name in expected_units(kind)], check=False, env=env)
    ours = [line for line in result.stderr.splitlines() if "holdfast" in line]
    assert result.returncode == 0 and not ours, result.stderr


@pytest.mark.parametrize("name", ["holdfastd", "holdfast-metrics", "holdfast-pr-helper"])
def test_sandbox(installed, workdir, name):
    """The sandbox of the system's units is as tight as it was when this was written."""
    needs("systemd-analyze")
    unit = installed.unit_dirs()[0] / f"{name}.service"
    shutil.copy(unit, workdir)
    result = run("systemd-analyze", "security", "--offline=true", "--no-pager",
                 f"--threshold={EXPOSURE_LIMIT}", workdir / unit.name, check=False)
    assert result.returncode == 0, result.stdout


def test_sandbox_leaves_what_is_needed(installed):
    """What would take disks away from the daemon, or keep new mounts from it, is not there."""
    text = (installed.unit_dirs()[0] / "holdfastd.service").read_text(encoding="utf-8")
    settings = dict(line.split("=", 1) for line in text.splitlines()
                    if "=" in line and not line.startswith("#"))
    for name in ("ProtectSystem", "ProtectHome", "PrivateTmp", "PrivateDevices", "PrivateUsers",
                 "RootDirectory", "MountFlags", "RestrictSUIDSGID", "InaccessiblePaths",
                 "ReadOnlyPaths", "TemporaryFileSystem"):
        assert name not in settings, name
    assert settings["KillMode"] == "process" and settings["Type"] == "notify"
    assert set(settings["CapabilityBoundingSet"].split()) >= \
        {"CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_SYS_PTRACE"}
    assert settings["DeviceAllow"] == "block-* rw"


def test_stock_unit_names(installed):
    """Who knows stock's helper by its socket unit finds ours by that name."""
    text = (installed.unit_dirs()[0] / "holdfast-pr-helper.socket").read_text(encoding="utf-8")
    assert "Alias=qemu-pr-helper.socket" in text and "Conflicts=qemu-pr-helper.socket" in text
    assert re.search(r"(?m)^ListenStream=/run/qemu-pr-helper.sock$", text)


# ---- documentation and settings ------------------------------------------------------------------

def manual_pages(installed):
    """The manual pages that are installed."""
    return sorted(installed.dir("mandir").rglob("*.[0-9]"))


def test_manual_pages(installed, options):
    """Every verb, program, file and driver has a manual page."""
    if not options["docs"]:
        pytest.skip("$HF_BUILD was built without docs")
    shown = run(BUILD / "holdfast", "help").stdout
    verbs = set(re.findall(r"(?m)^  ([a-z-]+) {2,}", shown)) - {"help", "version"}
    assert len(verbs) >= 9
    drivers = {path.stem for path in (lock_rig.REPOSITORY / "src/drivers").glob("*.c")
               if "const struct hf_driver hf_driver_" in path.read_text(encoding="utf-8")}
    pages = {path.name for path in manual_pages(installed)}
    assert pages == {*(f"holdfast-{verb}.1" for verb in verbs),
                     *(f"holdfast-driver-{driver}.8" for driver in drivers), "holdfast.1",
                     "holdfast-driver.3", "libholdfast.3", "holdfast.conf.5", "holdfastd.8",
                     "holdfast-pr-helper.8"}
    for path in manual_pages(installed):
        assert path.parent.name == f"man{path.suffix[1:]}"


def test_manual_pages_render(installed, options):
    """groff has nothing to say about the manual pages, and nothing is lost at their ends."""
    if not options["docs"]:
        pytest.skip("$HF_BUILD was built without docs")
    needs("man", "groff")
    env = {**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "80", "MANROFFSEQ": ""}
    for path in manual_pages(installed):
        result = run("man", "--warnings", "--encoding=UTF-8", "--local-file", path, env=env)
        assert not result.stderr, f"{path.name}: {result.stderr}"
        assert "SEE ALSO" in result.stdout, path.name


def test_html(installed, options):
    """The web pages are installed with their style."""
    if not options["docs"]:
        pytest.skip("$HF_BUILD was built without docs")
    pages = installed.dir("datadir", "doc", "holdfast", "html")
    assert (pages / "index.html").exists() and (pages / "holdfast.css").exists()
    assert len(list(pages.glob("*.html"))) == len(list((BUILD / "docs/html").glob("*.html")))


def test_lens(installed, workdir):
    """The installed lens reads the installed holdfast.conf."""
    needs("augparse")
    conf = installed.dir("sysconfdir", "holdfast", "holdfast.conf")
    text = conf.read_text(encoding="utf-8").replace("\\", "\\\\").replace('"', '\\"')
    test = workdir / "test_installed.aug"
    lenses = installed.dir("datadir", "augeas", "lenses")
    test.write_text(f'module Test_installed =\nlet text = "{text}"\n'
                    'test Holdfast.lns put text after rm "/none" = text\n', encoding="utf-8")
    run("augparse", "-I", lenses, test)
    run("augparse", "-I", lenses, lenses / "tests" / "test_holdfast.aug")


def test_settings_are_kept(installed, options, session_workdir):
    """A changed holdfast.conf survives another installation; the new one lies beside it."""
    root = session_workdir / "again"
    conf = Installed(root, options).dir("sysconfdir", "holdfast", "holdfast.conf")
    conf.parent.mkdir(parents=True)
    conf.write_text("lane_threads = 4\n", encoding="utf-8")
    for _ in range(2):
        run("meson", "install", "-C", BUILD, "--no-rebuild", "--destdir", root)
    assert conf.read_text(encoding="utf-8") == "lane_threads = 4\n"
    assert sorted(path.name for path in conf.parent.iterdir()) == ["holdfast.conf",
                                                                  "holdfast.conf.new"]
    shipped = installed.dir("sysconfdir", "holdfast", "holdfast.conf").read_bytes()
    assert (conf.parent / "holdfast.conf.new").read_bytes() == shipped


def test_completions(installed):
    """Both shells find their completions."""
    assert installed.dir("datadir", "bash-completion", "completions", "holdfast").exists()
    assert installed.dir("datadir", "zsh", "site-functions", "_holdfast").exists()
