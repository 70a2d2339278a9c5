/* The table of a tokenizer, and the way of a text through it: cleaned, cut at added tokens, normalized, cut into words,
   and each word into pieces. */

#include <stdlib.h>
#include <string.h>

#include "text.h"

enum { HEADER_BYTES = 192, STEP_BYTES = 20, MOST_STEPS = 16, STEP_KINDS = 6 };

/* Words of the header; a table's offsets count from its own start. */
enum {
    W_VERSION = 1, W_BYTES, W_MODEL, W_FLAGS, W_PREPEND, W_MARK, W_DECODER_MARK, W_STRIP, W_STRIP_START, W_PIECES, W_UNK,
    W_LIMIT, W_BEYOND, W_TEXT_OFFSETS, W_TEXTS, W_TEXT_BYTES, W_KINDS, W_BYTE_IDS, W_TRIE, W_ADDED = W_TRIE + 4,
    W_MERGE_FIRST = W_ADDED + 4, W_MERGES, W_MERGE_COUNT, W_SCORES, W_STEPS, W_STEP_COUNT, W_MAP_UNITS, W_MAP_COUNT,
    W_MAP_TEXTS, W_MAP_BYTES, W_CLASSES, W_CLASS_COUNT, W_UNK_SCORE = 40
};

mn_status mn_text_memory_need(mn_text_memory *memory, size_t bytes, mn_error *error)
{
    uint8_t *data;
    size_t wanted = bytes;
    if (bytes <= memory->bytes)
        return MN_OK;
    if (bytes > memory->limit)
        return mn_fail(error, MN_ERROR_MEMORY, "the text needs %zu bytes, the limit is %zu", bytes, memory->limit);
    if (memory->bytes <= memory->limit / 2 && wanted < memory->bytes * 2)
        wanted = memory->bytes * 2;
    data = realloc(memory->data, wanted);
    if (data == NULL)
        return mn_fail(error, MN_ERROR_MEMORY, "the system gives no %zu bytes", wanted);
    memory->data = data;
    memory->bytes = wanted;
    return MN_OK;
}

void mn_text_memory_free(mn_text_memory *memory)
{
    free(memory->data);
    memory->data = NULL;
    memory->bytes = 0;
}

mn_status mn_work_room(mn_text_work *work, size_t bytes)
{
    if (bytes > SIZE_MAX - work->top)
        return mn_fail(work->error, MN_ERROR_MEMORY, "the text is too long");
    return mn_text_memory_need(work->memory, work->top + bytes, work->error);
}

mn_status mn_work_emit(mn_text_work *work, uint32_t id)
{
    if (id >= work->t->limit && (id = work->t->beyond) == MN_NONE)
        return MN_OK; /* a piece that the model does not know, and no unk */
    if (work->count < work->room)
        work->ids[work->count] = id;
    work->count++;
    return MN_OK;
}

/* `count` elements of `width` bytes at the offset that word `word` gives; NULL where they do not lie in the table. */
static const uint8_t *part(const mn_tokenizer *t, int word, uint64_t count, unsigned width)
{
    uint64_t size = mn_at32(t->table, W_BYTES), offset = mn_at32(t->table, (uint32_t)word);
    if (offset < HEADER_BYTES || offset > size || count > (size - offset) / width)
        return NULL;
    return t->table + offset;
}

static int read_trie(const mn_tokenizer *t, int word, mn_trie *trie)
{
    trie->nodes = mn_at32(t->table, (uint32_t)word + 3);
    if (trie->nodes == 0)
        return 1;
    trie->labels = part(t, word, trie->nodes, 1);
    trie->first = part(t, word + 1, (uint64_t)trie->nodes + 1, 4);
    trie->values = part(t, word + 2, trie->nodes, 4);
    return trie->labels != NULL && trie->first != NULL && trie->values != NULL;
}

static int read_steps(const mn_tokenizer *t)
{
    uint32_t size = mn_at32(t->table, W_BYTES);
    for (uint32_t i = 0; i < t->step_count; i++) {
        const uint8_t *step = t->steps + (size_t)i * STEP_BYTES;
        uint32_t kind = mn_get32(step), a = mn_at32(step, 1), a_bytes = mn_at32(step, 2);
        uint32_t b = mn_at32(step, 3), b_bytes = mn_at32(step, 4);
        if (kind < 1 || kind > STEP_KINDS || a > size || b > size || b_bytes > size - b)
            return 0;
        if (kind == 2 && (a_bytes == 0 || a_bytes > size - a)) /* replace: there is something to find */
            return 0;
    }
    return 1;
}

static int read_model(mn_tokenizer *t)
{
    const uint8_t *unk_score = t->table + (size_t)W_UNK_SCORE * 4;
    uint64_t bits = (uint64_t)mn_get32(unk_score) | (uint64_t)mn_get32(unk_score + 4) << 32;
    if (t->model == MN_MODEL_NONE)
        return 1;
    if (t->flags & MN_BYTE_FALLBACK && (t->byte_ids = part(t, W_BYTE_IDS, 256, 4)) == NULL)
        return 0;
    if (!read_trie(t, W_TRIE, &t->trie) || t->trie.nodes == 0 || !read_trie(t, W_ADDED, &t->added))
        return 0;
    memcpy(&t->unk_score, &bits, sizeof bits);
    if (t->model == MN_MODEL_UNIGRAM)
        return t->unk < t->pieces && (t->scores = part(t, W_SCORES, t->pieces, 8)) != NULL;
    t->merge_count = mn_at32(t->table, W_MERGE_COUNT);
    t->merge_first = part(t, W_MERGE_FIRST, (uint64_t)t->pieces + 1, 4);
    t->merges = part(t, W_MERGES, t->merge_count, 12);
    return (t->unk == MN_NONE || t->unk < t->pieces) && t->merge_first != NULL && t->merges != NULL;
}

mn_status mn_tokenizer_open(mn_tokenizer *t, const uint8_t *data, size_t bytes, mn_error *error)
{
    memset(t, 0, sizeof *t);
    if (bytes < HEADER_BYTES || memcmp(data, "MNTK", 4) != 0 || mn_at32(data, W_BYTES) != bytes)
        return mn_fail(error, MN_ERROR_PACK, "native.bin: the tokenizer is damaged: it does not begin as one");
    if (mn_at32(data, W_VERSION) != 1)
        return mn_fail(error, MN_ERROR_PACK, "native.bin: the tokenizer has version %u", (unsigned)mn_at32(data, 1));
    t->table = data;
    t->model = mn_at32(data, W_MODEL);
    t->flags = mn_at32(data, W_FLAGS);
    t->prepend = mn_at32(data, W_PREPEND);
    t->mark = mn_at32(data, W_MARK);
    t->decoder_mark = mn_at32(data, W_DECODER_MARK);
    t->strip = mn_at32(data, W_STRIP);
    t->strip_start = mn_at32(data, W_STRIP_START);
    t->pieces = mn_at32(data, W_PIECES);
    t->unk = mn_at32(data, W_UNK);
    t->limit = mn_at32(data, W_LIMIT);
    t->beyond = mn_at32(data, W_BEYOND);
    t->text_bytes = mn_at32(data, W_TEXT_BYTES);
    t->text_offsets = part(t, W_TEXT_OFFSETS, (uint64_t)t->pieces + 1, 4);
    t->texts = part(t, W_TEXTS, t->text_bytes, 1);
    t->kinds = part(t, W_KINDS, t->pieces, 2);
    t->step_count = mn_at32(data, W_STEP_COUNT);
    t->steps = part(t, W_STEPS, t->step_count, STEP_BYTES);
    t->map_count = mn_at32(data, W_MAP_COUNT);
    t->map_units = part(t, W_MAP_UNITS, t->map_count, 4);
    t->map_bytes = mn_at32(data, W_MAP_BYTES);
    t->map_texts = part(t, W_MAP_TEXTS, t->map_bytes, 1);
    t->class_count = mn_at32(data, W_CLASS_COUNT);
    t->classes = part(t, W_CLASSES, t->class_count, 4);
    if (t->text_offsets == NULL || t->texts == NULL || t->kinds == NULL || t->steps == NULL || t->map_units == NULL ||
        t->map_texts == NULL || t->classes == NULL || t->step_count > MOST_STEPS || t->model > MN_MODEL_UNIGRAM ||
        t->prepend > 2 || t->strip > 2 || (t->mark != MN_NONE && t->mark > 0x10FFFF) ||
        (t->beyond != MN_NONE && t->beyond >= t->limit) || !read_steps(t) || !read_model(t))
        return mn_fail(error, MN_ERROR_PACK, "native.bin: the tokenizer is damaged: a part of it lies outside");
    return MN_OK;
}

int mn_tokenizer_knows(const mn_tokenizer *t, const uint32_t *ids, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (ids[i] >= t->limit || ids[i] >= t->pieces || ids[i] == t->unk || ids[i] == t->beyond)
            return 0;
        for (uint32_t byte = 0; t->byte_ids != NULL && byte < 256; byte++)
            if (mn_at32(t->byte_ids, byte) == ids[i])
                return 0;
    }
    return 1;
}

int mn_tokenizer_encodes(const mn_tokenizer *t)
{
    return t->model != MN_MODEL_NONE;
}

static mn_status encode_word(mn_text_work *work, mn_text_span word)
{
    size_t top = work->top;
    mn_status status;
    if (word.bytes > MN_TEXT_LIMIT)
        return mn_fail(work->error, MN_ERROR_MEMORY, "the text is too long: %zu bytes", word.bytes);
    status = work->t->model == MN_MODEL_BPE ? mn_bpe(work, word) : mn_unigram(work, word);
    work->top = top;
    return status;
}

/* Spaces become the mark, one may be put in front, and words begin at marks. */
static mn_status encode_marked(mn_text_work *work, mn_text_span in, int first)
{
    const mn_tokenizer *t = work->t;
    uint8_t mark[4], *out;
    const uint8_t *text;
    size_t mark_bytes, written = 0, top = work->top, begin = 0;
    mn_status status;
    if (t->mark == MN_NONE)
        return encode_word(work, in);
    mark_bytes = mn_write_character(mark, t->mark);
    if (in.bytes > MN_TEXT_LIMIT)
        return mn_fail(work->error, MN_ERROR_MEMORY, "the text is too long: %zu bytes", in.bytes);
    if ((status = mn_work_room(work, (in.bytes + 1) * 4)) != MN_OK)
        return status;
    text = work->memory->data + in.begin;
    out = work->memory->data + top;
    if ((t->prepend == 2 || (t->prepend == 1 && first)) && text[0] != ' ' &&
        (in.bytes < mark_bytes || memcmp(text, mark, mark_bytes) != 0)) {
        memcpy(out, mark, mark_bytes);
        written = mark_bytes;
    }
    for (size_t i = 0; i < in.bytes; i++) {
        if (text[i] == ' ') {
            memcpy(out + written, mark, mark_bytes);
            written += mark_bytes;
        } else {
            out[written++] = text[i];
        }
    }
    work->top += written;
    for (size_t at = 1; at < written && (t->flags & MN_SPLIT_MARK); at++) {
        const uint8_t *here = work->memory->data + top + at;
        if (here[0] == mark[0] && written - at >= mark_bytes && memcmp(here, mark, mark_bytes) == 0) {
            mn_text_span word = {top + begin, at - begin};
            if ((status = encode_word(work, word)) != MN_OK)
                return status;
            begin = at;
        }
    }
    in.begin = top + begin;
    in.bytes = written - begin;
    status = encode_word(work, in);
    work->top = top;
    return status;
}

/* Text between added tokens. */
static mn_status encode_segment(mn_text_work *work, mn_text_span span)
{
    size_t top = work->top;
    int first = span.begin == 0;
    mn_status status = mn_normalize(work, &span);
    if (status != MN_OK || span.bytes == 0) {
        work->top = top;
        return status;
    }
    if (!(work->t->flags & MN_SPLIT_SPACE)) {
        status = encode_marked(work, span, first);
    } else {
        mn_text_span word = {span.begin, 0};
        for (size_t at = 0, bytes; at <= span.bytes && status == MN_OK; at += bytes) {
            uint32_t code = ' ';
            bytes = 1;
            if (at < span.bytes)
                bytes = mn_read_character(work->memory->data + span.begin + at, span.bytes - at, &code);
            if (mn_is_space(code)) {
                word.bytes = span.begin + at - word.begin;
                if (word.bytes != 0)
                    status = encode_marked(work, word, first && word.begin == span.begin);
                word.begin = span.begin + at + bytes;
            }
        }
    }
    work->top = top;
    return status;
}

/* The longest added token that begins here. */
static uint32_t added_at(const mn_tokenizer *t, const uint8_t *text, size_t rest, size_t *bytes)
{
    uint32_t node = 0, found = MN_NONE;
    for (size_t i = 0; i < rest && i < MN_PIECE_LIMIT; i++) {
        uint32_t id;
        if ((node = mn_trie_step(&t->added, node, text[i])) == MN_NONE)
            break;
        if ((id = mn_at32(t->added.values, node)) != MN_NONE) {
            found = id;
            *bytes = i + 1;
        }
    }
    return found;
}

mn_status mn_tokenizer_encode(const mn_tokenizer *t, const char *text, size_t bytes, uint32_t *ids, size_t room,
                              size_t *count, mn_text_memory *memory, mn_error *error)
{
    mn_text_work work = {t, memory, 0, ids, room, 0, error};
    mn_status status;
    mn_text_span span = {0, 0};
    *count = 0;
    if (t->model == MN_MODEL_NONE)
        return mn_fail(error, MN_ERROR_ARGUMENT, "the target's tokenizer encodes no text");
    if (bytes > MN_TEXT_LIMIT)
        return mn_fail(error, MN_ERROR_MEMORY, "the text is too long: %zu bytes", bytes);
    if (bytes == 0)
        return MN_OK;
    if ((status = mn_work_room(&work, bytes * 3)) != MN_OK)
        return status;
    work.top = mn_clean((const uint8_t *)text, bytes, memory->data);
    for (size_t at = 0, end = work.top; at < end && t->added.nodes != 0 && status == MN_OK;) {
        size_t length = 0;
        uint32_t id = added_at(t, memory->data + at, end - at, &length);
        if (id == MN_NONE) {
            at++;
            continue;
        }
        span.bytes = at - span.begin;
        if (span.bytes != 0)
            status = encode_segment(&work, span);
        if (status == MN_OK)
            status = mn_work_emit(&work, id);
        span.begin = at += length;
    }
    span.bytes = work.top - span.begin;
    if (status == MN_OK && span.bytes != 0)
        status = encode_segment(&work, span);
    *count = work.count;
    return status;
}
