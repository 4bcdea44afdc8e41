/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The part of libmpathpersist's interface that is used here, declared again so that it need not be
 * installed to build. From its public header mpath_persist.h (multipath-tools 0.9.4, LGPL); a unit
 * test holds the layout against that header where it is installed.
 */
#pragma once

#include <stdint.h>

#define MPATH_PERSIST_LIST_SIZE 8192
#define MPATH_PERSIST_APTPL 0x01
#define MPATH_PERSIST_ALL_TG_PT 0x04

/** struct prout_param_descriptor there; the list of TransportIDs behind it is not used. */
typedef struct MpathPersistOut {
    uint8_t key[8];
    uint8_t sa_key[8];
    uint32_t obsolete;
    uint8_t sa_flags;
    uint8_t reserved;
    uint16_t obsolete1;
    uint8_t private_buffer[MPATH_PERSIST_LIST_SIZE];
    uint32_t num_transportid;
    void *trnptid_list[];
} MpathPersistOut;

typedef int (*MpathPersistInit)(void);
typedef int (*MpathPersistReserveOut)(int fd, int rq_servact, int rq_scope, unsigned int rq_type,
                                      MpathPersistOut *paramp, int noisy, int verbose);
