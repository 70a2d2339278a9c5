/* Feeds a fuzz target without a fuzzer.

   drive replay FILE...       each file
   drive damage FILE SKIP     the file with words replaced, one at a time, and cut short; in the first part, which the
                              file's first four bytes measure, every word of the first 192 bytes and then every SKIP-th,
                              in the second part every SKIP-th word */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned long inputs;

static void feed(const uint8_t *data, size_t size)
{
    uint8_t *exact = malloc(size ? size : 1); /* a read behind it is seen */
    memcpy(exact, data, size);
    LLVMFuzzerTestOneInput(exact, size);
    inputs++;
    free(exact);
}

static uint8_t *read_file(const char *name, size_t *bytes)
{
    FILE *file = fopen(name, "rb");
    if (!file || fseek(file, 0, SEEK_END)) exit(2);
    *bytes = (size_t)ftell(file);
    rewind(file);
    uint8_t *data = malloc(*bytes + 4);
    if (!data || fread(data, 1, *bytes, file) != *bytes) exit(2);
    fclose(file);
    return data;
}

static void put(uint8_t *at, uint32_t value)
{
    for (int i = 0; i < 4; i++) at[i] = (uint8_t)(value >> 8 * i);
}

static void damage(uint8_t *data, size_t size, size_t skip)
{
    const uint32_t values[] = {0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F800000, 0x7FC00000, 0xFF7FFFFF, 0x80808080};
    const size_t first = data[0] | data[1] << 8 | data[2] << 16;
    uint32_t seed = 1;
    for (size_t at = 4; at + 4 <= size; at += at < 4 + 192 ? 4 : 4 * skip) {
        uint8_t before[4];
        memcpy(before, data + at, 4);
        for (size_t i = 0; i < sizeof values / sizeof *values + 2; i++) {
            seed = seed * 1664525u + 1013904223u;
            put(data + at, i < 8 ? values[i] : i == 8 ? seed : seed >> 20);
            feed(data, size);
        }
        memcpy(data + at, before, 4);
    }
    for (size_t cut = 0; cut < size; cut += 1 + cut / 16) feed(data, cut);
    for (size_t cut = 0; cut < first; cut += 1 + cut / 16) { /* what is cut off counts as the second part */
        put(data, (uint32_t)cut);
        feed(data, size);
    }
}

int main(int argc, char **argv)
{
    size_t size;
    if (argc == 4 && !strcmp(argv[1], "damage")) {
        uint8_t *data = read_file(argv[2], &size);
        damage(data, size, (size_t)atoi(argv[3]));
        free(data);
    } else if (argc > 2 && !strcmp(argv[1], "replay")) {
        for (int i = 2; i < argc; i++) {
            uint8_t *data = read_file(argv[i], &size);
            feed(data, size);
            free(data);
        }
    } else {
        return 2;
    }
    printf("%lu\n", inputs);
    return 0;
}
