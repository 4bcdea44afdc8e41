/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Persistent reservations on the wire: commands, answers, sense data. The byte strings are what
 * sg_persist sends and what Linux' LIO target answers, or follow the tables of SPC-4.
 */
#include <glib.h>
#include <string.h>

#include "prhelper/prhelper.h"
#include "prhelper/spc-in.h"
#include "prhelper/spc-out.h"
#include "prhelper/spc-sense.h"

/* GLib's own compares as int. */
static void assert_bytes(const void *a, size_t a_len, const void *b, size_t b_len)
{
    g_assert_cmpuint(a_len, ==, b_len);
    g_assert_true(memcmp(a, b, a_len) == 0);
}

static const uint8_t iscsi_id[36] = "\x45\0\0\x20iqn.2001-04.com.x:a,i,0x3d0200";
static const uint8_t fc_id[24] = {
    [8] = 0x21, [9] = 0, [10] = 0, [11] = 0x1b, [12] = 0x32, [13] = 0xa1, [14] = 0xb2, [15] = 0xc3};

typedef struct Request {
    uint8_t cdb[16];
    uint8_t list[256];
    size_t len;
} Request;

static Request request(SpcOutAction action, uint8_t type, uint64_t key, uint64_t service_key)
{
    Request made = {.len = SPC_OUT_LIST_SIZE};
    SpcOut out = {.action = action, .type = type, .key = key, .service_key = service_key};

    spc_out_build(&out, made.cdb, made.list);
    return made;
}

static void set_length(Request *made, size_t len)
{
    made->len = len;
    spc_put16(made->cdb + 7, (uint16_t)len);
}

/* In memory that ends where the list ends, for the address sanitizer. */
static int parse(const Request *made, SpcOut *out, SpcOutFault *fault)
{
    g_autofree uint8_t *list = g_memdup2(made->list, MAX(made->len, 1));
    int result = spc_out_parse(made->cdb, list, made->len, out, fault);

    if (out->transport_ids)
        out->transport_ids = made->list + (out->transport_ids - list);
    return result;
}

/* ---- PERSISTENT RESERVE OUT ------------------------------------------------------------------ */

static void test_out_bytes(void)
{
    /* sg_persist --out --reserve --param-rk=0xabc --prout-type=5 */
    static const uint8_t cdb[16] = {0x5f, 0x01, 0x05, 0, 0, 0, 0, 0, 0x18};
    static const uint8_t list[24] = {0, 0, 0, 0, 0, 0, 0x0a, 0xbc};
    Request made = request(SPC_OUT_RESERVE, SPC_WRITE_EXCLUSIVE_REGISTRANTS, 0xabc, 0);

    assert_bytes(made.cdb, 16, cdb, 16);
    assert_bytes(made.list, SPC_OUT_LIST_SIZE, list, 24);
}

static void test_out_actions(void)
{
    for (unsigned action = 0; action < SPC_OUT_REGISTER_MOVE; action++) {
        uint8_t type = spc_out_has_type((SpcOutAction)action) ? SPC_EXCLUSIVE_ACCESS : 0;
        Request made = request((SpcOutAction)action, type, 0x0123456789abcdef, 0xfedcba9876543210);
        SpcOut out;
        SpcOutFault fault;

        g_assert_cmpint(parse(&made, &out, &fault), ==, 0);
        g_assert_cmpuint(out.action, ==, action);
        g_assert_cmphex(out.key, ==, 0x0123456789abcdef);
        g_assert_cmphex(out.service_key, ==, 0xfedcba9876543210);
        g_assert_cmpuint(out.type, ==, type);
        g_assert_false(out.aptpl || out.all_target_ports || out.others || out.unregister);
    }
}

static void test_out_flags(void)
{
    Request made = request(SPC_OUT_REGISTER, 0, 0, 1);
    SpcOut out;
    SpcOutFault fault;

    made.list[20] = 0x05;
    g_assert_cmpint(parse(&made, &out, &fault), ==, 0);
    g_assert_true(out.aptpl && out.all_target_ports);
    /* elsewhere they have no meaning, and do no harm */
    made = request(SPC_OUT_CLEAR, 0, 1, 0);
    made.list[20] = 0x05;
    g_assert_cmpint(parse(&made, &out, &fault), ==, 0);
    g_assert_false(out.aptpl || out.all_target_ports);
}

/* Behind the list its TransportIDs, their length in front. */
static Request with_ids(const uint8_t *id, size_t size, unsigned count)
{
    Request made = request(SPC_OUT_REGISTER, 0, 0, 1);

    made.list[20] = 0x08;
    spc_put32(made.list + 24, (uint32_t)(size * count));
    for (unsigned i = 0; i < count; i++)
        memcpy(made.list + 28 + i * size, id, size);
    set_length(&made, 28 + size * count);
    return made;
}

static void test_out_transport_ids(void)
{
    Request made = with_ids(iscsi_id, sizeof(iscsi_id), 3);
    SpcOut out;
    SpcOutFault fault;

    g_assert_cmpint(parse(&made, &out, &fault), ==, 0);
    g_assert_true(out.others);
    assert_bytes(out.transport_ids, out.transport_ids_len, made.list + 28, 3 * sizeof(iscsi_id));
    made = with_ids(fc_id, sizeof(fc_id), 2);
    g_assert_cmpint(parse(&made, &out, &fault), ==, 0);
    g_assert_cmpuint(out.transport_ids_len, ==, 48);
}

static void test_out_move(void)
{
    Request made = request(SPC_OUT_REGISTER_MOVE, 0, 1, 2);
    SpcOut out;
    SpcOutFault fault;

    made.list[17] = 0x03;
    spc_put16(made.list + 18, 7);
    spc_put32(made.list + 20, sizeof(fc_id));
    memcpy(made.list + 24, fc_id, sizeof(fc_id));
    set_length(&made, 48);
    g_assert_cmpint(parse(&made, &out, &fault), ==, 0);
    g_assert_true(out.unregister && out.aptpl && out.others);
    g_assert_cmpuint(out.target_port, ==, 7);
    /* two of them */
    spc_put32(made.list + 20, 48);
    memcpy(made.list + 48, fc_id, sizeof(fc_id));
    set_length(&made, 72);
    g_assert_cmpint(parse(&made, &out, &fault), ==, -1);
    g_assert_cmphex(fault.sense.asc, ==, 0x26);
    /* none */
    spc_put32(made.list + 20, 0);
    set_length(&made, 24);
    g_assert_cmpint(parse(&made, &out, &fault), ==, -1);
    /* no key for the one who is to get it */
    spc_put64(made.list + 8, 0);
    g_assert_cmpint(parse(&made, &out, &fault), ==, -1);
    g_assert_cmpuint(fault.byte, ==, 8);
}

static void assert_fault(const Request *made, SpcSense sense, unsigned byte)
{
    SpcOut out;
    SpcOutFault fault;

    g_assert_cmpint(parse(made, &out, &fault), ==, -1);
    assert_bytes(&fault.sense, sizeof(SpcSense), &sense, sizeof(SpcSense));
    g_assert_cmpuint(fault.byte, ==, byte);
    g_assert_nonnull(fault.reason);
}

static void test_out_faults(void)
{
    Request made = request(SPC_OUT_REGISTER, 0, 0, 1);

    made.cdb[0] = 0x5e;
    assert_fault(&made, SPC_SENSE_INVALID_OPCODE, 0);
    made = request(SPC_OUT_REGISTER, 0, 0, 1);
    made.cdb[1] = 8;
    assert_fault(&made, SPC_SENSE_INVALID_FIELD_IN_CDB, 1);
    made = request(SPC_OUT_RESERVE, 2, 1, 0);
    assert_fault(&made, SPC_SENSE_INVALID_FIELD_IN_CDB, 2);
    made = request(SPC_OUT_RESERVE, SPC_WRITE_EXCLUSIVE, 1, 0);
    made.cdb[2] |= 0x20;
    assert_fault(&made, SPC_SENSE_INVALID_FIELD_IN_CDB, 2);
    made = request(SPC_OUT_CLEAR, 0, 1, 0);
    made.cdb[2] = 0xff; /* neither scope nor type there */
    {
        SpcOut out;
        SpcOutFault fault;

        g_assert_cmpint(parse(&made, &out, &fault), ==, 0);
        g_assert_cmpuint(out.type, ==, 0);
    }
    for (size_t len = 0; len < 24; len++) {
        made = request(SPC_OUT_REGISTER, 0, 0, 1);
        set_length(&made, len);
        assert_fault(&made, SPC_SENSE_PARAMETER_LIST_LENGTH, 0);
    }
    set_length(&made, 25);
    assert_fault(&made, SPC_SENSE_PARAMETER_LIST_LENGTH, 24);
    spc_put16(made.cdb + 7, 24);
    assert_fault(&made, SPC_SENSE_PARAMETER_LIST_LENGTH, 7);
}

static void test_out_fault_ids(void)
{
    Request made = request(SPC_OUT_RESERVE, SPC_WRITE_EXCLUSIVE, 1, 0);

    made.list[20] = 0x08;
    assert_fault(&made, SPC_SENSE_INVALID_FIELD_IN_PARAMETERS, 20);
    made = with_ids(iscsi_id, sizeof(iscsi_id), 2);
    for (size_t len = 24; len < 28 + 72; len++) {
        SpcOut out;
        SpcOutFault fault;

        set_length(&made, len);
        g_assert_cmpint(parse(&made, &out, &fault), ==, -1);
    }
    /* an iSCSI name that says it is longer than the list, and one that is too short */
    made = with_ids(iscsi_id, sizeof(iscsi_id), 2);
    spc_put16(made.list + 28 + 36 + 2, 0x24);
    assert_fault(&made, SPC_SENSE_INVALID_FIELD_IN_PARAMETERS, 28 + 36);
    spc_put16(made.list + 28 + 2, 0x10);
    assert_fault(&made, SPC_SENSE_INVALID_FIELD_IN_PARAMETERS, 28);
}

/* What the rest of the helper sees of a command. */
static void test_out_command(void)
{
    Request made = with_ids(fc_id, sizeof(fc_id), 1);
    PrCommand command = {.data = made.list, .length = (uint16_t)made.len};

    memcpy(command.cdb, made.cdb, sizeof(command.cdb));
    pr_out_parse(&command);
    g_assert_true(command.has_parameters && command.parameters.specify_ports);
    g_assert_cmpuint(command.parameters.ids_len, ==, 24);
    g_assert_cmphex(command.parameters.service_key, ==, 1);
    command.length = 10;
    pr_out_parse(&command);
    g_assert_false(command.has_parameters);
}

static void test_names(void)
{
    g_assert_cmpstr(pr_action_name(0x5f, 6), ==, "REGISTER AND IGNORE EXISTING KEY");
    g_assert_cmpstr(pr_action_name(0x5f, 31), ==, "service action 0x1f");
    g_assert_cmpstr(pr_action_name(0x5e, 3), ==, "READ FULL STATUS");
    g_assert_cmpstr(pr_action_name(0x5e, 4), ==, "unknown service action");
    g_assert_cmpstr(pr_type_name(5), ==, "Write Exclusive, Registrants Only");
    g_assert_null(pr_type_name(4));
    for (unsigned type = 0; type < 16; type++)
        g_assert_true(spc_type_is_known(type) == (strchr("\1\3\5\6\7\x08", (int)type) && type));
}

/* ---- PERSISTENT RESERVE IN ------------------------------------------------------------------- */

static void test_in_keys(void)
{
    static const uint8_t data[] = {0, 0, 0,   9, 0, 0, 0, 16, 0, 0, 0,   0,   0,
                                   0, 0, 0xa, 0, 0, 0, 0, 0,  0, 0, 0xb, 0xff};
    SpcKeys keys;

    g_assert_cmpint(spc_in_parse_keys(data, sizeof(data), &keys), ==, 0);
    g_assert_cmpuint(keys.generation, ==, 9);
    g_assert_cmpuint(keys.count, ==, 2);
    g_assert_cmphex(spc_keys_at(&keys, 0), ==, 0xa);
    g_assert_cmpuint(spc_keys_count(&keys, 0xb), ==, 1);
    g_assert_cmpuint(spc_keys_count(&keys, 0xc), ==, 0);
    g_assert_false(keys.truncated);
    /* half of it */
    g_assert_cmpint(spc_in_parse_keys(data, 20, &keys), ==, 0);
    g_assert_cmpuint(keys.count, ==, 1);
    g_assert_true(keys.truncated);
    for (size_t len = 0; len < 8; len++)
        g_assert_cmpint(spc_in_parse_keys(data, len, &keys), ==, -1);
}

static void test_in_reservation(void)
{
    uint8_t data[24] = {0, 0, 0, 4, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0x0a, 0xbc, [21] = 5};
    SpcReservation reservation;

    g_assert_cmpint(spc_in_parse_reservation(data, 24, &reservation), ==, 0);
    g_assert_true(reservation.held);
    g_assert_cmphex(reservation.key, ==, 0xabc);
    g_assert_cmpuint(reservation.type, ==, SPC_WRITE_EXCLUSIVE_REGISTRANTS);
    g_assert_cmpint(spc_in_parse_reservation(data, 23, &reservation), ==, -1);
    g_assert_cmpint(spc_in_parse_reservation(data, 8, &reservation), ==, -1);
    data[7] = 0;
    g_assert_cmpint(spc_in_parse_reservation(data, 24, &reservation), ==, 0);
    g_assert_false(reservation.held);
}

static void test_in_capabilities(void)
{
    /* LIO: all types, nothing but ATP_C, CRH and PTPL_C */
    static const uint8_t data[] = {0, 8, 0x15, 0x80, 0xea, 0x01, 0, 0};
    SpcCapabilities capabilities;

    g_assert_cmpint(spc_in_parse_capabilities(data, 8, &capabilities), ==, 0);
    g_assert_true(capabilities.all_target_ports && capabilities.compatible_handling &&
                  capabilities.persist_capable && capabilities.types_valid);
    g_assert_false(capabilities.specify_initiators || capabilities.persist_active);
    g_assert_cmphex(capabilities.types, ==, 1 << 1 | 1 << 3 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8);
    g_assert_cmpint(spc_in_parse_capabilities(data, 7, &capabilities), ==, -1);
}

static GByteArray *full_status(void)
{
    GByteArray *data = g_byte_array_new();
    uint8_t head[8] = {[3] = 3};
    uint8_t first[24] = {[7] = 0xa, [12] = 0x01, [13] = 0x05, [19] = 1, [23] = 36};
    uint8_t second[24] = {[7] = 0xb, [12] = 0x02, [19] = 2, [23] = 24};

    spc_put32(head + 4, 24 + 36 + 24 + 24);
    g_byte_array_append(data, head, 8);
    g_byte_array_append(data, first, 24);
    g_byte_array_append(data, iscsi_id, 36);
    g_byte_array_append(data, second, 24);
    g_byte_array_append(data, fc_id, 24);
    return data;
}

static void test_in_full_status(void)
{
    g_autoptr(GByteArray) data = full_status();
    SpcFullStatus status;
    SpcRegistration registration;
    char text[64];

    g_assert_cmpint(spc_in_parse_full_status(data->data, data->len, &status), ==, 0);
    g_assert_cmpint(spc_full_status_next(&status, &registration), ==, 1);
    g_assert_true(registration.holder && !registration.all_target_ports);
    g_assert_cmphex(registration.key, ==, 0xa);
    g_assert_cmpuint(registration.type, ==, 5);
    g_assert_cmpuint(registration.target_port, ==, 1);
    g_assert_cmpstr(spc_transport_id_describe(registration.transport_id,
                                              registration.transport_id_len, text, sizeof(text)),
                    ==, "iqn.2001-04.com.x:a,i,0x3d0200");
    g_assert_cmpint(spc_full_status_next(&status, &registration), ==, 1);
    g_assert_true(!registration.holder && registration.all_target_ports);
    g_assert_cmpstr(spc_transport_id_describe(registration.transport_id,
                                              registration.transport_id_len, text, sizeof(text)),
                    ==, "fc 2100001b32a1b2c3");
    g_assert_cmpint(spc_full_status_next(&status, &registration), ==, 0);
}

static void test_in_full_status_cut(void)
{
    g_autoptr(GByteArray) data = full_status();

    for (guint len = 8; len < data->len; len++) {
        g_autofree uint8_t *cut = g_memdup2(data->data, len);
        SpcFullStatus status;
        SpcRegistration registration;
        int count = 0;

        g_assert_cmpint(spc_in_parse_full_status(cut, len, &status), ==, 0);
        g_assert_true(status.truncated);
        while (spc_full_status_next(&status, &registration) > 0)
            count++;
        g_assert_cmpint(count, ==, len < 8 + 60 ? 0 : 1);
    }
    /* whole, but with a descriptor that reaches beyond the end */
    {
        SpcFullStatus status;
        SpcRegistration registration;

        data->data[8 + 60 + 23] = 25;
        g_assert_cmpint(spc_in_parse_full_status(data->data, data->len, &status), ==, 0);
        g_assert_cmpint(spc_full_status_next(&status, &registration), ==, 1);
        g_assert_cmpint(spc_full_status_next(&status, &registration), ==, -1);
    }
}

static void test_transport_id_text(void)
{
    uint8_t odd[24] = "\x05\0\0\x14"
                      "a\x1b[31m b\\";
    char text[64], small[8];

    g_assert_cmpstr(spc_transport_id_describe(odd, 24, text, sizeof(text)), ==,
                    "a\\x1b[31m\\x20b\\x5c");
    spc_transport_id_describe(odd, 24, small, sizeof(small));
    g_assert_cmpuint(strlen(small), <, sizeof(small));
    g_assert_cmpstr(spc_transport_id_describe(odd, 23, text, sizeof(text)), ==, "none");
}

/* ---- sense data ------------------------------------------------------------------------------ */

static void test_sense(void)
{
    uint8_t sense[SPC_SENSE_SIZE];
    static const uint8_t expected[18] = {0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x55, 4};
    SpcSense read;
    char text[40];

    memset(sense, 0xff, sizeof(sense));
    spc_sense_build(sense, SPC_SENSE_INSUFFICIENT_REGISTRATION);
    assert_bytes(sense, 18, expected, 18);
    for (size_t i = 18; i < sizeof(sense); i++)
        g_assert_cmpuint(sense[i], ==, 0);
    g_assert_cmpint(spc_sense_read(sense, sizeof(sense), &read), ==, 0);
    g_assert_cmphex(read.asc, ==, 0x55);
    g_assert_cmpstr(spc_sense_describe(read, text, sizeof(text)), ==, "illegal request (5/55/04)");
    spc_sense_build_field(sense, SPC_SENSE_INVALID_FIELD_IN_CDB, 0x102);
    g_assert_cmphex(sense[15], ==, 0xc0);
    g_assert_cmphex(spc_get16(sense + 16), ==, 0x102);
    spc_sense_build_field(sense, SPC_SENSE_INVALID_FIELD_IN_PARAMETERS, 8);
    g_assert_cmphex(sense[15], ==, 0x80);
    g_assert_cmpint(spc_sense_read(sense, 0, &read), ==, -1);
    g_assert_cmpint(spc_sense_read((const uint8_t *)"\x7f\0\0\0\0\0\0\0", 8, &read), ==, -1);
}

static void test_sense_to_fixed(void)
{
    static const uint8_t descriptor[8] = {0x73, 0x06, 0x29, 0x03};
    static const uint8_t fixed[20] = {0x70, 0, 6, 0, 0, 0, 0, 12, 0, 0, 0, 0, 0x2a, 0x03, [19] = 7};
    uint8_t sense[SPC_SENSE_SIZE] = {0};
    SpcSense read;

    pr_sense_to_fixed(descriptor, 8, sense);
    g_assert_cmphex(sense[0], ==, 0x71);
    read = pr_sense_read(sense, sizeof(sense));
    g_assert_true(read.key == 6 && read.asc == 0x29 && read.ascq == 3);
    pr_sense_to_fixed(fixed, sizeof(fixed), sense);
    assert_bytes(sense, 20, fixed, 20);
    memcpy(sense, descriptor, 8);
    pr_sense_to_fixed(sense, 8, sense);
    g_assert_cmphex(pr_sense_read(sense, 18).asc, ==, 0x29);
    pr_sense_to_fixed(fixed, 0, sense);
    g_assert_cmphex(sense[0], ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/spc/out/bytes", test_out_bytes);
    g_test_add_func("/spc/out/actions", test_out_actions);
    g_test_add_func("/spc/out/flags", test_out_flags);
    g_test_add_func("/spc/out/transport-ids", test_out_transport_ids);
    g_test_add_func("/spc/out/move", test_out_move);
    g_test_add_func("/spc/out/faults", test_out_faults);
    g_test_add_func("/spc/out/fault-ids", test_out_fault_ids);
    g_test_add_func("/spc/out/command", test_out_command);
    g_test_add_func("/spc/names", test_names);
    g_test_add_func("/spc/in/keys", test_in_keys);
    g_test_add_func("/spc/in/reservation", test_in_reservation);
    g_test_add_func("/spc/in/capabilities", test_in_capabilities);
    g_test_add_func("/spc/in/full-status", test_in_full_status);
    g_test_add_func("/spc/in/full-status-cut", test_in_full_status_cut);
    g_test_add_func("/spc/transport-id-text", test_transport_id_text);
    g_test_add_func("/spc/sense/build", test_sense);
    g_test_add_func("/spc/sense/to-fixed", test_sense_to_fixed);
    return g_test_run();
}
