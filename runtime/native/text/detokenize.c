/* Ids to text: pieces put together, byte pieces made characters, marks made spaces. */

#include "text.h"

enum { STRIP_NONE = 0, STRIP_START = 1, STRIP_LINES = 2 };

typedef struct sink {
    const mn_tokenizer *t;
    char *text;
    size_t room, count;
    size_t spaces;  /* held back: they may turn out to end a line */
    uint32_t strip; /* how many more spaces go at the start */
    int first;      /* within the first token, where marks may be dropped */
} sink;

static void write_bytes(sink *out, const uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++, out->count++)
        if (out->count < out->room)
            out->text[out->count] = (char)bytes[i];
}

static void write_code(sink *out, uint32_t code)
{
    uint8_t bytes[4];
    if (code == ' ') {
        if (out->strip != 0)
            out->strip -= out->strip != MN_NONE;
        else if (out->t->strip == STRIP_LINES)
            out->spaces++;
        else
            write_bytes(out, (const uint8_t *)" ", 1);
        return;
    }
    for (; out->spaces != 0; out->spaces--)
        if (code != '\n')
            write_bytes(out, (const uint8_t *)" ", 1);
    out->strip = code == '\n' && out->t->strip == STRIP_LINES ? MN_NONE : 0;
    write_bytes(out, bytes, mn_write_character(bytes, code));
}

static void write_text(sink *out, const uint8_t *text, size_t bytes, int marks)
{
    for (size_t at = 0; at < bytes;) {
        uint32_t code;
        at += mn_read_character(text + at, bytes - at, &code);
        if (!marks || code != out->t->decoder_mark)
            write_code(out, code);
        else if (!out->first || !(out->t->flags & MN_DROP_FIRST_MARKS))
            write_code(out, ' ');
    }
}

static const uint8_t *piece_text(const mn_tokenizer *t, uint32_t id, size_t *bytes)
{
    uint32_t begin = mn_at32(t->text_offsets, id), end = mn_at32(t->text_offsets, id + 1);
    if (begin > end || end > t->text_bytes)
        begin = end = 0;
    *bytes = end - begin;
    return t->texts + begin;
}

static int is_kind(const mn_tokenizer *t, uint32_t id, int kind)
{
    return t->kinds[(size_t)id * 2] & kind;
}

static int shown(const mn_tokenizer *t, uint32_t id)
{
    return id < t->pieces && !is_kind(t, id, MN_PIECE_HIDDEN);
}

/* One byte of a run of byte pieces: a character is written once it is whole, bytes that belong to none are left out.
   (Dropping the held bytes together is right: all but the first are continuations, which begin nothing.) */
static void write_byte(sink *out, uint8_t *window, size_t *held, uint8_t byte, int *written)
{
    uint32_t code;
    int continues = (byte & 0xC0) == 0x80;
    if (continues != (*held != 0)) {
        *held = 0;
        if (continues)
            return;
    }
    window[(*held)++] = byte;
    if (*held < (window[0] < 0x80 ? 1u : window[0] < 0xE0 ? 2u : window[0] < 0xF0 ? 3u : 4u))
        return;
    if (mn_read_character(window, *held, &code) == *held) {
        write_text(out, window, *held, !(out->t->flags & MN_KEEP_BYTE_MARKS));
        *written = 1;
    }
    *held = 0;
}

/* The byte pieces from ids[at] on, those shown among them; returns the place behind them. */
static size_t write_byte_run(sink *out, const uint32_t *ids, size_t at, size_t length)
{
    const mn_tokenizer *t = out->t;
    uint8_t window[4];
    size_t held = 0, end = at;
    int written = 0;
    for (size_t i = at; i < length; i++) {
        if (!shown(t, ids[i]))
            continue;
        if (!is_kind(t, ids[i], MN_PIECE_BYTE))
            break;
        end = i + 1;
        write_byte(out, window, &held, t->kinds[(size_t)ids[i] * 2 + 1], &written);
    }
    if (written)
        out->first = 0;
    return end;
}

mn_status mn_tokenizer_decode(const mn_tokenizer *t, const uint32_t *ids, size_t length, char *text, size_t room,
                              size_t *count, mn_error *error)
{
    sink out = {t, text, room, 0, 0, 0, 1};
    (void)error;
    out.strip = t->strip == STRIP_LINES ? MN_NONE : t->strip == STRIP_START ? t->strip_start : 0;
    for (size_t at = 0; at < length;) {
        if (!shown(t, ids[at])) {
            at++;
            continue;
        }
        if ((t->flags & MN_DECODE_BYTES) && is_kind(t, ids[at], MN_PIECE_BYTE)) {
            at = write_byte_run(&out, ids, at, length);
        } else {
            size_t bytes;
            const uint8_t *piece = piece_text(t, ids[at++], &bytes);
            write_text(&out, piece, bytes, 1);
            out.first = 0;
        }
    }
    *count = out.count;
    return MN_OK;
}

mn_status mn_tokenizer_piece(const mn_tokenizer *t, uint32_t id, const char **piece, size_t *bytes)
{
    *piece = "";
    *bytes = 0;
    if (id < t->pieces)
        *piece = (const char *)piece_text(t, id, bytes);
    return MN_OK;
}
