/* Why not malloc: what a growing buffer leaves goes back to the system at once, where malloc keeps it for later, and what
   is never touched takes no memory. Sanitizers watch malloc alone, so they get that. */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* MAP_ANONYMOUS, which -std=c11 hides */
#endif

#include "memory.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WATCHED
#endif
#endif

#if (defined(__unix__) || defined(__APPLE__)) && !defined(__wasi__) && !defined(__SANITIZE_ADDRESS__) && !defined(WATCHED)

#include <sys/mman.h>

uint8_t *mn_pages_take(uint64_t bytes)
{
    if (!bytes || bytes > SIZE_MAX) return NULL;
    void *data = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return data == MAP_FAILED ? NULL : data;
}

void mn_pages_free(uint8_t *data, uint64_t bytes)
{
    if (data) munmap(data, (size_t)bytes);
}

#else

/* The pointer that malloc gave stands in front of the data. */
uint8_t *mn_pages_take(uint64_t bytes)
{
    if (!bytes || bytes > SIZE_MAX - 2 * MN_ALIGNMENT) return NULL;
    uint8_t *block = malloc((size_t)bytes + 2 * MN_ALIGNMENT);
    if (!block) return NULL;
    uint8_t *data = block + 2 * MN_ALIGNMENT - (uintptr_t)block % MN_ALIGNMENT;
    memcpy(data - sizeof block, &block, sizeof block);
    return data;
}

void mn_pages_free(uint8_t *data, uint64_t bytes)
{
    (void)bytes;
    if (!data) return;
    uint8_t *block;
    memcpy(&block, data - sizeof block, sizeof block);
    free(block);
}

#endif
