/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a domain's XML names: disks, leases, name and UUID; and what it must not be able to do:
 * read files, reach the network, eat memory, or lead a lease out of its directory.
 */
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/domain-xml.h"

static Wanted *parse(const char *xml)
{
    g_autoptr(Wanted) wanted = wanted_new();
    g_autoptr(GError) error = NULL;

    domain_xml_parse("d.xml", xml, strlen(xml), wanted, &error);
    g_assert_no_error(error);
    return g_steal_pointer(&wanted);
}

static void assert_refused_bytes(const char *xml, gsize length, const char *part)
{
    g_autoptr(Wanted) wanted = wanted_new();
    g_autoptr(GError) error = NULL;

    g_assert_false(domain_xml_parse("d.xml", xml, length, wanted, &error));
    g_assert_nonnull(error);
    if (!strstr(error->message, part))
        g_error("\"%s\" is not in \"%s\"", part, error->message);
    g_assert_true(g_str_has_prefix(error->message, "d.xml: "));
    g_assert_null(strchr(error->message, '\n'));
}

static void assert_refused(const char *xml, const char *part)
{
    assert_refused_bytes(xml, strlen(xml), part);
}

static void assert_disk(const Wanted *wanted, guint index, const char *path, hf_mode mode)
{
    const WantedDisk *disk;

    g_assert_cmpuint(index, <, wanted->disks->len);
    disk = g_ptr_array_index(wanted->disks, index);
    g_assert_cmpstr(disk->path, ==, path);
    g_assert_cmpint(disk->mode, ==, mode);
}

static const char typical[] =
    "<?xml version='1.0' encoding='UTF-8'?>\n"
    "<!-- made by virsh dumpxml -->\n"
    "<domain type='kvm' id='3' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>\n"
    "  <name>web1</name>\n"
    "  <uuid>4DEA22B3-1d52-d8f3-2516-782e98ab3fa0</uuid>\n"
    "  <metadata><x:disk xmlns:x='urn:x' type='file'><x:source file='/no'/></x:disk></metadata>\n"
    "  <os><type>hvm</type></os>\n"
    "  <devices>\n"
    "    <emulator>/usr/bin/qemu-system-x86_64</emulator>\n"
    "    <disk type='file' device='disk'>\n"
    "      <driver name='qemu' type='qcow2'/>\n"
    "      <source file='/srv/a &amp; b &lt;&#xfc;&gt;.img' index='1'/>\n"
    "      <backingStore type='file'><format type='raw'/><source file='/srv/base.img'/>"
    "</backingStore>\n"
    "      <target dev='vda' bus='virtio'/>\n"
    "    </disk>\n"
    "    <disk type='block' device='lun'><source dev='/dev/sdb'/><target dev='sda'/>"
    "<shareable/></disk>\n"
    "    <disk type='file' device='cdrom'><source file='/srv/debian.iso'/><target dev='sdb'/>"
    "</disk>\n"
    "    <disk type='file' device='cdrom'><target dev='sdc'/></disk>\n"
    "    <disk type='file' device='floppy'><source file='/srv/floppy.img'/><target dev='fda'/>"
    "</disk>\n"
    "    <disk type='file' device='disk'><source file='/srv/ro.img'/><target dev='vdb'/>"
    "<readonly/><shareable/></disk>\n"
    "    <disk><source file='/srv/default.img'/></disk>\n"
    "    <disk type='network' device='disk'><source protocol='rbd' name='p/i'/>"
    "<target dev='vdc'/></disk>\n"
    "    <disk type='volume'><source pool='p' volume='v'/></disk>\n"
    "    <disk type='nvme'><source type='pci'/><target dev='vdd'/></disk>\n"
    "    <lease><lockspace>somearea</lockspace>\n      <key> somekey\n </key>"
    "<target path='/some/lease/path' offset='0'/></lease>\n"
    "    <lease><lockspace>a</lockspace><key>k:2</key><target path='/p'/></lease>\n"
    "  </devices>\n"
    "</domain>\n";

static void test_typical(void)
{
    g_autoptr(Wanted) wanted = parse(typical);
    const WantedLease *lease;

    g_assert_cmpstr(wanted->name, ==, "web1");
    g_assert_cmpstr(wanted->uuid, ==, "4dea22b3-1d52-d8f3-2516-782e98ab3fa0");
    g_assert_cmpuint(wanted->disks->len, ==, 6);
    assert_disk(wanted, 0, "/srv/a & b <ü>.img", HF_MODE_EXCLUSIVE);
    assert_disk(wanted, 1, "/dev/sdb", HF_MODE_SHARED);
    assert_disk(wanted, 2, "/srv/debian.iso", HF_MODE_READONLY);
    assert_disk(wanted, 3, "/srv/floppy.img", HF_MODE_EXCLUSIVE);
    assert_disk(wanted, 4, "/srv/ro.img", HF_MODE_READONLY);
    assert_disk(wanted, 5, "/srv/default.img", HF_MODE_EXCLUSIVE);
    g_assert_cmpuint(wanted->leases->len, ==, 2);
    lease = g_ptr_array_index(wanted->leases, 0);
    g_assert_cmpstr(lease->lockspace, ==, "/some/lease/path/somearea");
    g_assert_cmpstr(lease->key, ==, "somekey");
    g_assert_cmpint(lease->mode, ==, HF_MODE_EXCLUSIVE);
    lease = g_ptr_array_index(wanted->leases, 1);
    g_assert_cmpstr(lease->lockspace, ==, "/p/a");
    g_assert_cmpstr(lease->key, ==, "k:2");
    g_assert_cmpuint(wanted->warnings->len, ==, 3);
    g_assert_nonnull(strstr(wanted->warnings->pdata[0], "disk vdc is of type 'network'"));
    g_assert_nonnull(strstr(wanted->warnings->pdata[1], "a disk is of type 'volume'"));
    g_assert_nonnull(strstr(wanted->warnings->pdata[2], "disk vdd is of type 'nvme'"));
}

static void test_small(void)
{
    g_autoptr(Wanted) empty = parse("<domain/>");
    g_autoptr(Wanted) odd = parse("<domain><name> </name><devices><disk type='file'>"
                                  "<source file=''/></disk></devices>"
                                  "<uuid>4dea22b31d52d8f32516782e98ab3fa0</uuid></domain>");

    g_assert_null(empty->name);
    g_assert_null(empty->uuid);
    g_assert_cmpuint(empty->disks->len, ==, 0);
    g_assert_null(odd->name);
    g_assert_cmpstr(odd->uuid, ==, "4dea22b3-1d52-d8f3-2516-782e98ab3fa0");
    g_assert_cmpuint(odd->disks->len, ==, 0);
}

static void test_wrong(void)
{
    assert_refused("", "no well-formed XML");
    assert_refused("web1\n", "line 1: no well-formed XML");
    assert_refused("<domain>\n\n<a></domain>", "line 3: no well-formed XML");
    assert_refused("<network/>", "the root element is <network>, not <domain>");
    assert_refused("<x:domain xmlns:x='urn:x'/>", "this is no libvirt domain");
    assert_refused("<domain><uuid>4dea22b3</uuid></domain>", "<uuid> '4dea22b3' is no UUID");
    assert_refused("<domain><uuid/></domain>", "is no UUID");
    assert_refused("<domain><devices><disk><source file='a.img'/><target dev='vda'/></disk>"
                   "</devices></domain>",
                   "the source 'a.img' of disk vda is not an absolute path");
    assert_refused("<domain><name>\xff</name></domain>", "no well-formed XML");
    assert_refused("<domain a='1' a='2'/>", "no well-formed XML");
    assert_refused_bytes("<domain>\0</domain>", 18, "no well-formed XML");
}

#define LEASE(inside) "<domain><devices><lease>" inside "</lease></devices></domain>"
#define LOCKSPACE "<lockspace>s</lockspace>"
#define KEY "<key>k</key>"
#define TARGET "<target path='/p'/>"

static void test_leases_wrong(void)
{
    assert_refused(LEASE(""), "a <lease> needs");
    assert_refused(LEASE(LOCKSPACE KEY), "a <lease> needs");
    assert_refused(LEASE(KEY TARGET), "a <lease> needs");
    assert_refused(LEASE(LOCKSPACE KEY "<target/>"), "a <lease> needs");
    assert_refused(LEASE(LOCKSPACE KEY "<target path='p'/>"), "is not absolute");
    assert_refused(LEASE(LOCKSPACE KEY "<target path='/p' offset='1048576'/>"),
                   "has offset '1048576'");
    assert_refused(LEASE(LOCKSPACE KEY "<target path='/p' offset='x'/>"), "has offset 'x'");
    assert_refused(LEASE(LOCKSPACE KEY "<target path='/p' offset='-1'/>"), "has offset '-1'");
    assert_refused(LEASE(LOCKSPACE "<key>../k</key>" TARGET), "would leave its directory");
    assert_refused(LEASE(LOCKSPACE "<key>..</key>" TARGET), "would leave its directory");
    assert_refused(LEASE(LOCKSPACE "<key> </key>" TARGET), "would leave its directory");
    assert_refused(LEASE("<lockspace>/etc</lockspace>" KEY TARGET), "would leave its directory");
    assert_refused(LEASE("<lockspace>.</lockspace>" KEY TARGET), "would leave its directory");
}

/* Entities are declared in a DTD, and a file with one is not read on. */
static void test_entities(void)
{
    g_autoptr(GString) bomb = g_string_new("<!DOCTYPE domain [<!ENTITY e0 'AAAAAAAAAAAAAAAA'>");

    for (int i = 1; i < 30; i++)
        g_string_append_printf(bomb, "<!ENTITY e%d '&e%d;&e%d;&e%d;&e%d;'>", i, i - 1, i - 1, i - 1,
                               i - 1);
    g_string_append(bomb, "]><domain><name a='&e29;'>&e29;</name></domain>");
    assert_refused(bomb->str, "document type declaration");
    assert_refused("<!DOCTYPE domain [<!ENTITY x SYSTEM 'file:///etc/passwd'>]>"
                   "<domain><name>&x;</name></domain>",
                   "document type declaration");
    assert_refused("<!DOCTYPE domain [<!ENTITY % x SYSTEM 'http://127.0.0.1:1/x.dtd'> %x;]>"
                   "<domain/>",
                   "document type declaration");
    assert_refused("<!DOCTYPE domain SYSTEM 'http://127.0.0.1:1/x.dtd'><domain/>",
                   "document type declaration");
    assert_refused("<!DOCTYPE domain><domain/>", "document type declaration");
    assert_refused("<domain><name>&x;</name></domain>", "no well-formed XML");
}

/* XInclude and stylesheets are other programs' business: they stay what they are, text. */
static void test_no_inclusion(void)
{
    g_autoptr(Wanted) wanted = parse("<?xml-stylesheet href='file:///etc/passwd'?>"
                                     "<domain xmlns:xi='http://www.w3.org/2001/XInclude'><name>"
                                     "<xi:include href='/etc/passwd' parse='text'/></name>"
                                     "</domain>");

    g_assert_null(wanted->name);
}

static void test_huge(void)
{
    g_autoptr(GString) xml = g_string_new("<domain>");
    g_autofree char *longer = g_strnfill(17 << 20, ' ');

    for (int i = 0; i < 100000; i++)
        g_string_append(xml, "<a>");
    for (int i = 0; i < 100000; i++)
        g_string_append(xml, "</a>");
    g_string_append(xml, "</domain>");
    assert_refused(xml->str, "no well-formed XML"); /* too deep */

    assert_refused(longer, "longer than 16 MiB");
}

/* Ten thousand disks are many, but nothing wrong. */
static void test_many(void)
{
    g_autoptr(GString) xml = g_string_new("<domain><devices>");
    g_autoptr(Wanted) wanted = NULL;

    for (int i = 0; i < 10000; i++)
        g_string_append_printf(xml, "<disk type='file'><source file='/srv/%d'/></disk>", i);
    g_string_append(xml, "</devices></domain>");
    wanted = parse(xml->str);
    g_assert_cmpuint(wanted->disks->len, ==, 10000);
    assert_disk(wanted, 9999, "/srv/9999", HF_MODE_EXCLUSIVE);
}

static void assert_load_fails(const char *file, const char *part)
{
    g_autoptr(Wanted) wanted = wanted_new();
    g_autoptr(GError) error = NULL;

    g_assert_false(domain_xml_load(file, wanted, &error));
    g_assert_nonnull(error);
    if (!strstr(error->message, part))
        g_error("\"%s\" is not in \"%s\"", part, error->message);
}

static void test_load(void)
{
    g_autofree char *dir = g_dir_make_tmp("holdfast-domain-XXXXXX", NULL);
    g_autofree char *file = g_build_filename(dir, "d.xml", NULL);
    g_autoptr(Wanted) wanted = wanted_new();

    assert_load_fails(file, "cannot open the domain: No such file or directory");
    assert_load_fails(dir, "cannot read: Is a directory");
    assert_load_fails("/dev/zero", "longer than 16 MiB"); /* it has no end */
    g_assert_true(g_file_set_contents(file, typical, -1, NULL));
    g_assert_true(domain_xml_load(file, wanted, NULL));
    g_assert_cmpstr(wanted->name, ==, "web1");
    g_unlink(file);
    g_rmdir(dir);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/domain-xml/typical", test_typical);
    g_test_add_func("/domain-xml/small", test_small);
    g_test_add_func("/domain-xml/wrong", test_wrong);
    g_test_add_func("/domain-xml/leases/wrong", test_leases_wrong);
    g_test_add_func("/domain-xml/entities", test_entities);
    g_test_add_func("/domain-xml/no-inclusion", test_no_inclusion);
    g_test_add_func("/domain-xml/huge", test_huge);
    g_test_add_func("/domain-xml/many", test_many);
    g_test_add_func("/domain-xml/load", test_load);
    return g_test_run();
}
