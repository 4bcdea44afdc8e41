/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An upload service in small: reads lines "FORMAT PATH", checks each image with libholdfast, and
 * prints "safe PATH", "unsafe PATH ID,ID,..." or "error PATH". At the end, on standard error, how
 * many descriptors are open and how much memory was needed: neither grows with the number of
 * images.
 */
#include <dirent.h>
#include <fcntl.h>
#include <holdfast/image.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void check(const char *format, const char *path)
{
    const hf_image_options options = {
        .size = sizeof(options), .format = format, .max_size = (uint64_t)1 << 40};
    hf_image_result *result = NULL;
    hf_error *error = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || hf_image_check(fd, &options, &result, &error) < 0) {
        printf("error %s\n", path);
    } else if (hf_image_is_safe(result)) {
        printf("safe %s\n", path);
    } else {
        printf("unsafe %s ", path);
        for (size_t i = 0; i < hf_image_reasons_count(result); i++)
            printf("%s%s", i ? "," : "", hf_image_reasons_get(result, i)->id);
        printf("\n");
    }
    hf_image_result_free(result);
    hf_error_free(error);
    if (fd >= 0)
        close(fd);
}

static int open_descriptors(void)
{
    DIR *directory = opendir("/proc/self/fd");
    int n = 0;

    while (readdir(directory))
        n++;
    closedir(directory);
    return n - 3; /* ".", "..", and the directory itself */
}

/* In KiB. The usage that getrusage() tells begins with that of who started us. */
static long memory_needed(void)
{
    FILE *status = fopen("/proc/self/status", "r");
    char line[256];
    long kib = -1;

    while (fgets(line, sizeof(line), status)) {
        if (strncmp(line, "VmHWM:", 6) == 0)
            kib = strtol(line + 6, NULL, 10);
    }
    fclose(status);
    return kib;
}

int main(void)
{
    char format[32], path[256];

    while (scanf("%31s %255s", format, path) == 2)
        check(format, path);
    fprintf(stderr, "%d %ld\n", open_descriptors(), memory_needed());
    return 0;
}
