/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The identity rules: which names a disk gets, to the letter those that stock libvirt gives, and
 * what is looked up for them. The hashes below are what sha256sum prints for the paths.
 */
#include "core/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEMO "/var/lib/libvirt/images/demo.img"
#define DEMO_HASH "6f716e8c06fc109acd342e3c129a17ccf3c473c1c76363b543a1cbb55d1cd778"
#define SRV "/srv/a.img"
#define SRV_HASH "2b6011ba5d563292bf53a35f00c7b345640583bc4e94cca624e490f135ff7c13"
#define FILES "/files"
#define LVM "/lvm"
#define SCSI "/scsi"

/* ---- names ----------------------------------------------------------------------------- */

typedef struct NameCase {
    IdentityRules rules;
    const char *path;
    IdentityFacts facts;
    const char *expected; /* "SPACE KEY flags", one a line; flags: a autocreate */
} NameCase;

#define ALL_DIRS                                                                                   \
    {                                                                                              \
        .file_lockspace_dir = FILES, .lvm_lockspace_dir = LVM, .scsi_lockspace_dir = SCSI          \
    }

static const NameCase name_cases[] = {
    /* nothing set: the disk itself, never made */
    {{0}, SRV, {0}, " " SRV " \n"},
    {{0}, "/dev/sda", {0}, " /dev/sda \n"},
    {{.lvm_lockspace_dir = LVM}, SRV, {0}, " " SRV " \n"},
    /* the hash of the path as it was given */
    {{.file_lockspace_dir = FILES}, DEMO, {.canonical = (char *)DEMO}, FILES " " DEMO_HASH " a\n"},
    {{.file_lockspace_dir = FILES}, DEMO, {.canonical = NULL}, FILES " " DEMO_HASH " a\n"},
    /* a second name when the path has another form, so that hosts may spell it differently */
    {{.file_lockspace_dir = FILES},
     DEMO,
     {.canonical = (char *)SRV},
     FILES " " DEMO_HASH " a\n" FILES " " SRV_HASH " a\n"},
    /* a volume and a SCSI disk have one name, whatever their paths are */
    {ALL_DIRS,
     "/dev/vg/lv",
     {.lv_uuid = (char *)"u", .canonical = (char *)"/dev/dm-0"},
     LVM " u a\n"},
    {ALL_DIRS,
     "/dev/sda",
     {.scsi_id = (char *)"3600", .canonical = (char *)"/dev/sda"},
     SCSI " 3600 a\n"},
    {ALL_DIRS, "/dev/x", {.lv_uuid = (char *)"u", .scsi_id = (char *)"3600"}, LVM " u a\n"},
    /* NVMe: stock's name, and the id that stock does not know */
    {ALL_DIRS,
     SRV,
     {.nvme_id = (char *)"eui.01", .canonical = (char *)SRV},
     FILES " " SRV_HASH " a\n" SCSI " eui.01 a\n"},
    {{.scsi_lockspace_dir = SCSI},
     "/dev/nvme0n1",
     {.nvme_id = (char *)"eui.01"},
     " /dev/nvme0n1 \n" SCSI " eui.01 a\n"},
};

static void test_names(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(name_cases); i++) {
        const NameCase *c = &name_cases[i];
        g_autoptr(GPtrArray) names = identity_names(&c->rules, c->path, &c->facts);
        g_autoptr(GString) text = g_string_new(NULL);

        for (guint k = 0; k < names->len; k++) {
            const IdentityName *name = g_ptr_array_index(names, k);

            g_string_append_printf(text, "%s %s %s\n", name->space, name->key,
                                   name->autocreate ? "a" : "");
        }
        g_assert_cmpstr(text->str, ==, c->expected);
    }
}

/* Where no rule asks for facts, none are needed. */
static void test_names_without_facts(void)
{
    const IdentityRules rules = {.lvm_lockspace_dir = LVM};
    g_autoptr(GPtrArray) names = identity_names(&rules, SRV, NULL);

    g_assert_cmpuint(names->len, ==, 1);
}

static void test_needs_facts(void)
{
    static const struct {
        IdentityRules rules;
        const char *path;
        gboolean needs;
    } cases[] = {
        {{0}, SRV, FALSE},
        {{0}, "/dev/sda", FALSE},
        {{.file_lockspace_dir = FILES}, SRV, TRUE},
        {{.lvm_lockspace_dir = LVM}, SRV, FALSE},
        {{.lvm_lockspace_dir = LVM}, "/dev/vg/lv", TRUE},
        {{.scsi_lockspace_dir = SCSI}, "/dev/sda", TRUE},
        {{.scsi_lockspace_dir = SCSI}, "/srv/dev/sda", FALSE},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++)
        g_assert_cmpint(identity_needs_facts(&cases[i].rules, cases[i].path), ==, cases[i].needs);
}

/* ---- logical volumes ------------------------------------------------------------------- */

#define VG "abcdefghijklmnopqrstuvwxyzABCDEF"
#define LV "0123456789ABCDEFGHIJKLMNOPQRSTUV"

static void test_lv_key(void)
{
    static const struct {
        const char *dm_uuid;
        const char *key;
    } cases[] = {
        {"LVM-" VG LV, "012345-6789-ABCD-EFGH-IJKL-MNOP-QRSTUV"},
        {"LVM-" VG LV "\n", "012345-6789-ABCD-EFGH-IJKL-MNOP-QRSTUV"},
        /* internal volumes are not what a guest is given */
        {"LVM-" VG LV "-real", NULL},
        {"LVM-" VG LV "-cow\n", NULL},
        /* others of the device mapper */
        {"mpath-3600140", NULL},
        {"CRYPT-LUKS2-" VG LV, NULL},
        {"lvm-" VG LV, NULL},
        {"LVM-" VG, NULL},
        {"LVM-", NULL},
        {"LVM", NULL},
        {"", NULL},
        {"\n", NULL},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *key = identity_lv_key(cases[i].dm_uuid);

        g_assert_cmpstr(key, ==, cases[i].key);
    }
}

/* ---- claims ---------------------------------------------------------------------------- */

/* A file is its device and inode, a block device the device that it stands for. */
static void test_claim(void)
{
    const struct stat file = {.st_mode = S_IFREG | 0600, .st_dev = 0x801, .st_ino = 4711};
    const struct stat block = {
        .st_mode = S_IFBLK | 0660, .st_dev = 5, .st_rdev = 0x700, .st_ino = 12};
    g_autofree char *file_claim = identity_claim(&file);
    g_autofree char *block_claim = identity_claim(&block);

    g_assert_cmpstr(file_claim, ==, "file:8:1:4711");
    g_assert_cmpstr(block_claim, ==, "block:7:0");
}

/* ---- looking up ------------------------------------------------------------------------ */

typedef struct Fixture {
    char *dir;
    char *file;
    char *link;
} Fixture;

static void fixture_up(Fixture *self, gconstpointer data)
{
    (void)data;
    self->dir = g_dir_make_tmp("hf-identity-XXXXXX", NULL);
    g_assert_nonnull(self->dir);
    self->file = g_build_filename(self->dir, "file", NULL);
    self->link = g_build_filename(self->dir, "link", NULL);
    g_assert_true(g_file_set_contents(self->file, "x", 1, NULL));
    g_assert_cmpint(symlink(self->file, self->link), ==, 0);
}

static void fixture_down(Fixture *self, gconstpointer data)
{
    (void)data;
    g_unlink(self->link);
    g_unlink(self->file);
    g_assert_cmpint(g_rmdir(self->dir), ==, 0);
    g_free(self->link);
    g_free(self->file);
    g_free(self->dir);
}

static const IdentityRules file_rules = {.file_lockspace_dir = FILES};

static void assert_refused(const char *path, int err)
{
    Fault *fault = NULL;

    g_assert_null(identity_look_up(&file_rules, path, &fault));
    g_assert_nonnull(fault);
    g_assert_cmpint(fault->code, ==, HF_ERR_BAD_RESOURCE);
    g_assert_cmpint(fault->err, ==, err);
    g_assert_nonnull(strstr(fault->message, path));
    fault_free(fault);
}

/* A link and what it leads to are one thing. */
static void test_look_up(Fixture *self, gconstpointer data)
{
    Fault *fault = NULL;
    g_autoptr(IdentityFacts) file = identity_look_up(&file_rules, self->file, &fault);
    g_autoptr(IdentityFacts) link = identity_look_up(&file_rules, self->link, &fault);
    g_autofree char *real = realpath(self->file, NULL);

    (void)data;
    g_assert_null(fault);
    g_assert_true(g_str_has_prefix(file->claim, "file:"));
    g_assert_cmpstr(file->claim, ==, link->claim);
    g_assert_cmpstr(link->canonical, ==, real);
    g_assert_null(file->lv_uuid);
    g_assert_null(file->scsi_id);
    g_assert_null(file->nvme_id);
}

static void test_look_up_wrong(Fixture *self, gconstpointer data)
{
    g_autofree char *missing = g_build_filename(self->dir, "missing", NULL);
    g_autofree char *below = g_build_filename(self->file, "below", NULL);
    g_autofree char *fifo = g_build_filename(self->dir, "fifo", NULL);

    (void)data;
    g_assert_cmpint(mkfifo(fifo, 0600), ==, 0);
    assert_refused(missing, ENOENT);
    assert_refused(below, ENOTDIR);
    assert_refused(self->dir, EISDIR);
    assert_refused(fifo, EINVAL);
    assert_refused("/dev/null", EINVAL);
    g_unlink(fifo);
}

/* A hash gets its disk's name back from the files that the process has open. */
static void test_guess_disk(Fixture *self, gconstpointer data)
{
    g_autofree char *real = realpath(self->file, NULL);
    g_autofree char *hash = g_compute_checksum_for_string(G_CHECKSUM_SHA256, real, -1);
    g_autofree char *before = identity_guess_disk(getpid(), hash, NULL);
    int fd = open(self->file, O_RDONLY | O_CLOEXEC);
    g_autofree char *found = identity_guess_disk(getpid(), hash, NULL);

    (void)data;
    g_assert_cmpint(fd, >=, 0);
    g_assert_null(before);
    g_assert_cmpstr(found, ==, real);
    close(fd);
    g_assert_null(identity_guess_disk(getpid(), "key", NULL));
    g_assert_null(identity_guess_disk(0, hash, NULL));
    g_assert_null(identity_guess_disk(-1, hash, NULL));
    g_assert_null(identity_guess_disk(G_MAXINT, hash, NULL));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/identity/names", test_names);
    g_test_add_func("/identity/names-without-facts", test_names_without_facts);
    g_test_add_func("/identity/needs-facts", test_needs_facts);
    g_test_add_func("/identity/lv-key", test_lv_key);
    g_test_add_func("/identity/claim", test_claim);
    g_test_add("/identity/look-up", Fixture, NULL, fixture_up, test_look_up, fixture_down);
    g_test_add("/identity/look-up-wrong", Fixture, NULL, fixture_up, test_look_up_wrong,
               fixture_down);
    g_test_add("/identity/guess-disk", Fixture, NULL, fixture_up, test_guess_disk, fixture_down);
    return g_test_run();
}
