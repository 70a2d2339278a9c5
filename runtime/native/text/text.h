/* Inside the tokenizer: how its parts read the table and what they work on. */

#ifndef MN_TEXT_H
#define MN_TEXT_H

#include <stddef.h>
#include <stdint.h>

#include "../error.h"
#include "../tokenizer.h"

/* Most bytes of a text at any step: what a model needs for them cannot overflow a size. */
#define MN_TEXT_LIMIT ((size_t)1 << (sizeof(size_t) > 4 ? 28 : 26))
/* Most bytes of a piece: bounds the time that a text takes. */
#define MN_PIECE_LIMIT 1024

enum { MN_MODEL_NONE = 0, MN_MODEL_BPE = 1, MN_MODEL_UNIGRAM = 2 };

enum {
    MN_BYTE_FALLBACK = 1,
    MN_FUSE_UNK = 2,
    MN_IGNORE_MERGES = 4,
    MN_SPLIT_MARK = 8,
    MN_SPLIT_SPACE = 16,
    MN_DECODE_BYTES = 32,
    MN_DROP_FIRST_MARKS = 64,
    MN_KEEP_BYTE_MARKS = 128
};

enum { MN_PIECE_HIDDEN = 1, MN_PIECE_BYTE = 2 };

/* Text lies in the memory, and moves when that grows: it is known by where it begins. */
typedef struct mn_text_span {
    size_t begin, bytes;
} mn_text_span;

/* One call of mn_tokenizer_encode. What lies in the memory below `top` is in use. */
typedef struct mn_text_work {
    const mn_tokenizer *t;
    mn_text_memory *memory;
    size_t top;
    uint32_t *ids;
    size_t room, count;
    mn_error *error;
} mn_text_work;

static inline uint32_t mn_get32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint32_t mn_at32(const uint8_t *table, uint32_t index)
{
    return mn_get32(table + (size_t)index * 4);
}

/* The child of a node by its label; MN_NONE if there is none, or the table leads out of itself. */
static inline uint32_t mn_trie_step(const mn_trie *trie, uint32_t node, uint8_t label)
{
    uint32_t low = mn_at32(trie->first, node), high = mn_at32(trie->first, node + 1), end = high;
    if (high > trie->nodes)
        return MN_NONE;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (trie->labels[middle] < label)
            low = middle + 1;
        else
            high = middle;
    }
    return low < end && trie->labels[low] == label ? low : MN_NONE;
}

/* The value of a byte string, or MN_NONE. */
static inline uint32_t mn_trie_find(const mn_trie *trie, const uint8_t *text, size_t bytes)
{
    uint32_t node = 0;
    if (trie->nodes == 0 || bytes > MN_PIECE_LIMIT)
        return MN_NONE;
    for (size_t i = 0; i < bytes; i++)
        if ((node = mn_trie_step(trie, node, text[i])) == MN_NONE)
            return MN_NONE;
    return mn_at32(trie->values, node);
}

/* Bytes of the character that begins here, at most `rest`; for text that was cleaned. */
static inline size_t mn_character(const uint8_t *text, size_t rest)
{
    size_t bytes = text[0] < 0x80 ? 1 : text[0] < 0xE0 ? 2 : text[0] < 0xF0 ? 3 : 4;
    return bytes < rest ? bytes : rest;
}

/* Bytes of valid UTF-8 from here on, and the character; for what is no UTF-8, the bytes to skip and U+FFFD. */
size_t mn_read_character(const uint8_t *text, size_t rest, uint32_t *code);
/* At most 4 bytes; returns how many. */
size_t mn_write_character(uint8_t *text, uint32_t code);
int mn_is_space(uint32_t code);

/* Room for `bytes` more above `top`. */
mn_status mn_work_room(mn_text_work *work, size_t bytes);
/* One more id, as the model is to read it. */
mn_status mn_work_emit(mn_text_work *work, uint32_t id);

/* The host's cleaning of a line: controls and line ends become spaces, what is no character U+FFFD. Writes at most three
   bytes for each byte. */
size_t mn_clean(const uint8_t *text, size_t bytes, uint8_t *out);
/* Apply the table's steps to a span; the result lies at the former top. */
mn_status mn_normalize(mn_text_work *work, mn_text_span *span);
/* The ids of one word. */
mn_status mn_bpe(mn_text_work *work, mn_text_span word);
mn_status mn_unigram(mn_text_work *work, mn_text_span word);

#endif
