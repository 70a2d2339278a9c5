/* Weights as the kernels want them, made from weights.bin when a model is opened. */

#ifndef MN_LAYOUT_H
#define MN_LAYOUT_H

#include "model.h"

#define MN_FIXED_TENSORS 12 /* records before those of the layers; see docs/core/native-format.md */

typedef struct mn_tensors {
    const uint8_t *records;
    uint32_t count;
} mn_tensors;

/* mn_open_memory, of a mapped weights.bin if there is a `give_back`. */
mn_status mn_open_spans(mn_span native, mn_span weights, mn_give_back *give_back, const mn_open_options *options,
                        mn_model **model, mn_error *error);

mn_status mn_lay_out(mn_model *model, const mn_tensors *tensors, mn_error *error);

#endif
