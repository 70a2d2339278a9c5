/* Sizes that cannot overflow, and memory handed out piece by piece from one buffer. */

#ifndef MN_MEMORY_H
#define MN_MEMORY_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MN_ALIGNMENT 64
#define MN_SMALL __attribute__((cold, noinline)) /* what runs once, or is rare: compiled for few bytes */
#define MN_NO_SIZE UINT64_MAX /* more than any machine has; stays so whatever is added */

static inline uint64_t mn_times(uint64_t a, uint64_t b)
{
    if (a == MN_NO_SIZE || b == MN_NO_SIZE) return MN_NO_SIZE;
    return a && b > (UINT64_MAX - 1) / a ? MN_NO_SIZE : a * b;
}

static inline uint64_t mn_plus(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - 1 - (b == MN_NO_SIZE ? b - 1 : b) || b == MN_NO_SIZE ? MN_NO_SIZE : a + b;
}

/* Fill a structure of the caller, which says its size in its first field: an older caller has less of it, and what lies
   beyond what is known here is left alone. */
static inline void mn_give(void *to, const void *from, size_t bytes)
{
    uint32_t size;
    memcpy(&size, to, sizeof size);
    if (size > sizeof size)
        memcpy((uint8_t *)to + sizeof size, (const uint8_t *)from + sizeof size, (size < bytes ? size : bytes) - sizeof size);
}

/* A buffer laid out twice by the same code: first with no memory, which only counts, then with it. */
typedef struct mn_arena {
    uint8_t *data; /* NULL while counting */
    uint64_t used;
} mn_arena;

static inline void *mn_take(mn_arena *arena, uint64_t count, uint64_t size)
{
    const uint64_t start = arena->used;
    const uint64_t bytes = mn_times(count, size);
    arena->used = mn_plus(start, mn_plus(bytes, (MN_ALIGNMENT - bytes % MN_ALIGNMENT) % MN_ALIGNMENT));
    return arena->data ? arena->data + start : NULL;
}

#define MN_TAKE(arena, type, count) ((type *)mn_take(arena, count, sizeof(type)))

/* So many bytes, at a multiple of MN_ALIGNMENT; NULL if the system has no more. */
uint8_t *mn_pages_take(uint64_t bytes);

/* The same number of bytes as were taken; NULL is fine. */
void mn_pages_free(uint8_t *data, uint64_t bytes);

#define MN_SPARE (1u << 20)

/* A buffer that grows, up to a limit. Its content is lost when it does. A large one of which only a part is needed gives
   the rest back: one long text, or a second try with a beam, is no reason to keep memory for good. */
typedef struct mn_scratch {
    uint8_t *data;
    uint64_t bytes, limit;
} mn_scratch;

/* 0 if there is not so much memory, or the limit lies below. */
static inline int mn_scratch_grow(mn_scratch *scratch, uint64_t bytes)
{
    if (bytes <= scratch->bytes && (scratch->bytes <= MN_SPARE || bytes >= scratch->bytes / 2)) return 1;
    if (bytes > scratch->limit) return 0;
    mn_pages_free(scratch->data, scratch->bytes);
    scratch->bytes = 0;
    scratch->data = mn_pages_take(bytes);
    if (!scratch->data) return 0;
    scratch->bytes = bytes;
    return 1;
}

#endif
