// level.cpp: every row kernel, compiled once per instruction set with SEGINFER_LEVEL and SEGINFER_LANES set.
#include "jobs.h"
#include "simd.h"

// clang-format off: simd.h comes first
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
#define SEGINFER_TABLE(name) SEGINFER_JOIN(level_, name)

namespace seginfer {

const Level SEGINFER_TABLE(SEGINFER_LEVEL){
    SEGINFER_NAME(SEGINFER_LEVEL), preprocess_scratch, preprocess, mask_scratch, mask, overlay};

}  // namespace seginfer
