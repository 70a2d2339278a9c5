/* UTF-8, and the cleaning of a line as the Python host does it (runtime/tokenizer.py). */

#include "text.h"

size_t mn_read_character(const uint8_t *text, size_t rest, uint32_t *code)
{
    /* Table 3-7 of the Unicode standard: which second bytes may follow a first one. A bad sequence is as long as what
       could still have become a character, as in Python. */
    uint8_t lead = text[0], low = 0x80, high = 0xBF;
    size_t bytes;
    uint32_t value;
    if (lead < 0x80) {
        *code = lead;
        return 1;
    }
    *code = 0xFFFD;
    if (lead < 0xC2 || lead > 0xF4)
        return 1;
    bytes = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    value = lead & (0x7Fu >> bytes);
    if (lead == 0xE0)
        low = 0xA0;
    else if (lead == 0xED)
        high = 0x9F;
    else if (lead == 0xF0)
        low = 0x90;
    else if (lead == 0xF4)
        high = 0x8F;
    for (size_t i = 1; i < bytes; i++) {
        if (i >= rest || text[i] < low || text[i] > high)
            return i;
        value = value << 6 | (text[i] & 0x3Fu);
        low = 0x80;
        high = 0xBF;
    }
    *code = value;
    return bytes;
}

size_t mn_write_character(uint8_t *text, uint32_t code)
{
    if (code < 0x80) {
        text[0] = (uint8_t)code;
        return 1;
    }
    if (code < 0x800) {
        text[0] = (uint8_t)(0xC0 | code >> 6);
        text[1] = (uint8_t)(0x80 | (code & 0x3F));
        return 2;
    }
    if (code < 0x10000) {
        text[0] = (uint8_t)(0xE0 | code >> 12);
        text[1] = (uint8_t)(0x80 | (code >> 6 & 0x3F));
        text[2] = (uint8_t)(0x80 | (code & 0x3F));
        return 3;
    }
    text[0] = (uint8_t)(0xF0 | (code >> 18 & 0x07));
    text[1] = (uint8_t)(0x80 | (code >> 12 & 0x3F));
    text[2] = (uint8_t)(0x80 | (code >> 6 & 0x3F));
    text[3] = (uint8_t)(0x80 | (code & 0x3F));
    return 4;
}

/* Unicode's White_Space. */
int mn_is_space(uint32_t code)
{
    return code == ' ' || (code >= 9 && code <= 13) || code == 0x85 || code == 0xA0 || code == 0x1680 ||
           (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 || code == 0x202F ||
           code == 0x205F || code == 0x3000;
}

size_t mn_clean(const uint8_t *text, size_t bytes, uint8_t *out)
{
    size_t written = 0;
    for (size_t at = 0; at < bytes;) {
        uint32_t code;
        if (text[at] >= 0x20 && text[at] < 0x7F) {
            out[written++] = text[at++];
            continue;
        }
        at += mn_read_character(text + at, bytes - at, &code);
        if (code < 0x20 || (code >= 0x7F && code <= 0x9F))
            code = ' ';
        else if ((code & 0xFFFE) == 0xFFFE || (code >= 0xFDD0 && code <= 0xFDEF))
            code = 0xFFFD; /* noncharacters: the marks of pieces that no text may spell are among them */
        written += mn_write_character(out + written, code);
    }
    return written;
}
