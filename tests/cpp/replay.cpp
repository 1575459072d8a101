// replay.cpp: runs the files of its arguments through a fuzzer, without libFuzzer.
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

int main(int count, char** paths) {
  for (int i = 1; i < count; ++i) {
    std::fprintf(stderr, "%s\n", paths[i]);  // the last one is the culprit
    std::ifstream file(paths[i], std::ios::binary);
    const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
    LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  }
  std::printf("%d inputs\n", count - 1);
}
