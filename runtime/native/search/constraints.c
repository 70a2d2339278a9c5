#include "search/constraints.h"

static const uint32_t *phrase_of(const mn_phrases *phrases, uint32_t number)
{
    const uint32_t *tokens = phrases->tokens;
    while (number--) tokens += phrases->lengths[number];
    return tokens;
}

static int starts_with(const uint32_t *phrase, const uint32_t *tokens, uint32_t count)
{
    return !count || !memcmp(phrase, tokens, count * sizeof(uint32_t));
}

mn_progress mn_advance(const mn_phrases *phrases, mn_progress before, uint32_t token)
{
    const uint32_t *past = before.length ? phrase_of(phrases, before.phrase) : NULL;
    mn_progress now = {.held = before.held, .tokens = before.tokens - before.length};
    /* as many of the last tokens as are the first of a phrase */
    for (uint32_t kept = before.length + 1; kept-- > 0;) {
        const uint32_t *phrase = phrases->tokens;
        for (uint32_t i = 0; i < phrases->count; phrase += phrases->lengths[i++]) {
            if (now.held >> i & 1 || phrases->lengths[i] <= kept || phrase[kept] != token) continue;
            if (kept && !starts_with(phrase, past + before.length - kept, kept)) continue;
            if (phrases->lengths[i] == kept + 1) {
                now.held |= 1ull << i;
                now.length = 0;
                now.ended = 1;
                now.tokens += kept + 1;
                return now;
            }
            if (!now.length) {
                now.phrase = i;
                now.length = kept + 1;
            }
        }
        if (now.length) break;
    }
    now.tokens += now.length;
    return now;
}

uint32_t mn_next_of_phrases(const mn_phrases *phrases, mn_progress at, uint32_t *next)
{
    const uint32_t *past = at.length ? phrase_of(phrases, at.phrase) : NULL, *phrase = phrases->tokens;
    uint32_t found = 0;
    for (uint32_t i = 0; i < phrases->count; phrase += phrases->lengths[i++]) {
        if (at.held >> i & 1 || phrases->lengths[i] <= at.length || !starts_with(phrase, past, at.length)) continue;
        uint32_t same = 0;
        while (same < found && next[same] != phrase[at.length]) same++;
        if (same == found) next[found++] = phrase[at.length];
    }
    return found;
}

/* Equal shares, the rest to the highest bank. What a bank has no use for goes to the one below, from the lowest to the
   highest again. */
void mn_share(const uint32_t *there, uint32_t banks, uint32_t beams, uint32_t *share)
{
    for (uint32_t i = 0; i < banks; i++) share[i] = beams / banks;
    share[banks - 1] += beams % banks;
    for (int turn = 0; turn < 2; turn++)
        for (uint32_t i = banks; i-- > 0;) {
            if (share[i] <= there[i]) continue;
            share[i ? i - 1 : banks - 1] += share[i] - there[i];
            share[i] = there[i];
        }
}

static int comes_before(const mn_continuation *a, const mn_continuation *b)
{
    if (a->score != b->score) return a->score > b->score;
    return a->parent != b->parent ? a->parent < b->parent : a->candidate < b->candidate;
}

void mn_pool(mn_allocation *room, mn_continuation one)
{
    uint32_t low = 0, high = room->pooled;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (comes_before(room->pool + middle, &one))
            low = middle + 1;
        else
            high = middle;
    }
    if (low < room->pooled && !comes_before(&one, room->pool + low)) return; /* the same */
    memmove(room->pool + low + 1, room->pool + low, (room->pooled++ - low) * sizeof one);
    room->pool[low] = one;
}
