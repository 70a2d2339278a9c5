/* What happens to text before it is cut: the steps of the table's normalizer.

   A step reads the span and writes what comes out above it. The character map is SentencePiece's: a double array of
   Darts (Yata) over UTF-8, whose values say where in a block of zero-terminated texts the replacement begins. */

#include <string.h>

#include "text.h"

enum { STEP_MAP = 1, STEP_REPLACE = 2, STEP_SPACES = 3, STEP_TRIM = 4, STEP_PREPEND = 5, STEP_STRIP = 6 };

/* Classes of characters that decide where a grapheme ends (Unicode annex 29). */
enum { OTHER = 0, CONTROL, EXTEND, SPACING, PREPEND, PICTURE, CONSONANT, LINKER };

static int class_of(const mn_tokenizer *t, uint32_t code)
{
    /* Runs: where one begins, times 16, plus its class. */
    uint32_t low = 0, high = t->class_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (mn_at32(t->classes, middle) >> 4 <= code)
            low = middle + 1;
        else
            high = middle;
    }
    return low == 0 ? OTHER : (int)(mn_at32(t->classes, low - 1) & 15);
}

/* Hangul syllables: 1 leading consonant, 2 vowel, 3 trailing consonant, 4 syllable without, 5 with one at its end. */
static int hangul(uint32_t code)
{
    if (code < 0x1100 || code > 0xD7FB)
        return 0;
    if (code <= 0x11FF)
        return code <= 0x115F ? 1 : code <= 0x11A7 ? 2 : 3;
    if (code >= 0xA960 && code <= 0xA97C)
        return 1;
    if (code >= 0xAC00 && code <= 0xD7A3)
        return (code - 0xAC00) % 28 == 0 ? 4 : 5;
    return code >= 0xD7B0 && code <= 0xD7C6 ? 2 : code >= 0xD7CB ? 3 : 0;
}

static int hangul_joins(uint32_t left, uint32_t right)
{
    int a = hangul(left), b = hangul(right);
    return (a == 1 && b != 0 && b != 3) || ((a == 2 || a == 4) && (b == 2 || b == 3)) || ((a == 3 || a == 5) && b == 3);
}

static int is_flag(uint32_t code)
{
    return code >= 0x1F1E6 && code <= 0x1F1FF;
}

/* Bytes of the grapheme that begins here. */
static size_t grapheme(const mn_tokenizer *t, const uint8_t *text, size_t rest)
{
    uint32_t code, next;
    size_t end, bytes;
    int class, picture, flags, conjunct;
    if (text[0] < 0x80 && (rest == 1 || text[1] < 0x80))
        return 1;
    end = mn_read_character(text, rest, &code);
    class = class_of(t, code);
    picture = class == PICTURE;                 /* 1 after a picture and what extends it, 2 after a joiner then */
    flags = is_flag(code);                      /* regional indicators pair up */
    conjunct = class == CONSONANT ? 1 : 0;      /* 1 after a consonant, 2 after a linker then */
    for (; end < rest; end += bytes) {
        int joins, next_class;
        bytes = mn_read_character(text + end, rest - end, &next);
        next_class = class_of(t, next);
        if (class == CONTROL || next_class == CONTROL)
            break;
        joins = next_class == EXTEND || next_class == SPACING || next_class == LINKER || class == PREPEND ||
                hangul_joins(code, next) || (picture == 2 && next_class == PICTURE) || (flags == 1 && is_flag(next)) ||
                (conjunct == 2 && next_class == CONSONANT);
        if (!joins)
            break;
        if (next_class == PICTURE)
            picture = 1;
        else if (next == 0x200D)
            picture = picture ? 2 : 0;
        else
            picture = picture && (next_class == EXTEND || next_class == LINKER);
        if (next_class == CONSONANT)
            conjunct = 1;
        else if (next_class == LINKER)
            conjunct = conjunct ? 2 : 0;
        else if (next_class != EXTEND || next == 0x200C)
            conjunct = 0;
        flags = is_flag(next) ? (flags == 1 ? 2 : 1) : 0;
        code = next;
        class = next_class;
    }
    return end;
}

/* The replacement for the shortest beginning of `text` that the map has; NULL if it has none. */
static const uint8_t *mapped(const mn_tokenizer *t, const uint8_t *text, size_t bytes, size_t *length)
{
    uint32_t at = 0, unit;
    if (t->map_count == 0)
        return NULL;
    unit = mn_at32(t->map_units, 0);
    at ^= (unit >> 10) << ((unit & (1u << 9)) >> 6);
    for (size_t i = 0; i < bytes && text[i] != 0; i++) {
        at ^= text[i];
        if (at >= t->map_count)
            return NULL;
        unit = mn_at32(t->map_units, at);
        if ((unit & (1u << 31 | 0xFF)) != text[i])
            return NULL;
        at ^= (unit >> 10) << ((unit & (1u << 9)) >> 6);
        if (unit >> 8 & 1) {
            uint32_t from = at < t->map_count ? mn_at32(t->map_units, at) & 0x7FFFFFFFu : MN_NONE;
            const uint8_t *end;
            if (from >= t->map_bytes)
                return NULL;
            end = memchr(t->map_texts + from, 0, t->map_bytes - from);
            *length = end == NULL ? t->map_bytes - from : (size_t)(end - (t->map_texts + from));
            return t->map_texts + from;
        }
    }
    return NULL;
}

static mn_status append(mn_text_work *work, const uint8_t *text, size_t bytes)
{
    mn_status status = mn_work_room(work, bytes);
    if (status == MN_OK && bytes != 0) {
        memcpy(work->memory->data + work->top, text, bytes);
        work->top += bytes;
    }
    return status;
}

/* Copy `bytes` of the memory to the top. */
static mn_status copy(mn_text_work *work, size_t from, size_t bytes)
{
    mn_status status = mn_work_room(work, bytes);
    if (status == MN_OK && bytes != 0) {
        memmove(work->memory->data + work->top, work->memory->data + from, bytes);
        work->top += bytes;
    }
    return status;
}

/* Hugging Face applies the map to graphemes below six bytes, by their beginning, and else to single characters. */
static mn_status map_characters(mn_text_work *work, mn_text_span in)
{
    mn_status status = MN_OK;
    for (size_t at = 0; at < in.bytes && status == MN_OK;) {
        const uint8_t *text = work->memory->data + in.begin, *found;
        size_t bytes = grapheme(work->t, text + at, in.bytes - at), length = 0, end = at + bytes;
        if (bytes < 6 && (found = mapped(work->t, text + at, bytes, &length)) != NULL) {
            status = append(work, found, length);
            at = end;
        }
        while (at < end && status == MN_OK) {
            text = work->memory->data + in.begin;
            bytes = mn_character(text + at, in.bytes - at);
            found = mapped(work->t, text + at, bytes, &length);
            status = found != NULL ? append(work, found, length) : copy(work, in.begin + at, bytes);
            at += bytes;
        }
    }
    return status;
}

static mn_status replace(mn_text_work *work, mn_text_span in, const uint8_t *pattern, size_t length, const uint8_t *content,
                         size_t content_bytes)
{
    mn_status status = MN_OK;
    size_t kept = 0;
    for (size_t at = 0; at + length <= in.bytes && status == MN_OK;) {
        if (memcmp(work->memory->data + in.begin + at, pattern, length) != 0) {
            at++;
            continue;
        }
        status = copy(work, in.begin + kept, at - kept);
        if (status == MN_OK)
            status = append(work, content, content_bytes);
        kept = at += length;
    }
    return status == MN_OK ? copy(work, in.begin + kept, in.bytes - kept) : status;
}

/* Runs of two spaces or more become `content`. */
static mn_status collapse(mn_text_work *work, mn_text_span in, const uint8_t *content, size_t content_bytes)
{
    mn_status status = MN_OK;
    for (size_t at = 0; at < in.bytes && status == MN_OK;) {
        const uint8_t *text = work->memory->data + in.begin;
        size_t end = at;
        while (end < in.bytes && text[end] == ' ')
            end++;
        if (end - at >= 2) {
            status = append(work, content, content_bytes);
        } else {
            end = end == at ? at + 1 : end;
            status = copy(work, in.begin + at, end - at);
        }
        at = end;
    }
    return status;
}

/* One space at the front goes, or all spaces and U+2581 at the end: `^ |(?<![ \u2581])[ \u2581]+$`. */
static mn_text_span trim(const uint8_t *text, mn_text_span in)
{
    size_t end = in.bytes;
    for (;;) {
        if (end >= 1 && text[end - 1] == ' ')
            end -= 1;
        else if (end >= 3 && memcmp(text + end - 3, "\xE2\x96\x81", 3) == 0)
            end -= 3;
        else
            break;
    }
    if (in.bytes != 0 && text[0] == ' ') {
        in.begin += 1;
        in.bytes = (end == 0 ? in.bytes : end) - 1; /* a run that the first match cut is no run for the second */
    } else {
        in.bytes = end;
    }
    return in;
}

static mn_text_span strip(const uint8_t *text, mn_text_span in, uint32_t sides)
{
    size_t from = 0, end = in.bytes;
    uint32_t code;
    while ((sides & 1) && from < end) {
        size_t bytes = mn_read_character(text + from, end - from, &code);
        if (!mn_is_space(code))
            break;
        from += bytes;
    }
    while ((sides & 2) && from < end) {
        size_t last = end - 1;
        while (last > from && (text[last] & 0xC0) == 0x80)
            last--;
        mn_read_character(text + last, end - last, &code);
        if (!mn_is_space(code))
            break;
        end = last;
    }
    in.begin += from;
    in.bytes = end - from;
    return in;
}

mn_status mn_normalize(mn_text_work *work, mn_text_span *span)
{
    size_t home = work->top;
    for (uint32_t i = 0; i < work->t->step_count; i++) {
        const uint8_t *step = work->t->steps + (size_t)i * 20, *table = work->t->table;
        const uint8_t *a = table + mn_at32(step, 1), *b = table + mn_at32(step, 3);
        uint32_t kind = mn_get32(step), a_bytes = mn_at32(step, 2), b_bytes = mn_at32(step, 4);
        mn_status status = MN_OK;
        mn_text_span in = *span;
        size_t from = work->top;
        if (kind == STEP_TRIM) {
            *span = trim(work->memory->data + in.begin, in);
            continue;
        }
        if (kind == STEP_STRIP) {
            *span = strip(work->memory->data + in.begin, in, a_bytes);
            continue;
        }
        if (kind == STEP_MAP)
            status = map_characters(work, in);
        else if (kind == STEP_REPLACE)
            status = replace(work, in, a, a_bytes, b, b_bytes);
        else if (kind == STEP_SPACES)
            status = collapse(work, in, b, b_bytes);
        else if (in.bytes != 0 && (status = append(work, b, b_bytes)) == MN_OK) /* STEP_PREPEND */
            status = copy(work, in.begin, in.bytes);
        if (status != MN_OK)
            return status;
        span->begin = home;
        span->bytes = work->top - from;
        memmove(work->memory->data + home, work->memory->data + from, span->bytes);
        work->top = home + span->bytes;
    }
    return MN_OK;
}
