/* 64-bit ARM with products of bytes (SDOT): Cortex-A55, A75, Apple A11 and later. */

#include "kernels.h"

#if defined(__aarch64__)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#elif defined(__GNUC__)
#pragma GCC target("arch=armv8.2-a+dotprod")
#endif

#include <arm_neon.h>
#include <math.h>
#include <string.h>

#define SET neondot
#define NAME "neondot"
#define WIDTH 4
#define SIGNED 1
#define ROWS 2
#define BLOCKS 2
#define FEW 2
#define SPLIT 1
#define WIDENS 0

#include "floats.h"
#include "sumsneon.h"

#include "body.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif

#else
typedef int mn_not_for_this_processor;
#endif
