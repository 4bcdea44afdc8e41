/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How a path that appears is noticed: the kernel's events, and the keys that multipathd keeps. */
#include <glib.h>

#include "prhelper/mpath/watch.h"

static void test_watch_events(void)
{
    static const char add[] = "add@/devices/x/block/sdc\0ACTION=add\0SUBSYSTEM=block\0"
                              "DEVNAME=sdc\0DEVTYPE=disk";
    static const char part[] = "add@/x\0ACTION=add\0SUBSYSTEM=block\0DEVNAME=sdc1\0"
                               "DEVTYPE=partition";
    static const char change[] = "change@/x\0DEVTYPE=disk\0DEVNAME=dm-3\0SUBSYSTEM=block\0"
                                 "ACTION=change";
    static const char other[] = "add@/x\0ACTION=add\0SUBSYSTEM=net\0DEVNAME=sdc\0DEVTYPE=disk";
    WatchEvent event;

    g_assert_true(watch_parse(add, sizeof(add), &event));
    g_assert_cmpstr(event.disk, ==, "sdc");
    g_assert_true(watch_parse(change, sizeof(change), &event));
    g_assert_cmpstr(event.disk, ==, "dm-3");
    g_assert_false(watch_parse(part, sizeof(part), &event));
    g_assert_false(watch_parse(other, sizeof(other), &event));
    for (gsize len = 0; len < sizeof(add); len++) {
        g_autofree char *cut = g_memdup2(add, MAX(len, 1));

        g_assert_false(watch_parse(cut, len, &event));
    }
}

static void test_watch_keys(void)
{
    static const char text[] = "# Multipath persistent reservation keys\n# prkey wwid\n#\n"
                               "0x000000000000000a 3600140512\n0xb:aptpl 36001405123\n"
                               "rubbish\n0xc 3600140599";

    g_assert_cmphex(watch_find_key(text, "3600140512"), ==, 0xa);
    g_assert_cmphex(watch_find_key(text, "36001405123"), ==, 0xb);
    g_assert_cmphex(watch_find_key(text, "3600140599"), ==, 0xc);
    g_assert_cmphex(watch_find_key(text, "360014051"), ==, 0);
    g_assert_cmphex(watch_find_key("", "1"), ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/pr-watch/events", test_watch_events);
    g_test_add_func("/pr-watch/keys", test_watch_keys);
    return g_test_run();
}
