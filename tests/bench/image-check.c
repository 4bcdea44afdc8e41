/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How long a check takes by itself, without a process of its own: image-check FORMAT FILE COUNT
 * prints the median, in microseconds, the longest, and the bytes that one check reads.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

#include "image/image.h"

static double now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static int compare(const void *a, const void *b)
{
    const double *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

int main(int argc, char **argv)
{
    static ImageCheck check;
    const ImageFormat *format = argc == 4 ? image_format_find(argv[1]) : NULL;
    size_t count = argc == 4 ? strtoul(argv[3], NULL, 10) : 0;
    double *times = calloc(count + 1, sizeof(*times));
    int fd = argc == 4 ? open(argv[2], O_RDONLY | O_CLOEXEC) : -1;
    struct stat st;

    if (!format || !times || count == 0 || fd < 0 || fstat(fd, &st) < 0) {
        fprintf(stderr, "usage: image-check FORMAT FILE COUNT\n");
        return 2;
    }
    for (size_t i = 0; i < count; i++) {
        double begin = now_us();

        check.format = format;
        check.max_size = (uint64_t)1 << 40;
        check.fd = fd;
        check.size = (uint64_t)st.st_size;
        image_check(&check);
        times[i] = now_us() - begin;
    }
    qsort(times, count, sizeof(*times), compare);
    printf("%.1f %.1f %" PRIu64 "\n", times[count / 2], times[count - 1], check.verdict.bytes_read);
    free(times);
    return 0;
}
