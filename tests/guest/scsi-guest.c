/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A guest of its own, without an operating system: QEMU boots it as a kernel, and it drives the
 * virtio-scsi controller as a guest's driver does. It sends the commands that it is told through
 * its serial port, and says what became of them: milliseconds each, where Linux in an emulated
 * machine inside an emulated machine needs minutes for its boot.
 *
 * It says "ready" when it has found the disk. Then a line for each command, all hexadecimal:
 *
 *     > CDB SIZE DATA        16 bytes; bytes wanted from the device; bytes for it ("-": none)
 *     < RESPONSE STATUS SENSE DATA    of the controller; of the device; zeros at the end left away
 *
 * and "end" switches the machine off. Nothing of it runs on a host.
 *
 * Sources: Xen's docs/misc/pvh.pandoc (the entry, 32 bits, paging off); Virtual I/O Device
 * specification 1.1: 2.6 (split virtqueue), 4.2.4 (MMIO, legacy interface), 5.6 (SCSI host device);
 * the data sheet of the 16550 UART; QEMU's hw/i386/microvm.c for the addresses.
 */
#include <stddef.h>
#include <stdint.h>

/* ---- the machine: QEMU's microvm ----------------------------------------------------------- */

#define SERIAL 0x3f8
#define SERIAL_STATUS (SERIAL + 5)
#define SERIAL_HAS_BYTE 0x01
#define SERIAL_CAN_SEND 0x20

#define MMIO_BASE 0xfeb00000u
#define MMIO_STEP 0x200u
#define MMIO_COUNT 24

/* Registers of a virtio device, in words. */
enum {
    REG_MAGIC = 0x000 / 4,
    REG_DEVICE = 0x008 / 4,
    REG_DRIVER_FEATURES = 0x020 / 4,
    REG_PAGE_SIZE = 0x028 / 4,
    REG_QUEUE_SELECT = 0x030 / 4,
    REG_QUEUE_MAX = 0x034 / 4,
    REG_QUEUE_SIZE = 0x038 / 4,
    REG_QUEUE_ALIGN = 0x03c / 4,
    REG_QUEUE_PAGE = 0x040 / 4,
    REG_NOTIFY = 0x050 / 4,
    REG_STATUS = 0x070 / 4,
};

#define VIRTIO_MAGIC 0x74726976u /* "virt" */
#define VIRTIO_SCSI 8
#define REQUEST_QUEUE 2 /* the first one for commands */
#define QUEUE_SIZE 8
#define PAGE 4096

enum { DESC_NEXT = 1, DESC_WRITE = 2 };

typedef struct __attribute__((packed)) Desc {
    uint64_t address;
    uint32_t length;
    uint16_t flags, next;
} Desc;

typedef struct __attribute__((aligned(PAGE))) Queue {
    Desc desc[QUEUE_SIZE];
    uint16_t avail_flags, avail_index, avail[QUEUE_SIZE];
    uint16_t used_flags __attribute__((aligned(PAGE)));
    uint16_t used_index;
    uint32_t used[QUEUE_SIZE][2];
} Queue;

typedef struct __attribute__((packed)) Request {
    uint8_t lun[8];
    uint64_t id;
    uint8_t attribute, priority, crn;
    uint8_t cdb[32];
} Request;

typedef struct __attribute__((packed)) Response {
    uint32_t sense_length, residual;
    uint16_t qualifier;
    uint8_t status, response;
    uint8_t sense[96];
} Response;

#define DATA_MAX 8192
#define CDB_BYTES 16

static volatile Queue queue;
static volatile Request request;
static volatile Response response;
static volatile uint8_t data[DATA_MAX];
static volatile uint32_t *device;
static uint8_t stack[16384] __attribute__((aligned(16), used));

/* QEMU's loader looks for the entry in this note (Xen's XEN_ELFNOTE_PHYS32_ENTRY, 18). */
__asm__(".section .note.Xen, \"a\", @note\n"
        ".align 4\n"
        ".long 4, 4, 18\n"
        ".asciz \"Xen\"\n"
        ".long _start\n"
        ".text\n"
        ".globl _start\n"
        "_start:\n"
        "    mov $stack + 16384, %esp\n"
        "    call guest_main\n"
        "1:  hlt\n"
        "    jmp 1b\n");

static void out8(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static uint8_t in8(uint16_t port)
{
    uint8_t value;

    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static void barrier(void)
{
    __asm__ volatile("mfence" : : : "memory");
}

/* With an empty table of interrupts any of them is one too many, and resets the machine: with
 * -no-reboot that is its end. */
static void __attribute__((noreturn)) power_off(void)
{
    static const struct __attribute__((packed)) {
        uint16_t limit;
        uint32_t base;
    } nothing;

    __asm__ volatile("lidt %0; int3" : : "m"(nothing));
    for (;;)
        ;
}

/* ---- text ---------------------------------------------------------------------------------- */

static void say_char(char c)
{
    while (!(in8(SERIAL_STATUS) & SERIAL_CAN_SEND))
        ;
    out8(SERIAL, (uint8_t)c);
}

static void say(const char *text)
{
    while (*text)
        say_char(*text++);
}

static void say_byte(uint8_t byte)
{
    static const char digits[] = "0123456789abcdef";

    say_char(digits[byte >> 4]);
    say_char(digits[byte & 0xf]);
}

/* " -" when there is nothing but zeros. */
static void say_bytes(const volatile uint8_t *bytes, uint32_t n)
{
    while (n > 0 && bytes[n - 1] == 0)
        n--;
    say_char(' ');
    if (n == 0)
        say_char('-');
    for (uint32_t i = 0; i < n; i++)
        say_byte(bytes[i]);
}

static char hear_char(void)
{
    while (!(in8(SERIAL_STATUS) & SERIAL_HAS_BYTE))
        ;
    return (char)in8(SERIAL);
}

/* The value of the digit, or -1: a word or a line has ended. */
static int hear_digit(char *ret_char)
{
    *ret_char = hear_char();
    if (*ret_char >= '0' && *ret_char <= '9')
        return *ret_char - '0';
    if (*ret_char >= 'a' && *ret_char <= 'f')
        return *ret_char - 'a' + 10;
    return -1;
}

/* A word of bytes, at most `max`, up to the character behind it; how many. */
static uint32_t hear_bytes(volatile uint8_t *bytes, uint32_t max, char *ret_end)
{
    uint32_t n = 0;
    int high, low;

    while ((high = hear_digit(ret_end)) >= 0 && (low = hear_digit(ret_end)) >= 0)
        if (n < max)
            bytes[n++] = (uint8_t)(high << 4 | low);
    if (*ret_end == '-')
        *ret_end = hear_char();
    return n;
}

/* ---- the controller ------------------------------------------------------------------------ */

static int controller_find(void)
{
    for (uint32_t i = 0; i < MMIO_COUNT; i++) {
        device = (volatile uint32_t *)(uintptr_t)(MMIO_BASE + i * MMIO_STEP);
        if (device[REG_MAGIC] == VIRTIO_MAGIC && device[REG_DEVICE] == VIRTIO_SCSI)
            return 1;
    }
    return 0;
}

static int controller_start(void)
{
    device[REG_STATUS] = 0; /* reset; noticed; there is a driver */
    device[REG_STATUS] = 1;
    device[REG_STATUS] = 3;
    device[REG_DRIVER_FEATURES] = 0;
    device[REG_PAGE_SIZE] = PAGE;
    device[REG_QUEUE_SELECT] = REQUEST_QUEUE;
    if (device[REG_QUEUE_MAX] < QUEUE_SIZE)
        return 0;
    device[REG_QUEUE_SIZE] = QUEUE_SIZE;
    device[REG_QUEUE_ALIGN] = PAGE;
    device[REG_QUEUE_PAGE] = (uint32_t)(uintptr_t)&queue / PAGE;
    device[REG_STATUS] = 7; /* go */
    return 1;
}

static uint16_t add_desc(uint16_t at, const volatile void *part, uint32_t length, uint16_t flags)
{
    queue.desc[at].address = (uintptr_t)part;
    queue.desc[at].length = length;
    queue.desc[at].flags = flags;
    queue.desc[at].next = (uint16_t)(at + 1);
    return (uint16_t)(at + 1);
}

/* The command in `request`, with `out` bytes for the device or `in` bytes from it, in `data`. */
static void controller_execute(uint32_t out, uint32_t in)
{
    const uint16_t done = (uint16_t)(queue.used_index + 1);
    uint16_t n = add_desc(0, &request, sizeof(request), DESC_NEXT);

    request.lun[0] = 1; /* target 0, LUN 0 in the flat format */
    request.lun[2] = 0x40;
    request.id++;
    if (out > 0)
        n = add_desc(n, data, out, DESC_NEXT);
    n = add_desc(n, &response, sizeof(response), DESC_WRITE | (in > 0 ? DESC_NEXT : 0));
    if (in > 0)
        add_desc(n, data, in, DESC_WRITE);
    queue.avail[queue.avail_index % QUEUE_SIZE] = 0;
    barrier();
    queue.avail_index++;
    barrier();
    device[REG_NOTIFY] = REQUEST_QUEUE;
    while (queue.used_index != done)
        __asm__ volatile("pause");
    barrier();
}

/* ---- commands ------------------------------------------------------------------------------ */

static void clear(volatile void *bytes, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        ((volatile uint8_t *)bytes)[i] = 0;
}

/* Behind "> ": the rest of a line. */
static void obey(void)
{
    volatile uint8_t size[2] = {0};
    uint32_t in, out;
    char end;

    clear(request.cdb, sizeof(request.cdb));
    clear(&response, sizeof(response));
    hear_bytes(request.cdb, CDB_BYTES, &end);
    hear_bytes(size, sizeof(size), &end);
    in = (uint32_t)size[0] << 8 | size[1];
    in = in < DATA_MAX ? in : DATA_MAX;
    clear(data, in);
    out = hear_bytes(data, DATA_MAX, &end);
    controller_execute(out, in);
    say("< ");
    say_byte(response.response);
    say_char(' ');
    say_byte(response.status);
    say_bytes(response.sense, response.sense_length < 96 ? response.sense_length : 96);
    say_bytes(data, in);
    say("\n");
}

void guest_main(void) __attribute__((used, noreturn));

void guest_main(void)
{
    char c;

    if (!controller_find() || !controller_start()) {
        say("no disk\n");
        power_off();
    }
    say("ready\n");
    while ((c = hear_char()) != 'e') {
        if (c == '>') {
            hear_char();
            obey();
        }
    }
    power_off();
}
