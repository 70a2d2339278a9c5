/* Fuzzes a tokenizer's table with a text: a length of 4 bytes, so much of a table, then the text. */

#include <stdlib.h>
#include <string.h>

#include "text/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 4) return 0;
    size_t table_bytes = mn_get32(data);
    if (table_bytes > size - 4) table_bytes = size - 4;
    const size_t text_bytes = size - 4 - table_bytes;
    uint8_t *table = malloc(table_bytes ? table_bytes : 1);
    char *text = malloc(text_bytes ? text_bytes : 1);
    memcpy(table, data + 4, table_bytes);
    memcpy(text, data + 4 + table_bytes, text_bytes);
    if (table_bytes >= 12) /* so that truncated tables are read, too */
        for (int i = 0; i < 4; i++) table[8 + i] = (uint8_t)(table_bytes >> 8 * i);
    mn_tokenizer tokenizer;
    mn_text_memory memory = {NULL, 0, 1 << 21};
    mn_error error;
    if (mn_tokenizer_open(&tokenizer, table, table_bytes, &error) == MN_OK) {
        uint32_t ids[256];
        char out[512];
        size_t count;
        if (mn_tokenizer_encode(&tokenizer, text, text_bytes, ids, 256, &count, &memory, &error) == MN_OK) {
            if (count > 256) count = 256;
            for (size_t i = 0; i < count; i++)
                if (ids[i] >= tokenizer.limit) abort();
            mn_tokenizer_decode(&tokenizer, ids, count, out, sizeof out, &count, &error);
        }
        for (uint32_t i = 0; i < 256; i++) ids[i] = i < text_bytes ? (uint8_t)text[i] : i * 2654435761u >> 20;
        mn_tokenizer_decode(&tokenizer, ids, 256, out, sizeof out, &count, &error);
        for (uint32_t i = 0; i < 64; i++) {
            const char *piece;
            mn_tokenizer_piece(&tokenizer, i, &piece, &count);
            volatile char last = count ? piece[count - 1] : 0;
            (void)last;
        }
    }
    mn_text_memory_free(&memory);
    free(table);
    free(text);
    return 0;
}
