// levels.h: the kernels for the instruction set in use.
#pragma once

#include "rows/jobs.h"

namespace seginfer {

const Level& kernels();

}  // namespace seginfer
