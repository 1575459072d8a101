// target.cpp: all row kernels. Compiled once per instruction set, with SEGINFER_TARGET and SEGINFER_LANES defined.
#include "jobs.h"
#include "simd.h"

// clang-format off: each header needs those above it
#include "source_rows.h"
#include "filter_rows.h"
#include "preprocess_rows.h"
#include "logit_rows.h"
#include "mask_scratch.h"
#include "contenders.h"
#include "interpolate.h"
#include "mask_rows.h"
#include "overlay_rows.h"
// clang-format on

#define SEGINFER_TEXT(name) #name
#define SEGINFER_NAME(name) SEGINFER_TEXT(name)
#define SEGINFER_JOIN(a, b) a##b
#define SEGINFER_TABLE(name) SEGINFER_JOIN(target_, name)

namespace seginfer {

const Target SEGINFER_TABLE(SEGINFER_TARGET){
    SEGINFER_NAME(SEGINFER_TARGET), preprocess_scratch, preprocess, mask_scratch, mask, overlay};

}  // namespace seginfer
