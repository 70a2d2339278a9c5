/* mobilenmt: offline translation with a pack, in C. This header is the whole interface.

   A model is opened once and never changes; any number of threads may share it. A context belongs to one thread at a
   time and holds all that a translation writes. Text is UTF-8, sizes are in bytes, ids are 32 bits wide.

   Nothing here prints, exits, or keeps global state. What fails returns a status other than MN_OK and fills the error
   it was given, if any. The interface only grows within one MN_ABI_VERSION. */

#ifndef MOBILENMT_H
#define MOBILENMT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32) && !defined(MN_STATIC)
#define MN_API __declspec(dllexport)
#elif defined(__GNUC__)
#define MN_API __attribute__((visibility("default")))
#else
#define MN_API
#endif

#define MN_ABI_VERSION 1

typedef enum mn_status {
    MN_OK = 0,
    MN_ERROR_ARGUMENT = 1, /* the caller asked for what makes no sense: an id out of range, a beam of 0 */
    MN_ERROR_PACK = 2,     /* the files are damaged, or not of this format, or their weights so large that numbers overflow */
    MN_ERROR_MEMORY = 3,   /* the system gives no more, or the limit of the context is reached */
    MN_ERROR_STOPPED = 4,  /* a callback asked to stop */
    MN_ERROR_DEADLINE = 5, /* the time given is over */
    MN_ERROR_FILE = 6,     /* a file cannot be read */
    MN_PAUSED = 7          /* no error: `pause_seconds` are over, and mn_resume goes on */
} mn_status;

typedef struct mn_error {
    mn_status status;
    char message[252]; /* ends with a zero byte; what is wrong, and where */
} mn_error;

typedef struct mn_model mn_model;
typedef struct mn_context mn_context;

/* The version of the interface this library was built with: MN_ABI_VERSION. */
MN_API uint32_t mn_abi_version(void);

/* Names of the kernels this processor can run, best first; NULL from the end on. */
MN_API const char *mn_kernels(uint32_t index);

typedef struct mn_open_options {
    uint32_t size;       /* sizeof(mn_open_options) */
    const char *kernels; /* a name of mn_kernels(); NULL for the best */
} mn_open_options;

/* Open a pack that lies in memory: its files native.bin and weights.bin. The bytes of native.bin and weights.bin must
   stay where they are until mn_close. */
MN_API mn_status mn_open_memory(const void *native, size_t native_bytes, const void *weights, size_t weights_bytes,
                                const mn_open_options *options, mn_model **model, mn_error *error);

/* Open a pack's folder; its files are mapped, not read. */
MN_API mn_status mn_open(const char *folder, const mn_open_options *options, mn_model **model, mn_error *error);

/* Every context of the model must be gone before. NULL is fine. */
MN_API void mn_close(mn_model *model);

#define MN_NO_TOKEN UINT32_MAX

typedef struct mn_info {
    uint32_t size; /* sizeof(mn_info), set by the caller; what lies beyond is left alone */
    uint32_t d_model, encoder_layers, decoder_layers;
    uint32_t source_vocabulary, target_vocabulary, max_positions;
    uint32_t start, eos, pad;
    uint32_t tokenizer;  /* 1 if mn_encode and mn_decode work */
    const char *kernels; /* the name of those in use */
    uint64_t bytes;      /* memory of the model that is not the files' own */
    uint32_t encoder_heads, decoder_heads, encoder_ffn, decoder_ffn;
    uint32_t unk, forced_eos, forced_bos; /* MN_NO_TOKEN where there is none */
    uint32_t bad_tokens, not_first_tokens; /* how many */
    uint32_t no_repeat_ngram, min_length; /* 0 for no rule */
    uint32_t early_stopping; /* 0 false, 1 true, 2 never */
    uint32_t renormalize;
    uint32_t alignment_layer, alignment_head, alignment_later; /* the head MN_NO_TOKEN: the mean of the layer's */
} mn_info;

MN_API mn_status mn_model_info(const mn_model *model, mn_info *info);

/* A context holds at most `limit` bytes; 0 for 1 GiB. It grows to what the longest sentence so far needed. Whether a call
   fits the limit does not depend on the calls before it: memory that they left is given back where it is in the way, and
   what a long text took is given back when mn_encode returns. */
MN_API mn_status mn_context_new(const mn_model *model, uint64_t limit, mn_context **context, mn_error *error);
MN_API void mn_context_free(mn_context *context);

#define MN_NO_RULE UINT32_MAX

/* Called after each step of a search with the token chosen for `sentence` (greedy) or the best so far (beam); anything
   but 0 ends the call with MN_ERROR_STOPPED. */
typedef int (*mn_callback)(void *user, uint32_t sentence, uint32_t token);

typedef struct mn_request {
    uint32_t size; /* sizeof(mn_request), set by the caller; what lies beyond a smaller size counts as zero */
    uint32_t sentences;
    const uint32_t *ids;         /* all sentences one after the other, each with its end token */
    const uint32_t *lengths;     /* [sentences], end token counted */
    const uint32_t *max_lengths; /* [sentences], start and end token counted, from 2 to max_positions */
    uint32_t min_length;         /* no end token before this many tokens, the start token counted; the pack may want more */
    uint32_t beam_size;          /* 1 for greedy search */
    uint32_t n_best;             /* at most beam_size */
    float length_penalty;        /* exponent of the length in the score */
    const uint32_t *prefix;      /* tokens that every output begins with, no end token; none: the pack's, if it has one */
    uint32_t prefix_length;
    const uint32_t *forbidden; /* tokens that are never generated, beside those of the pack */
    uint32_t forbidden_count;
    uint32_t no_repeat_ngram; /* no n-gram of this many tokens comes twice, start token counted; 0: as the pack says; MN_NO_RULE: none */
    uint32_t rows;            /* most rows at a time in a step; 0 for what suits the processor */
    uint32_t alignment;       /* 1: fill `alignments` */
    mn_callback callback;     /* or NULL */
    void *user;
    double callback_seconds; /* call it at most so often; 0 for each token */
    double seconds; /* time for the whole call; 0 for no limit */
    const uint32_t *prefix_lengths; /* [sentences] or NULL: `prefix` holds one for each, one after the other */
    double pause_seconds; /* return MN_PAUSED about so often, after a token at the earliest; 0: never. All that the request
                             points to must stay until the search is done or left */
    /* Phrases that the outputs hold, each as often as it is given, all if there is a way in max_length: beam search with
       dynamic beam allocation, beam_size 2 at least. Those of a sentence are no more than 64. What the prefix holds counts;
       no_repeat_ngram bans no token that leads on in a phrase. */
    const uint32_t *phrases;        /* tokens, no end token: one phrase after the other, one sentence after the other */
    const uint32_t *phrase_lengths; /* of each, 1 at least */
    const uint32_t *phrase_counts;  /* [sentences] or NULL for none */
    const uint8_t *continuing;      /* [target_vocabulary] or NULL: 1 for tokens that may not follow a phrase: letters in a word */
} mn_request;

/* What came out: hypothesis h of sentence s is number s * n_best + h. Owned by the context until its next call. */
typedef struct mn_result {
    uint32_t size; /* sizeof(mn_result), set by the caller; what lies beyond is left alone */
    uint32_t count;
    const uint32_t *const *ids;        /* [count], without start token and without end token */
    const uint32_t *lengths;           /* [count] */
    const uint32_t *generated;         /* [count], tokens generated, the end token counted */
    const float *scores;               /* [count], sum of log-probabilities over generated^length_penalty */
    const float *const *token_scores;  /* [count][generated], log-probability of each token */
    const uint32_t *const *alignments; /* [count][length], the source position each token looks at; NULL if not asked */
} mn_result;

MN_API mn_status mn_translate(mn_context *context, const mn_request *request, mn_result *result, mn_error *error);

/* Go on with what paused. A search that is not gone on with costs nothing: the context's next mn_translate drops it. */
MN_API mn_status mn_resume(mn_context *context, mn_result *result, mn_error *error);

/* Ids of a text, without end token. The text is one line: what is no character, control characters and line ends count
   as the host cleaned them. Writes at most `room` ids, and the number there would be to `count`. */
MN_API mn_status mn_encode(mn_context *context, const char *text, size_t bytes, uint32_t *ids, size_t room,
                           size_t *count, mn_error *error);

/* Whether ids of the source, as mn_encode gives them, are all pieces of text: not 1 but 0 to `known` where one stands for
   what the vocabulary lacks, be it a byte of it, or lies outside the vocabulary. */
MN_API mn_status mn_knows(const mn_model *model, const uint32_t *ids, size_t length, int *known);

/* Text of ids of the target; special ids and those outside the vocabulary are left out, and so are bytes that make no
   character. Writes at most `room` bytes (no
   zero byte at the end), and the number there would be to `count`. */
MN_API mn_status mn_decode(const mn_model *model, const uint32_t *ids, size_t length, char *text, size_t room,
                           size_t *count, mn_error *error);

/* The piece of a target id as the vocabulary has it, marks left out; "" outside the vocabulary. Not terminated. */
MN_API mn_status mn_piece(const mn_model *model, uint32_t id, const char **piece, size_t *bytes);

#ifdef __cplusplus
}
#endif
#endif
