/* Unigram model: the pieces of the best score, by Viterbi's algorithm over a tree of all pieces. */

#include <string.h>

#include "text.h"

typedef struct best {
    double score;
    uint32_t start; /* of the last piece of the best way to here; MN_NONE while there is none */
    uint32_t id;
} best;

static double score_of(const mn_tokenizer *t, uint32_t id)
{
    const uint8_t *p = t->scores + (size_t)id * 8;
    uint64_t bits = (uint64_t)mn_get32(p) | (uint64_t)mn_get32(p + 4) << 32;
    double score;
    memcpy(&score, &bits, sizeof score);
    return score;
}

static void improve(best *target, double score, uint32_t start, uint32_t id)
{
    if (target->start == MN_NONE || score > target->score) {
        target->score = score;
        target->start = start;
        target->id = id;
    }
}

static void search(const mn_tokenizer *t, const uint8_t *text, size_t bytes, best *ways)
{
    for (size_t i = 0; i <= bytes; i++) {
        ways[i].score = 0.0;
        ways[i].start = MN_NONE;
        ways[i].id = 0;
    }
    for (size_t at = 0; at < bytes;) {
        size_t character = mn_character(text + at, bytes - at), most = bytes - at;
        double before = ways[at].score;
        uint32_t node = 0;
        int single = 0;
        if (most > MN_PIECE_LIMIT)
            most = MN_PIECE_LIMIT;
        for (size_t length = 1; length <= most; length++) {
            uint32_t id;
            if ((node = mn_trie_step(&t->trie, node, text[at + length - 1])) == MN_NONE)
                break;
            id = mn_at32(t->trie.values, node);
            if (id >= t->pieces)
                continue;
            improve(&ways[at + length], score_of(t, id) + before, (uint32_t)at, id);
            single |= length == character;
        }
        if (!single)
            improve(&ways[at + character], t->unk_score + before, (uint32_t)at, t->unk);
        at += character;
    }
}

/* Unknown text, which tokenizers puts together and looks up once more: a piece, bytes, or unk. */
static mn_status emit_unknown(mn_text_work *work, size_t begin, size_t bytes)
{
    const mn_tokenizer *t = work->t;
    const uint8_t *text = work->memory->data + begin;
    uint32_t id = mn_trie_find(&t->trie, text, bytes);
    mn_status status = MN_OK;
    if (id < t->pieces)
        return mn_work_emit(work, id);
    if (t->byte_ids == NULL)
        return mn_work_emit(work, t->unk);
    for (size_t i = 0; i < bytes; i++)
        if (mn_at32(t->byte_ids, text[i]) >= t->pieces)
            return mn_work_emit(work, t->unk);
    for (size_t i = 0; i < bytes && status == MN_OK; i++)
        status = mn_work_emit(work, mn_at32(t->byte_ids, text[i]));
    return status;
}

mn_status mn_unigram(mn_text_work *work, mn_text_span word)
{
    const mn_tokenizer *t = work->t;
    size_t home = work->top, start = (home + 15) / 16 * 16;
    uint32_t end = (uint32_t)word.bytes, from;
    best *ways;
    mn_status status = mn_work_room(work, start - home + (word.bytes + 1) * sizeof *ways);
    if (status != MN_OK || word.bytes == 0)
        return status;
    ways = (best *)(void *)(work->memory->data + start);
    search(t, work->memory->data + word.begin, word.bytes, ways);
    /* Turn the links round: from then on `start` says where the piece that begins there ends. */
    from = ways[end].start;
    while (end > 0) {
        uint32_t before = ways[from].start;
        ways[from].start = end;
        end = from;
        from = before;
    }
    for (uint32_t at = 0; at < word.bytes && status == MN_OK;) {
        uint32_t id;
        end = ways[at].start;
        id = ways[end].id;
        if (id != t->unk) {
            status = mn_work_emit(work, id);
        } else {
            while (end < word.bytes && ways[ways[end].start].id == t->unk)
                end = ways[end].start;
            status = emit_unknown(work, word.begin + at, end - at);
        }
        at = end;
    }
    return status;
}
