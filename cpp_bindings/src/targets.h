// targets.h: row kernels of the instruction set in use.
#pragma once

#include "rows/jobs.h"

namespace seginfer {

const Target& target_in_use();

}  // namespace seginfer
