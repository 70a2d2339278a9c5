/* From the bytes of native.bin and weights.bin to a model. Every number read here is checked before it is used. */

#include "error.h"
#include "layout.h"
#include "model.h"

#define HEADER 192
#define MOST_WIDTH (1u << 16)
#define MOST_LAYERS 256u
#define MOST_TOKENS (1u << 24)
#define MOST_POSITIONS (1u << 20)

static mn_status bad(mn_error *error, const char *what) { return mn_fail(error, MN_ERROR_PACK, "native.bin: %s", what); }

/* A list of tokens; NULL if it lies outside the file, or one of them outside the vocabulary. */
static const uint8_t *read_tokens(const mn_model *m, uint64_t at, uint32_t count)
{
    if (at + 4ull * count > m->native.bytes) return NULL;
    for (uint32_t i = 0; i < count; i++)
        if (mn_u32(m->native.data + at + 4ull * i) >= m->config.target_vocabulary) return NULL;
    return m->native.data + at;
}

/* What later writers say at the end of the header. */
static mn_status read_rules(mn_model *m, int rules, mn_error *error)
{
    const uint8_t *h = m->native.data;
    mn_config *c = &m->config;
    const uint32_t layer = mn_u32(h + 128), head = mn_u32(h + 132); /* counted from 1; 0 for what files of old have */
    if (layer > c->decoder_layers || head > c->decoder_heads || mn_u32(h + 136) > 1) return bad(error, "an alignment of no head");
    c->look_layer = layer ? layer - 1 : c->decoder_layers - 1;
    c->look_head = head ? head - 1 : MN_NONE;
    c->look_later = mn_u32(h + 136);
    c->forced_bos = rules ? mn_u32(h + 140) : MN_NONE;
    if (!rules) return MN_OK;
    if (c->forced_bos != MN_NONE && (c->forced_bos >= c->target_vocabulary || c->forced_bos == c->eos))
        return bad(error, "a forced first token that is none");
    m->not_first_count = mn_u32(h + 148);
    m->not_first = read_tokens(m, mn_u32(h + 144), m->not_first_count);
    if (!m->not_first) return bad(error, "tokens that are not the first outside the file or the vocabulary");
    c->no_repeat_ngram = mn_u32(h + 152);
    c->min_length = mn_u32(h + 156);
    return MN_OK;
}

static mn_status read_header(mn_model *m, mn_tensors *tensors, mn_error *error)
{
    const uint8_t *h = m->native.data;
    mn_config *c = &m->config;
    if (m->native.bytes < HEADER || memcmp(h, "MNMTCORE", 8)) return bad(error, "not a file of this kind");
    if (m->native.bytes > UINT32_MAX) return bad(error, "longer than 4 GiB");
    if (mn_u32(h + 8) - 1 > 1)
        return mn_fail(error, MN_ERROR_PACK, "native.bin: version %u; this library reads 1 and 2: update it", mn_u32(h + 8));
    const uint32_t flags = mn_u32(h + 12);
    if (flags > 7) return bad(error, "flags this library does not know: update it");
    c->pre_norm = flags & 1;
    c->renormalize = flags >> 1 & 1;
    uint32_t *const dimensions[] = {&c->d_model, &c->encoder_layers, &c->decoder_layers, &c->encoder_heads,
                                    &c->decoder_heads, &c->encoder_ffn, &c->decoder_ffn, &c->activation,
                                    &c->source_vocabulary, &c->target_vocabulary, &c->max_positions, &c->start,
                                    &c->eos, &c->pad, &c->unk, &c->forced_eos, &c->early_stopping};
    for (size_t i = 0; i < sizeof dimensions / sizeof *dimensions; i++) *dimensions[i] = mn_u32(h + 16 + 4 * i);
    c->embedding_factor = mn_f32(h + 84);
    if (!c->d_model || c->d_model > MOST_WIDTH || !c->encoder_ffn || c->encoder_ffn > MOST_WIDTH || !c->decoder_ffn ||
        c->decoder_ffn > MOST_WIDTH)
        return bad(error, "a width that is 0 or over 65,536");
    if (!c->encoder_layers || c->encoder_layers > MOST_LAYERS || !c->decoder_layers || c->decoder_layers > MOST_LAYERS)
        return bad(error, "no layers, or more than 256");
    if (!c->encoder_heads || c->d_model % c->encoder_heads || !c->decoder_heads || c->d_model % c->decoder_heads)
        return bad(error, "heads that do not divide the width");
    if (c->activation >= MN_ACTIVATIONS) return bad(error, "an activation this library does not know: update it");
    if (!c->source_vocabulary || c->source_vocabulary > MOST_TOKENS || c->target_vocabulary < 2 ||
        c->target_vocabulary > MOST_TOKENS)
        return bad(error, "a vocabulary that is empty or over 16,777,216");
    if (c->max_positions < 2 || c->max_positions > MOST_POSITIONS) return bad(error, "no positions, or over 1,048,576");
    if (c->start >= c->target_vocabulary || c->eos >= c->target_vocabulary || c->eos >= c->source_vocabulary ||
        c->pad >= c->target_vocabulary || (c->unk != MN_NONE && c->unk >= c->source_vocabulary) ||
        (c->forced_eos != MN_NONE && c->forced_eos >= c->target_vocabulary))
        return bad(error, "a special token outside the vocabulary");
    if (c->early_stopping > MN_EARLY_NEVER) return bad(error, "an early_stopping this library does not know");
    const uint64_t bad_at = mn_u32(h + 88), tensors_at = mn_u32(h + 96);
    m->bad_count = mn_u32(h + 92);
    tensors->count = mn_u32(h + 100);
    if (m->bad_count >= c->target_vocabulary) return bad(error, "every token is bad");
    m->bad = read_tokens(m, bad_at, m->bad_count);
    if (!m->bad) return bad(error, "bad tokens outside the file or the vocabulary");
    const mn_status status = read_rules(m, flags >> 2 & 1, error);
    if (status != MN_OK) return status;
    if (tensors_at + 48ull * tensors->count > m->native.bytes) return bad(error, "tensors outside the file");
    tensors->records = h + tensors_at;
    if (tensors->count != MN_FIXED_TENSORS + 6 * c->encoder_layers + 10 * c->decoder_layers)
        return bad(error, "not as many tensors as its layers need");
    if (mn_u64(h + 120) != m->weights.bytes)
        return mn_fail(error, MN_ERROR_PACK, "weights.bin has %llu bytes, native.bin was written for %llu",
                       (unsigned long long)m->weights.bytes, (unsigned long long)mn_u64(h + 120));
    for (int i = 0; i < 2; i++) {
        const uint8_t *at = h + 104 + 8 * i;
        const uint32_t offset = mn_u32(at), bytes = mn_u32(at + 4);
        if (!bytes && i) m->tokenizers[1] = m->tokenizers[0];
        if (!bytes) continue;
        if (offset > m->native.bytes || bytes > m->native.bytes - offset) return bad(error, "a tokenizer outside the file");
        const mn_status status = mn_tokenizer_open(m->tokenizers + i, h + offset, bytes, error);
        if (status != MN_OK) return status;
    }
    m->has_tokenizer = mn_tokenizer_encodes(m->tokenizers);
    if (m->has_tokenizer && m->tokenizers[0].limit > c->source_vocabulary)
        return mn_fail(error, MN_ERROR_PACK, "native.bin: a tokenizer of %u ids and a source vocabulary of %u", m->tokenizers[0].limit,
                       c->source_vocabulary);
    m->width = MN_ROUND_UP(c->d_model);
    m->encoder_head = MN_ROUND_UP(c->d_model / c->encoder_heads);
    m->decoder_head = MN_ROUND_UP(c->d_model / c->decoder_heads);
    m->encoder_inner = m->encoder_head * c->encoder_heads;
    m->decoder_inner = m->decoder_head * c->decoder_heads;
    m->encoder_hidden = MN_ROUND_UP(c->encoder_ffn);
    m->decoder_hidden = MN_ROUND_UP(c->decoder_ffn);
    return MN_OK;
}

static const mn_kernel_set *find_kernels(const char *name)
{
    for (size_t i = 0; i < mn_kernel_set_count; i++)
        if ((!name || !strcmp(name, mn_kernel_sets[i]->name)) && mn_kernel_set_runs(mn_kernel_sets[i]))
            return mn_kernel_sets[i];
    return NULL;
}

mn_status mn_open_memory(const void *native, size_t native_bytes, const void *weights, size_t weights_bytes,
                         const mn_open_options *options, mn_model **model, mn_error *error)
{
    return mn_open_spans((mn_span){native, native_bytes}, (mn_span){weights, weights_bytes}, NULL, options, model, error);
}

mn_status mn_open_spans(mn_span native, mn_span weights, mn_give_back *give_back, const mn_open_options *options,
                        mn_model **model, mn_error *error)
{
    if (!model) return mn_fail(error, MN_ERROR_ARGUMENT, "there is no place for the model");
    *model = NULL;
    if (!native.data || !weights.data) return mn_fail(error, MN_ERROR_ARGUMENT, "native.bin or weights.bin is not there");
    const char *name = options && options->size >= sizeof *options ? options->kernels : NULL;
    mn_model *m = calloc(1, sizeof *m);
    if (!m) return mn_fail(error, MN_ERROR_MEMORY, "no memory for a model");
    m->native = native;
    m->weights = weights;
    m->give_back = give_back;
    m->kernels = find_kernels(name);
    mn_tensors tensors = {0};
    mn_status status = m->kernels ? read_header(m, &tensors, error)
                                  : mn_fail(error, MN_ERROR_ARGUMENT, "no kernels called %s run here", name);
    if (status == MN_OK) status = mn_lay_out(m, &tensors, error);
    if (status != MN_OK) {
        mn_close(m);
        return status;
    }
    *model = m;
    return MN_OK;
}

const char *mn_kernels(uint32_t index)
{
    for (size_t i = 0; i < mn_kernel_set_count; i++)
        if (mn_kernel_set_runs(mn_kernel_sets[i]) && !index--) return mn_kernel_sets[i]->name;
    return NULL;
}

uint32_t mn_abi_version(void) { return MN_ABI_VERSION; }

mn_status mn_model_info(const mn_model *m, mn_info *info)
{
    if (!m || !info || info->size < sizeof info->size) return MN_ERROR_ARGUMENT;
    const mn_config *c = &m->config;
    const mn_info found = {sizeof found, c->d_model, c->encoder_layers, c->decoder_layers, c->source_vocabulary,
                      c->target_vocabulary, c->max_positions, c->start, c->eos, c->pad, (uint32_t)m->has_tokenizer, m->kernels->name, m->bytes,
                      c->encoder_heads, c->decoder_heads, c->encoder_ffn, c->decoder_ffn, c->unk, c->forced_eos, c->forced_bos,
                      m->bad_count, m->not_first_count, c->no_repeat_ngram, c->min_length, c->early_stopping,
                      (uint32_t)c->renormalize, c->look_layer, c->look_head, c->look_later};
    mn_give(info, &found, sizeof found);
    return MN_OK;
}
