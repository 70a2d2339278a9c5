/* Damages a tokenizer's table in every way the test asks for and uses it: built with sanitizers, so that a read outside
   ends the program. Arguments: the table's file, a file of texts (one a line), and how many words to skip at a time. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizer.h"

static unsigned long opened, refused, encoded;

static void use(const uint8_t *table, size_t bytes, const char *texts, size_t length)
{
    static mn_text_memory memory = {NULL, 0, 1 << 20};
    static uint32_t ids[512];
    static char text[512];
    mn_tokenizer tokenizer;
    mn_error error;
    size_t count;
    if (mn_tokenizer_open(&tokenizer, table, bytes, &error) != MN_OK) {
        refused++;
        return;
    }
    opened++;
    for (size_t at = 0; at < length;) {
        const char *end = memchr(texts + at, '\n', length - at);
        size_t size = end == NULL ? length - at : (size_t)(end - (texts + at));
        char *exact = malloc(size + 1); /* so that a read behind the text is seen, too */
        memcpy(exact, texts + at, size);
        exact = realloc(exact, size == 0 ? 1 : size);
        if (mn_tokenizer_encode(&tokenizer, exact, size, ids, 512, &count, &memory, &error) == MN_OK) {
            encoded++;
            mn_tokenizer_decode(&tokenizer, ids, count < 512 ? count : 512, text, sizeof text, &count, &error);
        }
        free(exact);
        at += size + 1;
    }
    for (uint32_t i = 0; i < 512; i++) {
        const char *piece;
        ids[i] = i * 2654435761u >> (i % 3 ? 20 : 0);
        mn_tokenizer_piece(&tokenizer, ids[i], &piece, &count);
        if (count != 0 && piece[count - 1] == 1) text[0] = piece[0];
    }
    mn_tokenizer_decode(&tokenizer, ids, 512, text, sizeof text, &count, &error);
    mn_text_memory_free(&memory);
}

static uint8_t *read_file(const char *name, size_t *bytes)
{
    FILE *file = fopen(name, "rb");
    uint8_t *data;
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) exit(2);
    *bytes = (size_t)ftell(file);
    rewind(file);
    data = malloc(*bytes + 1);
    if (data == NULL || fread(data, 1, *bytes, file) != *bytes) exit(2);
    fclose(file);
    return realloc(data, *bytes);
}

int main(int argc, char **argv)
{
    size_t bytes, length, step;
    uint8_t *table, *texts;
    uint32_t seed = 1;
    if (argc != 4) return 2;
    table = read_file(argv[1], &bytes);
    texts = read_file(argv[2], &length);
    step = (size_t)atoi(argv[3]) * 4;
    use(table, bytes, (const char *)texts, length);
    if (opened != 1) return 3;
    for (size_t at = 0; at + 4 <= bytes; at += at < 192 ? 4 : step) {
        uint8_t before[4];
        memcpy(before, table + at, 4);
        for (int kind = 0; kind < 5; kind++) {
            uint32_t value = kind == 0 ? 0xFFFFFFFFu : kind == 1 ? 0 : kind == 2 ? (uint32_t)bytes - 4 : 0;
            if (kind == 3) value = seed = seed * 1664525u + 1013904223u;
            if (kind == 4) value = (seed = seed * 1664525u + 1013904223u) >> 20;
            for (int i = 0; i < 4; i++) table[at + (size_t)i] = (uint8_t)(value >> 8 * i);
            use(table, bytes, (const char *)texts, length);
        }
        memcpy(table + at, before, 4);
    }
    for (size_t size = 0; size < bytes; size += 1 + size / 16) {
        uint8_t *part = malloc(size == 0 ? 1 : size);
        memcpy(part, table, size);
        use(part, size, (const char *)texts, length);
        for (size_t i = 0; size >= 192 && i < 4; i++) part[8 + i] = (uint8_t)(size >> 8 * i);
        use(part, size, (const char *)texts, length);
        free(part);
    }
    printf("%lu %lu %lu\n", opened, refused, encoded);
    free(table);
    free(texts);
    return 0;
}
