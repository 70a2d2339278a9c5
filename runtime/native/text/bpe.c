/* Byte pair encoding of a word: a heap of the pairs that can be merged, lowest rank first, leftmost among equals. */

#include "text.h"

typedef struct symbol {
    uint32_t id, previous, next; /* MN_NONE: merged away; none */
} symbol;

typedef struct heap {
    uint64_t *keys; /* rank, then place */
    size_t count;
} heap;

static void push(heap *h, uint64_t key)
{
    size_t at = h->count++;
    while (at > 0 && h->keys[(at - 1) / 2] > key) {
        h->keys[at] = h->keys[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    h->keys[at] = key;
}

static uint64_t pop(heap *h)
{
    uint64_t top = h->keys[0], last = h->keys[--h->count];
    size_t at = 0;
    for (size_t child; (child = 2 * at + 1) < h->count; at = child) {
        if (child + 1 < h->count && h->keys[child + 1] < h->keys[child])
            child++;
        if (h->keys[child] >= last)
            break;
        h->keys[at] = h->keys[child];
    }
    h->keys[at] = last;
    return top;
}

/* The merge of two pieces: right piece, rank, piece made. NULL if there is none. */
static const uint8_t *find_merge(const mn_tokenizer *t, uint32_t left, uint32_t right)
{
    uint32_t low = mn_at32(t->merge_first, left), high = mn_at32(t->merge_first, left + 1), end = high;
    if (high > t->merge_count)
        return NULL;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (mn_get32(t->merges + (size_t)middle * 12) < right)
            low = middle + 1;
        else
            high = middle;
    }
    if (low >= end || mn_get32(t->merges + (size_t)low * 12) != right)
        return NULL;
    return mn_at32(t->merges + (size_t)low * 12, 2) < t->pieces ? t->merges + (size_t)low * 12 : NULL;
}

static void push_pair(const mn_tokenizer *t, heap *h, const symbol *symbols, uint32_t left)
{
    const uint8_t *merge = find_merge(t, symbols[left].id, symbols[symbols[left].next].id);
    if (merge != NULL)
        push(h, (uint64_t)mn_at32(merge, 1) << 32 | left);
}

static size_t add(symbol *symbols, size_t count, uint32_t id)
{
    symbols[count].id = id;
    symbols[count].previous = count == 0 ? MN_NONE : (uint32_t)count - 1;
    symbols[count].next = MN_NONE;
    if (count != 0)
        symbols[count - 1].next = (uint32_t)count;
    return count + 1;
}

static int all_bytes_known(const mn_tokenizer *t, const uint8_t *text, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        if (mn_at32(t->byte_ids, text[i]) >= t->pieces)
            return 0;
    return 1;
}

/* The characters of a word as pieces; at most one for each byte. */
static size_t cut(const mn_tokenizer *t, const uint8_t *text, size_t bytes, symbol *symbols)
{
    size_t count = 0, length;
    int unknown = 0; /* one is held back until a known character follows; bytes overtake it, as in tokenizers */
    for (size_t at = 0; at < bytes; at += length) {
        uint32_t id;
        length = mn_character(text + at, bytes - at);
        id = mn_trie_find(&t->trie, text + at, length);
        if (id < t->pieces) {
            if (unknown)
                count = add(symbols, count, t->unk);
            unknown = 0;
            count = add(symbols, count, id);
        } else if (t->byte_ids != NULL && all_bytes_known(t, text + at, length)) {
            for (size_t i = 0; i < length; i++)
                count = add(symbols, count, mn_at32(t->byte_ids, text[at + i]));
        } else if (t->unk != MN_NONE) {
            if (unknown && !(t->flags & MN_FUSE_UNK))
                count = add(symbols, count, t->unk);
            unknown = 1;
        }
    }
    return unknown ? add(symbols, count, t->unk) : count;
}

mn_status mn_bpe(mn_text_work *work, mn_text_span word)
{
    const mn_tokenizer *t = work->t;
    size_t count, home = work->top, start = (home + 15) / 16 * 16;
    symbol *symbols;
    heap queue;
    mn_status status;
    if (t->flags & MN_IGNORE_MERGES) {
        uint32_t id = mn_trie_find(&t->trie, work->memory->data + word.begin, word.bytes);
        if (id < t->pieces)
            return mn_work_emit(work, id);
    }
    /* Each merge takes a pair away and adds at most two; there are fewer merges than symbols. */
    status = mn_work_room(work, start - home + word.bytes * (sizeof *symbols + 2 * sizeof *queue.keys) + 16);
    if (status != MN_OK)
        return status;
    queue.keys = (uint64_t *)(void *)(work->memory->data + start);
    queue.count = 0;
    symbols = (symbol *)(void *)(queue.keys + 2 * word.bytes);
    count = cut(t, work->memory->data + word.begin, word.bytes, symbols);
    for (uint32_t i = 0; i + 1 < count; i++)
        push_pair(t, &queue, symbols, i);
    while (queue.count != 0) {
        uint64_t key = pop(&queue);
        uint32_t left = (uint32_t)key, right = symbols[left].next;
        const uint8_t *merge;
        if (symbols[left].id == MN_NONE || right == MN_NONE)
            continue;
        merge = find_merge(t, symbols[left].id, symbols[right].id);
        if (merge == NULL || mn_at32(merge, 1) != key >> 32)
            continue; /* the pair has changed since */
        symbols[left].id = mn_at32(merge, 2);
        symbols[left].next = symbols[right].next;
        symbols[right].id = MN_NONE;
        if (symbols[left].next != MN_NONE) {
            symbols[symbols[left].next].previous = left;
            push_pair(t, &queue, symbols, left);
        }
        if (symbols[left].previous != MN_NONE)
            push_pair(t, &queue, symbols, symbols[left].previous);
    }
    for (uint32_t i = 0; count != 0 && i != MN_NONE && status == MN_OK; i = symbols[i].next)
        status = mn_work_emit(work, symbols[i].id);
    return status;
}
