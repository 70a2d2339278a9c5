/* A pack's tokenizer: text to ids and ids to text, from a table of native.bin (docs/core/native-format.md) that is used where it lies.

   Gives what Hugging Face's tokenizers gives for the pack's tokenizer.json after the host's cleaning. The table is not
   trusted: its header is checked when it is opened, everything else before it is used. */

#ifndef MN_TOKENIZER_H
#define MN_TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

#include "mobilenmt.h"

#define MN_NONE UINT32_MAX /* no id, no node */

/* Memory that only grows, owned by a context. All zero but the limit at the beginning. */
typedef struct mn_text_memory {
    uint8_t *data;
    size_t bytes;
    size_t limit;
} mn_text_memory;

/* At least `bytes` bytes; what lies in `data` stays, but may move. MN_ERROR_MEMORY beyond the limit. */
mn_status mn_text_memory_need(mn_text_memory *memory, size_t bytes, mn_error *error);
void mn_text_memory_free(mn_text_memory *memory);

/* Byte strings as a tree: the children of node i are the nodes first[i] to first[i + 1], sorted by label. */
typedef struct mn_trie {
    const uint8_t *labels, *first, *values;
    uint32_t nodes;
} mn_trie;

typedef struct mn_tokenizer {
    uint32_t model, flags, prepend, mark, decoder_mark, strip, strip_start;
    uint32_t pieces, unk, limit, beyond;
    const uint8_t *text_offsets, *texts, *kinds;
    uint32_t text_bytes;
    const uint8_t *byte_ids; /* NULL without byte fallback */
    mn_trie trie, added;
    const uint8_t *merge_first, *merges;
    uint32_t merge_count;
    const uint8_t *scores;
    double unk_score;
    const uint8_t *table, *steps;
    uint32_t step_count;
    const uint8_t *map_units, *map_texts; /* the character map */
    uint32_t map_count, map_bytes;
    const uint8_t *classes;
    uint32_t class_count;
} mn_tokenizer;

/* `data` must stay where it is as long as the tokenizer is used. Nothing is allocated. */
mn_status mn_tokenizer_open(mn_tokenizer *tokenizer, const uint8_t *data, size_t bytes, mn_error *error);

/* Whether there is text that it encodes; the table of a target may only decode. */
int mn_tokenizer_encodes(const mn_tokenizer *tokenizer);

/* See mn_encode, mn_knows, mn_decode and mn_piece. */
mn_status mn_tokenizer_encode(const mn_tokenizer *tokenizer, const char *text, size_t bytes, uint32_t *ids, size_t room,
                              size_t *count, mn_text_memory *memory, mn_error *error);
mn_status mn_tokenizer_decode(const mn_tokenizer *tokenizer, const uint32_t *ids, size_t length, char *text,
                              size_t room, size_t *count, mn_error *error);
int mn_tokenizer_knows(const mn_tokenizer *tokenizer, const uint32_t *ids, size_t length);
mn_status mn_tokenizer_piece(const mn_tokenizer *tokenizer, uint32_t id, const char **piece, size_t *bytes);

#endif
