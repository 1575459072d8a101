// targets.cpp: detects the machine's instruction sets at run time, and uses the best by default.
#include "targets.h"

#include <atomic>

#include "seginfer/cpu.h"

namespace seginfer {
namespace {

std::vector<const Target*> supported() {
  std::vector<const Target*> found{&target_portable};
#if defined(SEGINFER_X86_TARGETS)
  __builtin_cpu_init();
  const bool has_avx2 =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
  const bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                          __builtin_cpu_supports("avx512vbmi");
  if (has_avx2) found.push_back(&target_avx2);
  if (has_avx2 && has_avx512) found.push_back(&target_avx512);
#endif
  return found;
}

std::atomic<const Target*>& in_use() {
  static std::atomic<const Target*> chosen{supported().back()};
  return chosen;
}

}  // namespace

const Target& target_in_use() { return *in_use().load(std::memory_order_relaxed); }

std::vector<std::string> targets() {
  std::vector<std::string> names;
  for (const Target* one : supported()) names.emplace_back(one->name);
  return names;
}

std::string target() { return target_in_use().name; }

void use_target(const std::string& name) {
  std::string known;
  for (const Target* one : supported()) {
    if (one->name == name) return in_use().store(one);
    known += std::string(known.empty() ? "" : ", ") + one->name;
  }
  throw InputError("expected an instruction set that this machine has, " + known + ", got " + name);
}

}  // namespace seginfer
