/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * SHA-256 with the instructions that x86 processors have for it since 2016: several times as fast,
 * and a LUKS 2 header is 16 KiB, twice. Source: Intel's Software Developer's Manual, volume 2,
 * SHA256RNDS2, SHA256MSG1 and SHA256MSG2. Elsewhere there is nothing here.
 */
#include "image/sha256.h"

#ifdef HOLDFAST_SHA256_X86
#include <immintrin.h>
#include <sys/platform/x86.h>

/* The instructions keep the state as two halves, each from its highest word down: a, b, e, f and c,
 * d, g, h. */
typedef struct Sha256Halves {
    __m128i abef;
    __m128i cdgh;
} Sha256Halves;

#define SHA256_TARGET __attribute__((target("sha,sse4.1")))

SHA256_TARGET static Sha256Halves sha256_load(const uint32_t state[8])
{
    __m128i abcd = _mm_loadu_si128((const __m128i *)(const void *)state);
    __m128i efgh = _mm_loadu_si128((const __m128i *)(const void *)(state + 4));
    __m128i badc = _mm_shuffle_epi32(abcd, 0xb1), hgfe = _mm_shuffle_epi32(efgh, 0x1b);

    return (Sha256Halves){
        .abef = _mm_alignr_epi8(badc, hgfe, 8),
        .cdgh = _mm_blend_epi16(hgfe, badc, 0xf0),
    };
}

SHA256_TARGET static void sha256_store(uint32_t state[8], Sha256Halves halves)
{
    uint32_t abef[4], cdgh[4];

    _mm_storeu_si128((__m128i *)(void *)abef, halves.abef);
    _mm_storeu_si128((__m128i *)(void *)cdgh, halves.cdgh);
    for (size_t i = 0; i < 2; i++) {
        state[i] = abef[3 - i];
        state[2 + i] = cdgh[3 - i];
        state[4 + i] = abef[1 - i];
        state[6 + i] = cdgh[1 - i];
    }
}

/* The block's sixteen words, and the 48 that follow from them, in fours. */
SHA256_TARGET static inline void sha256_schedule(__m128i words[16], const uint8_t *block)
{
    const __m128i swap = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);

    for (size_t i = 0; i < 4; i++) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)(block + 16 * i));

        words[i] = _mm_shuffle_epi8(bytes, swap);
    }
    for (size_t i = 4; i < 16; i++) {
        __m128i sum = _mm_add_epi32(_mm_sha256msg1_epu32(words[i - 4], words[i - 3]),
                                    _mm_alignr_epi8(words[i - 1], words[i - 2], 4));

        words[i] = _mm_sha256msg2_epu32(sum, words[i - 1]);
    }
}

SHA256_TARGET static void sha256_blocks_x86(uint32_t state[8], const uint8_t *bytes, size_t blocks)
{
    Sha256Halves halves = sha256_load(state);

    for (; blocks > 0; blocks--, bytes += 64) {
        const Sha256Halves before = halves;
        __m128i words[16];

        sha256_schedule(words, bytes);
        /* Two rounds turn one half into the other, with two words; so four rounds turn both. */
        for (size_t i = 0; i < 16; i++) {
            __m128i k = _mm_loadu_si128((const __m128i *)(const void *)(sha256_k + 4 * i));
            __m128i word = _mm_add_epi32(words[i], k);

            halves.cdgh = _mm_sha256rnds2_epu32(halves.cdgh, halves.abef, word);
            word = _mm_shuffle_epi32(word, 0x0e);
            halves.abef = _mm_sha256rnds2_epu32(halves.abef, halves.cdgh, word);
        }
        halves.abef = _mm_add_epi32(halves.abef, before.abef);
        halves.cdgh = _mm_add_epi32(halves.cdgh, before.cdgh);
    }
    sha256_store(state, halves);
}

/* What the C library found out when it was loaded. */
Sha256Blocks sha256_x86(void)
{
    return CPU_FEATURE_ACTIVE(SHA) && CPU_FEATURE_ACTIVE(SSE4_1) ? sha256_blocks_x86 : NULL;
}

#else

Sha256Blocks sha256_x86(void)
{
    return NULL;
}

#endif
