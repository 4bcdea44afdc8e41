# SPDX-License-Identifier: LGPL-2.1-or-later
"""The documentation against the programs: what it lists is there, and what is there is listed.

The page of the native protocol is in test_docs_protocol.py.
"""

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree

import pytest
from doc_pages import (BUILD, DOCS, REPOSITORY, SOURCES, code_blocks, definitions, doctree,
                       documented_events, literals, nodes, page_id, run, section, shown_options)
from native import ERROR_CLASSES, Refused
from waiting import wait_until

HTML = BUILD / "docs" / "html"
EVENTS_OF_THE_COMMAND = {"EVENTS_LOST"}

built = pytest.mark.skipif(not HTML.is_dir(), reason="$HF_BUILD was built without docs")


# ---- the pages -----------------------------------------------------------------------------------

@built
def test_html_is_complete():
    """Each source has its page, which is well-formed, and there is nothing else."""
    pages = {path.name for path in HTML.glob("*.html")}
    assert pages == {page_id(path) + ".html" for path in SOURCES}
    for name in pages:
        ElementTree.parse(HTML / name)


def links(path):
    """The links of a page: (page, fragment); and the fragments that it has."""
    root = ElementTree.parse(path).getroot()
    elements = list(root.iter())
    hrefs = [element.attrib[name] for element in elements for name in ("href", "src")
             if name in element.attrib]
    assert not [href for href in hrefs if "://" in href], "a link out of the documentation"
    return [href.partition("#")[::2] for href in hrefs], \
        {element.attrib["id"] for element in elements if "id" in element.attrib}


@built
def test_links_resolve():
    """No link leads nowhere, and every page can be reached from the index."""
    pages = {path.name: links(path) for path in HTML.glob("*.html")}
    for name, (targets, _) in pages.items():
        for target, fragment in targets:
            target = target or name
            assert (HTML / target).exists(), f"{name}: {target}"
            assert not fragment or fragment in pages[target][1], f"{name}: {target}#{fragment}"
    seen, todo = set(), ["index.html"]
    while todo:
        name = todo.pop()
        if name in pages and name not in seen:
            seen.add(name)
            todo += [target for target, _ in pages[name][0]]
    assert seen == set(pages)


@built
@pytest.mark.parametrize("path", [path for path in SOURCES if path.parent.name == "man"],
                         ids=page_id)
def test_manual_page(path):
    """A manual page has the parts that all have, and its links are to pages that there are."""
    tree = doctree(path)
    titles = [found[0].astext() for found in tree.children if isinstance(found, nodes.section)]
    assert titles[:2] == ["SYNOPSIS", "DESCRIPTION"] and titles[-1] == "SEE ALSO"
    page = (HTML / f"{page_id(path)}.html").read_text(encoding="utf-8")
    assert not re.search(r"<strong>(holdfast|libholdfast)[^<]*</strong>\([0-9]\)", page)
    assert f".TH \"{tree[0].astext().upper()}\" {page_id(path)[-1]} " in \
        (BUILD / "docs" / "man" / page_id(path)).read_text(encoding="utf-8")


# ---- the tree ------------------------------------------------------------------------------------

def folders(top=REPOSITORY):
    """The folders of the tree that have files, relative to it: no builds, nothing hidden but CI."""
    for path in top.iterdir():
        if path.is_dir() and path.name != "__pycache__" and not (path / "meson-private").exists() \
                and (path.name == ".ci" or not path.name.startswith(".")):
            if any(child.is_file() for child in path.iterdir()):
                yield str(path.relative_to(REPOSITORY)) + "/"
            yield from folders(path)


def test_folders():
    """ARCHITECTURE.md names every folder, but for what is in a corpus, and no other."""
    text = (REPOSITORY / "ARCHITECTURE.md").read_text(encoding="utf-8")
    block = re.search(r"## The folders\n\n```\n(.+?)```", text, re.DOTALL)[1]
    named = set()
    for top, about in re.findall(r"(?m)^(\S+/) +(.+(?:\n .+)*)", block):
        named |= {top} | {top + name for name in re.findall(r"(?<![\w./])[\w/]+/(?!\w)", about)}
    assert not [path for path in named if not (REPOSITORY / path).is_dir()]
    assert {path for path in folders() if "/corpus/" not in path} <= named


# ---- settings ------------------------------------------------------------------------------------

def shipped_settings():
    """The settings that the shipped holdfast.conf shows: key -> value."""
    text = (REPOSITORY / "conf/holdfast.conf").read_text(encoding="utf-8")
    return dict(re.findall(r"(?m)^#?([a-z_]+) = (.+)$", text))


def test_settings():
    """holdfast.conf(5) has every key, in the file's order, and the same defaults of numbers."""
    documented = {term.split(" = ")[0]: definition.astext()
                  for term, definition in definitions(doctree(DOCS / "man/holdfast.conf.5.rst"))
                  .items() if " = " in term}
    shipped = shipped_settings()
    assert list(documented) == list(shipped)
    for key, value in shipped.items():
        if value.isdigit() and key != "require_lease_for_disks":
            assert f"Default: {value}." in documented[key].replace("\n", " "), key
        else:
            assert "Default" in documented[key], key


def test_settings_of_libvirt():
    """holdfast.conf(5) has the keys of libvirt's files that count."""
    text = (REPOSITORY / "src/core/settings-schema.c").read_text(encoding="utf-8")
    files = definitions(section(doctree(DOCS / "man/holdfast.conf.5.rst"), "FILES"))
    for name, mark in (("qemu-lockd.conf", "LOCKD"), ("virtlockd.conf", "VIRTLOCKD")):
        entries = re.findall(r'\{(?:MEMBER\(|")(\w+)[)"],[^}]*?\.files = ([^,]+)', text)
        keys = {key for key, marks in entries if mark in marks.split(" | ")}
        assert keys and keys == literals(files[f"/etc/libvirt/{name}"]), name


def test_log_filters():
    """holdfast.conf(5) names the parts of the daemon that log."""
    text = definitions(doctree(DOCS / "man/holdfast.conf.5.rst"))['log_filters = "LEVEL:NAME ..."']
    real = {name for path in (REPOSITORY / "src").rglob("*.c") if path.parent.name != "prhelper"
            for name in re.findall(r'#define G_LOG_DOMAIN "(.+)"', path.read_text("utf-8"))}
    assert {word.astext() for word in text.findall(nodes.emphasis)} - {"NAME"} == real


# ---- commands and options ------------------------------------------------------------------------

def test_verbs():
    """holdfast(1) has every verb; each has a manual page, which has all of its options."""
    verbs = re.findall(r"(?m)^  ([a-z-]+) {2,}", run(BUILD / "holdfast", "--help").stdout)
    documented = definitions(section(doctree(DOCS / "man/holdfast.1.rst"), "VERBS"))
    assert [term.split()[0] for term in documented] == verbs
    common = shown_options("holdfast")
    text = (DOCS / "man/holdfast.1.rst").read_text(encoding="utf-8")
    assert not [option for option in common if option not in text]
    for verb in set(verbs) - {"help", "version"}:
        text = (DOCS / f"man/holdfast-{verb}.1.rst").read_text(encoding="utf-8")
        own = shown_options("holdfast", verb) - common
        assert not [option for option in own if option not in text], verb


def test_capabilities():
    """holdfast-drivers(1) and the protocol's page have the words for what drivers can do."""
    source = (REPOSITORY / "src/daemon/drivers-list.c").read_text(encoding="utf-8")
    real = set(re.findall(r'array_add\(can, json_object_new_string\("([a-z-]+)"\)', source))
    keys = definitions(doctree(DOCS / "man/holdfast-drivers.1.rst"))
    assert literals(keys["capabilities"]) == real and len(real) == 3
    page = (DOCS / "native-protocol.rst").read_text(encoding="utf-8")
    assert set(re.findall(r'"([a-z-]+)"', re.search(r'"capabilities": \[(.*?)\]', page)[1])) == real


def test_classes_of_the_command():
    """holdfast(1) has the classes of errors that are the command's own."""
    options = section(doctree(DOCS / "man/holdfast.1.rst"), "OPTIONS")
    source = "".join(path.read_text("utf-8") for path in (REPOSITORY / "src/cli").glob("*.c"))
    own = set(re.findall(r'cli_fail\([^"]*"([A-Z][A-Za-z]+)"', source)) - set(ERROR_CLASSES)
    assert own >= {"Connection", "Log"}
    documented = {word for word in literals(options) if re.fullmatch("([A-Z][a-z]+)+", word)}
    assert documented == own | {"Internal"}


@pytest.mark.parametrize("program", ["holdfastd", "virtlockd"])
def test_daemon_options(program):
    """holdfastd(8) has every option of the daemon, and no other."""
    options = section(doctree(DOCS / "man/holdfastd.8.rst"), "OPTIONS")
    lists = list(options.findall(nodes.option_list))
    documented = {found.astext() for part in lists[:2 if program == "holdfastd" else 1]
                  for found in part.findall(nodes.option_string)}
    assert documented == shown_options(program)


def test_helper_options():
    """holdfast-pr-helper(8) has every option of the helper, and no other."""
    options = section(doctree(DOCS / "man/holdfast-pr-helper.8.rst"), "OPTIONS")
    documented = {found.astext() for found in options.findall(nodes.option_string)}
    assert documented == shown_options("holdfast-pr-helper")


def test_events_of_watch():
    """holdfast-watch(1) has the protocol's events, and the one that the command makes."""
    text = definitions(doctree(DOCS / "man/holdfast-watch.1.rst"))
    assert set(text) == set(documented_events()) | EVENTS_OF_THE_COMMAND


def test_units():
    """The units that the documentation names are there."""
    named = {name for path in SOURCES
             for name in re.findall(r"\bholdfast[a-z-]*\.(?:socket|service|timer)\b",
                                    path.read_text("utf-8"))}
    there = {path.name.removesuffix(".in") for path in (REPOSITORY / "conf/systemd").rglob("*.in")}
    assert named == there


def test_messages():
    """Each message that the page on refusals explains can be had."""
    source = "".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "src").rglob("*.c"))
    source = re.sub(r'"\s*\n\s*"', "", source)
    terms = definitions(section(doctree(DOCS / "refusals.rst"), "What it can say, and what to do"))
    quoted = [text for term in terms for text in re.findall('"([^"]+)"', term)]
    assert len(quoted) >= 20
    for text in quoted:
        pattern = re.sub(r"\\?\b\d+\\?\b|a (directory|FIFO|symbolic)(\\ link)?", "%[sd]",
                         re.escape(text))
        assert re.search(pattern, source) or text.removeprefix("is ") in source, text


# ---- examples ------------------------------------------------------------------------------------

@pytest.mark.parametrize("path", SOURCES, ids=page_id)
def test_shell_examples(path):
    """Shell commands are well-formed."""
    for block in code_blocks(path, "sh"):
        result = run("bash", "-n", "-c", block)
        assert result.returncode == 0, f"{block}\n{result.stderr}"


@pytest.mark.parametrize("path", SOURCES, ids=page_id)
def test_other_examples(path, workdir):
    """C can be compiled, XML parsed, and settings are right."""
    for text in code_blocks(path, "xml"):
        ElementTree.fromstring(text)
    for text in code_blocks(path, "c") + code_blocks(path):
        if "int main(" in text or text.endswith("HF_REGISTER_DRIVER(driver)"):
            source = workdir / "example.c"
            source.write_text(text, encoding="utf-8")
            result = run("cc", "-std=gnu17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only",
                         f"-I{REPOSITORY}/include", source)
            assert result.returncode == 0, result.stderr
    for text in code_blocks(path, "ini"):
        if not text.startswith("[") and "lock_manager" not in text:
            (workdir / "holdfast.conf").write_text(text + "\n", encoding="utf-8")
            result = run(BUILD / "holdfast", "check-config", workdir / "holdfast.conf")
            assert result.returncode == 0, result.stdout


def test_commands_in_examples():
    """Where an example calls holdfast, there is such a verb, and it has these options."""
    verbs = re.findall(r"(?m)^  ([a-z-]+) {2,}", run(BUILD / "holdfast", "--help").stdout)
    options = {verb: shown_options("holdfast", verb) for verb in verbs}
    seen = set()
    for path in SOURCES:
        for block in doctree(path).findall(nodes.literal_block):
            text = block.astext().replace("\\\n", " ")
            calls = r"(?m)(?<![/\w])holdfast (?:--json |--socket \S+ )*([a-z][a-z-]*)(.*)$"
            for verb, rest in re.findall(calls, text):
                assert verb in verbs, f"{path}: holdfast {verb}"
                given = re.split(r" -- |[|;&]", rest)[0]
                assert set(re.findall(r"--[a-z-]+", given)) <= options[verb], f"{path}: {rest}"
                seen.add(verb)
    assert len(seen) >= 9


def test_first_machine(workdir):
    """The first part of Getting started can be typed as it stands."""
    if not shutil.which("qemu-system-x86_64"):
        pytest.skip("qemu-system-x86_64 is not installed")
    tree = section(doctree(DOCS / "getting-started.rst"), "A first machine, as yourself")
    commands = "\n".join(block.astext() for block in tree.findall(nodes.literal_block))
    runtime = workdir / "run"
    runtime.mkdir()
    env = {"PATH": f"{BUILD}:{os.environ['PATH']}", "HOME": str(workdir), "LC_ALL": "C.UTF-8",
           "XDG_RUNTIME_DIR": str(runtime), "XDG_CONFIG_HOME": str(workdir / "config"),
           "HOLDFAST_SOCKET": f"{runtime}/holdfast/holdfast.sock",
           **{name: value for name, value in os.environ.items() if name.endswith("SAN_OPTIONS")}}
    result = run("bash", "-c", commands, cwd=workdir, env=env)
    pid_file = runtime / "holdfast/holdfast.sock.pid"
    try:
        assert result.returncode == 0, result.stderr
        lines = result.stdout.splitlines()
        assert re.match(rf"{workdir}/web1.img +exclusive +web1 ", lines[1])
        assert lines[2].startswith(f"{workdir}/web1.img is held by VM web1 (pid ")
        assert lines[3:] == ["exit code 75", "exit code 75", "web2 has the disk now"]
        assert result.stderr.count("is held by VM web1") >= 2
        wait_until(lambda: not pid_file.exists(), "the daemon to end")
    finally:
        with suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int(pid_file.read_text(encoding="ascii")), 15)


def test_driver_of_the_page(workdir, start_daemon, vm, other_vm):
    """The driver in Writing a driver does what it says."""
    drivers = workdir / "drivers"
    locks = workdir / "locks"
    drivers.mkdir()
    locks.mkdir()
    [source] = code_blocks(DOCS / "writing-a-driver.rst", "c")
    (workdir / "symlink.c").write_text(source, encoding="utf-8")
    result = run("cc", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o",
                 drivers / "symlink.so", workdir / "symlink.c", f"-I{REPOSITORY}/include")
    assert result.returncode == 0, result.stderr
    daemon = start_daemon(driver_dir=drivers, default_driver="symlink",
                          driver_config=[f"symlink.directory={locks}"])
    with daemon.client() as client:
        [lease] = client.acquire(vm, "/srv/web1.img")
        assert lease["driver"] == "symlink"
        [link] = locks.iterdir()
        assert os.readlink(link) == f"{daemon.host}:{vm.pid}:{vm.name}"
        with pytest.raises(Refused, match=f"held by VM {vm.name} .*pid {vm.pid}"):
            client.acquire(other_vm, "/srv/web1.img")
        with pytest.raises(Refused, match="only exclusive locks"):
            client.acquire(other_vm, ("/srv/other.img", "shared"))
        assert client.holders("/srv/web1.img")[0] == "held"
        client.release(vm, "/srv/web1.img")
        assert not list(locks.iterdir())
        os.symlink("n4:4711:db1", locks / ":!srv!web1.img")
        with pytest.raises(Refused, match="held by VM db1 .pid 4711. on host n4"):
            client.acquire(vm, "/srv/web1.img")
    assert refused_to_start(start_daemon, driver_dir=drivers,
                            driver_config=["symlink.directory=here"]).startswith(
                                "holdfastd: holdfast.conf:")


def refused_to_start(start_daemon, **settings):
    """What a daemon says that does not start."""
    daemon = start_daemon("broken", start=False, **settings)
    daemon.launch()
    assert daemon.process.wait(60) == 1
    return Path(daemon.log_path).read_text(encoding="utf-8")
